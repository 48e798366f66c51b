"""The exercises of the chapter on quantisation."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import torch

from ..ensemble import Result as Trained
from ..scenarios.quantization import tasks
from ..scenarios.quantization.quantisers import Scheme
from ..scenarios.quantization.study import PRECISION, PROTOCOL
from . import exercise
from .answers import ask, near, number, shares
from .near_ties import check_winners

SCHEMES = {"16 bits": Scheme(16), "4 bits": Scheme(4), "4 bits, a range each channel": Scheme(4, per_channel=True)}


def _accuracy(trained: Trained, split: str, scheme: Scheme, rows: torch.Tensor) -> float:
    accuracies = tasks.quantised_accuracy(PROTOCOL[tasks.PRIMARY].task, trained, split, scheme)
    return accuracies[rows].mean().item()


@exercise
def more_bits(more_bits: float) -> str:
    """How many bits more a largest weight of four times the size costs."""
    value = number(more_bits, "more_bits")
    ask(value > 0, "A larger largest weight makes the step larger, and a larger step needs more bits to mend.")
    slips = {4.0: "By 4 the *step* has to shrink. How many times does one more bit halve it?"}
    near(value, math.log2(4), "more_bits", slips=slips)
    return "Each bit halves the step, and the step has to be quartered."


@exercise
def rescue(accuracy: dict[str, float], trained: Trained, runs: pd.DataFrame) -> str:
    """The test accuracy of AdamW's CNNs after one weight each of the second convolution was multiplied by 8."""
    given = shares(accuracy, SCHEMES, "accuracy")
    hurt = trained.parameters["conv2.weight"].clone()
    flat = hurt.flatten(1)
    flat[torch.arange(len(flat)), flat.abs().argmax(1)] *= 8
    hurt = replace(trained, parameters=dict(trained.parameters) | {"conv2.weight": hurt})
    adamw = torch.tensor((runs["arm"] == "AdamW").to_numpy())
    for name, scheme in SCHEMES.items():
        right = _accuracy(hurt, "test", scheme, adamw)
        ask(
            abs(given[name] - right) < 0.01,
            f"At {name} something else comes out. Is the largest weight of each replica multiplied, in a copy, and the "
            "mean taken over AdamW's rows?",
        )
    return "The damage of one outlier stays in its channel if the channel has a range of its own."


@exercise
def best_share(best_share: dict[str, float], trained: Trained, runs: pd.DataFrame) -> str:
    """The share of the weights that a 3-bit range should hold, chosen on validation data for each arm."""
    given = shares(best_share, ("Adam", "AdamW"), "best_share")
    for arm, share in given.items():
        ask(
            share > 0.5,
            f"A range that holds {share:.0%} of {arm}'s weights clips most of them. Try shares from 0.9 up.",
        )
        rows = torch.tensor((runs["arm"] == arm).to_numpy())
        scores = {
            s: _accuracy(trained, "validation", Scheme(3, held=s), rows) for s in (0.9, 0.95, 0.98, 0.99, 0.995, 1.0)
        }
        own = _accuracy(trained, "validation", Scheme(3, held=share), rows)
        ask(own > max(scores.values()) - 0.005, f"For {arm} another share does better on validation data.")
    return "Validation data choose it after training, without a gradient."


@exercise
def near_tie(gains: object, survives: bool) -> str:
    """The pairs of near-tied winners at 4 bits, AdamW − Adam in percentage points."""
    return check_winners(PRECISION, "AdamW", "Adam", gains, survives, rule="accuracy")
