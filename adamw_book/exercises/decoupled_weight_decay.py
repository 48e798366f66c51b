"""The exercises of the first chapter."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .. import dynamics, ledger
from ..scenarios import decoupled_weight_decay as scenario
from . import exercise
from .answers import ask, near, number, shares
from .near_ties import check_pairs

FIRST_THREE = {"decay after the step", "no bias correction", "no square root"}


@exercise
def half_life(remains: dict[float, float]) -> str:
    """What is left of a weight without a gradient after 100,000 steps of a cosine from η = 3·10⁻⁴, for two λ."""
    for decay, value in shares(remains, (0.1, 0.01), "remains").items():
        right = dynamics.remaining(3e-4, decay, 100_000, "cosine")[-1]
        slips = {np.exp(-30 * decay): "That is a constant rate. What does the cosine do to the sum of the rates?"}
        slips[1 - right] = "That is the share that is taken."
        near(value, right, f"remains[{decay}]", 0.02, slips)
    return "The cosine halves the sum of the rates."


@exercise
def crossing(crossing: float) -> str:
    """The gradient size at which ℓ = 10⁻² and λ = 0.1 hold a noise coordinate equally tightly."""
    slips = {10.0: "That is λ/ℓ: set the two widths equal once more.", 1e-3: "That is ℓλ."}
    near(number(crossing, "crossing"), 0.1, "crossing", 0.02, slips)
    return "The two widths are equal where σ = ℓ/λ."


@exercise
def slips(seen: set[str]) -> str:
    """The slips that lead away from the right update by more than 10⁻⁴ when gradients are near 1."""
    ask(isinstance(seen, set | list | tuple), f"`seen` is to be a set of names, not {type(seen).__name__}.")
    named = {name for name in seen if isinstance(name, str)}
    ask(not named - FIRST_THREE, "One of these vanishes near 1: what are ε and ℓ beside gradients of that size?")
    ask(named >= FIRST_THREE, f"{len(FIRST_THREE - named)} more lead away at any gradient size.")
    return "The others all but vanish near 1, so a test with kind gradients lets them through."


@exercise
def order(lr_factor: float, decay_factor: float) -> str:
    """By which factors η and λ change when decay comes after the step, for η = 0.01 and λ = 0.3."""
    k = 1 - 0.01 * 0.3
    near(number(lr_factor, "lr_factor"), k, "lr_factor", 1e-4, {1 / k: "The step is shrunk, too: by what?"})
    near(number(decay_factor, "decay_factor"), 1 / k, "decay_factor", 1e-4, {k: "The share ηλ has to stay as it is."})
    return "η(1 − ηλ) and λ/(1 − ηλ)."


@exercise
def near_tie(gains: object, survives: bool) -> str:
    """AdamW − (Adam + L2) under transfer on the plain MLP in percentage points, with the best decays and the second."""
    claim = next(claim for claim in scenario.PROTOCOL.claims if not claim.arithmetic)
    record = ledger.read(claim.id)
    both = pd.concat([record.tables["map"], record.tables["transfer"]])
    change = {}
    for arm in ("AdamW", "Adam + L2"):
        own = both[(both["condition"] == "MLP") & (both["arm"] == arm)]
        kept = own.pivot_table("value", ["metric", "seed"], ["lr", "decay"])
        scores, test = kept.loc["validation accuracy"].mean().unstack("lr"), kept.loc["test accuracy"].mean()
        for place in (0, 1):
            chosen = {lr: scores[lr].nlargest(2).index[place] for lr in scores}
            change[arm, place] = np.mean(
                [
                    test[lr, other] - test[lr, mine]
                    for lr, mine in chosen.items()
                    for at, other in chosen.items()
                    if at != lr
                ]
            )
    right = 100 * np.array([change["AdamW", place] - change["Adam + L2", place] for place in (0, 1)])
    return check_pairs(gains, survives, right, record.verdict, 0.0)  # undecided: on both sides of zero
