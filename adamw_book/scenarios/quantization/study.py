"""What is claimed, and the protocol that decides it."""

from adamw_book.arms import ADAM
from adamw_book.evidence import Claim
from adamw_book.protocol import Contrast, Measurement, Protocol, Regime

from .dose import DOSE, dose_response
from .tasks import AWARE, CONDITIONS, LOW, PRESET, PRESETS, PRIMARY, TRAIN

PRECISION = Claim(
    id="quantization.precision",
    tag="3096537",
    statement="Both tuned for accuracy, a CNN trained with AdamW loses less accuracy when its weights are rounded to "
    "4 bits than one trained without decay.",
    source="By keeping weights small throughout training AdamW gathers them near zero, so that quantisation loses less "
    "precision.",
    criterion="Supported: what rounding to 4 bits (one grid a weight tensor, as wide as its largest weight) changes in "
    "test accuracy is better by half a percentage point or more than under Adam without decay, with the 95% interval "
    "above zero. Both are tuned on validation accuracy before rounding.",
    metric=f"test accuracy change at {LOW}",
    smallest_effect=0.005,
    primary=PRIMARY,
    dividing="the network and on whether its labels are right",
)
CLIPPING = Claim(
    id="quantization.preset",
    tag="3096537",
    statement="Both tuned for accuracy, a CNN trained with AdamW keeps more of its accuracy than one trained without "
    "decay when its weights are stored in 8 bits with a range that was preset to ±1.",
    source="Smaller weights are more likely to fall within the preset bins of a quantiser instead of being clipped, "
    "which would cost performance.",
    criterion="Supported: what 8 bits with the range ±1 for every weight tensor change in test accuracy is better by "
    "half a percentage point or more than under Adam without decay, with the 95% interval above zero. Both are tuned "
    "on validation accuracy before rounding. The map has other networks at ±1, and this network at narrower ranges.",
    metric=f"test accuracy change at {PRESET}",
    smallest_effect=0.005,
    primary=PRIMARY,
    dividing="how narrow the preset range is",
)

NARROWER = {
    f"{PRIMARY} · range ±{preset:g}": Regime(PRIMARY, f"test accuracy change at 8 bits, range ±{preset:g}")
    for preset in PRESETS[1:]
}

PROTOCOL = Protocol(
    chapter="frontier/quantization",
    conditions=CONDITIONS | AWARE,
    claims={
        PRECISION: Contrast(control=ADAM, conditions=list(CONDITIONS)),
        CLIPPING: Contrast(
            control=ADAM, regimes={name: Regime(name, CLIPPING.metric) for name in CONDITIONS} | NARROWER
        ),
    },
    tuning_seeds=range(10),
    evaluation_seeds=range(2000, 2024),
    measurements=[Measurement("dose", dose_response, DOSE["seeds"])],
    probed=[PRIMARY, "MLP · 20% wrong labels", *list(AWARE)[1:]],
    probed_metrics="loss|norm|crest|kurtosis|error",
    settings={"train": TRAIN, "dose": DOSE},
    kept=r"accuracy$|accuracy at \d bits$|change at|norm|crest|kurtosis|largest|error|clipped",
)
STUDY = PROTOCOL.study
