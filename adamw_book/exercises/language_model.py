"""The exercises of the chapter on the language model."""

from __future__ import annotations

import math

from .. import dynamics
from ..scenarios.language_model.study import NEXT_BYTE
from . import exercise
from .answers import ask, named, near, number, share
from .near_ties import check_winners

CHANGES = ("pre-norm, all writers", "pre-norm, one writer", "post-norm, all writers")


@exercise
def unused_token(row_left: float) -> str:
    """What is left of an unused token's row after 100,000 steps of warm-up and cosine, η = 3·10⁻⁴ and λ = 0.1."""
    right = dynamics.remaining(3e-4, 0.1, 100_000, "warm-up + cosine")[-1]
    slips = {
        math.exp(-3): "That is a constant rate. What is the mean of the schedule?",
        1 - right: "That is what is taken.",
    }
    near(share(row_left, "row_left"), right, "row_left", 0.02, slips)
    return "The schedule's mean is one half."


@exercise
def writers(logit_change: dict[str, float]) -> str:
    """The relative change of the logits when writers to the stream are doubled, in three cases."""
    all_pre, one_pre, all_post = named(logit_change, CHANGES, "logit_change").values()
    ask(min(one_pre, all_post) > 0.01, "One writer alone, or all in a post-norm model, should change the logits.")
    ask(
        all_pre < 0.01,
        "In a pre-norm model everything that is read from the stream is normalised. Are all writers doubled?",
    )
    return "A pre-norm model cannot see the scale of its whole stream, only that of its parts to each other."


@exercise
def near_tie(gains: object, survives: bool) -> str:
    """The pairs of near-tied winners: bits a byte that AdamW saves against Adam + L2."""
    return check_winners(
        NEXT_BYTE, "AdamW", "Adam + L2", gains, survives, scale=-1, unit="bits", metric="test bits per byte"
    )


@exercise
def tied_rows(row_cosine: float) -> str:
    """The cosine of an unused row's gradient with the mean of what the read-out sees."""
    value = number(row_cosine, "row_cosine")
    ask(abs(value) <= 1.0001, f"`row_cosine` = {value:g} is no cosine.")
    ask(
        value > 0,
        "The gradient is a mean of p(row) · h with p > 0. Is it the gradient, or the step, which goes against it?",
    )
    ask(value > 0.9, "At the start p hardly differs between places, so the two should nearly agree.")
    return "The row is pushed away from the mean input, as one with all other unused rows."
