"""Decay dose by dose at one learning rate: does it bring the clients together?"""

from collections.abc import Sequence

import pandas as pd

from adamw_book.arms import ADAM, ADAMW
from adamw_book.evidence import Claim, Effect, paired

from .tasks import CONDITIONS, SPLITS, TO_GLOBAL, UNEVEN

DOSES = {
    "lr": 0.01,
    "AdamW": [0.03, 0.1, 0.3, 1.0, 3.0],
    "decay to global": [0.3, 1.0, 3.0, 10.0, 30.0],
    "decides": 0.3,
    "seeds": list(range(2000, 2012)),
}
NAMES = [f"{UNEVEN} · MLP", *(f"{split} · MLP, LayerNorm" for split in SPLITS)]

AGREEMENT = Claim(
    id="federated_learning.agreement",
    tag="3096479",
    statement="At the same learning rate clients that share a decoupled decay agree more with each other, at the end "
    "of their local steps, than clients without decay.",
    source="One shared decoupled decay coefficient is a common gravity toward the origin: it reconciles the updates of "
    "clients with different data.",
    criterion=f"λ = {DOSES['decides']:g} against λ = 0 at η = {DOSES['lr']:g}, a decay that takes about half of an "
    "unused weight over the run. Supported: on test images, just before the last average, two clients give the same "
    "answer more often, by two percentage points or more, with the 95% interval above zero.",
    metric="test client agreement",
    smallest_effect=0.02,
    primary=f"{UNEVEN} · MLP",
    dividing="the split and the network",
)


def doses(seeds: Sequence[int]) -> pd.DataFrame:
    """Every split and network with decay of either direction, dose by dose, at one learning rate: a tidy table with the
    columns ``condition`` and ``dose``, of the last round."""
    rows = [(ADAM.name, 0.0, "origin")]
    rows += [
        (arm.name, dose, pull) for arm, pull in ((ADAMW, "origin"), (TO_GLOBAL, "global")) for dose in DOSES[arm.name]
    ]
    runs = pd.DataFrame(rows, columns=["arm", "weight_decay", "pull"]).assign(lr=DOSES["lr"], l2=0.0)
    runs = runs.merge(pd.DataFrame({"seed": list(seeds)}), how="cross")
    tables = [CONDITIONS[name].train(runs, ("test",), device="cpu").assign(condition=name) for name in NAMES]
    table = pd.concat(tables, ignore_index=True)
    return table[table["metric"].str.contains("client|accuracy")].assign(dose=lambda t: t["weight_decay"])


def agreement_effects(table: pd.DataFrame) -> dict[str, Effect]:
    """The dose that decides against none, for each split and network."""
    own = table[((table["arm"] == ADAMW.name) & (table["dose"] == DOSES["decides"])) | (table["arm"] == ADAM.name)]
    return {
        name: paired(part, ADAMW.name, ADAM.name, AGREEMENT.metric)
        for name, part in own.groupby("condition", sort=False)
    }
