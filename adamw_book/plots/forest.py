"""Many claims on one axis, each in units of the smallest effect that would matter to it."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from .theme import WIDTH, given_or_new, styled

OUTCOME_STYLE = {
    "supported": {"color": "#1A7F37", "marker": ">"},
    "opposite": {"color": "#B3261E", "marker": "<"},
    "no effect that matters": {"color": "#59636E", "marker": "s"},
    "undecided": {"color": "#7A5200", "marker": "o", "markerfacecolor": "white", "markeredgewidth": 1.6},
    "arithmetic": {"color": "#0B5CAD", "marker": "D"},
}
_COLUMNS = ("name", "mean", "low", "high", "smallest_effect", "outcome")
_TICKS = (1, 5, 25, 125, 625)


@styled
def claim_forest(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """One row a claim, in the table's order: the mark is its mean effect, the bar its interval, both in units of the
    claim's own smallest effect that would matter, so that points, nats and halvings share an axis. The band is what is
    too small to matter, ±1; beyond it the axis is logarithmic. Mark and colour say the outcome.

    table: the columns name, mean, low, high, smallest_effect (> 0, in the unit of mean) and outcome (a key of
    `OUTCOME_STYLE`). Raises ValueError for anything else.
    """
    if missing := [column for column in _COLUMNS if column not in table]:
        raise ValueError(f"table lacks the columns {missing}; expected {', '.join(_COLUMNS)}")
    if table.empty:
        raise ValueError("table is empty; expected a row for each claim")
    if not (table["smallest_effect"] > 0).all():
        raise ValueError(f"smallest_effect holds {table['smallest_effect'].min()}; expected numbers above 0")
    if unknown := sorted(set(table["outcome"]) - set(OUTCOME_STYLE)):
        raise ValueError(f"outcome holds {unknown}; expected {', '.join(OUTCOME_STYLE)}")
    ax = given_or_new(ax, (WIDTH, 1.7 + 0.27 * len(table)))
    ax.axvspan(-1, 1, color="#E3E3E3", linewidth=0, zorder=0)
    ax.axvline(0, color="black", linewidth=1, zorder=1)
    units = table[["mean", "low", "high"]].div(table["smallest_effect"], axis=0)
    labelled = set()
    for row, (own, outcome) in enumerate(zip(units.itertuples(), table["outcome"], strict=True)):
        look = OUTCOME_STYLE[outcome]
        ax.plot([own.low, own.high], [row, row], color=look["color"], linewidth=2.2, zorder=2)
        label = None if outcome in labelled else f"{outcome} ({(table['outcome'] == outcome).sum()})"
        ax.plot(own.mean, row, linestyle="none", markersize=7.5, zorder=3, label=label, **look)
        labelled.add(outcome)
    reach = max(1.5, units.abs().to_numpy().max())
    ax.set_xscale("symlog", linthresh=1, linscale=0.7)
    ax.set_xlim(-1.25 * reach, 1.25 * reach)
    ticks = [tick for tick in _TICKS if tick <= 1.25 * reach]
    ticks = [*(-tick for tick in reversed(ticks)), 0, *ticks]
    ax.set_xticks(ticks, [f"{tick:+d}".replace("-", "−") if tick else "0" for tick in ticks])
    ax.minorticks_off()
    ax.set_yticks(range(len(table)), table["name"])
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("effect ÷ the smallest that would matter\nshaded: too small to matter", labelpad=22)
    for side, words in ((0, "← against the claim"), (1, "for the claim →")):
        place = {"xycoords": "axes fraction", "xytext": (0, -21), "textcoords": "offset points", "va": "top"}
        ax.annotate(words, (side, 0), ha="right" if side else "left", fontsize=10.5, **place)
    handles, labels = ax.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: list(OUTCOME_STYLE).index(labels[i].rpartition(" (")[0]))
    ax.figure.legend(
        [handles[i] for i in order], [labels[i] for i in order], loc="outside upper left", ncols=2, handletextpad=0.2
    )
    return ax
