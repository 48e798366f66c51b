"""The book as one PDF: made from small pages here, and the printed book itself where there is one."""

from __future__ import annotations

import functools
import os
import re
import shutil
import unicodedata
from pathlib import Path

import pytest
from contents import pages

pytest.importorskip("bs4", reason="the book's tools are not installed: pip install -r requirements.txt")
pypdf = pytest.importorskip("pypdf", reason="the book's tools are not installed: pip install -r requirements.txt")

import chromium  # noqa: E402
import offer_pdf  # noqa: E402
import pdf  # noqa: E402
from bs4 import BeautifulSoup  # noqa: E402
from one_document import one_document, rewritten  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"

PAGE = """<!DOCTYPE html><html lang="en" data-theme="auto"><head><link rel="stylesheet" href="{up}_static/book.css">
<script src="{up}_static/other.js"></script><meta name="docbuild:last-update" content="Nov 3, 2026"></head><body>
<ul><!-- pdf --><!-- /pdf --></ul><article class="bd-article"><section id="{id}"><h1>{title}<a class="headerlink"
href="#{id}">#</a></h1>{body}</section></article></body></html>"""
ONE = """<p>See <a href="part/two.html#exercises">the exercises</a>, <a href="part/two.html">the next chapter</a>,
<a href="genindex.html">the index</a>, <a href="https://example.org/x">elsewhere</a>, <a href="#exercises">mine</a>.</p>
<div class="cell"><details class="hide above-input"><summary>Show</summary><div class="cell_input">folded_code()</div>
</details><div class="cell_output"><img src="_images/a.svg" alt="a picture" loading="lazy"></div></div>
<div class="cell"><details class="hide above-input"><summary>Show</summary><div class="cell_input">more_folded()</div>
<div class="cell_output">the folded result</div></details></div>
<div class="cell"><div class="cell_input">listing(f)</div><details class="hide below-input"><summary>Show</summary>
<div class="cell_output"><p class="output"><b class="highlight">def f(): listed_code</b></p></div></details></div>
<details class="claim-card"><summary>A claim</summary><p>Decided by a comparison.</p></details>
<section id="exercises"><h2>Exercises</h2><div class="exercise">Do it.</div><div class="solution">It is done.</div>
</section><section id="references"><span id="papers"></span><h2>References</h2><p>None.</p></section>"""
TWO = """<style>.tall { height: 900px; background: #eee; color: #060; }</style><div class="tall">Filled λ and ℓ</div>
<section id="exercises"><h2>Exercises</h2><p>Back to <a href="../one.html#references">references of one</a>.</p>
</section>"""


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """Two built pages with the same ids; returns the book's root."""
    html = tmp_path / "_build" / "html"
    for folder in ("part", "_images", "_static"):
        (html / folder).mkdir(parents=True)
    (html / "_images" / "a.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    (html / "_static" / "book.css").write_text("p { color: #222 }")
    for name, title, body in (("one", "1. First things", ONE), ("part/two", "2. Second things", TWO)):
        up = "../" * name.count("/")
        (html / f"{name}.html").write_text(PAGE.format(up=up, id="top", title=title, body=body), encoding="utf-8")
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: one\nparts:\n- caption: A part\n  chapters:\n  - file: part/two\n"
    )
    (tmp_path / "_config.yml").write_text("title: A small book\nauthor: Somebody\n")
    return tmp_path


def document(book: Path, site: str = "") -> BeautifulSoup:
    return BeautifulSoup(one_document(book, book / "_build" / "html", site, "")[0], "html.parser")


def test_ids_of_two_pages_never_meet_and_every_link_leads_somewhere(book: Path):
    soup = document(book)
    ids = [element["id"] for element in soup.find_all(id=True)]
    assert len(ids) == len(set(ids)) and {"p0-exercises", "p1-exercises"} <= set(ids)
    links = {link.get_text(): link["href"] for link in soup.select(".print-chapter a[href]")}
    assert links == {
        "the exercises": "#p1-exercises",
        "the next chapter": "#p1",
        "elsewhere": "https://example.org/x",
        "mine": "#p0-exercises",
        "references of one": "#p0-references",
    }
    assert {link["href"][1:] for link in soup.select("a[href^='#']")} <= set(ids)


def test_a_link_to_what_is_not_printed_leads_to_the_published_book():
    numbers = {"one": 0, "part/two": 1}
    assert rewritten("../genindex.html", "part/two", numbers, "") is None
    assert rewritten("../genindex.html", "part/two", numbers, "https://x.org/b/") == "https://x.org/b/genindex.html"
    assert rewritten("#a%20b", "part/two", numbers, "") == "#p1-a b"
    assert rewritten("../one.html", "part/two", numbers, "") == "#p0"


def test_what_is_folded_is_shown_but_for_code_and_solutions_come_last(book: Path):
    soup = document(book)
    text = soup.get_text()
    assert "folded_code" not in text and "more_folded" not in text and "Show" not in text
    assert "listing(f)" in text and "listed_code" not in text
    assert "the folded result" in text and "#" not in soup.h1.get_text()
    assert all(details.has_attr("open") and details.summary for details in soup.find_all("details"))
    first = soup.find(id="p0").get_text()
    assert first.index("References") < first.index("Solutions") < first.index("It is done.")
    assert [part["src"] for part in soup.find_all("img")] == ["_images/a.svg"]
    assert soup.html["data-theme"] == "light" and not soup.find_all("script")


@pytest.fixture
def printed(book: Path, browser) -> pypdf.PdfReader:
    if not any(map(shutil.which, chromium.NAMES)):
        pytest.fail("no Chromium") if os.environ.get("CI") else pytest.skip("no Chromium was found")
    html = book / "_build" / "html"
    text, lines = one_document(book, html, "", offer_pdf.STYLE.read_text(encoding="utf-8"))
    pdf.with_bookmarks(pdf.printed(html, text), lines).write(html / offer_pdf.NAME)
    return pypdf.PdfReader(html / offer_pdf.NAME)


def outline(reader: pypdf.PdfReader) -> list[tuple[int, str, int]]:
    """(depth, title, index of the page) of every bookmark."""
    found = []

    def walk(items, depth: int) -> None:
        for item in items:
            if isinstance(item, list):
                walk(item, depth + 1)
            else:
                found.append((depth, item.title, reader.get_destination_page_number(item)))

    walk(reader.outline, 0)
    return found


def links(reader: pypdf.PdfReader) -> list[tuple[int, str]]:
    """(index of the page, name of the destination) of each link within the PDF."""
    found = []
    for number, page in enumerate(reader.pages):
        for annotation in page.get("/Annots") or ():
            annotation = annotation.get_object()
            target = annotation.get("/Dest") or annotation.get("/A", {}).get("/D")
            if annotation["/Subtype"] == "/Link" and target is not None:
                found.append((number, str(target).removeprefix("/")))
    return found


def loose_fonts(reader: pypdf.PdfReader) -> list[str]:
    """Fonts that the file does not bring with it."""
    loose = set()
    for page in reader.pages:
        for font in (page["/Resources"].get("/Font") or {}).values():
            font = font.get_object()
            if font["/Subtype"] == "/Type3":
                continue
            inner = font["/DescendantFonts"][0].get_object() if "/DescendantFonts" in font else font
            if not {"/FontFile", "/FontFile2", "/FontFile3"} & set(inner.get("/FontDescriptor", {})):
                loose.add(str(font.get("/BaseFont")))
    return sorted(loose)


@functools.cache
def said(reader: pypdf.PdfReader, number: int) -> str:
    """The text of a page, its lines joined."""
    return " ".join(reader.pages[number].extract_text().split())


def test_a_small_book_is_printed_with_bookmarks_numbers_and_links(printed: pypdf.PdfReader):
    assert outline(printed) == [
        (0, "1. First things", 2),
        (1, "Exercises", 2),
        (1, "References", 2),
        (1, "Solutions", 2),
        (0, "A part", 3),
        (1, "2. Second things", 3),
        (2, "Exercises", 4),
    ]
    contents = said(printed, 1)
    assert re.search(r"1\. First things 3 .*2\. Second things 4 Exercises 5", contents), contents
    numbered = [str(number + 1) in printed.pages[number].extract_text().splitlines()[:2] for number in range(5)]
    assert numbered == [False, True, True, True, True]
    assert "λ and ℓ" in said(printed, 3) and "2. Second things" in said(printed, 3)
    at = {name: printed.get_destination_page_number(place) for name, place in pdf.places(printed).items()}
    inside = links(printed)
    assert {(2, "p1-exercises"), (2, "p1"), (2, "p0-exercises"), (4, "p0-references")} <= set(inside)
    assert (at["p1-exercises"], at["p1"], at["p0-references"]) == (4, 3, 2) and {name for _, name in inside} <= set(at)
    assert loose_fonts(printed) == []


def test_a_high_figure_leaves_room_on_its_page_and_a_folded_result_has_no_frame(browser, book: Path):
    """With the book's own styles, which come first and are to be overruled."""
    if not any(map(shutil.which, chromium.NAMES)):
        pytest.skip("no Chromium was found")
    html = book / "_build" / "html"
    (html / "_images" / "a.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="400" height="900"/>')
    (html / "_static" / "book.css").write_text(
        (ROOT / "_static" / "book.css").read_text() + ".admonition { border: 4px solid blue }"
    )
    one = (html / "one.html").read_text().replace('class="hide ', 'class="admonition hide ')
    (html / "one.html").write_text(one)
    text, _ = one_document(book, html, "", offer_pdf.STYLE.read_text(encoding="utf-8"))
    with chromium.served(html, {"/book.html": text}) as site:
        page = browser.new_page(viewport={"width": pdf.TEXT_WIDTH, "height": 970})
        page.emulate_media(media="print")
        page.goto(f"{site}/book.html")
        millimetres = page.locator(".cell_output img").bounding_box()["height"] * 25.4 / 96
        frames = page.locator(".cell .hide").evaluate_all("all => all.map(e => getComputedStyle(e).borderLeftWidth)")
        page.close()
    assert 100 < millimetres <= 125.1 and frames == ["0px"]


TABLE = """<div class="cell"><div class="cell_output"><table><tbody><tr><th>a network with a long name</th>{}
</tr></tbody></table></div></div>"""
LINES = "e => { const r = document.createRange(); r.selectNodeContents(e); return r.getClientRects().length; }"


@pytest.mark.parametrize(("intervals", "stay"), [(5, True), (10, False)])
def test_an_interval_stays_on_its_line_where_the_table_need_not_be_much_smaller(
    browser, book: Path, intervals: int, stay: bool
):
    if not any(map(shutil.which, chromium.NAMES)):
        pytest.skip("no Chromium was found")
    html = book / "_build" / "html"
    (html / "_static" / "book.css").write_text((ROOT / "_static" / "book.css").read_text())
    body = TABLE.format("<td>+1.23 [+0.11, +2.35]</td>" * intervals)
    (html / "one.html").write_text(PAGE.format(up="", id="top", title="One", body=body))
    document, _ = one_document(book, html, "", offer_pdf.STYLE.read_text(encoding="utf-8"))
    with chromium.served(html, {"/book.html": document}) as site:
        page = browser.new_page(viewport={"width": pdf.TEXT_WIDTH, "height": 970})
        page.emulate_media(media="print")
        page.goto(f"{site}/book.html")
        page.evaluate(pdf.FIT)
        assert page.evaluate(pdf.CUT) == []
        name, *cells = [cell.evaluate(LINES) for cell in page.locator("table :is(th, td)").all()]
        page.close()
    assert (set(cells) == {1}) is stay and (name <= 2 or not stay), (name, cells)


def test_what_does_not_fit_on_a_page_is_refused(browser, book: Path):
    if not any(map(shutil.which, chromium.NAMES)):
        pytest.skip("no Chromium was found")
    page = book / "_build" / "html" / "one.html"
    page.write_text(page.read_text().replace("<p>None.", '<p style="white-space:nowrap">' + "wide " * 99), "utf-8")
    text, _ = one_document(book, page.parent, "", offer_pdf.STYLE.read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match="out of the page: .*wide wide"):
        pdf.printed(page.parent, text)


def test_the_pages_link_to_the_pdf_while_it_is_theirs(book: Path):
    html = book / "_build" / "html"
    plain = (html / "part" / "two.html").read_text()
    assert not offer_pdf.offer(book, html) and (html / "part" / "two.html").read_text() == plain
    (html / offer_pdf.NAME).write_bytes(b"%PDF" * 600_000)
    (html.parent / offer_pdf.RECORD).write_text(offer_pdf.digest(book, html))
    for _ in range(2):
        assert offer_pdf.offer(book, html)
        assert (html / "part" / "two.html").read_text().count(
            '<a href="../book.pdf">The book as a PDF, 2.4 MB</a>'
        ) == 1
        assert 'href="book.pdf"' in (html / "one.html").read_text()
    (html / "one.html").write_text((html / "one.html").read_text().replace("None.", "Some."))
    assert not offer_pdf.offer(book, html)
    assert (html / "part" / "two.html").read_text() == plain and not (html / offer_pdf.NAME).exists()


# ---- The printed book itself


@pytest.fixture(scope="module")
def whole() -> pypdf.PdfReader:
    printed_, why = HTML / offer_pdf.NAME, ""
    if not printed_.is_file() or not (HTML.parent / "pages.json").is_file():
        why = "the book has not been printed: run `make pdf` first"
    elif (HTML.parent / offer_pdf.RECORD).read_text().strip() != offer_pdf.digest(ROOT, HTML):
        why = "the printed book is not that of these pages: run `make pdf` first"
    if why:
        pytest.fail(why) if os.environ.get("CI", "").lower() in ("true", "1") else pytest.skip(why)
    return pypdf.PdfReader(printed_)


@functools.cache
def whole_document() -> tuple[str, list]:
    return one_document(ROOT, HTML, "", "")


def letters(text: str) -> str:
    """Text without what a line break or a formula may change."""
    return re.sub(r"[^A-Za-z0-9]", "", unicodedata.normalize("NFKC", text))


@pytest.mark.slow
def test_every_chapter_and_section_has_a_bookmark_that_leads_to_its_heading(whole: pypdf.PdfReader):
    _, lines = whole_document()
    marks = outline(whole)
    assert [title for _, title, _ in marks] == [line.title for line in lines]
    assert sum(line.level == 1 for line in lines) == len(pages(ROOT))
    for page in pages(ROOT):
        soup = BeautifulSoup((HTML / f"{page}.html").read_text(encoding="utf-8"), "html.parser")
        headings = {letters(h.get_text().removesuffix("#")) for h in soup.select("article h2")}
        assert headings <= {letters(title) for _, title, _ in marks}, page
    lost = [
        title
        for (_, title, page), line in zip(marks, lines, strict=True)
        if line.id and letters(title) not in letters(said(whole, page))
    ]
    assert lost == []


@pytest.mark.slow
def test_links_within_the_printed_book_lead_to_where_they_say(whole: pypdf.PdfReader):
    text, lines = whole_document()
    asked = {link["href"][1:] for link in BeautifulSoup(text, "html.parser").select("a[href^='#']")}
    at = {name: whole.get_destination_page_number(place) for name, place in pdf.places(whole).items()}
    inside = links(whole)
    assert asked - {name for _, name in inside} == set() and {name for _, name in inside} - set(at) == set()
    # the number beside each line of the contents is that of its page
    contents = "".join(said(whole, number) for number in range(1, min(at.values())))
    assert [line for line in lines if line.level == 1 and not re.search(rf"\b{at[line.id] + 1}\b", contents)] == []


@pytest.mark.slow
def test_the_printed_book_brings_its_fonts_and_can_be_searched(whole: pypdf.PdfReader):
    assert loose_fonts(whole) == []
    empty = [number + 1 for number in range(len(whole.pages)) if len(said(whole, number)) < 20]
    assert empty == []
    text = " ".join(said(whole, number) for number in range(len(whole.pages)))
    for word in ("decoupled", "Loshchilov", "λ", "3096511"):
        assert word in text, word
