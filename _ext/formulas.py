"""Sets formulas when the book is built, with the MathJax that sphinx-mathjax-offline brings: a page then carries its
formulas as HTML, with MathML for those who listen, and needs no script to show them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
from pathlib import Path

from py_mini_racer import MiniRacer

MATHJAX = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
FONTS = MATHJAX / "output" / "chtml" / "fonts" / "woff-v2"
PARTS = ("startup", "core", "adaptors/liteDOM", "input/tex", "output/chtml", "output/chtml/fonts/tex")

# MathJax's own output for a browser without scripts: what is seen (CHTML), hidden from screen readers, and the same
# formula as MathML, seen by them alone. Lengths that depend on the page are those of a text of 16 px.
_SET = """
const {mathjax, adaptors, handlers, input, output, core} = MathJax._;
const adaptor = adaptors.liteAdaptor.liteAdaptor();
mathjax.mathjax.handlers.register(new handlers.html.HTMLHandler.HTMLHandler(adaptor));
const tex = new input.tex_ts.TeX({packages: ["base", "ams", "newcommand"], formatError: (_, e) => { throw e; }});
const font = new output.chtml.fonts.tex_ts.TeXFont({fontURL: "FONTS"});
const chtml = new output.chtml_ts.CHTML({font, adaptiveCSS: true});
const page = mathjax.mathjax.document("", {InputJax: tex, OutputJax: chtml});
const mathml = new core.MmlTree.SerializedMmlVisitor.SerializedMmlVisitor();
function one([source, display]) {
  const size = {display, em: 16, ex: 8, containerWidth: 736};
  const shown = page.convert(source, size);
  const read = mathml.visitTree(page.convert(source, {...size, end: core.MathItem.STATE.CONVERT}));
  adaptor.setAttribute(adaptor.firstChild(shown), "aria-hidden", "true");
  const inner = adaptor.innerHTML(shown) + "<mjx-assistive-mml unselectable='on'>" + read.replace(/\\n\\s*/g, "") +
    "</mjx-assistive-mml>";
  return `<mjx-container class="MathJax" jax="CHTML"${display ? ' display="true"' : ""}>${inner}</mjx-container>`;
}
function all(formulas) {
  chtml.clearCache();
  const set = [];
  for (const [source, display] of formulas) {
    try { set.push(one([source, display])); } catch (error) { return JSON.stringify({error: error.message, source}); }
  }
  return JSON.stringify({set, style: adaptor.textContent(chtml.styleSheet(page))});
}
MathJax.version
"""
_ASSISTIVE = """
mjx-container { position: relative; font-size: 117%; }
mjx-assistive-mml { position: absolute; top: 0; left: 0; clip: rect(1px, 1px, 1px, 1px); clip-path: inset(50%);
  width: 1px; height: 1px; overflow: hidden; white-space: nowrap; user-select: none; border: 0; padding: 1px 0 0 0; }
"""


class Setter:
    """MathJax, ready to set the formulas of one page after the other. Close it: it holds a thread of V8."""

    def __init__(self) -> None:
        self._js = MiniRacer()
        self._js.eval('var MathJax = {loader: {load: []}, startup: {typeset: false}}; "ready"')
        for part in PARTS:
            self._js.eval((MATHJAX / f"{part}.js").read_text(encoding="utf-8") + ';"loaded"')
        self.version = self._js.eval(_SET)

    def page(self, formulas: list[tuple[str, bool]], fonts: str) -> tuple[list[str], str]:
        """The HTML of each formula, given as TeX and whether it is displayed, and the style that they need together;
        `fonts` is the address of the folder of fonts. Raises ValueError for a formula that MathJax refuses."""
        done = json.loads(self._js.call("all", formulas))
        if "error" in done:
            raise ValueError(f"MathJax refuses a formula ({done['error']}): {done['source']}")
        return done["set"], _small(done["style"], fonts) + _ASSISTIVE

    def close(self) -> None:
        self._js.close()


def _small(style: str, fonts: str) -> str:
    """MathJax's style without its spaces, and with addresses that change with the font."""

    def address(match: re.Match[str]) -> str:
        digest = hashlib.sha256((FONTS / match[1]).read_bytes()).hexdigest()[:8]
        return f'url("{fonts}/{match[1]}?v={digest}")'

    style = re.sub(r"\s*\n\s*", "", style).replace(": ", ":").replace(" {", "{")
    return re.sub(r'url\("FONTS/([^"]+)"\)', address, style)


def copy_fonts(folder: Path) -> None:
    """Put MathJax's fonts into `folder`."""
    shutil.copytree(FONTS, folder, dirs_exist_ok=True)
