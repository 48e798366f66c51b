"""The conditions of the chapter: what is learned, how each arm is tuned, and on which disturbed data it is judged."""

from collections.abc import Mapping, Sequence

import pandas as pd
from torch import Tensor, nn
from torch.nn import functional

from adamw_book.data import Splits, breast_cancer, digits, varying
from adamw_book.ensemble import Task, accuracy, cross_entropy, train
from adamw_book.evidence import grid, retrain, select, spread, three_arms
from adamw_book.models import CNN, MLP

from .shifts import chance_splits, group_of, label_of, reweighted_splits, shifted_splits, winter_splits

# Thirty configurations an arm. What the linear model and the noise inputs ask for lies elsewhere; validation data of
# the tuning seeds said where. No lr · weight_decay reaches 1.
GRIDS = {
    "default": {
        "lr": [0.0005, 0.0015, 0.005, 0.015, 0.05, 0.15],
        "weight_decay": [0.0, 0.1, 0.4, 1.2, 4.0],
        "l2": [0.0, 0.001, 0.005, 0.02, 0.1],
        "lr_adam": spread(0.0003, 0.15, 30),
    },
    "linear": {
        "lr": [0.0015, 0.006, 0.025, 0.1, 0.35, 1.0],
        "weight_decay": [0.0, 0.05, 0.15, 0.4, 0.9],
        "l2": [0.0, 0.001, 0.004, 0.015, 0.06],
        "lr_adam": spread(0.0008, 1.0, 30),
    },
    "noise inputs": {
        "lr": [0.0005, 0.0015, 0.005, 0.015, 0.05],
        "weight_decay": [0.0, 0.4, 1.2, 4.0, 8.0, 16.0],
        "l2": [0.0, 0.00001, 0.0001, 0.001, 0.005, 0.02],
        "lr_adam": spread(0.0003, 0.05, 30),
    },
}
WINTER = {"train": 400, "validation": 400, "shifted validation": 400, "test": None}
SIZES = {"train": 400, "validation": 400, "test": None}
SETTINGS = {
    "steps": 400,
    "batch_size": 50,
    "schedule": "cosine",
    "grids": GRIDS,
    "tuning_seeds": list(range(20)),
    "fewer_tuning_seeds": {"digits, CNN": 10},  # a convolution costs as much as all the others together
    "evaluation_seeds": list(range(100, 124)),
    "winter": {"sizes": WINTER, "agreement": 0.95},
    "chance": {"sizes": SIZES, "inputs": 100, "louder": 2.0},
    "shifts": {
        "sizes": SIZES,
        "rotation": [0, 10, 15, 20, 30, 45],
        "noise": [0, 0.1, 0.2, 0.3, 0.45],
        "light": 1.0,
    },
    "active_sd": 0.25,
    "ink": {
        "sizes": {"train": 400, "validation": 400},
        "strength": 1.5,
        "groups": ["lightest fifth", "second fifth", "third fifth", "fourth fifth", "heaviest fifth"],
    },
    "radius": {"sizes": {"train": 150, "validation": 100}, "strength": 1.0, "groups": ["the rest"]},
}


def low_and_high() -> tuple[Tensor, Tensor]:
    """The digits (1797, 64) as a question of two classes: is it 5 or more? Labels (1797,), 0 or 1."""
    x, digit = digits()
    return x, (digit >= 5).long()


def _winter(seed: int) -> Splits:
    return winter_splits(*low_and_high(), seed, **SETTINGS["winter"])


def _chance(seed: int) -> Splits:
    return chance_splits(*low_and_high(), seed, **SETTINGS["chance"])


def _shifted(seed: int) -> Splits:
    return shifted_splits(*digits(), seed, **SETTINGS["shifts"])


def _active(seed: int) -> Splits:
    x, y = digits()
    return shifted_splits(x, y, seed, **SETTINGS["shifts"], columns=varying(x, SETTINGS["active_sd"]))


def _ink(seed: int) -> Splits:
    x, y = digits()
    return reweighted_splits(x, y, x.mean(1), seed, **SETTINGS["ink"])


def _radius(seed: int) -> Splits:
    x, y = breast_cancer()
    return reweighted_splits(x, y, x[:, 0], seed, **SETTINGS["radius"], standardize=True)


def group_weights(targets: Tensor, agreement: float) -> Tensor:
    """Weights that let the two groups of :func:`winter_splits` count the same: ½ / (share of the example's group)."""
    if not 0 < agreement < 1:
        raise ValueError(f"agreement: {agreement}; a share between 0 and 1 is needed, for both groups must occur")
    wrong = group_of(targets)
    return 0.5 / ((1 - wrong) * agreement + wrong * (1 - agreement))


def winter_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the labels: logits (R, N, 2), targets (R, N) of :func:`winter_splits` → (R,), in nats."""
    return cross_entropy(logits, label_of(targets))


def balanced_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The same, each example weighted so that both groups count the same in expectation: group-balanced training."""
    losses = functional.cross_entropy(logits.transpose(1, 2), label_of(targets), reduction="none")
    return (losses * group_weights(targets, SETTINGS["winter"]["agreement"])).mean(1)


def winter_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Share of right labels: logits (R, N, 2), targets (R, N) of :func:`winter_splits` → (R,)."""
    return accuracy(logits, label_of(targets))


def balanced_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of the accuracies where the bit agrees with the label and where it is wrong; each group must occur, or
    ``ValueError`` is raised. As with :func:`adamw_book.ensemble.accuracy` a replica whose logits are not finite counts
    as 0."""
    right = (logits.argmax(-1) == label_of(targets)).float()
    wrong = group_of(targets).float()
    if not ((wrong == 0).any(1) & (wrong == 1).any(1)).all():
        raise ValueError(
            "targets: a replica has examples of one group only; each needs some whose bit is wrong or right"
        )
    mean = ((right * (1 - wrong)).sum(1) / (1 - wrong).sum(1) + (right * wrong).sum(1) / wrong.sum(1)) / 2
    return mean * logits.isfinite().flatten(1).all(1)


ON_LABELS = {"loss": winter_loss, "accuracy": winter_accuracy, "balanced accuracy": balanced_accuracy}


def _active_pixels() -> int:
    return len(varying(digits()[0], SETTINGS["active_sd"]))


# name: (the task, its grid, the validation metric that chooses)
_PLAIN = "validation accuracy"
_BALANCED = "validation balanced accuracy"
CONDITIONS: dict[str, tuple[Task, str, str]] = {
    task.name: (task, own, metric)
    for task, own, metric in (
        (Task("spurious bit, MLP", lambda: MLP(65, classes=2), _winter, winter_loss, ON_LABELS), "default", _PLAIN),
        (Task("spurious bit, linear", lambda: nn.Linear(65, 2), _winter, winter_loss, ON_LABELS), "linear", _PLAIN),
        (
            Task("spurious bit, MLP, balanced", lambda: MLP(65, classes=2), _winter, balanced_loss, ON_LABELS),
            "default",
            _BALANCED,
        ),
        (
            Task("spurious bit, linear, balanced", lambda: nn.Linear(65, 2), _winter, balanced_loss, ON_LABELS),
            "linear",
            _BALANCED,
        ),
        (
            Task("chance coincidences, MLP", lambda: MLP(64 + SETTINGS["chance"]["inputs"], classes=2), _chance),
            "noise inputs",
            _PLAIN,
        ),
        (
            Task("chance coincidences, linear", lambda: nn.Linear(64 + SETTINGS["chance"]["inputs"], 2), _chance),
            "linear",
            _PLAIN,
        ),
        (Task("digits, MLP", MLP, _shifted), "default", _PLAIN),
        (Task("digits, CNN", CNN, _shifted), "default", _PLAIN),
        (Task("digits, active pixels, MLP", lambda: MLP(_active_pixels()), _active), "default", _PLAIN),
        (Task("re-weighted by ink, MLP", MLP, _ink), "default", _PLAIN),
        (Task("re-weighted by radius, MLP", lambda: MLP(30, classes=2), _radius), "default", _PLAIN),
    )
}
WITH_ORACLE = [name for name in CONDITIONS if name.startswith("spurious bit")]
IN_DISTRIBUTION, ORACLE = "in-distribution validation", "oracle (shifted validation)"


def _known(name: str) -> tuple[Task, str, str]:
    if name not in CONDITIONS:
        raise ValueError(f"name: {name!r} is no condition; choose from {', '.join(map(repr, CONDITIONS))}")
    return CONDITIONS[name]


def arms(own: str) -> dict[str, dict[str, list[float]]]:
    """The three arms' grids, of equal size, by a name in ``GRIDS``: plain Adam spends on the learning rate what the
    others spend on the decay."""
    if own not in GRIDS:
        raise ValueError(f"own: {own!r} is no grid; choose from {', '.join(map(repr, GRIDS))}")
    return three_arms(GRIDS[own], GRIDS[own]["lr_adam"])


def train_condition(name: str, runs: pd.DataFrame, evaluate: Sequence[str], **options) -> pd.DataFrame:
    """Train ``runs`` on one condition, a name in ``CONDITIONS``; returns the ensemble's tidy table with the name in the
    column ``condition``."""
    task, _, _ = _known(name)
    options = {"steps": SETTINGS["steps"], "batch_size": SETTINGS["batch_size"], **options}
    runs = runs.assign(schedule=SETTINGS["schedule"])
    table = train(task, runs, evaluate=evaluate, **options).table
    return table.drop(columns="schedule").assign(condition=name)


def tune(name: str, seeds: Sequence[int] | None = None) -> pd.DataFrame:
    """One condition's tuning runs, in-distribution validation only, or with the oracle's split where it has one."""
    _, own, metric = _known(name)
    splits = ("validation", "shifted validation") if name in WITH_ORACLE else ("validation",)
    if seeds is None:
        seeds = SETTINGS["tuning_seeds"][: SETTINGS["fewer_tuning_seeds"].get(name)]
    table = train_condition(name, grid(arms(own), seeds), splits)
    return table[table["metric"].isin({metric, "validation accuracy", "shifted validation accuracy"})]


def choose(tuning: pd.DataFrame) -> pd.DataFrame:
    """The winners of each condition in a table of :func:`tune`, and the oracle's, told apart by ``chosen_on``.

    The oracle sees what nobody has in practice: validation data from after the shift (never the test data).
    """
    if tuning.empty:
        raise ValueError("tuning: the table is empty; at least one row of tune() is needed")
    found = []
    for name, table in tuning.groupby("condition", sort=False):
        found.append(select(table, _known(name)[2], by="condition").assign(chosen_on=IN_DISTRIBUTION))
        if name in WITH_ORACLE:
            found.append(select(table, "shifted validation accuracy", by="condition").assign(chosen_on=ORACLE))
    return pd.concat(found, ignore_index=True)


def judged_on(name: str) -> list[str]:
    """The test splits of a condition: what is left when training and validation are taken away."""
    splits = _known(name)[0].data(SETTINGS["tuning_seeds"][0])
    return [split for split in splits if split != "train" and "validation" not in split]


def evaluate_winners(name: str, winners: pd.DataFrame, seeds: Sequence[int] | None = None) -> pd.DataFrame:
    """Retrain one condition's winners (rows of :func:`choose`) on fresh seeds; accuracies on every test split."""
    own = winners[winners["condition"] == name].drop(columns="condition")
    if own.empty:
        raise ValueError(f"winners: none for the condition {name!r}; they are of {sorted(set(winners['condition']))}")
    runs = retrain(own, SETTINGS["evaluation_seeds"] if seeds is None else seeds, used=SETTINGS["tuning_seeds"])
    table = train_condition(name, runs, judged_on(name))
    return table[table["metric"].str.endswith(" accuracy") & ~table["metric"].str.contains("balanced")]


DOSE = {
    "lr": 0.015,
    "weight_decay": [0.0, 0.1, 0.3, 0.6, 1.2, 2.5, 5.0],
    "l2": [0.0, 0.0005, 0.002, 0.005, 0.01, 0.03, 0.1],
    "conditions": ["spurious bit, MLP", "spurious bit, MLP, balanced"],
}


def dose_response(seeds: Sequence[int], dose: Mapping = DOSE) -> pd.DataFrame:
    """In-distribution and flipped test accuracy of the winter bit's MLP as the decay grows at one learning rate, plain
    and group-balanced. Columns as in :func:`train_condition`."""
    seeds = list(seeds)
    runs = pd.concat(
        [
            grid({"AdamW": {"lr": [dose["lr"]], "weight_decay": dose["weight_decay"]}}, seeds),
            grid({"Adam + L2": {"lr": [dose["lr"]], "l2": dose["l2"]}}, seeds),
        ],
        ignore_index=True,
    )
    tables = [train_condition(name, runs, ("test", "flipped test")) for name in dose["conditions"]]
    table = pd.concat(tables, ignore_index=True)
    return table[table["metric"].isin({"test accuracy", "flipped test accuracy"})]
