"""One parameter that takes part, as the backends see it."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from .coefficients import is_vector
from .options import option


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


def in_memory(t: Tensor) -> bool:
    """Whether a local part is its memory: not a wrapper around other tensors, a fake or a sparse one."""
    return type(t).__torch_dispatch__ is Tensor.__torch_dispatch__ and t.layout is torch.strided


def as_stored(t: Tensor) -> bool:
    """Whether the numbers in memory are the tensor's, with no sign or conjugate that is still to be taken."""
    return in_memory(t) and not t.is_conj() and not t.is_neg()


def sharding(t: Tensor) -> tuple:
    """The process groups over which a DTensor's elements are spread; () for a tensor that is here in full."""
    if not hasattr(t, "device_mesh"):
        return ()
    return tuple(t.device_mesh.get_group(i) for i, placement in enumerate(t.placements) if placement.is_shard())


def is_dense(t: Tensor, replicas: int | None) -> bool:
    """Whether the elements fill their memory without gaps, each replica's in one piece."""
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(t.stride(), t.shape, strict=True) if size > 1):
        if stride != expected:
            return False
        expected *= size
    return t.numel() == 0 or replicas in (None, 1) or t.stride(0) * replicas == t.numel()


class Flags(NamedTuple):
    """What of a group decides where its parameters go and how the kernel is compiled."""

    counts_on_device: bool
    amsgrad: bool
    maximize: bool
    differentiable: bool
    cautious: bool
    stochastic_rounding: bool
    vector_betas: bool
    state_dtype: torch.dtype | None

    @classmethod
    def of(cls, group: dict) -> "Flags":
        beta1, beta2 = group["betas"]
        return cls(
            bool(group["capturable"] or group["fused"]),
            bool(group["amsgrad"]),
            bool(group["maximize"]),
            bool(group["differentiable"]),
            bool(option(group, "cautious")),
            bool(option(group, "stochastic_rounding")),
            is_vector(beta1) or is_vector(beta2),
            option(group, "state_dtype"),
        )


class Entry:
    """A parameter with its number in the optimizer, its group, its state and the number of its replicas (1 without
    vectors). The state is let go as soon as somebody may change it, and its tensors are not held at all: whoever
    replaces one is to have its memory back."""

    def __init__(self, param: Tensor, index: int, group: dict, state: dict, replicas: int | None) -> None:
        self.param, self.index, self.group, self.state, self.replicas = param, index, group, state, replicas or 1
        self.device, self.dtype = param.device, param.dtype
        self.grad_dtype = param.dtype if param.grad is None else param.grad.dtype
        self.names = ("exp_avg", "exp_avg_sq") + (("max_exp_avg_sq",) if group["amsgrad"] else ())
        self.state_dtype, self.count_dtype = state["exp_avg"].dtype, state["step"].dtype

    @property
    def moments(self) -> list[Tensor]:
        """exp_avg, exp_avg_sq and, with AMSGrad, max_exp_avg_sq."""
        return [self.state[name] for name in self.names]

    @property
    def kind(self) -> tuple:
        """Entries of one kind go into one launch of the kernel."""
        dtypes = self.dtype, self.grad_dtype, self.state_dtype, self.count_dtype
        flags = Flags.of(self.group)._replace(vector_betas=False, state_dtype=None)
        return self.device, dtypes, flags, self.replicas
