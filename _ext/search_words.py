"""What the search knows of a page: its formulas as the symbols that readers see and type, not as TeX."""

from __future__ import annotations

from docutils import nodes
from plain_math import plain
from sphinx.search import WordCollector

_visit = WordCollector.dispatch_visit


def _symbols(self: WordCollector, node: nodes.Node) -> None:
    if isinstance(node, nodes.math | nodes.math_block):
        self.found_words.extend(self.lang.split(plain(node.astext())))
        raise nodes.SkipNode
    _visit(self, node)


def setup(app) -> dict[str, bool]:
    WordCollector.dispatch_visit = _symbols  # Sphinx has no setting for it
    return {"parallel_read_safe": True, "parallel_write_safe": True}
