"""The exercises of the chapter on federated learning."""

from __future__ import annotations

from scipy.optimize import brentq

from ..scenarios.federated_learning import rounds
from ..scenarios.federated_learning.study import CONSENSUS
from . import exercise
from .answers import ask, named, near, number, numbers, share, shares, truth
from .near_ties import check_winners

GRADIENTS = ((1.0, -0.1, 2.0), (-0.2, -0.3, 2.0))
PULLS = ("FedProx", "decay to global")


@exercise
def half(half_decay: float, kept: float) -> str:
    """The λ that halves two clients' distance within five steps at η = 0.01, and what it leaves of the common model."""
    right = brentq(lambda decay: rounds.damping(0.01, decay, 5) - 0.5, 1.0, 99.0)
    near(number(half_decay, "half_decay"), right, "half_decay", 0.02)
    near(share(kept, "kept"), (1 - 0.01 * right) ** 5, "kept", 0.03)
    return "To halve a disagreement, gravity toward the origin has to take nearly all of the model."


@exercise
def one_step(mean_step: list[float], pooled: bool) -> str:
    """The mean of two clients' first steps of AdamW without decay, and whether the pooled gradient makes the same."""
    right = [sum(-0.01 * ((g > 0) - (g < 0)) for g in column) / 2 for column in zip(*GRADIENTS, strict=True)]
    for i, (value, expected) in enumerate(zip(numbers(mean_step, "mean_step", 3), right, strict=True)):
        ask(
            abs(value - expected) < 1e-4,
            f"`mean_step[{i}]` = {value:g}. What does Adam's first step know of a gradient's size?",
        )
    ask(not truth(pooled, "pooled"), "Where the clients' signs differ, which sign has the mean of their gradients?")
    return "The average of first steps is a vote: clients that disagree in sign cancel out."


@exercise
def prox(after_one: dict[str, float], after_five: dict[str, float]) -> str:
    """The clients' drift under the two pulls, relative to plain Adam's, after one local step and after five."""
    first, last = named(after_one, PULLS, "after_one"), named(after_five, PULLS, "after_five")
    for name in PULLS:
        near(first[name], 1.0, f"after_one[{name!r}]", 0.001)
        ask(
            0 < last[name] < 1,
            f"After five steps {name} should have held the clients together, relative to plain Adam.",
        )
    return "At the start of a round θ is the common model, and both pulls are zero."


@exercise
def average(shares_right: dict[str, float]) -> str:
    """Test accuracy of the clients' own models and of their average, where a fifth of the labels is wrong."""
    given = shares(shares_right, ("client", "average"), "shares_right")
    ask(given["average"] > given["client"] + 0.03, "Averaging should do more. Is it on test images, without decay?")
    ask(given["average"] < 0.999, "No network here gets all test images right: are these the training images?")
    return "The mean of ten models keeps little of what each has learned by heart."


@exercise
def near_tie(gains: object, survives: bool) -> str:
    """The pairs of near-tied winners, AdamW − Adam in percentage points."""
    return check_winners(CONSENSUS, "AdamW", "Adam", gains, survives)
