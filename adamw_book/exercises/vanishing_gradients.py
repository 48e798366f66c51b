"""The exercises of the chapter on vanishing gradients."""

from __future__ import annotations

from collections.abc import Callable

from .. import dynamics
from ..scenarios.vanishing_gradients import tasks
from ..scenarios.vanishing_gradients.study import STUDY
from . import exercise
from .answers import ask, called, near, number, one_of
from .near_ties import check_winners


@exercise
def silent_share(silent_share: Callable[[float, float, int], float]) -> str:
    """A function of η, λ and the steps of a cosine schedule: the share that is left of a silent weight."""
    for lr, decay, steps in ((0.01, 0.3, 400), (0.003, 0.1, 400), (0.01, 1.0, 1000)):
        right = dynamics.remaining(lr, decay, steps, "cosine")[-1]
        slips = {
            (1 - lr * decay) ** steps: "That is a constant rate. What is the mean of a cosine?",
            1 - right: "That is the share that is taken.",
        }
        near(called(silent_share, lr, decay, steps, name="silent_share"), right, "silent_share", 0.03, slips)
    return "The cosine halves the sum of the learning rates."


@exercise
def near_tie(gains: object, survives: bool) -> str:
    """The pairs of near-tied winners: AdamW's change of accuracy at switch-on minus that of Adam + L2, in points."""
    [claim] = [claim for claim in STUDY.claims if claim.metric == tasks.SWITCHED_ON]
    return check_winners(claim, "AdamW", "Adam + L2", gains, survives, rule="accuracy")


@exercise
def through_time(factor: float) -> str:
    """What a recurrent matrix that is a fifth smaller makes of the first step's gradient, relative to the last's."""
    value = number(factor, "factor")
    ask(
        not 0.7 < value < 0.9,
        "That is one step back. How many does the gradient take from the last input to the first?",
    )
    ask(value < 1, "A smaller matrix shrinks what is sent back through it.")
    ask(0.8**23 / 10 < value < 0.1, f"A factor of {value:.2g} is not what 23 steps back, each about 0.8, amount to.")
    return "Each step back costs another factor of about 0.8."


@exercise
def start_small(accuracy_change: float, needed: str) -> str:
    """What zeroing the silent weights changes on ordinary test images, and which penalty is needed besides."""
    value = number(accuracy_change, "accuracy_change")
    ask(value == 0, "The silent pixels are zero on ordinary test images too: are only their columns set to zero?")
    choices = ("AdamW", "Adam + L2", "both", "neither")
    ask(one_of(needed, choices, "needed") == "neither", "Which steps does plain Adam take where there is no gradient?")
    return "Plain Adam never moves what no gradient reaches."
