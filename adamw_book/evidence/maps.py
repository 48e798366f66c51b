"""Many effects at once: what they have in common, and which of them stand once their number is counted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from .comparison import Effect, printed


@dataclass(frozen=True)
class Pooled:
    """A random-effects mean over regimes: mean, its interval low … high at level `confidence`, and the spread between
    regimes `tau`, a standard deviation, in the metric's unit; n regimes."""

    mean: float
    low: float
    high: float
    tau: float
    n: int
    confidence: float

    def parts(self, unit: str) -> tuple[str, str]:
        """The mean and its interval as two texts (`printed`)."""
        return printed(unit, self.mean, self.low, self.high)


def pooled(effects: Mapping[str, Effect], confidence: float = 0.95) -> Pooled:
    """The random-effects mean of effects in one metric, for the diamond under a forest plot.

    τ² is Paule and Mandel's (1982, J. Res. NBS 87:377): with it the weighted squares of the deviations come out as many
    as their degrees of freedom. The interval is Hartung and Knapp's (2001, Stat. Med. 20:1771), Student's t with one
    degree less than there are regimes; their factor, never taken below 1, is 1 with this τ². Regimes of identical runs
    count with the smallest error of the others; where all are such, the spread of their means is all there is. Raises
    ValueError for fewer than two effects, several metrics or several controls.
    """
    kinds = {(effect.metric, effect.control) for effect in effects.values()}
    if len(effects) < 2 or len(kinds) > 1:
        told = ", ".join(f"{metric} against {control}" for metric, control in sorted(kinds))
        raise ValueError(f"effects hold {len(effects)} regime(s): {told or 'none'}; expected two or more of one kind")
    means = np.array([effect.mean for effect in effects.values()])
    errors = np.array([effect.error for effect in effects.values()])
    k, spread = len(means), np.ptp(means)
    if not errors.any():
        if spread == 0:
            return Pooled(*3 * [float(means[0])], 0.0, k, confidence)
        errors[:] = 1e-6 * spread
    errors = np.where(errors > 0, errors, errors[errors > 0].min())

    def excess(variance: float) -> float:
        weights = 1 / (errors**2 + variance)
        return weights @ (means - weights @ means / weights.sum()) ** 2 - (k - 1)

    variance = 0.0
    if excess(0.0) > 0:
        variance = float(optimize.brentq(excess, 0.0, 10 * k * spread**2))
    weights = 1 / (errors**2 + variance)
    mean = weights @ means / weights.sum()
    reach = stats.t.ppf((1 + confidence) / 2, k - 1) / math.sqrt(weights.sum())
    return Pooled(float(mean), float(mean - reach), float(mean + reach), math.sqrt(variance), k, confidence)


def surviving(effects: Mapping[str, Effect], rate: float = 0.05) -> set[str]:
    """The regimes that stand when false discoveries are held to ``rate`` (Benjamini and Hochberg 1995)."""
    names = sorted(effects, key=lambda name: effects[name].p)
    passed = [i for i, name in enumerate(names, 1) if effects[name].p <= rate * i / len(names)]
    return set(names[: max(passed, default=0)])


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """The probabilities corrected for their number by Holm's step-down rule (1979): each is to be held against the
    level itself. In the order given."""
    adjusted, largest = {}, 0.0
    for i, name in enumerate(sorted(p, key=lambda name: p[name])):
        largest = max(largest, min(1.0, (len(p) - i) * p[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p}
