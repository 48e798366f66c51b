"""Docstrings of the package as reStructuredText, for the page of its API.

They are written to be read as they stand: `name: what it is` for an argument, a line's rest indented or not, names in
backticks, roles to places that have no page. Here each such argument becomes an item of a list, and names are set as
code. Sections of Google's form are left to Napoleon.
"""

from __future__ import annotations

import inspect
import re

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([^`]+)`")
NAME = re.compile(r"(?<![`:\w])`([^`]+)`(?!`)")
ARGUMENT = re.compile(r"(\w+(?:, \w+)*): ")


def as_code(line: str) -> str:
    """A line with its roles and its names in single backticks set as code."""
    return NAME.sub(r"``\1``", ROLE.sub(r"``\1``", line))


def as_list(lines: list[str], arguments: set[str]) -> list[str]:
    """The lines of a docstring with each paragraph that begins with the name of one of the `arguments`, or of several,
    as an item of a list."""
    found, inside = [], False
    for line in lines:
        named = ARGUMENT.match(line)
        if named and set(named[1].split(", ")) <= arguments:
            found += ["", f"* **{named[1]}**: {line[named.end() :]}"]
            inside = True
        else:
            inside = inside and bool(line.strip())
            found.append(f"  {line.strip()}" if inside else line)
    return found


def arguments_of(thing) -> set[str]:
    """The names of the arguments of a function or a class; none where it has no signature."""
    try:
        return set(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        return set()


def process(app, what, name, thing, options, lines: list[str]) -> None:
    plain = not any(line.startswith((".. ", "Args:", "Raises:")) for line in lines)
    lines[:] = map(as_code, as_list(lines, arguments_of(thing)) if plain else lines)


def setup(app) -> dict:
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.connect("autodoc-process-docstring", process, priority=400)  # before Napoleon
    app.config.autodoc_typehints = "none"  # the docstrings say what an argument is
    app.config.autodoc_preserve_defaults = True
    return {"parallel_read_safe": True}
