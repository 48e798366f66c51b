"""What a notebook shows: HTML where that can be shown, Markdown elsewhere; and the package's own source."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass


def listing(*objects: Callable):
    """The source of functions or classes, one after the other, as a cell shows it: the page carries the very code that
    it calls. Raises ``TypeError`` for what has no source in Python."""
    from IPython.display import Code  # there is one wherever a notebook runs; the package alone needs none

    return Code("\n\n".join(inspect.getsource(one).rstrip() for one in objects), language="python")


@dataclass(frozen=True)
class Shown:
    """Something shown as HTML where that can be shown (the book, Jupyter, Colab), and as Markdown or text elsewhere."""

    html: str
    markdown: str

    def _repr_html_(self) -> str:
        return self.html

    def _repr_markdown_(self) -> str:
        return self.markdown

    def __str__(self) -> str:
        return self.markdown
