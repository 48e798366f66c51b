"""Looks at every built page and prints what is wrong, a line a page, zeros where zeros belong: `make audit-pages`.

Each page is opened in Chromium as readers open it: on a desk, at the widths of three phones, on paper, from a search.
What other tools say is asked of them: axe (axe-playwright-python), the notebooks for Colab (tools/plain_markdown.py).
A dash says that there was nobody to ask, or nothing to ask about. Returns 1 where a zero belongs and none is.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import nbformat
from chromium import chromium, served
from contents import pages, source
from exercises import exercises

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = (320, 390, 640)
PAPER = 658  # CSS pixels between the margins of a sheet of A4
WEIGHT = 1.5e6  # bytes that a page may load, figures and fonts included
AXE = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "rules": {"label-content-name-mismatch": {"enabled": True}},  # off by default
    "resultTypes": ["violations"],
}
COLUMNS = (
    "axe",
    "external",
    "MB",
    "no alt",
    *map(str, WIDTHS),
    "raw Colab",
    "unchecked",
    "unmarked",
    "snippet",
    "print",
)
NOT_COUNTED = {"MB"}  # is too large above WEIGHT, and is no count

ALT = "() => [...document.images].filter((e) => e.alt.trim().length < 3 && e.role !== 'presentation').length"
WIDE = "() => +(Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) > innerWidth)"
# What would be lost on paper: cut at the right, hidden in a box that scrolls or is folded, higher than a sheet, or dark
PAPER_FAULTS = """
() => {
  const shown = (e) => e.checkVisibility() && e.getBoundingClientRect().width > 0;
  const article = document.querySelector("article.bd-article") ?? document.body;
  const all = [...article.querySelectorAll("pre, table, img, mjx-math, details.claim-card, .admonition")].filter(shown);
  const faults = [];
  for (const e of all) {
    const box = e.getBoundingClientRect(), style = getComputedStyle(e);
    if (box.right > innerWidth + 2) faults.push(`cut: <${e.localName}> ${e.textContent.trim().slice(0, 40)}`);
    if (e.localName === "pre" && style.whiteSpace === "pre" && e.scrollWidth > e.clientWidth + 2)
      faults.push(`cut code: ${e.textContent.trim().slice(0, 40)}`);
    if (e.localName === "img" && box.height > 970) faults.push(`higher than a sheet: ${e.alt.slice(0, 40)}`);
    if (e.matches("details:not([open]), .toggle-hidden")) faults.push(`folded: ${e.textContent.trim().slice(0, 40)}`);
  }
  const ground = getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number);
  if (ground[3] !== 0 && Math.min(...ground.slice(0, 3)) < 200) faults.push("a dark page");
  return faults;
}
"""
# A word of the page's own text that the search indexes; long ones are rarer
WORD = """
() => {
  const words = [...document.querySelectorAll("article.bd-article :is(p, dd, li)")].filter(
    (e) => e.checkVisibility() && !e.closest("details, .math, nav")
  ).flatMap((e) => e.textContent.match(/\\b[a-z]{6,}\\b/g) ?? []);
  return words.sort((a, b) => b.length - a.length)[0] ?? "";
}
"""
MARKED = "() => document.querySelectorAll('article.bd-article .highlighted').length"
# The entry of the page among the results of a search, once its snippet is there
RESULT = """
(path) => [...document.querySelectorAll("#search-results li")].find(
  (e) => new URL(e.querySelector("a").href).pathname === path && e.querySelector("p.context")
)
"""
# What no snippet should hold: buttons of the page's header, markers of folded code, TeX
NOISE = re.compile(r"Show code|Hide code|Toggle|\\[a-zA-Z(\[]|\$\$|¶|#\s|\.ipynb|Print to PDF")


def axe(page) -> int | None:
    """The nodes that axe objects to; None where it is not installed."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        return None
    found = Axe().run(page, options=AXE).response["violations"]
    return sum(len(one["nodes"]) for one in found)


def raw_in_colab(html: Path, name: str) -> int | None:
    """Directives, roles and labels that are left in the page's notebook for Colab; None where there is none."""
    try:
        from plain_markdown import raw_constructs
    except ImportError:
        return None
    notebooks = [*html.glob(f"notebooks/**/{Path(name).name}.ipynb")]
    cells = [cell for path in notebooks for cell in nbformat.read(path, as_version=4).cells]
    return sum(len(raw_constructs(cell.source)) for cell in cells) if notebooks else None


def unchecked_exercises(path: Path) -> int | None:
    """Exercises of a notebook whose solution does not hold `assert check.…`, which the execution of the chapter has
    passed; None where it has none."""
    if path.suffix != ".ipynb":
        return None
    found = exercises(nbformat.read(path, as_version=4))
    checked = [any("assert check." in cell.source for cell in one.solution) for one in found]
    return checked.count(False) if found else None


def looked_up(context, site: str, name: str, word: str) -> tuple[int, int]:
    """(1 where the page does not mark the word that a search has led to it with, faults of its snippet)."""
    page = context.new_page()
    try:
        page.goto(f"{site}/search.html?q={quote(word)}")
        found = page.wait_for_function(RESULT, arg=f"/{name}.html", timeout=20_000).as_element()
        noise = len(NOISE.findall(found.query_selector("p.context").inner_text()))
        found.query_selector("a").click()
        page.wait_for_url(f"**/{name}.html*")
        page.wait_for_timeout(300)
        return int(page.evaluate(MARKED) == 0), noise
    finally:
        page.close()


def look(context, site: str, html: Path, name: str) -> tuple[dict[str, float | None], list[str]]:
    """What is found on a page (column → count), and in words what the table only counts."""
    page, requests = context.new_page(), []
    page.on("request", lambda it: requests.append(it.url))
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"{site}/{name}.html", wait_until="networkidle")
    page.evaluate("() => window.MathJax?.startup?.promise?.then(() => true)")
    page.evaluate("() => document.images.forEach?.((e) => (e.loading = 'eager'))")
    page.evaluate(
        "() => Promise.all([...document.images].map((e) => (e.loading = 'eager', e.decode().catch(() => 0))))"
    )
    requests += page.evaluate("() => [...document.images].map((e) => e.currentSrc)")  # what was told late, too
    own = {unquote(urlsplit(url).path).lstrip("/") for url in requests if url.startswith(f"{site}/")}
    found: dict[str, float | None] = {
        "axe": axe(page),
        "external": sum(not url.startswith((f"{site}/", "data:")) for url in requests),
        "MB": sum((html / file).stat().st_size for file in own if (html / file).is_file()) / 1e6,
        "no alt": page.evaluate(ALT),
    }
    word = page.evaluate(WORD)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 844})
        found[str(width)] = page.evaluate(WIDE)
    page.set_viewport_size({"width": PAPER, "height": 970})
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")  # as a reader has it who prints
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    faults = page.evaluate(PAPER_FAULTS)
    page.close()
    path = source(ROOT, name)
    found["raw Colab"] = raw_in_colab(html, name) if path.suffix == ".ipynb" else None
    found["unchecked"] = unchecked_exercises(path)
    found["unmarked"], found["snippet"] = looked_up(context, site, name, word) if word else (None, None)
    found["print"] = len(faults)
    return found, [f"print: {fault}" for fault in faults]


def line(name: str, found: dict[str, float | None]) -> str:
    """A row of the table."""
    cells = []
    for column in COLUMNS:
        value = found[column]
        cells.append("–" if value is None else f"{value:.2f}" if column in NOT_COUNTED else str(int(value)))
    return f"{name:45}" + "".join(
        f"{cell:>{max(len(column), 4) + 2}}" for cell, column in zip(cells, COLUMNS, strict=True)
    )


def wrong(found: dict[str, float | None]) -> list[str]:
    """The columns of a page in which a zero belongs and something else is, and its weight where it is too heavy."""
    heavy = ["MB"] if (found["MB"] or 0) * 1e6 > WEIGHT else []
    return heavy + [column for column in COLUMNS if column not in NOT_COUNTED and found[column]]


def main() -> int:
    """Audit the built book; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", help="pages as in chapters/preface; all where none is named")
    parser.add_argument("--details", action="store_true", help="say what the counts are of, as far as it is known here")
    given = parser.parse_args()
    html = ROOT / "_build" / "html"
    if not (ROOT / "_build" / "pages.json").is_file():
        raise SystemExit("There is no built book yet: run make book first.")
    if unknown := set(given.pages) - set(pages(ROOT)):
        raise SystemExit(f"These are no pages of the book: {', '.join(sorted(unknown))}")
    print(f"{'page':45}" + "".join(f"{column:>{max(len(column), 4) + 2}}" for column in COLUMNS), flush=True)
    table = {}
    with served(html) as site, chromium() as browser:
        context = browser.new_context(reduced_motion="reduce")
        for name in given.pages or pages(ROOT):
            table[name], words = look(context, site, html, name)
            print(line(name, table[name]), flush=True)
            for word in words if given.details else []:
                print(f"    {word}")
    (ROOT / "_build" / "audit.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    if bad := {name: columns for name, found in table.items() if (columns := wrong(found))}:
        print(f"\n{len(bad)} of {len(table)} pages have something that is not 0, or weigh more than {WEIGHT / 1e6} MB")
        return 1
    print(f"\nAll {len(table)} pages: zeros where zeros belong, none over {WEIGHT / 1e6} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
