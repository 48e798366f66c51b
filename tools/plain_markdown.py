"""The book's Markdown as any notebook program reads it: what MyST adds is turned into Markdown, HTML and LaTeX.

`Book` knows what pages refer to (titles, labels, numbers of equations and exercises, papers), `Translator` rewrites the
text of one page. What neither knows raises ValueError, so that no raw construct reaches a reader.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml
from contents import numbered, pages, source
from exercises import exercises
from pybtex.backends.markdown import Backend
from pybtex.database import parse_file
from pybtex.plugin import find_plugin

FENCE = re.compile(r"(?P<fence>`{3,}|:{3,})\{(?P<name>[\w:-]+)\} *(?P<argument>.*)")
ROLE = re.compile(r"\{(?P<name>[a-z][\w:-]*)\}`(?P<text>[^`]+)`")
# In code, braces may be doubled (an f-string), and what is no role may look like one: f"`{this}` or `{that}`".
ROLE_IN_CODE = re.compile(r"\{?\{(?P<name>cite:[pt]|doc|ref|eq|numref|term|index)\}\}?`(?P<text>[^`{}]+)`")
# A fold in the sentences that a cell computes: where it begins, and ends
FOLD_IN_CODE = re.compile(r'":{3,}\{?\{dropdown\}\}? *(?P<title>[^"]*)"|"(?P<end>:{3,})"')
CHAPTER = re.compile(r'"\.\./(?P<name>\{\w+\})\.(?:ipynb|html)"')
LINK = re.compile(r'(?P<before>\]\(|href=")\.\./(?P<name>[\w/]+)\.(?:ipynb|html)')
EQUATION = re.compile(r"\$\$(?P<body>.+?)\$\$(?: *\((?P<label>[\w-]+)\))?", re.DOTALL)
LABEL = re.compile(r"^\((?P<label>[\w-]+)\)= *\n+", re.MULTILINE)
HEADING = re.compile(r"^#+ +(.+)", re.MULTILINE)
RAW = re.compile(
    r"\{[a-z][\w:-]*\}\}?`|(?:^[ >]*|\")(?:`{3,}|:{3,})\{|(?:^[ >]*|\"):{3,}|^\([\w-]+\)=|\$\$ *\([\w-]+\)|^:\w+:|^%",
    re.MULTILINE,
)
NOTES = ("admonition", "note", "tip", "hint", "important", "warning", "seealso")


def raw_constructs(text: str) -> list[str]:
    """What of MyST is left in a Markdown text, or in a sentence that a cell computes: roles, directives, labels."""
    return [match.group().strip() for match in RAW.finditer(text)]


def anchor(name: str) -> str:
    """An empty element that `[text](#name)` leads to: Colab goes by its `name`, others by its `id`."""
    return f'<a name="{name}" id="{name}"></a>'


@dataclass
class Place:
    """Where a label stands, and what the book calls it."""

    page: str
    text: str  # a heading, the number of an equation or an exercise
    fragment: str  # the label's address on the book's page


class Book:
    """What the pages of the book in the folder `root` refer to; numbers are those of its built pages."""

    def __init__(self, root: Path) -> None:
        self.root = root
        config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
        self.title, self.titles, self.places, self.papers = config["title"], {}, {}, {}
        for bibliography in config["bibtex_bibfiles"]:
            self.papers.update(parse_file(root / bibliography).entries)
        chapters = numbered(root)
        for page in pages(root):
            notebook = self._read(page)
            text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
            self.titles[page] = HEADING.search(text)[1]
            prefix = f"{chapters.index(page) + 1}." if page in chapters else ""
            for found in LABEL.finditer(text):
                heading = HEADING.match(text, found.end())
                self.places[found["label"]] = Place(page, heading[1] if heading else "", found["label"])
            labels = [found["label"] for found in EQUATION.finditer(text) if found["label"]]
            for number, label in enumerate(labels, 1):
                self.places[label] = Place(page, f"{prefix}{number}", f"equation-{label}")
            for number, exercise in enumerate(exercises(notebook), 1):
                self.places[exercise.label] = Place(page, f"Exercise {prefix}{number}", exercise.label)

    def _read(self, page: str) -> nbformat.NotebookNode:
        """A page as a notebook; one that is written in Markdown has one cell."""
        path = source(self.root, page)
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
        return nbformat.read(path, as_version=4)

    def authors(self, key: str) -> str:
        """The family names of a paper's authors: one, two, or the first *et al.*"""
        people = self.papers[key].persons["author"]
        names = [" ".join(str(part) for part in (*p.rich_prelast_names, *p.rich_last_names)) for p in people]
        return f"{names[0]} *et al.*" if len(names) > 2 else " and ".join(names)

    def references(self, keys: set[str]) -> str:
        """The papers `keys` as a list in Markdown, in the style of the book's own; each item bears its key's anchor."""
        style = find_plugin("pybtex.style.formatting", "plain")()
        items = []
        for entry in style.format_entries(style.sort([self.papers[key] for key in keys])):
            text = " ".join(entry.text.render(Backend()).split())
            text = re.sub(r"\\([-.()!+#{}])", r"\1", text)  # pybtex escapes more than Markdown asks for
            items.append(f"* {anchor(f'ref-{entry.key}')}{text}")
        return "\n".join(items)


class Translator:
    """Rewrites the text of one page of `book`. Links lead to the built pages under the address `site`; without one
    (""), they are left as words. `cited` collects the keys of the papers that the text cites."""

    def __init__(self, book: Book, page: str, site: str) -> None:
        self.book, self.page, self.site = book, page, site
        self.cited: set[str] = set()
        self.listed = False  # whether the page has its list of them

    def url(self, page: str, fragment: str = "") -> str:
        """The address of a built page, or "" where there is none."""
        return self.site and f"{self.site}/{page}.html" + (f"#{fragment}" if fragment else "")

    def markdown(self, text: str) -> str:
        """A Markdown text (no directives: see `blocks`) without roles, labels and numbered equations."""
        text = LABEL.sub(lambda found: f"{anchor(found['label'])}\n\n", text)
        text = EQUATION.sub(self._equation, text)
        return ROLE.sub(lambda found: self._role(found["name"], found["text"], here=True), text)

    def code(self, text: str) -> str:
        """The code of a cell; roles in the sentences that it computes become words and links, and so do addresses of
        chapters (`"../{chapter}.ipynb"`). A fold that it writes line by line becomes one of HTML."""
        if self.site:
            text = CHAPTER.sub(lambda found: f'"{self.url(self._beside(found["name"]))}"', text)
        text = FOLD_IN_CODE.sub(_fold_in_code, text)
        return ROLE_IN_CODE.sub(lambda found: self._role(found["name"], found["text"], here=False), text)

    def output(self, text: str, kind: str) -> str:
        """What a cell showed, of the kind "text/markdown" or "text/html"; links to other chapters lead to their
        pages. In HTML nothing else is rewritten: it may hold scripts."""
        if self.site:
            text = LINK.sub(lambda found: found["before"] + self.url(self._beside(found["name"])), text)
        if kind == "text/html":
            return text
        return self._nested(ROLE.sub(lambda found: self._role(found["name"], found["text"], here=False), text))

    def _beside(self, name: str) -> str:
        """The page that `../name` leads to from this one."""
        return posixpath.normpath(posixpath.join(posixpath.dirname(self.page), "..", name))

    def _equation(self, found: re.Match) -> str:
        if not found["label"]:
            return found.group()
        body, number = found["body"].strip(), self.book.places[found["label"]].text
        return f"{anchor(found['label'])}\n$$\n{body} \\tag{{{number}}}\n$$"

    def _role(self, name: str, text: str, here: bool) -> str:
        """A role as Markdown. Outputs of cells (not `here`) cannot link within the notebook: Colab frames them."""
        label, words = text, ""
        if found := re.fullmatch(r"(?P<words>.+?)\s*<(?P<label>[^<>]+)>", text, re.DOTALL):
            label, words = found["label"], found["words"]
        if name in ("cite:p", "cite:t"):
            return self._cite(name, [key.strip() for key in label.split(",")], here)
        if name == "doc":
            page = label.removeprefix("/")
            return self._link(words or self.book.titles[page], self.url(page))
        if name in ("term", "index"):
            return words or text
        if name in ("ref", "eq", "numref"):
            if label not in self.book.places:
                raise ValueError(f"{self.page}: {{{name}}} names a label that no page has: {label!r}")
            place = self.book.places[label]
            text = words or (f"({place.text})" if name == "eq" else place.text)
            if place.page != self.page:
                return self._link(text, self.url(place.page, place.fragment))
            return self._link(text, f"#{label}" if here else "")
        raise ValueError(f"{self.page}: the plain edition (tools/plain_markdown.py) knows no role {{{name}}}")

    @staticmethod
    def _link(text: str, address: str) -> str:
        return f"[{text}]({address})" if address else text

    def _cite(self, name: str, keys: list[str], here: bool) -> str:
        cited = []
        for key in keys:
            if key not in self.book.papers:
                raise ValueError(f"{self.page}: cites a paper that is not in the bibliography: {key!r}")
            self.cited.add(key)
            address = f"#ref-{key}" if here else ""
            authors, year = self.book.authors(key), self.book.papers[key].fields["year"]
            if name == "cite:t":
                cited.append(f"{authors} [{self._link(year, address)}]")
            else:
                cited.append(self._link(f"{authors}, {year}", address))
        return ", ".join(cited) if name == "cite:t" else f"[{', '.join(cited)}]"

    def blocks(self, text: str, solution: Callable[[bool], None], emit: Callable[[str], None]) -> None:
        """Go through a Markdown cell: `emit` gets its text piece by piece, `solution` is called with True where one
        starts and with False where it ends."""
        lines, plain = text.split("\n"), []

        def flush() -> None:
            if "\n".join(plain).strip():
                emit(self.markdown("\n".join(plain).strip("\n")))
            plain.clear()

        while lines:
            line = lines.pop(0)
            if not (opening := FENCE.fullmatch(line)):
                plain.append(line)
                continue
            body = []
            while lines and not re.fullmatch(re.escape(opening["fence"]) + f"{opening['fence'][0]}*", lines[0].strip()):
                body.append(lines.pop(0))
            if not lines:
                raise ValueError(f"{self.page}: {line!r} has no end")
            lines.pop(0)
            flush()
            if opening["name"] in ("solution-start", "solution-end"):
                solution(opening["name"] == "solution-start")
            elif opening["name"] not in ("index", "exercise-end"):
                emit(self._directive(opening["name"], opening["argument"], body))
        flush()

    def _directive(self, name: str, argument: str, lines: list[str]) -> str:
        options = {}
        while lines and (option := re.fullmatch(r":([\w-]+): *(.*)", lines[0])):
            options[option[1]] = option[2]
            lines = lines[1:]
        body = "\n".join(lines).strip("\n")
        if name == "exercise-start":  # folded in the book; a notebook is there to be filled in
            place = self.book.places[options["label"]]
            title = f"{place.text} ({self.markdown(argument)})"
            return f"{anchor(options['label'])}\n\n### {title}\n\n{self._nested(body)}"
        if name == "bibliography":
            self.listed = True
            return self.book.references(self.cited)
        if name == "dropdown":
            return details(self.markdown(argument), self._nested(body))
        if name in NOTES:
            title = self.markdown(argument) or name.capitalize()
            return "\n".join(f"> {line}".rstrip() for line in f"**{title}**\n\n{self._nested(body)}".split("\n"))
        if name == "list-table":
            return self._table(body)
        if name == "literalinclude":
            return self._included((self.book.root / self.page).parent / argument, options.get("pyobject"))
        raise ValueError(f"{self.page}: the plain edition (tools/plain_markdown.py) knows no directive {{{name}}}")

    def _nested(self, text: str) -> str:
        pieces: list[str] = []
        self.blocks(text, lambda _: None, pieces.append)
        return "\n\n".join(pieces)

    def _table(self, body: str) -> str:
        """A list-table of one header row, whose items are one line each, as a Markdown table."""
        rows: list[list[str]] = []
        for line in body.strip().splitlines():
            found = re.fullmatch(r"(?P<row>\*| ) - ?(?P<item>.*)", line)
            if not found:
                raise ValueError(f"{self.page}: a row of a list-table is to be '* - item' or '  - item', not {line!r}")
            if found["row"] == "*":
                rows.append([])
            rows[-1].append(self.markdown(found["item"]))
        rows.insert(1, ["---"] * len(rows[0]))
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    @staticmethod
    def _included(path: Path, pyobject: str | None) -> str:
        """A file of Python, or one class, function or method of it (`Class.method`), as a block of code."""
        text = path.read_text(encoding="utf-8")
        if pyobject:
            node = ast.parse(text)
            for name in pyobject.split("."):
                node = next(child for child in node.body if getattr(child, "name", None) == name)
            text = "\n".join(line[node.col_offset :] for line in text.splitlines()[node.lineno - 1 : node.end_lineno])
        return f"```python\n{text.rstrip()}\n```"


def details(summary: str, body: str) -> str:
    """A part that opens on a click. The blank lines make programs read `body` as Markdown."""
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def _fold_in_code(found: re.Match) -> str:
    begin, end = details(found["title"] or "", "").replace("\n", "\\n").split("\\n\\n\\n\\n")
    return f'"\\n{end}"' if found["end"] else f'"{begin}\\n"'
