"""The exercises of the chapter on sparse gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ..scenarios.sparse_gradients import texts
from ..scenarios.sparse_gradients.study import SPARSE_GAIN
from . import exercise
from .answers import ask, called, named, near, numbers
from .near_ties import check_winners

WAYS = {"dense": [200, 200, 200], "lazy": [200, 20, 0], "caught up": [200, 200, 200]}  # decays of each row


@exercise
def lazy_decay(remains: dict[str, list[float]]) -> str:
    """What is left of the three rows after 200 steps of η = 0.01 and λ = 0.5, in each of the three ways."""
    known = isinstance(remains, dict) and set(WAYS) <= set(remains)
    ask(known, f"`remains` is to be a dict with {', '.join(map(repr, WAYS))}.")
    for way, decays in WAYS.items():
        given = numbers(remains[way], f"remains[{way!r}]", 3)
        for row, (value, count) in enumerate(zip(given, decays, strict=True)):
            near(value, (1 - 0.01 * 0.5) ** count, f"remains[{way!r}][{row}]", 0.02)
    return "Lazy decay leaves the more of a row the rarer it is read; catching up leaves what dense decay does."


@exercise
def lazy_level(level: Callable[[float, float], float]) -> str:
    """A function of p and λ: where a weight settles whose gradient is 1 with probability p, if only then it decays."""
    for p, decay in ((1.0, 1.0), (0.3, 1.0), (0.1, 2.0)):
        slips = {
            -np.sqrt(p) / decay: "That is AdamW, whose decay acts at every step; here it acts in a share p of them.",
            -1 / (p * decay): "Adam's mean step is η√p, not η: its denominator remembers.",
        }
        near(called(level, p, decay, name="level"), -1 / (np.sqrt(p) * decay), "level", 0.02, slips)
    return "The rarer the gradient, the larger the weight: lazy decay turns AdamW's order round."


@exercise
def batch_size(uneven: dict[int, float]) -> str:
    """Root mean square gradient of common words over that of rare ones, at the start, for three batch sizes."""
    given = named(uneven, (5, 50, 500), "uneven")
    x, y = texts.synthetic_texts("all words informative", seed=0, train=4000)["train"]
    common, rare, rng = slice(10, 40), slice(300, 400), torch.Generator().manual_seed(1)
    for batch, value in given.items():
        rows = torch.randint(len(x), (400, batch), generator=rng)
        g = torch.einsum("sb,sbv->sv", 0.5 - y.float()[rows], x[rows]) / batch
        rms = g.square().mean(0)
        right = (rms[common].mean() / rms[rare].mean()).sqrt().item()
        near(value, right, f"uneven[{batch}]", 0.2, {right**2: "Take the root: the sizes, not their squares."})
    return "As long as noise dominates, the two sizes stay √(f₁/f₂) apart, whatever the batch size."


@exercise
def near_tie(gains: object, survives: bool) -> str:
    """The pairs of near-tied winners, AdamW − (Adam + L2) in percentage points."""
    return check_winners(SPARSE_GAIN, "AdamW", "Adam + L2", gains, survives)
