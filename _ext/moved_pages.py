"""Keeps the addresses of pages that have moved alive: each old address gets a small page that leads to the new one."""

from __future__ import annotations

import posixpath
from html import escape
from pathlib import Path

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>This page has moved</title>
<meta http-equiv="refresh" content="0; url={to}">
<link rel="canonical" href="{to}">
<script>location.replace("{to}" + location.hash)</script>
</head>
<body><p>This page has moved: <a href="{to}">{to}</a></p></body>
</html>
"""


def redirect(old: str, new: str) -> str:
    """The HTML that leads from the page `old` to the page `new` (both without suffix, from the book's root), by a
    relative address, so that it needs neither network nor the book's own address."""
    to = posixpath.relpath(f"{new}.html", posixpath.dirname(old) or ".")
    return _PAGE.format(to=escape(to, quote=True))


def write_moved(outdir: Path, moved: dict[str, str], pages: set[str]) -> None:
    """Write a redirect at each old address whose new page is one of `pages`. Raises ValueError where the old address
    is a page still."""
    for old, new in moved.items():
        if old in pages:
            raise ValueError(f"moved_pages says that {old!r} has moved, but it is a page of the book")
        if new in pages:
            path = outdir / f"{old}.html"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(redirect(old, new), encoding="utf-8")


def _write(app, exception) -> None:
    if exception is None and app.builder.format == "html":
        write_moved(Path(app.outdir), app.config.moved_pages, set(app.env.found_docs))


def setup(app) -> dict[str, bool]:
    app.add_config_value("moved_pages", {}, "html", [dict])
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
