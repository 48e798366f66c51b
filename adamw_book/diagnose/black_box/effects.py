"""How much a difference matters: the weights after 100 and 10,000 steps, beside AdamW's under the same gradients."""

from __future__ import annotations

import time
from functools import lru_cache

import numpy as np

from .box import NOT_FINITE, Box, CouldNotRun, differ
from .keeping import reloaded
from .rule import Rule, simulate

STEPS = (100, 10_000)
USUAL = {"lr": 1e-3, "weight_decay": 0.1, "betas": (0.9, 0.999), "eps": 1e-8}
TOGETHER = ", all its differences together"
SITUATIONS = {
    "plain": "",
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
    "own lr, resumed": " in a group whose rate was set to a tenth, of a run that is resumed halfway",
    "held": " where what param_groups hold is what acts",
    # These are driven: what acts is all that is different.
    "all": TOGETHER,
    "all, beside": " beside a parameter of the same size" + TOGETHER,
    "all, late": " where the first gradient comes a tenth of the way" + TOGETHER,
    "all, resumed": " of a run that is resumed halfway" + TOGETHER,
    "all, schedule": " under a cosine schedule to 0" + TOGETHER,
    "all, own lr": " in two groups, one of them with a tenth of the rate" + TOGETHER,
    "all, own weight_decay": " in two groups, one of them without decay" + TOGETHER,
    "all, own betas": " in two groups, one of them with betas (0.9, 0.95)" + TOGETHER,
    "all, own eps": " in two groups, one of them with eps 1e-6" + TOGETHER,
    "all, 1": " in a tensor of 1 axis" + TOGETHER,
    "all, 3": " in a tensor of 3 axes" + TOGETHER,
    "all, 4": " in a tensor of 4 axes" + TOGETHER,
}
SHAPES = {"all, 1": (256,), "all, 3": (16, 4, 4), "all, 4": (4, 4, 4, 4)}  # a matrix elsewhere
WEIGHTS, PATIENCE = 256, 30.0  # seconds that driving the optimizer itself may take


@lru_cache(maxsize=2)
def stream(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (256,) of a standard deviation of 0.1, and their gradients (steps, 256): noise ten times as strong as its
    mean, of sizes from 1e-6 to 0.1."""
    rng = np.random.default_rng(0)
    start, mean = 0.1 * rng.standard_normal(WEIGHTS), 0.1 * rng.standard_normal(WEIGHTS)
    return start, np.geomspace(1e-6, 0.1, WEIGHTS) * (mean + rng.standard_normal((steps, WEIGHTS)))


@lru_cache(maxsize=256)
def effect(
    rule: Rule, situation: str = "plain", forgets: str = "", usual: tuple = (), instead: tuple = ()
) -> dict[int, float]:
    """{steps: share}: the root mean square difference from AdamW's weights, in units of theirs, if ``rule`` were used
    in one of ``SITUATIONS``. usual: (name, value) pairs that differ from ``USUAL``. instead:
    those that the rule has in their place."""
    with np.errstate(over="ignore", invalid="ignore"):
        return {steps: _one(rule, situation, forgets, USUAL | dict(usual), dict(instead), steps) for steps in STEPS}


def _one(rule: Rule, situation: str, forgets: str, usual: dict, instead: dict, steps: int) -> float:
    start, given = stream(STEPS[-1])
    given, tenth = given[:steps], steps // 10
    wanted, found = dict(usual), usual | instead
    if situation == "schedule":
        wanted["lr"] = found["lr"] = _cosine(usual["lr"], steps)
    elif situation == "schedule ignored":
        wanted["lr"] = _cosine(usual["lr"], steps)
    elif situation == "silent":
        given = np.zeros_like(given)
    elif situation == "late":
        given, found["counts"] = given[tenth:], np.arange(tenth + 1, steps + 1)
    elif situation == "several":
        found["counts"] = 10 * np.arange(1, steps + 1)
    elif situation == "resumed":
        found |= {"resumed": steps // 2, "forgets": forgets}
    elif situation == "own lr, resumed":
        wanted["lr"] = usual["lr"] / 10
        found["lr"] = np.where(np.arange(steps) < steps // 2, wanted["lr"], usual["lr"])
    elif situation.startswith("own "):
        wanted |= _own(situation, usual)
    if situation == "absent":
        begun = simulate(Rule(), start, given[:tenth], **usual)[-1]
        if rule.decay != "none":  # what a rule makes of a parameter that has nothing but its decay
            left = simulate(rule, begun, np.zeros_like(given[tenth:]), **usual)[-1]
        else:
            left = simulate(Rule(), start, np.concatenate([given[:tenth], 0 * given[tenth:]]), **usual)[-1]
        return differ(left, begun)
    return differ(simulate(rule, start, given, **found)[-1], simulate(Rule(), start, given, **wanted)[-1])


def _cosine(lr: float, steps: int) -> np.ndarray:
    return lr * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2


def _own(situation: str, usual: dict) -> dict:
    """What a group has of its own in a situation."""
    own = {"lr": usual["lr"] / 10, "weight_decay": 0.0, "betas": (0.9, 0.95), "eps": 1e-6}
    return {key: value for key, value in own.items() if situation.endswith(f"own {key}")}


def measured(box: Box, situation: str = "all", times: int = 1, **usual) -> dict[int, float]:
    """The same, of the optimizer itself: what no rule describes is driven, for as many steps as its pace allows, in
    one of the ``SITUATIONS`` of that kind. times: how often each of the 256 weights stands in the tensor, side by side,
    so that neighbours get gradients of similar sizes. inf where the weights do not stay finite."""
    usual, found = USUAL | usual, {}
    start, given = stream(STEPS[-1])
    values = box.in_force(**usual) | {"weight_decay": usual["weight_decay"]}
    reference = simulate(Rule(), start, given, **values)
    pace = 0.0
    for steps in STEPS:
        if pace * steps > PATIENCE:
            break
        clock = time.perf_counter()
        try:
            weights = _driven(box, situation, times, steps, usual)
        except NotImplementedError:
            break
        except CouldNotRun as error:
            if NOT_FINITE in str(error):
                found[steps] = np.inf
            break
        late = situation == "all, late"
        wanted = simulate(Rule(), start, given[steps // 10 : steps], **values)[-1] if late else reference[steps]
        if situation == "all, schedule":
            wanted = simulate(Rule(), start, given[:steps], **values | {"lr": _cosine(values["lr"], steps)})[-1]
        elif own := _own(situation, usual):
            wanted = np.append(wanted, simulate(Rule(), start, given[:steps], **values | own)[-1])
        found[steps] = differ(weights, np.repeat(wanted, times))
        pace = (time.perf_counter() - clock) / steps
    return found


def _driven(box: Box, situation: str, times: int, steps: int, usual: dict) -> np.ndarray:
    """The weights that the optimizer leaves after these steps: of one parameter, or of a group that is as usual and
    one that is not."""
    start, given = stream(STEPS[-1])
    shape = SHAPES.get(situation, (16, 16 * times))
    begun = [np.repeat(start, times).reshape(shape)]
    shown = [[lambda _, g=g: np.repeat(g, times)] for g in given[:steps]]  # one at a time in memory
    if situation in ("all, beside", "all, late"):
        absent = steps // 10 if situation == "all, late" else 0
        begun = [np.flip(start).reshape(shape).copy(), *begun]
        shown = [[np.flip(g).copy(), None if t < absent else g] for t, g in enumerate(given[:steps])]

    own = _own(situation, usual)
    if own:
        begun, shown = 2 * begun, [2 * now for now in shown]
    lrs = _cosine(usual["lr"], steps) if situation == "all, schedule" else None

    def between(optimizer, t: int):
        for name, value in own.items() if t == 0 else ():
            box.set(optimizer, name, value, slice(1, None))
        return reloaded(box, optimizer, usual) if situation == "all, resumed" and t == steps // 2 else None

    groups = [{}, {}] if own else None
    paths = box.drive(begun, shown, own=groups, lrs=lrs, between=between, last=True, **usual)
    return np.concatenate([path[-1] for path in (paths if own else paths[-1:])])
