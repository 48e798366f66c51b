"""The pages of the package's public parts: what stands there exists and says what it is."""

import importlib
import re
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).resolve().parents[2] / "chapters" / "api").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_everything_on_the_page_has_a_docstring(page: Path):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"auto(?:class|function):: (\S+)\.(\w+)(?:\n   :members: (.+))?", text)
    named += [
        (module, name, "")
        for module, names in re.findall(r"automodule:: (\S+)\n   :members: (.+)", text)
        for name in names.split(", ")
    ]
    assert len(named) > 1
    for module, name, members in named:
        thing = getattr(importlib.import_module(module), name)
        parts = [thing, *(getattr(thing, part) for part in members.split(", ") if part)]
        assert all((part.__doc__ or "").strip() for part in parts), name
