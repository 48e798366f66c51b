"""The *tasks*: digits seen through all pixels or through those that vary, networks with and without normalisation,
ordinary and adversarial training; and what an attack leaves of a trained network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from adamw_book.data import DIGITS_TEST, Splits, apart, digits, digits_splits, varying
from adamw_book.ensemble import Result, Task, train
from adamw_book.evidence import CONFIGURATION
from adamw_book.models import CNN, MLP
from adamw_book.protocol import Condition
from adamw_book.trained import each

from .attack import Logits, attack_radius, pgd, robust
from .closed_form import linear_radius

TRAIN, EPSILON, VARYING_SD = 400, 0.1, 0.25
TRAINING_STEPS = 5  # of the attack within each step of adversarial training
ATTACKS = {"validation": {"steps": 8, "restarts": 3}, "test": {"steps": 15, "restarts": 6}}
RADIUS = {"steps": 8, "restarts": 3, "halvings": 7}

PIXELS = {
    "all pixels": lambda: torch.arange(64),
    "pixels that vary": lambda: varying(apart(*digits(), DIGITS_TEST)["rest"][0], VARYING_SD),
}
MODELS = {
    "linear": lambda features: nn.Linear(features, 10),
    "MLP": lambda features: MLP(features),
    "MLP, LayerNorm": lambda features: MLP(features, norm=True),
    "CNN": lambda features: CNN(),
    "CNN, GroupNorm": lambda features: CNN(norm=True),
}

# Settled on validation data alone: wide enough that the winners lie inside, by both rules.
PLAIN = {"lr": (0.001, 0.3), "weight_decay": (0.02, 8.0), "l2": (0.0003, 0.12), "count": 24}
RANGES = {
    "linear": PLAIN | {"lr": (0.003, 4.0), "weight_decay": (0.01, 5.0), "l2": (0.0002, 0.1)},
    "MLP": PLAIN,
    "MLP, LayerNorm": PLAIN | {"weight_decay": (0.05, 30.0), "l2": (0.0008, 0.48)},
    "CNN": PLAIN,
    "CNN, GroupNorm": {"lr": (0.0005, 0.15), "weight_decay": (0.25, 150.0), "l2": (0.004, 2.4), "count": 24},
}
RULES = {"accuracy": "validation accuracy", "robust": "validation robust accuracy"}


def adversarial(logits: Logits, x: Tensor, y: Tensor) -> Tensor:
    """A ``Task.perturb`` for adversarial training: the images of a batch, attacked by a few steps that begin at x."""
    return pgd(logits, x, y, EPSILON, steps=TRAINING_STEPS)


def task(pixels: str = "all pixels", model: str = "MLP", perturb: Callable | None = None) -> Task:
    """Digits seen through the pixels named in ``PIXELS``, learned by a model named in ``MODELS``."""
    for name, value, known in (("pixels", pixels, PIXELS), ("model", model, MODELS)):
        if value not in known:
            raise ValueError(f"{name}: {value!r}; choose from {', '.join(map(repr, known))}")
    columns = PIXELS[pixels]()

    def data(seed: int) -> Splits:
        splits = digits_splits(seed, train=TRAIN, fixed_test=True)
        return {name: (x[:, columns], y) for name, (x, y) in splits.items()}

    return Task(f"{model} · {pixels}", lambda: MODELS[model](len(columns)), data, perturb=perturb)


def mean_radius(task: Task, result: Result, split: str) -> Tensor:
    """Mean L∞ radius (R,) over the examples of a split, without bounds on the pixels: exact for linear models, what the
    attack finds for others."""
    if set(result.parameters or {}) == {"weight", "bias"}:
        splits = [task.data(int(seed))[split] for seed in result.runs["seed"]]
        x, y = (torch.stack(part) for part in zip(*splits, strict=True))
        return linear_radius(result.parameters["weight"], result.parameters["bias"], x, y).mean(1)
    return each(task, result, split, lambda f, x, y: attack_radius(f, x, y, bounds=None, **RADIUS).mean(1))


def attacked(task: Task, radius: bool = True) -> Callable[[Result, Sequence[str]], pd.DataFrame]:
    """A ``Condition.judge``: "<split> robust accuracy" (at ``EPSILON``, pixels kept within 0 … 1) on the splits of
    ``ATTACKS``, and with ``radius`` "test L∞ radius" (:func:`mean_radius`)."""

    def judge(result: Result, splits: Sequence[str]) -> pd.DataFrame:
        values = {}
        for split, attack in ATTACKS.items():
            if split in splits:
                values[f"{split} robust accuracy"] = each(
                    task, result, split, lambda f, x, y, a=attack: robust(f, x, y, EPSILON, **a).float().mean(1)
                )
        if radius and "test" in splits:
            values["test L∞ radius"] = mean_radius(task, result, "test")
        steps = result.table["step"].max()
        tables = [result.runs.assign(step=steps, metric=m, value=v.double().numpy()) for m, v in values.items()]
        return pd.concat(tables, ignore_index=True)

    return judge


def condition(model: str, pixels: str, perturb: Callable | None = None) -> Condition:
    """One network (a name in ``MODELS``) on what it sees (a name in ``PIXELS``). Ordinary training is tuned on clean
    accuracy, as by somebody who has not thought of attacks, and, as another rule, on robust accuracy; with ``perturb``,
    on robust accuracy alone."""
    learned = task(pixels, model, perturb)
    return Condition(
        learned, RANGES[model], steps=400, batch_size=50, schedule="cosine",
        rules=RULES if perturb is None else {"robust": RULES["robust"]},
        judge=attacked(learned, radius="CNN" not in model),
    )  # fmt: skip


ADVERSARIAL = "MLP · all pixels · adversarial training"
CONDITIONS = {
    f"{model} · {pixels}": condition(model, pixels)
    for model in MODELS
    for pixels in (PIXELS if "CNN" not in model else ["all pixels"])
} | {ADVERSARIAL: condition("MLP", "all pixels", adversarial)}

INK = {"never": (-1.0, 0.0), "up to 2%": (0.0, 0.02), "to 10%": (0.02, 0.1), "to 50%": (0.1, 0.5), "more": (0.5, 1.0)}


def weights_by_ink(winners: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """The first layer of the MLPs on all pixels that clean accuracy chose (rows of a record's "winners"), trained
    again: by the share of a run's training images that have ink on a pixel (the groups of ``INK``), the mean size of a
    weight and the group's share of ‖·‖₁ over the layer.

    Returns arm, seed, group (its number), size, share; a group without a pixel is left out.
    """
    one = CONDITIONS["MLP · all pixels"]
    own = winners[(winners["condition"] == "MLP · all pixels") & (winners["rule"] == "accuracy")]
    runs = own[["arm", *CONFIGURATION]].merge(pd.DataFrame({"seed": list(seeds)}), how="cross")
    result = train(
        one.task, runs, steps=one.steps, batch_size=one.batch_size, schedule=one.schedule, decays=one.decays,
        evaluate=(), keep_parameters=True,
    )  # fmt: skip
    rows = []
    for run, size in zip(runs.itertuples(), result.parameters["layers.0.weight"].abs().mean(1), strict=True):
        ink = (one.task.data(run.seed)["train"][0] > 0).float().mean(0)
        for group, (low, high) in enumerate(INK.values()):
            inside = (ink > low) & (ink <= high)
            if inside.any():
                share = (size[inside].sum() / size.sum()).item()
                rows.append((run.arm, run.seed, group, size[inside].mean().item(), share))
    return pd.DataFrame(rows, columns=["arm", "seed", "group", "size", "share"])
