"""What is claimed, and the protocol that decides it."""

from collections.abc import Sequence

import pandas as pd

from adamw_book.evidence import Claim
from adamw_book.protocol import Contrast, Measurement, Protocol

from .library import baselines
from .shrinkage import RARE_WORDS, SHRINKAGE, equal_strength, halvings, rare_word_effects
from .tasks import CONDITIONS, LIBRARY, REGIMES, SIZES

SPARSE_GAIN = Claim(
    id="sparse_gradients.generalization",
    tag="3161372",
    statement="Where many weights get only sparse gradients, tuned AdamW reaches a higher test accuracy than Adam + L2 "
    "tuned by the same law.",
    source="AdamW's uniform shrinkage matters most for parameters with sparse gradients: the whole model moves to a "
    "simpler one that overfits less.",
    criterion="Supported: half a percentage point or more, with the 95% interval above zero.",
    metric="test accuracy",
    smallest_effect=0.005,
    primary=f"{LIBRARY} · MLP",
    dividing="what the rare words say, and on the network",
)


def without_optimizer(seeds: Sequence[int]) -> pd.DataFrame:
    """:func:`.library.baselines` on the test functions, a row a seed."""
    found = {seed: baselines(seed, "test", **SIZES["library"]) for seed in seeds}
    return pd.DataFrame(found).T.rename_axis("seed").reset_index()


EVALUATION_SEEDS = range(2000, 2024)
PROTOCOL = Protocol(
    chapter="generalization/sparse_gradients",
    conditions=CONDITIONS,
    claims={
        RARE_WORDS: lambda tables: rare_word_effects(tables["sizes"]),
        SPARSE_GAIN: Contrast(conditions=REGIMES),
    },
    tuning_seeds=range(10),
    evaluation_seeds=EVALUATION_SEEDS,
    measurements=[
        Measurement(
            "sizes", equal_strength, SHRINKAGE["evaluation_seeds"],
            lambda table: halvings(table[table["condition"] == "all words informative · linear"]), atol=0.03,
        ),
        Measurement("baselines", without_optimizer, list(EVALUATION_SEEDS)),
    ],
    probed=["rare words are noise · linear", f"{LIBRARY} · MLP"],
    settings={"sizes": SIZES, "shrinkage": SHRINKAGE},
)  # fmt: skip
STUDY = PROTOCOL.study
