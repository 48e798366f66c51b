"""The exercises of the chapter on covariate shift."""

from __future__ import annotations

import numpy as np

from ..scenarios.covariate_shift import theory
from ..scenarios.covariate_shift.study import STUDY
from . import exercise
from .answers import ask, named, near, number, numbers, shares
from .near_ties import check_winners

CORE, BIT = 0.9, 0.95  # how often the core and the bit agree with the label


@exercise
def noisy_core(bit_weights: list[float], accuracy: dict[str, float]) -> str:
    """Least squares' weights of core and bit, and its accuracy before and after the flip."""
    core, bit = numbers(bit_weights, "bit_weights", 2)
    q, a = 2 * CORE - 1, 2 * BIT - 1
    right = np.linalg.solve([[1, q * a], [q * a, 1]], [q, a])
    slips = {q: "The two inputs agree with each other, too: least squares shares out what they have in common."}
    near(core, right[0], "bit_weights[0]", 0.02, slips)
    near(bit, right[1], "bit_weights[1]", 0.02)
    given = shares(accuracy, ("before", "after"), "accuracy")
    for name, agreement in (("before", BIT), ("after", 1 - BIT)):
        t = theory.conditional(CORE, agreement)
        says = right[0] * (2 * t["core"] - 1) + right[1] * (2 * t["bit"] - 1) > 0
        expected = (t["p"] * np.where(says, t["p_y"], 1 - t["p_y"])).sum()
        near(given[name], expected, f"accuracy[{name!r}]", 0.01)
    return "The bit has the larger weight, and wins wherever the two disagree."


@exercise
def box(box_decay: float) -> str:
    """The λ of AdamW at which no weight can outgrow 0.2."""
    slips = {0.2: "That is the wall. Where does a weight rest on which the gradient always pushes the same way?"}
    near(number(box_decay, "box_decay"), 1 / 0.2, "box_decay", 0.01, slips)
    return "A weight on which every gradient pushes the same way rests at 1/λ."


@exercise
def small_bit(cost: dict[str, float]) -> str:
    """What λ = 0.6 costs in accuracy after the flip, in points, with a bit of 0 or 1 and with one of 0 or 0.2."""
    given = named(cost, ("0 or 1", "0 or 0.2"), "cost")
    ask(max(map(abs, given.values())) > 1, "`cost` is to be in percentage points: λ = 0 minus λ = 0.6.")
    ask(given["0 or 1"] > 0, "With the bit of 0 or 1 decay hurts after the flip. Which is subtracted from which?")
    ask(
        given["0 or 0.2"] < given["0 or 1"], "The smaller bit needs a larger weight. Is it smaller in all three splits?"
    )
    return "The size of an input that nobody meant to matter decides how much the model leans on it."


@exercise
def near_tie(gains: object, survives: bool) -> str:
    """The pairs of near-tied winners under the rotation, AdamW − (Adam + L2) in percentage points."""
    [claim] = [claim for claim in STUDY.claims if claim.primary.startswith("rotation")]
    name, network = claim.primary.split(" · ", 1)
    tested = {"condition": f"digits · {network}", "metric": f"{name} accuracy"}
    return check_winners(claim, "AdamW", "Adam + L2", gains, survives, **tested)
