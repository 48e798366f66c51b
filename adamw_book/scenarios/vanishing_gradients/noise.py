"""Weights that get no signal and yet a gradient: nothing but noise."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from adamw_book.arms import ADAM, ADAM_L2, ADAMW, THREE
from adamw_book.data import generator
from adamw_book.dynamics import drive
from adamw_book.evidence import Claim, Effect, paired

NOISE = {
    "steps": 6000,
    "lr": 0.01,
    "weight_decay": 0.4,
    "l2": 0.005,
    "coordinates": 100,
    "ratios": [0.1, 0.3, 1.0, 3.0, 10.0],
    "seeds": list(range(2000, 2012)),
}


def regime(ratio: float) -> str:
    """The name of a strength of the noise, relative to ℓ/λ."""
    return f"noise of {ratio:g} × ℓ/λ"


DRIFT = Claim(
    id="vanishing_gradients.drift",
    tag="3096558",
    statement="Both decays end the drift of weights whose gradients are nothing but noise; AdamW holds them tighter "
    "where the noise is stronger than ℓ/λ, Adam + L2 where it is weaker.",
    source="Without decay, parameters that no data guides drift freely to needlessly large values; AdamW prevents it "
    "where Adam + L2 does not.",
    criterion="A formula, and no estimate: the two differ by ½ log2(σλ/ℓ) halvings, which is nothing where the noise "
    "has the strength σ = ℓ/λ.",
    metric="halvings of the drift",
    smallest_effect=0.32,
    primary=regime(1),
    arithmetic=True,
)


def drift(seeds: Sequence[int], settings: Mapping = NOISE) -> pd.DataFrame:
    """Where noise gradients drive weights that start at zero: a tidy table (ratio, arm, seed, step, metric, value).

    The metric is −log2 of the root mean square over the coordinates and the last third of the steps, so that tighter
    is larger. ratio: the noise's standard deviation over ℓ/λ. Raises ``ValueError`` for no seeds and fewer than three
    steps.
    """
    seeds, ratios, steps, n = list(seeds), settings["ratios"], settings["steps"], settings["coordinates"]
    if not seeds or steps < 3:
        raise ValueError(f"seeds, steps: {seeds}, {steps}; at least one seed and three steps are needed")
    unit = torch.stack([torch.randn(steps, n, generator=generator(int(seed), "noise")) for seed in seeds], 1)
    sd = settings["l2"] / settings["weight_decay"] * torch.tensor(ratios)[:, None, None]  # (ratios, seeds, n) below
    tables = []
    for arm in THREE:
        decay = {arm.decay: settings[arm.decay]} if arm.decay else {}
        path = drive(lambda step, w: (unit[step] * sd).flatten(0, 1), torch.zeros(len(ratios) * len(seeds), n), steps,
                     lr=settings["lr"], **decay)  # fmt: skip
        rms = path[-(steps // 3) :].square().mean((0, 2)).sqrt()
        runs = pd.DataFrame({"ratio": ratios}).merge(pd.DataFrame({"seed": seeds}), how="cross")
        tables.append(runs.assign(arm=arm.name, step=steps, metric=DRIFT.metric, value=-np.log2(rms.numpy())))
    return pd.concat(tables, ignore_index=True)


def drift_formula(ratio: float, settings: Mapping = NOISE) -> dict[str, float]:
    """{arm: what :func:`drift` comes to}: each step of size η in a random direction, of which a decay takes back the
    share ηκ, where κ is λ (AdamW), ℓ/σ (Adam + L2) or 0: after t steps the mean square is η(1 − e^(−2κηt))/2κ."""
    lr, steps = settings["lr"], settings["steps"]
    t = np.arange(steps - steps // 3, steps) + 1
    rates = {ADAMW: settings["weight_decay"], ADAM_L2: settings["weight_decay"] / ratio, ADAM: 0.0}
    squares = {arm: -lr * np.expm1(-2 * k * lr * t) / (2 * k) if k else lr**2 * t for arm, k in rates.items()}
    return {arm.name: float(-np.log2(square.mean()) / 2) for arm, square in squares.items()}


def drift_effects(table: pd.DataFrame) -> dict[str, Effect]:
    """AdamW − (Adam + L2) at each strength of the noise."""
    return {
        regime(ratio): paired(part, ADAMW.name, ADAM_L2.name, DRIFT.metric)
        for ratio, part in table.groupby("ratio", sort=False)
    }
