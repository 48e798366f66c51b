"""What every picture to move is made of: controls, a plain script and its data in the output of a cell, and the still
picture that stands in its place where no script runs, and in print.

Nothing is loaded: neither a file nor a library, so that it works in the built book without a connection, in Jupyter and
in Colab, and no other page carries it.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from html import escape
from importlib.resources import files
from urllib.parse import quote

import matplotlib as mpl
from matplotlib import pyplot as plt

from adamw_book.display import Shown

SAFE = " !$'()*+,-./:;=?@_~"  # what an address in double quotes may hold as it is
_DASHES = {"AdamW": "none", "Adam + L2": "6 3", "Adam": "2 3"}


def _file(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def slider(name: str, label: str, positions: int, start: int) -> str:
    """A labelled slider over so many positions, and what it stands at. The number of the position is its value."""
    return (
        f'<div class="control"><label for="ID-{name}">{escape(label)}</label><input type="range" id="ID-{name}" '
        f'name="{name}" min="0" max="{positions - 1}" step="1" value="{start}">'
        f'<output for="ID-{name}" aria-live="off"></output></div>'
    )


def choice(name: str, label: str, options: list[str], start: str = "") -> str:
    """A labelled list of choices."""
    listed = "".join(f"<option{' selected' if o == start else ''}>{escape(o)}</option>" for o in options)
    return (
        f'<div class="control"><label for="ID-{name}">{escape(label)}</label><select id="ID-{name}" name="{name}">'
        f"{listed}</select></div>"
    )


def swatch(arm: str) -> str:
    """The line of an arm as the pictures draw it, for a legend."""
    return (
        f'<svg class="swatch" width="28" height="8" aria-hidden="true"><path class="line" data-arm="{escape(arm)}" '
        f'stroke-dasharray="{_DASHES[arm]}" d="M0 4H28"/></svg>'
    )


def mark(metric: int) -> str:
    """The dot (0) or the square (1) of a metric, for a legend."""
    shape = "M0 4a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z" if metric == 0 else "M0 0h8v8h-8z"
    return (
        f'<svg class="swatch dot" width="8" height="8" aria-hidden="true"><path class="mark" data-metric="{metric}" '
        f'd="{shape}"/></svg>'
    )


def picture(figure: mpl.figure.Figure, alt: str) -> str:
    """A figure as an image that is part of the page, and closed. Small: its letters are text, and its points rounded to
    a tenth of one."""
    with mpl.rc_context({"svg.fonttype": "none"}):
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    plt.close(figure)
    svg = drawn.getvalue()[drawn.getvalue().index("<svg") :]
    svg = re.sub(r"font-family: [^;\"]+", "font-family: sans-serif", re.sub(r"<!--.*?-->|\s+", " ", svg))
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d)\d+", r"\1", tag[0]), svg)  # not the numbers that it shows
    svg = svg.replace("'", "&apos;").replace('"', "'")
    return f'<img src="data:image/svg+xml,{quote(svg, safe=SAFE)}" alt="{escape(alt, quote=True)}">'


def assembled(
    script: str, label: str, live: str, data: dict, still: mpl.figure.Figure, alt: str, more: str = ""
) -> Shown:
    """The whole: ``live`` (HTML, in which ID stands for the prefix of its ids) is bound by ``script``.js to ``data``;
    ``still``, described by ``alt``, and ``more`` (HTML) stand in its place without scripts. A reader without HTML gets
    ``alt``."""
    payload = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    name = "movable-" + hashlib.sha256((live + payload).encode()).hexdigest()[:10]
    begin = f"start(document.getElementById('{name}'), {payload});"
    html = (
        f'<style>{_file("movable.css")}</style><div class="movable movable-{script}" id="{name}" role="group" '
        f'aria-label="{escape(label, quote=True)}"><div class="live" hidden>{live.replace("ID-", f"{name}-")}'
        f'<p class="said" aria-live="polite"></p></div><div class="still">{picture(still, alt)}{more}</div></div>'
        f"<script>(() => {{\n{_file('drawing.js')}{_file(f'{script}.js')}{begin}\n}})();</script>"
    )
    return Shown(html, f"**{label}**\n\n{alt}")
