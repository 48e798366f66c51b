"""The exercises of the chapter on class imbalance."""

from __future__ import annotations

from scipy.optimize import brentq

from ..scenarios.class_imbalance import mechanism
from ..scenarios.class_imbalance.study import MINORITY
from . import exercise
from .answers import ask, named, near, number
from .near_ties import check_winners

WAYS = ("as trained", "threshold at the prior", "threshold moved")


@exercise
def silent_minority(bound: float) -> str:
    """The λ from which on no 8 of the validation splits of seeds 200 to 203 can get a positive logit."""
    bounds = [mechanism.recall_bound("digit 8", seed) for seed in range(200, 204)]
    slips = {min(bounds): "Up to this λ every seed has an example that gets there; from which on has *no* seed one?"}
    near(number(bound, "bound"), max(bounds), "bound", 0.02, slips)
    return "The bound lets every pixel's weight sit at +1/λ at once, so it is loose."


@exercise
def where_it_rests(rest_decay: float) -> str:
    """The λ that makes AdamW's boundary rest on the negative example."""
    right = brentq(lambda x: 1 - x * mechanism.weighted_bias(1 / x, 24.0), 0.05, 2.0)
    near(number(rest_decay, "rest_decay"), right, "rest_decay", 0.02)
    return "λ and ω alone decide where it rests; the learning rate only decides how soon."


@exercise
def bring_it_back(lost: dict[str, float]) -> str:
    """The balanced accuracy that λ = 1 loses against λ = 0 on the digits, in points, with each of three thresholds."""
    given = named(lost, WAYS, "lost")
    ask(max(map(abs, given.values())) > 1, "`lost` is to be in percentage points: λ = 0 minus λ = 1.")
    ask(given["as trained"] > 10, "As it was trained the network loses far more. Is it the one without class weights?")
    for way in WAYS[1:]:
        ask(given[way] < given["as trained"] / 2, f"With its {way} the network should have most of it back.")
    return "Most of the loss was a misplaced threshold."


@exercise
def near_tie(gains: object, survives: bool) -> str:
    """The pairs of near-tied winners, AdamW − Adam in percentage points of recall."""
    return check_winners(MINORITY, "AdamW", "Adam", gains, survives, rule="balanced accuracy")
