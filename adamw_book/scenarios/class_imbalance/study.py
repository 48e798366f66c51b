"""What is claimed, and the protocol that decides it."""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from adamw_book.arms import ADAM, ADAMW
from adamw_book.evidence import Claim, Effect, paired, smoothed
from adamw_book.protocol import Measurement, Protocol

from .dose import DOSE, LONG, doses, long_training
from .tasks import CONDITIONS, COUNTS, LOSSES

MINORITY = Claim(
    id="class_imbalance.minority",
    tag="3096556",
    statement="On imbalanced data, without class weights, AdamW's decay makes a model recognise more of the minority "
    "than Adam without decay does.",
    source="On imbalanced data, as with a rare disease, the majority class wins by huge weights; AdamW punishes those "
    "weights, so that the model learns the finer features of the minority and becomes fairer.",
    criterion="Both arms are tuned by the same law for balanced accuracy on validation data. Supported: recall of the "
    "minority on test data, at the usual threshold, two percentage points higher or more, with the 95% interval above "
    "zero.",
    metric="test recall",
    smallest_effect=0.02,
    primary="breast cancer · MLP · unweighted",
    dividing="whether decay improves the ranking or only moves the threshold",
)
WEIGHTS = Claim(
    id="class_imbalance.weights",
    tag=None,
    statement="Where the loss weights the classes, decoupled decay makes the weights count: balanced accuracy is "
    "higher than under Adam without decay.",
    source="Byrd and Lipton (2019, not the source itself) find that the effect of class weights fades on data that a "
    "network can separate, and that regularisation restores some of it.",
    criterion="Both arms are tuned by the same law for balanced accuracy on validation data. Supported: one percentage "
    "point or more, with the 95% interval above zero.",
    metric="test balanced accuracy",
    smallest_effect=0.01,
    primary="breast cancer · MLP · class-weighted",
    dividing="the data set and on how long one trains",
)
THRESHOLD = Claim(
    id="class_imbalance.threshold",
    tag=None,
    statement="AdamW with class weights beats the simplest remedy: plain Adam, no weights, no decay, and a threshold "
    "that is moved after training.",
    source="AdamW makes a model more useful on imbalanced data. (Any remedy in training has to beat the one that costs "
    "nothing.)",
    criterion="Both sides are tuned by the same law; the threshold is chosen on the validation data of each run. "
    "Supported: balanced accuracy one percentage point higher or more, with the 95% interval above zero.",
    metric="test balanced accuracy",
    smallest_effect=0.01,
    primary="breast cancer · MLP",
    dividing="the data set",
)


def tuned(tables: Mapping[str, pd.DataFrame], claim: Claim, loss: str) -> dict[str, Effect]:
    """AdamW − Adam in a claim's metric, under every condition with this loss that is in the tables; and at the fixed
    recipe of :mod:`.dose`, λ = 1 against no decay."""
    there = tables["evaluation"]["condition"].unique()
    found = {
        name: PROTOCOL.contrast(tables, name, claim.metric, ADAMW, ADAM)
        for name in CONDITIONS
        if loss in name and name in there
    }
    dose = tables["dose"]
    short = dose[(dose["training"] != "no weights, decayed bias") & dose["weight_decay"].isin([0.0, 1.0])]
    for table, steps in ((short, 1000), (tables["long"], LONG["steps"])):
        for name, own in table.groupby("condition", sort=False):
            if loss in name:
                found[f"{name}, not tuned, {steps} steps"] = paired(own, "AdamW", "Adam", claim.metric)
    return found


def against_moved_threshold(tables: Mapping[str, pd.DataFrame]) -> dict[str, Effect]:
    """AdamW with class weights, tuned by the chapter's rule, minus Adam without weights, tuned for and judged at a
    moved threshold, for each data set and model whose two conditions are in the tables."""
    there, found = set(tables["evaluation"]["condition"]), {}
    for key in dict.fromkeys(name.rpartition(" · ")[0] for name in CONDITIONS if name.endswith(LOSSES)):
        names = [f"{key} · {loss}" for loss in reversed(LOSSES)]
        if there.issuperset(names):
            weighted = PROTOCOL.side(tables, names[0], ADAMW, THRESHOLD.metric)
            moved = PROTOCOL.side(tables, names[1], ADAM, f"{THRESHOLD.metric}, threshold moved", "moved threshold")
            sides = replace(weighted, arm="AdamW with class weights"), replace(moved, arm="Adam with a moved threshold")
            found[key] = smoothed(*sides, THRESHOLD.metric)
    return found


PROTOCOL = Protocol(
    chapter="robustness/class_imbalance",
    conditions=CONDITIONS,
    claims={
        MINORITY: lambda tables: tuned(tables, MINORITY, "unweighted"),
        WEIGHTS: lambda tables: tuned(tables, WEIGHTS, "class-weighted"),
        THRESHOLD: against_moved_threshold,
    },
    tuning_seeds=range(10),
    evaluation_seeds=range(2000, 2024),
    measurements=[
        Measurement("dose", doses, DOSE["seeds"]),
        Measurement("long", long_training, DOSE["seeds"]),
    ],
    probed=["digit 8 · MLP · unweighted", "breast cancer · MLP · class-weighted"],
    probed_metrics="loss|norm",  # shares of a few positives move in jumps
    settings={"counts": {name: {k: list(n) for k, n in c.items()} for name, c in COUNTS.items()}, "dose": DOSE,
              "long": LONG},
    kept="recall|balanced accuracy|AUC|calibration",
)  # fmt: skip
STUDY = PROTOCOL.study
