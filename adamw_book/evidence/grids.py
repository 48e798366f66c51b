"""Which runs: a grid with an equal budget for each arm, the choice on validation data, winners on fresh seeds."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ..arms import ARMS
from .tables import CONFIGURATION, filled, need, rows_at, some, whole_seed, whole_seeds


class EdgeWarning(UserWarning):
    """A selected configuration sits on the edge of its grid: the true optimum may lie beyond it."""


def spread(low: float, high: float, count: int) -> list[float]:
    """``count`` values from ``low`` to ``high``, equally far apart on a logarithmic axis, rounded to three digits."""
    if not 0 < low < high or count < 2:
        raise ValueError(f"low, high, count: {low}, {high}, {count}; 0 < low < high and at least 2 values are needed")
    return [float(f"{value:.3g}") for value in np.geomspace(low, high, count)]


def three_arms(own: Mapping[str, Sequence[float]], lr_adam: Sequence[float]) -> dict[str, dict[str, Sequence[float]]]:
    """The grids of the book's usual comparison, for `grid`: AdamW over lr × weight_decay, Adam + L2 over lr × l2, and
    plain Adam, which has no decay to tune and spends the same budget on the learning rates ``lr_adam``.

    own: lists under the keys lr, weight_decay and l2; further keys are left alone.
    """
    lr = list(own["lr"])
    return {
        "AdamW": {"lr": lr, "weight_decay": own["weight_decay"]},
        "Adam + L2": {"lr": lr, "l2": own["l2"]},
        "Adam": {"lr": lr_adam},
    }


def grid(
    arms: Mapping[str, Mapping[str, Sequence[float]]], seeds: Iterable[int], equal_budgets: bool = True
) -> pd.DataFrame:
    """All tuning runs: for each arm the Cartesian product of its values, times the seeds.

    arms: for instance {"AdamW": {"lr": [...], "weight_decay": [...]}, "Adam + L2": {"lr": [...], "l2": [...]}}; a
    coefficient that is not named is 0. Returns one row a run with the columns arm, lr, weight_decay, l2, seed.

    Raises ValueError for an unknown arm, an unknown or foreign coefficient (an `l2` for AdamW), no lr, an empty or
    repeated list of values, an lr that is not positive, a negative decay, seeds that are not whole numbers, and arms
    with unequal numbers of configurations: an arm that is tuned longer looks better. Pass equal_budgets=False where
    that inequality is meant, and say why.
    """
    seeds = whole_seeds(seeds)
    if not arms:
        raise ValueError(
            "arms is empty; expected at least one arm, such as {'AdamW': {'lr': [1e-3], 'weight_decay': [0.1]}}"
        )
    rows, budgets = [], {}
    for arm, axes in arms.items():
        axes = _checked_axes(arm, axes)
        points = list(itertools.product(*(axes.get(name, [0.0]) for name in CONFIGURATION)))
        budgets[arm] = len(points)
        rows += [(arm, *map(float, point), seed) for point in points for seed in seeds]
    if equal_budgets and len(set(budgets.values())) > 1:
        counts = ", ".join(f"{arm!r} has {count}" for arm, count in budgets.items())
        raise ValueError(
            f"the arms have unequal numbers of configurations ({counts}); expected equal ones, or equal_budgets=False"
        )
    return pd.DataFrame(rows, columns=["arm", *CONFIGURATION, "seed"])


def _checked_axes(arm: str, axes: Mapping[str, Iterable[float]]) -> dict[str, list[float]]:
    if arm not in ARMS:
        raise ValueError(f"arms has the unknown arm {arm!r}; expected {', '.join(map(repr, ARMS))}")
    unknown = [name for name in axes if name not in CONFIGURATION]
    if unknown:
        raise ValueError(f"arm {arm!r} has the unknown column {unknown[0]!r}; expected {', '.join(CONFIGURATION)}")
    if "lr" not in axes:
        raise ValueError(f"arm {arm!r} has no 'lr'; expected a list of learning rates")
    found = {}
    for name, values in axes.items():
        where = f"{name} of arm {arm!r}"
        if isinstance(values, str) or not np.iterable(values):
            raise ValueError(f"{where} is {values!r}; expected a list of numbers")
        values = found[name] = list(values)  # once: an iterator has nothing to give a second time
        if not values:
            raise ValueError(f"{where} is empty; expected at least one value")
        if len(set(values)) < len(values):
            raise ValueError(f"{where} repeats a value: {values}; expected distinct values")
        bad = [x for x in values if not math.isfinite(x) or (x <= 0 if name == "lr" else x < 0)]
        if bad:
            raise ValueError(
                f"{where} contains {bad[0]}; expected finite values {'above 0' if name == 'lr' else 'of 0 or more'}"
            )
        if name in ARMS[arm].absent and any(values):
            raise ValueError(f"{where} is {values}; that arm is defined by {name} = 0")
    return found


def select(
    table: pd.DataFrame,
    metric: str,
    step: int | None = None,
    higher_is_better: bool = True,
    by: str | Sequence[str] = (),
) -> pd.DataFrame:
    """Each arm's best configuration: the best mean of a (validation) metric over the tuning seeds.

    step: where the metric is read, by default the last step at which it was recorded. by: columns of conditions; the
    choice is made for each combination of them. Returns one row an arm and condition: arm, *by, lr, weight_decay, l2,
    score (the mean), n_seeds, edge. `edge` names the axes whose chosen value is the smallest or largest tried ("" for
    an interior winner); an axis with one value has no edge, and neither has a decay of 0, below which there is nothing.
    An EdgeWarning repeats it. A configuration that diverged (a value that is not finite) in any seed is never chosen;
    ties go to the smaller decay, then to the smaller lr.

    Raises ValueError where the configurations under comparison were not run on the same seeds, or all diverged.
    """
    by = [by] if isinstance(by, str) else list(by)
    rows = rows_at(table, metric, step, ["arm", *CONFIGURATION, "seed", *by])
    winners, edges = [], []
    for condition, block in rows.groupby(by, sort=False, dropna=False) if by else [((), rows)]:
        label = ", ".join(f"{name} = {value}" for name, value in zip(by, condition, strict=True))
        _same_seeds(block, label)
        for arm, runs in block.groupby("arm", sort=False):
            name = f"{arm} ({label})" if label else arm
            scores = (
                runs.groupby(list(CONFIGURATION))["value"]
                .agg(lambda v: v.mean() if np.isfinite(v).all() else np.nan)
                .reset_index()
            )
            if scores["value"].isna().all():
                raise ValueError(
                    f"every configuration of {name} has a value of {metric!r} that is not finite; nothing can be chosen"
                )
            best = scores["value"].max() if higher_is_better else scores["value"].min()
            ties = scores[np.isclose(scores["value"], best, rtol=1e-12, atol=0)]
            ties = ties.assign(decay=ties["weight_decay"] + ties["l2"]).sort_values(["decay", "lr"])
            won = ties.iloc[0]
            edge = _edge(won, scores)
            if edge:
                edges.append(f"{name}: {edge}")
            winners.append(
                [arm, *condition, *(won[c] for c in CONFIGURATION), won["value"], runs["seed"].nunique(), edge]
            )
    if edges:
        warnings.warn(f"winners on the edge of their grid: {'; '.join(edges)}", EdgeWarning, stacklevel=2)
    winners = pd.DataFrame(winners, columns=["arm", *by, *CONFIGURATION, "score", "n_seeds", "edge"])
    order = {arm: i for i, arm in enumerate(rows["arm"].unique())}
    return winners.sort_values("arm", key=lambda arms: arms.map(order), kind="stable", ignore_index=True)


def _same_seeds(block: pd.DataFrame, label: str) -> None:
    runs = block.groupby(["arm", *CONFIGURATION], sort=False)["seed"].agg(lambda seeds: tuple(sorted(seeds)))
    expected = tuple(sorted(block["seed"].unique()))
    for run, seeds in runs.items():
        if seeds != expected:
            where = f" under {label}" if label else ""
            raise ValueError(
                f"configuration {run}{where} has the seeds {some(seeds)}; "
                f"the comparison needs each of {some(expected)} once"
            )


def _edge(won: pd.Series, tried: pd.DataFrame) -> str:
    found = []
    for name in CONFIGURATION:
        low, high = tried[name].min(), tried[name].max()
        if low < high and won[name] == high:
            found.append(f"{name} at its largest value {high:g}")
        elif low < high and won[name] == low > 0:
            found.append(f"{name} at its smallest value {low:g}")
    return ", ".join(found)


def without_decay(winners: pd.DataFrame, arm: str) -> list[str]:
    """The conditions (column ``condition``) in which tuning gave an arm no decay: there it is plain Adam, on its own
    list of learning rates."""
    need(winners, ["arm", *CONFIGURATION, "condition"])
    filled(winners, ["arm", *CONFIGURATION])
    own = winners[(winners["arm"] == arm) & (winners["weight_decay"] + winners["l2"] == 0)]
    return list(dict.fromkeys(own["condition"]))


def retrain(winners: pd.DataFrame, seeds: Iterable[int], used: Iterable[int] = ()) -> pd.DataFrame:
    """The runs that measure the winners of `select` on fresh seeds: each winner times each seed, with its condition's
    columns.

    used: the seeds of the tuning runs; an overlap raises ValueError, for a winner looks better on the seeds that chose
    it. So do no winners, and a table of runs in their place.
    """
    seeds = whole_seeds(seeds)
    both = sorted(set(seeds) & {whole_seed(seed) for seed in used})
    if both:
        raise ValueError(f"seeds {some(both)} were used for tuning; expected fresh seeds")
    need(winners, ["arm", *CONFIGURATION])
    filled(winners, ["arm", *CONFIGURATION])
    if winners.empty:
        raise ValueError("winners is empty; expected at least one row of select")
    if measured := [name for name in ("seed", "step", "metric", "value") if name in winners]:
        raise ValueError(f"winners has the column {measured[0]!r}; expected rows of select, not of runs")
    runs = winners.drop(columns=["score", "n_seeds", "edge"], errors="ignore")
    return runs.merge(pd.DataFrame({"seed": seeds}), how="cross")
