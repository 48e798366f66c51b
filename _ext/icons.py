"""Of the theme's icons (Font Awesome, 1.7 MB), only those that the book shows: in the pages as drawings, and for the
styles as a font of the few characters that they name."""

from __future__ import annotations

import hashlib
import logging
import re
from functools import cache
from io import BytesIO
from pathlib import Path

import pydata_sphinx_theme
from bs4 import BeautifulSoup
from fontTools.pens.svgPathPen import SVGPathPen
from fontTools.pens.transformPen import TransformPen
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont
from sphinx.errors import ExtensionError

THEME = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
FONT = THEME / "vendor" / "fontawesome" / "webfonts" / "fa-solid-900.ttf"
STYLE = Path("styles") / "pydata-sphinx-theme.css"
SUBSET = Path("vendor") / "fontawesome" / "icons.woff"
# `.fa-moon:before`, `.fa-solid`, `.fas.fa-lg`; not `.bd-search .fa-solid`, which is the theme's own
_OWN = re.compile(r"(\.(fa[srb]?|fa-[\w-]+|sr-only[\w-]*)(:not\([^)]*\))?)+(::?(before|after))?")

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it reports every table


@cache
def _icons() -> tuple[TTFont, dict[str, str]]:
    """The theme's font, and the glyph of each class, `fa-pencil` and its older name `fa-pencil-alt` alike."""
    font = TTFont(FONT)
    glyphs = font.getBestCmap()
    rules = re.findall(r'([^{}]+:before)\{content:"\\([0-9a-f]{3,})"', (THEME / STYLE).read_text(encoding="utf-8"))
    named = [(name, int(code, 16)) for selectors, code in rules for name in re.findall(r"fa-[\w-]+", selectors)]
    return font, {name: glyphs[code] for name, code in named if code in glyphs}


def draw(soup: BeautifulSoup) -> None:
    """Replace each `<i class="fa-solid fa-NAME">`, or `<span …>`, by the drawing of that icon, with the classes and
    attributes of the former. Raises ExtensionError for an icon that the font lacks."""
    for icon in soup.select(":is(i, span):is(.fas, .fa-solid)"):
        font, names = _icons()
        glyphs, metrics = font.getGlyphSet(), font["hhea"]
        shown = [names[name] for name in icon["class"] if name in names]
        if len(shown) != 1:
            raise ExtensionError(f"no icon of the theme's font is called {' '.join(icon['class'])!r}")
        glyph, height = glyphs[shown[0]], metrics.ascent - metrics.descent
        pen = SVGPathPen(glyphs)
        glyph.draw(TransformPen(pen, (1, 0, 0, -1, 0, metrics.ascent)))
        icon.name = "svg"
        icon["class"] = [*icon["class"], "icon"]
        icon["viewBox"], icon["aria-hidden"] = f"0 0 {glyph.width:g} {height:g}", "true"
        icon.append(soup.new_tag("path", fill="currentColor", d=pen.getCommands()))


def without_icons(style: str) -> str:
    """The theme's style without Font Awesome's own rules: one for each of its 1,400 icons, and its fonts."""

    def kept(match: re.Match[str]) -> str:
        selectors = [one for one in match[1].split(",") if not _OWN.fullmatch(one.strip())]
        return f"{','.join(selectors)}{match[2]}" if selectors else ""

    style = re.sub(r"@font-face\{font-display:block;font-family:Font Awesome[^}]*\}", "", style)
    return re.sub(r"(?<=[{}/])([^{}@/]+)(\{[^{}]*\})", kept, style)


def subset(style: str) -> bytes:
    """The font (WOFF) of the icons that a style shows by their characters."""
    characters = {ord(one) for one in re.findall(r"[\ue000-\uf8ff]", style)}  # for private use: the theme's icons
    options = Options()
    options.flavor, options.layout_features, options.notdef_outline = "woff", [], False
    font = TTFont(FONT, recalcTimestamp=False)
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=characters)
    subsetter.subset(font)
    font.flavor = "woff"
    written = BytesIO()
    font.save(written)
    return written.getvalue()


def face(font: bytes) -> str:
    """The rule by which a style finds the font, at an address that changes with it."""
    return (
        '@font-face{font-family:"Font Awesome 6 Free";font-style:normal;font-weight:900;font-display:block;'
        f'src:url(../{SUBSET.as_posix()}?v={hashlib.sha256(font).hexdigest()[:8]}) format("woff")}}'
    )
