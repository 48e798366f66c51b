"""The *tasks*: small transformers that predict the next byte of source text, which pass over it once or many times."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from adamw_book.protocol import Condition
from adamw_book.task import Task, cross_entropies
from adamw_book.transformer import GPT

from . import outliers, rows
from .text import VOCABULARY, Corpus, library_text, shares, text_splits

LENGTH, BATCH, STEPS, REPEATED = 32, 8, 500, 160
MODEL = {"vocabulary": VOCABULARY, "context": LENGTH, "width": 32, "depth": 2, "heads": 2}
SIZES = {"validation": 512, "test": 1024, "length": LENGTH}  # windows, and their bytes
# How often a byte occurs, as a share of the training text: from the first bound up to, not including, the second.
FREQUENCY = {"common": (0.01, 2.0), "middling": (0.001, 0.01), "rare": (0.0, 0.001)}

# Settled on validation data alone: wide enough that the winners lie inside.
RANGES = {"lr": (0.0008, 0.01), "weight_decay": (0.1, 10.0), "l2": (0.001, 0.1), "count": 9}


@dataclass(frozen=True)
class Setting:
    """What the conditions of a study share. model: the sizes of a :class:`GPT`. data: what :func:`.text.text_splits`
    takes but for ``train`` and ``corpus``."""

    model: Mapping
    batch: int
    steps: int
    data: Mapping
    ranges: Mapping
    corpus: Corpus = library_text
    chunk_size: int | None = None


SMALL = Setting(MODEL, BATCH, STEPS, SIZES, RANGES, chunk_size=12)


def bits_per_byte(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the next byte: logits (R, N, T, C), bytes (R, N, T) → (R,), in bits."""
    return cross_entropies(logits, targets).flatten(1).mean(1) / math.log(2)


def bits_per_byte_of(kind: str, logits: Tensor, targets: Tensor, corpus: Corpus = library_text) -> Tensor:
    """:func:`bits_per_byte` over the bytes to predict that are of one frequency (a name in ``FREQUENCY``)."""
    low, high = FREQUENCY[kind]
    share = shares(corpus).to(targets.device)[targets]
    mine = ((share >= low) & (share < high)).flatten(1)
    return (cross_entropies(logits, targets).flatten(1) * mine).sum(1) / mine.sum(1) / math.log(2)


def metrics(corpus: Corpus = library_text) -> dict:
    """Bits a byte, of all bytes and by how often they occur."""
    by_frequency = {f"bits per {kind} byte": partial(bits_per_byte_of, kind, corpus=corpus) for kind in FREQUENCY}
    return {"bits per byte": bits_per_byte} | by_frequency


METRICS = metrics()


def measure(condition: Condition, corpus: Corpus = library_text):
    """What is measured of each trained model: what is left of unused rows, and outliers."""
    return lambda snapshot: {
        rows.LEFT: rows.left(condition.task, snapshot), **outliers.outliers(condition.task, snapshot, corpus)
    }  # fmt: skip


def condition(
    name: str, norm: str = "pre", steps: int | None = None, windows: int | None = None, setting: Setting = SMALL,
    **search,
) -> Condition:  # fmt: skip
    """A transformer with this ``norm``, trained for ``steps`` on so many ``windows``, by default as many as it takes to
    meet each once. ``search``: where its ranges differ from the setting's."""
    steps = setting.steps if steps is None else steps
    task = Task(
        name,
        partial(GPT, **setting.model, norm=norm),
        partial(text_splits, train=windows or steps * setting.batch, corpus=setting.corpus, **setting.data),
        metrics=metrics(setting.corpus),
    )
    return Condition(
        task,
        {**setting.ranges, **search},
        steps=steps,
        batch_size=setting.batch,
        schedule="warm-up + cosine",
        rules={"bits": "validation bits per byte"},
        judged=("train", "test") if windows else ("test",),
        chunk_size=setting.chunk_size,
        measure=partial(measure, corpus=setting.corpus),
    )


PRIMARY, POST = "pre-norm · one pass", "post-norm · one pass"
AGAIN, LONGER = f"pre-norm · {REPEATED} windows, again and again", "pre-norm · one pass, twice as long"
CONDITIONS = {
    PRIMARY: condition(PRIMARY, count=16),
    POST: condition(POST, norm="post"),
    AGAIN: condition(AGAIN, windows=REPEATED, lr=(0.0008, 0.025), count=11),
    LONGER: condition(LONGER, steps=2 * STEPS),
}
