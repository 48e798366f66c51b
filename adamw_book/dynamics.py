"""The update alone: coordinates driven by gradients that we prescribe, so that a closed form can be laid over the
measurement."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from adamw_book.optim import AdamW
from adamw_book.schedules import decay_factors, learning_rate_factors, steps_and_shares


def drive(
    gradient: Callable[[int, Tensor], Tensor | None],
    start: Tensor,
    steps: int,
    *,
    schedule: str = "constant",
    warmup: float = 0.0,
    decay_schedule: str = "torch",
    lr: float | Tensor = 1e-3,
    weight_decay: float | Tensor = 0.0,
    **hyper,
) -> Tensor:
    """Run the optimizer on coordinates whose gradient is ``gradient(step, w)``; return the trajectory (steps + 1, R,
    n).

    ``start`` is (R, n): R replicas of n coordinates. ``lr``, ``weight_decay`` and ``l2`` may be tensors of shape
    (R,). A gradient of None means that the parameter took no part in the loss, as when a layer is frozen. ``schedule``,
    ``warmup`` and ``decay_schedule`` are those of :mod:`adamw_book.schedules`.
    """
    if start.ndim != 2 or not start.is_floating_point():
        raise ValueError(
            f"start: shape {tuple(start.shape)}, {start.dtype}; a tensor (R, n) of floating-point numbers, replicas × "
            "coordinates, is needed"
        )
    w = start.clone().requires_grad_()
    factors = learning_rate_factors(schedule, steps, warmup)
    decays = decay_factors(decay_schedule, factors).tolist()
    factors = factors.tolist()
    optimizer = AdamW([w], lr=lr, weight_decay=weight_decay, **hyper)
    path = torch.empty(steps + 1, *start.shape, dtype=start.dtype)
    path[0] = start
    for step in range(steps):
        optimizer.param_groups[0].update(lr=lr * factors[step], weight_decay=weight_decay * decays[step])
        g = gradient(step, w.detach())
        w.grad = None if g is None else g.to(w.dtype)
        optimizer.step()
        path[step + 1] = w.detach()
    return path


def silent(step: int, w: Tensor) -> Tensor:
    """The gradient of a null coordinate: exactly zero, at every step."""
    return torch.zeros_like(w)


def noise(sd: float | Tensor, rng: torch.Generator) -> Callable[[int, Tensor], Tensor]:
    """Gradients that are pure noise: independent normal draws of standard deviation ``sd`` (a number, or a tensor
    (R, 1)). Raises ``ValueError`` where one is negative or not finite."""
    if not all(0 <= value < math.inf for value in torch.as_tensor(sd).flatten().tolist()):
        raise ValueError(f"sd: {sd}; finite numbers of 0 or more are needed")
    return lambda step, w: torch.randn(w.shape, generator=rng) * sd


def scale_invariant_noise(rng: torch.Generator) -> Callable[[int, Tensor], Tensor]:
    """Noise gradients of a loss that does not change when w (R, n) is rescaled: orthogonal to w, and of size 1/‖w‖."""

    def gradient(step: int, w: Tensor) -> Tensor:
        g = torch.randn(w.shape, generator=rng)
        norm = w.norm(dim=1, keepdim=True)
        direction = w / norm
        return (g - (g * direction).sum(1, keepdim=True) * direction) / norm

    return gradient


def remaining(lr: float, weight_decay: float, steps: int, *schedules, **named) -> np.ndarray:
    """F1: the share ∏(1 − q_t) of a null coordinate that AdamW has left after 0 … steps updates, shape (steps + 1,);
    schedule, warm-up and decay schedule as in :func:`adamw_book.schedules.steps_and_shares`."""
    _, shares = steps_and_shares(lr, weight_decay, steps, *schedules, **named)
    return np.concatenate([[1.0], np.cumprod(1 - shares)])
