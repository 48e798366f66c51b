"""One parameter that has a gradient, as the backends see it."""

import torch
from torch import Tensor
from torch.nn import Parameter

from .coefficients import is_vector


def local(t: Tensor) -> Tensor:
    """The part of a tensor that this process holds: itself, or a DTensor's shard."""
    if type(t) is Tensor or type(t) is Parameter:
        return t
    t = t.to_local() if hasattr(t, "to_local") else t
    return t.wait() if hasattr(t, "wait") else t


def numbers(t: Tensor) -> Tensor:
    """The local part as real numbers: a complex tensor is seen as pairs."""
    t = local(t)
    return torch.view_as_real(t) if t.is_complex() else t


def is_dense(t: Tensor, replicas: int | None) -> bool:
    """Whether the elements fill their memory without gaps, each replica's in one piece."""
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(t.stride(), t.shape, strict=True) if size > 1):
        if stride != expected:
            return False
        expected *= size
    return t.numel() == 0 or replicas in (None, 1) or t.stride(0) * replicas == t.numel()


class Entry:
    """A parameter with its group, its state and the number of its replicas (1 without vectors)."""

    def __init__(self, param: Tensor, group: dict, state: dict, replicas: int | None) -> None:
        self.param, self.group, self.state, self.replicas = param, group, state, replicas or 1
        self.exp_avg, self.exp_avg_sq, self.step = state["exp_avg"], state["exp_avg_sq"], state["step"]
        self.max_exp_avg_sq = state["max_exp_avg_sq"] if group["amsgrad"] else None
        self.grad_dtype = param.grad.dtype
        self.device, self.dtype = param.device, param.dtype

    @property
    def moments(self) -> list[Tensor]:
        """exp_avg, exp_avg_sq and, with AMSGrad, max_exp_avg_sq."""
        return [t for t in (self.exp_avg, self.exp_avg_sq, self.max_exp_avg_sq) if t is not None]

    @property
    def kind(self) -> tuple:
        """Entries of one kind go into one launch of the kernel."""
        dtypes = self.dtype, self.grad_dtype, self.exp_avg.dtype, self.step.dtype
        return self.device, dtypes, flags(self.group)[:3]

    def fits(self) -> bool:
        """Whether gradient and state are still of the kind, and the tensors the ones, that were sorted at the
        last step.
        """
        grad, state = self.param.grad, self.state
        return (
            grad is not None
            and grad.dtype is self.grad_dtype
            and grad.layout is torch.strided
            and state.get("step") is self.step
            and state.get("exp_avg") is self.exp_avg
            and state.get("exp_avg_sq") is self.exp_avg_sq
        )


def flags(group: dict) -> tuple[bool, ...]:
    """What of a group decides where its parameters go: (steps on device, amsgrad, maximize, differentiable,
    vectors as betas).
    """
    on_device = bool(group["capturable"] or group["fused"])
    vectors = is_vector(group["betas"][0]) or is_vector(group["betas"][1])
    return on_device, bool(group["amsgrad"]), bool(group["maximize"]), bool(group["differentiable"]), vectors
