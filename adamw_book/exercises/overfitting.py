"""The exercises of the chapter on overfitting."""

from __future__ import annotations

import torch
from scipy.optimize import brentq

from ..scenarios.overfitting import pull
from ..scenarios.overfitting.study import GENERALIZATION
from ..scenarios.overfitting.tasks import DIGITS
from . import exercise
from .answers import ask, near, number, one_of, shares
from .near_ties import check_winners


@exercise
def equal_strength(l2: float) -> str:
    """The ℓ whose pull on the CNN's median weight is that of λ = 0.3, over 200 steps at η = 10⁻³."""
    task = DIGITS["CNN · 20% wrong labels"].task
    _, gradients = pull.record_gradients(task, seeds=[0], steps=200, lr=1e-3)
    size = torch.cat([g.square().mean(0).sqrt().flatten() for g in gradients.values()]).median().item()
    slips = {
        0.3 / size: "Solve for ℓ once more: does the pull of Adam + L2 grow or shrink with the gradient?",
        0.3 * size**2: "The denominator is the *root* mean square gradient.",
        size: "That is the gradient size; by which coefficient is it multiplied?",
    }
    near(number(l2, "l2"), 0.3 * size, "l2", 0.1, slips)
    return "The factor between the two coefficients is the gradient size."


@exercise
def memory(turn: float) -> str:
    """Steps after the silence until Adam + L2 pulls harder on the silenced weights than on the steady ones."""
    right = brentq(lambda after: pull.silenced_formula(30, after), 1000, 30_000)
    near(number(turn, "turn"), right, "turn", 0.05)
    return "The share taken adds up over all the time since the silence, so the balance turns later than √v̂ itself."


@exercise
def addition(last: dict[str, float], decides: str) -> str:
    """Test accuracy of the three arms after 1,500 steps, and whether decay decides or its kind."""
    given = shares(last, ("Adam", "Adam + L2", "AdamW"), "last")
    ask(
        given["Adam"] < 0.5 < min(given["Adam + L2"], given["AdamW"]),
        "These are not the accuracies on sums that were never shown, at the last step, averaged over seeds.",
    )
    ask(one_of(decides, ("decay", "its kind"), "decides") == "decay", "Which arms stand together at the end?")
    return "Decay decides whether the rule is found, and its kind only when."


@exercise
def near_tie(gains: object, survives: bool) -> str:
    """The pairs of near-tied winners, AdamW − (Adam + L2) in percentage points."""
    return check_winners(GENERALIZATION, "AdamW", "Adam + L2", gains, survives)
