"""How an optimizer's ``weight_decay`` acts, found by stepping a small copy of it: names and documentation may say
anything."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

STEPS = 8  # RAdam's first five are those of plain momentum
# What needs a GPU or excludes what the copy is: it runs on the CPU, on its own.
_PLAIN = {"capturable": False, "fused": None, "foreach": None, "differentiable": False}


class Decay(NamedTuple):
    """``how``: "decoupled" (a share of the weight, whatever the gradients), "coupled" (through the gradient), "coupled,
    adaptive" (and divided by its running size there, as in Adam), "ignored", "other". A decoupled decay takes the share
    ``factor`` · lr · weight_decay, or ``factor`` · weight_decay where it is ``lr_independent``, and nothing of a weight
    that the gradient step leads away from 0 where it is ``cautious``."""

    how: str
    factor: float = 1.0
    lr_independent: bool = False
    cautious: bool = False


def decay_of(optimizer: Optimizer, group: dict, lr: float, ndim: int = 1) -> Decay:
    """How the decay of a group's parameters of ``ndim`` axes acts at the rate ``lr``. The optimizer is not touched.

    Raises ValueError, which says what it said, for an optimizer of which no copy can be made or stepped.
    """

    def path(rate: float, weight_decay: float, gradient: float | Callable[[Tensor], Tensor]) -> Tensor:
        return _path(optimizer, group, rate, weight_decay, gradient, ndim)

    sign = -1 if group.get("maximize") else 1  # of a gradient that leads a weight of 1 towards 0
    weight_decay = 1e-2 / lr  # a share large enough to be seen in float32, too
    resting, base = path(lr, 0.0, 0.0), path(lr, 0.0, 1.0)
    # Adafactor's step depends on the weight, a cautious decay on the gradient: one of two gradients shows the share.
    for gradient, without in ((0.0, resting), (1.0, base)):
        share = _share(path(lr, weight_decay, gradient), without)
        twice = _share(path(lr, 2 * weight_decay, gradient), without)
        if share > 1e-4 and abs(twice / share - 2) < 0.01:
            half = _share(path(lr / 2, weight_decay, gradient), path(lr / 2, 0.0, gradient))
            independent = abs(half / share - 1) < 0.01
            factor = share / (weight_decay if independent else lr * weight_decay)
            away = (path(lr, decay, -sign) for decay in (0.0, weight_decay))
            return Decay("decoupled", factor, independent, torch.equal(*away))
    if torch.equal(path(lr, weight_decay, 0.0), resting):
        return Decay("ignored")
    # What goes through the gradient can be cancelled there.
    if not torch.allclose(path(lr, weight_decay, lambda weight: -sign * weight_decay * weight), resting):
        return Decay("other")
    last, loud = base[-2] - base[-1], path(lr, 0.0, 100.0)
    adaptive = torch.isclose(loud[-2] - loud[-1], last, rtol=0.01)
    return Decay("coupled, adaptive" if adaptive else "coupled")


def _path(optimizer: Optimizer, group: dict, lr: float, weight_decay: float, gradient, ndim: int) -> Tensor:
    """The values (STEPS + 1,) of a weight that starts at 1 and gets a gradient, a number or a function of the weight,
    under a fresh copy."""
    kind = type(optimizer)
    weight = torch.nn.Parameter(torch.ones((2,) * ndim, dtype=torch.float64))
    own = {key: value for key, value in group.items() if key not in ("params", "param_names")}
    own |= {key: value for key, value in _PLAIN.items() if key in own}
    own |= {"lr": lr, "weight_decay": weight_decay, "params": [weight]} | ({"l2": 0.0} if "l2" in own else {})
    values = []
    try:
        takes = inspect.signature(kind).parameters
        copy = kind([own], **{key: own.get(key, value) for key, value in optimizer.defaults.items() if key in takes})

        def closure() -> Tensor:
            now = weight.detach()
            weight.grad = gradient(now) if callable(gradient) else torch.full_like(now, gradient)
            return weight.detach().sum()

        needs_closure = inspect.signature(kind.step).parameters.get("closure")
        needs_closure = needs_closure is not None and needs_closure.default is inspect.Parameter.empty
        for _ in range(STEPS + 1):
            values.append(weight.detach().flatten()[0].clone())
            closure()
            copy.step(closure) if needs_closure else copy.step()
    except Exception as error:
        name = f"{kind.__module__}.{kind.__qualname__}"
        raise ValueError(
            f"optimizer: a copy of {name} for one small parameter raises {type(error).__name__}: {error}; describe the "
            "run in numbers instead: adamw_book.diagnose.audit_numbers(lr=…, weight_decay=…, steps=…)"
        ) from error
    found = torch.stack(values)
    if not found.isfinite().all():
        raise ValueError(f"optimizer: {kind.__qualname__} makes {found.tolist()} of a weight of 1 and finite gradients")
    return found


def _share(path: Tensor, base: Tensor) -> float:
    """The share of the weight that each step of ``path`` takes beyond the steps of ``base``, before the gradient step
    or after it; 0 where the steps do not take one share."""
    moved = base[:-1] - base[1:]
    for weight, after in ((path[:-1], path[1:] + moved), (path[:-1] - moved, path[1:])):
        shares = 1 - after / weight
        if (shares - shares[0]).abs().max() <= 1e-3 * shares[0].abs():
            return shares[0].item()
    return 0.0
