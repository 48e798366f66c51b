"""What is claimed, and the protocol that decides it."""

from adamw_book.arms import ADAM, ADAMW
from adamw_book.clients import SERVER
from adamw_book.evidence import Claim
from adamw_book.protocol import Contrast, Measurement, Protocol

from .doses import AGREEMENT, DOSES, agreement_effects, doses
from .tasks import BATCH, CLIENTS, CONDITIONS, SERVER_LR, TRAIN, UNEVEN, WRONG

PRIMARY = f"{UNEVEN} · MLP"
TOWARD_ORIGIN = [name for name, one in CONDITIONS.items() if ADAMW in one.arms]

CONSENSUS = Claim(
    id="federated_learning.consensus",
    tag="3096479",
    statement="Clients with different data reach a more accurate common model when they share a tuned decoupled decay "
    "than when they have none.",
    source="The common gravity toward the origin reconciles the clients' updates, stabilises the convergence of the "
    "global model and leads to a better consensus.",
    criterion="AdamW against Adam without decay at the clients, both tuned by the same law on validation data. "
    "Supported: the global model of the last round is more accurate on test data by one percentage point or more, with "
    "the 95% interval above zero.",
    metric="test accuracy",
    smallest_effect=0.01,
    primary=PRIMARY,
    dividing="how the data are split and on the network",
)

PROTOCOL = Protocol(
    chapter="frontier/federated_learning",
    conditions=CONDITIONS,
    claims={
        CONSENSUS: Contrast(control=ADAM, conditions=TOWARD_ORIGIN),
        AGREEMENT: lambda tables: agreement_effects(tables["doses"]),
    },
    tuning_seeds=range(10),
    evaluation_seeds=range(2000, 2024),
    measurements=[
        Measurement(
            "doses", doses, DOSES["seeds"],
            lambda t: t[t["condition"].eq(PRIMARY) & t["dose"].isin([0.0, 0.3]) & t["metric"].eq(AGREEMENT.metric)],
            atol=0.08,
        ),
    ],
    probed=[PRIMARY, "even · MLP, LayerNorm", f"{UNEVEN} · MLP · toward the global model"],
    probed_metrics="^(?:weight norm|client drift|client disagreement)$",
    settings={"train": TRAIN, "batch": BATCH, "clients": CLIENTS, "wrong": WRONG, "server_lr": list(SERVER_LR),
              "server": SERVER | {"betas": list(SERVER["betas"])}, "doses": DOSES},
    kept="test accuracy|client|left out",
)  # fmt: skip
STUDY = PROTOCOL.study
