"""The *conditions*: MLP, CNN and RNN on real digits, with and without normalisation, with clean and with wrong training
labels, each tuned with the same budget for every arm."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from adamw_book.data import digits_splits
from adamw_book.ensemble import Task, train
from adamw_book.evidence import Claim, Effect, grid, paired, retrain
from adamw_book.models import CNN, MLP, RNN

GENERALIZATION = Claim(
    id="overfitting.generalization",
    tag=None,
    statement="On small digits sets, tuned AdamW reaches a higher test accuracy than Adam + L2 tuned with the same "
    "budget.",
    source="A more honest weight decay lets AdamW fight overfitting better than Adam + L2 in large CNNs and RNNs.",
    criterion="Test accuracy on fresh seeds at least half a percentage point higher, with the 95% interval above "
    "zero, in each condition.",
    metric="test accuracy",
    smallest_effect=0.005,
)

MODELS = {
    "MLP, 1 hidden layer": lambda: MLP(depth=1),
    "MLP, 1 hidden layer, LayerNorm": lambda: MLP(depth=1, norm=True),
    "MLP, 4 hidden layers": lambda: MLP(depth=4),
    "MLP, 4 hidden layers, LayerNorm": lambda: MLP(depth=4, norm=True),
    "MLP, 8 hidden layers": lambda: MLP(depth=8),
    "MLP, 8 hidden layers, LayerNorm": lambda: MLP(depth=8, norm=True),
    "CNN": lambda: CNN(),
    "CNN, GroupNorm": lambda: CNN(norm=True),
    "RNN over image rows": lambda: RNN(),
    "RNN over image rows, LayerNorm": lambda: RNN(norm=True),
}
LABEL_NOISE = {"clean labels": 0.0, "20% wrong labels": 0.2}

# One grid for all networks but three, whose winners lay on its edge when validation data chose them.
GRID = {
    "lr": [0.0005, 0.0015, 0.005, 0.015, 0.05, 0.15],
    "weight_decay": [0.0, 0.1, 0.4, 1.2, 4.0],
    "l2": [0.0, 0.001, 0.005, 0.02, 0.1],
}
GRIDS = {
    "CNN, GroupNorm": {
        "lr": [0.0005, 0.0015, 0.005, 0.015, 0.05],
        "weight_decay": [0.0, 0.1, 0.4, 1.2, 4.0, 12.0],
        "l2": [0.0, 0.001, 0.005, 0.02, 0.1, 0.4],
    },
    "RNN over image rows": {
        "lr": [0.0015, 0.005, 0.015, 0.05, 0.15, 0.3],
        "weight_decay": [0.0, 0.1, 0.4, 0.8, 1.6],
        "l2": [0.0, 0.001, 0.005, 0.02, 0.1],
    },
    "RNN over image rows, LayerNorm": {
        "lr": [0.0015, 0.005, 0.015, 0.05, 0.15, 0.3],
        "weight_decay": [0.0, 0.1, 0.4, 1.2, 3.0],
        "l2": [0.0, 0.005, 0.02, 0.1, 0.4],
    },
}

SETTINGS = {
    "models": list(MODELS),
    "label_noise": list(LABEL_NOISE.values()),
    "train": 400,
    "steps": 400,
    "batch_size": 50,
    "schedule": "cosine",
    "grids": {model: GRIDS.get(model, GRID) for model in MODELS},
    "lr_adam": [float(f"{lr:.3g}") for lr in np.geomspace(0.0003, 0.15, 30)],
    "tuning_seeds": list(range(10)),
    "evaluation_seeds": list(range(1000, 1024)),
}


def condition(model: str, noise: str) -> str:
    """The name of one condition: ``condition("CNN", "clean labels")`` → "CNN · clean labels"."""
    return f"{model} · {noise}"


CONDITIONS = {condition(m, n): (m, n) for m in MODELS for n in LABEL_NOISE}


def task(name: str) -> Task:
    """The task of one condition, by its name in ``CONDITIONS``; the labels of validation and test data are always
    right."""
    if name not in CONDITIONS:
        raise ValueError(f"name: {name!r} is no condition; choose from {', '.join(map(repr, CONDITIONS))}")
    model, noisy = CONDITIONS[name]
    return Task(
        name, MODELS[model], lambda seed: digits_splits(seed, train=SETTINGS["train"], label_noise=LABEL_NOISE[noisy])
    )


def arms(own: Mapping[str, Sequence[float]], lr_adam: Sequence[float]) -> dict[str, dict[str, Sequence[float]]]:
    """The three arms' grids, of equal size: plain Adam spends on the learning rate what the others spend on the
    decay. ``own`` holds lr, weight_decay and l2: a model's entry of ``SETTINGS["grids"]``, or ``GROKKING``."""
    return {
        "AdamW": {"lr": own["lr"], "weight_decay": own["weight_decay"]},
        "Adam + L2": {"lr": own["lr"], "l2": own["l2"]},
        "Adam": {"lr": lr_adam},
    }


def tuning_runs(name: str, seeds: Sequence[int] | None = None) -> pd.DataFrame:
    """The tuning runs of one condition (a name in ``CONDITIONS``): every arm's grid on the tuning seeds."""
    own = SETTINGS["grids"][CONDITIONS[name][0]]
    return grid(arms(own, SETTINGS["lr_adam"]), SETTINGS["tuning_seeds"] if seeds is None else seeds)


def train_condition(
    name: str, runs: pd.DataFrame, evaluate: Sequence[str], progress: bool = True, **options
) -> pd.DataFrame:
    """Train ``runs`` on one condition; returns the ensemble's tidy table with the condition's name in the column
    ``condition``."""
    options = {"steps": SETTINGS["steps"], "batch_size": SETTINGS["batch_size"], **options}
    runs = runs.assign(schedule=SETTINGS["schedule"])
    table = train(task(name), runs, evaluate=evaluate, progress=progress, **options).table
    return table.drop(columns="schedule").assign(condition=name)


def evaluate_winners(
    name: str, winners: pd.DataFrame, seeds: Sequence[int] | None = None, progress: bool = True
) -> pd.DataFrame:
    """Retrain one condition's winners (rows of :func:`adamw_book.evidence.select`) on fresh seeds; accuracies on
    train and test."""
    own = winners[winners["condition"] == name].drop(columns="condition")
    runs = retrain(own, SETTINGS["evaluation_seeds"] if seeds is None else seeds, used=SETTINGS["tuning_seeds"])
    table = train_condition(name, runs, ("train", "test"), progress)
    return table[table["metric"].str.contains("accuracy|norm")]


# The conditions that the chapter compares live.
HEADLINE = [
    "MLP, 1 hidden layer · 20% wrong labels",
    "MLP, 4 hidden layers · 20% wrong labels",
    "MLP, 4 hidden layers, LayerNorm · 20% wrong labels",
    "CNN · 20% wrong labels",
    "RNN over image rows · 20% wrong labels",
    "MLP, 4 hidden layers · clean labels",
]


def headline_conditions(winners: pd.DataFrame, seeds: Sequence[int], progress: bool = True) -> dict[str, Effect]:
    """The winners of the conditions in ``HEADLINE``, retrained on ``seeds``: {condition: AdamW − (Adam + L2)}."""
    tables = {name: evaluate_winners(name, winners, seeds, progress) for name in HEADLINE}
    return {name: paired(table, "AdamW", "Adam + L2", GENERALIZATION.metric) for name, table in tables.items()}
