"""What decay makes of the size of weights behind normalisations: Eq. F10, ‖w‖ → √(ηn/2λ), where it may hold and where
not.

In a pre-norm transformer every reader of the stream normalises it. The loss therefore does not change when all that
writes to the stream (the embeddings, and the last matrix of each attention and of each perceptron) is multiplied by one
number: these matrices *together* are scale-invariant, none of them alone.
"""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from adamw_book.ensemble import Snapshot, train
from adamw_book.models import matrices

from .tasks import BATCH, condition

SIZES = {"lr": 0.003, "weight_decay": [1.0, 3.0, 10.0], "steps": 1500, "every": 100, "seeds": [200, 201]}
WRITERS = "all that writes to the stream"
GROUPS = {
    WRITERS: ("tokens", "positions", "mix", "down"),
    "queries, keys, values": ("qkv",),
    "attention's output": ("mix",),
    "perceptron's input": ("up",),
    "perceptron's output": ("down",),
    "read-out": ("head",),
}
NORM, EXPECTED, RADIAL = "norm", "norm of Eq. F10", "cosine of gradient and weights"


def group(tensors: dict[str, Tensor], parts: Sequence[str]) -> Tensor:
    """The entries (R, n) of the weights whose name, but for "weight", ends in one of ``parts``."""
    return torch.cat([t.flatten(1) for name, t in tensors.items() if name.split(".")[-2] in parts], 1)


def sizes_of(snapshot: Snapshot) -> dict[str, Tensor]:
    """For each group its norm, what F10 expects of the entries that any gradient has reached, and the cosine of its
    gradient and its weights, 0 for a scale-invariant group; each (R,)."""
    found = {}
    ratio = torch.tensor((snapshot.runs["lr"] / snapshot.runs["weight_decay"]).to_numpy(), dtype=torch.float32)
    for name, parts in GROUPS.items():
        w, g, v = (group(t, parts) for t in (snapshot.parameters, snapshot.gradients, snapshot.exp_avg_sq))
        found[f"{name} · {NORM}"] = w.norm(dim=1)
        found[f"{name} · {EXPECTED}"] = (ratio.to(w.device) * (v > 0).sum(1) / 2).sqrt()
        found[f"{name} · {RADIAL}"] = (w * g).sum(1) / (w.norm(dim=1) * g.norm(dim=1)).clamp(min=1e-30)
    return found


def sizes(seeds: Sequence[int], settings: dict = SIZES) -> pd.DataFrame:
    """AdamW at a constant learning rate, long enough to settle: a tidy table (weight_decay, seed, step, group, metric,
    value)."""
    runs = pd.DataFrame({"arm": "AdamW", "lr": settings["lr"], "weight_decay": settings["weight_decay"], "l2": 0.0})
    task = condition("sizes", steps=settings["steps"]).task
    table = train(
        task, runs.merge(pd.DataFrame({"seed": list(seeds)}), how="cross"), steps=settings["steps"], batch_size=BATCH,
        record=range(0, settings["steps"] + 1, settings["every"]), evaluate=(), decays=matrices, measure=sizes_of,
    ).table  # fmt: skip
    table = table[table["metric"].str.contains(" · ")]
    names = table["metric"].str.split(" · ", n=1, expand=True)
    return table.assign(group=names[0], metric=names[1])
