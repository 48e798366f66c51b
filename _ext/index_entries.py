"""Entries of the index that no page writes by hand: the source's tags, from the records in `ledger/`, each leading to
its chapter; and the authors of all papers, leading to the bibliography. (Terms come from the glossary.)"""

from __future__ import annotations

import json
from pathlib import Path

from docutils import nodes
from pybtex.database import parse_file
from pybtex.richtext import Text
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

BIBLIOGRAPHY = "chapters/references"


def tags(ledger: Path, chapter: str) -> list[str]:
    """The source's tags that the records of a chapter, the last part of a page's name, are about."""
    records = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(ledger.glob(f"{chapter}.*.json")))
    return sorted({tag for record in records if (tag := record["claim"].get("tag"))})


def authors(bibliography: Path) -> list[str]:
    """ "Last, First" of all authors, each once."""
    people = {
        str(person) for entry in parse_file(str(bibliography)).entries.values() for person in entry.persons["author"]
    }
    return sorted(Text.from_latex(person).render_as("text") for person in people)


class IndexEntries(SphinxTransform):
    default_priority = 840  # before the domains collect the entries (850)

    def apply(self, **_) -> None:
        page, root = self.env.docname, Path(self.env.srcdir)
        section = next(self.document.findall(nodes.section), None)
        found = [f"source tag; {tag}" for tag in tags(root / "ledger", Path(page).name)]
        if page == BIBLIOGRAPHY:
            found += authors(root / "chapters" / "references.bib")
        if section is not None and found:
            entries = [("single", text, section["ids"][0], "", None) for text in found]
            section.insert(1, addnodes.index(entries=entries, inline=False))  # the title stays its first child


def setup(app) -> dict[str, bool]:
    app.add_transform(IndexEntries)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
