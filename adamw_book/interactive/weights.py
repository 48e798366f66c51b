"""A silent, a noisy and a driven weight under AdamW, Adam + L2 and Adam: the closed forms of the chapter on decoupled
decay, at every step and at rest, and the picture of them in which η, λ, ℓ and σ can be moved."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from adamw_book import plots
from adamw_book.arms import THREE
from adamw_book.display import Shown
from adamw_book.plots.theme import styled

from .page import assembled, slider, swatch

START = 0.1  # the silent weight's; the other two start at 0
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
RING = 2 * (1 + BETA1) / (1 - BETA1)  # 38: the share at which momentum overshoots
LAST = 100_000  # steps that the picture spans
STEPS = np.unique(np.geomspace(1, LAST, 101).round().astype(int))
LIMITS = (1e-6, 1e2)  # of its vertical axis
RANGES = {  # symbol and label of each slider, the powers of ten that it spans, where it starts
    "lr": ("η", "learning rate η", (-4, -2), 1e-3),
    "weight_decay": ("λ", "decay λ (AdamW)", (-2, 1), 0.1),
    "l2": ("ℓ", "penalty ℓ (L2)", (-3, 0), 1e-2),
    "sigma": ("σ", "size σ of gradients", (-3, -1), 1e-2),
}
KINDS = {"silent": "no gradient", "noisy": "noise of size σ", "driven": "always σ"}


def values_of(name: str) -> list[float]:
    """The values that a slider of :data:`RANGES` can take: ten to a decade, of two digits."""
    low, high = RANGES[name][2]
    return [float(f"{10**power:.2g}") for power in np.arange(10 * low, 10 * high + 1) / 10]


def _approach(
    distance: float, lr: float, l2: float, rest: float, steps: Sequence[int]
) -> tuple[np.ndarray, int | None]:
    """The distance that Adam + L2 has left to where its gradient ℓ·distance is zero, at each of ``steps`` (increasing),
    and the step at which it first is ``rest`` or less, from where it is ``rest``; None where it is not, by then.
    Until that step this is the update itself; beyond it, the path rings."""
    m, v, left1, left2, found = 0.0, 0.0, 1.0, 1.0, []
    for t in range(1, steps[-1] + 1):
        g = l2 * distance
        m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g * g
        left1, left2 = left1 * BETA1, left2 * BETA2
        distance -= lr * (m / (1 - left1)) / (math.sqrt(v / (1 - left2)) + EPS)
        if distance <= rest:
            found += [rest] * (len(steps) - len(found))
            return np.array(found), t
        if t == steps[len(found)]:
            found.append(distance)
    return np.array(found), None


def _spread(lr: float, share: float, steps: np.ndarray) -> np.ndarray:
    """The root mean square of a weight that takes independent steps of ±lr, and of which ``share`` is taken each time,
    from 0: F4 where it levels off."""
    return lr * np.sqrt(-np.expm1(-2 * share * steps) / (2 * share)) if share else lr * np.sqrt(steps)


def paths(
    lr: float, weight_decay: float, l2: float, sigma: float, steps: Sequence[int] = STEPS
) -> dict[str, dict[str, np.ndarray]]:
    """{kind: {arm: sizes (T,)}}: |w| of a silent weight, the root mean square of a noisy one, |w| of a driven one,
    after each of ``steps`` (increasing whole numbers above 0).

    A silent weight starts at :data:`START` and has no gradient; a noisy one gets noise of standard deviation ``sigma``,
    a driven one the gradient ``sigma`` at each step, both from 0. Under Adam + L2 the silent and the driven weight
    follow the update until they first arrive where they rest (:func:`at_rest`).
    """
    steps = np.asarray(steps)
    end = at_rest(lr, weight_decay, l2, sigma)
    ringing, level = end["silent"]["Adam + L2"], end["driven"]["Adam + L2"]
    log_kept = math.log1p(-lr * weight_decay)
    return {
        "silent": {
            "AdamW": START * np.exp(steps * log_kept),
            "Adam + L2": _approach(START, lr, l2, ringing, steps)[0],
            "Adam": np.full(len(steps), START),
        },
        "noisy": {
            "AdamW": _spread(lr, lr * weight_decay, steps),
            "Adam + L2": _spread(lr, lr * l2 / sigma, steps),
            "Adam": _spread(lr, 0.0, steps),
        },
        "driven": {
            "AdamW": -np.expm1(steps * log_kept) / weight_decay,
            "Adam + L2": level - np.where((left := _approach(level, lr, l2, ringing, steps)[0]) > ringing, left, 0.0),
            "Adam": lr * steps,
        },
    }


def at_rest(lr: float, weight_decay: float, l2: float, sigma: float) -> dict[str, dict[str, float | None]]:
    """{kind: {arm: size}} where the weights of :func:`paths` come to rest; None where they never do.

    Under Adam + L2 a silent weight swings with η/38 − ε/ℓ, or not at all where that is below 0: ℓ/(√v̂ + ε) stops
    growing at 38/η. The noisy weight's √(ησ/2ℓ) holds within a tenth while ηℓ/σ ≤ 1.
    """
    return {
        "silent": {"AdamW": 0.0, "Adam + L2": max(0.0, lr / RING - EPS / l2), "Adam": START},
        "noisy": {
            "AdamW": math.sqrt(lr / (2 * weight_decay)),
            "Adam + L2": math.sqrt(lr * sigma / (2 * l2)),
            "Adam": None,
        },
        "driven": {"AdamW": 1 / weight_decay, "Adam + L2": sigma / l2, "Adam": None},
    }


def arrivals(lr: float, weight_decay: float, l2: float) -> dict[str, float | None]:
    """Steps after which half of a silent weight is left under AdamW, and after which it has come to rest under
    Adam + L2 (None: not within :data:`LAST`)."""
    rest = at_rest(lr, weight_decay, l2, 1.0)["silent"]["Adam + L2"]
    return {
        "AdamW": -math.log(2) / math.log1p(-lr * weight_decay),
        "Adam + L2": _approach(START, lr, l2, rest, STEPS.tolist())[1],
    }


def _still(settings: dict[str, float]) -> mpl.figure.Figure:
    steps = STEPS[::2]  # enough to see
    found = paths(**settings, steps=steps)
    fig, panels = plt.subplots(1, 3, figsize=(1.35 * plots.WIDTH, 2.7), sharey=True)
    for ax, (kind, about) in zip(panels, KINDS.items(), strict=True):
        for arm in THREE:
            ax.plot(steps, found[kind][arm.name], label=arm.name, **{**arm.style, "marker": ""})
        ax.set(xscale="log", yscale="log", ylim=LIMITS, xlabel="step", title=f"{kind}: {about}")
        ax.minorticks_off()
    panels[0].set_ylabel("size of the weight")
    fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


@styled
def three_weights() -> Shown:
    """The three kinds of weight under the three arms, with sliders for η, λ, ℓ and σ. Shown without scripts, and in
    print, is the picture for the values at which the sliders start."""
    settings = {name: start for name, (*_, start) in RANGES.items()}
    controls = "".join(
        slider(name, label, len(values_of(name)), values_of(name).index(start))
        for name, (_, label, _, start) in RANGES.items()
    )
    panels = "".join(f'<svg class="panel" role="img" data-kind="{kind}"></svg>' for kind in KINDS)
    head = "".join(f'<th scope="col">{kind}</th>' for kind in KINDS)
    rows = "".join(
        f'<tr data-arm="{arm.name}"><th scope="row">{swatch(arm.name)} {arm.name}</th>{"<td></td>" * len(KINDS)}</tr>'
        for arm in THREE
    )
    live = (
        f'<div class="controls">{controls}</div><div class="panels">{panels}</div><table><caption>Where the weights '
        f'come to rest</caption><thead><tr><th scope="col">arm</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
        '<p class="remark"></p>'
    )
    data = {
        "values": {name: values_of(name) for name in RANGES},
        "kinds": KINDS,
        "steps": STEPS.tolist(),
        "limits": LIMITS,
        "constants": {"start": START, "beta1": BETA1, "beta2": BETA2, "eps": EPS, "ring": RING},
    }
    said = ", ".join(f"{RANGES[name][0]} = {value:g}" for name, value in settings.items())
    alt = (
        f"Three panels, the size of a weight against the step on logarithmic axes, at {said}. Silent: AdamW falls "
        "exponentially, Adam + L2 far sooner and to a small rest, Adam stays. Noisy: AdamW and Adam + L2 level off, "
        "Adam grows on. Driven: AdamW and Adam + L2 level off at levels of their own, Adam grows on."
    )
    return assembled("weights", "Three kinds of weight, to move", live, data, _still(settings), alt)
