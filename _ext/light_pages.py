"""Finishes each page as it is written: formulas set (formulas.py), icons drawn (icons.py), figures given their size
(figures.py), faults of accessibility mended (accessible.py), nothing loaded that the page does not need, and everything
that it loads named by its content.

Sphinx hands every page to its template bridge, once, when it writes it: so a page is finished by itself, and a build
that writes none has nothing to do again."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import api_pages
import figures
import icons
import sphinx_exercise
from accessible import mend
from bs4 import BeautifulSoup, Tag
from bs4.element import PreformattedString
from formulas import Setter, copy_fonts
from sphinx.errors import ExtensionError
from sphinx.jinja2glue import BuiltinTemplateLoader

FONTS = "mathjax/fonts"
# Scripts of pages that are not there: in-browser kernels (their code is on a CDN), and MathJax in the browser
UNUSED = re.compile(r"thebe|kernelName|mathjax|fontawesome|window\.MathJax", re.IGNORECASE)
# What only some pages show: the address of a style or script, and what on a page needs it
NEEDED_BY = {
    "sphinx-design.min.css": "[class*=sd-]",
    "design-tabs.js": ".sd-tab-set",
    "searchtools.js": "#search-results",
    "language_data.js": "#search-results",
    "searchindex.js": "#search-results",
}
# What the pages no longer load, and maps of source files for the developers of the theme
PRUNED = ("scripts/fontawesome.js", "vendor/fontawesome/webfonts", "sphinx-thebe.*", "**/*.map", "*webpack-macros.html")


class Html(PreformattedString):
    """A piece of HTML that stands in a page as it is."""

    PREFIX = SUFFIX = ""


class Templates(BuiltinTemplateLoader):
    """Sphinx's templates, whose pages are finished when they are rendered."""

    def init(self, builder, *arguments, **options) -> None:
        super().init(builder, *arguments, **options)
        self._builder, self._setter = builder, None

    def render(self, template: str, context: dict) -> str:
        page = super().render(template, context)
        if "</html>" not in page or "content_root" not in context:
            return page
        soup = BeautifulSoup(page, "html.parser")
        try:
            self._set_formulas(soup, context["content_root"])
            icons.draw(soup)
            mend(soup)
            figures.size(soup, self._figure)
        except (ValueError, OSError) as error:
            raise ExtensionError(f"{context['pagename']}: {error}") from error
        api_pages.link(soup, self._documented(context["pagename"]))
        load_what_is_needed(soup)
        name_by_content(soup, context["content_root"], Path(self._builder.outdir))
        return str(soup)

    def _set_formulas(self, soup: BeautifulSoup, root: str) -> None:
        places = soup.select(".math")
        if not places:
            return
        if self._setter is None:
            self._setter = Setter()
        set_, style = self._setter.page([source_of(place) for place in places], f"{root}_static/{FONTS}")
        for place, formula in zip(places, set_, strict=True):
            for text in place.find_all(string=True, recursive=False):
                text.extract()
            place.append(Html(formula))
        soup.head.append(soup.new_tag("style", string=style))

    def _documented(self, page: str) -> dict[str, str]:
        """The full names of what has a place in the pages of the package, and the way there from `page`."""
        return {
            name: f"{self._builder.get_relative_uri(page, found.docname)}#{found.node_id}"
            for name, found in self._builder.env.get_domain("py").objects.items()
            if found.docname != page and found.objtype in ("class", "function", "data")
        }

    def close(self) -> None:
        """Let go of MathJax."""
        if self._setter is not None:
            self._setter.close()
            self._setter = None

    def _figure(self, address: str) -> Path:
        """The file of a figure, which lies in the output only when all pages are written."""
        name = Path(urlsplit(address).path).name
        found = [source for source, copy in self._builder.images.items() if copy == name]
        return Path(self._builder.srcdir, found[0]) if found else Path(self._builder.outdir, "_images", name)


def source_of(place: Tag) -> tuple[str, bool]:
    """The TeX in an element as Sphinx writes it, and whether it is displayed."""
    text = "".join(place.find_all(string=True, recursive=False)).strip()
    return re.sub(r"^\\[\[(]|\\[\])]$", "", text), place.name == "div"


def load_what_is_needed(soup: BeautifulSoup) -> None:
    """Take out what the page has no use for, and let it be seen before its scripts come."""
    for asset in soup.select("link[href], script"):
        address = asset.get("href") or asset.get("src") or ""
        if UNUSED.search(address or f"{asset.get('type')} {asset.get_text()}") or asset.get("rel") == ["preload"]:
            asset.decompose()
            continue
        need = NEEDED_BY.get(Path(urlsplit(address).path).name)
        if need and not soup.select_one(f"body {need}"):
            asset.decompose()
    for script in soup.select("head script:not([data-cfasync])"):
        soup.body.append(script.extract())


def name_by_content(soup: BeautifulSoup, root: str, outdir: Path) -> None:
    """Let the address of every style and script change with its content, so that no browser keeps an old one."""
    for asset, key in [(link, "href") for link in soup.select("link[href]")] + [
        (script, "src") for script in soup.select("script[src]")
    ]:
        path = urlsplit(asset[key]).path
        file = path.removeprefix(root)
        if file.startswith("_static/") and (outdir / file).is_file():
            asset[key] = f"{path}?v={hashlib.sha256((outdir / file).read_bytes()).hexdigest()[:8]}"


def lighten(static: Path) -> None:
    """Leave of the theme's files those that pages load. It can be done again at any time."""
    style = icons.without_icons((icons.THEME / icons.STYLE).read_text(encoding="utf-8"))
    font = icons.subset(style)
    face = icons.face(font)
    (static / icons.STYLE).write_text(style + face, encoding="utf-8")
    (static / icons.SUBSET).parent.mkdir(parents=True, exist_ok=True)
    (static / icons.SUBSET).write_bytes(font)
    # One request less, before which nothing is seen
    theme, basic = static / "styles" / "theme.css", (static / "basic.css").read_text(encoding="utf-8")
    theme.write_text(theme.read_text(encoding="utf-8").replace('@import "../basic.css";', basic), encoding="utf-8")
    copy_fonts(static / FONTS)
    # Sphinx-exercise copies its style when the pages, which name it by its content, are written.
    shutil.copy(Path(sphinx_exercise.__file__).parent / "assets" / "html" / "exercise.css", static)
    for pattern in PRUNED:
        for path in static.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _configure(app, config) -> None:
    config.template_bridge = "light_pages.Templates"
    # Widget state in a notebook would make myst-nb load require.js from a CDN. This cannot be set in _config.yml: a
    # recursive update keeps the keys of the default.
    config.nb_ipywidgets_js = {}


def _before_the_first_page(app, *_) -> None:
    if not getattr(app, "lightened", False):
        lighten(Path(app.outdir) / "_static")
        app.lightened = True


def _after_the_last(app, exception) -> None:
    if app.builder.format == "html":
        app.builder.templates.close()
        if exception is None:
            lighten(Path(app.outdir) / "_static")  # some extensions copy their files last
            for figure in (Path(app.outdir) / "_images").glob("*.svg"):
                figure.write_text(figures.slim(figure.read_text(encoding="utf-8")), encoding="utf-8")


def setup(app) -> dict[str, bool]:
    app.connect("config-inited", _configure)
    app.connect("html-page-context", _before_the_first_page, priority=100)
    app.connect("build-finished", _after_the_last, priority=800)
    return {"parallel_read_safe": True, "parallel_write_safe": False}  # V8 does not outlive a fork
