"""What is claimed, and the protocol that decides it."""

from adamw_book.arms import ADAM, ADAM_L2
from adamw_book.evidence import Claim
from adamw_book.protocol import Contrast, Measurement, Protocol, Regime

from .dose import DOSE, dose_response
from .tasks import ACTIVE_SD, AGREEMENT, CONDITIONS, INK, NETWORKS, NOISE_INPUTS, RADIUS, TRAIN

_SOURCE = (
    "In training, winter goes with pneumonia; a lazy model learns the season and fails in summer. Decay that is equal "
    "on all weights keeps a model from leaning on one coincidental feature"
)
SPURIOUS = Claim(
    id="covariate_shift.spurious",
    tag="3096579",
    statement="AdamW's decay keeps a model from leaning on a coincidental feature: it is more accurate than tuned Adam "
    "without decay once the coincidence is reversed.",
    source=f"{_SOURCE}.",
    criterion="Both arms tuned by the same law on validation data in which the bit goes with the label as in training; "
    "judged on test data in which it is flipped. Supported: one percentage point or more, with the 95% interval above "
    "zero.",
    metric="accuracy once the coincidence fails",
    smallest_effect=0.01,
    primary="bit · MLP",
    dividing="whether the coincidence ends with the sample or holds in the validation data too",
)
KIND = Claim(
    id="covariate_shift.spurious_kind",
    tag="3096579",
    statement="It is the decoupled kind of decay that does so: AdamW is more accurate than tuned Adam + L2 once the "
    "coincidence is reversed.",
    source=f"{_SOURCE}; a penalty that the adaptive denominator makes unequal does not.",
    criterion="As for the claim before, against Adam + L2 in place of Adam.",
    metric="accuracy once the coincidence fails",
    smallest_effect=0.01,
    primary="bit · MLP",
    dividing="whether the coincidence ends with the sample or holds in the validation data too",
)
SHIFT = Claim(
    id="covariate_shift.shift",
    tag="3096579",
    statement="AdamW holds up better under covariate shift than Adam + L2.",
    source="Because it does not lean on single features, a model trained with AdamW holds up under covariate shift.",
    criterion="Both arms tuned by the same law on validation data without the shift, judged on shifted test data. "
    "Supported: one percentage point or more, with the 95% interval above zero.",
    metric="accuracy under shift",
    smallest_effect=0.01,
    primary="rotation 30° · CNN, GroupNorm",
    dividing="the network and on the shift",
)

_BITS = [name for name in CONDITIONS if name.startswith("bit")]
COINCIDENCES = {
    **{name: Regime(name, "flipped test accuracy") for name in _BITS},
    **{f"{name} · oracle": Regime(name, "flipped test accuracy", "oracle") for name in _BITS},
    **{name: Regime(name, "test accuracy") for name in CONDITIONS if name.startswith("noise inputs")},
}
SHIFTS = {
    **{
        f"{shift} · {net}": Regime(f"digits · {net}", f"{shift} accuracy")
        for shift in ("rotation 30°", "pixel noise 0.3")
        for net in NETWORKS
    },
    "rotation 30° · MLP, active pixels": Regime("digits, active pixels · MLP", "rotation 30° accuracy"),
    "pixel noise 0.3 · MLP, active pixels": Regime("digits, active pixels · MLP", "pixel noise 0.3 accuracy"),
    "little ink → heaviest fifth · MLP": Regime("little ink · MLP", "highest fifth test accuracy"),
    "small radius → all (breast cancer) · MLP": Regime("small radius · MLP", "test accuracy"),
    "louder noise inputs · MLP": Regime("noise inputs · MLP", "louder test accuracy"),
}

PROTOCOL = Protocol(
    chapter="robustness/covariate_shift",
    conditions=CONDITIONS,
    claims={
        SPURIOUS: Contrast(control=ADAM, regimes=COINCIDENCES),
        KIND: Contrast(control=ADAM_L2, regimes=COINCIDENCES),
        SHIFT: Contrast(control=ADAM_L2, regimes=SHIFTS),
    },
    tuning_seeds=range(10),
    evaluation_seeds=range(2000, 2024),
    measurements=[
        Measurement(
            "dose", dose_response, DOSE["seeds"],
            lambda t: t[(t["condition"] == "bit · MLP") & (t["weight_decay"].eq(10) | t["l2"].eq(0.1))],
            atol=0.05,
        ),
    ],
    probed=["noise inputs · MLP", "digits · CNN, GroupNorm", "little ink · MLP"],
    settings={
        "train": TRAIN, "agreement": AGREEMENT, "noise_inputs": NOISE_INPUTS, "active_sd": ACTIVE_SD, "ink": INK,
        "radius": RADIUS, "dose": DOSE,
    },
    kept="accuracy",
)  # fmt: skip
STUDY = PROTOCOL.study
