"""The line of a solution says whose it is, by number: "Solution to Exercise 5.2". Sphinx-exercise would say the name of
the exercise again, which stands a few lines above."""

from __future__ import annotations

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx_exercise.nodes import solution_node


def shorten(solution: solution_node) -> None:
    """Leave of the link in a solution's title the number of the exercise."""
    links = [child for child in solution[0] if isinstance(child, nodes.reference)]
    if len(links) != 1 or not isinstance(links[0][0], nodes.Text):
        raise ExtensionError(f"{solution['label']}: sphinx-exercise writes other titles: {solution[0]}")
    [link] = links
    number = link[0].strip()
    link.clear()
    link += nodes.Text(number)
    link.parent.insert(link.parent.index(link), nodes.Text(" "))


def _shorten_all(app, doctree, docname) -> None:
    for solution in doctree.findall(solution_node):
        shorten(solution)


def setup(app) -> dict[str, bool]:
    app.connect("doctree-resolved", _shorten_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
