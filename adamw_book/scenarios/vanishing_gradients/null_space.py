"""The part of the weights that gets no gradient: in the first layer of a network, whose inputs leave directions out,
and between the layers of a deep one, whose units die."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from adamw_book.arms import THREE
from adamw_book.data import digits_splits
from adamw_book.ensemble import Snapshot, Task, initial_parameters, train
from adamw_book.models import MLP, matrices
from adamw_book.protocol import Condition

HALVINGS = "halvings of the null weights"
MOST_HALVINGS = 10.0  # a thousandth of the start: what is smaller is as good as zero


def null_projector(x: Tensor, tolerance: float = 1e-9) -> Tensor:
    """The projection (D, D) on the directions of input space that no example of x (N, D) has a part in.

    The gradient of a linear layer's weights (out, D) is a sum of outer products with the examples, so its rows never
    leave the examples' span: times this matrix it is zero. Raises ``ValueError`` where the examples span everything,
    and where x is no matrix of finite floating-point numbers with at least one example.
    """
    if x.ndim != 2 or not x.numel() or not x.is_floating_point() or not x.isfinite().all():
        raise ValueError(
            f"x: {x.dtype} of shape {tuple(x.shape)}; finite floats (N, D), of at least one example, are needed"
        )
    _, values, directions = torch.linalg.svd(x.double(), full_matrices=True)
    rank = int((values > tolerance * values[0]).sum())
    if rank == x.shape[1]:
        raise ValueError(f"x: its {len(x)} examples span all {rank} input dimensions; there is no null space")
    return (directions[rank:].T @ directions[rank:]).to(x.dtype)


def halvings(projector: Callable[[int], Tensor]) -> Callable[[Condition], Callable[[Snapshot], dict[str, Tensor]]]:
    """A condition's ``measure``: how often training has halved the norm of the first layer's weights (R, units, D) in
    the null space, on which ``projector(seed)`` (D, D) projects.

    Negative where the norm grew; never above ``MOST_HALVINGS``, since a penalty may reach zero; NaN for a run that
    diverged.
    """

    def made(condition: Condition) -> Callable[[Snapshot], dict[str, Tensor]]:
        def measure(snapshot: Snapshot) -> dict[str, Tensor]:
            seeds = [int(seed) for seed in snapshot.runs["seed"]]
            null = torch.stack([projector(seed) for seed in seeds])
            name = next(iter(snapshot.parameters))
            start, now = initial_parameters(condition.task.model, seeds)[name], snapshot.parameters[name].cpu()
            left = (now @ null).flatten(1).norm(dim=1) / (start @ null).flatten(1).norm(dim=1)
            return {HALVINGS: -left.clamp(min=2.0**-MOST_HALVINGS).log2().to(snapshot.parameters[name].device)}

        return measure

    return made


DEEP = {"depth": 8, "train": 300, "steps": 400, "batch_size": 50, "lr": 0.005, "weight_decay": 1.0, "l2": 0.005}


def dead_parts(seeds: Sequence[int], settings: Mapping = DEEP) -> pd.DataFrame:
    """What is silent among the weights between the hidden layers of a deep ReLU network without normalisation, trained
    on digits with one dose of each decay: a tidy table.

    "second moment zero": the share of weights whose ``exp_avg_sq`` is exactly 0, so that no gradient, and no penalty,
    ever reached them. "left of these": their norm, relative to its start (NaN where there are none). "no gradient":
    those whose gradient on the last batch is exactly 0. "below the crossing": those with a nonzero √v̂ below ℓ/λ, where
    the coupled penalty is the stronger one.
    """
    task = Task(
        "digits, deep",
        lambda: MLP(depth=settings["depth"]),
        lambda seed: digits_splits(seed, train=settings["train"], fixed_test=True),
    )
    names = [f"layers.{i}.weight" for i in range(1, settings["depth"])]

    def flat(tensors: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([tensors[name].flatten(1) for name in names], 1).cpu()

    def measure(snapshot: Snapshot) -> dict[str, Tensor]:
        v, g, w = (flat(one) for one in (snapshot.exp_avg_sq, snapshot.gradients, snapshot.parameters))
        start, silent = flat(initial_parameters(task.model, list(snapshot.runs["seed"]))), v == 0
        crossing = settings["l2"] / settings["weight_decay"]
        below = (v / (1 - 0.999**snapshot.step)).sqrt() < crossing
        found = {
            "second moment zero": silent.float().mean(1),
            "left of these": (w * silent).norm(dim=1) / (start * silent).norm(dim=1),
            "no gradient": (g == 0).float().mean(1),
            "below the crossing": (below & ~silent).float().mean(1),
        }
        device = snapshot.parameters[names[0]].device
        return {name: value.to(device) for name, value in found.items()}

    arms = [{"arm": a.name, "lr": settings["lr"]} | a.coefficients(settings.get(a.decay, 0.0)) for a in THREE]
    runs = pd.DataFrame(arms).merge(pd.DataFrame({"seed": list(seeds)}), how="cross")
    return train(task, runs, steps=settings["steps"], batch_size=settings["batch_size"], evaluate=(), measure=measure,
                 decays=matrices, schedule="cosine").table  # fmt: skip
