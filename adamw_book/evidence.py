"""From a table of runs to a verdict: grids, selection on validation data, paired comparison over seeds.

The path of every chapter: `grid` lists the tuning runs with an equal budget for each arm, `select` picks each arm's
best configuration on validation data, `retrain` lists the winners' runs on fresh seeds, `paired` measures the
difference between two arms on test data, and `verdict` sets it against the smallest effect that would matter, which the
`Claim` names before anything is run.

A table is tidy: one row a measurement, with the columns arm, lr, weight_decay, l2, seed, step, metric, value, and
further columns for conditions (depth, label noise, ...). A configuration is (lr, weight_decay, l2). This module knows
tables, not models.
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

ARMS = ("AdamW", "Adam + L2", "Adam", "AdamW, lr-independent")
CONFIGURATION = ("lr", "weight_decay", "l2")
VERDICTS = ("supported", "conditional", "refuted", "inconclusive")
MIN_SEEDS = 6
_FOREIGN = {
    "AdamW": ("l2",),
    "AdamW, lr-independent": ("l2",),
    "Adam + L2": ("weight_decay",),
    "Adam": ("weight_decay", "l2"),
}
_FRACTIONS = ("accuracy", "recall")


class EdgeWarning(UserWarning):
    """A selected configuration sits on the edge of its grid: the true optimum may lie beyond it."""


@dataclass(frozen=True)
class Claim:
    """One testable claim, written down before the run.

    id: "chapter.name", for instance "overfitting.depth"; the name of its record. tag: the number that the source gives
    it, or None. statement: the testable form. source: what the source claims, in one sentence. criterion: what counts
    as support. metric: what is measured. smallest_effect: the smallest improvement that would matter, in the metric's
    unit (accuracies are fractions: half a percentage point is 0.005).

    Raises ValueError for a malformed id or tag, an empty text or a smallest_effect that is not positive and finite.
    """

    id: str
    tag: str | None
    statement: str
    source: str
    criterion: str
    metric: str
    smallest_effect: float

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", self.id):
            raise ValueError(f"id is {self.id!r}; expected 'chapter.name' in lower case, digits and underscores")
        if self.tag is not None and not re.fullmatch(r"\d+", self.tag):
            raise ValueError(f"tag of claim {self.id} is {self.tag!r}; expected a string of digits, or None")
        for field in ("statement", "source", "criterion", "metric"):
            if not getattr(self, field).strip():
                raise ValueError(f"{field} of claim {self.id} is empty; expected a text")
        if not (math.isfinite(self.smallest_effect) and self.smallest_effect > 0):
            raise ValueError(f"smallest_effect of claim {self.id} is {self.smallest_effect}; expected a number above 0")


# ---- numbers


def show(x: float, digits: int = 3, unit: str = "", sign: bool = True) -> str:
    """A number as the book prints it: `digits` decimals, a real minus sign, a leading plus unless `sign` is False.

    >>> show(0.0123), show(-0.004), show(1.234, 1, "pp"), show(0.897, sign=False)
    ('+0.012', '−0.004', '+1.2 pp', '0.897')
    """
    x += 0.0  # −0.0 has no sign worth printing
    plus = "+" if sign and x > 0 else ""
    text = f"{plus}{x:.{digits}f}".replace("-", "−")
    return f"{text} {unit}" if unit else text


def scale_of(metric: str) -> str:
    """The scale on which differences of a metric read best: "pp" (percentage points) for accuracies and recalls, else
    "raw"."""
    return "pp" if any(word in metric.lower() for word in _FRACTIONS) else "raw"


@dataclass(frozen=True, eq=False)
class Effect:
    """A paired difference over seeds: positive favours the treatment.

    differences: pandas Series, one value a seed, indexed by seed, in the metric's unit. mean, low, high: their mean and
    its bootstrap interval at level `confidence`. n: the number of seeds.
    """

    treatment: str
    control: str
    metric: str
    differences: pd.Series
    mean: float
    low: float
    high: float
    confidence: float
    n: int

    @classmethod
    def of(cls, differences: pd.Series, treatment: str, control: str, metric: str, confidence: float = 0.95) -> Effect:
        """The effect that paired differences (a Series indexed by seed; positive favours the treatment) amount to.

        The interval is scipy.stats.bootstrap's, bias-corrected and accelerated (BCa; Efron 1987, JASA 82:171), from
        9,999 resamples of a fixed generator; where BCa is not defined, the percentile interval. Differences that are
        all equal have an interval of zero width. Means and bounds are rounded to ten digits below the largest
        difference, so that a tie with a threshold does not hang on the order of a sum.

        Raises ValueError for fewer than two seeds, repeated seeds, values that are not finite, or a confidence outside
        (0, 1).
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence is {confidence}; expected a number between 0 and 1")
        if differences.index.has_duplicates:
            raise ValueError(f"differences repeat the seeds {_some(differences.index[differences.index.duplicated()])}")
        if len(differences) < 2:
            raise ValueError(f"differences hold {len(differences)} seed(s); an interval needs at least 2")
        series = differences.astype(float).sort_index()
        values = series.to_numpy()
        if not np.isfinite(values).all():
            raise ValueError(
                f"the difference in {metric!r} is not finite for the seeds {_some(series.index[~np.isfinite(values)])}"
            )
        size = np.abs(values).max()
        decimals = 10 - math.ceil(math.log10(size)) if size > 0 else 0
        low, high = _interval(values, confidence)
        mean, low, high = (float(np.round(x, decimals)) + 0.0 for x in (values.mean(), low, high))
        return cls(treatment, control, metric, series, mean, low, high, confidence, len(series))

    @property
    def contrast(self) -> str:
        """What is subtracted from what: "AdamW − (Adam + L2)"."""
        treatment, control = (f"({arm})" if "+" in arm else arm for arm in (self.treatment, self.control))
        return f"{treatment} − {control}"

    def text(self, scale: str | None = None, digits: int | None = None) -> str:
        """Mean, interval and number of seeds: "+1.23 pp [+0.45, +2.01], n = 24", or with scale "raw" "+0.0123 [...], n
        = 24".

        scale: "pp" (percentage points: a hundred times the value), "raw", or None for what suits the metric.
        """
        mean, interval = self.parts(scale, digits)
        return f"{mean} {interval}, n = {self.n}"

    def parts(self, scale: str | None = None, digits: int | None = None) -> tuple[str, str]:
        """The mean and the interval as two texts, scaled and rounded as in `text`."""
        scale = scale_of(self.metric) if scale is None else scale
        if scale not in ("pp", "raw"):
            raise ValueError(f"scale is {scale!r}; expected 'pp', 'raw' or None")
        factor, unit, digits = (
            (100, "pp", 2 if digits is None else digits) if scale == "pp" else (1, "", 4 if digits is None else digits)
        )
        low, high = show(factor * self.low, digits), show(factor * self.high, digits)
        return show(factor * self.mean, digits, unit), f"[{low}, {high}]"

    def __str__(self) -> str:
        return self.text("raw")


def _interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    if np.ptp(values) <= 1e-12 * np.abs(values).max():
        return values.mean(), values.mean()
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            found = stats.bootstrap(
                (values,),
                np.mean,
                n_resamples=9999,
                confidence_level=confidence,
                method=method,
                rng=np.random.default_rng(0),
            ).confidence_interval
        if np.isfinite(found).all():
            break
    return found.low, found.high


# ---- grids


def grid(
    arms: Mapping[str, Mapping[str, Sequence[float]]], seeds: Iterable[int], equal_budgets: bool = True
) -> pd.DataFrame:
    """All tuning runs: for each arm the Cartesian product of its values, times the seeds.

    arms: for instance {"AdamW": {"lr": [...], "weight_decay": [...]}, "Adam + L2": {"lr": [...], "l2": [...]}}; a
    coefficient that is not named is 0. Returns one row a run with the columns arm, lr, weight_decay, l2, seed.

    Raises ValueError for an unknown or foreign coefficient (an `l2` for AdamW), no lr, an empty or repeated list of
    values, an lr that is not positive, a negative decay, and arms with unequal numbers of configurations: an arm that
    is tuned longer looks better. Pass equal_budgets=False where that inequality is meant, and say why.
    """
    seeds = _seeds(seeds)
    if not arms:
        raise ValueError(
            "arms is empty; expected at least one arm, such as {'AdamW': {'lr': [1e-3], 'weight_decay': [0.1]}}"
        )
    rows, budgets = [], {}
    for arm, axes in arms.items():
        _check_axes(arm, axes)
        points = list(itertools.product(*(axes.get(name, [0.0]) for name in CONFIGURATION)))
        budgets[arm] = len(points)
        rows += [(arm, *map(float, point), seed) for point in points for seed in seeds]
    if equal_budgets and len(set(budgets.values())) > 1:
        counts = ", ".join(f"{arm!r} has {count}" for arm, count in budgets.items())
        raise ValueError(
            f"the arms have unequal numbers of configurations ({counts}); expected equal ones, or equal_budgets=False"
        )
    return pd.DataFrame(rows, columns=["arm", *CONFIGURATION, "seed"])


def _check_axes(arm: str, axes: Mapping[str, Sequence[float]]) -> None:
    unknown = [name for name in axes if name not in CONFIGURATION]
    if unknown:
        raise ValueError(f"arm {arm!r} has the unknown column {unknown[0]!r}; expected {', '.join(CONFIGURATION)}")
    if "lr" not in axes:
        raise ValueError(f"arm {arm!r} has no 'lr'; expected a list of learning rates")
    for name, values in axes.items():
        where = f"{name} of arm {arm!r}"
        if isinstance(values, str) or not np.iterable(values):
            raise ValueError(f"{where} is {values!r}; expected a list of numbers")
        values = list(values)
        if not values:
            raise ValueError(f"{where} is empty; expected at least one value")
        if len(set(values)) < len(values):
            raise ValueError(f"{where} repeats a value: {values}; expected distinct values")
        bad = [x for x in values if not math.isfinite(x) or (x <= 0 if name == "lr" else x < 0)]
        if bad:
            raise ValueError(
                f"{where} contains {bad[0]}; expected finite values {'above 0' if name == 'lr' else 'of 0 or more'}"
            )
        if name in _FOREIGN.get(arm, ()) and any(values):
            raise ValueError(f"{where} is {values}; that arm is defined by {name} = 0")


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
    rows = _at(table, metric, step, ["arm", *CONFIGURATION, "seed", *by])
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


def _edge(won: pd.Series, tried: pd.DataFrame) -> str:
    found = []
    for name in CONFIGURATION:
        low, high = tried[name].min(), tried[name].max()
        if low < high and won[name] == high:
            found.append(f"{name} at its largest value {high:g}")
        elif low < high and won[name] == low > 0:
            found.append(f"{name} at its smallest value {low:g}")
    return ", ".join(found)


def retrain(winners: pd.DataFrame, seeds: Iterable[int], used: Iterable[int] = ()) -> pd.DataFrame:
    """The runs that measure the winners of `select` on fresh seeds: each winner times each seed, with its condition's
    columns.

    used: the seeds of the tuning runs; an overlap raises ValueError, for a winner looks better on the seeds that chose
    it.
    """
    seeds = _seeds(seeds)
    both = sorted(set(seeds) & {int(seed) for seed in used})
    if both:
        raise ValueError(f"seeds {_some(both)} were used for tuning; expected fresh seeds")
    _need(winners, ["arm", *CONFIGURATION])
    runs = winners.drop(columns=["score", "n_seeds", "edge"], errors="ignore")
    return runs.merge(pd.DataFrame({"seed": seeds}), how="cross")


# ---- comparison and verdict


def paired(
    table: pd.DataFrame,
    treatment: str,
    control: str,
    metric: str,
    step: int | None = None,
    confidence: float = 0.95,
    higher_is_better: bool = True,
) -> Effect:
    """The paired difference between two arms, seed by seed: treatment − control, or control − treatment for a metric
    that is better when lower. A positive effect therefore always favours the treatment.

    table: the retrained winners under one condition, one value for each arm and seed. step: by default the last at
    which the metric was recorded. For the interval see `Effect.of`.

    Raises ValueError where a seed is missing from either arm or occurs twice in it (several configurations or
    conditions at once: keep one of them first).
    """
    rows = _at(table, metric, step, ["arm", "seed"])
    sides = []
    for arm in (treatment, control):
        side = rows[rows["arm"] == arm].set_index("seed")["value"]
        if side.empty:
            raise ValueError(f"the table has no arm {arm!r}; it has {_some(rows['arm'].unique())}")
        if side.index.has_duplicates:
            again = _some(side.index[side.index.duplicated()].unique())
            raise ValueError(
                f"arm {arm!r} has several values of {metric!r} for the seeds {again}; "
                "expected one configuration under one condition"
            )
        sides.append(side)
    missing = sides[0].index.symmetric_difference(sides[1].index)
    if len(missing):
        raise ValueError(
            f"seeds {_some(missing)} are in only one of {treatment!r} and {control!r}; "
            "a paired comparison needs them in both"
        )
    differences = sides[0] - sides[1] if higher_is_better else sides[1] - sides[0]
    return Effect.of(differences, treatment, control, metric, confidence)


def judge(effect: Effect, smallest_effect: float) -> str:
    """One regime's judgement.

    "supported": the interval lies above 0 and the mean reaches the smallest effect that would matter. "refuted": the
    whole interval lies below that effect, so an effect that would matter is excluded (there may be none, or one of the
    opposite sign). Otherwise "inconclusive"; so are fewer than six seeds, which could all agree in sign by chance with
    a probability above 5% (2 · 2⁻⁵).
    """
    if not smallest_effect > 0:
        raise ValueError(f"smallest_effect is {smallest_effect}; expected a number above 0")
    if effect.n < MIN_SEEDS:
        return "inconclusive"
    if effect.low > 0 and effect.mean >= smallest_effect:
        return "supported"
    return "refuted" if effect.high < smallest_effect else "inconclusive"


def combine(verdicts: Mapping[str, str]) -> str:
    """The verdict over regimes: all supported → "supported", all refuted → "refuted", some of either → "conditional"
    (holds in a named regime, fails in another), anything else → "inconclusive"."""
    found = set(verdicts.values())
    if not found:
        raise ValueError("verdicts is empty; expected at least one regime")
    unknown = found - {"supported", "refuted", "inconclusive"}
    if unknown:
        raise ValueError(
            f"verdicts contain {_some(unknown)}; expected 'supported', 'refuted' or 'inconclusive' for each regime"
        )
    if {"supported", "refuted"} <= found:
        return "conditional"
    return found.pop() if len(found) == 1 else "inconclusive"


def verdict(claim: Claim, effects: Mapping[str, Effect]) -> str:
    """The claim's verdict from its effects, one a regime. Raises ValueError for an effect in another metric than the
    claim's, since `smallest_effect` has no meaning there."""
    for regime, effect in effects.items():
        if effect.metric != claim.metric:
            raise ValueError(
                f"regime {regime!r} measures {effect.metric!r}; claim {claim.id} is about {claim.metric!r}"
            )
    return combine({regime: judge(effect, claim.smallest_effect) for regime, effect in effects.items()})


# ---- checks on tables


def _need(table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"the table lacks the column {missing[0]!r}; it has {_some(table.columns)}")


def _at(table: pd.DataFrame, metric: str, step: int | None, columns: Sequence[str]) -> pd.DataFrame:
    """The rows of one metric at one step (None: the last one recorded for it)."""
    _need(table, [*columns, "step", "metric", "value"])
    rows = table[table["metric"] == metric]
    if rows.empty:
        raise ValueError(f"the table has no metric {metric!r}; it has {_some(table['metric'].unique())}")
    steps = rows["step"].unique()
    step = steps.max() if step is None else step
    if step not in steps:
        raise ValueError(f"step is {step}; {metric!r} was recorded at {_some(sorted(steps))}")
    return rows[rows["step"] == step]


def _same_seeds(block: pd.DataFrame, label: str) -> None:
    runs = block.groupby(["arm", *CONFIGURATION], sort=False)["seed"].agg(lambda seeds: tuple(sorted(seeds)))
    expected = tuple(sorted(block["seed"].unique()))
    for run, seeds in runs.items():
        if seeds != expected:
            where = f" under {label}" if label else ""
            raise ValueError(
                f"configuration {run}{where} has the seeds {_some(seeds)}; "
                f"the comparison needs each of {_some(expected)} once"
            )


def _seeds(seeds: Iterable[int]) -> list[int]:
    seeds = [int(seed) for seed in seeds]
    if not seeds:
        raise ValueError("seeds is empty; expected at least one seed")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds repeat a value: {seeds}; expected distinct seeds")
    return seeds


def _some(values: Iterable, limit: int = 8) -> str:
    values = [value.item() if hasattr(value, "item") else value for value in values]
    more = f", ... ({len(values)} in all)" if len(values) > limit else ""
    return ", ".join(map(repr, values[:limit])) + more
