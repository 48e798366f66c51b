"""Puts licences beside what they are about: every Python package of which the built pages carry files brings its own,
as installed, to `_static/licenses`. That folder's README.txt lists the rest; those texts are committed."""

from __future__ import annotations

import re
import shutil
from importlib import metadata
from pathlib import Path

from sphinx.errors import ExtensionError

PACKAGES = (
    "accessible-pygments",
    "myst-nb",
    "pydata-sphinx-theme",
    "Pygments",
    "Sphinx",
    "sphinx-book-theme",
    "sphinx-copybutton",
    "sphinx-design",
    "sphinx-exercise",
    "sphinx-thebe",
    "sphinx-togglebutton",
)
OWN = ("LICENSE", "LICENSE-TEXT")


def license_of(package: str) -> str:
    """The licence texts that an installed package brings along. Raises ExtensionError where there are none."""
    files = metadata.files(package) or ()
    found = [file for file in files if re.match(r"(?i)(licen[cs]e|copying)", file.name) and ".dist-info" in str(file)]
    if not found:
        raise ExtensionError(f"the package {package} brings no licence: commit its text (_static/licenses)")
    return "\n\n".join(file.locate().read_text(encoding="utf-8") for file in found)


def _copy(app, exception) -> None:
    if exception is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "_static" / "licenses"
    for package in PACKAGES:
        (folder / f"{package}.txt").write_text(license_of(package), encoding="utf-8")
    for name in OWN:
        shutil.copy(Path(app.srcdir) / name, folder / f"{name}.txt")


def setup(app) -> dict[str, bool]:
    app.connect("build-finished", _copy, priority=900)  # after the copying of _static
    return {"parallel_read_safe": True, "parallel_write_safe": True}
