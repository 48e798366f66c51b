"""The networks that are attacked: what they learn from, how they are trained, and what an attack leaves of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from adamw_book.data import digits, digits_splits, varying
from adamw_book.ensemble import Result, Task, over_replicas, train
from adamw_book.evidence import grid, retrain, select, spread, three_arms
from adamw_book.jobs import side_by_side
from adamw_book.models import MLP

from .attack import Logits, attack_radius, pgd, robust
from .closed_form import linear_radius

EPSILON = 0.1
VARYING_SD = 0.25
TRAINING_STEPS = 5  # of the attack, within each step of adversarial training

# condition → (which pixels the network sees, is it trained on attacked images, what tunes it)
CONDITIONS = {
    "all pixels": ("all pixels", False, "validation accuracy"),
    "varying pixels only": ("varying pixels only", False, "validation accuracy"),
    "adversarial training": ("all pixels", True, "validation robust accuracy"),
}
PIXELS = {
    "all pixels": lambda: torch.arange(64),
    "varying pixels only": lambda: varying(digits()[0], VARYING_SD),
}
MODELS = {"linear": lambda features: nn.Linear(features, 10), "MLP": lambda features: MLP(features)}

SETTINGS = {
    "train": 400,
    "steps": 400,
    "batch_size": 50,
    "schedule": "cosine",
    "epsilon": EPSILON,
    "varying_sd": VARYING_SD,
    "training_attack_steps": TRAINING_STEPS,
    "tuning_attack": {"steps": 10, "restarts": 4},
    "attack": {"steps": 20, "restarts": 6},
    "radius_attack": {"steps": 8, "restarts": 3, "halvings": 7},
    "lr": [0.0015, 0.005, 0.015, 0.04, 0.1],
    "weight_decay": [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2],
    "l2": [0.0, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1],
    "lr_adam": spread(0.001, 0.15, 35),
    "tuning_seeds": list(range(16)),
    "evaluation_seeds": list(range(100, 124)),
}
# the linear models and MLPs on which the dose alone changes, at one learning rate
DOSE = {
    "lr": 0.04,
    "weight_decay": [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2],
    "strong": 1.6,
    "mild": 0.4,
    "low_lr": 0.005,
    "shrink": 0.125,
}


def adversarial(logits: Logits, x: Tensor, y: Tensor) -> Tensor:
    """A ``Task.perturb`` for adversarial training: the images of a batch, attacked by a few steps that begin at x."""
    return pgd(logits, x, y, EPSILON, steps=TRAINING_STEPS)


def task(pixels: str = "all pixels", model: str = "MLP", perturb: Callable | None = None) -> Task:
    """Digits seen through the pixels named in ``PIXELS``, learned by a model named in ``MODELS``."""
    for name, value, known in (("pixels", pixels, PIXELS), ("model", model, MODELS)):
        if value not in known:
            raise ValueError(f"{name}: {value!r}; choose from {', '.join(map(repr, known))}")
    columns = PIXELS[pixels]()

    def data(seed: int):
        splits = digits_splits(seed, train=SETTINGS["train"])
        return {name: (x[:, columns], y) for name, (x, y) in splits.items()}

    return Task(f"digits, {pixels}, {model}", lambda: MODELS[model](len(columns)), data, perturb=perturb)


def arms(settings: Mapping = SETTINGS) -> dict[str, dict[str, list[float]]]:
    """The three arms' grids, of equal size: plain Adam spends on the learning rate what the others spend on decay."""
    return three_arms(settings, settings["lr_adam"])


def stacked(task: Task, parameters: Mapping[str, Tensor]) -> Logits:
    """The logits (R, N, C) of R trained models, {name: (R, …)}, as a function of their inputs (R, N, D)."""
    apply = over_replicas(task.model)
    return lambda x: apply(dict(parameters), x)


def each(task: Task, result: Result, split: str, function: Callable, block: int = 12) -> Tensor:
    """``function(logits, x, y)``, which gives one value (R,) a replica, for all replicas of a result that kept its
    parameters; x and y are the replica's own ``split``. ``block`` replicas at a time, each block on its own core."""
    if result.parameters is None:
        raise ValueError("result: it kept no parameters; train with keep_parameters=True")

    def values(start: int) -> Tensor:
        rows = slice(start, start + block)
        splits = [task.data(int(seed))[split] for seed in result.runs["seed"][rows]]
        x, y = (torch.stack(part) for part in zip(*splits, strict=True))
        logits = stacked(task, {name: p[rows] for name, p in result.parameters.items()})
        return function(logits, x, y).detach()

    return torch.cat(side_by_side(values, range(0, len(result.runs), block)))


def mean_radius(task: Task, result: Result, split: str) -> Tensor:
    """Mean L∞ radius (R,) over the examples of a split, without bounds on the pixels: exact for linear models, what the
    attack finds for others."""
    if set(result.parameters or {}) == {"weight", "bias"}:
        splits = [task.data(int(seed))[split] for seed in result.runs["seed"]]
        x, y = (torch.stack(part) for part in zip(*splits, strict=True))
        return linear_radius(result.parameters["weight"], result.parameters["bias"], x, y).mean(1)
    attack = SETTINGS["radius_attack"]
    return each(task, result, split, lambda f, x, y: attack_radius(f, x, y, bounds=None, **attack).mean(1))


def measure(
    task: Task,
    runs: pd.DataFrame,
    split: str,
    attack: Mapping | None,
    radius: bool = False,
    **options,
) -> tuple[pd.DataFrame, Result]:
    """Train ``runs`` and attack them: a tidy table with "<split> accuracy", "<split> robust accuracy" (at ``EPSILON``,
    pixels kept within 0 … 1, with the steps and restarts of ``attack``; None leaves it out), "weight norm" and, with
    ``radius``, :func:`mean_radius`; and the result with its parameters.
    """
    options = {"steps": SETTINGS["steps"], "batch_size": SETTINGS["batch_size"], "evaluate": (split,), **options}
    result = train(task, runs.assign(schedule=SETTINGS["schedule"]), keep_parameters=True, **options)
    values = {}
    if attack is not None:
        values[f"{split} robust accuracy"] = each(
            task, result, split, lambda f, x, y: robust(f, x, y, EPSILON, **attack).float().mean(1)
        )
    if radius:
        values["mean L∞ radius"] = mean_radius(task, result, split)
    extra = [runs.reset_index(drop=True).assign(step=options["steps"], metric=m, value=v.double().numpy())
             for m, v in values.items()]  # fmt: skip
    return pd.concat([result.table.drop(columns="schedule"), *extra], ignore_index=True), result


def condition_task(condition: str) -> Task:
    """The task of one of ``CONDITIONS``."""
    if condition not in CONDITIONS:
        raise ValueError(f"condition: {condition!r}; choose from {', '.join(map(repr, CONDITIONS))}")
    pixels, attacked, _ = CONDITIONS[condition]
    return task(pixels, perturb=adversarial if attacked else None)


def tune(condition: str) -> pd.DataFrame:
    """All tuning runs of one condition: clean and robust accuracy on validation data, with the column ``condition``."""
    runs = grid(arms(), SETTINGS["tuning_seeds"])
    table, _ = measure(condition_task(condition), runs, "validation", SETTINGS["tuning_attack"])
    return table[table["metric"].str.contains("accuracy")].assign(condition=condition)


def choose(tuning: pd.DataFrame) -> pd.DataFrame:
    """Each arm's winner under each condition, once by clean and once by robust validation accuracy (``tuned_on``)."""
    winners = [
        select(tuning, f"validation {metric}", by="condition").assign(tuned_on=metric)
        for metric in ("accuracy", "robust accuracy")
    ]
    return pd.concat(winners, ignore_index=True)


def headline_winners(winners: pd.DataFrame) -> pd.DataFrame:
    """The winners that the claim is about: tuned on what ``CONDITIONS`` says."""
    wanted = {c: metric.removeprefix("validation ") for c, (_, _, metric) in CONDITIONS.items()}
    return winners[winners["tuned_on"] == winners["condition"].map(wanted)]


def evaluate(winners: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """Retrain winners (rows of :func:`choose`) on fresh seeds and attack them on test data."""
    if winners.empty:
        raise ValueError("winners: the table is empty; at least one row of choose() is needed")
    seeds, tables = list(seeds), []
    for (condition, tuned_on), own in winners.groupby(["condition", "tuned_on"], sort=False):
        runs = retrain(own.drop(columns=["condition", "tuned_on"]), seeds, used=SETTINGS["tuning_seeds"])
        table, _ = measure(condition_task(condition), runs, "test", SETTINGS["attack"])
        tables.append(table.assign(condition=condition, tuned_on=tuned_on))
    table = pd.concat(tables, ignore_index=True)
    return table[table["metric"].str.contains("accuracy|norm")]


INK = {"never": (-1.0, 0.0), "up to 2%": (0.0, 0.02), "to 10%": (0.02, 0.1), "to 50%": (0.1, 0.5), "more": (0.5, 1.0)}


def weights_by_ink(winners: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """The first layer of "all pixels" winners, trained again: by the share of a run's training images that have ink on
    a pixel (the groups of ``INK``), the mean size of a weight and the group's share of ‖·‖₁ over the layer.

    Returns arm, seed, group (its number), size, share; a group without a pixel is left out.
    """
    own = headline_winners(winners)
    own = own[own["condition"] == "all pixels"].drop(columns=["condition", "tuned_on"])
    learned, runs = task(), retrain(own, seeds, used=SETTINGS["tuning_seeds"])
    _, result = measure(learned, runs, "train", None)
    sizes = result.parameters["layers.0.weight"].abs().mean(1)
    rows = []
    for run, size in zip(runs.itertuples(), sizes, strict=True):
        ink = (learned.data(run.seed)["train"][0] > 0).float().mean(0)
        for group, (low, high) in enumerate(INK.values()):
            inside = (ink > low) & (ink <= high)
            if inside.any():
                rows.append(
                    (run.arm, run.seed, group, size[inside].mean().item(), (size[inside].sum() / size.sum()).item())
                )
    return pd.DataFrame(rows, columns=["arm", "seed", "group", "size", "share"])
