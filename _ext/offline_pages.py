"""Keeps the built book to its own host: no script from a CDN, and of the local MathJax only what pages load."""

from __future__ import annotations

import shutil
from pathlib import Path

# MathJax comes with one bundle for each pair of input and output. The pages load tex-chtml.js alone, and that loads
# what else it needs (fonts, extensions, accessibility) from the folders, which stay.
BUNDLE = "tex-chtml.js"


def _no_widgets(app, config) -> None:
    # Widget state in a notebook would make myst-nb load require.js from a CDN. This cannot be set in _config.yml: a
    # recursive update keeps the keys of the default.
    config.nb_ipywidgets_js = {}


def _prune_mathjax(app, exception) -> None:
    mathjax = Path(app.outdir) / "_static" / "mathjax"
    if exception is not None or not mathjax.is_dir():
        return
    for script in mathjax.glob("*.js"):
        if script.name != BUNDLE:
            script.unlink()
    for folder in ("node-main", "adaptors", "input/asciimath", "input/mml"):
        shutil.rmtree(mathjax / folder, ignore_errors=True)


def _no_thebe(app, pagename, templatename, context, doctree) -> None:
    # Jupyter Book loads sphinx-thebe in any case, and with it the address of a script on a CDN.
    def is_thebe(script) -> bool:
        return "thebe" in str(getattr(script, "filename", script)) + str(getattr(script, "attributes", ""))

    context["script_files"] = [script for script in context["script_files"] if not is_thebe(script)]


def setup(app) -> dict[str, bool]:
    app.connect("config-inited", _no_widgets)
    app.connect("html-page-context", _no_thebe, priority=900)
    app.connect("build-finished", _prune_mathjax, priority=900)  # after the copying
    return {"parallel_read_safe": True, "parallel_write_safe": True}
