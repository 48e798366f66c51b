"""What a notebook shows: HTML where that can be shown, Markdown elsewhere."""

from dataclasses import dataclass


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
