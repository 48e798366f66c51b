"""What moves under a shift, in numbers, and ridge regression with a core and a spurious feature, in closed form."""

from collections.abc import Mapping, Sequence
from numbers import Integral

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from adamw_book.arms import ARMS
from adamw_book.data import generator
from adamw_book.ensemble import Task, train


def conditional(core_right: float, agreement: float) -> pd.DataFrame:
    """Two binary inputs and a label y, 0 or 1 with equal odds: ``core`` equals y with probability ``core_right``,
    ``bit`` with probability ``agreement``, independently given y.

    Returns one row for each input that occurs: core, bit, p (its probability), p_y (the probability of y = 1 given it).
    """
    for name, value in (("core_right", core_right), ("agreement", agreement)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: {value}; a probability between 0 and 1 is needed")
    rows = []
    for core in (0, 1):
        for bit in (0, 1):
            joint = [
                0.5 * (core_right if core == y else 1 - core_right) * (agreement if bit == y else 1 - agreement)
                for y in (0, 1)
            ]
            if sum(joint) > 0:
                rows.append({"core": core, "bit": bit, "p": sum(joint), "p_y": joint[1] / sum(joint)})
    return pd.DataFrame(rows)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < np.inf:
            raise ValueError(f"{name}: {value}; a finite number above 0 is needed")


def ridge_weights(decay, core: float = 1.0, spurious: float = 1.0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(w_c, w_s): ridge regression of y = ±1 on x_c = a_c·y and x_s = a_s·(y + τn), n of mean 0 and variance 1.

    Minimises E[(w_c x_c + w_s x_s − y)²] + κ(w_c² + w_s²) for κ = ``decay`` (a number or an array of them), a_c =
    ``core``, a_s = ``spurious``, τ = ``noise``: with det = (a_c²+κ)(a_s²(1+τ²)+κ) − a_c²a_s²,

        w_c = a_c (a_s²τ² + κ) / det,    w_s = a_s κ / det.
    """
    _positive(core=core, spurious=spurious, noise=noise)
    decay = np.asarray(decay, float)
    if bad := decay[~((decay >= 0) & (decay < np.inf))].tolist():
        raise ValueError(f"decay: {bad[0]}; finite numbers of 0 or more are needed")
    det = (core**2 + decay) * (spurious**2 * (1 + noise**2) + decay) - (core * spurious) ** 2
    return core * (spurious**2 * noise**2 + decay) / det, spurious * decay / det


def reliance(decay, core: float = 1.0, spurious: float = 1.0, noise: float = 1.0) -> np.ndarray:
    """r = w_s a_s / (w_c a_c), how much the spurious feature adds for each unit that the core adds, in
    :func:`ridge_weights`: a_s² κ / (a_c² (a_s² τ² + κ)), which grows from 0 to a_s²/a_c² as κ goes from 0 to ∞."""
    w_core, w_spurious = ridge_weights(decay, core, spurious, noise)
    return w_spurious * spurious / (w_core * core)


def two_features(
    n: int, rng: torch.Generator, core: float = 1.0, spurious: float = 1.0, noise: float = 1.0
) -> tuple[Tensor, Tensor]:
    """A sample of n examples: inputs (n, 2), core and spurious, and labels ±1 (n,), in double precision.

    Its moments are those of the population exactly: as many 1 as −1, and n of mean 0 and variance 1 in each class.
    """
    _positive(core=core, spurious=spurious, noise=noise)
    if not isinstance(n, Integral) or n < 6 or n % 2:
        raise ValueError(f"n: {n}; an even number of at least 6 examples is needed")
    half = torch.randn(2, n // 2, generator=rng, dtype=torch.float64)
    half = (half - half.mean(1, keepdim=True)) / half.std(1, keepdim=True, correction=0)
    y = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat_interleave(n // 2)
    return torch.stack([core * y, spurious * (y + noise * half.flatten())], 1), y


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of each replica: outputs (R, N, 1), targets (R, N) → (R,)."""
    return (outputs[..., 0] - targets).square().mean(1)


def runs_at(doses: Mapping[str, Sequence[float]], lr: float, seeds: Sequence[int]) -> pd.DataFrame:
    """Runs of each arm {its name: doses of its decay} at one learning rate; of an arm without decay the doses are
    learning rates. Columns arm, lr, weight_decay, l2, seed. Raises ValueError for no arm or an unknown one."""
    if not doses or not set(doses) <= set(ARMS):
        raise ValueError(f"doses: the arms {list(doses)}; at least one of {', '.join(map(repr, ARMS))} is needed")
    rows = [
        {"arm": name, "lr": lr if ARMS[name].decay else dose}
        | ARMS[name].coefficients(dose if ARMS[name].decay else 0.0)
        for name, values in doses.items()
        for dose in values
    ]
    return pd.DataFrame(rows).merge(pd.DataFrame({"seed": list(seeds)}), how="cross")


def trained_reliance(
    doses: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    *,
    n: int = 200,
    steps: int = 1000,
    batch_size: int = 20,
    lr: float = 0.03,
    **problem: float,
) -> pd.DataFrame:
    """The :func:`reliance` of a linear model that AdamW or Adam + L2 has trained on :func:`two_features`, with
    mini-batches.

    doses: as in :func:`runs_at`. problem: ``core``, ``spurious``, ``noise``. Returns arm, dose, seed, reliance.
    """

    def data(seed: int):
        x, y = two_features(n, generator(seed, "data"), **problem)
        return {"train": (x.float(), y.float())}

    task = Task(
        "core and spurious feature", lambda: nn.Linear(2, 1, bias=False), data, squared_error, {"loss": squared_error}
    )
    result = train(
        task, runs_at(doses, lr, seeds), steps=steps, batch_size=batch_size, schedule="cosine", evaluate=("train",),
        keep_parameters=True, device="cpu",
    )  # fmt: skip
    w = result.parameters["weight"][:, 0]
    ratio = w[:, 1] * problem.get("spurious", 1.0) / (w[:, 0] * problem.get("core", 1.0))
    table = result.runs
    return pd.DataFrame(
        {"arm": table["arm"], "dose": table["weight_decay"] + table["l2"], "seed": table["seed"], "reliance": ratio}
    )
