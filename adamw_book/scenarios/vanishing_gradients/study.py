"""What is claimed, and the protocol that decides it."""

from adamw_book.evidence import Claim
from adamw_book.protocol import Contrast, Measurement, Protocol

from .noise import DRIFT, NOISE, drift, drift_effects
from .null_space import HALVINGS
from .tasks import CONDITIONS, FEW, LEAST_SD, SILENCED, SILENT, SWITCHED_ON, TRAIN

PRIMARY = "silent pixels · MLP, 4 hidden layers, LayerNorm · clean labels"

SHRINKAGE = Claim(
    id="vanishing_gradients.shrinkage",
    tag="3096558",
    statement="Weights in a subspace where the gradient vanishes are shrunk more by tuned AdamW than by Adam + L2 "
    "tuned by the same law.",
    source="For weak or zero gradients the adaptive denominator of Adam + L2 cancels the regularisation; AdamW's decay "
    "is unconditional and keeps shrinking parameters where gradients vanish.",
    criterion="Supported: from start to end of training AdamW halves the norm in the null space at least half a time "
    "more often, with the 95% interval above zero.",
    metric=HALVINGS,
    smallest_effect=0.5,
    primary=PRIMARY,
    dividing="the network and on which weights get no gradient",
)
PROTECTION = Claim(
    id="vanishing_gradients.silent_inputs",
    tag="3096558",
    statement="Where inputs are silent in training and switch on at test, accuracy suffers less under tuned AdamW than "
    "under Adam + L2 tuned by the same law.",
    source="AdamW keeps shrinking parameters in a subspace where gradients vanish, and so stops them from taking "
    "needlessly large values without guidance from data; Adam + L2 does not.",
    criterion="Both arms tuned on validation data in which the pixels are silent. Supported: the change in test "
    "accuracy when the pixels switch on is better by half a percentage point or more, with the 95% interval above 0.",
    metric=SWITCHED_ON,
    smallest_effect=0.005,
    primary=PRIMARY,
    dividing="the network and on whether its labels are right",
)

PROTOCOL = Protocol(
    chapter="generalization/vanishing_gradients",
    conditions=CONDITIONS,
    claims={
        SHRINKAGE: Contrast(),
        DRIFT: lambda tables: drift_effects(tables["noise"]),
        PROTECTION: Contrast(conditions=[condition.task.name for condition in SILENCED]),
    },
    tuning_seeds=range(10),
    evaluation_seeds=range(2000, 2024),
    measurements=[Measurement("noise", drift, NOISE["seeds"], lambda t: t[t["ratio"] == 1], atol=0.02)],
    probed=[PRIMARY, "silent pixels · MLP, 1 hidden layer · 20% wrong labels", f"{FEW} images · linear"],
    settings={"train": TRAIN, "silent": SILENT, "least_sd": LEAST_SD, "few": FEW, "noise": NOISE},
    kept="accuracy|halvings",
)
STUDY = PROTOCOL.study
