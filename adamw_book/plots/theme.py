"""The one style of the book's figures: the look of each arm, of curves, of axes and of their labels."""

from __future__ import annotations

import functools
from collections.abc import Callable

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from ..arms import ARMS

ARM_STYLE = {name: dict(arm.style) for name, arm in ARMS.items()}
LABELS = {
    "lr": "learning rate η (lr)",
    "weight_decay": "decoupled decay λ (weight_decay)",
    "l2": "coupled penalty ℓ (l2)",
    "step": "step t",
    "seed": "seed",
}
WIDTH = 5.4  # inches: wide enough for two panels, narrow enough to be read on a phone
_RC = {
    "font.size": 11.5,
    "font.family": "sans-serif",
    "axes.titlesize": 12,
    "axes.labelsize": 11.5,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "legend.fontsize": 10.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.9,
    "lines.markersize": 5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.figsize": (WIDTH, 3.5),
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "savefig.bbox": "tight",
    "svg.hashsalt": "adamw_book",
}


def style() -> None:
    """Use the book's style for every figure from here on, and sharp (SVG) figures in a notebook."""
    mpl.rcParams.update(_RC)
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    if get_ipython() is not None:
        set_matplotlib_formats("svg")


def styled(function: Callable) -> Callable:
    """Let a function draw in the book's style, whatever is set outside it."""

    @functools.wraps(function)
    def inner(*args, **kwargs):
        with mpl.rc_context(_RC):
            return function(*args, **kwargs)

    return inner


def label_of(name: str) -> str:
    """The axis label of a column or metric, with its unit."""
    if name in LABELS:
        return LABELS[name]
    units = {"accuracy": "fraction", "recall": "fraction", "loss": "nats", "norm": "Euclidean"}
    return next((f"{name} ({unit})" for word, unit in units.items() if name.endswith(word)), name)


def given_or_new(ax: Axes | None, size: tuple[float, float] | None = None) -> Axes:
    """The axes, or those of a new figure."""
    return plt.subplots(figsize=size)[1] if ax is None else ax
