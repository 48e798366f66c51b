"""The *tasks*: small transformers that predict the next byte of source text, which pass over it once or many times."""

import math
from functools import partial

from torch import Tensor

from adamw_book.protocol import Condition
from adamw_book.task import Task, cross_entropies
from adamw_book.transformer import GPT

from . import outliers, rows
from .text import VOCABULARY, shares, text_splits

LENGTH, BATCH, STEPS, REPEATED = 32, 8, 500, 160
MODEL = {"vocabulary": VOCABULARY, "context": LENGTH, "width": 32, "depth": 2, "heads": 2}
SIZES = {"validation": 512, "test": 1024, "length": LENGTH}  # windows, and their bytes
# How often a byte occurs, as a share of the training text: from the first bound up to, not including, the second.
FREQUENCY = {"common": (0.01, 2.0), "middling": (0.001, 0.01), "rare": (0.0, 0.001)}

# Settled on validation data alone: wide enough that the winners lie inside.
RANGES = {"lr": (0.0008, 0.01), "weight_decay": (0.1, 10.0), "l2": (0.001, 0.1), "count": 9}


def bits_per_byte(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the next byte: logits (R, N, T, C), bytes (R, N, T) → (R,), in bits."""
    return cross_entropies(logits, targets).flatten(1).mean(1) / math.log(2)


def bits_per_byte_of(kind: str, logits: Tensor, targets: Tensor) -> Tensor:
    """:func:`bits_per_byte` over the bytes to predict that are of one frequency (a name in ``FREQUENCY``)."""
    low, high = FREQUENCY[kind]
    share = shares().to(targets.device)[targets]
    mine = ((share >= low) & (share < high)).flatten(1)
    return (cross_entropies(logits, targets).flatten(1) * mine).sum(1) / mine.sum(1) / math.log(2)


METRICS = {"bits per byte": bits_per_byte}
METRICS |= {f"bits per {kind} byte": partial(bits_per_byte_of, kind) for kind in FREQUENCY}


def measure(condition: Condition):
    """What is measured of each trained model: what is left of unused rows, and outliers."""
    return lambda snapshot: {
        rows.LEFT: rows.left(condition.task, snapshot), **outliers.outliers(condition.task, snapshot)
    }  # fmt: skip


def condition(name: str, norm: str = "pre", steps: int = STEPS, windows: int | None = None, **search) -> Condition:
    """A transformer with this ``norm``, trained for ``steps`` on so many ``windows``, by default as many as it takes to
    meet each once. ``search``: where its ranges differ from ``RANGES``."""
    task = Task(
        name,
        partial(GPT, **MODEL, norm=norm),
        partial(text_splits, train=windows or steps * BATCH, **SIZES),
        metrics=METRICS,
    )
    return Condition(
        task,
        RANGES | search,
        steps=steps,
        batch_size=BATCH,
        schedule="warm-up + cosine",
        rules={"bits": "validation bits per byte"},
        judged=("train", "test") if windows else ("test",),
        chunk_size=12,
        measure=measure,
    )


PRIMARY, POST = "pre-norm · one pass", "post-norm · one pass"
AGAIN, LONGER = f"pre-norm · {REPEATED} windows, again and again", "pre-norm · one pass, twice as long"
CONDITIONS = {
    PRIMARY: condition(PRIMARY, count=16),
    POST: condition(POST, norm="post"),
    AGAIN: condition(AGAIN, windows=REPEATED, lr=(0.0008, 0.025), count=11),
    LONGER: condition(LONGER, steps=2 * STEPS),
}
