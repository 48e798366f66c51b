"""The *tasks*: digits with right and with some wrong training labels, learned by an MLP with and without LayerNorm and
by a CNN with GroupNorm; what a judge makes of the trained networks by quantising their weights; and the same networks
trained for their quantised weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from adamw_book.arms import ADAM, ADAMW
from adamw_book.data import digits_splits
from adamw_book.ensemble import Result, Task, accuracy
from adamw_book.models import CNN, MLP
from adamw_book.protocol import Condition
from adamw_book.trained import each

from .aware import QuantisationAware
from .quantisers import Scheme, clipped, crest, is_weight, kurtosis, over_weights, quantised, relative_error

TRAIN = 400
LABEL_NOISE = {"clean labels": 0.0, "20% wrong labels": 0.2}
MODELS = {
    "MLP": lambda: MLP(),
    "MLP, LayerNorm": lambda: MLP(norm=True),
    "CNN, GroupNorm": lambda: CNN(norm=True),
}
# Settled on validation data alone (the overfitting chapter's winners): wide enough that the winners lie inside.
PLAIN = {"lr": (0.001, 0.3), "weight_decay": (0.02, 8.0), "l2": (0.0003, 0.12), "count": 18}
NORMALISED = PLAIN | {"weight_decay": (0.1, 60.0), "l2": (0.006, 3.6)}

PRESETS = (1.0, 0.5, 0.25, 0.125)
SCHEMES = (
    {f"{bits} bits": Scheme(bits) for bits in (8, 6, 5, 4, 3, 2)}
    | {f"{bits} bits, a range each channel": Scheme(bits, per_channel=True) for bits in (4, 3)}
    | {f"{bits} bits, 99% range": Scheme(bits, held=0.99) for bits in (4, 3)}
    | {f"8 bits, range ±{preset:g}": Scheme(8, preset=preset) for preset in PRESETS}
)
LOW, LOWER, PRESET = "4 bits", "3 bits", "8 bits, range ±1"
TUNED_FOR = {"validation": (LOWER,), "test": tuple(SCHEMES)}
RULES = {"accuracy": "validation accuracy", LOWER: f"validation accuracy at {LOWER}"}


def quantised_accuracy(task: Task, result: Result, split: str, scheme: Callable[[Tensor], Tensor]) -> Tensor:
    """Accuracy (R,) of trained networks on a split, their weights quantised after training."""
    on_grid = replace(result, parameters=quantised(result.parameters or {}, scheme))
    return each(task, on_grid, split, lambda logits, x, y: accuracy(logits(x), y), block=48)


def shapes(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the loss should depend on, each (R,): means over the weight tensors (:func:`over_weights`), but for the
    largest weight of all and the share of all weights that range ±1 clips."""
    weights = [p.flatten(1) for name, p in parameters.items() if is_weight(name, p)]
    together = torch.cat(weights, 1)
    return {
        "crest factor": over_weights(parameters, crest),
        "kurtosis": over_weights(parameters, kurtosis),
        f"relative error at {LOW}": over_weights(parameters, lambda w: relative_error(w, SCHEMES[LOW])),
        "largest weight": together.abs().amax(1),
        "weights clipped at ±1": clipped(together, SCHEMES[PRESET]),
    }


def quantising(task: Task, schemes: Mapping[str, Sequence[str]]) -> Callable[[Result, Sequence[str]], pd.DataFrame]:
    """A ``Condition.judge``: "<split> accuracy at <scheme>" and "<split> accuracy change at <scheme>", which is that
    minus the accuracy before, for the schemes (names in ``SCHEMES``) of each split; and :func:`shapes`."""

    def judge(result: Result, splits: Sequence[str]) -> pd.DataFrame:
        table, values = result.table, shapes(result.parameters)
        last = table[table["step"] == table["step"].max()]
        for split in (name for name in schemes if name in splits):
            before = torch.tensor(last.loc[last["metric"] == f"{split} accuracy", "value"].to_numpy())
            for name in schemes[split]:
                after = quantised_accuracy(task, result, split, SCHEMES[name])
                values |= {f"{split} accuracy at {name}": after, f"{split} accuracy change at {name}": after - before}
        step = last["step"].iloc[0]
        rows = [result.runs.assign(step=step, metric=m, value=v.double().numpy()) for m, v in values.items()]
        return pd.concat(rows, ignore_index=True)

    return judge


def learned(model: str, labels: str) -> Task:
    """Digits with labels of one kind (a name in ``LABEL_NOISE``), learned by one network (a name in ``MODELS``)."""
    for name, value, known in (("model", model, MODELS), ("labels", labels, LABEL_NOISE)):
        if value not in known:
            raise ValueError(f"{name}: {value!r}; choose from {', '.join(map(repr, known))}")
    noise = LABEL_NOISE[labels]
    return Task(
        f"{model} · {labels}",
        MODELS[model],
        lambda seed: digits_splits(seed, train=TRAIN, label_noise=noise, fixed_test=True),
    )


def condition(model: str, labels: str) -> Condition:
    """Ordinary training, quantised afterwards. It is tuned for accuracy, as by somebody who has not thought of
    quantisation, and, as another rule, for the accuracy that is left at 3 bits."""
    task = learned(model, labels)
    return Condition(
        task, NORMALISED if "Norm" in model else PLAIN, steps=400, batch_size=50, schedule="cosine", rules=RULES,
        judged=("test",), judge=quantising(task, TUNED_FOR),
    )  # fmt: skip


CONDITIONS = {f"{model} · {labels}": condition(model, labels) for labels in LABEL_NOISE for model in MODELS}
PRIMARY = "CNN, GroupNorm · clean labels"


def aware(name: str) -> Condition:
    """A condition (a name in ``CONDITIONS``) trained for its weights at 3 bits: its accuracies are those of the
    quantised network."""
    one = CONDITIONS[name]
    task = replace(
        one.task, name=f"{name} · trained at {LOWER}",
        model=lambda: QuantisationAware(one.task.model(), SCHEMES[LOWER]),
    )  # fmt: skip
    ranges = {key: value for key, value in one.search.items() if key != "l2"}
    return replace(
        one, task=task, search=ranges, arms=(ADAMW, ADAM), rules={"accuracy": "validation accuracy"}, judge=None
    )


AWARE = {f"{name} · trained at {LOWER}": aware(name) for name in (PRIMARY, "MLP, LayerNorm · clean labels")}
