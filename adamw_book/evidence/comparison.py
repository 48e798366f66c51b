"""Two arms, seed by seed: the mean difference with its bootstrap interval, and how it is printed."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special, stats

from .tables import rows_at, some

# What differences of a metric are printed in, by a word of its name. Percentage points are a hundred times the value.
UNITS = {
    "accuracy": "pp", "recall": "pp", "client agreement": "pp",
    "halvings": "halvings", "log2": "doublings", "bits": "bits", "loss": "nats",
}  # fmt: skip


def show(x: float, digits: int = 3, unit: str = "", sign: bool = True) -> str:
    """A number as the book prints it: `digits` decimals, a real minus sign, a leading plus unless `sign` is False.

    >>> show(0.0123), show(-0.004), show(1.234, 1, "pp"), show(0.897, sign=False)
    ('+0.012', '−0.004', '+1.2 pp', '0.897')
    """
    x = round(x, digits) + 0.0  # what rounds to −0 has no sign worth printing
    plus = "+" if sign and x > 0 else ""
    text = f"{plus}{x:.{digits}f}".replace("-", "−")
    return f"{text} {unit}" if unit else text


def unit_of(metric: str) -> str:
    """The unit in which differences of a metric are printed (`UNITS`): "pp" (percentage points) for accuracies and the
    like; "" for a metric without one."""
    return next((unit for word, unit in UNITS.items() if word in metric.lower()), "")


def printed(
    unit: str, mean: float, low: float, high: float, digits: int | None = None, sign: bool = True
) -> tuple[str, str]:
    """A mean with its unit, and its interval, as two texts. digits: decimals, by default 2 for percentage points and
    for values beyond 1, else 4.

    >>> printed("pp", 0.0123, -0.0045, 0.0291), printed("bits", 0.0123, -0.0045, 0.0291)
    (('+1.23 pp', '[−0.45, +2.91]'), ('+0.0123 bits', '[−0.0045, +0.0291]'))
    """
    if digits is None:
        digits = 2 if unit == "pp" or max(abs(low), abs(high)) >= 1 else 4
    factor = 100 if unit == "pp" else 1
    bounds = ", ".join(show(factor * bound, digits) for bound in (low, high))
    return show(factor * mean, digits, unit, sign), f"[{bounds}]"


@dataclass(frozen=True, eq=False)
class Effect:
    """A paired difference over seeds: positive favours the treatment.

    differences: pandas Series, one value a seed, indexed by seed, in the metric's unit. mean, low, high: their mean and
    its interval at level `confidence`. n: the number of seeds. Where both sides were tuned (`smoothed`), by_seeds and
    by_tuning are the two parts of that interval: what other evaluation seeds, and what other tuning seeds, would
    change, the latter with so many degrees of freedom; undecayed names the sides that tuning gave no decay.
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
    by_seeds: tuple[float, float] | None = None
    by_tuning: tuple[float, float] | None = None
    freedom: int | None = None
    undecayed: tuple[str, ...] = ()

    @classmethod
    def of(cls, differences: pd.Series, treatment: str, control: str, metric: str, confidence: float = 0.95) -> Effect:
        """The effect that paired differences (a Series indexed by seed; positive favours the treatment) amount to.

        The interval is scipy.stats.bootstrap's, bias-corrected and accelerated (BCa; Efron 1987, JASA 82:171), from
        9,999 resamples of a fixed generator; where BCa is not defined, the percentile interval. It is made wider as
        Student's t is wider than the normal, and by √(n / (n − 1)), for a bootstrap of few values is too narrow
        (Hesterberg 2015, Am. Stat. 69:371). Differences that are all equal have an interval of zero width. Means and
        bounds are rounded to ten digits below the largest difference, so that a tie with a threshold does not hang on
        the order of a sum.

        Raises ValueError for fewer than two seeds, repeated seeds, values that are not finite, or a confidence outside
        (0, 1).
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence is {confidence}; expected a number between 0 and 1")
        if differences.index.has_duplicates:
            raise ValueError(f"differences repeat the seeds {some(differences.index[differences.index.duplicated()])}")
        if len(differences) < 2:
            raise ValueError(f"differences hold {len(differences)} seed(s); an interval needs at least 2")
        series = differences.astype(float).sort_index()
        values = series.to_numpy()
        if not np.isfinite(values).all():
            raise ValueError(
                f"the difference in {metric!r} is not finite for the seeds {some(series.index[~np.isfinite(values)])}"
            )
        n, quantile, mean = len(series), (1 + confidence) / 2, values.mean()
        wider = stats.t.ppf(quantile, n - 1) / stats.norm.ppf(quantile) * math.sqrt(n / (n - 1))
        bounds = (mean + wider * (bound - mean) for bound in _interval(values, confidence))
        mean, low, high = _rounded(values, mean, *bounds)
        return cls(treatment, control, metric, series, mean, low, high, confidence, n)

    @property
    def contrast(self) -> str:
        """What is subtracted from what: "AdamW − (Adam + L2)"."""
        treatment, control = (f"({arm})" if "+" in arm else arm for arm in (self.treatment, self.control))
        return f"{treatment} − {control}"

    @property
    def median(self) -> float:
        """The median difference over the seeds."""
        return float(self.differences.median())

    @property
    def carried(self) -> bool:
        """Whether few seeds carry the mean: it lies outside the middle half of the differences."""
        lower, upper = self.differences.quantile([0.25, 0.75])
        return not lower <= self.differences.mean() <= upper

    @property
    def p(self) -> float:
        """The two-sided probability of a mean so far from 0 where there is no effect (identical runs: 1).

        It belongs to the interval: at the level 1 − p its side towards 0 would just reach 0, so that p lies below 0.05
        where the 95% interval excludes 0 and nowhere else. From level to level a side grows as Student's t does, with
        n − 1 degrees of freedom; of tuned arms each part with its own.
        """
        side, level = int(self.mean < 0), 1 - self.confidence
        reach = (self.mean - self.low, self.high - self.mean)[side]
        bounds, freedom = self._parts()
        widths = abs(bounds[:, side] - self.mean)
        if self.mean == 0 or reach <= 0 or not any(widths):
            return float(self.mean == 0)
        far = abs(self.mean) / reach
        found = _level(far, widths, freedom, level)
        return max(found, level) if far <= 1 else found

    @property
    def error(self) -> float:
        """The standard error of the mean: half of the interval over the quantile of Student's t; of tuned arms, whose
        parts have degrees of freedom of their own, of each part, and these added as independent errors are."""
        bounds, freedom = self._parts()
        return float(np.hypot.reduce(np.ptp(bounds, axis=1) / 2 / special.stdtrit(freedom, (1 + self.confidence) / 2)))

    def _parts(self) -> tuple[np.ndarray, np.ndarray]:
        """The bounds (parts, 2) of what the interval is made of, and the degrees of freedom of each part."""
        parts = [(self.by_seeds or (self.low, self.high), self.n - 1)]
        if self.by_tuning is not None:
            parts.append((self.by_tuning, self.freedom or self.n - 1))
        bounds, freedom = zip(*parts, strict=True)
        return np.array(bounds), np.array(freedom)

    def remarks(self) -> list[str]:
        """What a reader of the mean should know: an arm without decay, seeds that do not differ, few that carry it."""
        found = [f"tuning gave {arm} no decay" for arm in self.undecayed]
        if not self.differences.any():
            found.append("no seed differs")
        elif self.carried:
            median, _ = printed(unit_of(self.metric), self.median, self.low, self.high)
            found.append(f"few seeds carry the mean: the median is {median}")
        return found

    def parts(self, digits: int | None = None, unit: str | None = None) -> tuple[str, str]:
        """The mean and its interval as two texts (`printed`), in the metric's own unit where none is named."""
        unit = unit_of(self.metric) if unit is None else unit
        return printed(unit, self.mean, self.low, self.high, digits)

    def text(self, digits: int | None = None, unit: str | None = None) -> str:
        """Mean, interval and number of seeds: "+1.23 pp [+0.45, +2.01], n = 24"."""
        mean, interval = self.parts(digits, unit)
        return f"{mean} {interval}, n = {self.n}"

    __str__ = text


def _rounded(values: np.ndarray, *numbers: float) -> list[float]:
    """The numbers at ten digits below the largest of the values, at ten decimals where all of these are 0."""
    size = np.abs(values).max()
    decimals = 10 - math.ceil(math.log10(size)) if size > 0 else 10
    return [float(np.round(number, decimals)) + 0.0 for number in numbers]


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


def _level(far: float, widths: np.ndarray, freedom: np.ndarray, level: float) -> float:
    """The level at which an interval is so many times as wide as at this one. Its parts are so wide now, grow as
    Student's t with their degrees of freedom, and add as independent errors do."""
    shares = widths / np.hypot.reduce(widths)
    freedom, shares = freedom[shares > 0], shares[shares > 0]
    quantiles = special.stdtrit(freedom, level / 2)
    alone = 2 * special.stdtr(freedom, far * quantiles)  # were it all of one part: the level lies between these
    low, high = (math.log(max(bound, 1e-300)) for bound in (alone.min(), alone.max()))
    for _ in range(50):
        middle = (low + high) / 2
        wide = np.hypot.reduce(shares * special.stdtrit(freedom, math.exp(middle) / 2) / quantiles)
        low, high = (middle, high) if wide > far else (low, middle)
    return math.exp(middle)


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
    rows = rows_at(table, metric, step, ["arm", "seed"])
    sides = []
    for arm in (treatment, control):
        side = rows[rows["arm"] == arm].set_index("seed")["value"]
        if side.empty:
            raise ValueError(f"the table has no arm {arm!r}; it has {some(rows['arm'].unique())}")
        if side.index.has_duplicates:
            again = some(side.index[side.index.duplicated()].unique())
            raise ValueError(
                f"arm {arm!r} has several values of {metric!r} for the seeds {again}; "
                "expected one configuration under one condition"
            )
        sides.append(side)
    missing = sides[0].index.symmetric_difference(sides[1].index)
    if len(missing):
        raise ValueError(
            f"seeds {some(missing)} are in only one of {treatment!r} and {control!r}; "
            "a paired comparison needs them in both"
        )
    differences = sides[0] - sides[1] if higher_is_better else sides[1] - sides[0]
    return Effect.of(differences, treatment, control, metric, confidence)
