"""The built pages as one document to print: `one_document`.

Every id gets its page's number before it, so that ids of two pages never meet; links between pages become links within
the document. What a reader clicks on is opened or left out: folded results are shown, the folded code of figures is
not, and solutions stand at the end of their chapter.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag
from contents import pages

# Controls, scripts, and notes for screens only
LEFT_OUT = (
    "script, button, input, .headerlink, .toggle-details, .d-print-none, details.hide:not(:has(.cell_output)), "
    "details.hide > summary, details.hide .cell_input, details:not([class])"  # the last: each frame of a moving picture
)


@dataclass(frozen=True)
class Entry:
    """A line of the contents: a part (no id), a chapter or a section."""

    level: int
    id: str
    title: str


def page_id(number: int, fragment: str = "") -> str:
    """The id, in the document, of the place `fragment` of page `number`; without a fragment, of its top."""
    return f"p{number}-{fragment}" if fragment else f"p{number}"


def rewritten(address: str, page: str, numbers: dict[str, int], site: str) -> str | None:
    """Where a link of `page` leads from within the document; None where it leads to nothing that a reader of a PDF
    has. `site` is the address of the published book, or ""."""
    if urlsplit(address).scheme or address.startswith("//"):
        return address
    path, fragment = urldefrag(address)
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(path))) if path else f"{page}.html"
    if (number := numbers.get(target.removesuffix(".html"))) is not None:
        return "#" + page_id(number, unquote(fragment))
    return f"{site.rstrip('/')}/{target}" if site else None


def from_root(address: str, page: str) -> str:
    """An address that a page names, relative to the book's root; absolute ones stay."""
    return address if urlsplit(address).scheme else posixpath.normpath(posixpath.join(posixpath.dirname(page), address))


def styles(soup: BeautifulSoup, page: str) -> list[Tag]:
    """What the head of a page loads, or holds, so that its text and formulas look as they should."""
    found = []
    for part in soup.head.find_all(["link", "style", "script"]):
        address = part.get("src") or part.get("href") or ""
        formulas = part.name == "script" and "mathjax" in (address + part.get_text()).lower()
        if part.name == "style":
            part.string = re.sub(
                r"""url\(["']?([^"')]+)["']?\)""", lambda it: f'url("{from_root(it[1], page)}")', part.get_text()
            )
        elif not formulas and "stylesheet" not in part.get("rel", []):
            continue
        for key in ("src", "href"):
            if part.get(key):
                part[key] = from_root(part[key], page)
        found.append(part)
    return found


def article(soup: BeautifulSoup, page: str, numbers: dict[str, int], site: str) -> Tag:
    """The article of a built page as a chapter of the document."""
    chapter = soup.select_one("article.bd-article")
    for part in chapter.select(LEFT_OUT):
        if not part.decomposed:
            part.decompose()
    for folded in chapter.select("details.hide"):
        if folded.select(".output .highlight") and not folded.select(".output :is(table, img, svg)"):
            folded.decompose()  # a listing, which is code
    for details in chapter.select("details"):
        details["open"] = ""
        if details.summary is None:
            details.name = "div"
    solutions = chapter.select(".solution")
    if solutions:
        first = chapter.section or chapter
        heading = soup.new_tag("h2")
        heading.string = "Solutions"
        section = soup.new_tag("section", id="solutions-in-print")
        section.extend([heading, *(solution.extract() for solution in solutions)])
        first.append(section)
    for part in chapter.select("section[id]"):  # a section may begin a page earlier than its heading
        heading = part.find(["h2", "h3", "h4"], recursive=False)
        if heading is not None:
            heading["id"] = part.attrs.pop("id")
    number = numbers[page]
    for element in chapter.find_all(id=True):
        element["id"] = page_id(number, element["id"])
    for image in chapter.find_all("img", src=True):
        image.attrs.pop("loading", None)
        image["src"] = from_root(image["src"], page)
    for link in chapter.find_all("a", href=True):
        if (to := rewritten(link["href"], page, numbers, site)) is None:
            link.unwrap()
        else:
            link["href"] = to
    chapter.name, chapter["id"] = "div", page_id(number)
    chapter["class"] = ["bd-article", "print-chapter", f"print-chapter-{number}"]
    return chapter


def entries(root: Path, chapters: list[Tag]) -> list[Entry]:
    """The lines of the contents, parts included, in the order of `_toc.yml`."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    captions, at = {}, 1
    for part in toc.get("parts", []):
        captions[at] = part.get("caption", "")
        at += len(part["chapters"])
    found = []
    for number, chapter in enumerate(chapters):
        if captions.get(number):
            found.append(Entry(0, "", captions[number]))
        found.append(Entry(1, chapter["id"], " ".join(chapter.h1.get_text().split())))
        for heading in chapter.find_all("h2"):
            if heading.get("id"):
                found.append(Entry(2, heading["id"], " ".join(heading.get_text().split())))
    return found


def running_heads(chapters: list[Tag]) -> str:
    """A style that names each chapter at the top of its pages."""
    rules = []
    for number, chapter in enumerate(chapters):
        title = " ".join(chapter.h1.get_text().split()).replace("\\", "\\\\").replace('"', '\\"')
        rules.append(f'@page chapter-{number} {{ @top-left {{ content: "{title}"; }} }}')
        rules.append(f".print-chapter-{number} {{ page: chapter-{number}; }}")
    return "\n".join(rules)


def one_document(root: Path, html: Path, site: str, style: str) -> tuple[str, list[Entry]]:
    """The book whose pages are built in `html` as one HTML document, addresses relative to `html`, and the lines of its
    contents: a title page, the contents (each line with a place for its page number, `[data-page-of=ID]`), the
    chapters. `site` is the address of the published book, or ""; `style` is CSS."""
    names = pages(root)
    numbers = {page: number for number, page in enumerate(names)}
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    soups = {page: BeautifulSoup((html / f"{page}.html").read_text(encoding="utf-8"), "html.parser") for page in names}
    updated = soups[names[0]].select_one('meta[name="docbuild:last-update"]')
    # each once: what is the same on all pages, and what only one of them needs
    parts = {str(part): part for page in names for part in styles(soups[page], page)}
    chapters = [article(soups[page], page, numbers, site) for page in names]

    soup = BeautifulSoup('<!DOCTYPE html><html lang="en"><head></head><body></body></html>', "html.parser")
    soup.html["data-theme"] = soup.html["data-mode"] = "light"
    head, body = soup.head, soup.body
    head.append(soup.new_tag("meta", charset="utf-8"))
    head.append(soup.new_tag("title"))
    head.title.string = config["title"]
    head.extend(parts.values())
    own = soup.new_tag("style")
    own.string = style + "\n" + running_heads(chapters)
    head.append(own)

    cover = soup.new_tag("div", attrs={"class": "print-cover"})
    for kind, text in (
        ("title", config["title"]),
        ("author", config["author"]),
        ("note", f"Built on {updated['content']}." if updated else ""),
        ("note", f"The pages, with all code: {site}" if site else ""),
        ("note", "Code that is folded on the pages is left out here; solutions stand at the end of each chapter."),
        ("note", "Text and figures: CC BY 4.0. Code: MIT."),
    ):
        if text:
            line = soup.new_tag("p", attrs={"class": f"print-{kind}"})
            line.string = text
            cover.append(line)
    contents = soup.new_tag("nav", attrs={"class": "print-contents", "id": "print-contents"})
    heading = soup.new_tag("h1")
    heading.string = "Contents"
    contents.append(heading)
    lines = entries(root, chapters)
    for entry in lines:
        line = soup.new_tag("a" if entry.id else "p", attrs={"class": f"print-line-{entry.level}"})
        title, page = soup.new_tag("span"), soup.new_tag("span", attrs={"class": "print-page"})
        title.string = entry.title
        line.append(title)
        if entry.id:
            line["href"], page["data-page-of"] = f"#{entry.id}", entry.id
            page.string = "000"
            line.append(page)
        contents.append(line)
    body.extend([cover, contents, *chapters])
    return str(soup), lines
