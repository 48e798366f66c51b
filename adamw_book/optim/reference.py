"""The update as tensor algebra: as short as the equations, run wherever torch runs, and the oracle for the faster
backends.

With θ the parameter, g its gradient, t the step (1 for the first), η ``lr``, λ ``weight_decay`` and ℓ ``l2``::

    g̃ = g + ℓ θ
    m ← β₁ m + (1 − β₁) g̃
    v ← β₂ v + (1 − β₂) g̃²
    θ ← (1 − η λ) θ − η · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)

λ > 0, ℓ = 0 is AdamW (Loshchilov and Hutter, 2019); λ = 0, ℓ > 0 is Adam with an L2 penalty; both 0 is Adam (Kingma
and Ba, 2015).
"""

import torch
from torch import Tensor


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
    l2: float | Tensor = 0.0,
    maximize: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """One step: the new (param, exp_avg, exp_avg_sq, max_exp_avg_sq); nothing is changed in place, autograd sees all
    of it.

    A coefficient is a number or a tensor that broadcasts against ``param``, (R, 1, …, 1) for one value a replica;
    ``step`` is t ≥ 1. ``max_exp_avg_sq`` given asks for AMSGrad (Reddi et al., 2018): the largest v so far takes v's
    place under the root.
    """
    grad = (-grad if maximize else grad) + l2 * param
    exp_avg = beta1 * exp_avg + (1 - beta1) * grad
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * grad * grad
    if max_exp_avg_sq is not None:
        max_exp_avg_sq = torch.maximum(max_exp_avg_sq, exp_avg_sq)
    second_moment = exp_avg_sq if max_exp_avg_sq is None else max_exp_avg_sq
    denominator = (second_moment / (1 - beta2**step)).sqrt() + eps
    param = (1 - lr * weight_decay) * param - lr / (1 - beta1**step) * exp_avg / denominator
    return param, exp_avg, exp_avg_sq, max_exp_avg_sq


def adamw_(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    max_exp_avg_sq: Tensor | None = None,
    *,
    differentiable: bool = False,
    **coefficients,
) -> None:
    """:func:`adamw` written back in place. Computes 16-bit parameters in float32; vectors (R,) get their place on the
    leading axis.

    With ``differentiable`` the step reads copies, so that autograd still finds the values from before it.
    """
    dtype = torch.promote_types(param.dtype, torch.float32)
    state = [t if t is None else t.to(dtype, copy=differentiable) for t in (param, exp_avg, exp_avg_sq, max_exp_avg_sq)]
    for name, value in coefficients.items():
        if isinstance(value, Tensor) and value.dim() == 1:
            coefficients[name] = value.view(-1, *[1] * (param.dim() - 1))
    updated = adamw(state[0], grad.to(dtype), *state[1:], **coefficients)
    for old, new in zip((param, exp_avg, exp_avg_sq, max_exp_avg_sq), updated, strict=True):
        if old is not None:
            old.copy_(new)
