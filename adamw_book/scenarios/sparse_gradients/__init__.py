"""Generalization · sparse gradients (tag 3161372): words that most batches do not hold.

`coordinates` plays rare gradients to single weights (F6, F7); `texts` makes synthetic bags of words in which we decide
which words mean something, `library` reads real ones; `conditions` tunes and compares the arms on both, and `shrinkage`
measures what each penalty takes from rare and from frequent words. Here they become one protocol.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from adamw_book.evidence import Effect, grid, select
from adamw_book.ledger import Study, probe_rows
from adamw_book.untrained import untrained

from .conditions import (
    CONDITIONS,
    CONTROL,
    LIBRARY,
    MODELS,
    REGIMES,
    SETTINGS,
    SPARSE_GAIN,
    TEXTS,
    WORD_WEIGHTS,
    arms,
    classifier,
    condition,
    evaluate_winners,
    gains,
    headline_conditions,
    task,
    texts,
    train_condition,
    tuning_runs,
)
from .coordinates import decay_rate, decay_rates, settled, settling_level, sparse
from .library import baselines, library_functions, library_packages, library_splits, split_by_module
from .shrinkage import RARE_WORDS, SHRINKAGE, equal_strength, halvings, left, rare_word_effects, weight_sizes
from .texts import meaning, synthetic_texts, word_frequencies

__all__ = [
    "CONDITIONS",
    "CONTROL",
    "LIBRARY",
    "MODELS",
    "RARE_WORDS",
    "REGIMES",
    "SETTINGS",
    "SHRINKAGE",
    "SPARSE_GAIN",
    "STUDY",
    "TEXTS",
    "WORD_WEIGHTS",
    "arms",
    "baselines",
    "classifier",
    "condition",
    "decay_rate",
    "decay_rates",
    "equal_strength",
    "evaluate_winners",
    "gains",
    "halvings",
    "headline_conditions",
    "left",
    "library_functions",
    "library_packages",
    "library_splits",
    "meaning",
    "rare_word_effects",
    "settled",
    "settling_level",
    "sparse",
    "split_by_module",
    "synthetic_texts",
    "task",
    "texts",
    "train_condition",
    "tuning_runs",
    "weight_sizes",
    "word_frequencies",
]


def run() -> dict[str, pd.DataFrame]:
    """The full protocol: every condition tuned and retrained on fresh seeds, the baselines, and the weights' sizes."""
    tuning, evaluation = [], []
    for name in CONDITIONS:
        table = train_condition(name, tuning_runs(name), ("validation",))
        tuning.append(table[table["metric"] == "validation accuracy"])
        winners = select(tuning[-1], "validation accuracy", by="condition")
        evaluation.append(evaluate_winners(name, winners))
    tuning = pd.concat(tuning, ignore_index=True)
    accuracies = {seed: baselines(seed, "test", **SETTINGS["library"]) for seed in SETTINGS["evaluation_seeds"]}
    sizes = [equal_strength(name, SHRINKAGE["evaluation_seeds"]) for name in SHRINKAGE["conditions"]]
    return {
        "tuning": tuning,
        "winners": select(tuning, "validation accuracy", by="condition"),
        "evaluation": pd.concat(evaluation, ignore_index=True),
        "baselines": pd.DataFrame(accuracies).T.rename_axis("seed").reset_index(),
        "sizes": pd.concat(sizes, ignore_index=True),
    }


def effects(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Effect]]:
    """The claims' effects, from the tables of :func:`run` alone."""
    return {RARE_WORDS.id: rare_word_effects(tables["sizes"]), SPARSE_GAIN.id: gains(tables["evaluation"])}


def headline(tables: Mapping[str, pd.DataFrame], seeds: Sequence[int]):
    """Both claims on other seeds: the weights' sizes measured again, every regime's winners retrained."""
    sizes = [equal_strength(name, seeds) for name in SHRINKAGE["conditions"]]
    return {
        RARE_WORDS.id: rare_word_effects(pd.concat(sizes)),
        SPARSE_GAIN.id: headline_conditions(tables["winners"], seeds),
    }


def probe() -> pd.DataFrame:
    """One run of each arm for a linear model and an MLP, on synthetic and on real text, the weights' sizes of one
    seed, and every task untrained, on the CPU."""
    runs = grid(
        {
            "AdamW": {"lr": [0.01], "weight_decay": [1.0]},
            "Adam + L2": {"lr": [0.01], "l2": [0.001]},
            "Adam": {"lr": [0.01]},
        },
        [0],
    )
    options = {"record": (1, 20, 200), "steps": 200, "device": "cpu"}
    names = (condition("rare words are noise", "linear"), condition(LIBRARY, "MLP"))
    tables = [train_condition(name, runs, ("train", "validation"), **options) for name in names]
    sizes = equal_strength(SHRINKAGE["conditions"][0], SHRINKAGE["evaluation_seeds"][:1], device="cpu")
    trained = [probe_rows(pd.concat(tables, ignore_index=True)), probe_rows(halvings(sizes), atol=0.03)]
    return pd.concat([*trained, untrained({name: task(name) for name in CONDITIONS})], ignore_index=True)


STUDY = Study(
    "generalization/sparse_gradients",
    (RARE_WORDS, SPARSE_GAIN),
    {**SETTINGS, "shrinkage": SHRINKAGE},
    run,
    effects,
    probe,
    headline,
)
