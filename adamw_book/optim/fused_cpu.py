"""The same update through torch's own fused CPU kernel: one pass over memory, the list of tensors in one call.

torch's kernel knows one lr and one decay for all tensors. Per-replica coefficients still pass through it: it computes
the direction −m̂/(√v̂ + ε) into zeros (with lr = 1), and two cheap passes scale it by each replica's lr and shrink the
parameters.
"""

import torch
from torch import Tensor

from .coefficients import is_vector

Coefficient = float | Tensor


def supports(param: Tensor, replicas: int | None, betas: tuple[Coefficient, Coefficient]) -> bool:
    """Whether a parameter can go through torch's kernel: contiguous floating point on the CPU, betas that are
    numbers.
    """
    if is_vector(betas[0]) or is_vector(betas[1]) or not param.is_cpu or not param.is_contiguous():
        return False
    return param.dtype in (torch.float32, torch.float64) or (
        replicas is None and param.dtype in (torch.bfloat16, torch.float16)
    )


def adamw_(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    steps: list[Tensor],
    scratch: list[Tensor],
    *,
    lr: Coefficient,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: Coefficient,
    decay_rate: Coefficient,
    l2: Coefficient,
    maximize: bool,
) -> None:
    """One step in place for tensors of one dtype; ``lr``, ``weight_decay`` and ``l2`` are numbers or float64 tensors
    of shape (R,).

    ``steps`` holds each tensor's t ≥ 1. ``max_exp_avg_sqs`` is empty without AMSGrad. ``scratch``, a tensor like each
    parameter, is needed where there are vectors.
    """
    states = exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps
    options = {"amsgrad": bool(max_exp_avg_sqs), "beta1": beta1, "beta2": beta2, "eps": eps}
    options |= {"grad_scale": None, "found_inf": None}
    decay = decay_rate * weight_decay
    penalized, decayed = (bool(c.any()) if isinstance(c, Tensor) else c != 0 for c in (l2, decay))
    if penalized and (decayed or isinstance(l2, Tensor) or isinstance(lr, Tensor)):
        penalty = torch._foreach_mul(params, _columns(l2, params))
        if isinstance(l2, Tensor):  # 0·∞ is not 0
            free = (l2 == 0).nonzero()[:, 0]
            penalty = [p.index_fill_(0, free, 0.0) for p in penalty] if len(free) else penalty
        (torch._foreach_sub_ if maximize else torch._foreach_add_)(penalty, grads)
        grads, maximize, penalized = penalty, False, False
    if isinstance(lr, Tensor):
        torch._foreach_zero_(scratch)
        torch._fused_adamw_(scratch, grads, *states, lr=1.0, weight_decay=0.0, maximize=maximize, **options)
        if decayed:
            torch._foreach_mul_(params, _columns(1 - decay, params))
        torch._foreach_addcmul_(params, scratch, _columns(lr, params))
    elif penalized:
        torch._fused_adam_(params, grads, *states, lr=lr, weight_decay=l2, maximize=maximize, **options)
    else:
        if isinstance(decay, Tensor) or decay != lr * weight_decay:
            torch._foreach_mul_(params, _columns(1 - decay, params))
            weight_decay = 0.0
        torch._fused_adamw_(params, grads, *states, lr=lr, weight_decay=weight_decay, maximize=maximize, **options)


def _columns(coefficient: Coefficient, params: list[Tensor]) -> Coefficient | list[Tensor]:
    """A number as it is; a vector (R,) as one tensor (R, 1, …, 1) a parameter, in the parameters' dtype."""
    if not isinstance(coefficient, Tensor):
        return coefficient
    coefficient = coefficient.to(params[0].dtype)
    shaped = {n: coefficient.view(-1, *[1] * (n - 1)) for n in {p.dim() for p in params}}
    return [shaped[p.dim()] for p in params]
