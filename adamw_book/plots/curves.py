"""Curves along steps or doses: means over seeds with a band, and theory over measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from scipy import stats

from .scales import log_places, tick_label
from .tables import one_metric, rows_at
from .theme import ARM_STYLE, WIDTH, given_or_new, label_of, styled

_THEORY_LINES = ("-", "--", "-.", ":")


@styled
def trajectories(
    table: pd.DataFrame,
    x: str = "step",
    y: str = "value",
    hue: str = "arm",
    theory: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    metric: str | None = None,
    log: str = "",
    ylabel: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Measurements along x, one curve a hue (mean over what repeats, usually seeds, with a band: the 95% t interval of
    the mean). With `theory`, {label: (x, y)}, thin black lines carry the prediction and markers without lines what was
    measured.

    metric: which one to draw, where the table holds several. log: axes that are logarithmic, any of "x", "y", "xy".
    """
    rows = one_metric(table, metric, [x, y, hue])
    ax = given_or_new(ax)
    for (label, (along, predicted)), line in zip((theory or {}).items(), cycle(_THEORY_LINES), strict=False):
        ax.plot(along, predicted, color="black", linewidth=1.0, linestyle=line, label=label, zorder=3)
    for value, look in _looks(rows[hue].unique(), hue).items():
        if theory:
            look = look | {"linestyle": "none", "markerfacecolor": "none", "markeredgewidth": 1.6}
        _curve(ax, rows[rows[hue] == value], x, y, look, _name(hue, value))
    ax.set(xlabel=label_of(x), ylabel=ylabel or label_of(rows["metric"].iloc[0] if y == "value" else y))
    _logs(ax, log)
    ax.legend()
    return ax


@styled
def dose_response(
    table: pd.DataFrame,
    x: str = "weight_decay",
    metrics: str | Sequence[str] = (),
    hue: str = "arm",
    step: int | None = None,
    xlabel: str | None = None,
    axes: Axes | Sequence[Axes] | None = None,
) -> np.ndarray:
    """What a coefficient does to one or more metrics: mean over seeds with the 95% t interval of the mean as a band,
    one panel a metric, one curve a hue. The x axis is logarithmic; with a dose of 0 it is linear up to the smallest
    other dose.

    step: by default the last of each metric. Returns the axes, shape (metrics,).
    """
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    if not metrics:
        raise ValueError("metrics is empty; expected at least one name of a metric")
    if axes is None:
        height = 3.5 if len(metrics) == 1 else 2.5 * len(metrics)
        _, axes = plt.subplots(len(metrics), 1, figsize=(WIDTH, height), sharex=True)
    axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(axes) != len(metrics):
        raise ValueError(f"axes holds {len(axes)} panels for {len(metrics)} metrics; expected one each")
    for ax, metric in zip(axes, metrics, strict=True):
        rows = rows_at(table, metric, step, [x, hue, "value"], "the table")
        for value, look in _looks(rows[hue].unique(), hue).items():
            _curve(ax, rows[rows[hue] == value], x, "value", look, _name(hue, value))
        doses = np.sort(rows[x].unique())
        log_places(doses)
        scale = {"linthresh": doses[doses > 0][0], "linscale": 0.5} if doses[0] == 0 else {}
        ax.set_xscale("symlog" if scale else "log", **scale)
        ax.set_xticks(doses, [tick_label(dose) for dose in doses], rotation=45 if len(doses) > 7 else 0)
        ax.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        ax.set_ylabel(label_of(metric))
    axes[-1].set_xlabel(xlabel or label_of(x))
    axes[0].legend()
    return axes


def _curve(ax: Axes, rows: pd.DataFrame, x: str, y: str, look: dict, label: str) -> None:
    groups = rows.groupby(x)[y]
    mean, n = groups.mean(), groups.count()
    ax.plot(mean.index, mean, label=label, markevery=max(1, len(mean) // 25), **look)
    if (n > 1).all():
        half = stats.t.ppf(0.975, n - 1) * groups.std() / np.sqrt(n)
        ax.fill_between(mean.index, mean - half, mean + half, color=look["color"], alpha=0.18, linewidth=0)


def _looks(values: Sequence, hue: str) -> dict:
    """The look of each curve: fixed for arms, and along a colour map, with changing markers, for anything else."""
    if hue == "arm":
        unknown = [arm for arm in values if arm not in ARM_STYLE]
        if unknown:
            raise ValueError(f"arm {unknown[0]!r} has no style; expected one of {', '.join(map(repr, ARM_STYLE))}")
        return {arm: dict(look) for arm, look in ARM_STYLE.items() if arm in values}
    values = sorted(values)
    shades = [mpl.colors.to_hex(mpl.colormaps["viridis"](share)) for share in np.linspace(0, 0.6, len(values))]
    keys = ("color", "marker", "linestyle")
    looks = (
        dict(zip(keys, look, strict=True)) for look in zip(shades, cycle("osD^vP"), cycle(_THEORY_LINES), strict=False)
    )
    return dict(zip(values, looks, strict=True))


def _name(hue: str, value: object) -> str:
    return str(value) if isinstance(value, str) else f"{hue} = {value:g}"


def _logs(ax: Axes, log: str) -> None:
    if set(log) - {"x", "y"}:
        raise ValueError(f"log is {log!r}; expected '', 'x', 'y' or 'xy'")
    if "x" in log:
        ax.set_xscale("log")
    if "y" in log:
        ax.set_yscale("log")
