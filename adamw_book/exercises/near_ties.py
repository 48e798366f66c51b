"""Take another near-tied winner: does the verdict survive? The exercise that every chapter with a tuned claim has."""

from __future__ import annotations

import numpy as np

from .. import ledger
from ..evidence import Claim
from ..ledger import Record
from .answers import ask, numbers, truth

MEANS = {
    "supported": "every pair lies above zero",
    "opposite": "every pair lies below zero",
    "no effect that matters": "every pair lies within the smallest effect that would matter",
    "undecided": "the pairs do not all say the same (enough for the one, enough for the other, or neither)",
}


def pair_gains(
    record: Record, treatment: str, control: str, rule: str | None = None, condition: str = "", metric: str = ""
) -> np.ndarray:
    """What `treatment` is ahead of `control`, for each pair of near-tied winners, by their means over the evaluation
    seeds, in the metric's unit; (candidates of the one, of the other).

    rule: the rule of choice whose candidates count; None: all that were evaluated. condition, metric: those that decide
    the claim where "".
    """
    condition = condition or record.claim.primary
    tested = record.tables["evaluation"].query("condition == @condition")
    tested = tested[tested["metric"] == (metric or record.claim.metric)]
    settings = [c for c in ("arm", "lr", "weight_decay", "l2", "pull", "toward") if c in tested]
    if rule is not None:
        tied = record.tables["candidates"].query("condition == @condition and rule == @rule")
        tested = tested.merge(tied[settings])
    means = tested.groupby(settings, sort=False, dropna=False)["value"].mean()
    return np.subtract.outer(means[treatment].to_numpy(), means[control].to_numpy())


def survives(verdict: str, gains: np.ndarray, smallest_effect: float) -> bool:
    """Whether each pair alone says what the verdict says (`MEANS`)."""
    if verdict == "supported":
        return bool((gains > 0).all())
    if verdict == "opposite":
        return bool((gains < 0).all())
    within = bool((abs(gains) < smallest_effect).all())
    if verdict == "no effect that matters":
        return within
    return not (within or (gains >= smallest_effect).all() or (gains <= -smallest_effect).all())


def check_pairs(
    gains: object, answer: object, right: np.ndarray, verdict: str, smallest_effect: float, unit: str = "points"
) -> str:
    """Hold a reader's gains, a number for each pair in any order, and the True or False drawn from them against the
    right ones (all in the same unit); returns what is to be said of a right answer."""
    given, right = np.sort(numbers(gains, "gains")), np.sort(right.ravel())
    ask(
        len(given) == len(right),
        f"`gains` holds {len(given)} numbers. Each candidate of the one arm makes a pair with each of the other.",
    )
    reach = abs(right).max()
    ask(abs(given).max() > reach / 20 or unit != "points", "`gains` are to be in percentage points, not in fractions.")
    close = 0.01 * reach
    ask(
        not (abs(given + right[::-1]) < close).all() or (abs(given - right) < close).all(),
        "`gains` has the right sizes and the wrong sign: who is subtracted from whom?",
    )
    off = int((abs(given - right) >= close).sum())
    ask(
        not off,
        f"{off} of the {len(right)} `gains` differ from the record's. Is each a mean over the evaluation seeds?",
    )
    ask(
        truth(answer, "survives") == survives(verdict, right, smallest_effect),
        f"The gains are right. The verdict is *{verdict}*; it survives if {MEANS[verdict]}.",
    )
    return f"{len(right)} pairs, from {right[0]:+.2g} to {right[-1]:+.2g} {unit}; the verdict is *{verdict}*."


def check_winners(
    claim: Claim, treatment: str, control: str, gains: object, answer: object, scale: float = 100, unit: str = "points",
    **tested: str,
) -> str:  # fmt: skip
    """`check_pairs` of a claim's record. scale: by what a gain in the metric's unit becomes one in `unit`, negative
    where lower is better. tested: further arguments of `pair_gains`."""
    record = ledger.read(claim.id)
    right = scale * pair_gains(record, treatment, control, **tested)
    return check_pairs(gains, answer, right, record.verdict, abs(scale) * claim.smallest_effect, unit)
