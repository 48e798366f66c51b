"""Prints the built book as one PDF, `_build/html/book.pdf`, and offers it on the pages: `python tools/pdf.py`.

Headless Chromium sets the pages as readers know them, formulas and SVG figures included, and makes bookmarks, tags and
links from one document (tools/one_document.py). It prints twice: the first time tells on which page each section of
the contents begins.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from pathlib import Path

from chromium import chromium, served
from offer_pdf import NAME, RECORD, STYLE, digest, offer, size
from one_document import Entry, one_document
from pypdf import PdfReader, PdfWriter
from pypdf.generic import Destination, Fit

ROOT = Path(__file__).resolve().parent.parent
TEXT_WIDTH = 658  # CSS pixels between the margins of print.css: 174 mm

# In tables an interval stays on its line where that makes them at most a fifth smaller. Whatever is wider than the text
# is made as much smaller, at most by half.
FIT = """
() => {
  const tables = ".print-chapter .cell_output table:not(.claim-card table, .verdict-table)";
  for (const table of document.querySelectorAll(tables)) {
    const box = table.getBoundingClientRect();
    table.classList.add("one-line");
    if (table.scrollWidth * 0.8 > innerWidth - box.left) table.classList.remove("one-line");
  }
  for (let i = 0; i < 3; i++)
    for (const wide of document.querySelectorAll(".print-chapter :is(table, mjx-container[display], .output > svg)")) {
      const box = wide.getBoundingClientRect();
      const room = innerWidth - box.left, width = Math.max(box.width, wide.scrollWidth * wide.currentCSSZoom);
      if (width > room) wide.style.zoom = Math.max(0.5, wide.currentCSSZoom * 0.99 * room / width);
    }
}
"""
CUT = """
() => [...document.querySelectorAll(".print-chapter :is(pre, td, th, img, mjx-math, p, li)")].filter((e) => {
  const inside = document.createRange();
  inside.selectNodeContents(e);
  return Math.max(e.getBoundingClientRect().right, inside.getBoundingClientRect().right) > innerWidth + 2;
}).map((e) => `${e.closest(".print-chapter").id} <${e.localName}> ${e.textContent.trim().slice(0, 50)}`)
"""
UNSET = """
() => !window.MathJax ? [] : [...document.querySelectorAll(".math")].filter(
  (e) => !e.querySelector("mjx-container") || e.querySelector("mjx-merror")
).map((e) => e.textContent.slice(0, 60))
"""
# Fills in the page numbers; returns the ids that have none.
NUMBER = """
(at) => [...document.querySelectorAll("[data-page-of]")].filter((e) => {
  e.textContent = at[e.dataset.pageOf] ?? "";
  return !e.textContent;
}).map((e) => e.dataset.pageOf)
"""


def printed(html: Path, document: str) -> PdfReader:
    """The PDF of `document`, whose addresses are relative to the folder `html`; in its contents the numbers of the
    pages. Raises ValueError where a formula was not set, something sticks out of the page, or a line of the contents
    leads nowhere."""
    with served(html, {"/the-book.html": document}) as site, chromium() as browser:
        page = browser.new_page(viewport={"width": TEXT_WIDTH, "height": 970}, color_scheme="light")
        page.set_default_timeout(600_000)
        page.emulate_media(media="print")
        page.goto(f"{site}/the-book.html", wait_until="networkidle")
        page.evaluate("() => window.MathJax?.startup?.promise?.then(() => true)")
        page.evaluate("() => document.fonts.ready.then(() => true)")
        page.evaluate(FIT)
        for what, test in (("formulas were not set", UNSET), ("out of the page", CUT)):
            if found := page.evaluate(test):
                raise ValueError(f"{what}: {found[:10]}")
        options = {"prefer_css_page_size": True, "print_background": True, "tagged": True}
        first = PdfReader(io.BytesIO(page.pdf(**options)))
        at = {name: first.get_destination_page_number(d) + 1 for name, d in places(first).items()}
        if lost := page.evaluate(NUMBER, at):
            raise ValueError(f"lines of the contents that lead nowhere: {lost}")
        return PdfReader(io.BytesIO(page.pdf(**options)))


def places(pdf: PdfReader) -> dict[str, Destination]:
    """id → where it is, for the ids of the document that something links to."""
    return {name.removeprefix("/"): destination for name, destination in pdf.named_destinations.items()}


def with_bookmarks(pdf: PdfReader, lines: list[Entry]) -> PdfWriter:
    """The PDF with a bookmark for each line of the contents: parts, in them chapters, in those sections."""
    # pypdf says that its copy has more objects than Chromium's file, in which some are not numbered; both are sound.
    logging.getLogger("pypdf._writer").setLevel(logging.ERROR)
    writer, found = PdfWriter(clone_from=pdf), places(pdf)
    above: dict[int, object] = {}
    for line, after in zip(lines, [*lines[1:], None], strict=True):
        place = found[line.id or after.id]  # a part begins where its first chapter does
        above = {level: item for level, item in above.items() if level < line.level}
        above[line.level] = writer.add_outline_item(
            title=line.title,
            page_number=pdf.get_destination_page_number(place),
            parent=above.get(max(above, default=-1)),
            fit=Fit.xyz(left=0, top=float(place.top or 0)),
            bold=not line.id,
            is_open=not line.id,
        )
    return writer


def main() -> int:
    """Print the built book and offer it; returns the exit status."""
    sys.path.insert(0, str(ROOT / "_ext"))
    from addresses import site_address

    html = ROOT / "_build" / "html"
    if not (ROOT / "_build" / "pages.json").is_file():
        raise SystemExit("There is no built book yet: run make book first.")
    if offer(ROOT, html):
        print(f"_build/html/{NAME} is that of these pages already")
        return 0
    document, lines = one_document(ROOT, html, site_address(), STYLE.read_text(encoding="utf-8"))
    pdf = printed(html, document)
    with_bookmarks(pdf, lines).write(html / f"{NAME}.part")
    os.replace(html / f"{NAME}.part", html / NAME)
    (html.parent / RECORD).write_text(digest(ROOT, html) + "\n", encoding="utf-8")
    offer(ROOT, html)
    print(f"_build/html/{NAME}: {len(pdf.pages)} pages, {size((html / NAME).stat().st_size)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
