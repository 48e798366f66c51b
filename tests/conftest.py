"""The chapters are tests: nbmake executes each notebook under chapters/, with this tree's package."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    config.option.nbmake = config.pluginmanager.hasplugin("nbmake")
    # Kernels inherit these: the package of this tree, whatever is installed; no two chapters that share their threads.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    """A chapter runs as a reader runs it: without what tests of the kernels set for this process."""
    if not getattr(item, "nbmake", False):
        return (yield)
    interpret = os.environ.pop("TRITON_INTERPRET", None)
    try:
        return (yield)
    finally:
        if interpret is not None:
            os.environ["TRITON_INTERPRET"] = interpret
