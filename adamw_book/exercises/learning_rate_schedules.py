"""The exercises of the chapter on learning-rate schedules."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from .. import dynamics, ledger
from ..scenarios.learning_rate_schedules import rules, settings
from ..scenarios.learning_rate_schedules.study import DATA, RULE
from . import exercise
from .answers import ask, called, named, near, number, shares
from .near_ties import check_pairs

NORMALISED = "MLP, LayerNorm"
WAYS = {"constant": ("constant", "torch"), "cosine": ("cosine", "torch"), "cosine, AdamC": ("cosine", "AdamC")}


@exercise
def left(remains: dict[str, float], adamc_decay: float) -> str:
    """What is left of a weight without a gradient after 20,000 steps of η = 10⁻³ and λ = 0.1, and AdamC's λ for it."""
    given = shares(remains, WAYS, "remains")
    right = {name: dynamics.remaining(1e-3, 0.1, 20_000, s, 0.0, form)[-1] for name, (s, form) in WAYS.items()}
    for name, value in given.items():
        slips = {1 - right[name]: f"That is the share that decay *takes* ({name}); asked is what it leaves."}
        near(value, right[name], f"remains[{name!r}]", 0.02, slips)
    ask(number(adamc_decay, "adamc_decay") > 0.1, "AdamC takes less than torch's form at the same λ, so it needs more.")
    near(
        number(adamc_decay, "adamc_decay"),
        0.1 * np.log(right["cosine"]) / np.log(right["cosine, AdamC"]),
        "adamc_decay",
    )
    return "The mean of the factors is all that counts: 1, 1/2 and, for their squares, 3/8."


@exercise
def warmup(warmup_left: Callable[[float, float, int], float]) -> str:
    """A function of η, λ and the steps of a linear warm-up: what this leaves of a weight without a gradient."""
    for lr, decay, steps in ((1e-4, 0.01, 1000), (1e-3, 0.1, 2000), (5e-3, 0.5, 500)):
        right = dynamics.remaining(lr, decay, 10 * steps, "constant", warmup=0.1)[steps]
        value = called(warmup_left, lr, decay, steps, name="warmup_left")
        slips = {np.exp(-lr * decay * steps): "That is what the full rate would leave; the ramp's mean is smaller."}
        near(
            1 - value, 1 - right, f"1 − warmup_left({lr}, {decay}, {steps})", 0.03, {1 - k: v for k, v in slips.items()}
        )
    return "The ramp's mean is one half of the peak; at usual settings the warm-up takes next to nothing."


@exercise
def freeze(factor: float) -> str:
    """The factor by which the distance from the freezing of the floor to the end changes with four times the λ."""
    slips = {
        0.25: "The rates that are left fall toward zero, so their *sum* grows with the square of the distance.",
        2.0: "More decay keeps the floor in balance for longer.",
    }
    near(number(factor, "factor"), 0.5, "factor", 0.02, slips)
    return "The rates that are left sum to η(T − t)²/2T, so the distance goes with 1/√λ."


@exercise
def near_tie(gains: object, survives: bool) -> str:
    """The gain of the timescale rule over keeping λ, in percentage points, from the dose that was chosen in the
    reference and from its two neighbours."""
    record = ledger.read(RULE.id)
    interplay = ledger.read("learning_rate_schedules.interplay")
    table = pd.concat([interplay.tables["tuned"], interplay.tables["tested"]], ignore_index=True)
    tuned = rules.Tuned.of(rules.one_of(table, NORMALISED), [settings.REFERENCE, *DATA])
    base, last = int(np.median(tuned.ways[:, 0])), tuned.accuracy.shape[2] - 1
    right = []
    for start in (base - 1, base, base + 1):
        accuracy = {}
        for rule in (rules.TIMESCALE, rules.CONSTANT):
            to = [min(max(start + rules.shift(rule, name), 0), last) for name in DATA]
            accuracy[rule] = np.mean([tuned.accuracy[:, j, dose].mean() for j, dose in enumerate(to, 1)])
        right.append(100 * (accuracy[rules.TIMESCALE] - accuracy[rules.CONSTANT]))
    return check_pairs(gains, survives, np.array(right), record.verdict, 100 * RULE.smallest_effect)


@exercise
def norm(norm_change: dict[str, float]) -> str:
    """The relative change of the first layer's norm from step 400 to step 800, in torch's form and under AdamC."""
    given = named(norm_change, ("torch", "AdamC"), "norm_change")
    for form, value in given.items():
        ask(
            abs(value) < 1,
            f"`norm_change[{form!r}]` is {value:g}: give the norm at step 800 over that at step 400, minus 1.",
        )
    ask(given["torch"] < 0, "In torch's form the floor falls with the rate; so should the norm in the second half.")
    ask(given["AdamC"] > given["torch"] + 0.1, "The two forms should part. Is `decay_schedule` set for each run?")
    return "The two part as the floor says, though AdamC's norm does not stand still."
