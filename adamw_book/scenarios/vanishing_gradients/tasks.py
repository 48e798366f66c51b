"""The *tasks*: digits of which some pixels are silent while a network trains and switch on when it is tested, and
digits so few that they leave directions of input space out."""

from collections.abc import Sequence
from functools import cache, partial

import pandas as pd
import torch
from torch import Tensor, nn

from adamw_book.arguments import whole
from adamw_book.data import Splits, digits, digits_splits, generator, varying
from adamw_book.ensemble import Result
from adamw_book.models import MLP
from adamw_book.protocol import Condition
from adamw_book.task import Task

from .null_space import halvings, null_projector

TRAIN, SILENT, LEAST_SD, FEW = 300, 16, 0.25, 40
SWITCHED_ON = "accuracy change at switch-on"
MODELS = {
    f"MLP, {depth} hidden layer{'s' * (depth > 1)}{', LayerNorm' * norm}": partial(MLP, depth=depth, norm=norm)
    for depth in (1, 4)
    for norm in (False, True)
}
LABEL_NOISE = {"clean labels": 0.0, "20% wrong labels": 0.2}

# Settled on validation data alone: wide enough that the winners lie inside; ℓ begins where it is next to nothing.
PLAIN = {"lr": (0.0005, 0.15), "weight_decay": (0.02, 12.0), "l2": (0.0001, 0.06), "count": 30}
NORMALISED = {
    "clean labels": {"lr": (0.001, 0.1), "weight_decay": (0.05, 30.0), "l2": (0.001, 0.6), "count": 30},
    "20% wrong labels": {"lr": (0.0003, 0.1), "weight_decay": (0.1, 60.0), "l2": (0.006, 3.6), "count": 30},
}
FEW_LINEAR = {"lr": (0.005, 1.5), "weight_decay": (0.004, 2.4), "l2": (0.00003, 0.018), "count": 30}
FEW_NORMALISED = {"lr": (0.001, 0.3), "weight_decay": (0.005, 3.0), "l2": (0.0003, 0.18), "count": 30}


@cache
def silent_pixels(seed: int, silent: int = SILENT, least_sd: float = LEAST_SD) -> Tensor:
    """The pixels (silent,) that are silenced under one seed: drawn among those whose standard deviation over all digits
    exceeds ``least_sd``, for a pixel that hardly ever sees ink would change nothing when it switches on. Raises
    ``ValueError`` where there are fewer of them than ``silent``, or it is not positive."""
    candidates = varying(digits()[0], least_sd)
    whole("silent", silent, 1, len(candidates), f"a whole number from 1 to {len(candidates)}, the pixels that vary,")
    return candidates[torch.randperm(len(candidates), generator=generator(seed, "silent pixels"))[:silent]]


def silenced(seed: int, label_noise: float) -> Splits:
    """Digits with the pixels ``silent_pixels(seed)`` at zero in "train", "validation" and "test"; the splits
    "validation, switched on" and "test, switched on" are the same examples with the pixels' own values."""
    whole_images = digits_splits(seed, train=TRAIN, label_noise=label_noise, fixed_test=True)
    pixels = silent_pixels(seed)
    splits = {name: (x.index_fill(1, pixels, 0.0), y) for name, (x, y) in whole_images.items()}
    return splits | {f"{name}, switched on": whole_images[name] for name in ("validation", "test")}


def on_silent_pixels(seed: int) -> Tensor:
    """The projection (64, 64) on the silent pixels."""
    return torch.zeros(64).index_fill(0, silent_pixels(seed), 1.0).diag()


def switched_on(result: Result, splits: Sequence[str]) -> pd.DataFrame:
    """A condition's ``judge``: what switching on does to each run, the accuracy with the pixels on minus that with the
    pixels silent, in the split that was judged both ways."""
    table, both = result.table, [name for name in splits if f"{name}, switched on" in splits]
    changes = table[:0]
    for name in both:
        on, silent = (table[table["metric"] == f"{split} accuracy"] for split in (f"{name}, switched on", name))
        changes = on.assign(metric=SWITCHED_ON, value=on["value"].to_numpy() - silent["value"].to_numpy())
    return changes


def silent_condition(model: str, labels: str) -> Condition:
    """One network (a name in ``MODELS``) on silenced digits with labels of one kind (a name in ``LABEL_NOISE``). The
    rule "oracle" chooses with the pixels on, which nobody sees before they are."""
    return Condition(
        Task(f"silent pixels · {model} · {labels}", MODELS[model], lambda seed: silenced(seed, LABEL_NOISE[labels])),
        NORMALISED[labels] if "Norm" in model else PLAIN,
        steps=400,
        batch_size=50,
        schedule="cosine",
        rules={"accuracy": "validation accuracy", "oracle": "validation, switched on accuracy"},
        seen=("validation", "validation, switched on"),
        judged=("test", "test, switched on"),
        judge=switched_on,
        measure=halvings(on_silent_pixels),
    )


SILENCED = [silent_condition(model, labels) for labels in LABEL_NOISE for model in MODELS]


def few_digits(seed: int) -> Splits:
    """Digits with fewer training images than pixels."""
    return digits_splits(seed, train=FEW, fixed_test=True)


@cache
def left_out(seed: int) -> Tensor:
    """The projection (64, 64) on the directions that the few training images leave out."""
    return null_projector(few_digits(seed)["train"][0])


def few_condition(name: str, model: partial | type, search: dict) -> Condition:
    """A network that sees all of the few images at every step."""
    task = Task(f"{FEW} images · {name}", model, few_digits)
    return Condition(task, search, steps=400, schedule="cosine", judged=("test",), measure=halvings(left_out))


FEW_IMAGES = [
    few_condition("linear", partial(nn.Linear, 64, 10), FEW_LINEAR),
    few_condition("MLP, 1 hidden layer", MODELS["MLP, 1 hidden layer"], PLAIN),
    few_condition("MLP, 1 hidden layer, LayerNorm", MODELS["MLP, 1 hidden layer, LayerNorm"], FEW_NORMALISED),
]
CONDITIONS = {condition.task.name: condition for condition in [*SILENCED, *FEW_IMAGES]}
