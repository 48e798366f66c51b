"""Generalization · overfitting (tag 3096487): depth × normalisation × label noise, the pull of the penalty, and
grokking.

Three measurements live here. The *conditions*: MLP, CNN and RNN on real digits, with and without normalisation, with
clean and with wrong training labels, each tuned with the same budget for every arm. The *pull*: the gradients of a
real training run are recorded and played to each optimizer, so that whatever differs is the doing of the penalty.
The *showcase*: addition modulo a small prime, where a network that fits its training set perfectly does or does not
find the rule.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adamw_book.data import digits_splits, modular_addition
from adamw_book.dynamics import drive
from adamw_book.ensemble import Snapshot, Task, train
from adamw_book.evidence import Claim, Effect, grid, paired, retrain, select
from adamw_book.ledger import Study, probe_rows
from adamw_book.models import CNN, MLP, RNN, QuadraticMLP

# ---------------------------------------------------------------- conditions on real digits

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
}
LABEL_NOISE = {"clean labels": 0.0, "20% wrong labels": 0.2}

SETTINGS = {
    "models": list(MODELS),
    "label_noise": list(LABEL_NOISE.values()),
    "train": 400,
    "steps": 400,
    "batch_size": 50,
    "schedule": "cosine",
    "lr": [0.0005, 0.0015, 0.005, 0.015, 0.05, 0.15],
    "weight_decay": [0.0, 0.1, 0.4, 1.2, 4.0],
    "l2": [0.0, 0.001, 0.005, 0.02, 0.1],
    "lr_adam": [float(f"{lr:.3g}") for lr in np.geomspace(0.0003, 0.15, 30)],
    "tuning_seeds": list(range(10)),
    "evaluation_seeds": list(range(100, 124)),
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


def arms(settings: Mapping = SETTINGS) -> dict[str, dict[str, list[float]]]:
    """The three arms' grids, of equal size: plain Adam spends on the learning rate what the others spend on the
    decay."""
    return {
        "AdamW": {"lr": settings["lr"], "weight_decay": settings["weight_decay"]},
        "Adam + L2": {"lr": settings["lr"], "l2": settings["l2"]},
        "Adam": {"lr": settings["lr_adam"]},
    }


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


# ---------------------------------------------------------------- which coordinates does the penalty hit?


def record_gradients(
    task: Task, seeds: Sequence[int], steps: int, lr: float, batch_size: int = 50
) -> tuple[dict, dict]:
    """The gradients that real training runs with plain Adam met: ({name: start (R, …)}, {name: gradients (steps, R,
    …)})."""
    runs = pd.DataFrame({"arm": "Adam", "lr": lr, "weight_decay": 0.0, "l2": 0.0, "seed": list(seeds)})
    start: dict[str, Tensor] = {}
    history: dict[str, list[Tensor]] = {}

    def measure(snapshot: Snapshot) -> dict[str, Tensor]:
        for name, value in snapshot.parameters.items():
            if snapshot.step == 0:
                start[name] = value.clone()
            else:
                history.setdefault(name, []).append(snapshot.gradients[name].clone())
        return {}

    train(task, runs, steps=steps, batch_size=batch_size, record=range(steps + 1), evaluate=(), measure=measure,
          device="cpu", chunk_size=len(runs), progress=False)  # fmt: skip
    return start, {name: torch.stack(gradients) for name, gradients in history.items()}


PULL = {
    "steps": 400,
    "lr": 0.001,
    "weight_decay": 0.3,
    "l2": 0.001,
    "models": ["MLP, 4 hidden layers", "CNN", "RNN over image rows"],
    "seeds": list(range(200, 212)),
}


def _pull(plain: Tensor, pulled: Tensor) -> Tensor:
    """The share of its size that the penalty took from a group of coordinates: slope of (plain − pulled) on plain,
    last axis."""
    return ((plain - pulled) * plain).sum(-1) / plain.square().sum(-1)


def pull_by_gradient(
    start: dict, gradients: dict, *, lr: float, weight_decay: float, l2: float, bins: int = 12
) -> pd.DataFrame:
    """Play recorded gradients to AdamW, to Adam + L2 and to Adam, and return what the penalty alone did to each
    coordinate.

    The gradients stay the same, so the difference to Adam is the penalty's doing. Coordinates (weights, not biases)
    are sorted by their root-mean-square gradient into ``bins`` groups of equal size, for each replica; the *pull* of
    a group is the share of its
    size that the penalty took: the least-squares slope of (w_Adam − w_arm) on w_Adam. Returns arm, seed (the replica's
    index), bin, gradient (mean rms gradient of the group), pull.
    """
    names = [n for n in start if start[n].ndim > 2]
    w0 = torch.cat([start[n].flatten(1) for n in names], 1)
    g = torch.cat([gradients[n].flatten(2) for n in names], 2)
    final = {
        arm: drive(lambda step, w: g[step], w0, len(g), lr=lr, **hyper)[-1]
        for arm, hyper in {"AdamW": {"weight_decay": weight_decay}, "Adam + L2": {"l2": l2}, "Adam": {}}.items()
    }
    size = g.square().mean(0).sqrt()
    rows = []
    for replica in range(w0.shape[0]):
        for i, group in enumerate(torch.tensor_split(size[replica].argsort(), bins)):
            for arm in ("AdamW", "Adam + L2"):
                pull = _pull(final["Adam"][replica, group], final[arm][replica, group])
                row = {"gradient": float(size[replica, group].mean()), "pull": float(pull)}
                rows.append({"arm": arm, "seed": replica, "bin": i} | row)
    return pd.DataFrame(rows)


def measure_pull(model: str, seeds: Sequence[int]) -> pd.DataFrame:
    """:func:`pull_by_gradient` on the gradients of real runs of one model (a name in ``MODELS``) with 20% wrong
    labels."""
    start, gradients = record_gradients(task(condition(model, "20% wrong labels")), seeds, PULL["steps"], PULL["lr"])
    pulls = pull_by_gradient(start, gradients, lr=PULL["lr"], weight_decay=PULL["weight_decay"], l2=PULL["l2"])
    return pulls.assign(seed=np.asarray(seeds)[pulls["seed"]], model=model)


def weak_over_strong(pulls: pd.DataFrame) -> pd.DataFrame:
    """log₂ of the pull on the weakest-gradient quarter of the groups over that on the strongest, a tidy table by arm
    and seed."""
    quarter = (pulls["bin"].max() + 1) // 4
    ends = pulls.assign(
        end=np.select([pulls["bin"] < quarter, pulls["bin"] > pulls["bin"].max() - quarter], ["weak", "strong"], "")
    )
    means = ends[ends["end"] != ""].groupby(["arm", "seed", "end"])["pull"].mean().unstack("end")
    value = np.log2(means["weak"].clip(lower=1e-6) / means["strong"].clip(lower=1e-6))
    return value.rename("value").reset_index().assign(step=PULL["steps"], metric=WEAK_GRADIENTS.metric)


def just_silenced(
    seeds: Sequence[int], before: int = 1000, after: int = 300, sd: tuple[float, float] = (1.0, 0.03)
) -> pd.DataFrame:
    """Synthetic: half of the coordinates get strong noise gradients, then none; the other half weak ones throughout.

    Returns, for each arm and seed, log₂ of the pull on the silenced half over that on the other, within ``after``
    steps of the silence (a tidy table). The pull is taken as in :func:`pull_by_gradient`.
    """
    n, steps, rows = 400, before + after, []
    rng = torch.Generator().manual_seed(int(seeds[0]))
    draws = torch.randn(steps, len(seeds), n, generator=rng) * torch.tensor(sd).repeat_interleave(n // 2)
    draws[before:, :, : n // 2] = 0
    start = torch.randn(len(seeds), n, generator=rng)
    paths = {
        arm: drive(lambda step, w: draws[step], start, steps, lr=PULL["lr"], **hyper)
        for arm, hyper in {
            "AdamW": {"weight_decay": PULL["weight_decay"]},
            "Adam + L2": {"l2": PULL["l2"]},
            "Adam": {},
        }.items()
    }
    for arm in ("AdamW", "Adam + L2"):
        left = {
            t: 1 - _pull(paths["Adam"][t].unflatten(1, (2, -1)), paths[arm][t].unflatten(1, (2, -1)))
            for t in (before, steps)
        }
        pull = 1 - left[steps] / left[before]
        for seed, (silenced, steady) in zip(seeds, pull.tolist(), strict=True):
            rows.append(
                {
                    "arm": arm,
                    "seed": seed,
                    "step": steps,
                    "metric": WEAK_GRADIENTS.metric,
                    "value": float(np.log2(silenced / steady)),
                }
            )
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- showcase: addition modulo a prime

GROKKING = {
    "prime": 23,
    "share": 0.6,
    "width": 64,
    "steps": 1500,
    "lr": [0.0005, 0.0015, 0.005],
    "weight_decay": [1.0, 2.0, 3.0, 4.0],
    "l2": [0.0001, 0.0003, 0.001, 0.002],
    "lr_adam": [float(f"{lr:.3g}") for lr in np.geomspace(0.0001, 0.01, 12)],
    "tuning_seeds": list(range(10)),
    "evaluation_seeds": list(range(100, 112)),
}
GROKKING_TASK = Task(
    "addition modulo 23",
    lambda: QuadraticMLP(2 * GROKKING["prime"], GROKKING["width"], GROKKING["prime"]),
    lambda seed: modular_addition(seed, GROKKING["prime"], GROKKING["share"]),
)


def train_grokking(
    runs: pd.DataFrame, evaluate=("train", "test"), record: Sequence[int] | None = None, progress: bool = True
):
    """Train on addition modulo a prime, the whole training set at every step; returns the ensemble's tidy table."""
    return train(
        GROKKING_TASK, runs, steps=GROKKING["steps"], record=record, evaluate=evaluate, progress=progress
    ).table


# ---------------------------------------------------------------- the full protocol

WEAK_GRADIENTS = Claim(
    id="overfitting.weak_gradients",
    tag="3096487",
    statement="Where gradients are weak, Adam + L2 regularises less than it does where they are strong; AdamW does "
    "not make this difference.",
    source="Not every parameter gets a strong gradient at every step; for weak or zero gradients the adaptive "
    "denominator of Adam + L2 "
    "reduces or even cancels the regularisation, while AdamW's decay acts on all of them.",
    criterion="The pull on the weights with the weakest gradients, divided by the pull on those with the strongest, "
    "is larger under "
    "AdamW than under Adam + L2, by at least a factor of 1.25 (0.32 on a log2 scale), with the 95% interval above "
    "zero.",
    metric="log2 of weak over strong pull",
    smallest_effect=0.32,
)
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


def run(progress: bool = True) -> dict[str, pd.DataFrame]:
    """The full protocol: every condition tuned and retrained on fresh seeds, the pulls, and the showcase."""
    tuning, evaluation = [], []
    for name in CONDITIONS:
        table = train_condition(name, grid(arms(), SETTINGS["tuning_seeds"]), ("validation",), progress)
        tuning.append(table[table["metric"] == "validation accuracy"])
        evaluation.append(
            evaluate_winners(name, select(tuning[-1], "validation accuracy", by="condition"), progress=progress)
        )
    tuning = pd.concat(tuning, ignore_index=True)
    grokking = train_grokking(grid(arms(GROKKING), GROKKING["tuning_seeds"]), ("validation",), progress=progress)
    grokking = grokking[grokking["metric"] == "validation accuracy"]
    chosen = select(grokking, "validation accuracy")
    fresh = retrain(chosen, GROKKING["evaluation_seeds"], used=GROKKING["tuning_seeds"])
    return {
        "tuning": tuning,
        "winners": select(tuning, "validation accuracy", by="condition"),
        "evaluation": pd.concat(evaluation, ignore_index=True),
        "pulls": pd.concat([measure_pull(model, PULL["seeds"]) for model in PULL["models"]], ignore_index=True),
        "silenced": just_silenced(PULL["seeds"]),
        "grokking_tuning": grokking,
        "grokking_winners": chosen,
        "grokking": train_grokking(fresh, progress=progress),
    }


def effects(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Effect]]:
    """The claims' effects, from the tables of :func:`run` alone."""
    pulls = {model: weak_over_strong(table) for model, table in tables["pulls"].groupby("model", sort=False)}
    pulls["synthetic: strong gradients that have just stopped"] = tables["silenced"]
    return {
        WEAK_GRADIENTS.id: {
            regime: paired(table, "AdamW", "Adam + L2", WEAK_GRADIENTS.metric) for regime, table in pulls.items()
        },
        GENERALIZATION.id: {
            name: paired(table, "AdamW", "Adam + L2", GENERALIZATION.metric)
            for name, table in tables["evaluation"].groupby("condition", sort=False)
        },
    }


def probe() -> pd.DataFrame:
    """One run of each arm for an MLP, a CNN and an RNN, on the CPU."""
    runs = grid(
        {
            "AdamW": {"lr": [0.0015], "weight_decay": [0.3]},
            "Adam + L2": {"lr": [0.0015], "l2": [0.003]},
            "Adam": {"lr": [0.0015]},
        },
        [0],
    )
    tables = [
        train_condition(
            condition(model, "20% wrong labels"),
            runs,
            ("train", "validation"),
            progress=False,
            record=(1, 20, 200),
            steps=200,
            device="cpu",
        )
        for model in ("MLP, 4 hidden layers", "CNN, GroupNorm", "RNN over image rows")
    ]
    return probe_rows(pd.concat(tables, ignore_index=True))


STUDY = Study(
    "generalization/overfitting",
    (WEAK_GRADIENTS, GENERALIZATION),
    {**SETTINGS, "pull": PULL, "grokking": GROKKING},
    run,
    effects,
    probe,
)
