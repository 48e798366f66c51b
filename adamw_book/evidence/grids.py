"""Which runs: a grid (of doses, of a map), and what was chosen on fresh seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ..arms import ARMS
from .tables import CONFIGURATION, filled, need, some, whole_seed, whole_seeds


def grid(arms: Mapping[str, Mapping[str, Sequence[float]]], seeds: Iterable[int]) -> pd.DataFrame:
    """All runs of a grid: for each arm the Cartesian product of its values, times the seeds.

    arms: for instance {"AdamW": {"lr": [...], "weight_decay": [...]}, "Adam + L2": {"lr": [...], "l2": [...]}}; a
    coefficient that is not named is 0. Returns one row a run with the columns arm, lr, weight_decay, l2, seed.

    Raises ValueError for an unknown arm, an unknown or foreign coefficient (an `l2` for AdamW), no lr, an empty or
    repeated list of values, an lr that is not positive, a negative decay, and seeds that are not whole numbers.
    """
    seeds = whole_seeds(seeds)
    if not arms:
        raise ValueError(
            "arms is empty; expected at least one arm, such as {'AdamW': {'lr': [1e-3], 'weight_decay': [0.1]}}"
        )
    rows = []
    for arm, axes in arms.items():
        axes = _checked_axes(arm, axes)
        points = itertools.product(*(axes.get(name, [0.0]) for name in CONFIGURATION))
        rows += [(arm, *map(float, point), seed) for point in points for seed in seeds]
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


def retrain(winners: pd.DataFrame, seeds: Iterable[int], used: Iterable[int] = ()) -> pd.DataFrame:
    """The runs that measure what `choose` chose on fresh seeds: each configuration times each seed, with its
    condition's columns.

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
        raise ValueError("winners is empty; expected at least one row of choose")
    if measured := [name for name in ("seed", "step", "metric", "value") if name in winners]:
        raise ValueError(f"winners has the column {measured[0]!r}; expected rows of choose, not of runs")
    runs = winners.drop(columns=["score", "share", "winner", "edge"], errors="ignore")
    return runs.merge(pd.DataFrame({"seed": seeds}), how="cross")
