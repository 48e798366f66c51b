"""What the optimizer makes of gradients, decay aside: which moments, corrected how, ε where."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch

from .box import CLOSER, Box, CouldNotRun, differ, gradients, starts
from .rule import Rule, simulate

STEPS = 8
DEVIATIONS = [
    *(("eps", value) for value in ("inside", "squared", "scaled", "summed", "floor", "ignored")),
    *(("corrected", value) for value in ("none", "first", "second")),
    *(("betas", value) for value in ("swapped", "usual")),
    *(("second", value) for value in ("largest", "largest corrected", "belief", "previous")),
    *(("momentum", value) for value in ("nesterov", "nesterov alike", "summed")),
    *(("shift", 1), ("root", False), ("ascends", True)),
]
RELATIVES = {"NAdam": torch.optim.NAdam, "RAdam": torch.optim.RAdam, "Adamax": torch.optim.Adamax}


class Step(NamedTuple):
    """``rule``: the simplest variant that makes the same steps, None where there is none; then ``relative`` may name a
    class of torch, and ``sizes`` the range of its steps' lengths in units of Adam's, where they have Adam's direction.
    ``depends``: they depend on the weight."""

    rule: Rule | None
    relative: str
    sizes: tuple[float, float] | None
    depends: bool


def step_of(box: Box) -> Step:
    """The rule of the steps without decay."""
    given = gradients(STEPS)
    [path] = box.drive([np.zeros((4, 4))], [[g] for g in given], weight_decay=0.0)
    depends = _depends(box, given)
    values = box.in_force(weight_decay=0.0)

    def nearest(count: int) -> tuple[float, Rule]:
        rules = []
        for chosen in combinations(DEVIATIONS, count):
            if len({field for field, _ in chosen}) == count:
                rule = replace(Rule(decay="none"), **dict(chosen))
                rules.append((differ(simulate(rule, path[0], given, **values), path), rule))
        return min(rules, key=lambda found: found[0])

    for count in range(4):
        if count == 3:  # three differences at once are less simple than a class of torch
            for name, kind in RELATIVES.items():
                if differ(_as_torch(kind, box, given), path) <= box.tolerance:
                    return Step(None, name, None, depends)
        error, rule = nearest(count)
        if error <= box.tolerance:
            if error > box.doubtful:
                closer, other = nearest(count + 1)
                rule = other if closer < error / CLOSER else rule
            return Step(rule, "", None, depends)
    return Step(None, "", _sizes(box, path, given, values), depends)


def _as_torch(kind: type, box: Box, given: np.ndarray) -> np.ndarray:
    values = box.in_force(weight_decay=0.0)
    other = Box(kind, {}, box.dtype)
    [path] = other.drive([np.zeros((4, 4))], [[g] for g in given], **values)
    return path


def _sizes(box: Box, path: np.ndarray, given: np.ndarray, values: dict) -> tuple[float, float] | None:
    adam = np.diff(simulate(Rule(decay="none"), path[0], given, **values), axis=0)
    moved = np.diff(path, axis=0)
    ratio = (moved * adam).sum(1) / np.square(adam).sum(1)
    aligned = differ(ratio[:, None] * adam, moved) <= box.tolerance
    return (float(ratio.min()), float(ratio.max())) if aligned else None


def _depends(box: Box, given: np.ndarray) -> bool:
    """Whether other weights get other steps of the same gradients."""
    try:
        paths = [box.drive([size * starts()], [[g] for g in given], weight_decay=0.0)[0] for size in (0.5, 1)]
    except CouldNotRun:
        return True
    small, large = (np.diff(path, axis=0) for path in paths)
    return differ(small, large) > 4 * box.tolerance
