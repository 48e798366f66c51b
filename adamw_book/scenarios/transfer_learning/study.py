"""What is claimed, and the protocol that decides it."""

from dataclasses import asdict

import pandas as pd

from adamw_book.arms import ADAM, ADAMW, TO_START
from adamw_book.evidence import Claim
from adamw_book.protocol import Contrast, Measurement, Protocol

from .shock import (
    EARLY_SHOCK,
    LEFT,
    SHOCK,
    SPLIT,
    START,
    discriminative,
    early_shock,
    shock_effects,
    shrunk_before,
)
from .sources import SOURCES
from .tasks import CONDITIONS, SCRATCH, SHOTS

PRIMARY = "MLP, LayerNorm · useful source"

HANDOVER = Claim(
    id="transfer_learning.handover",
    tag="3096511",
    statement="Fine-tuned with AdamW, a pre-trained network reaches a higher test accuracy than fine-tuned with Adam "
    "without decay.",
    source="Pre-trained weights may be too large or out of date for the new task; AdamW's decay brings them into a "
    "sensible range, and the knowledge is handed over more smoothly.",
    criterion="Both arms are tuned by the same law on validation data, with a warm-up over 10% of the steps. "
    "Supported: half a percentage point or more, with the 95% interval above zero.",
    metric="test accuracy",
    smallest_effect=0.005,
    primary=PRIMARY,
    dividing="what the source has taught the network",
)
TARGET = Claim(
    id="transfer_learning.target",
    tag=None,
    statement="In fine-tuning, a decoupled decay toward the pre-trained weights gives a higher test accuracy than one "
    "toward zero.",
    source="Li, Grandvalet and Davoine (2018, not the source itself) penalise the distance to the pre-trained weights "
    "instead of their size, and recommend it for transfer learning.",
    criterion="Both arms are tuned by the same law on validation data; the read-out, which is new, decays to zero in "
    "both. Supported: half a percentage point or more, with the 95% interval above zero.",
    metric="test accuracy",
    smallest_effect=0.005,
    primary=PRIMARY,
    dividing="what the source has taught the network",
)
HANDED_OVER = [name for name in CONDITIONS if not name.endswith(SCRATCH)]


def probed_shock(table: pd.DataFrame) -> pd.DataFrame:
    """What a record's probe keeps of a measurement of first steps: what does not hang on a path that has become
    chaotic."""
    calm = (table["lr"] == table["lr"].min()) & table["metric"].isin([START, LEFT])
    found = table[calm & (table["condition"] == PRIMARY)]
    return found.assign(condition=found["condition"] + ", left " + found["left"].map("{:g}".format))


PROTOCOL = Protocol(
    chapter="frontier/transfer_learning",
    conditions=CONDITIONS,
    claims={
        EARLY_SHOCK: shock_effects,
        HANDOVER: Contrast(ADAMW, ADAM, HANDED_OVER),
        TARGET: Contrast(TO_START, ADAMW, HANDED_OVER),
    },
    tuning_seeds=range(10),
    evaluation_seeds=range(2000, 2024),
    measurements=[
        Measurement("shock", early_shock, SHOCK["seeds"], probed_shock, atol=0.02),
        Measurement("shrunk", shrunk_before, SHOCK["seeds"]),
        Measurement("parts", discriminative, SHOCK["seeds"]),
    ],
    probed=[PRIMARY, "MLP · over-trained source", "CNN, GroupNorm · useful source"],
    settings={
        "shots": SHOTS, "sources": {name: asdict(source) for name, source in SOURCES.items()}, "shock": SHOCK,
        "parts": SPLIT,
    },
)  # fmt: skip
STUDY = PROTOCOL.study
