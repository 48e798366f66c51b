"""The pages of the package's public parts: docstrings as the package writes them, made what autodoc understands, and
links to these pages from where a chapter first uses one of them."""

from __future__ import annotations

import inspect
import re

from bs4 import BeautifulSoup, Tag


def fields_of(lines: list[str], names: set[str]) -> list[str]:
    """A docstring whose paragraphs `name: what it is` have become fields, where `name` (or each of `one, two`) is one
    of `names`, the arguments or attributes. What is indented below belongs to the field."""
    found: list[str] = []
    for line in lines:
        begins = re.match(r"(\w+(?:, \w+)*): (?=\S)", line)
        if begins and set(begins[1].split(", ")) <= names:
            if found and found[-1] and not found[-1].startswith((":", " ")):
                found.append("")
            line = f":param {begins[1]}: {line[begins.end() :]}"
        elif found and found[-1].startswith((":param", " ")) and line and not line.startswith(" "):
            found.append("")
        found.append(line)
    return found


def _process(app, what, name, thing, options, lines: list[str]) -> None:
    if what in ("class", "function", "method"):
        try:
            names = set(inspect.signature(thing).parameters) | set(getattr(thing, "__annotations__", {}))
        except (TypeError, ValueError):
            return
        lines[:] = fields_of(lines, names)


def imported(code: str) -> dict[str, str]:
    """What the names that `code` imports from the package stand for: name → full name."""
    found = {}
    for module, names in re.findall(r"^from (adamw_book[\w.]*) import ([\w, ]+)$", code, re.MULTILINE):
        for name in names.split(", "):
            there, _, here = name.partition(" as ")
            found[here or there] = f"{module}.{there}"
    return found


def link(soup: BeautifulSoup, addresses: dict[str, str]) -> None:
    """Make a link of the first use of each documented object (full name → address) in the page's code, its import not
    counted, and of its full name in the text."""
    blocks = soup.select("article .highlight pre")
    names = imported("\n".join(block.get_text() for block in blocks))
    to_do = dict(addresses)

    def wrap(elements: list[Tag], full: str) -> None:
        if address := to_do.pop(full, ""):
            outer = elements[0].wrap(soup.new_tag("a", href=address, attrs={"class": "api"}))
            for element in elements[1:]:
                outer.append(element.extract())

    for block in blocks:
        importing = False
        for token in block.select("span.n, span.kn, span.nn, span.w"):
            if token.get_text() == "from":
                importing = True
            elif "\n" in str(token.previous_sibling) or "\n" in token.get_text():
                importing = False
            dot = token.previous_sibling
            if importing or token["class"] != ["n"] or not isinstance(dot, Tag | str):
                continue
            if dot.get_text() != ".":
                wrap([token], names.get(token.get_text(), ""))
            elif isinstance(owner := dot.previous_sibling, Tag):
                wrap([owner, dot, token], f"{names.get(owner.get_text(), '')}.{token.get_text()}")
    for literal in soup.select("article code.literal"):
        if not literal.find_parent(["a", "dt"]):
            wrap([literal], literal.get_text().removesuffix("()"))


def setup(app) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
