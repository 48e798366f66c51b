"""The book's pictures: one style, one function for each recurring picture.

Each function takes a table (tidy: arm, lr, weight_decay, l2, seed, step, metric, value) or effects, and optional axes,
and returns the axes. Figures are dark ink on white; on dark pages the stylesheet inverts their lightness (invert(.92)
hue-rotate(180deg)). The colours are from Okabe and Ito's colour-blind-safe palette (the blue darkened), chosen so that
the arms stay apart under that filter, in grey-scale and to colour-blind readers; marker and line style differ too.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from scipy import stats

from .evidence import Effect, scale_of

ARM_STYLE = {
    "AdamW": {"color": "#005F9E", "marker": "o", "linestyle": "-"},
    "Adam + L2": {"color": "#D25A00", "marker": "s", "linestyle": "--"},
    "Adam": {"color": "#222222", "marker": "^", "linestyle": ":"},
    "AdamW, lr-independent": {"color": "#CC79A7", "marker": "D", "linestyle": "-."},
}
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
_THEORY_LINES = ("-", "--", "-.", ":")


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


def _styled(function: Callable) -> Callable:
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


# ---- heat-map


@_styled
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
        rows = _rows(table, metric, step, [x, "value"], f"table {title!r}")
        columns[title] = y.get(title) if isinstance(y, Mapping) else y or _varying_decay(rows, title)
        _need(rows, [columns[title]], f"table {title!r}")
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
    xs, ys = _places(found.columns), _places(found.index)
    values = np.ma.masked_invalid(found.to_numpy(float))
    ax.set_facecolor("#BBBBBB")  # where nothing was run, or the run diverged
    mesh = ax.pcolormesh(_edges(xs), _edges(ys), values, cmap="viridis", vmin=low, vmax=high)
    ax.set(xscale="log", yscale="log")
    for axis, places, names in ((ax.xaxis, xs, found.columns), (ax.yaxis, ys, found.index)):
        axis.set_ticks(places, [_number(value) for value in names])
        axis.set_minor_locator(mpl.ticker.NullLocator())
    ax.tick_params(axis="x", rotation=45)
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


def _places(values: Sequence[float]) -> np.ndarray:
    """Places on a logarithmic axis: the values; 0 goes as far below the smallest as that is below the next."""
    values = np.asarray(values, float)
    positive = values[values > 0]
    if (values < 0).any() or not len(positive):
        raise ValueError(
            f"a logarithmic axis cannot show {values.tolist()}; expected values above 0, and at most one 0"
        )
    ratio = positive[1] / positive[0] if len(positive) > 1 else 10.0
    return np.where(values > 0, values, positive[0] / ratio)


def _edges(places: np.ndarray) -> np.ndarray:
    logs = np.log(places)
    steps = np.diff(logs) if len(logs) > 1 else np.array([np.log(10.0)])
    middle = logs[:-1] + steps / 2 if len(logs) > 1 else np.array([])
    return np.exp(np.concatenate([[logs[0] - steps[0] / 2], middle, [logs[-1] + steps[-1] / 2]]))


# ---- curves


@_styled
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
    rows = _one_metric(table, metric, [x, y, hue])
    ax = _axes(ax)
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


@_styled
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
        rows = _rows(table, metric, step, [x, hue, "value"], "the table")
        for value, look in _looks(rows[hue].unique(), hue).items():
            _curve(ax, rows[rows[hue] == value], x, "value", look, _name(hue, value))
        doses = np.sort(rows[x].unique())
        _places(doses)
        scale = {"linthresh": doses[doses > 0][0], "linscale": 0.5} if doses[0] == 0 else {}
        ax.set_xscale("symlog" if scale else "log", **scale)
        ax.set_xticks(doses, [_number(dose) for dose in doses], rotation=45 if len(doses) > 7 else 0)
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


# ---- paired differences


@_styled
def paired_strip(
    effects: Mapping[str, Effect],
    smallest_effect: float,
    scale: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Differences by seed, one row a regime: dots are seeds, the thick mark their mean, the bar its bootstrap interval,
    the shaded band the differences too small to matter (± `smallest_effect`, in the metric's unit).

    scale: "pp" (percentage points), "raw", or None for what suits the metric. All effects compare the same two arms in
    the same metric; otherwise ValueError.
    """
    if not effects:
        raise ValueError("effects is empty; expected {regime: Effect}")
    if not smallest_effect > 0:
        raise ValueError(f"smallest_effect is {smallest_effect}; expected a number above 0")
    kinds = {(effect.treatment, effect.control, effect.metric) for effect in effects.values()}
    if len(kinds) > 1:
        raise ValueError(f"effects compare different things: {sorted(kinds)}; expected one pair of arms and one metric")
    treatment, control, metric = kinds.pop()
    scale = scale or scale_of(metric)
    factor = 100 if scale == "pp" else 1
    ax = _axes(ax, (WIDTH, 1.5 + 0.62 * len(effects)))
    ax.axvspan(-factor * smallest_effect, factor * smallest_effect, color="#E3E3E3", linewidth=0, zorder=0)
    ax.axvline(0, color="black", linewidth=1)
    look = ARM_STYLE.get(treatment, ARM_STYLE["AdamW"])
    for row, effect in enumerate(effects.values()):
        values = factor * effect.differences.to_numpy()
        spread = 0.17 * np.sin(2.4 * np.arange(len(values)))  # keeps equal values apart, the same in every run
        ax.plot(
            values, row - 0.1 + spread, "o", color=look["color"], alpha=0.55, markersize=4, markeredgewidth=0, zorder=2
        )
        ax.plot([factor * effect.low, factor * effect.high], [row + 0.28] * 2, color="black", linewidth=2.2, zorder=3)
        ax.plot(factor * effect.mean, row + 0.28, "|", color="black", markersize=14, markeredgewidth=3.2, zorder=4)
        mean, interval = effect.parts(scale)
        place = {"xycoords": ("axes fraction", "data"), "xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        ax.annotate(f"{mean}\n{interval}", (1, row + 0.05), fontsize=10.5, **place)
    ax.set_yticks(range(len(effects)), [textwrap.fill(regime, 16) for regime in effects])
    ax.set_ylim(len(effects) - 0.45, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    unit = "percentage points" if scale == "pp" else label_of(metric).removeprefix(metric).strip(" ()")
    ax.set_xlabel(f"difference in {metric}{f' ({unit})' if unit else ''}\nshaded: too small to matter", labelpad=22)
    for side, words in ((0, f"← {control} better"), (1, f"{treatment} better →")):
        place = {"xycoords": "axes fraction", "xytext": (0, -20), "textcoords": "offset points", "va": "top"}
        ax.annotate(words, (side, 0), ha="right" if side else "left", fontsize=10.5, **place)
    return ax


# ---- shared


def _axes(ax: Axes | None, size: tuple[float, float] | None = None) -> Axes:
    return plt.subplots(figsize=size)[1] if ax is None else ax


def _number(value: float) -> str:
    """A short tick label: 0.001 and above as it stands, smaller values as 3e−4."""
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:g}".replace("-", "−")
    digits, power = f"{value:e}".split("e")
    return f"{float(digits):g}e−{abs(int(power))}"


def _name(hue: str, value: object) -> str:
    return str(value) if isinstance(value, str) else f"{hue} = {value:g}"


def _logs(ax: Axes, log: str) -> None:
    if set(log) - {"x", "y"}:
        raise ValueError(f"log is {log!r}; expected '', 'x', 'y' or 'xy'")
    if "x" in log:
        ax.set_xscale("log")
    if "y" in log:
        ax.set_yscale("log")


def _need(table: pd.DataFrame, columns: Sequence[str], where: str) -> None:
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"{where} lacks the column {missing[0]!r}; it has {', '.join(map(repr, table.columns))}")
    if table.empty:
        raise ValueError(f"{where} is empty; expected at least one row")


def _rows(table: pd.DataFrame, metric: str, step: int | None, columns: Sequence[str], where: str) -> pd.DataFrame:
    _need(table, ["metric", "step", *columns], where)
    rows = table[table["metric"] == metric]
    if rows.empty:
        known = ", ".join(map(repr, table["metric"].unique()))
        raise ValueError(f"{where} has no metric {metric!r}; it has {known}")
    step = rows["step"].max() if step is None else step
    if not (rows["step"] == step).any():
        raise ValueError(f"step is {step}; {metric!r} was recorded at {sorted(rows['step'].unique().tolist())}")
    return rows[rows["step"] == step]


def _one_metric(table: pd.DataFrame, metric: str | None, columns: Sequence[str]) -> pd.DataFrame:
    _need(table, columns, "the table")
    if "metric" not in table.columns:
        return table.assign(metric=metric or "value")
    rows = table if metric is None else table[table["metric"] == metric]
    found = rows["metric"].unique().tolist()
    if len(found) != 1:
        known = table["metric"].unique().tolist()
        raise ValueError(f"metric is {metric!r} and the table has {known}; expected the name of one of them")
    return rows
