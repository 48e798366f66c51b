"""How the book is found and searched: addresses, descriptions, symbols, the index; and searching in Chromium."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import pyplot as plt

nodes = pytest.importorskip("docutils.nodes", reason="the book's tools are not installed")
pytest.importorskip("sphinx", reason="the book's tools are not installed: pip install -r requirements.txt")
pytest.importorskip("pybtex", reason="the book's tools are not installed: pip install -r requirements.txt")

import chromium  # noqa: E402
from addresses import github_pages, site_address  # noqa: E402
from contents import pages  # noqa: E402
from docutils.frontend import get_default_settings  # noqa: E402
from docutils.utils import new_document  # noqa: E402
from finding import _address, _tell, description  # noqa: E402
from index_entries import authors, tags  # noqa: E402
from plain_math import plain  # noqa: E402
from search_words import words  # noqa: E402
from social_card import ALT, CARD, SIZE, _draw, maps  # noqa: E402
from sphinx.search import IndexBuilder  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
STORES = [
    f"_search_index_{name}"
    for name in "titles filenames mapping title_mapping all_titles index_entries objtypes objnames".split()
]  # of Sphinx's environment


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, ""),
        ({"BOOK_SITE_URL": "https://example.org/book"}, "https://example.org/book/"),
        ({"GITHUB_REPOSITORY": "Some/Book"}, "https://some.github.io/Book/"),
        ({"GITHUB_REPOSITORY": "Some/some.github.io"}, "https://some.github.io/"),
        ({"GITHUB_REPOSITORY": "o/n", "GITHUB_SERVER_URL": "https://git.example.org"}, ""),
        ({"GITHUB_REPOSITORY": "o/n", "BOOK_SITE_URL": "http://h:80/"}, "http://h:80/"),
    ],
)
def test_the_publisher_says_where_the_book_is_read(environment: dict[str, str], address: str):
    assert site_address(environment) == address


@pytest.mark.parametrize(
    ("repository", "address"),
    [("https://github.com/Owner/name", "https://owner.github.io/name/"), ("", "")],
)
def test_the_notebooks_of_a_clone_lead_to_the_pages_of_its_origin(repository: str, address: str):
    assert github_pages(repository) == address


def test_an_address_that_is_none_is_named():
    with pytest.raises(ValueError, match=r"BOOK_SITE_URL must be an address .*, not 'example.org/x'"):
        site_address({"BOOK_SITE_URL": "example.org/x"})


@pytest.mark.parametrize(
    ("tex", "text"),
    [
        (r"\beta_1 m + (1-\beta_1)\,\tilde g", "β₁ m + (1-β₁) g"),
        (r"1/(\eta\lambda)", "1/(ηλ)"),
        (r"\frac{a}{\sqrt{v}}", r"a√v"),
        (r"\frac{a}{b} \leq \mathrm{rms}(w)", "a/b ≤ rms(w)"),
        (r"\begin{aligned} \ell &= 0 \\ \log x \end{aligned}", "ℓ = 0 log x"),
    ],
)
def test_formulas_become_the_symbols_that_readers_see(tex: str, text: str):
    assert plain(tex) == text


def paragraph(*parts: object) -> nodes.document:
    document = new_document("page", get_default_settings())
    children = [part if isinstance(part, nodes.Node) else nodes.Text(part) for part in parts]
    document += nodes.section("", nodes.title("", "Title"), nodes.paragraph("", "", *children), ids=["title"])
    return document


def test_a_description_is_the_first_paragraph_in_plain_text():
    assert description(paragraph("Decay ", nodes.math("", r"\lambda"), " pulls\nevenly.")) == "Decay λ pulls evenly."
    long = description(paragraph("word " * 99))
    assert len(long) <= 200 and long.endswith("word …")
    assert description(new_document("page", get_default_settings())) == ""


def test_the_search_knows_symbols_and_no_tex():
    document = paragraph("Set ", nodes.math("", r"\eta\lambda \approx \frac{\ell}{2}"), ".")
    found = words(IndexBuilder(SimpleNamespace(**dict.fromkeys(STORES, {})), "en", {}, ""), document)
    assert {"η", "λ", "ℓ", "Set"} <= set(found.words) and not {"lambda", "frac"} & set(found.words)
    assert "lambda" in document.astext()  # the page itself stays


def test_the_site_map_and_the_page_for_lost_readers_need_an_address(tmp_path: Path):
    config = SimpleNamespace(html_baseurl="https://o.github.io/b/", html_title="A & B", project="x")
    app = SimpleNamespace(
        config=config,
        builder=SimpleNamespace(format="html"),
        outdir=str(tmp_path),
        env=SimpleNamespace(found_docs={"chapters/b", "chapters/a"}),
    )
    _address(app, None)
    found = re.findall("<loc>(.*?)</loc>", (tmp_path / "sitemap.xml").read_text())
    assert found == ["https://o.github.io/b/chapters/a.html", "https://o.github.io/b/chapters/b.html"]
    assert '<a href="https://o.github.io/b/">A &amp; B</a>' in (tmp_path / "404.html").read_text()
    config.html_baseurl = ""
    _address(app, None)
    assert list(tmp_path.iterdir()) == []


def told(site: str, root: Path, outdir: Path) -> tuple[dict[str, str], Path]:
    """What the head of a page of a book in `root` says (name → content), and where its card is drawn."""
    title = "Decoupled: what AdamW's weight decay really does"
    config = SimpleNamespace(html_baseurl=site, html_title=title, project="x")
    (outdir / "_static").mkdir(exist_ok=True)
    app = SimpleNamespace(
        config=config,
        builder=SimpleNamespace(format="html"),
        env=SimpleNamespace(titles={"chapters/a": nodes.title("", "A & B")}),
        srcdir=str(root),
        outdir=str(outdir),
    )
    context: dict[str, str] = {}
    _tell(app, "chapters/a", "page.html", context, paragraph("Decay pulls evenly."))
    _draw(app, None)
    found = re.findall(r'<meta (?:name|property)="(.*?)" content="(.*?)" />', context["metatags"])
    return dict(found), outdir / CARD


def test_a_link_to_a_page_shows_a_card_where_the_address_is_known(tmp_path: Path):
    said, card = told("https://o.github.io/b/", ROOT, tmp_path)
    assert said["og:image"] == f"https://o.github.io/b/{CARD}" and said["twitter:card"] == "summary_large_image"
    assert said["og:title"] == "A &amp; B" and said["og:description"] == "Decay pulls evenly."
    assert (said["og:image:width"], said["og:image:height"]) == ("1200", "630") and said["og:image:alt"] == ALT
    picture = plt.imread(card)
    assert picture.shape[1::-1] == SIZE and card.stat().st_size < 300_000
    # the title above and the brightest of each map, left, in the middle, right; nothing at the edges
    white, yellow = (picture[:, :, :3].min(2) > 0.9), (picture[:, :, 0] > 0.85) & (picture[:, :, 2] < 0.3)
    assert white[:120].sum() > 5000
    assert all(yellow[260:530, left : left + 400].sum() > 2000 for left in (0, 400, 800))
    assert len({tuple(pixel) for pixel in [*picture[:, :40].reshape(-1, 4), *picture[:, -40:].reshape(-1, 4)]}) == 1
    # without an address, or without the record, none is named and none drawn, and an old one goes
    assert told("", ROOT, tmp_path)[0] == {"description": "Decay pulls evenly."} and not card.exists()
    said, _ = told("https://o.github.io/b/", tmp_path, tmp_path)
    assert "og:image" not in said and said["twitter:card"] == "summary" and not card.exists()


def test_the_best_decays_lie_as_the_text_of_the_card_says():
    slopes = []
    for runs in maps(ROOT / "ledger")[0].values():
        best = runs.groupby(["lr", "decay"])["value"].mean().unstack().idxmax(axis="columns")
        slopes.append(np.polyfit(np.log(best.index), np.log(best), 1)[0])
    assert max(slopes[:2]) < 0.4 and slopes[2] > 0.8, slopes


def test_tags_and_authors_are_in_the_index():
    assert tags(ROOT / "ledger", "overfitting") == ["3096487"]
    assert tags(ROOT / "ledger", "preface") == []
    people = authors(ROOT / "chapters" / "references.bib")
    assert "Loshchilov, Ilya" in people and len(people) == len(set(people)) > 100
    assert [name for name in people if re.search(r"[\\{}$]", name)] == []


# ---- Marking the words


def test_each_word_is_marked_wherever_it_stands(browser, tmp_path: Path):
    shutil.copy(ROOT / "_static" / "search.js", tmp_path)
    text = "<p><em>decay</em> of decay, Decay</p><p>decay</p><p>no such</p><p>decaying <b>decay</b></p>"
    page = f'<article class="bd-article">{text}</article><script>const unfold = () => {{}};</script>'
    page = f"<!doctype html><meta charset=utf-8>{page}<script src=search.js></script>"
    with chromium.served(tmp_path, {"/a.html": page, "/b.html": "<!doctype html>"}) as site:
        context = browser.new_context()
        opened = context.new_page()
        opened.goto(f"{site}/b.html")
        opened.evaluate("localStorage.setItem('sphinx_highlight_terms', 'decay')")
        opened.goto(f"{site}/a.html")
        marked = opened.locator("article .highlighted").all_text_contents()
        assert marked == ["decay", "decay", "Decay", "decay", "decay", "decay"]
        assert opened.locator("article").inner_text().split() == re.sub("<.*?>", " ", text).split()
        context.close()


# ---- The built pages


def built() -> None:
    why = "" if (HTML.parent / "pages.json").exists() else "there is no built book: run `make book` first"
    why = why or ("" if any(map(shutil.which, chromium.NAMES)) else "no Chromium was found")
    if why:
        pytest.fail(why) if os.environ.get("CI", "").lower() in ("true", "1") else pytest.skip(why)


@pytest.fixture(scope="module")
def searching(browser):
    """A function that types words into the search and returns the page with its results."""
    built()
    with chromium.served(HTML) as site:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")

        def search(words: str):
            page = context.new_page()
            page.goto(f"{site}/search.html?q={words}")
            page.wait_for_function("document.querySelector('.search-summary')?.innerText.includes('found')")
            page.wait_for_function(
                "[...document.querySelectorAll('#search-results li')].slice(0, 5).every(e => e.children.length > 1)"
            )
            return page

        yield search


def results(page) -> list[str]:
    links = page.locator("#search-results li > a").evaluate_all("all => all.map(e => new URL(e.href).pathname)")
    return [link.removeprefix("/").removesuffix(".html") for link in links]


@pytest.mark.parametrize(
    ("words", "leads_to"),
    [
        ("3096511", "chapters/frontier/transfer_learning"),  # a tag of the source
        ("λ", "chapters/notation"),  # where it stands in formulas alone
        ("ℓ", "chapters/foundations/decoupled_weight_decay"),
        ("Loshchilov", "chapters/references"),
        ("Loshchilov Hutter", "chapters/references"),
        ("timescale", "chapters/glossary"),
    ],
)
def test_tags_symbols_and_papers_are_found_and_marked_where_they_stand(searching, words: str, leads_to: str):
    page = searching(words)
    assert leads_to in results(page)
    page.locator(f"#search-results li > a[href*='{leads_to}.html']").first.click()
    page.wait_for_url(f"**/{leads_to}.html*")
    page.wait_for_function("document.querySelector('article .highlighted')")
    marked = page.locator("article .highlighted:not(.math)").all_text_contents()
    assert {word.lower() for word in words.split()} >= {text.lower() for text in marked}
    assert page.locator("article .highlighted:visible").first.is_visible()
    assert page.locator("mjx-container .highlighted, nav .highlighted").count() == 0
    page.keyboard.press("Escape")
    assert page.locator(".highlighted").count() == 0
    page.close()


def test_snippets_are_what_a_reader_sees(searching):
    page = searching("decay")
    found = results(page)
    assert len(set(found) & set(pages(ROOT))) > 10
    page.wait_for_function(
        "[...document.querySelectorAll('#search-results li')].every(e => e.querySelector('p.context, span'))"
    )
    snippets = page.locator("#search-results p.context").all_inner_texts()
    noise = re.compile(r"(Show|Hide) code|\\[a-zA-Z(\[]|\$\$|\.ipynb|Print to PDF|#$|# ")
    assert len(snippets) > 10 and [text for text in snippets if noise.search(text)] == []
    page.close()


def test_the_index_is_reached_from_every_page_and_leads_to_places(searching):
    for page in pages(ROOT):
        text = (HTML / f"{page}.html").read_text(encoding="utf-8")
        assert re.search(r'class="bd-links finding-links"[^§]*?href="[./]*genindex\.html">Index<', text), page
    index = (HTML / "genindex.html").read_text(encoding="utf-8")
    for entry in ("silent weight", "decoupled", "3096511", "Loshchilov, Ilya", "λ (decoupled decay)"):
        assert entry in index, entry
