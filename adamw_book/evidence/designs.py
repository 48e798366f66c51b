"""Which configurations are tried, by one law for every arm, and which of them are worth evaluating."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ..arguments import whole
from ..arms import THREE, Arm
from .tables import CONFIGURATION, rows_at, some, whole_seeds

RESAMPLES = 2000
WORTH = 0.02  # a configuration that wins so many of the resamples is evaluated
_GOLDEN = (math.sqrt(5) - 1) / 2
_WITHOUT = 1 / 6  # of the configurations have no decay
_DIGITS = 6  # significant ones that a stored table keeps
_LARGEST = 0.9  # of η·λ: at 1 a step takes all of the weight, beyond it turns its sign


def search(ranges: Mapping, seeds: Iterable[int], arms: Sequence[Arm] = THREE) -> pd.DataFrame:
    """All tuning runs, drawn by one law: every arm tries the same learning rates, ``count`` of them, equally far apart
    on a logarithmic axis, each with one decay of its own range.

    The decays follow the golden ratio over the logarithm of their range (a Kronecker lattice, so that the plane is
    covered evenly whatever the count); the lowest sixth of them is no decay at all. Adam is the slice without decay and
    tries as many learning rates as the others. λ is held to η·λ ≤ 0.9.

    ranges: {"lr": (low, high), "weight_decay": (low, high), "l2": (low, high), "count": number}. Returns one row a run
    with the columns arm, lr, weight_decay, l2, seed. Raises ValueError for a range that is missing or not 0 < low <
    high, an unknown one, fewer than six configurations, and seeds that are not distinct whole numbers.
    """
    seeds = whole_seeds(seeds)
    needed = {"lr", "count", *(arm.decay for arm in arms if arm.decay)}
    if wrong := sorted(needed ^ ranges.keys()):
        state = "lack" if wrong[0] in needed else "have the unknown"
        raise ValueError(f"ranges {state} {wrong[0]!r}; expected {', '.join(sorted(needed))}")
    count = whole("ranges['count']", ranges["count"], 6, needed="a whole number of at least 6")
    for name in sorted(needed - {"count"}):
        low, high = ranges[name]
        if not 0 < low < high < math.inf:
            raise ValueError(f"ranges[{name!r}] is {ranges[name]}; expected (low, high) with 0 < low < high")
    rates = [_short(rate) for rate in np.geomspace(*ranges["lr"], count)]
    shares = [((i + 1) * _GOLDEN % 1 - _WITHOUT) / (1 - _WITHOUT) for i in range(count)]
    rows = []
    for arm in arms:
        for lr, share in zip(rates, shares, strict=True):
            decay = 0.0
            if arm.decay and share >= 0:
                low, high = ranges[arm.decay]
                decay = _short(low * (high / low) ** share)
                decay = min(decay, _short(_LARGEST / lr)) if arm.decay == "weight_decay" else decay
            own = arm.coefficients(decay)
            rows += [(arm.name, lr, own["weight_decay"], own["l2"], seed) for seed in seeds]
    return pd.DataFrame(rows, columns=["arm", *CONFIGURATION, "seed"])


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def scores_of(
    table: pd.DataFrame, metric: str, step: int | None = None, tuned: Sequence[str] = CONFIGURATION
) -> pd.DataFrame:
    """One arm's runs under one condition, a row a seed and a column a configuration, in the order in which ties are
    broken: the smaller decay, then the smaller lr, then what else is tuned in its own order, first.

    Raises ValueError where the configurations were not run on the same seeds, each once.
    """
    rows = rows_at(table, metric, step, ["arm", *tuned, "seed"])
    if rows["arm"].nunique() > 1:
        raise ValueError(f"the table has the arms {some(rows['arm'].unique())}; expected one")
    if rows.duplicated([*tuned, "seed"]).any():
        raise ValueError(f"the table has several values of {metric!r} for one configuration and seed; expected one")
    scores = rows.pivot(index="seed", columns=list(tuned), values="value")
    unrun = rows.groupby(list(tuned))["seed"].nunique() < len(scores)
    if unrun.any():
        named = ", ".join(f"{n} = {v}" for n, v in zip(tuned, unrun.index[unrun][0], strict=True))
        raise ValueError(
            f"the configuration {named} was not run on each of the seeds {some(scores.index)}; the "
            "comparison needs them all"
        )
    order = sorted(scores.columns, key=lambda one: _simplest_first(dict(zip(tuned, one, strict=True))))
    return scores[order]


def _simplest_first(configuration: Mapping) -> tuple:
    rest = [value for name, value in configuration.items() if name not in CONFIGURATION]
    return configuration["weight_decay"] + configuration["l2"], configuration["lr"], *rest


def resampled_counts(seeds: int, resamples: int = RESAMPLES) -> np.ndarray:
    """How often each of so many tuning seeds is drawn in each resample: (resamples, seeds), the same every time."""
    rng = np.random.default_rng(0)
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)


def picks(scores: pd.DataFrame, counts: np.ndarray, higher_is_better: bool = True) -> np.ndarray:
    """The column of `scores_of` that each resample of the tuning seeds (`resampled_counts`) would choose.

    Totals that the six digits of stored tables cannot tell apart are a tie, which the first column wins: so what is a
    tie as it was measured is one as it was stored. A configuration that diverged (a value that is not finite) in any
    seed is never chosen. Raises ValueError where all diverged.
    """
    values = scores.to_numpy() if higher_is_better else -scores.to_numpy()
    finite = np.isfinite(values).all(0)
    if not finite.any():
        raise ValueError("every configuration has a value that is not finite; nothing can be chosen")
    values = np.where(finite, values, 0.0)
    rounding = 0.5 * 10.0 ** (np.floor(np.log10(np.maximum(np.abs(values), 1e-300))) - _DIGITS + 1)
    totals, reach = np.where(finite, counts @ values, -np.inf), counts @ rounding
    return (totals + reach >= (totals - reach).max(1, keepdims=True)).argmax(1)


def edge_of(won: Sequence[float], tried: pd.DataFrame) -> str:
    """Which axes a winner sits on the edge of, "" for none: its learning rate one of the two smallest or largest
    tried, or its decay one of the two largest (below the smallest is no decay, which was tried)."""
    found = []
    for name, value in zip(CONFIGURATION, won, strict=True):
        values = np.unique(tried[name])
        if len(values) > 4 and value >= values[-2]:
            found.append(f"{name} at {value:g}, the largest tried being {values[-1]:g}")
        elif len(values) > 4 and name == "lr" and value <= values[1]:
            found.append(f"lr at {value:g}, the smallest tried being {values[0]:g}")
    return ", ".join(found)


def choose(
    table: pd.DataFrame,
    metric: str,
    step: int | None = None,
    higher_is_better: bool = True,
    by: Sequence[str] = (),
    tuned: Sequence[str] = CONFIGURATION,
) -> pd.DataFrame:
    """Each arm's best configuration by the mean of a (validation) metric over the tuning seeds, and its rivals: those
    that win at least 2% of 2,000 resamples of these seeds, so that what tuning leaves open is evaluated, too.

    by: columns of conditions; the choice is made for each combination of them. tuned: the columns that make a
    configuration. Returns arm, *by, *tuned, score (the mean), share (of the resamples that it wins), winner, edge
    (`edge_of`), the winner first, then by share. Raises ValueError as `scores_of` and `picks` do.
    """
    by = list(by)
    rows = rows_at(table, metric, step, ["arm", *tuned, "seed", *by])
    found = []
    for (arm, *condition), runs in rows.groupby(["arm", *by], sort=False, dropna=False):
        scores = scores_of(runs, metric, step, tuned)
        best = picks(scores, np.ones((1, len(scores)), int), higher_is_better)[0]
        chosen = picks(scores, resampled_counts(len(scores)), higher_is_better)
        shares = np.bincount(chosen, minlength=scores.shape[1]) / len(chosen)
        worth = [i for i in np.argsort(-shares, kind="stable") if shares[i] >= WORTH and i != best]
        for i in [best, *worth]:
            named = dict(zip(tuned, scores.columns[i], strict=True))
            edge = edge_of([named[name] for name in CONFIGURATION], runs)
            found.append([arm, *condition, *scores.columns[i], scores.iloc[:, i].mean(), shares[i], i == best, edge])
    return pd.DataFrame(found, columns=["arm", *by, *tuned, "score", "share", "winner", "edge"])
