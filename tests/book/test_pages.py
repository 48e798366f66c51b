"""The built book in headless Chromium: every page, on a desk and on a phone, light and dark.

`make book` first; where there is no built book, or no Chromium, these tests are skipped and say so. In CI (CI=true)
they fail instead. SCREENSHOTS=folder keeps a picture of each page.
"""

from __future__ import annotations

import functools
import json
import os
import re
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import nbformat
import pytest
from chromium import served
from contents import pages, source
from exercises import exercises
from plain_markdown import raw_constructs
from unavailable import unavailable

bs4 = pytest.importorskip("bs4", reason="the book's tools are not installed: pip install -r requirements.txt")
audit_pages = pytest.importorskip("audit_pages", reason="the book's tools are not installed")

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
PAGES = pages(ROOT)
FOLDS = ":is(.exercise, .solution)"
WIDTHS = {"desk": (1280, 900), "phone": (390, 844)}
CONTRAST = 4.5  # WCAG 2, level AA, for text


@pytest.fixture(scope="session")
def html() -> Path:
    built = ROOT / "_build" / "pages.json"  # written when a build has succeeded
    if not built.exists():
        unavailable("there is no built book: run `make book` first")
    written_from = [source(ROOT, page) for page in PAGES] + [ROOT / "_config.yml", ROOT / "_toc.yml"]
    written_from += [path for folder in ("_ext", "_static") for path in (ROOT / folder).iterdir() if path.is_file()]
    newer = [path.name for path in written_from if path.stat().st_mtime > built.stat().st_mtime]
    if newer:
        unavailable(f"the built book is older than {', '.join(newer)}: run `make book` first")
    return HTML


@pytest.fixture(scope="session")
def site(html: Path):
    """The built book on a port of this machine; its address."""
    with served(html) as address:
        yield address


@pytest.fixture
def opened(site: str, browser, request: pytest.FixtureRequest):
    """A page of the book as a reader sees it, and what happened while it loaded."""
    page_name, width, theme = request.param
    context = browser.new_context(
        viewport=dict(zip(("width", "height"), WIDTHS[width], strict=True)), color_scheme=theme, reduced_motion="reduce"
    )
    page = context.new_page()
    requests, problems = [], []
    page.on("request", lambda it: requests.append(it.url))
    page.on("response", lambda it: problems.append(f"{it.status} {it.url}") if it.status >= 400 else None)
    page.on("requestfailed", lambda it: problems.append(f"failed: {it.url} {it.failure}"))
    page.on("console", lambda it: problems.append(f"console: {it.text}") if it.type in ("error", "warning") else None)
    page.on("pageerror", lambda it: problems.append(f"script: {it}"))
    page.goto(f"{site}/{page_name}.html", wait_until="networkidle")
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        name = f"{page_name.replace('/', '-')}-{width}-{theme}.png"
        page.screenshot(path=Path(folder) / name, full_page=True)
    page.requests, page.problems, page.theme = requests, problems, theme
    yield page
    context.close()


def axe_violations(page) -> list[str]:
    """What axe finds wrong with the page as it stands: rule, and the first elements."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options=audit_pages.AXE).response["violations"]
    return [f"{one['id']}: {[node['html'][:120] for node in one['nodes'][:4]]}" for one in found]


def loaded_bytes(page, html: Path, site: str) -> dict[str, int]:
    """The size of each file that the page has asked for."""
    names = {unquote(urlsplit(url).path).lstrip("/") for url in page.requests if url.startswith(f"{site}/")}
    return {name: (html / name).stat().st_size for name in names}


each_view = pytest.mark.parametrize(
    "opened",
    [(page, width, theme) for page in PAGES for width in WIDTHS for theme in ("light", "dark")],
    indirect=True,
    ids=lambda view: "-".join(view),
)

# The colours of every text of the article against what lies behind it. A background with an alpha is mixed with the one
# below; text under a gradient or a picture is left out.
LOW_CONTRAST = """
(least) => {
  const rgba = (text) => {
    const n = text.match(/[\\d.]+/g).map(Number);
    const unit = text.startsWith("color(") ? 255 : 1;
    return [n[0] * unit, n[1] * unit, n[2] * unit, n.length > 3 ? n[3] : 1];
  };
  const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3]));
  const light = (c) => {
    const [r, g, b] = c.map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.backgroundImage !== "none") return null;
      layers.push(rgba(style.backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const found = [];
  for (const element of document.querySelectorAll(".bd-article *")) {
    const text = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
    if (!text || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (element.closest("mjx-container, .headerlink, button, [aria-hidden=true]")) continue;
    const ground = behind(element);
    if (!ground) continue;
    const ink = over(rgba(getComputedStyle(element).color), ground);
    const [low, high] = [light(ink), light(ground)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < least) {
      const ancestry = [...element.classList, "in", ...(element.parentElement?.classList ?? [])].join(" ");
      found.push(`${ratio.toFixed(2)}: ${text.slice(0, 40)} <${element.localName} ${ancestry}>`);
    }
  }
  return [...new Set(found)].slice(0, 20);
}
"""

# On a dark page, boxes that stay light: a style that was written for light pages only. Pictures are not meant.
LIGHT_BOXES = """
() => [...document.querySelectorAll(".bd-article *:not(img)")].filter((e) => {
  const [r, g, b, alpha] = getComputedStyle(e).backgroundColor.match(/[\\d.]+/g).map(Number);
  const { width, height } = e.getBoundingClientRect();
  return alpha !== 0 && Math.min(r, g, b) > 160 && width * height > 5000;
}).map((e) => `<${e.localName} class="${e.className}">`)
"""

# What sticks out of the page on the right and is not in a box that scrolls by itself.
TOO_WIDE = """
() => {
  const page = document.documentElement;
  if (page.scrollWidth <= window.innerWidth && document.body.scrollWidth <= window.innerWidth) return [];
  const wide = [...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1);
  return [`the page is ${page.scrollWidth} px wide in a window of ${window.innerWidth} px`,
          ...wide.slice(0, 8).map((e) => `<${e.localName} class="${e.className}"> ${e.textContent.slice(0, 40)}`)];
}
"""


# Icons of a font that the page does not bring, and buttons on which nothing is drawn
LOST_ICONS = """
() => {
  const found = [];
  for (const e of document.querySelectorAll("body *:not(mjx-container *)")) {
    for (const side of ["::before", "::after"]) {
      const style = getComputedStyle(e, side), [sign] = style.content.match(/[\\ue000-\\uf8ff]/) ?? [];
      const lost = sign && !/^"?Font Awesome 6 Free\\b/.test(style.fontFamily);
      if (lost) found.push(`${side} <${e.localName} ${e.className}>`);
    }
  }
  for (const button of document.querySelectorAll(".bd-header-article button")) {
    const drawn = [...button.querySelectorAll("svg, img")].some((e) => e.getBoundingClientRect().width > 8);
    if (button.checkVisibility() && !drawn && !button.innerText.trim()) found.push(`<${button.className}>`);
  }
  return found;
}
"""

# As a reader who looks at everything has it: folded code shown, solutions open
UNFOLD = """
() => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  for (const button of document.querySelectorAll(".toggle-button")) button.click();
  const rest = () => Promise.allSettled(document.getAnimations().map((one) => one.finished));
  const after = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  return after(50).then(() => Promise.race([rest(), after(2000)])).then(() => null);
}
"""

IMAGES = "all => Promise.all(all.map(e => (e.loading = 'eager', e.decode().then(() => null, () => e.src))))"


@each_view
def test_page(opened, html: Path, site: str):
    """Everything that can be seen of one page at one width in one theme, from one loading of it."""
    page = opened
    article = page.locator(".bd-article").inner_text()
    formulas, set_formulas = page.locator(".math").count(), page.locator("mjx-container").count()
    levels = page.locator(".bd-article :is(h1, h2, h3, h4, h5, h6)").evaluate_all(
        "all => all.map(e => +e.localName[1])"
    )
    images = page.locator("img").evaluate_all("all => all.map(e => [e.alt.trim(), e.src])")
    wrong = {
        "requests beyond the book's own host": [
            url for url in page.requests if urlsplit(url).scheme != "data" and not url.startswith(f"{site}/")
        ],
        "failed requests, messages on the console": page.problems,
        "a theme that is not the reader's": page.theme not in page.locator("html").get_attribute("data-theme"),
        "formulas that were not set": max(0, formulas - set_formulas),
        "formulas with errors": page.locator("mjx-merror, [data-mjx-error]").all_inner_texts(),
        "TeX in the text": re.findall(r"Math input error|\$\$|\\\(|\\begin\{", article),
        "wider than the window": page.evaluate(TOO_WIDE),
        "not one title, first": levels if levels.count(1) != 1 or levels[0] != 1 else [],
        "a level of headings left out": [pair for pair in pairwise(levels) if pair[1] - pair[0] > 1],
        "pictures without an alternative text, or with a path for one": [
            src for alt, src in images if len(alt) < 3 or re.search(r"[/\\]|\.(png|svg|jpe?g|gif)$", alt)
        ],
        "pictures that are not there": [src for src in page.locator("img").evaluate_all(IMAGES) if src],
        "warnings of a cell's code": page.locator(".output.stderr").all_inner_texts(),
        "exercises and solutions that are not folded": page.locator(f"{FOLDS}:not(.toggle-hidden)").count(),
        "icons that are not there": page.evaluate(LOST_ICONS),
    }
    sizes = loaded_bytes(page, html, site)
    wrong["a heavy page"] = sizes if sum(sizes.values()) > audit_pages.WEIGHT else {}
    page.evaluate(UNFOLD)
    wrong["exercises and solutions that do not open"] = page.locator(f"{FOLDS}.toggle-hidden").count()
    wrong["light boxes on a dark page"] = page.theme == "dark" and page.evaluate(LIGHT_BOXES)
    wrong["text of low contrast"] = page.evaluate(LOW_CONTRAST, CONTRAST)
    wrong["found by axe"] = axe_violations(page)
    page.set_viewport_size({"width": 320, "height": 640})
    wrong["wider than 320 px"] = page.evaluate(TOO_WIDE)
    assert {what: found for what, found in wrong.items() if found} == {}


class Anchors(HTMLParser):
    """The ids of a page, and the addresses that it links to or loads from."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.ids.add(given.get("id", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "author", "search", "index", "next", "prev"):
            self.loads.append(given.get("href", ""))
        elif "src" in given:
            self.loads.append(given["src"])


@functools.cache
def anchors(path: Path) -> Anchors:
    return Anchors(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_book_lead_somewhere(html: Path, page: str):
    path = html / f"{page}.html"
    broken = []
    for link in [*anchors(path).links, *anchors(path).loads]:
        if urlsplit(link).scheme or link.startswith("//"):
            continue
        address, fragment = urldefrag(link)
        target = (path.parent / unquote(urlsplit(address).path)).resolve() if address else path
        target = target / "index.html" if target.is_dir() else target
        if not target.exists():
            broken.append(link)
        elif fragment and target.suffix == ".html" and unquote(fragment) not in anchors(target).ids:
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_nothing_from_elsewhere(html: Path, page: str):
    loads = anchors(html / f"{page}.html").loads
    assert [address for address in loads if re.match(r"(https?:)?//", address)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if source(ROOT, page).suffix == ".ipynb"])
def test_the_notebook_beside_a_page_says_what_the_page_says(html: Path, page: str):
    """Numbers of equations and exercises, the names of papers, and the results."""
    notebook = json.loads((html / "notebooks" / f"{page}.ipynb").read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    shown = (html / f"{page}.html").read_text(encoding="utf-8")
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert any(kind.startswith("image/") for output in outputs for kind in output.get("data", {}))
    told = ["".join(output.get("data", {}).get("text/markdown", "")) for output in outputs]
    assert any(told) and [found for sentence in told for found in raw_constructs(sentence)] == []
    assert re.findall(r"\\tag\{([\d.]+)\}", text) == re.findall(r'class="eqno">\(([\d.]+)', shown)
    titles = bs4.BeautifulSoup(shown, "html.parser").select(".exercise > .admonition-title")
    asked = [" ".join(title.get_text().replace("’", "'").split()) for title in titles]
    assert re.findall(r"### (Exercise .*)", text) == asked
    solved = bs4.BeautifulSoup(shown, "html.parser").select(".solution > .admonition-title")
    assert [title.get_text() for title in solved] == [f"Solution to {one.partition(' (')[0]}" for one in asked]
    assert len(asked) == len(exercises(nbformat.read(source(ROOT, page), as_version=4)))
    for cited in re.findall(r'id="id\d+">\[<a class="reference internal"[^>]*>(.*?)</a>', shown):
        assert re.sub("</?em>", "*", unescape(cited)) in text + "".join(
            "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"
        )


@pytest.mark.parametrize("page", [*PAGES, "genindex", "search"])
def test_what_is_written_of_a_page_is_clean(html: Path, page: str):
    """What needs no browser to be seen."""
    soup = bs4.BeautifulSoup((html / f"{page}.html").read_text(encoding="utf-8"), "html.parser")
    ids = [element["id"] for element in soup.find_all(id=True)]
    files = [asset.get("href") or asset.get("src") for asset in soup.select("link[rel=stylesheet], script[src]")]
    figures = soup.select("article img[src$='.svg']")
    assert sorted(one for one in set(ids) if ids.count(one) > 1) == []
    assert len(soup.select("meta[name=viewport]")) == 1
    assert [cell for cell in soup.select("th") if not cell.get_text(strip=True)] == []
    # The search index is written last and differs with every edition; a name with a digest needs no other.
    unnamed = [file for file in files if not re.search(r"\?v=[0-9a-f]{8}$|\.[0-9a-f]{64}\.css|searchindex", file)]
    assert unnamed == []
    assert [figure["src"] for figure in figures if not (figure.get("width") and figure.get("height"))] == []
    assert [figure["src"] for figure in soup.select("article img")[1:] if figure.get("loading") != "lazy"] == []
    assert soup.select("[tabindex]:is(mjx-container, .math), .math [tabindex]") == []
    assert soup.find_all(string=re.compile("Put your answer in place of")) == []
    cards = [urlsplit(card["content"]).path for card in soup.select("meta[property='og:image']")]
    assert [card for card in cards if not (html / "_static" / Path(card).name).is_file()] == []
    for code in soup.select("pre, code, script, style, mjx-container"):
        code.decompose()
    read = [
        soup.get_text(" "),
        *(str(e.get(k, "")) for e in soup.find_all(True) for k in ("alt", "title", "aria-label")),
    ]
    assert [found for text in read for found in re.findall(r".{0,30}[$\\].{0,30}", text)] == []


# The outline, or whatever else differs, of each button when the keyboard has come to it
FOCUS = """
(button) => {
  const look = () => { const s = getComputedStyle(button); return [s.outlineStyle, s.outlineWidth, s.outlineColor]; };
  button.focus({ focusVisible: true });
  const [style, width, colour] = look();
  return style !== "none" && parseFloat(width) >= 2 && colour !== getComputedStyle(document.body).backgroundColor;
}
"""


@pytest.mark.parametrize("opened", [(PAGES[1], width, "light") for width in WIDTHS], indirect=True)
def test_the_buttons_of_the_header_show_that_they_have_the_focus(opened):
    buttons = opened.locator(".bd-header-article button:visible, .bd-header-article summary:visible")
    assert buttons.count() >= 2
    seen = {buttons.nth(i).get_attribute("title"): buttons.nth(i).evaluate(FOCUS) for i in range(buttons.count())}
    assert all(seen.values()), seen


# ---- Exercises, a menu of folds


EXERCISED = next(page for page in PAGES if page.endswith("covariate_shift"))
FOLDED = f"{FOLDS} > section :is(p, pre)"
CLASSES = "all => all.map((e) => !e.classList.contains('toggle-hidden'))"


def is_open(page) -> list[bool]:
    """Of each exercise, whether it is open."""
    return page.locator(".exercise").evaluate_all(CLASSES)


@pytest.fixture
def menu(site: str, browser):
    """The page of a chapter with four exercises, before anybody has touched it; whatever goes wrong in its scripts."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page, problems = context.new_page(), []
    page.on("pageerror", lambda it: problems.append(str(it)))
    page.goto(f"{site}/{EXERCISED}.html", wait_until="networkidle")
    yield page
    context.close()
    assert problems == []


def test_the_exercises_are_a_line_each(menu):
    assert is_open(menu) == [False] * 4 and not any(menu.locator(FOLDED).nth(i).is_visible() for i in range(4))
    assert menu.locator(".exercise").evaluate_all("all => Math.max(...all.map((e) => e.offsetHeight))") < 45
    assert menu.locator("#exercises").bounding_box()["height"] < 300
    assert menu.locator(".solution:visible").count() == 0  # the line of a solution comes with its exercise


@pytest.mark.parametrize("place", [".caption-number", ".toggle-button", "svg"])
def test_an_exercise_opens_where_its_line_is_clicked_and_its_solution_after_it(menu, place: str):
    line = menu.locator(".exercise > .admonition-title").nth(1)
    at, it = line.bounding_box(), line.locator(place).first.bounding_box()
    line.click(position={"x": it["x"] - at["x"] + it["width"] / 2, "y": it["y"] - at["y"] + it["height"] / 2})
    assert is_open(menu) == [False, True, False, False]
    exercise, solution = menu.locator(".exercise").nth(1), menu.locator(".solution").nth(1)
    assert exercise.locator(".cell_input").is_visible() and exercise.locator(".cell_output").count() == 0
    assert solution.is_visible() and not solution.locator("section").is_visible()
    solution.locator(".toggle-button").click()
    assert solution.locator("section").is_visible()
    solution.locator("a").first.click()  # leads to its exercise, and folds nothing
    assert is_open(menu) == [False, True, False, False] and menu.url.endswith("#ex-shift-box")
    assert solution.locator("section").is_visible()


def test_an_exercise_opens_by_keyboard_and_its_button_is_called_by_its_name(menu):
    button = menu.get_by_role("button", name=re.compile(r"Exercise [\d.]+ \(Does decay still hurt"))
    assert button.get_attribute("aria-expanded") == "false" and button.evaluate(FOCUS)
    menu.keyboard.press("Enter")
    assert is_open(menu) == [False, False, True, False] and button.get_attribute("aria-expanded") == "true"
    menu.keyboard.press("Tab")
    assert menu.evaluate("document.activeElement.closest('.exercise, .solution')?.className ?? ''") != ""


@pytest.mark.parametrize("arrives", [True, False], ids=["arrives", "is there"])
def test_an_address_opens_the_exercise_that_it_names(menu, arrives: bool):
    if arrives:
        address = menu.url
        menu.goto("about:blank")
        menu.goto(f"{address}#ex-small-bit", wait_until="networkidle")
    else:
        menu.evaluate("() => { location.hash = '#ex-small-bit'; }")
        menu.wait_for_timeout(100)
    assert is_open(menu) == [False, False, True, False]
    assert menu.locator(".exercise").nth(2).evaluate("e => Math.abs(e.getBoundingClientRect().top) < innerHeight")


@pytest.mark.parametrize(
    ("word", "place", "opened"),
    # each of the first two stands once on the page, the last in a solution and then in the references
    [("cutting", ".exercise", 1), ("repairs", ".solution", 1), ("correlations", "#references", 0)],
)
def test_a_search_opens_a_fold_where_what_it_found_is_in_none_but_folds(menu, site: str, word: str, place: str, opened):
    menu.goto(f"{site}/search.html?q={word}")
    menu.locator(f"#search-results li a[href*={EXERCISED.split('/')[-1]}]").first.click()
    menu.wait_for_url(f"**/{EXERCISED}.html*")
    found = menu.locator(f"{place} .highlighted").first
    found.wait_for(state="visible")
    menu.wait_for_timeout(300)
    assert found.evaluate("e => Math.abs(e.getBoundingClientRect().top) < innerHeight")
    assert menu.locator(f"{FOLDS}:not(.toggle-hidden)").count() == opened


def test_without_scripts_every_exercise_and_solution_is_read(site: str, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}/{EXERCISED}.html")
    shown = page.locator(FOLDED)
    assert shown.count() > 15 and all(shown.nth(i).is_visible() for i in range(shown.count()))
    context.close()


def test_on_paper_every_exercise_and_solution_is_open(menu):
    menu.emulate_media(media="print")
    menu.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert menu.locator(f"{FOLDS}.toggle-hidden").count() == 0 and menu.evaluate(audit_pages.PAPER_FAULTS) == []
    menu.evaluate("() => dispatchEvent(new Event('afterprint'))")
    assert is_open(menu) == [False] * 4
    folded = menu.evaluate(audit_pages.PAPER_FAULTS)  # and the audit would see it
    assert len([fault for fault in folded if fault.startswith("folded: Exercise")]) == 4


def test_no_page_names_a_folder_of_the_machine_that_built_it(html: Path):
    named = [path.name for path in html.rglob("*.html") if str(ROOT) in path.read_text(encoding="utf-8")]
    assert not named


def test_the_home_page_leads_to_the_first_page(site: str, browser):
    context = browser.new_context()
    page = context.new_page()
    page.goto(site, wait_until="networkidle")
    assert page.url == f"{site}/{PAGES[0]}.html"
    context.close()
