"""The exercises of the chapter on adversarial robustness."""

from __future__ import annotations

from torch import Tensor

from ..scenarios.adversarial_robustness import closed_form
from ..scenarios.adversarial_robustness.study import WITHSTANDS
from . import exercise
from .answers import ask, near, number, shares
from .near_ties import check_winners


@exercise
def smallest_attack(smallest: float) -> str:
    """The smallest change of each input that turns the decision of 2x₁ − x₂ + 0.5 at the point (1, 1)."""
    slips = {
        1.5: "That is the margin. By how much does a change of ε in *each* input move the score, at most?",
        1.5 / 5**0.5: "That is the Euclidean distance; here every input may move by ε at once.",
        0.75: "Both inputs may move.",
    }
    near(number(smallest, "smallest"), 1.5 / 3, "smallest", 0.01, slips)
    return "The margin over the sum of the sizes of the weights."


@exercise
def zero_start(robust_share: dict[str, float]) -> str:
    """Robust accuracy of Adam from an ordinary start and from zeros on quiet pixels, and of Adam + L2."""
    given = shares(robust_share, ("Adam", "Adam, zero start", "Adam + L2"), "robust_share")
    ask(given["Adam + L2"] > given["Adam"], "Adam + L2 withstands more than Adam. Are these robust accuracies?")
    closed = (given["Adam, zero start"] - given["Adam"]) / (given["Adam + L2"] - given["Adam"])
    ask(
        closed < 0.5,
        f"You find {closed:.0%} of the gap closed. Is Adam still without decay, and at its own learning rate?",
    )
    return f"The zero start closes {closed:.0%} of the gap: Adam makes these weights large, it does not find them so."


@exercise
def area(area: float, weight: Tensor, bias: Tensor, x: Tensor, y: Tensor) -> str:
    """The area under the curve of the linear classifier's robust accuracy against ε."""
    right = closed_form.linear_radius(weight, bias, x, y).mean().item()
    near(number(area, "area"), right, "area", 0.02, {right * 100: "Is ε in the unit of the pixels, 0 to 1?"})
    return "An example of radius r counts at each ε below r, so it adds r to the area."


@exercise
def near_tie(gains: object, survives: bool) -> str:
    """The pairs of near-tied winners, AdamW − (Adam + L2) in percentage points of robust accuracy."""
    return check_winners(WITHSTANDS, "AdamW", "Adam + L2", gains, survives, rule="accuracy")
