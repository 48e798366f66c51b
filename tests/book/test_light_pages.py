"""What is done to a page when it is written: formulas, icons, figures, accessibility, what it loads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the book's tools are not installed: pip install -r requirements.txt")
pytest.importorskip("py_mini_racer", reason="the book's tools are not installed: pip install -r requirements.txt")

import accessible
import api_pages
import figures
import icons
import light_pages
from bs4 import BeautifulSoup
from fontTools.ttLib import TTFont
from formulas import FONTS, Setter
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.errors import ExtensionError


def parsed(text: str) -> BeautifulSoup:
    return BeautifulSoup(text, "html.parser")


# ---- Formulas


@pytest.fixture(scope="module")
def setter() -> Iterator[Setter]:
    setter = Setter()
    yield setter
    setter.close()


def test_a_formula_is_seen_as_html_and_heard_as_mathml(setter: Setter):
    [inline, display], _ = setter.page([(r"\sqrt{\hat v}", False), (r"\frac{1}{2}", True)], "fonts")
    assert parsed(inline).select_one("mjx-container:not([display]) > mjx-math[aria-hidden=true] mjx-sqrt")
    assert parsed(display).select_one("mjx-container[display=true] > mjx-math[aria-hidden=true] mjx-frac")
    heard = parsed(inline).select_one("mjx-container > mjx-assistive-mml > math")
    assert [heard.msqrt.mi.get_text(), heard.msqrt.mo.get_text()] == ["v", "^"]


def test_the_style_is_that_of_the_formulas_of_this_page_alone(setter: Setter):
    _, first = setter.page([(r"\theta", False)], "../_static/fonts")
    _, second = setter.page([(r"\eta", False)], "../_static/fonts")
    assert "mjx-c1D703" in first and "mjx-c1D703" not in second and "mjx-c1D702" in second
    assert setter.page([(r"\theta", False)], "../_static/fonts")[1] == first
    addresses = re.findall(r'url\("([^"?]+)\?v=[0-9a-f]{8}"\)', first)
    assert addresses and first.count("url(") == len(addresses)
    assert {Path(address).name for address in addresses} <= {file.name for file in FONTS.iterdir()}
    assert {str(Path(address).parent) for address in addresses} == {"../_static/fonts"}


def test_a_formula_that_cannot_be_set_is_named(setter: Setter):
    with pytest.raises(ValueError, match=r"Undefined control sequence.*: 1 \+ \\nonsense"):
        setter.page([(r"1", False), (r"1 + \nonsense", False)], "fonts")
    assert len(setter.page([("1", False)], "fonts")[0]) == 1  # and the next page is set


@pytest.mark.parametrize(
    ("written", "source"),
    [
        (r'<span class="math">\(\ell_2\)</span>', (r"\ell_2", False)),
        (r'<div class="math"><span class="eqno">(1)<a>#</a></span>\[a &lt; b\]</div>', ("a < b", True)),
        (r'<div class="math">\begin{align}a\end{align}</div>', (r"\begin{align}a\end{align}", True)),
    ],
)
def test_the_source_of_a_formula_is_read_from_the_page(written: str, source: tuple[str, bool]):
    assert light_pages.source_of(parsed(written).find()) == source


# ---- Icons


def test_an_icon_becomes_its_drawing_and_keeps_its_attributes():
    soup = parsed('<i class="theme-switch fa-solid fa-moon fa-lg" data-mode="dark"></i><i class="other"></i>')
    icons.draw(soup)
    assert soup.select_one("svg.theme-switch.fa-lg.icon[data-mode=dark][aria-hidden=true] > path[d^=M]")
    assert soup.select_one("i.other")
    menu = parsed('<button><span class="fa-solid fa-bars"></span></button>')  # of the theme's header on a phone
    icons.draw(menu)
    assert menu.select_one("button > svg.fa-bars > path") and not menu.select("span")
    new, old = parsed('<i class="fas fa-pencil"></i>'), parsed('<i class="fas fa-pencil-alt"></i>')
    icons.draw(new)
    icons.draw(old)
    assert new.select_one("path")["d"] == old.select_one("path")["d"]
    with pytest.raises(ExtensionError, match="no icon .* 'fas fa-unicorn'"):
        icons.draw(parsed('<i class="fas fa-unicorn"></i>'))


def test_the_style_loses_the_rules_of_icons_and_no_other():
    style = (
        "a{b:c}.fa-moon:before{--fa:x}.fa,.fas{d:e}.fa-lg,nav .fa-lg{f:g}@media print{.fa-sun:before{x:y}p{z:1}}"
        "@font-face{font-display:block;font-family:Font Awesome\\ 6 Free;src:url(x)}.far.fa-x::after{h:i}.fax{j:k}"
    )
    assert icons.without_icons(style) == "a{b:c}nav .fa-lg{f:g}@media print{p{z:1}}.fax{j:k}"


def test_the_font_holds_the_characters_that_the_style_names():
    style = icons.without_icons((icons.THEME / icons.STYLE).read_text(encoding="utf-8"))
    font = icons.subset(style)
    held = set(TTFont(BytesIO(font)).getBestCmap())
    named = {ord(one) for one in style if "\ue000" <= one <= "\uf8ff"}
    assert held == named & set(TTFont(icons.FONT).getBestCmap()) and len(held) > 5
    assert font == icons.subset(style)  # the same whenever it is made
    assert re.search(r"icons\.woff\?v=[0-9a-f]{8}\)", icons.face(font)) and icons.face(font) != icons.face(b"")


# ---- Figures

DRAWING = """<svg xmlns:xlink="x" width="300pt" height="150.3pt" viewBox="0 0 300 150.3">
 <metadata>2020</metadata>
 <g id="line_1">
  <path d="M 10.123456 20.5
L -3.000001 4" style="stroke-width: 0.015625"/>
  <!-- ten --><use xlink:href="#m1" x="1.23456" transform="scale(0.015625)"/>
 </g>
</svg>"""


def test_a_figure_has_its_size_before_it_comes(tmp_path: Path):
    (tmp_path / "a.svg").write_text(DRAWING)
    soup = parsed("<article>" + "<img src='../_images/a.svg'>" * 2 + "<img src='photo.png'></article>")
    figures.size(soup, lambda address: tmp_path / Path(address).name)
    first, second, photo = soup.select("img")
    assert (first["width"], first["height"]) == (second["width"], second["height"]) == ("400", "200")
    assert [image.get("loading") for image in (first, second, photo)] == [None, "lazy", "lazy"]
    (tmp_path / "a.svg").write_text(DRAWING.replace('width="300pt"', ""))
    with pytest.raises(ValueError, match="_images/a.svg has no width"):
        figures.size(soup, lambda address: tmp_path / Path(address).name)


def test_a_slim_figure_shows_the_same():
    slim = figures.slim(DRAWING)
    assert slim == (
        '<svg xmlns:xlink="x" width="300pt" height="150.3pt" viewBox="0 0 300 150.3"><g>'
        '<path d="M 10.12 20.5\nL -3.00 4" style="stroke-width: 0.015625"/>'
        '<use xlink:href="#m1" x="1.23" transform="scale(0.015625)"/></g></svg>'
    )
    assert figures.slim(slim) == slim


# ---- Accessibility, and what a page loads


def test_faults_of_accessibility_are_mended():
    soup = parsed(
        '<meta name="viewport"><meta name="viewport"><div id="pst-primary-sidebar"></div>'
        '<button aria-label="Search">Search <kbd>K</kbd></button><button aria-label="Colour"><i></i></button>'
        '<summary aria-label="Toggle">Show</summary><a aria-label="Read more of it">read more</a>'
        '<table><tr><th class="blank" scope="col">&nbsp;</th><th>a</th></tr></table>'
        '<div role="doc-biblioentry" id="x"></div><p id="x"></p><p id="y"></p>'
    )
    accessible.mend(soup)
    assert len(soup.select("meta")) == 1 and soup.select_one("#pst-primary-sidebar[role=complementary][aria-label]")
    assert [bool(e.get("aria-label")) for e in soup.select("button, summary, a")] == [False, True, False, True]
    assert [cell.name for cell in soup.select("tr > *")] == ["td", "th"] and not soup.td.get("scope")
    assert soup.select_one("div[role=listitem]#x") and len(soup.select("#x")) == 1 and soup.select_one("p#y")


PAGE = """<html><head><link rel="stylesheet" href="a.css"><link rel="stylesheet" href="_static/sphinx-design.min.css">
<link rel="preload" href="b.js"><script data-cfasync="false">theme</script><script>window.MathJax = {}</script>
<script src="a.js"></script><script>let b = a</script><script src="searchtools.js"></script></head>
<body>%s<script type="text/x-thebe-config">{}</script><script defer src="b.js"></script></body></html>"""


def test_a_page_loads_what_it_needs_in_the_old_order_and_after_its_text():
    soup = parsed(PAGE % "<p>text</p>")
    light_pages.load_what_is_needed(soup)
    assert [link["href"] for link in soup.select("link")] == ["a.css"]
    assert [script.get("src") or script.get_text() for script in soup.select("body script")] == [
        "b.js",
        "a.js",
        "let b = a",
    ]
    assert soup.head.script.get_text() == "theme"
    needing = parsed(PAGE % '<div id="search-results"></div><p class="sd-card"></p>')
    light_pages.load_what_is_needed(needing)
    assert needing.select_one("script[src='searchtools.js']") and needing.select_one("link[href*=sphinx-design]")


def test_an_address_changes_with_the_content(tmp_path: Path):
    (tmp_path / "_static").mkdir()
    addresses = []
    for content in ("one", "two", "one"):
        (tmp_path / "_static" / "a.css").write_text(content)
        soup = parsed('<link href="../_static/a.css?digest=1"><link href="../_static/none.css"><link href="a.css">')
        light_pages.name_by_content(soup, "../", tmp_path)
        addresses.append([link["href"] for link in soup.select("link")])
    first, second, third = addresses
    assert re.fullmatch(r"\.\./_static/a\.css\?v=[0-9a-f]{8}", first[0]) and first == third != second
    assert first[1:] == second[1:] == ["../_static/none.css", "a.css"]
    at_the_root = parsed('<script src="_static/a.css"></script>')
    light_pages.name_by_content(at_the_root, "./", tmp_path)
    assert re.fullmatch(r"_static/a\.css\?v=[0-9a-f]{8}", at_the_root.script["src"])


# ---- The pages of the package

CODE = """from adamw_book import ensemble
from adamw_book.task import Task as Job
x = ensemble.train(Job(), Task, torch.Job)
ensemble.train
"""


def test_the_first_use_of_a_public_object_leads_to_its_page():
    prose = '<code class="literal">adamw_book.Audit()</code> <code class="literal">train</code>'
    soup = parsed(f"<article><p>{prose}</p>{highlight(CODE, PythonLexer(), HtmlFormatter())}</article>")
    text = soup.get_text()
    addresses = {"adamw_book.ensemble.train": "e#t", "adamw_book.task.Task": "t#T", "adamw_book.Audit": "d#A"}
    api_pages.link(soup, addresses)
    links = [(link["href"], link.get_text()) for link in soup.select("a.api")]
    assert links == [("d#A", "adamw_book.Audit()"), ("e#t", "ensemble.train"), ("t#T", "Job")]
    assert soup.get_text() == text


def test_arguments_that_a_docstring_explains_become_fields():
    lines = ["Train.", "", "runs: the runs", "    of it.", "lr, decay: two.", "Note: not one.", "", "other: text"]
    assert api_pages.fields_of(lines, {"runs", "lr", "decay"}) == [
        "Train.",
        "",
        ":param runs: the runs",
        "    of it.",
        ":param lr, decay: two.",
        "",
        "Note: not one.",
        "",
        "other: text",
    ]
