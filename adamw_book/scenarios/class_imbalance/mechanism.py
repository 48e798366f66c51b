"""What decay does to the logit, and what it does to class weights, in settings small enough for a formula."""

import math
from collections.abc import Sequence
from numbers import Integral

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import softplus

from adamw_book.ensemble import train
from adamw_book.evidence import grid
from adamw_book.optim import AdamW
from adamw_book.task import Snapshot

from .tasks import BIASES, prior, task


def log_odds(share: float) -> float:
    """ln(π / (1 − π)): the constant logit with the lowest cross-entropy where the positives' share is ``share``."""
    if not 0 < share < 1:
        raise ValueError(f"share: {share}; a share between 0 and 1 is needed")
    return math.log(share / (1 - share))


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: {value}; a finite number above 0 is needed")


def logits_by_decay(
    data: str, loss: str, weight_decay: Sequence[float], seeds: Sequence[int], *, lr: float, steps: int,
    bias: str = "undecayed bias", batch_size: int = 50,
) -> pd.DataFrame:  # fmt: skip
    """A linear model under AdamW, a tidy table by ``weight_decay`` and seed: the metrics "bias", "mean logit",
    "largest logit" (both over the validation split), "largest weight" (in size) and the validation metrics.

    data, loss: names in ``COUNTS`` and ``LOSSES``; bias: a name in ``BIASES``.
    """
    if bias not in BIASES:
        raise ValueError(f"bias: {bias!r} is unknown; choose from {', '.join(map(repr, BIASES))}")
    found = task(data, "linear", loss)
    runs = grid({"AdamW": {"lr": [lr], "weight_decay": weight_decay}}, seeds)
    x = torch.stack([found.data(int(seed))["validation"][0] for seed in runs["seed"]])

    def measure(snapshot: Snapshot) -> dict[str, Tensor]:
        w, b = (snapshot.parameters[name].cpu() for name in ("weight", "bias"))
        logits = torch.einsum("rnd,rd->rn", x, w[:, 0]) + b
        return {
            "bias": b[:, 0],
            "mean logit": logits.mean(1),
            "largest logit": logits.max(1).values,
            "largest weight": w.abs().flatten(1).max(1).values,
        }

    # one chunk: `measure` looks at all replicas, in their order
    return train(
        found, runs, steps=steps, batch_size=batch_size, evaluate=("validation",), measure=measure,
        schedule="cosine", decays=BIASES[bias], chunk_size=len(runs), device="cpu",
    ).table  # fmt: skip


def weighted_bias(slope: np.ndarray | float, weight: float) -> np.ndarray | float:
    """The bias b that minimises ω·ln(1 + e^(−w−b)) + ln(1 + e^(−w+b)) for a given slope w, with ω = ``weight``.

    Setting the derivative to zero gives a z² − (ω − 1) z − ω a = 0 for z = e^b, a = e^w. With ω = e^(2u), z = e^u y, it
    is y − 1/y = 2 sinh(u)/a, so b = u + arsinh(e^(−w) sinh u), and for large w it is u = ½ ln ω. Raises ValueError for
    a weight that is not positive.
    """
    _positive(weight=weight)
    u = math.log(weight) / 2
    return u + np.arcsinh(np.exp(np.negative(slope)) * math.sinh(u))


def wash_out(
    weight_decay: Sequence[float], *, weight: float = 24.0, l2: Sequence[float] | None = None, lr: float = 0.03,
    steps: int = 6000, record: Sequence[int] = (),
) -> pd.DataFrame:  # fmt: skip
    """Synthetic: two points, +1 (a positive, weighted ω = ``weight``) and −1 (a negative), the logit w·x + b, all data
    at every step. Without class weights the boundary lies at 0.

    weight_decay, l2: one value a replica, acting on w alone. Returns a table with a row a replica and recorded step:
    weight_decay, l2, step, slope (w), bias (b) and boundary (−b / w). record: steps from 1 to ``steps``, by default the
    last. Raises ValueError for a weight that is not positive, decays that are negative or not finite, lists of
    different lengths, and steps that never come.
    """
    _positive(weight=weight)
    weight_decay = list(weight_decay)
    l2 = [0.0] * len(weight_decay) if l2 is None else list(l2)
    if len(l2) != len(weight_decay) or not len(l2):
        raise ValueError(
            f"weight_decay, l2: {len(weight_decay)} and {len(l2)} values; equal numbers of at least one are needed"
        )
    if bad := [value for value in weight_decay + l2 if not 0 <= value < math.inf]:
        raise ValueError(f"weight_decay, l2: {bad[0]}; finite values of 0 or more are needed")
    record = set(record) or {steps}
    if not isinstance(steps, Integral) or not record <= set(range(1, steps + 1)):
        raise ValueError(f"record: {sorted(record)}; whole numbers from 1 to steps={steps} are needed")
    decay, penalty = (torch.tensor(list(values), dtype=torch.float64) for values in (weight_decay, l2))
    w, b = (torch.zeros(len(decay), 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = AdamW(
        [{"params": [w], "weight_decay": decay, "l2": penalty}, {"params": [b], "weight_decay": 0.0}], lr=lr
    )
    rows = []
    for step in range(1, steps + 1):
        loss = (weight * softplus(-w - b) + softplus(b - w)).sum() / (weight + 1)
        w.grad, b.grad = torch.autograd.grad(loss, [w, b])
        optimizer.step()
        if step in record:
            slope, bias = w.detach()[:, 0].tolist(), b.detach()[:, 0].tolist()
            rows += [
                {"weight_decay": d, "l2": p, "step": step, "slope": s, "bias": c, "boundary": -c / s}
                for d, p, s, c in zip(weight_decay, l2, slope, bias, strict=True)
            ]
    return pd.DataFrame(rows)


def recall_bound(data: str, seed: int) -> float:
    """The λ beyond which no example of the validation split can get a positive logit from a linear model whose bias
    is the log prior odds: AdamW keeps every |w_j| ≤ 1/λ, so |w·x| ≤ ‖x‖₁ / λ, and that has to reach |log odds|."""
    x = task(data, "linear", "unweighted").data(seed)["validation"][0]
    return float(x.abs().sum(1).max()) / -log_odds(prior(data))
