"""Exact answers that an attack can be held against: linear models in closed form, small ReLU networks by linear
programming."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from .attack import Bounds, ball, check_classes, check_examples


def _check(weight: Tensor, bias: Tensor, x: Tensor, y: Tensor) -> None:
    check_examples(x, y, weight.shape[-2])
    if weight.shape[-1] != x.shape[-1] or bias.shape != weight.shape[:-1]:
        raise ValueError(
            f"weight, bias: shapes {tuple(weight.shape)} and {tuple(bias.shape)}; (..., C, {x.shape[-1]}) and (..., C) "
            f"are needed for inputs of {x.shape[-1]} numbers"
        )


def _differences(weight: Tensor, bias: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """w_y − w_k (..., N, C, D) and b_y − b_k (..., N, C) of every class k for examples of class y (..., N)."""
    rows = y[..., None, None].expand(*y.shape, 1, weight.shape[-1])
    own = weight[..., None, :, :].expand(*y.shape, *weight.shape[-2:]).gather(-2, rows)
    own_bias = bias[..., None, :].expand(*y.shape, bias.shape[-1]).gather(-1, y[..., None])
    return own - weight[..., None, :, :], own_bias - bias[..., None, :]


def linear_margin(
    weight: Tensor, bias: Tensor, x: Tensor, y: Tensor, epsilon: float | Tensor, bounds: Bounds = (0.0, 1.0)
) -> Tensor:
    """The smallest margin (..., N) of the linear model f = W x + b within the ball of radius ε around each x.

    min_k (w_y − w_k)·x + b_y − b_k − ε ‖w_y − w_k‖₁ where no bound is met; with ``bounds`` each coordinate goes to the
    end of its interval that is worse. weight (..., C, D), bias (..., C), x (..., N, D), y (..., N).
    """
    _check(weight, bias, x, y)
    low, high = (t[..., None, :] for t in ball(x, epsilon, bounds))
    w, b = _differences(weight, bias, y)
    worst = (torch.where(w > 0, low, high) * w).sum(-1) + b
    return worst.scatter(-1, y[..., None], torch.inf).amin(-1)


def linear_radius(weight: Tensor, bias: Tensor, x: Tensor, y: Tensor, norm: float = torch.inf) -> Tensor:
    """The distance (..., N), in L∞ (or, with norm=2, Euclidean), from each x to the nearest boundary of the linear
    model W x + b: min_k ((w_y − w_k)·x + b_y − b_k) / ‖w_y − w_k‖, in the dual norm (‖·‖₁, or ‖·‖₂); 0 where it
    is wrong.

    For two classes this is the geometric margin y f / ‖w‖. It does not change when W and b are multiplied by a number.
    A rival with the same row of W never comes closer: its distance is ∞ where its b is smaller, and 0 elsewhere.
    """
    if norm not in (2, torch.inf):
        raise ValueError(f"norm: {norm}; 2 (Euclidean) or inf (L∞) is needed")
    _check(weight, bias, x, y)
    w, b = _differences(weight, bias, y)
    size = w.abs().sum(-1) if norm == torch.inf else w.square().sum(-1).sqrt()
    lead = (w * x[..., None, :]).sum(-1) + b
    distance = torch.where((size == 0) & (lead == 0), 0.0, lead / size)
    return distance.scatter(-1, y[..., None], torch.inf).amin(-1).clamp(min=0)


def relu_margin(parameters: dict[str, Tensor], x: Tensor, y: int, epsilon: float, bounds: Bounds = (0.0, 1.0)) -> float:
    """The exact smallest margin of ``MLP(depth=1)`` within the ball around one x (D,), by linear programming.

    Within the ball a hidden unit is on, off, or may be either. For each pattern of the undecided ones the network is
    linear in a polytope, and a linear program finds its smallest lead over each rival; the smallest of all is exact.
    The number of programs doubles with each undecided unit. parameters: "layers.0.weight", … of one network.

    Raises ``ValueError`` for another network or parameters that are not finite, an x that does not fit, a label that is
    no class, and where more than 12 units are undecided.
    """
    if len(parameters) != 4 or not all(p.isfinite().all() for p in parameters.values()):
        raise ValueError(f"parameters: {', '.join(parameters)}; the four of an MLP(depth=1), all finite, are needed")
    first, b1, second, b2 = (p.detach().double().numpy() for p in parameters.values())
    check_classes(len(b2))
    if x.shape != first.shape[1:]:
        raise ValueError(f"x: shape {tuple(x.shape)}; one example of {first.shape[1]} inputs is needed")
    if int(y) != y or not 0 <= y < len(b2):
        raise ValueError(f"y: {y}; a class from 0 to {len(b2) - 1} is needed")
    low, high = (t.double().numpy() for t in ball(x, epsilon, bounds))
    positive, negative = np.maximum(first, 0), np.minimum(first, 0)
    smallest, largest = positive @ low + negative @ high + b1, positive @ high + negative @ low + b1
    undecided = np.flatnonzero((smallest < 0) & (largest > 0))
    if len(undecided) > 12:
        raise ValueError(f"epsilon: {epsilon} leaves {len(undecided)} hidden units undecided; at most 12 can be tried")
    on, found = smallest >= 0, np.inf
    for states in itertools.product((False, True), repeat=len(undecided)):
        on[undecided] = states
        signs = np.where(states, -1.0, 1.0)  # on: −(w z + b) ≤ 0; off: w z + b ≤ 0
        constraints = {"A_ub": signs[:, None] * first[undecided], "b_ub": -signs * b1[undecided]} if len(signs) else {}
        for rival in set(range(len(b2))) - {int(y)}:
            lead = (second[int(y)] - second[rival]) * on
            program = linprog(lead @ first, bounds=list(zip(low, high, strict=True)), method="highs", **constraints)
            if program.status == 0:  # 2: no point of the ball has this pattern
                found = min(found, program.fun + lead @ b1 + b2[int(y)] - b2[rival])
    return float(found)
