"""The *tasks*: a network that has learned one collection of digits learns another, of which it sees five images a
class."""

from functools import partial

import numpy as np
import pandas as pd
import torch

from adamw_book.arms import ADAM, ADAM_L2, ADAMW, TO_START
from adamw_book.data import DIGITS_TEST, Splits, apart, digits, generator
from adamw_book.evidence import CONFIGURATION
from adamw_book.protocol import Condition
from adamw_book.task import Task

from .sources import MODELS, SOURCES, pre_trained

SHOTS = 5  # images a class to learn from
STEPS, BATCH, WARMUP = 200, 25, 0.1
SCRATCH = "from scratch"
ARMS = (ADAMW, ADAM_L2, ADAM, TO_START)

# Settled on validation data of other seeds: wide enough that the winners should lie inside.
PLAIN = {"lr": (0.0005, 0.1), "weight_decay": (0.03, 30.0), "l2": (0.0003, 0.3), "count": 36}
NORMALISED = {"lr": (0.0005, 0.1), "weight_decay": (0.1, 100.0), "l2": (0.001, 1.0), "count": 36}


def few_digits(seed: int) -> Splits:
    """scikit-learn's digits: ``SHOTS`` training images of each class, 400 to validate, the book's fixed test part."""
    parts = apart(*digits(), DIGITS_TEST)
    x, y = parts["rest"]
    order = torch.randperm(len(y), generator=generator(seed, "data"))
    train = torch.cat([order[y[order] == label][:SHOTS] for label in range(10)])
    others = order[~torch.isin(order, train)]
    chosen = {"train": train, "validation": others[:400]}
    return {name: (x[rows], y[rows]) for name, rows in chosen.items()} | {"test": parts["test"]}


def task(model: str, source: str) -> Task:
    """A network (a name in ``MODELS``) handed over from a source (a name in ``SOURCES``, or ``SCRATCH``): its body
    begins with the source's weights, its read-out is new."""
    start = None if source == SCRATCH else partial(pre_trained, model, source)
    return Task(f"{model} · {source}", MODELS[model], few_digits, start=start)


def toward(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with the column ``toward``: "start" for the arm ``TO_START``."""
    return runs.assign(toward=np.where(runs["arm"] == TO_START.name, "start", "zero"))


def condition(model: str, source: str) -> Condition:
    """One network and where it comes from."""
    return Condition(
        task(model, source), NORMALISED if "Norm" in model else PLAIN, steps=STEPS, batch_size=BATCH,
        schedule="warm-up + cosine",
        arms=[arm for arm in ARMS if source != SCRATCH or arm != TO_START], tuned=(*CONFIGURATION, "toward"),
        judged=("train", "test"), vary=toward,
    )  # fmt: skip


CONDITIONS = {
    f"{model} · {source}": condition(model, source)
    for model in MODELS
    for source in (*SOURCES, SCRATCH)
    if "CNN" not in model or source in ("useful source", SCRATCH)
}
