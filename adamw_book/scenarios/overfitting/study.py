"""What is claimed, and the protocol that decides it."""

from collections.abc import Sequence

import pandas as pd

from adamw_book.evidence import Claim
from adamw_book.protocol import Contrast, Measurement, Protocol

from .pull import PULL, SILENCED, WEAK_GRADIENTS, just_silenced, measure_pull, pull_effects, weak_over_strong
from .tasks import ADDITION, DIGITS, PRIMARY, TRAIN

GENERALIZATION = Claim(
    id="overfitting.generalization",
    tag=None,
    statement="On a small digits set with wrong labels, tuned AdamW reaches a higher test accuracy than Adam + L2 "
    "tuned by the same law.",
    source="A more honest weight decay lets AdamW fight overfitting better than Adam + L2 in large CNNs and RNNs.",
    criterion="Supported: half a percentage point or more, with the 95% interval above zero.",
    metric="test accuracy",
    smallest_effect=0.005,
    primary=PRIMARY,
    dividing="the network and on whether its labels are right",
)


def pulls(seeds: Sequence[int]) -> pd.DataFrame:
    """:func:`measure_pull` of every network."""
    return pd.concat([measure_pull(model, seeds) for model in PULL["models"]], ignore_index=True)


PROTOCOL = Protocol(
    chapter="generalization/overfitting",
    conditions={**DIGITS, ADDITION.task.name: ADDITION},
    claims={
        WEAK_GRADIENTS: lambda tables: pull_effects(tables["pulls"]),
        GENERALIZATION: Contrast(conditions=list(DIGITS)),
    },
    tuning_seeds=range(10),
    evaluation_seeds=range(2000, 2024),
    measurements=[
        Measurement("pulls", pulls, PULL["seeds"], lambda t: weak_over_strong(t[t["model"] == "CNN"]), atol=0.05),
        Measurement("silenced", just_silenced, PULL["seeds"], lambda t: t[t["ratio"] == 30], atol=0.05),
    ],
    probed=[f"{m} · 20% wrong labels" for m in ("MLP, 4 hidden layers", "CNN, GroupNorm", "RNN over image rows")],
    settings={"train": TRAIN, "pull": PULL, "silenced": SILENCED},
)
STUDY = PROTOCOL.study
