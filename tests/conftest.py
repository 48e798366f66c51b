"""The chapters are tests: nbmake executes each notebook under chapters/, with this tree's package. And the browser in
which pages are tried."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from unavailable import unavailable

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


def pytest_terminal_summary(terminalreporter) -> None:
    """What the tests of the compiled kernel found (tests/optim/test_compiled.py), as a table after all tests, whichever
    process ran them. It stands here because only this file is read by the process that hands out the tests."""
    reports = [r for found in terminalreporter.stats.values() for r in found if getattr(r, "when", "") == "call"]
    rows = [tuple(value) for r in reports for name, value in r.user_properties if name == "compiled kernel"]
    if not rows:
        return
    terminalreporter.section("the AdamW kernel, compiled: bytes of spills, loads and stores of 128 bits")
    line = "{:6} {:20} {:10} {:>9} {:>6} {:>5} {:>6}"
    terminalreporter.write_line(line.format("GPU", "dtypes", "flags", "registers", "spills", "loads", "stores"))
    for architecture, *row in sorted(rows, key=lambda r: (r[2] != "plain", r[2], r[1], r[0])):
        terminalreporter.write_line(line.format(f"sm_{architecture}", *row))


@pytest.fixture(scope="session")
def browser():
    from chromium import NAMES, chromium

    if not any(map(shutil.which, NAMES)):
        unavailable("no Chromium was found: on Debian `sudo apt install chromium`, on Ubuntu `chromium-browser`")
    if find_spec("playwright") is None:
        unavailable("playwright is not installed: pip install playwright (its own browsers are not needed)")
    with chromium() as browser:
        yield browser
