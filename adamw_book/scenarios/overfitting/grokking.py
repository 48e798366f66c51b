"""The *showcase*: addition modulo a small prime, where a network that fits its training set perfectly does or does not
find the rule."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from adamw_book.data import modular_addition
from adamw_book.ensemble import Task, train
from adamw_book.models import QuadraticMLP

GROKKING = {
    "prime": 23,
    "share": 0.6,
    "width": 64,
    "steps": 1500,
    "lr": [0.0005, 0.0015, 0.005],
    "weight_decay": [1.0, 2.0, 3.0, 4.0],
    "l2": [0.0001, 0.0003, 0.001, 0.002],
    "lr_adam": [float(f"{lr:.3g}") for lr in np.geomspace(0.0001, 0.01, 12)],
    "tuning_seeds": list(range(10)),
    "evaluation_seeds": list(range(100, 112)),
}
GROKKING_TASK = Task(
    "addition modulo 23",
    lambda: QuadraticMLP(2 * GROKKING["prime"], GROKKING["width"], GROKKING["prime"]),
    lambda seed: modular_addition(seed, GROKKING["prime"], GROKKING["share"]),
)


def train_grokking(
    runs: pd.DataFrame, evaluate=("train", "test"), record: Sequence[int] | None = None, progress: bool = True
):
    """Train on addition modulo a prime, the whole training set at every step; returns the ensemble's tidy table."""
    return train(
        GROKKING_TASK, runs, steps=GROKKING["steps"], record=record, evaluate=evaluate, progress=progress
    ).table
