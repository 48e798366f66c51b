"""The page of the package's API: docstrings as reStructuredText."""

import importlib
import re
from pathlib import Path

import api_pages
import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_arguments_become_a_list_and_what_follows_a_paragraph():
    lines = [
        "Train.",
        "",
        "runs: one a row,",
        "    or none.",
        "lr, eps: numbers.",
        "Unknown: no argument.",
        "",
        "It ends.",
    ]
    assert api_pages.as_list(lines, {"runs", "lr", "eps"}) == [
        "Train.", "", "", "* **runs**: one a row,", "  or none.", "", "* **lr, eps**: numbers.",
        "  Unknown: no argument.", "", "It ends.",
    ]  # fmt: skip


def test_what_stands_indented_outside_a_list_stays_so():
    lines = ["Or in a block::", "", "    with this:", "        train()"]
    assert api_pages.as_list(lines, {"model"}) == lines


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("a `name`, :func:`~here.f` and ``code``", "a ``name``, ``here.f`` and ``code``"),
        (":math:`x` stays", ":math:`x` stays"),
    ],
)
def test_names_and_roles_without_a_page_are_set_as_code(written: str, shown: str):
    assert api_pages.as_code(written) == shown


def test_what_has_no_signature_has_no_arguments():
    assert api_pages.arguments_of(3) == set() and api_pages.arguments_of(pytest.raises) >= {"expected_exception"}


def test_everything_on_the_page_has_a_docstring():
    text = (ROOT / "chapters" / "api.md").read_text(encoding="utf-8")
    named = re.findall(r"auto(?:class|function):: (\S+)\.(\w+)(?:\n   :members: (.+))?", text)
    assert len(named) > 10
    for module, name, members in named:
        thing = getattr(importlib.import_module(module), name)
        parts = [thing, *(getattr(thing, part) for part in members.split(", ") if part)]
        assert all((part.__doc__ or "").strip() for part in parts), name
