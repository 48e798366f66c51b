"""The exercises of the field guide."""

from __future__ import annotations

from torch import nn, optim

from ..diagnose import audit, audit_numbers
from . import exercise
from .answers import ask, near, number, share

STEPS, WARMUP = 2000, 100


@exercise
def idle(taken_share: float) -> str:
    """What the default decay takes of the weights in 1,500 steps of a linear schedule from 2·10⁻⁵."""
    right = 1 - audit_numbers(lr=2e-5, weight_decay=0.01, steps=1500, schedule="linear")["remaining"]
    slips = {2 * right: "The schedule is linear: what is its mean?", 1 - right: "That is what is left."}
    near(share(taken_share, "taken_share"), right, "taken_share", 0.02, slips)
    return "Decay is idle here: leave it, or choose one that can matter."


@exercise
def epochs(timescale: float) -> str:
    """The timescale of λ = 0.1 at η = 3·10⁻⁴, in epochs of 1,281,167 images in batches of 1,024."""
    right = 1 / (3e-4 * 0.1) / (1_281_167 / 1024)
    slips = {1 / (3e-4 * 0.1): "That is in steps.", right / 1024: "A step sees a batch of images, not one."}
    near(number(timescale, "timescale"), right, "timescale", 0.02, slips)
    return "A weight forgets its past within these epochs, at the peak rate."


@exercise
def mended(mended_optimizer: optim.Optimizer, model: nn.Module) -> str:
    """An AdamW for the small transformer in which the audit of 2,000 steps of cosine with warm-up finds nothing."""
    ask(
        isinstance(mended_optimizer, optim.Optimizer),
        f"`mended_optimizer` is to be a torch optimizer, not {type(mended_optimizer).__name__}.",
    )
    held = {id(p) for group in mended_optimizer.param_groups for p in group["params"]}
    ask(held == {id(p) for p in model.parameters()}, "The optimizer does not hold each of the model's parameters.")
    ask(any(group["weight_decay"] for group in mended_optimizer.param_groups), "Some parameters are to decay.")
    found = [f.code for f in audit(mended_optimizer, model, steps=STEPS, schedule="cosine", warmup=WARMUP).findings]
    ask(not found, f"The audit still says {', '.join(found)}.")
    return "Matrices decay; gains, biases and the embedding do not."


@exercise
def near_tie(best_regret: float, second_regret: float) -> str:
    """The mean regret, in points, of the best and of the second best of 16 random AdamW pairs."""
    first, other = number(best_regret, "best_regret"), number(second_regret, "second_regret")
    ask(0 < first < 20 and other > 0, "Regret is how far a choice is *below* the best configuration, in points.")
    ask(first > 0.05, "These are fractions: give percentage points.")
    ask(other > first, "The second best of the same draws should regret more, on the mean.")
    return f"{other - first:.2f} points more: that much hangs on which of two near-tied winners a seed puts first."
