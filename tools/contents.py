"""The book's table of contents."""

from __future__ import annotations

from pathlib import Path

import yaml


def pages(root: Path) -> list[str]:
    """The pages that `_toc.yml` names, in its order, as paths from `root` without their suffixes."""
    found: list[str] = []

    def walk(entry) -> None:
        if isinstance(entry, dict):
            found.extend(entry[key] for key in ("root", "file") if key in entry)
            for value in entry.values():
                walk(value)
        elif isinstance(entry, list):
            for value in entry:
                walk(value)

    walk(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8")))
    return [page.removesuffix(".ipynb").removesuffix(".md") for page in found]


def source(root: Path, page: str) -> Path | None:
    """The file that the page is written in; None where there is none."""
    return next((path for end in (".ipynb", ".md") if (path := root / (page + end)).exists()), None)


def numbered(root: Path) -> list[str]:
    """The pages of the parts with `numbered: true`: the first is chapter 1, whatever the part."""
    parts = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8")).get("parts", [])
    return [entry["file"] for part in parts if part.get("numbered") for entry in part["chapters"]]
