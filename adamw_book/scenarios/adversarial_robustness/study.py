"""What is claimed, and the protocol that decides it."""

from adamw_book.arms import ADAM
from adamw_book.evidence import Claim
from adamw_book.protocol import Contrast, Protocol, Regime

from .tasks import ADVERSARIAL, ATTACKS, CONDITIONS, EPSILON, RADIUS, TRAIN, TRAINING_STEPS, VARYING_SD

MARGIN = Claim(
    id="adversarial_robustness.margin",
    tag="3096527",
    statement="Both tuned for clean accuracy, a network trained with AdamW lies further from its test images than one "
    "trained without decay.",
    source="The geometric margin is inversely proportional to the norm of the weights, so AdamW's steady shrinkage "
    "widens the margin.",
    criterion="Supported: the mean L∞ radius over test images (the smallest change of all pixels that turns the "
    "prediction; 0 where it is wrong anyway) is larger by 0.005 of the pixel range or more than that of Adam without "
    "decay, with the 95% interval above zero. Both are tuned on clean validation accuracy; a margin counts only among "
    "networks that are about equally accurate.",
    metric="test L∞ radius",
    smallest_effect=0.005,
    primary="MLP · all pixels",
    dividing="the network and on which pixels it sees",
)
WITHSTANDS = Claim(
    id="adversarial_robustness.withstands",
    tag="3096527",
    statement="A network tuned with AdamW keeps more of its accuracy under projected gradient descent than one tuned "
    "by the same law with Adam + L2.",
    source="With the wider margin the model withstands attacks such as PGD better.",
    criterion="Supported: robust accuracy on test data (L∞, ε = 0.1, margin loss, restarts) is higher by one "
    "percentage point or more, with the 95% interval above zero. Networks are tuned on clean validation accuracy; on "
    "the map also on robust validation accuracy.",
    metric="test robust accuracy",
    smallest_effect=0.01,
    primary="MLP · all pixels",
    dividing="the network, on which pixels it sees and on what it is tuned for",
)

ORDINARY = [name for name in CONDITIONS if name != ADVERSARIAL]
ROBUST = {f"{name} · tuned for robustness": Regime(name, WITHSTANDS.metric, "robust") for name in ORDINARY}

PROTOCOL = Protocol(
    chapter="robustness/adversarial_robustness",
    conditions=CONDITIONS,
    claims={
        MARGIN: Contrast(control=ADAM, conditions=[name for name in ORDINARY if "CNN" not in name]),
        WITHSTANDS: Contrast(regimes={name: Regime(name, WITHSTANDS.metric) for name in CONDITIONS} | ROBUST),
    },
    tuning_seeds=range(10),
    evaluation_seeds=range(2000, 2024),
    probed=["linear · all pixels", "MLP, LayerNorm · pixels that vary", "CNN, GroupNorm · all pixels", ADVERSARIAL],
    settings={
        "train": TRAIN, "epsilon": EPSILON, "varying_sd": VARYING_SD, "training_steps": TRAINING_STEPS,
        "attacks": ATTACKS, "radius": RADIUS,
    },
    kept="accuracy|norm|radius",
)  # fmt: skip
STUDY = PROTOCOL.study
