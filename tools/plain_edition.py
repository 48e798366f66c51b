"""Writes the plain edition: the chapters as notebooks for Colab and for download, without what only Jupyter Book reads.

In it exercises and references are Markdown, solutions and hidden cells are folded, equations and papers have the names
that the pages give them, and the first code cell (tools/plain_setup.py) knows the repository and the commit, so that a
copy of the notebook alone runs. The build writes it to `_build/html/notebooks`, and the workflow publishes it on a
branch of its own, to which the pages' Colab buttons lead (_ext/launch_buttons.py).
"""

from __future__ import annotations

import copy
import json
import re
import shutil
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from contents import pages, source
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from plain_markdown import Book, Translator, details

SETUP = Path(__file__).with_name("plain_setup.py")
Executed = Callable[[NotebookNode], NotebookNode]
FOLDED = {"remove-cell", "hide-cell", "remove-input", "hide-input"}


@dataclass(frozen=True)
class Origin:
    """Where a reader gets the book: the repository's address, a branch and a commit there, the built pages' address;
    each "" where it is not known."""

    repository: str = ""
    branch: str = ""
    commit: str = ""
    site: str = ""


def setup_code(origin: Origin) -> str:
    """The code of the first cell, which finds or fetches the package that the notebook was made with."""
    given = ", ".join(json.dumps(value) for value in (origin.repository, origin.branch, origin.commit))
    code, count = re.subn(r'(?<=COMMIT = )"", "", ""', lambda _: given, SETUP.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{SETUP.name} must set REPOSITORY, BRANCH and COMMIT once, not {count} times")
    return code.strip()


def title(cell: NotebookNode) -> str:
    """What a folded cell is called: what its picture shows, or what kind of cell it is."""
    alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
    last = cell.source.rstrip().rsplit("\n\n", 1)[-1]
    if alt:
        return "Picture: " + textwrap.shorten(re.split(r"[.:;] ", alt)[0].rstrip("."), 90, placeholder=" …")
    if re.match(r"(from|import) ", cell.source):
        return "Imports and settings"
    if re.search(r"^(Markdown|display\(Markdown)\(", last, re.MULTILINE):
        return "In words"
    if re.search(r"^claim_card\(", last, re.MULTILINE):
        return "The claim and its verdict"
    if re.search(r"^[\w.]+\.style\b|^listing\(|^verdict_table\(", last, re.MULTILINE):
        return "Table"
    return "Code"


class Edition:
    """The plain edition of one chapter of `book`."""

    def __init__(self, book: Book, page: str, origin: Origin) -> None:
        self.translator, self.origin = Translator(book, page, origin.site), origin
        self.cells: list[NotebookNode] = []
        self.solution: list[str] | None = None  # the parts of the solution that is being read
        self.cell: NotebookNode | None = None  # the Markdown cell that is being read
        self.joins = False  # whether the next piece of it goes where the last one went

    def notebook(self, made_from: NotebookNode) -> NotebookNode:
        """The chapter `made_from`, with the outputs that it has."""
        for cell in made_from.cells:
            if cell.cell_type == "markdown":
                self.cell, self.joins = cell, False
                self.translator.blocks(cell.source, self._solution, self._text)
            elif cell.cell_type == "code":
                self._code(cell)
        if self.solution is not None:
            raise ValueError(f"{self.translator.page}: a solution has no end")
        if self.translator.cited and not self.translator.listed:
            references = self.translator.book.references(self.translator.cited)
            self.cells.append(new_markdown_cell(f"## References\n\n{references}", id="references"))
        made = nbformat.v4.new_notebook(cells=self.cells)
        made.metadata = NotebookNode(kernelspec=made_from.metadata.kernelspec, language_info={"name": "python"})
        made.metadata["colab"] = {"provenance": [], "toc_visible": True}
        self._head(made.cells[0])
        nbformat.validate(made)
        return made

    def _head(self, cell: NotebookNode) -> None:
        """Say below the title what this is, and where the page is."""
        book, page = self.translator.book, self.translator.page
        link = f" [The same page in the book]({self.origin.site}/{page}.html)." if self.origin.site else ""
        first, _, rest = cell.source.partition("\n")
        if not first.startswith("# "):
            raise ValueError(f"{page}: the first line is to be the title, not {first!r}")
        about = f"A page of *{book.title}* as a notebook, to run and to change.{link}"
        cell.source = f"{first}\n\n{about}\n\n{rest.lstrip()}"

    def _solution(self, starts: bool) -> None:
        if starts == (self.solution is not None):
            raise ValueError(f"{self.translator.page}: a solution starts within another, or ends before it starts")
        if starts:
            self.solution = []
            return
        body, self.solution = "\n\n".join(self.solution), None
        self._add(details("Solution", body))

    def _text(self, text: str) -> None:
        if self.solution is not None:
            self.solution.append(text)
        elif self.joins:
            self.cells[-1].source += f"\n\n{text}"
        else:
            self._add(text)
            self.joins = True

    def _add(self, text: str) -> None:
        taken = {cell.id for cell in self.cells}
        names = [self.cell.id, *(f"{self.cell.id}-{n}" for n in range(2, 20))]
        self.cells.append(new_markdown_cell(text, id=next(name for name in names if name not in taken)))
        self.joins = False

    def _code(self, cell: NotebookNode) -> None:
        tags = set(cell.metadata.get("tags", []))
        if not any(c.cell_type == "code" for c in self.cells):
            setup = nbformat.v4.new_code_cell(setup_code(self.origin), id="set-up")
            self.cells.append(self._folded(setup))
            if "remove-cell" in tags:  # what stands there in the sources
                return
        code = self.translator.code(cell.source)
        if self.solution is not None:
            self.solution.append(f"```python\n{code}\n```")
            return
        plain = nbformat.v4.new_code_cell(code, id=cell.id, outputs=self._outputs(cell, tags))
        if tags & FOLDED:
            plain.source = f'# @title {title(cell)} {{ display-mode: "form" }}\n{code}'
            self._folded(plain)
        self.cells.append(plain)

    def _outputs(self, cell: NotebookNode, tags: set[str]) -> list[NotebookNode]:
        """What the cell showed in the build, so that the notebook can be read before it is run."""
        if tags & {"remove-cell", "remove-output"}:
            return []
        shown = copy.deepcopy(cell.outputs)
        for output in shown:
            output.get("metadata", {}).clear()
            if "execution_count" in output:
                output["execution_count"] = None
            for kind, text in output.get("data", {}).items():
                if kind in ("text/markdown", "text/html"):
                    output["data"][kind] = self.translator.output("".join(text), kind)
        return shown

    @staticmethod
    def _folded(cell: NotebookNode) -> NotebookNode:
        """A code cell of which Colab and JupyterLab show the title alone."""
        cell.metadata.update(cellView="form", jupyter={"source_hidden": True})
        return cell


def plain(page: str, book: Book, origin: Origin, executed: Executed = lambda notebook: notebook) -> NotebookNode:
    """The plain edition of one page, a notebook. executed: gives a source its outputs; as it stands, there are none.
    Raises ValueError for a construct that it does not know."""
    source = nbformat.read(book.root / f"{page}.ipynb", as_version=4)
    return Edition(book, page, origin).notebook(executed(source))


def write_plain(root: Path, folder: Path, origin: Origin, executed: Executed = lambda notebook: notebook) -> None:
    """Write all chapters to `folder`, anew, in the folders of the sources, and a README that lists them. executed: as
    `plain` has it."""
    book = Book(root)
    chapters = [page for page in pages(root) if source(root, page).suffix == ".ipynb"]
    made = {f"{page}.ipynb": plain(page, book, origin, executed) for page in chapters}
    shutil.rmtree(folder, ignore_errors=True)
    for name, notebook in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, folder / name)
    listed = "\n".join(f"* [{book.titles[page]}]({page}.ipynb)" for page in chapters)
    (folder / "README.md").write_text(
        f"# {book.title}: the notebooks\n\nMade by the book's build from its sources, for Colab and for download; "
        f"each runs alone. What is changed here is overwritten by the next build.\n\n{listed}\n",
        encoding="utf-8",
    )
