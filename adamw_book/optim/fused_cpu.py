"""The same update through torch's own fused CPU kernel: one pass over memory, the list of tensors in one call.

torch's kernel knows one lr and one decay for all tensors. Per-replica coefficients still pass through it: it computes the direction
−m̂/(√v̂ + ε) into zeros (with lr = 1), and two cheap passes scale it by each replica's lr and shrink the parameters.
"""

import torch
from torch import Tensor

Coefficient = float | Tensor


def supports(param: Tensor, replicated: bool, betas: tuple[Coefficient, Coefficient]) -> bool:
    """Whether this parameter can go through torch's kernel: real floating point, dense, betas that are numbers."""
    if any(isinstance(b, Tensor) for b in betas) or param.device.type != "cpu" or not param.is_contiguous():
        return False
    return param.dtype in (
        (torch.float32, torch.float64) if replicated else (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    )


def adamw_(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    steps: list[Tensor],
    *,
    lr: Coefficient,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: Coefficient,
    l2: Coefficient,
    maximize: bool,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
) -> None:
    """One step in place for tensors of one dtype; ``lr``, ``weight_decay`` and ``l2`` are numbers or float64 tensors of shape (R,).

    ``steps`` holds each tensor's t ≥ 1. ``max_exp_avg_sqs`` is empty without AMSGrad. A ``found_inf`` of 1 leaves all as it was.
    """
    states = exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps
    options = {"amsgrad": bool(max_exp_avg_sqs), "beta1": beta1, "beta2": beta2, "eps": eps}
    if not any(isinstance(c, Tensor) for c in (lr, weight_decay, l2)) and (l2 == 0 or weight_decay == 0):
        kernel, decay = (torch._fused_adamw_, weight_decay) if l2 == 0 else (torch._fused_adam_, l2)
        kernel(
            params,
            grads,
            *states,
            lr=lr,
            weight_decay=decay,
            maximize=maximize,
            grad_scale=grad_scale,
            found_inf=found_inf,
            **options,
        )
        return
    if found_inf is not None and found_inf.item():
        return
    if grad_scale is not None:
        grads = torch._foreach_div(grads, grad_scale)
    if isinstance(l2, Tensor) or l2 != 0:
        penalty = torch._foreach_mul(params, _columns(l2, params))
        (torch._foreach_sub_ if maximize else torch._foreach_add_)(penalty, grads)
        grads, maximize = penalty, False
    keep = 1 - lr * weight_decay
    if isinstance(lr, Tensor):
        directions = [torch.zeros_like(p) for p in params]
        torch._fused_adamw_(
            directions,
            grads,
            *states,
            lr=1.0,
            weight_decay=0.0,
            maximize=maximize,
            grad_scale=None,
            found_inf=None,
            **options,
        )
        torch._foreach_mul_(params, _columns(keep, params))
        torch._foreach_addcmul_(params, directions, _columns(lr, params))
    else:
        torch._foreach_mul_(params, _columns(keep, params))
        torch._fused_adamw_(
            params,
            grads,
            *states,
            lr=lr,
            weight_decay=0.0,
            maximize=maximize,
            grad_scale=None,
            found_inf=None,
            **options,
        )


def _columns(coefficient: Coefficient, params: list[Tensor]) -> Coefficient | list[Tensor]:
    """A number as it is; a vector (R,) as one tensor (R, 1, …, 1) a parameter, in the parameters' dtype."""
    if not isinstance(coefficient, Tensor):
        return coefficient
    coefficient = coefficient.to(params[0].dtype)
    shaped = {n: coefficient.view(-1, *[1] * (n - 1)) for n in {p.dim() for p in params}}
    return [shaped[p.dim()] for p in params]
