"""The *tasks*: digits shared out over clients, evenly or not, and what each arm's decay leads to."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from adamw_book.arms import ADAM, ADAM_L2, ADAMW, Arm
from adamw_book.data import digits_splits
from adamw_book.evidence import CONFIGURATION
from adamw_book.federated import Federation
from adamw_book.models import MLP
from adamw_book.protocol import Condition
from adamw_book.task import Task

from . import shards

TRAIN, CLIENTS, ROUNDS, LOCAL_STEPS, BATCH, ALPHA, WRONG = 400, 10, 40, 5, 20, 0.1, 0.2
MODELS = {"MLP": MLP, "MLP, LayerNorm": partial(MLP, norm=True)}
SPLITS: dict[str, Callable] = {
    "even": shards.evenly,
    f"Dirichlet {ALPHA:g}": partial(shards.dirichlet, alpha=ALPHA),
    "one label each": shards.one_label,
}
UNEVEN = f"Dirichlet {ALPHA:g}"

# Decay toward the model that the round began with, of either kind, and decay at the server
TO_GLOBAL = Arm("decay to global", "weight_decay", ADAMW.style)
FEDPROX = Arm("FedProx", "l2", ADAM_L2.style)
AT_SERVER = Arm("AdamW at the server", "weight_decay", ADAMW.style)

# Settled on validation data alone.
PLAIN = {"lr": (0.001, 0.3), "weight_decay": (0.01, 6.0), "l2": (0.0001, 0.06), "count": 16}
NORMALISED = {"lr": (0.001, 0.3), "weight_decay": (0.05, 30.0), "l2": (0.001, 0.6), "count": 16}
GLOBAL = {"lr": (0.001, 0.3), "weight_decay": (0.05, 30.0), "l2": (0.0001, 0.06), "count": 16}
AT_THE_SERVER = {"lr": (0.001, 0.3), "weight_decay": (0.01, 6.0), "count": 16}
SERVER_LR = (0.005, 0.1)


def federation(split: str, clients: int = CLIENTS, **options) -> Federation:
    """``clients`` that share the training set out in a way named in ``SPLITS``; options are those of
    :class:`adamw_book.federated.Federation`."""
    if split not in SPLITS:
        raise ValueError(f"split: {split!r}; choose from {', '.join(map(repr, SPLITS))}")
    return Federation(split, partial(SPLITS[split], clients=clients), clients, LOCAL_STEPS, **options)


def toward(runs: pd.DataFrame, pull: str = "origin") -> pd.DataFrame:
    """Runs whose decay, of either kind, leads to the origin, or to the "global" model that the round began with."""
    return runs.assign(pull=pull)


def condition(
    split: str, model: str, ranges: dict, wrong: float = 0.0, further: str = "", options: dict | None = None, **rest
) -> Condition:
    """One network (a name in ``MODELS``) under one split (a name in ``SPLITS``): ``options`` are the federation's, the
    ``rest`` the condition's."""
    name = f"{split} · {model}{f' · {further}' if further else ''}"
    task = Task(name, MODELS[model], lambda seed: digits_splits(seed, train=TRAIN, label_noise=wrong, fixed_test=True))
    own = {"vary": toward, "tuned": (*CONFIGURATION, "pull")} | rest
    return Condition(
        task, ranges, steps=ROUNDS * LOCAL_STEPS, batch_size=BATCH, judged=("test",),
        kind=federation(split, **options or {}), **own,
    )  # fmt: skip


def at_server(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs of which the arm "AdamW at the server" decays there, each configuration with a server's learning rate of its
    own: the powers of the plastic number's inverse, a lattice beside that of the decays, over the logarithm of
    ``SERVER_LR``."""
    here = runs["arm"] == AT_SERVER.name
    place = {lr: i + 1 for i, lr in enumerate(sorted(runs["lr"].unique()))}
    share = runs["lr"].map(place).to_numpy() * 0.5698402909980532 % 1
    low, high = SERVER_LR
    rates = np.array([float(f"{rate:.3g}") for rate in low * (high / low) ** share])
    return runs.assign(pull=np.where(here, "server", "origin"), server_lr=np.where(here, rates, 0.0))


def _all() -> list[Condition]:
    found = [condition(UNEVEN, "MLP", PLAIN)]
    found += [condition(split, "MLP, LayerNorm", NORMALISED) for split in SPLITS]
    found.append(condition("even", "MLP, LayerNorm", NORMALISED, WRONG, f"{WRONG:.0%} wrong labels"))
    found.append(condition(UNEVEN, "MLP", PLAIN, further="moments kept", options={"state": "kept"}))
    few = {"clients": 2 * CLIENTS, "participants": CLIENTS // 2}
    found.append(condition(UNEVEN, "MLP", PLAIN, further="5 of 20 clients a round", options=few))
    to_global = {"arms": (TO_GLOBAL, FEDPROX, ADAM), "vary": partial(toward, pull="global")}
    found.append(condition(UNEVEN, "MLP", GLOBAL, further="toward the global model", **to_global))
    server = {"arms": (AT_SERVER, ADAM), "vary": at_server, "tuned": (*CONFIGURATION, "pull", "server_lr")}
    found.append(condition(UNEVEN, "MLP", AT_THE_SERVER, further="decay at the server", **server))
    return found


CONDITIONS = {one.task.name: one for one in _all()}
