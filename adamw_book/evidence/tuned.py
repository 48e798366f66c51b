"""Two tuned arms: a difference whose interval covers the tuning as well as the evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from .comparison import Effect, _rounded
from .designs import picks, resampled_counts, scores_of
from .tables import CONFIGURATION, some

CONTROL_SHARE = 0.5  # an arm that has no decay in more of the resamples counts as one without


@dataclass(frozen=True, eq=False)
class Side:
    """One tuned arm under one condition.

    scores: the rule of choice, a row a tuning seed and a column a configuration (`scores_of`). values: the metric that
    is judged, a row an evaluation seed, for the configurations that `choose` found worth it. decayed: whether the arm
    has a decay that tuning may set to 0.
    """

    arm: str
    scores: pd.DataFrame
    values: pd.DataFrame
    decayed: bool = True
    higher_is_better: bool = True  # of the scores

    @classmethod
    def of(
        cls,
        tuning: pd.DataFrame,
        evaluation: pd.DataFrame,
        rule: str,
        metric: str,
        *,
        step: int | None = None,
        decayed: bool = True,
        higher_is_better: bool = True,
        tuned: Sequence[str] = CONFIGURATION,
    ) -> Side:
        """From one arm's tuning runs and evaluation runs under one condition, the rule of choice being a metric of the
        first and what is judged a metric of the second (at ``step``, by default the last)."""
        scores, values = scores_of(tuning, rule, None, tuned), scores_of(evaluation, metric, step, tuned)
        return cls(str(tuning["arm"].iloc[0]), scores, values, decayed, higher_is_better)

    @property
    def decays(self) -> np.ndarray:
        """The decay of each configuration that was evaluated."""
        names = self.values.columns.names
        return np.array([sum(v for n, v in zip(names, c, strict=True) if n in CONFIGURATION[1:]) for c in self.values])

    def picked(self, counts: np.ndarray) -> np.ndarray:
        """Which column of ``values`` each resample of the tuning seeds chooses; −1: one that was not evaluated."""
        place = {one: i for i, one in enumerate(self.values.columns)}
        where = np.array([place.get(one, -1) for one in self.scores.columns])
        return where[picks(self.scores, counts, self.higher_is_better)]


def smoothed(
    treatment: Side, control: Side, metric: str, confidence: float = 0.95, higher_is_better: bool = True
) -> Effect:
    """What the whole procedure, tuning and then evaluating, gives: treatment − control (control − treatment for a
    metric that is better when lower).

    The tuning seeds are resampled and the choice is made again in each resample; the effect is the mean over these
    choices (a smoothed bootstrap, Efron 2014, JASA 109:991), so that a tie between two configurations is no coin toss.
    Its interval has two parts. *By seeds*: that of `Effect.of` over the evaluation seeds of the differences, each side
    being the mix of configurations that tuning chooses. *By tuning*: the infinitesimal jackknife over the tuning seeds
    (Efron's Theorem 1, with its correction for the finite number of resamples) of the evaluation means of what was
    chosen, these drawn together as far as the evaluation seeds cannot tell them apart (James and Stein). Both sides
    draw the same seeds. The parts add as independent errors do.

    The second part follows Student's t, with no more degrees of freedom than it has values to go by: the tuning seeds
    less one, or the configurations that were chosen from, of both sides, less one. For where the judged metric has
    little to do with the one that tunes, other seeds put forward configurations that differ from these as these differ
    among themselves, and of two or three values that is hardly known.

    Raises ValueError where the sides share no tuning seeds, were evaluated on other seeds, a seed is in both parts of
    the protocol, or nothing that tuning chooses was evaluated.
    """
    _alike(treatment, control)
    counts = resampled_counts(len(treatment.scores))
    chosen = [side.picked(counts) for side in (treatment, control)]
    known = (chosen[0] >= 0) & (chosen[1] >= 0)
    if known.mean() < 0.5:
        raise ValueError(
            f"only {known.mean():.0%} of the resamples choose configurations of {treatment.arm!r} and {control.arm!r} "
            "that were evaluated; expected those of `choose`"
        )
    counts, chosen = counts[known], [picked[known] for picked in chosen]
    mixes, means, undecayed, chosen_from = [], [], [], 0
    for side, picked in zip((treatment, control), chosen, strict=True):
        values = side.values.to_numpy()
        if not np.isfinite(values).all():
            raise ValueError(f"{metric!r} of {side.arm!r} is not finite in the evaluation")
        shares = np.bincount(picked, minlength=values.shape[1]) / len(picked)
        mixes.append(values @ shares)
        means.append(_drawn_together(values, shares)[picked])
        chosen_from += np.count_nonzero(shares)
        if side.decayed and shares[side.decays == 0].sum() > CONTROL_SHARE:
            undecayed.append(side.arm)
    sign = 1 if higher_is_better else -1
    seeds = treatment.values.index
    differences = pd.Series(sign * (mixes[0] - mixes[1]), index=seeds, name="value")
    effect = Effect.of(differences, treatment.arm, control.arm, metric, confidence)
    mean, by_seeds = effect.mean, (effect.low, effect.high)
    freedom = int(min(len(treatment.scores), chosen_from)) - 1
    reach = stats.t.ppf((1 + confidence) / 2, freedom) * _jackknife(means[0] - means[1], counts)
    bounds = mean - math.hypot(mean - effect.low, reach), mean + math.hypot(effect.high - mean, reach)
    low, high, *by_tuning = _rounded(differences.to_numpy(), *bounds, mean - reach, mean + reach)
    return replace(
        effect, low=low, high=high, by_seeds=by_seeds, by_tuning=tuple(by_tuning), freedom=freedom,
        undecayed=tuple(undecayed),
    )  # fmt: skip


def _alike(treatment: Side, control: Side) -> None:
    for part in ("scores", "values"):
        ours, theirs = (set(getattr(side, part).index) for side in (treatment, control))
        if ours != theirs:
            raise ValueError(
                f"seeds {some(sorted(ours ^ theirs))} of the {part} are in only one of {treatment.arm!r} and "
                f"{control.arm!r}; a paired comparison needs them in both"
            )
    if both := set(treatment.scores.index) & set(treatment.values.index):
        raise ValueError(f"seeds {some(sorted(both))} were used for tuning and for evaluation; expected fresh seeds")


def _drawn_together(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The configurations' means, drawn towards their common one as far as the noise of the seeds explains how they
    differ: what is only noise there must not be counted as noise of the tuning."""
    means = values.mean(0)
    centre = means @ shares
    between = ((means - centre) ** 2) @ shares
    centred = values - values @ shares[:, None]
    noise = (centred.var(0, ddof=1) / len(values)) @ shares
    kept = max(0.0, 1 - noise / between) if between > 0 else 0.0
    return centre + math.sqrt(kept) * (means - centre)


def _jackknife(statistic: np.ndarray, counts: np.ndarray) -> float:
    """The standard error of the mean of a resampled statistic by the infinitesimal jackknife: √Σ cov², less what
    finitely many resamples add, and times √(n / (n − 1)): of a mean of n values Σ cov² is the plain variance over n."""
    resamples, n = counts.shape
    centred = statistic - statistic.mean()
    covariances = (counts - 1).T @ centred / resamples
    excess = n / resamples * (centred @ centred) / resamples
    return math.sqrt(max(0.0, covariances @ covariances - excess) * n / (n - 1))
