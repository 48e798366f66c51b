"""A claim, written down before the run, and the verdict that its effects amount to."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from .comparison import Effect
from .maps import surviving
from .tables import some

OUTCOMES = ("supported", "no effect that matters", "opposite", "undecided", "arithmetic")
MIN_SEEDS = 6
CLOSE = 0.25  # of the interval's width: a verdict decided by less is a close one


@dataclass(frozen=True)
class Claim:
    """One testable claim, written down before the run.

    id: "chapter.name", for instance "overfitting.depth"; the name of its record. tag: the number that the source gives
    it, or None. statement: the testable form. source: what the source claims, in one sentence. criterion: what counts
    as support. metric: what is measured. smallest_effect: the smallest improvement that would matter, in the metric's
    unit (accuracies are fractions: half a percentage point is 0.005). primary: the one regime that decides the claim,
    the comparator that the source names in the most ordinary setting; all others are its map. dividing: what divides
    the map where part of it supports the claim and part says the opposite, in words that follow "depends on".
    arithmetic: whether a formula is checked, with nothing to estimate.

    Raises ValueError for a malformed id or tag, an empty text or a smallest_effect that is not positive and finite.
    """

    id: str
    tag: str | None
    statement: str
    source: str
    criterion: str
    metric: str
    smallest_effect: float
    primary: str
    dividing: str = ""
    arithmetic: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", self.id):
            raise ValueError(f"id is {self.id!r}; expected 'chapter.name' in lower case, digits and underscores")
        if self.tag is not None and not re.fullmatch(r"\d+", self.tag):
            raise ValueError(f"tag of claim {self.id} is {self.tag!r}; expected a string of digits, or None")
        for field in ("statement", "source", "criterion", "metric", "primary"):
            if not getattr(self, field).strip():
                raise ValueError(f"{field} of claim {self.id} is empty; expected a text")
        if not (math.isfinite(self.smallest_effect) and self.smallest_effect > 0):
            raise ValueError(f"smallest_effect of claim {self.id} is {self.smallest_effect}; expected a number above 0")


def decide(effect: Effect, claim: Claim) -> str:
    """The outcome of one regime, symmetric in sign.

    "supported": the interval lies above 0 and the mean reaches the smallest effect that would matter. "opposite": below
    0, and the mean reaches it on that side. "no effect that matters": the whole interval is smaller than that effect.
    "arithmetic": the claim is a formula. Otherwise "undecided"; so are fewer than six seeds (`MIN_SEEDS`), and what
    would be supported where tuning gave one of the arms no decay, for that compares no two decays.
    """
    if claim.arithmetic:
        return "arithmetic"
    least = claim.smallest_effect
    if effect.n < MIN_SEEDS:
        return "undecided"
    if effect.low > 0 and effect.mean >= least:
        return "undecided" if effect.undecayed else "supported"
    if effect.high < 0 and effect.mean <= -least:
        return "opposite"
    return "no effect that matters" if -least < effect.low and effect.high < least else "undecided"


def close_call(effect: Effect, claim: Claim) -> tuple[str, dict[str, float]] | None:
    """What `decide` would say if the effect were a little different: the nearest other outcome, and which of its
    "lower end", "upper end" and "mean" would have to move by how much (in the metric's unit; negative is down).

    None where one of them would have to move by a quarter of the interval's width (`CLOSE`) or more, for a formula, and
    for fewer than six seeds. A run with other seeds, or on a processor that rounds otherwise, may turn a close call.
    """
    now, least = decide(effect, claim), claim.smallest_effect
    if now == "arithmetic" or effect.n < MIN_SEEDS:
        return None
    conditions = {  # each outcome's: a part of the effect, the direction that favours it, by how much it holds
        "supported": [("lower end", 1, effect.low), ("mean", 1, effect.mean - least)],
        "opposite": [("upper end", -1, -effect.high), ("mean", -1, -effect.mean - least)],
        "no effect that matters": [("lower end", 1, effect.low + least), ("upper end", -1, least - effect.high)],
    }
    if now in conditions:
        part, favours, by = min(conditions[now], key=lambda condition: condition[2])
        nearest, moves = "undecided", {part: -favours * by}
    else:
        if effect.undecayed:  # compares no two decays, and cannot be supported
            del conditions["supported"]
        needed = {
            outcome: {part: -favours * by for part, favours, by in own if by <= 0}
            for outcome, own in conditions.items()
        }
        nearest, moves = min(needed.items(), key=lambda item: max(map(abs, item[1].values())))
    return (nearest, moves) if max(map(abs, moves.values())) < CLOSE * (effect.high - effect.low) else None


def judgements(claim: Claim, effects: Mapping[str, Effect]) -> dict[str, str]:
    """Each regime's outcome; that of the primary regime is the verdict."""
    return {regime: decide(effect, claim) for regime, effect in effects.items()}


def comparable(claim: Claim, effects: Mapping[str, Effect]) -> dict[str, Effect]:
    """The regimes that put the claim's own question: those with the control of its primary regime. Against another
    control it is another question, and says nothing for or against the claim."""
    control = effects[claim.primary].control
    return {regime: effect for regime, effect in effects.items() if effect.control == control}


def divided(claim: Claim, effects: Mapping[str, Effect]) -> bool:
    """Whether the map holds both a supported and an opposite regime once their number is counted (`surviving`), of
    those that are `comparable`."""
    return {"supported", "opposite"} <= {decide(effects[one], claim) for one in surviving(comparable(claim, effects))}


def verdict(claim: Claim, effects: Mapping[str, Effect]) -> str:
    """The claim's verdict: the outcome of its primary regime. Raises ValueError where that is missing, and for an
    effect in another metric than the claim's, since `smallest_effect` has no meaning there."""
    for regime, effect in effects.items():
        if effect.metric != claim.metric:
            raise ValueError(
                f"regime {regime!r} measures {effect.metric!r}; claim {claim.id} is about {claim.metric!r}"
            )
    if claim.primary not in effects:
        raise ValueError(
            f"effects lack the primary regime {claim.primary!r} of claim {claim.id}; they have {some(effects)}"
        )
    return decide(effects[claim.primary], claim)
