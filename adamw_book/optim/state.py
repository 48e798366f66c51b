"""A parameter's state: torch's step count and moments, made, checked and brought into place."""

import torch
from torch import Tensor

from .entry import in_memory, local
from .options import option

MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
STATE_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def state_dtype_of(p: Tensor, group: dict) -> torch.dtype:
    """The dtype of the moments: the group's ``state_dtype``, or the parameter's; a complex parameter keeps its own.

    Raises:
        ValueError: the group's is none of ``STATE_DTYPES``.
    """
    wanted = option(group, "state_dtype")
    if wanted not in (None, *STATE_DTYPES):
        known = ", ".join(map(str, STATE_DTYPES))
        raise ValueError(f"Invalid state_dtype: {wanted}; one of {known}, or None for the parameters'")
    return p.dtype if wanted is None or p.is_complex() else wanted


def place_of_count(p: Tensor, group: dict) -> tuple[torch.device, torch.dtype]:
    """Where the group wants its step counts: on the CPU or beside the parameter; float32, or float64 where torch's
    default says so and where random bits hang on them, for float32 stands still at 2²⁴."""
    double = torch.get_default_dtype() == torch.float64 and not group["fused"]
    device = p.device if group["capturable"] or group["fused"] else torch.device("cpu")
    return device, torch.float64 if double or option(group, "stochastic_rounding") else torch.float32


def count(value: float, p: Tensor, group: dict) -> Tensor:
    """A step count in its place."""
    device, dtype = place_of_count(p, group)
    return torch.tensor(value, dtype=dtype, device=device)


def names_of(group: dict) -> tuple[str, ...]:
    """The moments that a group keeps."""
    return MOMENTS if group["amsgrad"] else MOMENTS[:2]


def new_state(p: Tensor, group: dict) -> dict[str, Tensor]:
    """The state before the first step: a count of 0, moments of 0 in the parameter's memory format."""
    zeros = {
        name: torch.zeros_like(p, memory_format=torch.preserve_format, dtype=state_dtype_of(p, group))
        for name in names_of(group)
    }
    return {"step": count(0.0, p, group), **zeros}


def fit(state: dict, p: Tensor, index: int, group: dict, recast: bool) -> None:
    """Refuse a state that is not this parameter's, and bring what came from elsewhere into place: a count that is a
    number or lies on another device, moments that were saved beside a parameter of another memory format. With
    ``recast``, after a change of ``state_dtype``, moments of the dtype before are cast."""
    anew = "delete optimizer.state[parameter] to begin anew"
    for name in ("step", *names_of(group)):
        if name not in state:
            raise ValueError(
                f"state of parameter {index}: {name!r} is missing, only {', '.join(map(repr, state))} are there; a "
                f"state of AdamW with amsgrad={group['amsgrad']} is needed ({anew})"
            )
    dtype = state_dtype_of(p, group)
    moments = [(name, state[name]) for name in names_of(group)]
    for name, moment in moments:
        misfit = not isinstance(moment, Tensor) or moment.shape != p.shape or moment.device != p.device
        if misfit or (moment.dtype != dtype and not recast):
            found = (
                f"shape {tuple(moment.shape)}, {moment.dtype} on {moment.device}"
                if isinstance(moment, Tensor)
                else repr(moment)
            )
            raise ValueError(
                f"state of parameter {index}: {name} has {found}; shape {tuple(p.shape)}, {dtype} on {p.device} is "
                f"needed for a parameter of {p.dtype} with state_dtype={option(group, 'state_dtype')} ({anew})"
            )
    step = state["step"]
    if not isinstance(step, Tensor):
        if not isinstance(step, (int, float)):
            raise ValueError(f"state of parameter {index}: step is {step!r}; a number of steps is needed ({anew})")
        step = state["step"] = count(float(step), p, group)
    if step.numel() != 1:
        shape = tuple(step.shape)
        raise ValueError(f"state of parameter {index}: step has shape {shape}; one number is needed ({anew})")
    if group["differentiable"]:
        return
    for name, moment in moments:
        misplaced = in_memory(local(p)) and local(moment).stride() != local(p).stride()
        if misplaced or moment.dtype != dtype or moment.is_conj() or moment.is_neg():
            state[name] = torch.empty_like(p, dtype=dtype).copy_(moment)
    device, dtype = place_of_count(p, group)
    exact = dtype if option(group, "stochastic_rounding") else step.dtype
    if step.device != device or step.dtype not in (torch.float32, torch.float64) or step.dtype != exact:
        state["step"] = step.detach().to(device, dtype)
