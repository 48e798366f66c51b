"""Decay as a dose at one learning rate: no tuning, and no choice of what to tune for."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from adamw_book.evidence import grid

from .tasks import CONDITIONS, COUNTS, LOSSES

DOSE = {"lr": 0.01, "weight_decay": [0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0], "seeds": list(range(2100, 2124))}
LONG = {"steps": 5000, "weight_decay": [0.0, 1.0]}
WAYS = {
    "no class weights": "unweighted",
    "no weights, decayed bias": "unweighted · decayed bias",
    "class weights": "class-weighted",
}


def fixed_recipe(name: str, seeds: Sequence[int], weight_decay: Sequence[float], steps: int = 1000) -> pd.DataFrame:
    """AdamW under one condition at one learning rate and each decay, judged on test data; the arm is "Adam" where the
    decay is 0."""
    runs = grid({"AdamW": {"lr": [DOSE["lr"]], "weight_decay": weight_decay}}, seeds)
    runs["arm"] = np.where(runs["weight_decay"] == 0, "Adam", "AdamW")
    table = CONDITIONS[name].train(runs, ("test",), steps=steps)
    return table[table["metric"].str.contains("recall|balanced|AUC|calibration")].assign(condition=name)


def doses(seeds: Sequence[int]) -> pd.DataFrame:
    """Every decay of ``DOSE`` for both data sets, in three ways (columns ``data`` and ``training``)."""
    tables = [
        fixed_recipe(f"{data} · MLP · {way}", seeds, DOSE["weight_decay"]).assign(training=label, data=data)
        for data in COUNTS
        for label, way in WAYS.items()
    ]
    return pd.concat(tables, ignore_index=True)


def long_training(seeds: Sequence[int]) -> pd.DataFrame:
    """λ = 1 against no decay in training five times as long, with and without class weights."""
    names = [f"{data} · MLP · {loss}" for data in COUNTS for loss in LOSSES]
    return pd.concat([fixed_recipe(n, seeds, LONG["weight_decay"], LONG["steps"]) for n in names], ignore_index=True)
