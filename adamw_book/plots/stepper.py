"""A picture that a reader steps through: one SVG drawing, a few frames of it, a slider and buttons.

All of it is text in the page: no file, no library and no network, so that it works in the built book without a
connection, in Jupyter and in Colab. Lines are drawn in ``currentColor``, so that it is legible on light and dark pages.
Each frame has a caption, which says in words what the frame shows; the captions are also listed below the picture, for
readers who do not see it and for pages on which no script runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from html import escape

from ..display import Shown

_STYLE = """
.stepper {max-width: 30rem; margin: 1em 0; color: inherit}
.stepper svg {width: 100%; height: auto; display: block}
.stepper p {min-height: 7.5em; margin: .4em 0; line-height: 1.45}
.stepper .stepper-row {display: flex; gap: .5em; align-items: center; margin: .4em 0}
.stepper input {flex: 1; min-width: 4em}
.stepper button {font: inherit; color: inherit; background: transparent; border: 1px solid currentColor;
  border-radius: 4px; padding: .15em .6em; cursor: pointer}
"""

# The controls are found in the order in which `stepper` writes them: previous, play, next.
_SCRIPT = """
(() => {
  const root = document.getElementById("ID"), all = (s) => [...root.querySelectorAll(s)];
  const frames = all("svg > .frame"), captions = all("ol > li").map((e) => e.textContent);
  const [slider] = all("input"), [caption] = all("p"), [drawing] = all("svg");
  const [back, play, on] = all("button");
  let timer = null;
  const show = (i) => {
    slider.value = i = Math.max(0, Math.min(frames.length - 1, i));
    frames.forEach((f, j) => { f.style.display = i === j ? "inline" : "none"; });
    caption.textContent = `${i + 1} of ${frames.length}. ${captions[i]}`;
    drawing.setAttribute("aria-label", captions[i]);
    slider.setAttribute("aria-valuetext", `frame ${i + 1} of ${frames.length}`);
  };
  const at = () => Number(slider.value);
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "▶ play"; };
  slider.oninput = () => { stop(); show(at()); };
  back.onclick = () => { stop(); show(at() - 1); };
  on.onclick = () => { stop(); show(at() + 1); };
  play.onclick = () => {
    if (timer) return stop();
    if (at() === frames.length - 1) show(0);
    play.textContent = "❚❚ stop";
    timer = setInterval(() => (at() === frames.length - 1 ? stop() : show(at() + 1)), 900);
  };
  show(0);
})();
"""


def stepper(frames: Sequence[tuple[str, str]], static: str, size: tuple[int, int], label: str) -> Shown:
    """A picture to step through.

    frames: (SVG elements, caption) of each frame; a caption is a sentence of plain text. static: SVG elements behind
    all frames. size: width and height of the drawing in its own units. label: what the whole shows, as its name.

    Raises ValueError where there is no frame, or one without a caption.
    """
    frames = list(frames)
    if not frames:
        raise ValueError("frames is empty; expected at least one (drawing, caption)")
    if not all(caption.strip() for _, caption in frames):
        raise ValueError("a frame has no caption; expected a sentence that says what it shows")
    width, height = size
    hidden = ['style="display: none"' if i else "" for i in range(len(frames))]
    drawn = "".join(f'<g class="frame" {h}>{svg}</g>' for h, (svg, _) in zip(hidden, frames, strict=True))
    told = "".join(f"<li>{escape(caption)}</li>" for _, caption in frames)
    name = "stepper-" + hashlib.sha256((static + drawn + told).encode()).hexdigest()[:10]
    first = escape(frames[0][1], quote=True)
    html = (
        f'<style>{_STYLE}</style><figure class="stepper" id="{name}" aria-label="{escape(label, quote=True)}">'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{first}">{static}{drawn}</svg>'
        f'<div class="stepper-row"><button type="button" aria-label="previous frame">◀</button>'
        f'<input type="range" min="0" max="{len(frames) - 1}" value="0" step="1" aria-label="frame">'
        f'<button type="button">▶ play</button><button type="button" aria-label="next frame">▶▏</button></div>'
        f'<p aria-live="polite">{first}</p>'
        f"<details><summary>All frames in words</summary><ol>{told}</ol></details></figure>"
        f"<script>{_SCRIPT.replace('ID', name)}</script>"
    )
    return Shown(html, f"**{label}**\n\n" + "\n".join(f"{i}. {c}" for i, (_, c) in enumerate(frames, 1)))
