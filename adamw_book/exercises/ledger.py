"""The exercises of the conclusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .. import overview
from ..evidence import decide
from ..ledger import Record, read_all
from . import exercise
from .answers import ask, named, near, number, share
from .near_ties import pair_gains


def tied_pairs(record: Record) -> np.ndarray | None:
    """`pair_gains` of the comparison that decides a claim; None where the record has no such pairs."""
    tested = record.tables.get("evaluation")
    arms = [arm.strip("()") for arm in record.effects[record.claim.primary].contrast.split(" − ")]
    if tested is None or record.claim.metric not in set(
        tested.loc[tested["condition"] == record.claim.primary, "metric"]
    ):
        return None
    candidates = record.tables["candidates"]
    rule = candidates.loc[candidates["condition"] == record.claim.primary, "rule"].iloc[0]  # the first decides claims
    return pair_gains(record, *arms, rule=rule) if set(arms) <= set(tested["arm"]) else None


def _counts(given: object, right: dict, name: str) -> None:
    for key, value in named(given, right, name).items():
        ask(value == round(value), f"`{name}[{key!r}]` counts claims: a whole number.")
        off = value - right[key]
        ask(not off, f"`{name}[{key!r}]` = {value:g} is too {'large' if off > 0 else 'small'}.")


@exercise
def other_delta(changed: dict[float, int]) -> str:
    """How many outcomes change when every smallest effect that would matter is halved, and when it is doubled."""
    right = {}
    for factor in (0.5, 2):
        claims = [(r, replace(r.claim, smallest_effect=factor * r.claim.smallest_effect)) for r in read_all()]
        right[factor] = sum(decide(r.effects[claim.primary], claim) != r.verdict for r, claim in claims)
    _counts(changed, right, "changed")
    return "A claim never passes from one sign to the other."


@exercise
def holm_decides(how_many: dict[str, int]) -> str:
    """How many claims with a signed outcome have p of 0.05 or more, uncorrected and after Holm's correction."""
    records = list(read_all())
    corrected = overview.chances(records)
    signed = [r for r in records if r.verdict in ("supported", "opposite")]
    alone = {r.claim.id: r.effects[r.claim.primary].p for r in signed}
    both = {"uncorrected": alone, "after Holm": corrected}
    _counts(how_many, {way: sum(p[name] >= 0.05 for name in alone) for way, p in both.items()}, "how_many")
    return "Effects of many standard errors do not notice how many claims there are; those of two or three may."


@exercise
def by_lot(same_share: float) -> str:
    """The share of regimes, averaged over claims with more than one, whose outcome is the claim's own."""
    right = []
    for r in read_all():
        if len(r.effects) > 1 and not r.claim.arithmetic:
            found = [decide(effect, r.claim) for effect in r.effects.values()]
            right.append(found.count(r.verdict) / len(found))
    near(share(same_share, "same_share"), float(np.mean(right)), "same_share", 0.01)
    return "The further this is from 1, the more hangs on the regime that was named beforehand."


@exercise
def near_tie(pairs_of: dict[str, Sequence[float]], one_sign: int) -> str:
    """The gains of all pairs of near-tied winners, claim by claim, and in how many claims they share one sign."""
    right = {r.claim.id: pairs for r in read_all() if (pairs := tied_pairs(r)) is not None}
    missing = [name for name in right if name not in pairs_of]
    ask(not missing, f"{len(missing)} claims with such pairs are missing, among them {missing[:1]}.")
    kept = sum(bool((pairs > 0).all() or (pairs < 0).all()) for pairs in right.values())
    off = number(one_sign, "one_sign") - kept
    ask(
        not off, f"`one_sign` = {one_sign:g} is too {'large' if off > 0 else 'small'}: do *all* pairs of a claim count?"
    )
    return f"In {kept} of {len(right)} claims no other near-tied winner would have turned the sign."
