"""How much a difference matters: the weights after 100 and 10,000 steps, beside AdamW's under the same gradients."""

from __future__ import annotations

import time
from functools import lru_cache

import numpy as np

from .box import NOT_FINITE, Box, CouldNotRun, differ
from .rule import Rule, simulate

STEPS = (100, 10_000)
USUAL = {"lr": 1e-3, "weight_decay": 0.1, "betas": (0.9, 0.999), "eps": 1e-8}
SITUATIONS = {
    "plain": "",
    "all": ", all its differences together",
    "schedule": " under a cosine schedule to 0",
    "schedule ignored": " under a cosine schedule to 0",
    "silent": " where gradients are 0",
    "absent": " where a tenth of the way gradients become None",
    "late": " where the first gradient comes a tenth of the way",
    "several": " in the tenth of ten parameters",
    "resumed": " of a run that is resumed halfway",
    "own lr": " in a group with a tenth of the rate",
    "own weight_decay": " in a group without decay",
    "own betas": " in a group with betas (0.9, 0.95)",
    "own eps": " in a group with eps 1e-6",
    "own decay": " in a vector that should have been decayed",
}
WEIGHTS, PATIENCE = 256, 30.0  # seconds that driving the optimizer itself may take


@lru_cache(maxsize=2)
def stream(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (256,) of a standard deviation of 0.1, and their gradients (steps, 256): noise ten times as strong as its
    mean, of sizes from 1e-6 to 0.1."""
    rng = np.random.default_rng(0)
    start, mean = 0.1 * rng.standard_normal(WEIGHTS), 0.1 * rng.standard_normal(WEIGHTS)
    return start, np.geomspace(1e-6, 0.1, WEIGHTS) * (mean + rng.standard_normal((steps, WEIGHTS)))


@lru_cache(maxsize=256)
def effect(rule: Rule, situation: str = "plain", forgets: str = "", usual: tuple = ()) -> dict[int, float]:
    """{steps: share}: the root mean square difference from AdamW's weights, in units of theirs, if ``rule`` were used
    in one of ``SITUATIONS``. usual: (name, value) pairs that differ from ``USUAL``."""
    with np.errstate(over="ignore", invalid="ignore"):
        return {steps: _one(rule, situation, forgets, USUAL | dict(usual), steps) for steps in STEPS}


def _one(rule: Rule, situation: str, forgets: str, usual: dict, steps: int) -> float:
    start, given = stream(STEPS[-1])
    given, tenth = given[:steps], steps // 10
    wanted, found = dict(usual), dict(usual)
    if situation == "schedule":
        wanted["lr"] = found["lr"] = usual["lr"] * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2
    elif situation == "schedule ignored":
        wanted["lr"] = usual["lr"] * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2
    elif situation == "silent":
        given = np.zeros_like(given)
    elif situation == "late":
        given, found["counts"] = given[tenth:], np.arange(tenth + 1, steps + 1)
    elif situation == "several":
        found["counts"] = 10 * np.arange(1, steps + 1)
    elif situation == "resumed":
        found |= {"resumed": steps // 2, "forgets": forgets}
    elif situation.startswith("own "):
        own = {"lr": usual["lr"] / 10, "weight_decay": 0.0, "betas": (0.9, 0.95), "eps": 1e-6}
        wanted |= {key: value for key, value in own.items() if situation == f"own {key}"}
    if situation == "absent":
        begun = simulate(Rule(), start, given[:tenth], **usual)[-1]
        if rule.decay != "none":  # what a rule makes of a parameter that has nothing but its decay
            left = simulate(rule, begun, np.zeros_like(given[tenth:]), **usual)[-1]
        else:
            left = simulate(Rule(), start, np.concatenate([given[:tenth], 0 * given[tenth:]]), **usual)[-1]
        return differ(left, begun)
    return differ(simulate(rule, start, given, **found)[-1], simulate(Rule(), start, given, **wanted)[-1])


def measured(box: Box, times: int = 1, **usual) -> dict[int, float]:
    """The same, of the optimizer itself: what no rule describes is driven, for as many steps as its pace allows.
    times: how often each of the 256 weights stands in the tensor, side by side, so that neighbours get gradients of
    similar sizes. inf where the weights do not stay finite."""
    usual, found = USUAL | usual, {}
    start, given = stream(STEPS[-1])
    reference = simulate(Rule(), start, given, **box.in_force(**usual) | {"weight_decay": usual["weight_decay"]})
    pace = 0.0
    for steps in STEPS:
        if pace * steps > PATIENCE:
            break
        clock = time.perf_counter()
        try:
            shown = [[lambda _, g=g: np.repeat(g, times)] for g in given[:steps]]  # one at a time in memory
            [path] = box.drive([np.repeat(start, times)], shown, last=True, **usual)
        except CouldNotRun as error:
            if NOT_FINITE in str(error):
                found[steps] = np.inf
            break
        found[steps] = differ(path[-1], np.repeat(reference[steps], times))
        pace = (time.perf_counter() - clock) / steps
    return found
