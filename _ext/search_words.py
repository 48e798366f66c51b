"""What the search knows of a page: its formulas as the symbols that readers see and type, not as TeX."""

from __future__ import annotations

from docutils import nodes
from plain_math import plain
from sphinx.search import IndexBuilder, WordStore

_collect = IndexBuilder._word_collector


def symbols(tex: str) -> str:
    """A formula as words for the index: its text, and each of its symbols by itself, such as λ in "ηλ"."""
    text = plain(tex)
    return " ".join([text, *(symbol for symbol in text if symbol.isalpha() and not symbol.isascii())])


def words(self: IndexBuilder, doctree: nodes.document) -> WordStore:
    """The words of a page, its formulas read as symbols."""
    read = doctree.deepcopy()
    for formula in list(read.findall(lambda node: isinstance(node, nodes.math | nodes.math_block))):
        formula.replace_self(nodes.inline("", symbols(formula.astext())))
    return _collect(self, read)


def setup(app) -> dict[str, bool]:
    IndexBuilder._word_collector = words  # Sphinx has no setting for it
    return {"parallel_read_safe": True, "parallel_write_safe": True}
