"""Margins in the plane: what it does to a boundary to rescale the weights, and what AdamW does to it in training.

Synthetic, so that a mechanism can be seen alone: the first input tells two overlapping classes apart, the second is
silent in training, as a pixel without ink is. A linear classifier f = w·x through the origin starts with a weight on
the silent input too.
"""

from __future__ import annotations

from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from adamw_book.display import Shown
from adamw_book.dynamics import drive
from adamw_book.plots.stepper import stepper

PLANE = {"examples": 40, "start": (0.5, 2.0), "steps": 600, "lr": 0.01, "weight_decay": 0.5, "l2": 0.01}
POINT = (2.0, 0.0)  # the example whose radius is drawn
SPAN, SIZE = 4.0, 400


def examples(n: int = PLANE["examples"], seed: int = 0) -> tuple[Tensor, Tensor]:
    """n points (n, 2) whose second coordinate is 0, and their classes (n,), half +1 and half −1, that overlap."""
    if not isinstance(n, Integral) or n < 2 or n % 2:
        raise ValueError(f"n: {n}; an even number of 2 or more is needed")
    y = torch.tensor([1.0, -1.0]).repeat(n // 2)
    first = 1.3 * y + torch.randn(n, generator=torch.Generator().manual_seed(seed))
    return torch.stack([first, torch.zeros(n)], 1), y


def paths(steps: int = PLANE["steps"], lr: float = PLANE["lr"]) -> dict[str, Tensor]:
    """The weights (steps + 1, 2) of each arm on the logistic loss of :func:`examples`."""
    x, y = examples()

    def gradient(step: int, w: Tensor) -> Tensor:
        return -(torch.sigmoid(-y * (w @ x.T)) * y) @ x / len(x)

    coefficients = {"AdamW": {"weight_decay": PLANE["weight_decay"]}, "Adam + L2": {"l2": PLANE["l2"]}, "Adam": {}}
    start = torch.tensor([PLANE["start"]])
    return {arm: drive(gradient, start, steps, lr=lr, **hyper)[:, 0] for arm, hyper in coefficients.items()}


def radius(w: Tensor, x: Tensor, y: Tensor | float = 1.0) -> Tensor:
    """The L∞ radius y w·x / ‖w‖₁ of points x (..., 2) under weights w (2,), 0 where the class is wrong or w is 0."""
    size = w.abs().sum()
    return torch.where(size == 0, 0.0, y * (x @ w) / size).clamp(min=0)


def _line(direction: np.ndarray, offset: float, style: str) -> str:
    """The points with direction·x = offset (direction of length 1), as an SVG line over the whole picture."""
    foot, along = offset * direction, np.array([-direction[1], direction[0]]) * 3 * SPAN
    (x1, y1), (x2, y2) = _at(foot - along), _at(foot + along)
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="currentColor" {style}/>'


def _at(point) -> tuple[float, float]:
    return SIZE / 2 * (1 + point[0] / SPAN), SIZE / 2 * (1 - point[1] / SPAN)


def _frame(w: Tensor, ghost: Tensor | None = None) -> str:
    """Boundary, the lines f = ±1, and the largest square around ``POINT`` that the boundary leaves whole."""
    norm = float(w.norm())
    direction = (w / w.norm()).numpy()
    parts = [_line(direction, 0, 'stroke-width="3"')]
    parts += [_line(direction, side / norm, 'stroke-width="1.3" stroke-dasharray="7 5"') for side in (1, -1)]
    if ghost is not None:
        parts.append(_line((ghost / ghost.norm()).numpy(), 0, 'stroke-width="2.5" stroke-dasharray="2 5"'))
    r = float(radius(w, torch.tensor(POINT)))
    (x, y), side = _at((POINT[0] - r, POINT[1] + r)), r * SIZE / SPAN
    parts.append(
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}" fill="#1b87c9" fill-opacity="0.25" '
        f'stroke="#1b87c9" stroke-width="2"/>'
    )
    return "".join(parts)


def _static() -> str:
    """The examples: circles for +1, crosses for −1; the ringed one is ``POINT``."""
    parts = []
    for (a, b), label in zip(*(t.tolist() for t in examples()), strict=True):
        x, y = _at((a, b))
        if label > 0:
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#1b87c9"/>')
        else:
            cross = f"M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10"
            parts.append(f'<path d="{cross}" stroke="#d25a00" stroke-width="2.5" fill="none"/>')
    x, y = _at(POINT)
    parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#1b87c9"/>')
    parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="10" fill="none" stroke="currentColor" stroke-width="2"/>')
    words = f'<text x="8" y="{SIZE - 10}">→ first input</text>'
    words += f'<text x="{SIZE - 8}" y="20" text-anchor="end">↑ second input (silent)</text>'
    box = f'<rect x="1" y="1" width="{SIZE - 2}" height="{SIZE - 2}" fill="none" stroke="currentColor" opacity="0.5"/>'
    return box + f'<g font-size="15" fill="currentColor">{words}</g>' + "".join(parts)


def player() -> Shown:
    """The animation of the chapter: first Adam's final weights are only rescaled, then AdamW trains from the start."""
    found = paths()
    adam, adamw, l2 = found["Adam"], found["AdamW"], found["Adam + L2"]
    point, frames = torch.tensor(POINT), []
    for factor in (1, 0.75, 0.5, 0.35, 0.25):
        w = adam[-1] * factor
        frames.append((_frame(w), (
            f"Rescaling: the weights that Adam ended with, times {factor:g}. ‖w‖ = {w.norm():.2f}; the dashed lines "
            f"f = ±1 lie {1 / w.norm():.2f} from the boundary. The boundary itself, and with it the largest square "
            f"around the ringed example, {'is where Adam left it' if factor == 1 else 'has not moved'}: L∞ radius "
            f"{radius(w, point):.2f}."
        )))  # fmt: skip
    for step in (0, 10, 20, 40, 60, 80, 100, 130, 160, 200, 250, 300, 400, 500, 600):
        w = adamw[step]
        frames.append((_frame(w, adam[step]), (
            f"Training, step {step}: AdamW (solid) with w = ({w[0]:.2f}, {w[1]:.2f}), ‖w‖ = {w.norm():.2f}. The weight "
            f"on the silent input {'is still there' if step == 0 else 'fades'}, the boundary "
            f"{'leans' if step == 0 else 'turns'}. L∞ radius of the ringed example: AdamW {radius(w, point):.2f}, "
            f"Adam (dotted) {radius(adam[step], point):.2f}, Adam + L2 {radius(l2[step], point):.2f}."
        )))  # fmt: skip
    label = "A boundary in the plane: rescaled weights, then training with AdamW and with Adam"
    return stepper(frames, _static(), (SIZE, SIZE), label)
