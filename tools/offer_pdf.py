"""Whether the printed book (tools/pdf.py) is that of the built pages, and the links to it on them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from contents import pages

NAME = "book.pdf"
RECORD = "pdf.txt"  # under _build: what the PDF was printed from
STYLE = Path(__file__).with_name("print.css")
MARK = re.compile(r"(<!-- pdf -->).*?(<!-- /pdf -->)", re.DOTALL)  # in _ext/templates/finding.html


def digest(root: Path, html: Path) -> str:
    """A digest of what is printed: the articles of the pages, their pictures, and how they are printed."""
    found = hashlib.sha256()
    for page in pages(root):
        text = (html / f"{page}.html").read_text(encoding="utf-8")
        found.update(text.partition('<article class="bd-article">')[2].partition("</article>")[0].encode())
    for picture in sorted((html / "_images").glob("*")):
        found.update(picture.read_bytes())
    for source in (STYLE, STYLE.with_name("pdf.py"), STYLE.with_name("one_document.py"), html / "_static" / "book.css"):
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
