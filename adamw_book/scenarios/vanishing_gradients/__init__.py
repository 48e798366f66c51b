"""Generalization · vanishing gradients (tag 3096558): what decay does where gradients vanish.

`silent_inputs` holds the experiment with pixels that are silent in training and switch on at test, `null_space` the
null subspaces and the drift under noise, `through_time` the recurrent network. Here they become one protocol.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from adamw_book.evidence import Effect, grid
from adamw_book.ledger import Study, probe_rows
from adamw_book.untrained import untrained

from .null_space import (
    ACROSS,
    DEEP,
    DRIFT,
    MOST_HALVINGS,
    NOISE,
    NULL_NORM,
    SHRINKAGE,
    across_task,
    arm_runs,
    dead_parts,
    deep_task,
    drift,
    drift_effects,
    halvings,
    noise_regimes,
    null_projector,
    shrinkage_effects,
    silent_now,
    train_across,
)
from .silent_inputs import (
    CONDITIONS,
    CONTROLS,
    HEADLINE,
    PROTECTION,
    SETTINGS,
    SILENT_NORM,
    STUCK,
    SWITCHED_ON,
    against,
    arms,
    evaluate_winners,
    protection_effects,
    set_inputs,
    silenced_splits,
    silent_norm,
    silent_pixels,
    small_start,
    switch_on_change,
    task,
    train_condition,
    tune,
    winners_of,
)
from .through_time import (
    RECALL,
    STARTS,
    THROUGH_TIME,
    gradient_norms,
    gradient_profiles,
    held_out_norms,
    recall_doses,
    recall_runs,
    recall_sequences,
    recall_task,
    recurrent,
    spectral_radius,
    through_time_effects,
    train_recall,
)

__all__ = [
    "ACROSS",
    "CONDITIONS",
    "CONTROLS",
    "DEEP",
    "DRIFT",
    "HEADLINE",
    "MOST_HALVINGS",
    "NOISE",
    "NULL_NORM",
    "PROTECTION",
    "RECALL",
    "SETTINGS",
    "SHRINKAGE",
    "SILENT_NORM",
    "SHRUNK",
    "STARTS",
    "STUCK",
    "STUDY",
    "SWITCHED_ON",
    "THROUGH_TIME",
    "across_task",
    "against",
    "arm_runs",
    "arms",
    "dead_parts",
    "deep_task",
    "drift",
    "drift_effects",
    "evaluate_winners",
    "gradient_norms",
    "gradient_profiles",
    "halvings",
    "held_out_norms",
    "noise_regimes",
    "null_projector",
    "protection_effects",
    "recall_doses",
    "recall_runs",
    "recall_sequences",
    "recall_task",
    "recurrent",
    "set_inputs",
    "shrinkage_effects",
    "silenced_splits",
    "silent_norm",
    "silent_now",
    "silent_pixels",
    "small_start",
    "spectral_radius",
    "switch_on_change",
    "task",
    "through_time_effects",
    "train_across",
    "train_condition",
    "train_recall",
    "tune",
    "winners_of",
]

SHRUNK = ["1 hidden layer, wrong labels", "4 hidden layers, clean labels"]  # conditions whose silent weights are judged


def run() -> dict[str, pd.DataFrame]:
    """The full protocol: silent inputs tuned and evaluated, null spaces, drift under noise, and the recurrent
    network."""
    tuning = pd.concat([tune(name) for name in CONDITIONS], ignore_index=True)
    winners, oracle = winners_of(tuning), winners_of(tuning, oracle=True)
    return {
        "tuning": tuning,
        "winners": winners,
        "evaluation": evaluate_winners(winners, SETTINGS["evaluation_seeds"]),
        "oracle_winners": oracle,
        "oracle": evaluate_winners(oracle, SETTINGS["evaluation_seeds"]),
        "across": train_across(ACROSS["seeds"]),
        "deep": dead_parts(DEEP["seeds"]),
        "noise": drift(NOISE["seeds"]),
        "recall": recall_doses(RECALL["seeds"]),
    }


def effects(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Effect]]:
    """The claims' effects, from the tables of :func:`run` alone."""
    return {
        SHRINKAGE.id: shrinkage_effects(tables["evaluation"], tables["across"], SHRUNK),
        DRIFT.id: drift_effects(tables["noise"]),
        PROTECTION.id: protection_effects(tables["evaluation"]),
        THROUGH_TIME.id: through_time_effects(tables["recall"]),
    }


def headline(tables: Mapping[str, pd.DataFrame], seeds: Sequence[int]) -> dict[str, dict[str, Effect]]:
    """All claims on other seeds: the winners of the headline's conditions retrained, the rest measured again."""
    winners = tables["winners"]
    evaluation = evaluate_winners(winners[winners["condition"].isin(HEADLINE)], seeds)
    across = train_across(seeds, ACROSS | {"record": [0, ACROSS["steps"]]})
    runs = recall_runs(seeds, [RECALL["judged_decay"]], [])
    recall = [train_recall(start, RECALL["judged_delay"], runs, ()) for start in STARTS]
    return {
        SHRINKAGE.id: shrinkage_effects(evaluation, across, SHRUNK),
        DRIFT.id: drift_effects(drift(seeds)),
        PROTECTION.id: protection_effects(evaluation),
        THROUGH_TIME.id: through_time_effects(pd.concat(recall, ignore_index=True)),
    }


def probe() -> pd.DataFrame:
    """One run of each arm on silent inputs, across pixels, under noise and on delayed recall, and every task untrained,
    on the CPU."""
    lr, few = 0.005, (1, 20, 100)
    runs = grid(
        {
            "AdamW": {"lr": [lr], "weight_decay": [0.4]},
            "Adam + L2": {"lr": [lr], "l2": [0.005]},
            "Adam": {"lr": [lr]},
        },
        [0],
    )
    options = {"steps": 100, "record": few, "device": "cpu"}
    silent = train_condition("4 hidden layers, wrong labels", runs, ("train", "validation"), **options)
    recall = train_recall("orthogonal start", 12, recall_runs([0], [1.0], [0.01]), ("train",), **options)
    across = train_across([0], ACROSS | {"steps": 100, "record": few}, device="cpu")
    tables = [silent.drop(columns="schedule"), recall.assign(condition="recall"), across.assign(condition="across")]
    noise = drift(NOISE["seeds"][:1], NOISE | {"steps": 600}).rename(columns={"regime": "condition"})
    tasks = {name: task(name) for name in CONDITIONS} | {"across": across_task(), "deep": deep_task()}
    for start in STARTS:
        tasks |= {f"recall, {start}, {delay} steps": recall_task(start, delay) for delay in RECALL["delays"]}
    return pd.concat(
        [
            probe_rows(pd.concat(tables, ignore_index=True)),
            probe_rows(noise, atol=1e-4, rtol=0.02),
            untrained(tasks),
        ],
        ignore_index=True,
    )


STUDY = Study(
    "generalization/vanishing_gradients",
    (SHRINKAGE, DRIFT, PROTECTION, THROUGH_TIME),
    {**SETTINGS, "across": ACROSS, "deep": DEEP, "noise": NOISE, "recall": RECALL},
    run,
    effects,
    probe,
    headline,
)
