"""How the book is found, and how to answer it: links to the index and the PDF in the sidebar, to the repository's
issues and to each page's source where the repository is known; a description of each page; and, where the book's own
address is known (addresses.py), canonical links, a social card, a site map and a page for addresses that lead nowhere.
"""

from __future__ import annotations

import textwrap
from html import escape
from pathlib import Path

from addresses import site_address
from docutils import nodes
from plain_math import plain
from social_card import ALT, CARD, SIZE, has_card

SIDEBAR = ["navbar-logo.html", "icon-links.html", "search-button-field.html", "sbt-sidebar-nav.html", "finding.html"]
LENGTH = 200  # characters of a description
NOT_FOUND = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>There is no such page</title>
<style>body {{ font: 1.1rem/1.6 sans-serif; max-width: 40rem; margin: 15vh auto; padding: 0 1rem }}
:root {{ color-scheme: light dark }}</style>
</head>
<body><main>
<h1>There is no such page</h1>
<p>Perhaps it has moved. <a href="{site}">{title}</a> has a table of contents, a
<a href="{site}search.html">search</a> and an <a href="{site}genindex.html">index</a>.</p>
</main></body>
</html>
"""


def description(doctree: nodes.document) -> str:
    """The first paragraph of a page that is a sentence, in plain text, cut after at most 200 characters at a word."""
    for paragraph in doctree.findall(nodes.paragraph):
        if not isinstance(paragraph.parent, nodes.section):
            continue
        words = [
            plain(text) if isinstance(text.parent, nodes.math) else str(text) for text in paragraph.findall(nodes.Text)
        ]
        if found := " ".join("".join(words).split()):
            return textwrap.shorten(found, LENGTH, placeholder=" …")
    return ""


def _configure(app, config) -> None:
    config.templates_path.append(str(Path(__file__).parent / "templates"))
    config.html_sidebars = {"**": SIDEBAR, **config.html_sidebars}
    config.html_baseurl = config.html_baseurl or site_address()
    known = bool(config.html_theme_options.get("repository_url"))
    config.html_theme_options.update(use_issues_button=known, use_edit_page_button=known)


def _tell(app, pagename, templatename, context, doctree) -> None:
    said = description(doctree) if doctree is not None else ""
    site, tags = app.config.html_baseurl, {}
    if said:
        tags["name", "description"] = said
    if said and site:
        tags |= {
            ("property", "og:type"): "article",
            ("property", "og:title"): nodes.document.astext(app.env.titles[pagename]),
            ("property", "og:description"): said,
            ("property", "og:url"): f"{site}{pagename}.html",
            ("property", "og:site_name"): app.config.html_title or app.config.project,
            ("name", "twitter:card"): "summary_large_image" if has_card(app) else "summary",
        }
    if said and has_card(app):
        tags |= {
            ("property", "og:image"): f"{site}{CARD}",
            ("property", "og:image:type"): "image/png",
            ("property", "og:image:width"): SIZE[0],
            ("property", "og:image:height"): SIZE[1],
            ("property", "og:image:alt"): ALT,
        }
    lines = [f'<meta {kind}="{name}" content="{escape(str(text))}" />' for (kind, name), text in tags.items()]
    context["metatags"] = "\n".join([context.get("metatags", ""), *lines])


def _address(app, exception) -> None:
    site = app.config.html_baseurl
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    if not site:
        for name in ("sitemap.xml", "404.html"):
            (out / name).unlink(missing_ok=True)
        return
    addresses = "".join(f"<url><loc>{escape(site + page)}.html</loc></url>\n" for page in sorted(app.env.found_docs))
    (out / "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
        f"{addresses}</urlset>\n",
        encoding="utf-8",
    )
    page = NOT_FOUND.format(site=escape(site), title=escape(app.config.html_title or app.config.project))
    (out / "404.html").write_text(page, encoding="utf-8")


def setup(app) -> dict[str, bool]:
    # After launch_buttons.py (100) has said what the repository is, before the theme (500) reads its options.
    app.connect("config-inited", _configure, priority=200)
    app.connect("html-page-context", _tell)
    app.connect("build-finished", _address)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
