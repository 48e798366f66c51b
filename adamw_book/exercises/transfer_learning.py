"""The exercises of the chapter on transfer learning."""

from __future__ import annotations

import math

import torch

from ..arms import TO_START
from ..scenarios.transfer_learning import shock
from ..scenarios.transfer_learning.study import TARGET
from . import exercise
from .answers import ask, near, number, numbers
from .near_ties import check_winners


@exercise
def warmup_needed(warmup_steps: float, warmup_decay: float) -> str:
    """Steps of warm-up that leave 70% of a weight at η = 2·10⁻⁵ and λ = 0.01, and the λ that does it in 500."""
    right = -2 * math.log(0.7) / (2e-5 * 0.01)
    slips = {
        right / 2: "The rate grows from zero: its mean over the warm-up is half the peak.",
        -2 * math.log(0.3) / (2e-5 * 0.01): "That takes 70% away; asked is what leaves it.",
    }
    near(number(warmup_steps, "warmup_steps"), right, "warmup_steps", 0.02, slips)
    near(number(warmup_decay, "warmup_decay"), shock.decay_for(0.7, 2e-5, 500), "warmup_decay", 0.02)
    return "Millions of steps, or a decay some thousands of times the usual one."


@exercise
def start_loss(limit: float) -> str:
    """The loss of an MLP without normalisation as its body is shrunk to nothing."""
    slips = {0.0: "That would be a perfect guess.", 0.1: "That is the chance to be right. What is its cross-entropy?"}
    near(number(limit, "limit"), math.log(10), "limit", 0.002, slips)
    return "The loss of knowing nothing: a lower loss before the first step is not a better start."


@exercise
def two_equal(by_delta: object, by_theta: object) -> str:
    """θ after five steps: AdamW on δ = θ − θ₀ with decay toward zero, and on θ with decay toward θ₀."""
    one, two = (numbers(torch.as_tensor(a).detach(), n, 2) for a, n in ((by_delta, "by_delta"), (by_theta, "by_theta")))
    ask(
        abs(one - two).max() < 1e-6,
        f"The two are {abs(one - two).max():.2g} apart. Does the decay act before the step?",
    )
    start = torch.tensor([3.0, -2.0], dtype=torch.double)
    delta = torch.zeros(2, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.AdamW([delta], lr=0.1, weight_decay=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        (start + delta - 1).square().sum().backward()
        optimizer.step()
    right = (start + delta).detach().numpy()
    ask(
        abs(one - right).max() < 1e-4, "They are equal, but not after five steps from (3, −2) with η = 0.1 and λ = 0.5."
    )
    return "The gradients are the same, so the moments are; only what the decay multiplies differs."


@exercise
def near_tie(gains: object, survives: bool) -> str:
    """The pairs of near-tied winners: AdamW with decay toward the start − AdamW in percentage points."""
    return check_winners(TARGET, TO_START.name, "AdamW", gains, survives)
