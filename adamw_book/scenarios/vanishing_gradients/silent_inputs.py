"""Digits whose chosen pixels are silent while a network trains, and switch on when it is tested.

The weights of a silent pixel get no gradient: nothing moves them but decay. While the pixel stays silent they do not
matter. When it switches on, whatever was left of them at the end of training is added to the hidden layer.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from numbers import Integral

import pandas as pd
import torch
from torch import Tensor

from adamw_book.data import Splits, digits, flip_labels, generator, split, varying
from adamw_book.ensemble import Snapshot, Task, train
from adamw_book.evidence import Claim, Effect, grid, paired, retrain, select, spread, three_arms
from adamw_book.models import MLP

SETTINGS = {
    "train": 300,
    "validation": 400,
    "silent": 16,
    "least_sd": 0.25,
    "wrong_labels": 0.2,
    "small_start": 0.01,
    "steps": 400,
    "batch_size": 50,
    "schedule": "cosine",
    "lr": [0.0005, 0.0015, 0.005, 0.015, 0.05, 0.15],
    "weight_decay": [0.0, 0.1, 0.4, 1.2, 4.0],
    "l2": [0.0, 0.001, 0.005, 0.02, 0.1],
    "lr_adam": spread(0.0003, 0.15, 30),
    "tuning_seeds": list(range(10)),
    "evaluation_seeds": list(range(100, 124)),
}
SWITCHED_ON, STUCK = "accuracy change at switch-on", "accuracy change when stuck on"
SILENT_NORM = "norm of the silent weights"

PROTECTION = Claim(
    id="vanishing_gradients.silent_inputs",
    tag="3096558",
    statement="Where inputs are silent in training and switch on at test, accuracy suffers less under AdamW than "
    "under Adam, and less than under Adam + L2.",
    source="AdamW keeps shrinking parameters in a subspace where gradients vanish, and so stops them from taking "
    "needlessly large values without guidance from data.",
    criterion="The change in test accuracy when the silent pixels switch on is better by at least half a percentage "
    "point, with the 95% interval above zero, in each network and against each of the two other arms; every arm is "
    "tuned on validation data in which the pixels are silent.",
    metric=SWITCHED_ON,
    smallest_effect=0.005,
)


def small_start(scale: float = SETTINGS["small_start"]) -> MLP:
    """An MLP with one hidden layer whose first layer starts ``scale`` times as large as usual."""
    model = MLP()
    with torch.no_grad():
        model.layers[0].weight.mul_(scale)
    return model


CONDITIONS = {
    "1 hidden layer, clean labels": (lambda: MLP(depth=1), 0.0),
    "1 hidden layer, wrong labels": (lambda: MLP(depth=1), SETTINGS["wrong_labels"]),
    "4 hidden layers, clean labels": (lambda: MLP(depth=4), 0.0),
    "4 hidden layers, wrong labels": (lambda: MLP(depth=4), SETTINGS["wrong_labels"]),
    "small start, wrong labels": (small_start, SETTINGS["wrong_labels"]),
}
HEADLINE = [name for name in CONDITIONS if name != "1 hidden layer, clean labels"]
CONTROLS = ("Adam", "Adam + L2")


@cache
def silent_pixels(seed: int, silent: int = SETTINGS["silent"], least_sd: float = SETTINGS["least_sd"]) -> Tensor:
    """The pixels (silent,) that are silenced under one seed: drawn among those whose standard deviation over all digits
    exceeds ``least_sd``, for a pixel that hardly ever sees ink would change nothing when it switches on.

    Raises ``ValueError`` where there are fewer of them than ``silent``, or ``silent`` is not positive.
    """
    candidates = varying(digits()[0], least_sd)
    if not isinstance(silent, Integral) or not 0 < silent <= len(candidates):
        raise ValueError(
            f"silent: {silent}; a whole number from 1 to {len(candidates)}, the pixels that vary, is needed"
        )
    return candidates[torch.randperm(len(candidates), generator=generator(seed, "silent pixels"))[:silent]]


def set_inputs(x: Tensor, columns: Tensor, value: float) -> Tensor:
    """A copy of x (N, D) in which the inputs ``columns`` have the one ``value`` in every example."""
    if len(columns) and not 0 <= int(columns.min()) <= int(columns.max()) < x.shape[1]:
        raise ValueError(f"columns: {columns.tolist()}; they must lie in 0…{x.shape[1] - 1}, the inputs of x")
    changed = x.clone()
    if changed.dtype != torch.result_type(x, value):
        raise ValueError(f"value: {value} for inputs of {x.dtype}, which cannot hold it; convert x first")
    changed[:, columns] = value
    return changed


def silenced_splits(
    seed: int,
    label_noise: float = 0.0,
    *,
    train: int = SETTINGS["train"],
    validation: int = SETTINGS["validation"],
    silent: int = SETTINGS["silent"],
    data: tuple[Tensor, Tensor] | None = None,
) -> Splits:
    """Digits (or ``data``, a pair like :func:`adamw_book.data.digits`) with ``silent_pixels(seed, silent)`` at zero in
    training.

    Splits: "train", "validation" and "test" with the pixels silent; "validation, switched on" and "test, switched on",
    the same examples with the pixels' own values; "test, stuck on", with the pixels at 1. Only training labels carry
    ``label_noise``.
    """
    rng = generator(seed, "data")
    whole = split(*(data or digits()), {"train": train, "validation": validation, "test": None}, rng)
    pixels = silent_pixels(seed, silent)
    splits = {name: (set_inputs(x, pixels, 0.0), y) for name, (x, y) in whole.items()}
    splits["train"] = (splits["train"][0], flip_labels(whole["train"][1], label_noise, 10, rng))
    splits |= {f"{name}, switched on": whole[name] for name in ("validation", "test")}
    splits["test, stuck on"] = (set_inputs(whole["test"][0], pixels, 1.0), whole["test"][1])
    return splits


def task(condition: str) -> Task:
    """The task of one condition, by its name in ``CONDITIONS``."""
    if condition not in CONDITIONS:
        raise ValueError(f"condition: {condition!r} is unknown; choose from {', '.join(map(repr, CONDITIONS))}")
    model, label_noise = CONDITIONS[condition]
    return Task(condition, model, lambda seed: silenced_splits(seed, label_noise))


def arms(settings: Mapping = SETTINGS) -> dict[str, dict[str, list[float]]]:
    """The three arms' grids, of equal size: plain Adam spends on the learning rate what the others spend on decay."""
    return three_arms(settings, settings["lr_adam"])


def silent_norm(snapshot: Snapshot) -> dict[str, Tensor]:
    """A ``measure`` for the ensemble: the Euclidean norm (R,) of the first layer's weights on the silent pixels."""
    first = snapshot.parameters["layers.0.weight"]  # (R, width, pixels)
    pixels = torch.stack([silent_pixels(int(seed)) for seed in snapshot.runs["seed"]]).to(first.device)
    own = first.gather(2, pixels[:, None, :].expand(-1, first.shape[1], -1))
    return {SILENT_NORM: own.flatten(1).norm(dim=1)}


def train_condition(condition: str, runs: pd.DataFrame, evaluate: Sequence[str], **options) -> pd.DataFrame:
    """Train ``runs`` on one condition; the ensemble's tidy table with the condition's name in the column
    ``condition``."""
    options = {"steps": SETTINGS["steps"], "batch_size": SETTINGS["batch_size"], "measure": silent_norm, **options}
    runs = runs if "schedule" in runs else runs.assign(schedule=SETTINGS["schedule"])
    return train(task(condition), runs, evaluate=evaluate, **options).table.assign(condition=condition)


def tune(condition: str) -> pd.DataFrame:
    """The validation accuracies of every configuration of every arm on the tuning seeds, silent and switched on."""
    runs = grid(arms(), SETTINGS["tuning_seeds"])
    table = train_condition(condition, runs, ("validation", "validation, switched on"))
    return table[table["metric"].str.endswith("accuracy")].drop(columns="schedule")


def evaluate_winners(winners: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """Retrain winners (rows of :func:`adamw_book.evidence.select` with a column ``condition``) on fresh seeds.

    Returns test accuracies (silent, switched on, stuck on) and the norm of the silent weights at the start and the end.
    """
    if winners.empty:
        raise ValueError("winners: the table is empty; at least one row of winners_of() is needed")
    seeds, tables = list(seeds), []
    for condition, own in winners.groupby("condition", sort=False):
        runs = retrain(own.drop(columns="condition"), seeds, used=SETTINGS["tuning_seeds"])
        splits = ("test", "test, switched on", "test, stuck on")
        record = (0, SETTINGS["steps"])
        table = train_condition(condition, runs, splits, record=record)
        wanted = table["metric"].str.endswith("accuracy") & (table["step"] > 0) | (table["metric"] == SILENT_NORM)
        tables.append(table[wanted].drop(columns="schedule"))
    return pd.concat(tables, ignore_index=True)


def winners_of(tuning: pd.DataFrame, oracle: bool = False) -> pd.DataFrame:
    """Each arm's best configuration in each condition, by the validation accuracy that a practitioner sees (pixels
    silent); with ``oracle``, by the one that nobody sees before the pixels have switched on."""
    return select(tuning, "validation, switched on accuracy" if oracle else "validation accuracy", by="condition")


def switch_on_change(evaluation: pd.DataFrame) -> pd.DataFrame:
    """What switching on does to each run: test accuracy with the pixels on minus that with the pixels silent.

    Returns a tidy table (condition, arm, seed, step, metric, value) with the metrics ``SWITCHED_ON`` (the pixels'
    own values) and ``STUCK`` (the pixels at 1).
    """
    index = ["condition", "arm", "seed", "step"]
    wide = evaluation[evaluation["metric"].str.endswith("accuracy")].pivot(
        index=index, columns="metric", values="value"
    )
    change = {
        SWITCHED_ON: wide["test, switched on accuracy"] - wide["test accuracy"],
        STUCK: wide["test, stuck on accuracy"] - wide["test accuracy"],
    }
    return pd.concat(change, names=["metric"]).rename("value").reset_index()


def against(condition: str, control: str) -> str:
    """The name of a regime: ``against("1 hidden layer, clean labels", "Adam")``."""
    return f"{condition}, against {control}"


def protection_effects(evaluation: pd.DataFrame, metric: str = SWITCHED_ON) -> dict[str, Effect]:
    """AdamW against Adam and against Adam + L2 in each condition of the table."""
    change = switch_on_change(evaluation)
    return {
        against(condition, control): paired(change[change["condition"] == condition], "AdamW", control, metric)
        for control in CONTROLS
        for condition in evaluation["condition"].unique()
    }
