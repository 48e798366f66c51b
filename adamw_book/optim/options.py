"""The options of a parameter group that torch's AdamW does not have.

A group says nothing of an option that stands at its default. The groups of an AdamW that uses none of them therefore
have torch's keys and no others, and a checkpoint of either fits the other, flat ones of torch.distributed included.
"""

from numbers import Real

from torch import Tensor

DEFAULTS = {
    "l2": 0.0,
    "lr_independent": False,
    "cautious": False,
    "stochastic_rounding": False,
    "state_dtype": None,
    "max_norm": None,
    "explain": False,
}


def option(group: dict, name: str):
    """What a group says of one of these options, or its default."""
    return group.get(name, DEFAULTS[name])


def said(options: dict) -> dict:
    """Those of some options that do not stand at their defaults."""
    return {name: value for name, value in options.items() if isinstance(value, Tensor) or value != DEFAULTS[name]}


def max_norm_of(groups: list[dict]) -> float | None:
    """The norm to which the gradients of all groups together are scaled down; groups that say nothing go along."""
    norms = [value for group in groups if (value := option(group, "max_norm")) is not None]
    numbers = all(isinstance(n, Real) or (isinstance(n, Tensor) and n.numel() == 1) for n in norms)
    if not numbers or any(not 0.0 < norm or norm != norms[0] for norm in norms):
        named = ", ".join(map(str, norms))
        raise ValueError(f"Invalid max_norm value: {named}; a number above 0, or None, the same for all groups")
    return norms[0] if norms else None
