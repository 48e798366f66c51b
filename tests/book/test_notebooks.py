"""Every chapter executes from top to bottom. With nbmake (requirements.txt) pytest collects the notebooks themselves;
without it they are executed here, so that no installation passes for want of a plug-in."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "chapters").rglob("*.ipynb"))


def test_there_are_chapters():
    assert CHAPTERS


if find_spec("nbmake") is None:

    @pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.relative_to(ROOT).as_posix())
    def test_chapter_executes(path: Path):
        why = "neither nbmake nor nbclient is installed, so no chapter was executed: pip install nbmake"
        nbformat = pytest.importorskip("nbformat", reason=why)
        nbclient = pytest.importorskip("nbclient", reason=why)
        notebook = nbformat.read(path, as_version=4)
        nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
