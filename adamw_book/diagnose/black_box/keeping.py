"""What an optimizer keeps: a state for each parameter, groups' own coefficients, and all of it through a checkpoint."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import torch

from .box import CLOSER, PROBING, Box, CouldNotRun, differ, gradients, starts, state_dtypes
from .rule import Rule, simulate

OTHER = {"lr": 0.125, "weight_decay": 0.1, "betas": (0.1, 0.3), "eps": 0.3}
STEPS, LARGE, CHANGED = 8, (128, 64), 2


def together(box: Box, rule: Rule | None, rests: bool) -> str:
    """What a parameter's path has to do with the other parameters: "nothing", "count" (a first gradient that comes late
    meets a step count that has run on), "late" (it takes other steps there, for another reason), "counts" (each
    parameter of a step counts as a step) or "something". rests: whether a parameter without gradient rests; where it
    does not, nothing comes late."""
    given, late = gradients(STEPS), 3
    [alone] = box.drive([starts()], [[g] for g in given])
    _, second = box.drive([starts(seed=5), starts()], [[np.flip(g).copy(), g] for g in given])
    if differ(second, alone) > box.tolerance:
        if rule is None:
            return "something"
        doubled = simulate(rule, second[0], given, **box.in_force(), counts=2 * np.arange(1, STEPS + 1))
        return "counts" if differ(doubled, second) <= 2 * box.tolerance else "something"
    if not rests:
        return "nothing"
    path = box.drive([starts(seed=5), starts()], [[g, None if t < late else g] for t, g in enumerate(given)])[1][late:]
    [wanted] = box.drive([starts()], [[g] for g in given[late:]])
    error = differ(path, wanted)
    if error <= box.doubtful:
        return "nothing"
    # A step count that has run on is that of a parameter whose gradients have been 0 so far.
    given[:late] = 0.0
    both = [[g, None if t < late else g] for t, g in enumerate(given)]
    path = box.drive([starts(seed=5), starts()], both, weight_decay=0.0)[1]
    [counted] = box.drive([starts()], [[g] for g in given], weight_decay=0.0)
    if error <= box.tolerance:
        [wanted] = box.drive([starts()], [[g] for g in given[late:]], weight_decay=0.0)
        closer = differ(path[late:], counted[late:]) < differ(path[late:], wanted) / CLOSER
        return "count" if closer else "nothing"
    if differ(path, counted) <= box.tolerance:
        return "count"
    if rule is not None:
        counts = np.arange(late + 1, STEPS + 1)
        still = {**box.in_force(), "weight_decay": 0.0}
        like = simulate(rule, path[late], given[late:], **still, counts=counts)
        if differ(path[late:], like) <= 2 * box.tolerance:
            return "count"
    return "late"


class Ignored(NamedTuple):
    """Coefficients of which a group may not have its own, those that may not be changed between steps, and those that
    act in part only: of a group, and after a change. One that has no effect from the constructor is nowhere."""

    own: list[str]
    later: list[str]
    own_in_part: list[str]
    later_in_part: list[str]


def ignored_by_groups(box: Box, mixed: bool) -> Ignored:
    """What groups ignore. mixed: parameters influence each other, so that groups may, too."""
    given, found = gradients(5), Ignored([], [], [], [])
    one, two = [[g] for g in given], [[g, g] for g in given]
    [base] = box.drive([starts()], one)
    first, alike = box.drive([starts(), starts()], two, own=[{}, {}])
    kept = _continued(box, one, {})
    resumes = kept is not None and differ(kept, base) <= box.doubtful
    for name in box.names:
        other = {name: OTHER[name]}
        [wanted] = box.drive([starts()], one, **other)
        if differ(wanted, base) <= 2 * box.tolerance:
            continue
        wanted = box.drive([starts(), starts()], two, own=[other, other])[1]
        beside, path = box.drive([starts(), starts()], two, own=[{}, other])
        if differ(path, alike) <= box.tolerance:
            found.own.append(name)
        elif not mixed and max(differ(path, wanted), differ(beside, first)) > box.doubtful:
            found.own_in_part.append(name)

        def change(optimizer, t, name=name):
            if t == CHANGED:
                box.set(optimizer, name, OTHER[name])

        [path] = box.drive([starts()], one, between=change)
        if differ(path, base) <= box.tolerance:
            found.later.append(name)
        elif resumes and differ(path, _continued(box, one, other)) > box.doubtful:
            found.later_in_part.append(name)
    return found


def _continued(box: Box, given: list, other: dict) -> np.ndarray | None:
    """The path that an optimizer which was made with ``other`` ends, from a checkpoint of one that was not: what a
    change makes that reaches everything. None where a checkpoint cannot be loaded."""

    def between(optimizer, t):
        if t == CHANGED:
            new = reloaded(box, optimizer, PROBING | other)
            for name, value in other.items():
                box.set(new, name, value)
            return new

    try:
        return box.drive([starts()], given, between=between)[0]
    except (Exception, SystemExit):
        return None


def checkpoint_loses(box: Box, rule: Rule | None) -> str:
    """What a run lost that was saved and loaded halfway: "", "all", "coefficients", "step", "exp_avg", "exp_avg_sq",
    "moments" or "something"; "raises …" where it cannot be saved or loaded."""
    given, half = gradients(STEPS, seed=3), STEPS // 2

    def resume(values: dict, loads: bool = True):
        def between(optimizer, t):
            return reloaded(box, optimizer, values, loads) if t == half else None

        return box.drive([starts()], [[g] for g in given], between=between)[0]

    [whole] = box.drive([starts()], [[g] for g in given])
    others = PROBING | {"lr": OTHER["lr"], "weight_decay": OTHER["weight_decay"]}
    try:
        error = differ(resume(others), whole)
        if error <= box.doubtful:
            return ""
        resumed = resume(PROBING)
    except (CouldNotRun, NotImplementedError):
        raise
    except (Exception, SystemExit) as error:
        return f"raises {type(error).__name__}: {error}"
    parts = ("step", "exp_avg", "exp_avg_sq", "moments") if rule else ()
    paths = {
        forgets: simulate(rule, whole[0], given, **box.in_force(), resumed=half, forgets=forgets) for forgets in parts
    }
    apart = {forgets: differ(path, resumed) for forgets, path in paths.items()}
    if error <= box.tolerance:
        nearest = min(apart, key=apart.get, default="")
        return nearest if apart.get(nearest, np.inf) < differ(resumed, whole) / CLOSER else ""
    if differ(resumed, whole) <= box.tolerance:
        return "coefficients"
    if differ(resumed, resume(PROBING, loads=False)) <= box.tolerance:
        return "all"
    return next((forgets for forgets, one in apart.items() if one <= 2 * box.tolerance), "something")


def reloaded(box: Box, optimizer, values: dict, loads: bool = True):
    """A new optimizer with these coefficients, for the same parameters; loads: and with what a checkpoint kept."""
    new = box.optimizer([p for group in optimizer.param_groups for p in group["params"]], values)
    if loads:
        saved = io.BytesIO()
        torch.save(optimizer.state_dict(), saved)
        saved.seek(0)
        new.load_state_dict(torch.load(saved, weights_only=False))
    return new


class State(NamedTuple):
    """``loaded``: dtypes of the state's tensors that are as large as the parameter, after a checkpoint; ``error``: how
    far a parameter of LARGE is from the path that it has as a small one."""

    loaded: tuple[str, ...]
    error: float


def state_of(box: Box) -> State:
    """What the moments are kept in."""
    optimizer, p = box.stepped()
    try:
        loaded = box.optimizer([p], PROBING)
        loaded.load_state_dict(optimizer.state_dict())
        after = state_dtypes(loaded, p)
    except (Exception, SystemExit):
        after = ()
    given, size = gradients(4), LARGE[0] * LARGE[1] // 16
    [small] = box.drive([starts()], [[g] for g in given])
    [large] = box.drive([np.tile(starts().ravel(), size).reshape(LARGE)], [[np.tile(g, size)] for g in given])
    return State(after, differ(large, np.tile(small, size)))
