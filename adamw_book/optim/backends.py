"""Which backends there are, and what keeps a parameter from one of them."""

import os
from importlib.util import find_spec

import torch
from torch import Tensor

from . import fused_cpu
from .coefficients import is_vector
from .entry import as_stored, in_memory, is_dense, local
from .options import option
from .state import state_dtype_of

BACKENDS = ("triton", "torch", "reference")
KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.complex64, torch.complex128)


def why_not_torch(p: Tensor, group: dict, replicas: int | None, explain: bool) -> str | None:
    """What keeps a parameter from torch's fused kernel, if anything does."""
    beyond = {
        "explain": explain,
        "cautious": option(group, "cautious"),
        "differentiable": group["differentiable"],
        f"state_dtype={option(group, 'state_dtype')}": state_dtype_of(p, group) != p.dtype,
        "stochastic_rounding": option(group, "stochastic_rounding") and p.dtype == torch.bfloat16,
        "a vector as beta": any(map(is_vector, group["betas"])),
    }
    if problem := _why_not_by_address(p):
        return problem
    if asked := [what for what, is_asked in beyond.items() if is_asked]:
        return f"does not support {', '.join(asked)}"
    if not fused_cpu.supports(local(p), replicas, group["betas"]):
        layout = "" if local(p).is_contiguous() else ", not contiguous"
        rows = f" with {replicas} replicas" if replicas else ""
        return (
            "covers contiguous parameters on the CPU of torch.float32, torch.float64 and, without replicas, 16 bits; "
            f"got {p.dtype} on {p.device}{layout}{rows}"
        )
    return None


def why_not_triton(p: Tensor, group: dict, replicas: int | None) -> str | None:
    """What keeps a parameter from the kernel, if anything does."""
    if find_spec("triton") is None:
        return "needs the package triton, which is not installed"
    if problem := _why_not_by_address(p):
        return problem
    if p.device.type != "cuda" and not (p.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return (
            f"needs parameters on a CUDA device, got {p.device} (with TRITON_INTERPRET=1 set before the first import, "
            "Triton interprets the kernel on the CPU)"
        )
    if group["differentiable"]:
        return "does not support differentiable=True"
    if p.dtype not in KERNEL_DTYPES:
        return f"supports {', '.join(map(str, KERNEL_DTYPES))}, got {p.dtype}"
    if not is_dense(local(p), replicas):
        return f"needs dense parameters, replica after replica, got shape {tuple(p.shape)} with strides {p.stride()}"
    return None


def _why_not_by_address(p: Tensor) -> str | None:
    """What keeps a parameter, or its gradient, from being read and written where its memory is, if anything does."""
    if not as_stored(local(p)):
        return f"needs parameters that are their memory, got {type(p).__name__} (a wrapper, fake, or to be conjugated)"
    if p.grad is not None and not in_memory(local(p.grad)):
        return f"needs gradients that are their memory, got {type(p.grad).__name__}"
    return None
