"""What the optimizer's decay takes from the weights: how much, of what, when, and what a schedule makes of it.

Gradients are prescribed, so the steps of a run without decay are those of a run with it: what else is gone is decay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .box import PROBING, SHAPE, Box, differ, gradients, starts
from .rule import Rule, simulate
from .steps import Step

STEPS, LONG = 6, 256  # of a probe, and of one that sees no decay in fewer
# candidates by the Rule's own words: (decay, order) → what of the weight is taken, from weights before a step (T, n),
# the steps (T, n), the start (n,) and the gradients (T, n)
CANDIDATES = {
    ("decoupled", "before"): lambda w, u, start, g: w,
    ("decoupled", "after"): lambda w, u, start, g: w - u,
    ("cautious", "before"): lambda w, u, start, g: w * (u * w > 0),
    ("cautious or still", "before"): lambda w, u, start, g: w * (u * w >= 0),
    ("cautious", "after"): lambda w, u, start, g: (w - u) * (u * (w - u) > 0),
    ("start", "before"): lambda w, u, start, g: w - start,
    ("start", "after"): lambda w, u, start, g: w - u - start,
    ("sign", "before"): lambda w, u, start, g: np.sign(w),
    ("gradients", "before"): lambda w, u, start, g: w * (g != 0),
    ("late", "before"): lambda w, u, start, g: w * (np.arange(len(w)) > 0)[:, None],
}


@dataclass(frozen=True)
class Decay:
    """``decay``, ``order``, ``follows`` and ``factor`` in the words of :class:`.rule.Rule`; ``decay`` is "ignored"
    where the coefficient that was given does nothing, "untaken" where none can be given, and "unnamed" where no
    candidate takes what is taken; "varying" where that is a share of the weights, another one in each step, which then
    lies between ``varies``, in units of ηλ. ``follows`` is "otherwise" where the share is ηλ at a constant rate, and no
    course is its own under a schedule. ``powers``: of lr and of weight_decay in the share of a step."""

    decay: str
    order: str = "before"
    follows: str = "lr"
    factor: float = 1.0
    powers: tuple[float, float] = (1.0, 1.0)
    varies: tuple[float, float] = (1.0, 1.0)

    def rule(self, step: Rule) -> Rule | None:
        """The rule of a step, with this decay, at a constant rate at least; None where it has none."""
        if self.decay in ("unnamed", "varying"):
            return None
        decay = "none" if self.decay in ("ignored", "untaken") else self.decay
        return replace(step, decay=decay, order=self.order, follows=_constant(self.follows), factor=self.factor)


def decay_of(box: Box, step: Step) -> Decay:
    """How ``weight_decay`` acts on a matrix that has gradients."""
    if "weight_decay" not in box.names:
        return Decay("untaken")
    for steps in STEPS, LONG:
        given = np.zeros((steps, 16)) if step.depends else gradients(steps, seed=2)
        path, moved = _pair(box, given)
        if differ(path, np.cumsum(np.concatenate([path[:1], -moved]), axis=0)) > 1e-3 * box.tolerance:
            break
    else:
        return Decay("ignored")
    taken = path[:-1] - path[1:] - moved
    kind, share, error = _closest(taken, path[:-1], moved, given)
    if error > 2 * box.tolerance:
        return _otherwise(box, step, path, moved, given)
    halves = []
    for name in ("lr", "weight_decay"):
        changed = {name: PROBING[name] / 2}
        half, steps = _pair(box, given, **changed)
        halves.append(_share(kind, half[:-1] - half[1:] - steps, half[:-1], steps, given))
    powers = tuple(float(np.log2(share / one)) if one * share > 0 else np.nan for one in halves)
    follows = _follows(box, kind, powers[0], given, moved)
    unit = Rule(follows=_constant(follows)).share(PROBING["lr"], PROBING["lr"], PROBING["weight_decay"])
    factor = share / unit
    return Decay(*kind, follows, 1.0 if abs(factor - 1) <= 2 * box.tolerance else factor, powers)


def _pair(box: Box, given: np.ndarray, **changed) -> tuple[np.ndarray, np.ndarray]:
    """The path (T + 1, n) with decay, and the steps (T, n) that the same gradients make without."""
    shown = [[g] for g in given]
    [with_decay] = box.drive([starts()], shown, **changed)
    [without] = box.drive([starts()], shown, **changed | {"weight_decay": 0.0})
    return with_decay, without[:-1] - without[1:]


def _share(kind: tuple, taken, weights, moved, given) -> float:
    like, each = CANDIDATES[kind](weights, moved, weights[0], given), _sizes(taken)
    return float((taken / each * like / each).sum() / np.square(like / each).sum()) if like.any() else 0.0


def _closest(taken, weights, moved, given) -> tuple[tuple, float, float]:
    found, each = [], _sizes(taken)
    for kind, like in CANDIDATES.items():
        share = _share(kind, taken, weights, moved, given)
        found.append((kind, share, differ(share * like(weights, moved, weights[0], given) / each, taken / each)))
    return min(found, key=lambda one: one[2])


def _sizes(taken: np.ndarray) -> np.ndarray:
    """What to divide coordinates by, so that one that is divided by ε alone does not outshout the others."""
    sizes = np.sqrt(np.square(taken).mean(0))
    return np.maximum(sizes, np.median(sizes) or 1.0)


def _otherwise(box: Box, step: Step, path: np.ndarray, moved: np.ndarray, given: np.ndarray) -> Decay:
    """A decay that no candidate describes. Where it passes through the gradient, its run is the run without decay that
    is given g + λθ."""
    pulled = [[lambda now, g=g: g + PROBING["weight_decay"] * now] for g in given]
    [coupled] = box.drive([starts()], pulled, weight_decay=0.0)
    if differ(coupled, path) <= 2 * box.tolerance:
        return Decay("coupled")
    if step.rule is not None:
        for decay in ("first moment", "denominator"):
            rule = replace(step.rule, decay=decay)
            if differ(simulate(rule, path[0], given, **box.in_force()), path) <= 2 * box.tolerance:
                return Decay(decay)
    taken = path[:-1] - path[1:] - moved
    shares = (taken * path[:-1]).sum(1) / np.square(path[:-1]).sum(1)
    if differ(shares[:, None] * path[:-1], taken) <= 2 * box.tolerance:
        relative = np.round(shares / (PROBING["lr"] * PROBING["weight_decay"]), 6) + 0.0  # no -0
        return Decay("varying", varies=(float(relative.min()), float(relative.max())))
    return Decay("unnamed")


def _constant(follows: str) -> str:
    """What shares follow as far as a constant rate can show."""
    return "lr" if follows == "otherwise" else follows


def _follows(box: Box, kind: tuple, power: float, given: np.ndarray, constant: np.ndarray) -> str:
    """What the shares follow while the rate is changed between the steps."""
    lrs = PROBING["lr"] * np.array([1, 0.5, 1, 0.25, 0.5, 0.75])
    given, constant = given[:STEPS], constant[:STEPS]
    shown = [[g] for g in given]
    [path] = box.drive([starts()], shown, lrs=lrs)
    [without] = box.drive([starts()], shown, lrs=lrs, weight_decay=0.0)
    moved = without[:-1] - without[1:]
    if constant.any() and differ(moved, constant) <= box.tolerance:  # the schedule does not reach the step either
        return "lr" if round(power) == 1 else "nothing"
    taken, like = path[:-1] - path[1:] - moved, CANDIDATES[kind](path[:-1], moved, path[0], given)
    sizes = np.square(like).sum(1)
    shares = np.divide((taken * like).sum(1), sizes, out=np.full(len(lrs), np.nan), where=sizes > 0)
    relative = lrs / lrs[0]
    # follows → (the course of the shares, the power of a constant lr)
    courses = {
        "lr": (relative, 1), "nothing": (relative**0, 0), "first": (relative**0, 1), "schedule": (relative, 0),
        "square": (relative**2, 2),
    }  # fmt: skip
    seen = ~np.isnan(shares)

    def error(course: np.ndarray) -> float:
        return differ(shares[seen][0] / course[seen][0] * course[seen], shares[seen])

    nearest = min(courses, key=lambda follows: error(courses[follows][0]) + abs(courses[follows][1] - power))
    if error(courses[nearest][0]) <= 4 * box.tolerance:
        return nearest
    return "lr" if error(relative**power) <= 4 * box.tolerance else "otherwise"  # another power is told as a power


def without_gradient(box: Box) -> str:
    """What happens to a parameter whose gradient becomes None: "rests", "decays" or "moves" (as if it were 0)."""
    given = gradients(5)
    both = [[g, g if t < 2 else None] for t, g in enumerate(given)]
    _, path = box.drive([starts(), starts()], both)
    if np.array_equal(path[2], path[-1]):
        return "rests"
    _, still = box.drive([starts(), starts()], both, weight_decay=0.0)
    return "decays" if np.array_equal(still[2], still[-1]) else "moves"


def at_zero_gradients(box: Box) -> bool:
    """Whether a parameter decays whose gradients are all 0; only of a decay that is a share of the weight."""
    for steps in 2, LONG:
        [path] = box.drive([starts()], [[np.zeros(SHAPE)]] * steps, last=True)
        [without] = box.drive([starts()], [[np.zeros(SHAPE)]] * steps, weight_decay=0.0, last=True)
        if differ(path, without) > 1e-3 * box.tolerance:
            return True
    return False


def undecayed_axes(box: Box) -> tuple[list[int], list[int]]:
    """(numbers of axes whose decay is not that of a matrix, and whose steps are not)."""
    given = gradients(3)
    shapes = {1: (16,), 3: (4, 2, 2), 4: (2, 2, 2, 2)}
    [decayed] = box.drive([starts()], [[g] for g in given])
    [moved] = box.drive([starts()], [[g] for g in given], weight_decay=0.0)
    others, skipped = [], []
    for axes, shape in shapes.items():
        [own] = box.drive([starts().reshape(shape)], [[g] for g in given], weight_decay=0.0)
        if differ(own, moved) > box.tolerance:
            others.append(axes)
        else:
            [own] = box.drive([starts().reshape(shape)], [[g] for g in given])
            if differ(own, decayed) > box.tolerance:
                skipped.append(axes)
    return skipped, others
