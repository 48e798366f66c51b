"""The *rules*: from a decay that was tuned in one setting to those of the others, and what that costs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from adamw_book.evidence import Effect, Side, picks, resampled_counts, scores_of, smoothed

from .settings import COUNT, REFERENCE, SETTINGS, Setting

CONSTANT, TOTAL, TIMESCALE = "λ kept", "λΣη kept", "timescale in epochs kept"
IN_PLACE, AGAIN, KEPT = "tuned in place", "tuned again", "kept"
# To what λ is proportional, at one peak rate η: 1; 1/Σ of what decay takes; 1/(steps an epoch), which keeps 1/(ηλ) in
# epochs (Wang and Aitchison, 2025), of the peak rate; and the same of the mean rate.
RULES: Mapping[str, Callable[[Setting], float]] = {
    CONSTANT: lambda setting: 1.0,
    TOTAL: lambda setting: 1 / (setting.steps * setting.share),
    TIMESCALE: lambda setting: 1 / setting.steps_an_epoch,
    "the same, of the mean rate": lambda setting: 1 / (setting.steps_an_epoch * setting.share),
}


def shift(rule: str, setting: str) -> int:
    """By how many doses, each twice the one before, a rule (a name in ``RULES``) moves the decay from the reference to
    a setting (a name in ``SETTINGS``): the nearest whole number."""
    return int(np.rint(np.log2(RULES[rule](SETTINGS[setting]) / RULES[rule](SETTINGS[REFERENCE]))))


@dataclass(frozen=True)
class Tuned:
    """Some settings of one network and arm. ways (W, S): the dose that tuning chooses in each of S settings, in every
    way W that resamples of the tuning seeds would choose them. scores: the mean validation accuracy of each way, a row
    a tuning seed. accuracy (seeds, S, doses): test accuracy of each dose. seeds: those of the evaluation."""

    names: tuple[str, ...]
    ways: np.ndarray
    scores: pd.DataFrame
    accuracy: np.ndarray
    seeds: pd.Index

    @classmethod
    def of(cls, table: pd.DataFrame, names: Sequence[str]) -> "Tuned":
        """From a table of one network and one arm: validation accuracy on tuning seeds, test accuracy on others. Raises
        ``ValueError`` for a setting that it lacks."""
        if missing := [name for name in names if name not in set(table["setting"])]:
            raise ValueError(f"names: the table has no setting {missing[0]!r}; it has {sorted(set(table['setting']))}")
        tuned, tested = (
            [scores_of(table[table["setting"] == name], f"{split} accuracy") for name in names]
            for split in ("validation", "test")
        )
        counts = resampled_counts(len(tuned[0]))
        ways = np.unique([picks(scores, counts) for scores in tuned], axis=1).T
        scores = np.mean([s.to_numpy()[:, ways[:, i]] for i, s in enumerate(tuned)], axis=0)
        accuracy = np.stack([s.to_numpy() for s in tested], axis=1)
        return cls(tuple(names), ways, pd.DataFrame(scores, index=tuned[0].index), accuracy, tested[0].index)

    def side(self, label: str, doses: np.ndarray, settings: Sequence[int]) -> Side:
        """Mean test accuracy over some settings (places in ``names``) with the doses (W, len(settings)) there."""
        values = np.mean([self.accuracy[:, j, doses[:, i]] for i, j in enumerate(settings)], axis=0)
        return Side(label, self.scores, pd.DataFrame(values, index=self.seeds), decayed=False)

    def again(self) -> Side:
        """A decay that is tuned in each setting anew."""
        return self.side(AGAIN, self.ways, range(len(self.names)))

    def kept(self) -> Side:
        """A decay that is tuned in one setting and kept in another, over all ordered pairs."""
        n = len(self.names)
        pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
        return self.side(KEPT, self.ways[:, [i for i, _ in pairs]], [j for _, j in pairs])

    def carried(self, rule: str) -> Side:
        """A decay that is tuned in the first setting, the reference, and carried to the others by a rule; at the ends
        of the doses it stays."""
        moved = [np.clip(self.ways[:, 0] + shift(rule, name), 0, COUNT - 1) for name in self.names[1:]]
        return self.side(rule, np.stack(moved, 1), range(1, len(self.names)))

    def in_place(self) -> Side:
        """A decay that is tuned in each of the settings other than the first."""
        return self.side(IN_PLACE, self.ways[:, 1:], range(1, len(self.names)))


def one_of(table: pd.DataFrame, model: str, arm: str = "AdamW") -> pd.DataFrame:
    """The rows of one network and one arm."""
    return table[(table["condition"] == model) & (table["arm"] == arm)]


def tuning_again(own: pd.DataFrame, names: Sequence[str], metric: str) -> Effect:
    """What tuning the decay again is worth when one of these settings is left for another: again − kept."""
    tuned = Tuned.of(own, names)
    return smoothed(tuned.again(), tuned.kept(), metric)


def rule_against(own: pd.DataFrame, rule: str, other: str, names: Sequence[str], metric: str) -> Effect:
    """Mean test accuracy in held-out settings with the decay that one rule carries there from the reference, minus that
    of another rule; one of the two may be :data:`IN_PLACE`."""
    tuned = Tuned.of(own, [REFERENCE, *names])
    sides = (tuned.in_place() if one == IN_PLACE else tuned.carried(one) for one in (rule, other))
    return smoothed(*sides, metric)


def regret(own: pd.DataFrame, rule: str, names: Sequence[str]) -> pd.Series:
    """Mean test accuracy that a rule loses in held-out settings against a decay that is tuned in each of them, for each
    evaluation seed, every way to tune counted by its share of the resamples."""
    tuned = Tuned.of(own, [REFERENCE, *names])
    best, carried = tuned.in_place(), tuned.carried(rule)
    picked = best.picked(resampled_counts(len(best.scores)))
    return (best.values - carried.values) @ (np.bincount(picked, minlength=len(tuned.ways)) / len(picked))


def best_doses(own: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The best decay of each setting by its mean validation accuracy: setting, decay, and low and high, between which
    lie 95% of what resamples of the tuning seeds would choose."""
    rows = []
    for name in names:
        scores = scores_of(own[own["setting"] == name], "validation accuracy")
        doses = np.array([decay + l2 for _, decay, l2 in scores.columns])
        chosen = doses[picks(scores, resampled_counts(len(scores)))]
        best = doses[picks(scores, np.ones((1, len(scores))))[0]]
        low, high = np.quantile(chosen, [0.025, 0.975], method="nearest")
        rows.append({"setting": name, "decay": best, "low": low, "high": high})
    return pd.DataFrame(rows)
