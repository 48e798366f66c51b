"""Decay as a dose at one learning rate: what it does to the shape of the weights, and to the accuracy that a few bits
leave."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from adamw_book.evidence import grid

from .tasks import CONDITIONS, LOW, LOWER, PRESET, quantising

DOSE = {
    "lr": 0.01,
    "weight_decay": [0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
    "schemes": [LOW, LOWER, PRESET],
    "seeds": list(range(2100, 2112)),
}


def dose_response(seeds: Sequence[int], names: Sequence[str] = tuple(CONDITIONS)) -> pd.DataFrame:
    """AdamW under the named conditions at one learning rate and each decay, judged on validation data; the arm is
    "Adam" where the decay is 0. A tidy table with the column ``condition``."""
    runs = grid({"AdamW": {"lr": [DOSE["lr"]], "weight_decay": DOSE["weight_decay"]}}, seeds)
    runs["arm"] = np.where(runs["weight_decay"] == 0, "Adam", "AdamW")
    tables = []
    for name in names:
        one = CONDITIONS[name]
        one = replace(one, judge=quantising(one.task, {"validation": DOSE["schemes"]}))
        tables.append(one.train(runs, ("validation",), device="cpu").assign(condition=name))
    table = pd.concat(tables, ignore_index=True)
    return table[~table["metric"].str.contains("loss|weight norm")]
