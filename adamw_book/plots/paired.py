"""Paired differences, seed by seed."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from ..evidence import Effect, pooled, unit_of
from .theme import ARM_STYLE, WIDTH, given_or_new, styled


@styled
def paired_strip(
    effects: Mapping[str, Effect],
    smallest_effect: float,
    ax: Axes | None = None,
    together: bool = False,
) -> Axes:
    """Differences by seed, one row a regime: dots are seeds, the thick mark their mean, the bar its bootstrap interval,
    the shaded band the differences too small to matter (± `smallest_effect`, in the metric's unit). Of tuned arms the
    bar is thick as far as other evaluation seeds reach and thin to where other tuning seeds may move the mean, whose
    mark is an open circle where tuning gave one of the arms no decay. together: a diamond below, the mean of all
    regimes (`evidence.pooled`). Where differences reach so far that the band could not be seen, the axis is logarithmic
    beyond twice `smallest_effect`, and says so. All effects compare the same two arms in the same metric; otherwise
    ValueError.
    """
    if not effects:
        raise ValueError("effects is empty; expected {regime: Effect}")
    if not smallest_effect > 0:
        raise ValueError(f"smallest_effect is {smallest_effect}; expected a number above 0")
    kinds = {(effect.treatment, effect.control, effect.metric) for effect in effects.values()}
    if len(kinds) > 1:
        raise ValueError(f"effects compare different things: {sorted(kinds)}; expected one pair of arms and one metric")
    treatment, control, metric = kinds.pop()
    unit = unit_of(metric)
    factor = 100 if unit == "pp" else 1
    ax = given_or_new(ax, (WIDTH, 1.5 + 0.62 * (len(effects) + together)))
    band = {"facecolor": "#E3E3E3", "edgecolor": "#767676", "linewidth": 0.8}  # its edges show where it is a hairline
    ax.axvspan(-factor * smallest_effect, factor * smallest_effect, zorder=0, **band)
    ax.axvline(0, color="black", linewidth=1)
    look = ARM_STYLE.get(treatment, ARM_STYLE["AdamW"])
    for row, effect in enumerate(effects.values()):
        values = factor * effect.differences.to_numpy()
        sns.swarmplot(  # a dot beside those that it would cover: where seeds crowd, the row is high
            x=values, y=np.full(len(values), row - 0.15), orient="h", native_scale=True, size=4, ax=ax,
            color=look["color"], alpha=0.75, warn_thresh=1, zorder=2,
        )  # fmt: skip
        parts = {2.2: effect.by_seeds or (effect.low, effect.high)}
        if effect.by_seeds:
            parts[0.9] = effect.low, effect.high
        for width, bounds in parts.items():
            ax.plot([factor * b for b in bounds], [row + 0.28] * 2, color="black", linewidth=width, zorder=3)
        mark = {"marker": "o", "markerfacecolor": "white", "markersize": 8, "markeredgewidth": 1.6}
        if not effect.undecayed:
            mark = {"marker": "|", "markersize": 14, "markeredgewidth": 3.2}
        ax.plot(factor * effect.mean, row + 0.28, color="black", zorder=4, **mark)
        mean, interval = effect.parts()
        place = {"xycoords": ("axes fraction", "data"), "xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        ax.annotate(f"{mean}\n{interval}", (1, row + 0.05), fontsize=10.5, **place)
    rows = [textwrap.fill(regime, 16) for regime in effects]
    if together:
        common, row = pooled(effects), len(rows)
        corners = [(common.low, 0), (common.mean, -0.22), (common.high, 0), (common.mean, 0.22)]
        ax.fill([factor * x for x, _ in corners], [row + y for _, y in corners], color="black", zorder=3)
        mean, interval = common.parts(unit)
        place = {"xycoords": ("axes fraction", "data"), "xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        ax.annotate(f"{mean}\n{interval}", (1, row), fontsize=10.5, **place)
        rows.append("all together")
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.45, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    size = factor * smallest_effect
    below = f"below {size:g}" + (f" point{'s' * (size != 1)}" if unit == "pp" else f" {unit}".rstrip())
    far = ""
    if max(np.abs(ax.get_xlim())) > 40 * size:
        ax.set_xscale("symlog", linthresh=2 * size, linscale=0.6)
        ticks = [tick * 2 * size for tick in (1, 10) if tick * 2 * size < max(np.abs(ax.get_xlim()))]
        ticks = [*(-tick for tick in reversed(ticks)), 0, *ticks]
        ax.set_xticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
        ax.minorticks_off()
        far = f"; logarithmic beyond ±{2 * size:g}"
    told = "percentage points" if unit == "pp" else "" if unit in metric else unit
    ax.set_xlabel(
        f"difference in {metric}{f' ({told})' if told else ''}\nshaded: {below}, too small to matter{far}", labelpad=36
    )
    for side, words in ((0, f"← {control} better"), (1, f"{treatment} better →")):
        # a line each: side by side they would meet in a narrow figure
        place = {
            "xycoords": "axes fraction",
            "xytext": (0, -20 - 14 * side),
            "textcoords": "offset points",
            "va": "top",
        }
        ax.annotate(words, (side, 0), ha="right" if side else "left", fontsize=10.5, **place)
    return ax
