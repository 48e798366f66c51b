"""A metric over two hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from .scales import log_places, tick_labels
from .tables import need, rows_at
from .theme import WIDTH, label_of, styled


@styled
def heat_map_pair(
    tables: Mapping[str, pd.DataFrame],
    metric: str,
    x: str = "lr",
    y: str | Mapping[str, str] | None = None,
    step: int | None = None,
    higher_is_better: bool = True,
    limits: tuple[float, float] | None = None,
    axes: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Mean of a metric over two hyper-parameters, one panel a table, one colour scale for all: white dots mark the best
    `y` for each `x`, a white star the best of all.

    tables: {title: table}, two or three. y: the column of the vertical axis, one for all or {title: column}; by default
    whichever of weight_decay and l2 varies in that table. step: by default the last. limits: ends of the colour scale,
    for instance to keep diverged runs from using it up. Axes are logarithmic in both hyper-parameters (a value of 0
    takes the place below the smallest), so lines of theory can be drawn over the panels. Returns the axes, shape
    (panels,).
    """
    if not tables:
        raise ValueError("tables is empty; expected {title: table}, two or three of them")
    maps, columns = {}, {}
    for title, table in tables.items():
        rows = rows_at(table, metric, step, [x, "value"], f"table {title!r}")
        columns[title] = y.get(title) if isinstance(y, Mapping) else y or _varying_decay(rows, title)
        need(rows, [columns[title]], f"table {title!r}")
        maps[title] = rows.pivot_table(index=columns[title], columns=x, values="value", aggfunc=_mean, dropna=False)
    corner = None
    if axes is None:
        axes, corner = _panels(len(maps))
    axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(axes) != len(maps):
        raise ValueError(f"axes holds {len(axes)} panels for {len(maps)} tables; expected one each")
    every = np.concatenate([found.to_numpy().ravel() for found in maps.values()])
    every = every[np.isfinite(every)]
    low, high = limits or (every.min(), every.max())
    for ax, (title, found) in zip(axes, maps.items(), strict=True):
        mesh = _heat_map(ax, found, low, high, higher_is_better)
        ax.set(title=title, xlabel=label_of(x), ylabel=label_of(columns[title]).replace(" (", "\n("))
    beyond = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    extend = beyond[bool(every.min() < low), bool(every.max() > high)]
    if corner is None:
        place = {"ax": list(axes), "shrink": 0.6, "aspect": 30, "location": "bottom"}
    else:
        place = {"cax": corner.inset_axes((0, 0.6, 1, 0.08)), "orientation": "horizontal"}
    bar = axes[0].figure.colorbar(mesh, extend=extend, **place)
    bar.set_label(f"{label_of(metric)}\n○ best for each {x}   ☆ best of all")
    bar.outline.set_visible(False)
    return axes


def _panels(count: int) -> tuple[np.ndarray, Axes | None]:
    """Axes for one row of up to two panels, or rows of two; a cell that is left over is for the colour bar."""
    rows = -(-count // 2)
    _, axes = plt.subplots(rows, min(count, 2), figsize=(WIDTH, 4.2 if rows == 1 else 3.4 * rows), squeeze=False)
    axes = axes.ravel()
    if count % 2 == 0 or count == 1:
        return axes, None
    axes[-1].axis("off")
    return axes[:-1], axes[-1]


def _heat_map(ax: Axes, found: pd.DataFrame, low: float, high: float, higher_is_better: bool):
    xs, ys = log_places(found.columns), log_places(found.index)
    values = np.ma.masked_invalid(found.to_numpy(float))
    ax.set_facecolor("#BBBBBB")  # where nothing was run, or the run diverged
    mesh = ax.pcolormesh(_edges(xs), _edges(ys), values, cmap="viridis", vmin=low, vmax=high, rasterized=True)
    ax.set(xscale="log", yscale="log")
    names, decays = tick_labels(found.columns), tick_labels(found.index)
    for axis, places, labels in ((ax.xaxis, xs, names), (ax.yaxis, ys, decays)):
        axis.set_ticks(places, labels)
        axis.set_minor_locator(mpl.ticker.NullLocator())
    ax.tick_params(axis="x", rotation=0 if any("$" in name for name in names) else 45)
    ax.grid(False)
    score = values if higher_is_better else -values
    best = [int(np.ma.argmax(column)) for column in score.T]
    top = np.unravel_index(np.ma.argmax(score), score.shape)
    dots = [i for i, column in enumerate(score.T) if column.count() and i != top[1]]
    ink = {"color": "white", "markeredgecolor": "black", "linestyle": "none", "zorder": 3}
    ax.plot(xs[dots], ys[[best[i] for i in dots]], marker="o", markersize=6, **ink)
    ax.plot(xs[top[1]], ys[top[0]], marker="*", markersize=13, **ink)
    return mesh


def _mean(values: pd.Series) -> float:
    """As in `select`: a configuration that diverged in any seed has no mean."""
    return values.mean() if np.isfinite(values).all() else np.nan


def _varying_decay(rows: pd.DataFrame, title: str) -> str:
    varying = [name for name in ("weight_decay", "l2") if name in rows and rows[name].nunique() > 1]
    if len(varying) != 1:
        raise ValueError(f"y is not given, and in table {title!r} {varying or 'no decay'} varies; expected one column")
    return varying[0]


def _edges(places: np.ndarray) -> np.ndarray:
    logs = np.log(places)
    steps = np.diff(logs) if len(logs) > 1 else np.array([np.log(10.0)])
    middle = logs[:-1] + steps / 2 if len(logs) > 1 else np.array([])
    return np.exp(np.concatenate([[logs[0] - steps[0] / 2], middle, [logs[-1] + steps[-1] / 2]]))
