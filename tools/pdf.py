"""Prints the built book as one PDF, `_build/html/book.pdf`, and offers it on the pages: `python tools/pdf.py`.

Headless Chromium sets the pages as readers know them, formulas and SVG figures included, and makes bookmarks, tags and
links from one document (tools/one_document.py). It prints twice: the first time tells on which page each section of
the contents begins.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from chromium import chromium
from contents import pages
from one_document import Entry, one_document
from pypdf import PdfReader, PdfWriter
from pypdf.generic import Destination, Fit

ROOT = Path(__file__).resolve().parent.parent
NAME = "book.pdf"
RECORD = "pdf.txt"  # under _build: what the PDF was printed from
STYLE = Path(__file__).with_name("print.css")
MARK = re.compile(r"(<!-- pdf -->).*?(<!-- /pdf -->)", re.DOTALL)  # in _ext/templates/finding.html
TEXT_WIDTH = 658  # CSS pixels between the margins of print.css: 174 mm

# Whatever is wider than the text is made as much smaller.
FIT = """
() => {
  for (const wide of document.querySelectorAll(".print-chapter :is(table, mjx-container[display], .output > svg)")) {
    const room = wide.parentElement.clientWidth, width = Math.max(wide.scrollWidth, wide.offsetWidth);
    if (room > 0 && width > room) wide.style.zoom = Math.max(0.5, 0.98 * room / width);
  }
}
"""
CUT = """
() => [...document.querySelectorAll(".print-chapter :is(pre, table, img, mjx-container, p)")].filter(
  (e) => e.getBoundingClientRect().right > innerWidth + 2
).map((e) => `${e.closest(".print-chapter").id} <${e.localName}> ${e.textContent.trim().slice(0, 50)}`)
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


def digest(root: Path, html: Path) -> str:
    """A digest of what is printed: the articles of the pages, their pictures, and how they are printed."""
    found = hashlib.sha256()
    for page in pages(root):
        text = (html / f"{page}.html").read_text(encoding="utf-8")
        found.update(text.partition('<article class="bd-article">')[2].partition("</article>")[0].encode())
    for picture in sorted((html / "_images").glob("*")):
        found.update(picture.read_bytes())
    for source in (STYLE, Path(__file__), Path(__file__).with_name("one_document.py"), html / "_static" / "book.css"):
        found.update(source.read_bytes())
    return found.hexdigest()


def size(bytes_: int) -> str:
    """A file's size for readers: "8.1 MB"."""
    return f"{bytes_ / 1e6:.1f} MB"


def offer(root: Path, html: Path) -> bool:
    """Have every page link to the PDF where there is one that was printed from these pages; remove one that was not,
    and all links to it. Returns whether it is offered. A second call changes nothing."""
    pdf, record = html / NAME, html.parent / RECORD
    current = pdf.is_file() and record.is_file() and record.read_text(encoding="utf-8").strip() == digest(root, html)
    if not current:
        pdf.unlink(missing_ok=True)
        record.unlink(missing_ok=True)
    label = f"The book as a PDF, {size(pdf.stat().st_size)}" if current else ""
    for page in html.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        address = "../" * (len(page.relative_to(html).parts) - 1) + NAME
        link = f'<li class="toctree-l1"><a href="{address}">{label}</a></li>' if current else ""
        offered = MARK.sub(rf"\g<1>{link}\g<2>", text)
        if offered != text:
            page.write_text(offered, encoding="utf-8")
    return current


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


def served(html: Path, document: str) -> ThreadingHTTPServer:
    """A running server of the folder `html`, with `document` as /the-book.html."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments) -> None:
            pass

        def do_GET(self) -> None:
            if self.path != "/the-book.html":
                return super().do_GET()
            content = document.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(html)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def printed(html: Path, document: str) -> PdfReader:
    """The PDF of `document`, whose addresses are relative to the folder `html`; in its contents the numbers of the
    pages. Raises ValueError where a formula was not set, something sticks out of the page, or a line of the contents
    leads nowhere."""
    server = served(html, document)
    try:
        with chromium() as browser:
            page = browser.new_page(viewport={"width": TEXT_WIDTH, "height": 970}, color_scheme="light")
            page.set_default_timeout(600_000)
            page.emulate_media(media="print")
            page.goto(f"http://127.0.0.1:{server.server_port}/the-book.html", wait_until="networkidle")
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
    finally:
        server.shutdown()
        server.server_close()


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
