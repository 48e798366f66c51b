"""The null subspace of a language model: the rows of its embedding that belong to bytes which training never shows."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adamw_book.arms import THREE
from adamw_book.dynamics import drive, remaining, silent
from adamw_book.ensemble import Snapshot, initial_parameters, train
from adamw_book.models import matrices
from adamw_book.protocol import Condition
from adamw_book.task import Task

from .text import VOCABULARY

LEFT = "unused rows left"
EMBEDDING = "tokens.weight"
DOSE = {"lr": 0.003, "weight_decay": 3.0, "l2": 0.01}


def unused(task: Task, seed: int) -> Tensor:
    """The bytes, in order, that are the input of no training window under ``seed``. A read-out that is not tied to the
    embedding leaves their rows without gradient. Raises ``ValueError`` where all bytes occur."""
    seen = torch.bincount(task.data(seed)["train"][0].flatten(), minlength=VOCABULARY)
    found = torch.nonzero(seen == 0)[:, 0]
    if not len(found):
        raise ValueError(f"task: {task.name!r} shows all {VOCABULARY} bytes in training; none is left unused")
    return found


def starting_rows(task: Task, seed: int) -> Tensor:
    """The embedding of the unused bytes before training, (bytes, width)."""
    return initial_parameters(task.model, [seed])[EMBEDDING][0, unused(task, seed)]


def left(task: Task, snapshot: Snapshot) -> Tensor:
    """The norm of the unused bytes' rows, relative to its start, for each replica (R,)."""
    now, found = snapshot.parameters[EMBEDDING], []
    starts = {seed: starting_rows(task, int(seed)).norm() for seed in snapshot.runs["seed"].unique()}
    rows = {seed: unused(task, int(seed)).to(now.device) for seed in starts}
    for embedding, seed in zip(now, snapshot.runs["seed"], strict=True):
        found.append(embedding[rows[seed]].norm() / starts[seed])
    return torch.stack(found)


def measured(condition: Condition, seeds: Sequence[int], every: int = 10, dose: Mapping = DOSE) -> pd.DataFrame:
    """What the three arms, each with its dose, leave of the unused rows every so many steps: a tidy table."""
    arms = [{"arm": arm.name, "lr": dose["lr"]} | arm.coefficients(dose.get(arm.decay, 0.0)) for arm in THREE]
    runs = pd.DataFrame(arms).merge(pd.DataFrame({"seed": list(seeds)}), how="cross")
    table = train(
        condition.task, runs, steps=condition.steps, batch_size=condition.batch_size, schedule=condition.schedule,
        decays=matrices, evaluate=(), record=range(0, condition.steps + 1, every),
        measure=lambda snapshot: {LEFT: left(condition.task, snapshot)}, chunk_size=condition.chunk_size,
    ).table  # fmt: skip
    return table[table["metric"] == LEFT]


def predicted(condition: Condition, seed: int, dose: Mapping = DOSE) -> dict[str, np.ndarray]:
    """{arm: what it leaves of the unused rows after 0 … steps updates, (steps + 1,)}, without any training.

    AdamW: F1, the product of 1 − η_t λ. Adam: all. Adam + L2: its update with no gradient but the penalty's, from the
    same start; a closed form ends where the rows near zero.
    """
    steps, schedule = condition.steps, condition.schedule
    start = starting_rows(condition.task, seed).flatten()[None]
    path = drive(silent, start, steps, schedule=schedule, lr=dose["lr"], l2=dose["l2"])
    return {
        "AdamW": remaining(dose["lr"], dose["weight_decay"], steps, schedule),
        "Adam + L2": (path.norm(dim=2) / start.norm()).squeeze(1).numpy(),
        "Adam": np.ones(steps + 1),
    }
