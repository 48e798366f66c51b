"""Generalization · overfitting (tag 3096487): depth × normalisation × label noise, the pull of the penalty, and
grokking.

Three measurements: `conditions` on real digits, the `pull` of the penalty on weak and on strong gradients, and the
showcase `grokking`. Here they become one protocol.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from adamw_book.evidence import Effect, grid, paired, retrain, select
from adamw_book.ledger import Study, probe_rows

from .conditions import (
    CONDITIONS,
    GENERALIZATION,
    HEADLINE,
    LABEL_NOISE,
    MODELS,
    SETTINGS,
    arms,
    condition,
    evaluate_winners,
    headline_conditions,
    task,
    train_condition,
    tuning_runs,
)
from .grokking import GROKKING, GROKKING_TASK, train_grokking
from .pull import (
    PULL,
    WEAK_GRADIENTS,
    just_silenced,
    measure_pull,
    pull_by_gradient,
    pull_effects,
    record_gradients,
    weak_over_strong,
)

__all__ = [
    "CONDITIONS",
    "GENERALIZATION",
    "GROKKING",
    "GROKKING_TASK",
    "HEADLINE",
    "LABEL_NOISE",
    "MODELS",
    "PULL",
    "SETTINGS",
    "STUDY",
    "WEAK_GRADIENTS",
    "arms",
    "condition",
    "evaluate_winners",
    "headline_conditions",
    "just_silenced",
    "measure_pull",
    "pull_by_gradient",
    "pull_effects",
    "record_gradients",
    "task",
    "train_condition",
    "train_grokking",
    "tuning_runs",
    "weak_over_strong",
]


def run(progress: bool = True) -> dict[str, pd.DataFrame]:
    """The full protocol: every condition tuned and retrained on fresh seeds, the pulls, and the showcase."""
    tuning, evaluation = [], []
    for name in CONDITIONS:
        table = train_condition(name, tuning_runs(name), ("validation",), progress)
        tuning.append(table[table["metric"] == "validation accuracy"])
        evaluation.append(
            evaluate_winners(name, select(tuning[-1], "validation accuracy", by="condition"), progress=progress)
        )
    tuning = pd.concat(tuning, ignore_index=True)
    grokking = train_grokking(
        grid(arms(GROKKING, GROKKING["lr_adam"]), GROKKING["tuning_seeds"]), ("validation",), progress=progress
    )
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
    return {
        WEAK_GRADIENTS.id: pull_effects(tables["pulls"], tables["silenced"]),
        GENERALIZATION.id: {
            name: paired(table, "AdamW", "Adam + L2", GENERALIZATION.metric)
            for name, table in tables["evaluation"].groupby("condition", sort=False)
        },
    }


def headline(tables: Mapping[str, pd.DataFrame], seeds: Sequence[int], progress: bool = True):
    """Both claims on other seeds: the pulls measured again, the headline's conditions retrained."""
    pulls = pd.concat([measure_pull(model, seeds) for model in PULL["models"]], ignore_index=True)
    return {
        WEAK_GRADIENTS.id: pull_effects(pulls, just_silenced(seeds)),
        GENERALIZATION.id: headline_conditions(tables["winners"], seeds, progress),
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
    headline,
)
