"""The update as tensor algebra: as short as the equations, run wherever torch runs, and the oracle for the faster
backends.

With θ the parameter, g its gradient, t the step (1 for the first), η ``lr``, λ ``weight_decay`` and ℓ ``l2``::

    g̃ = g + ℓ θ
    m ← β₁ m + (1 − β₁) g̃
    v ← β₂ v + (1 − β₂) g̃²
    θ ← (1 − η λ) θ − η · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)

λ > 0, ℓ = 0 is AdamW (Loshchilov and Hutter, 2019); λ = 0, ℓ > 0 is Adam with an L2 penalty; both 0 is Adam (Kingma and
Ba, 2015).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Step(NamedTuple):
    """The new parameter and state, and the two steps that lead there: param = old param − decay_step −
    gradient_step.
    """

    param: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    max_exp_avg_sq: Tensor | None
    decay_step: Tensor
    gradient_step: Tensor


def adamw(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    max_exp_avg_sq: Tensor | None = None,
    *,
    step: float | Tensor,
    lr: float | Tensor,
    beta1: float | Tensor,
    beta2: float | Tensor,
    eps: float,
    weight_decay: float | Tensor,
    decay_rate: float | Tensor | None = None,
    l2: float | Tensor = 0.0,
    maximize: bool = False,
    cautious: bool = False,
) -> Step:
    """One step; nothing is changed in place, autograd sees all of it.

    A coefficient is a number or a tensor that broadcasts against ``param``, (R, 1, …, 1) for one value a replica;
    ``step`` is t ≥ 1. ``max_exp_avg_sq`` given asks for AMSGrad (Reddi et al., 2018): the largest v so far takes v's
    place under the root. ``decay_rate`` given takes the place of ``lr`` in the decay. ``cautious`` decays only where
    the gradient step does not lead away from 0 (Chen et al., 2025).
    """
    grad = (-grad if maximize else grad) + _times(l2, param)
    exp_avg = beta1 * exp_avg + (1 - beta1) * grad
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * grad * grad
    if max_exp_avg_sq is not None:
        max_exp_avg_sq = torch.maximum(max_exp_avg_sq, exp_avg_sq)
    second_moment = exp_avg_sq if max_exp_avg_sq is None else max_exp_avg_sq
    denominator = (second_moment / (1 - beta2**step)).sqrt() + eps
    gradient_step = lr / (1 - beta1**step) * exp_avg / denominator
    decay = (lr if decay_rate is None else decay_rate) * weight_decay
    if cautious:
        decay = decay * (exp_avg * param >= 0).to(param.dtype)
    new = (1 - decay) * param - gradient_step
    return Step(new, exp_avg, exp_avg_sq, max_exp_avg_sq, _times(decay, param), gradient_step)


def _times(coefficient: float | Tensor, param: Tensor) -> float | Tensor:
    """Their product; 0 where the coefficient is 0, for a parameter of ±∞ (a mask) as well."""
    if isinstance(coefficient, Tensor):
        return torch.where(coefficient == 0, 0.0, coefficient * param)
    return coefficient * param if coefficient else torch.zeros_like(param)


def adamw_(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    max_exp_avg_sq: Tensor | None = None,
    *,
    differentiable: bool = False,
    stochastic_rounding: bool = False,
    index: int = 0,
    **coefficients,
) -> Step:
    """:func:`adamw` written back in place. Computes 16-bit parameters in float32; vectors (R,) get their place on the
    leading axis.

    With ``differentiable`` the step reads copies, so that autograd still finds the values from before it. ``index``,
    the parameter's number, goes into the random bits of :func:`round_stochastically`.
    """
    dtype = torch.promote_types(param.dtype, torch.float32)
    state = [t if t is None else t.to(dtype, copy=differentiable) for t in (param, exp_avg, exp_avg_sq, max_exp_avg_sq)]
    replicated = False
    for name, value in coefficients.items():
        if isinstance(value, Tensor) and value.dim() == 1:
            coefficients[name] = value.view(-1, *[1] * (param.dim() - 1))
            replicated = True
    new = adamw(state[0], grad.to(dtype), *state[1:], **coefficients)
    if stochastic_rounding and param.dtype == torch.bfloat16:
        row_length = param.numel() // (param.shape[0] if replicated else 1)
        new = new._replace(param=round_stochastically(new.param.float(), coefficients["step"], index, row_length))
    for old, value in zip((param, exp_avg, exp_avg_sq, max_exp_avg_sq), new[:4], strict=True):
        if old is not None:
            old.copy_(value)
    return new


def round_stochastically(x: Tensor, step: float | Tensor, index: int, row_length: int) -> Tensor:
    """float32 values rounded to bfloat16's precision, up with the probability that makes the mean right.

    The random bits are a hash of the element's place in its row, the step and the parameter's number ``index``: a run
    repeats itself, and a replica is rounded as it would be alone.
    """
    mask = 0xFFFFFFFF
    seed = (int(step) * 0x9E3779B1 + index * 0x85EBCA77) & mask
    bits = (torch.arange(x.numel(), device=x.device) % max(row_length, 1) & mask) ^ seed
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D & mask
    bits = (bits ^ (bits >> 15)) * 0x846CA68B & mask
    bits = bits ^ (bits >> 16)
    number = x.contiguous().view(torch.int32).long() & mask
    up = ((number + (bits.view(x.shape) & 0xFFFF)) & 0xFFFF0000).to(torch.int32).view(torch.float32)
    return torch.where(x.isfinite(), up, x)
