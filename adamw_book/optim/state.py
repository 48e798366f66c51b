"""A parameter's state: torch's step count and moments, made, checked and brought into place."""

import torch
from torch import Tensor

from .entry import local

MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
STATE_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def state_dtype_of(p: Tensor, group: dict) -> torch.dtype:
    """The dtype of the moments: the group's ``state_dtype``, or the parameter's; a complex parameter keeps its own."""
    return group["state_dtype"] if group["state_dtype"] is not None and not p.is_complex() else p.dtype


def place_of_count(p: Tensor, group: dict) -> tuple[torch.device, torch.dtype]:
    """Where the group wants its step counts: on the CPU or beside the parameter, in torch's dtype for them."""
    double = torch.get_default_dtype() == torch.float64 and not group["fused"]
    device = p.device if group["capturable"] or group["fused"] else torch.device("cpu")
    return device, torch.float64 if double else torch.float32


def count(value: float, p: Tensor, group: dict) -> Tensor:
    """A step count in its place."""
    device, dtype = place_of_count(p, group)
    return torch.tensor(value, dtype=dtype, device=device)


def new_state(p: Tensor, group: dict) -> dict[str, Tensor]:
    """The state before the first step: a count of 0, moments of 0 in the parameter's memory format."""
    names = MOMENTS if group["amsgrad"] else MOMENTS[:2]
    zeros = {
        name: torch.zeros_like(p, memory_format=torch.preserve_format, dtype=state_dtype_of(p, group)) for name in names
    }
    return {"step": count(0.0, p, group), **zeros}


def fit(state: dict, p: Tensor, index: int, group: dict) -> None:
    """Refuse a state that is not this parameter's, and bring what came from elsewhere into place: a count on
    another device, moments that were saved beside a parameter of another memory format.
    """
    moments = [(name, state[name]) for name in MOMENTS if name in state]
    for name, moment in moments:
        if moment.shape != p.shape or moment.dtype != moments[0][1].dtype:
            raise ValueError(
                f"state of parameter {index}: {name} has shape {tuple(moment.shape)} and {moment.dtype}; shape "
                f"{tuple(p.shape)}, as the parameter's, and one dtype for all moments are needed (delete "
                "optimizer.state[parameter] to begin anew)"
            )
    if group["differentiable"]:
        return
    for name, moment in moments:
        if local(moment).stride() != local(p).stride():
            state[name] = torch.empty_like(p, dtype=moment.dtype).copy_(moment)
    step, (device, dtype) = state["step"], place_of_count(p, group)
    if step.device != device or step.dtype not in (torch.float32, torch.float64):
        state["step"] = step.detach().to(device, dtype)
