"""The run that Hugging Face's ``TrainingArguments`` describe, as their Trainer would set it up. transformers itself is
not needed: what is read are attributes."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from adamw_book.arguments import whole

from .course import above_zero, number, sizes

# The Trainer's own patterns (transformers 5, Trainer.get_decay_parameter_names); torch's LayerNorm is exempt as well.
_EXEMPT = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
_SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
}


class Run(NamedTuple):
    optimizer: Optimizer
    steps: int
    schedule: str | None
    warmup: int
    epochs_per_step: float | None


def is_training_arguments(value) -> bool:
    """Whether it has what is read here: an instance of transformers' class, or one that looks like it."""
    return all(hasattr(value, name) for name in ("learning_rate", "weight_decay", "lr_scheduler_type", "max_steps"))


def run_of(arguments, model: nn.Module | None, steps=None, batch_size=None, dataset_size=None, named=True) -> Run:
    """The optimizer, with the Trainer's groups where a model is given (else one stand-in matrix), and the schedule.

    Raises ValueError for an optimizer that is no AdamW, a schedule that has no name here (where it has to be ``named``:
    else it is None), and where the number of steps cannot be told.
    """
    name = str(getattr(arguments.optim, "value", arguments.optim))
    # "galore_adamw" and its like make groups of their own, in which weight_decay is not the Trainer's.
    if not name.removeprefix("paged_").startswith("adamw"):
        raise ValueError(
            f"optim: {name!r} is no AdamW, or not the Trainer's groups; audit the optimizer itself: "
            "audit(trainer.create_optimizer(), …)"
        )
    kind = str(getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type))
    if named and kind not in _SCHEDULES:
        known = ", ".join(map(repr, _SCHEDULES))
        raise ValueError(f"lr_scheduler_type: {kind!r} is none of {known}; give its scheduler or factors as schedule")
    accumulated = getattr(arguments, "gradient_accumulation_steps", 1)
    epochs = above_zero("num_train_epochs", arguments.num_train_epochs)
    dataset_size = dataset_size if dataset_size is None else whole("dataset_size", dataset_size)
    if batch_size is None and dataset_size is not None:
        each = getattr(arguments, "train_batch_size", None) or arguments.per_device_train_batch_size
        batch_size = min(each * accumulated * getattr(arguments, "world_size", 1), dataset_size)
    epochs_per_step = sizes(batch_size, dataset_size)
    if steps is None and arguments.max_steps > 0:
        steps = arguments.max_steps
    elif steps is None and epochs_per_step:
        steps = math.ceil(epochs * -(-dataset_size // batch_size))
    elif steps is None:
        raise ValueError("steps: TrainingArguments count epochs; give dataset_size, steps, or max_steps there")
    steps = whole("steps", steps)
    warmup = getattr(arguments, "warmup_steps", 0) or getattr(arguments, "warmup_ratio", None) or 0
    warmup = math.ceil(steps * warmup) if warmup < 1 else int(warmup)
    coefficients = {
        "lr": number("learning_rate", arguments.learning_rate, 0, needed="a finite number of 0 or more"),
        "betas": (getattr(arguments, "adam_beta1", 0.9), getattr(arguments, "adam_beta2", 0.999)),
        "eps": getattr(arguments, "adam_epsilon", 1e-8),
    }
    weight_decay = number("weight_decay", arguments.weight_decay, 0, needed="a finite number of 0 or more")
    if model is None:
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1, 1))], "weight_decay": weight_decay}]
    else:
        groups = _groups(model, weight_decay)
    warmup = 0 if kind == "constant" else warmup
    return Run(torch.optim.AdamW(groups, **coefficients), steps, _SCHEDULES.get(kind), warmup, epochs_per_step)


def _groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """The Trainer's groups, those without parameters left out."""
    layer_norms = {
        id(p)
        for module in model.modules()
        if isinstance(module, nn.LayerNorm)
        for p in module.parameters(recurse=False)
    }
    groups = {True: [], False: []}
    for name, p in model.named_parameters():
        if p.requires_grad:
            groups[id(p) not in layer_norms and not _EXEMPT.search(name.lower())].append((name, p))
    made = [
        {"params": named, "weight_decay": weight_decay if decayed else 0.0}
        for decayed, named in groups.items()
        if named
    ]
    if not made:
        raise ValueError("model: has no trainable parameters")
    return made
