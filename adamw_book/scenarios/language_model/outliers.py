"""How far the largest weights and activations stand out: what a quantiser, whose step follows the largest, has to pay
for."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from adamw_book.ensemble import Snapshot
from adamw_book.replicas import made
from adamw_book.task import Task

from .text import Corpus, library_text, text_splits

WEIGHTS, ACTIVATIONS, LARGEST = "weight kurtosis", "activation kurtosis", "largest activation outlier"
READ = 32  # windows


def kurtosis(values: Tensor) -> Tensor:
    """The fourth central moment over the squared second along the last axis: 3 for a normal distribution."""
    centred = values - values.mean(-1, keepdim=True)
    return centred.pow(4).mean(-1) / centred.square().mean(-1).square()


@cache
def windows_read(length: int, corpus: Corpus = library_text) -> Tensor:
    """The windows (READ, length) on which activations are looked at, the same for all models: validation text."""
    return text_splits(0, train=1, validation=READ, test=1, length=length, corpus=corpus)["validation"][0]


class _Stream(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.stream(x)


@torch.no_grad()
def outliers(task: Task, snapshot: Snapshot, corpus: Corpus = library_text) -> dict[str, Tensor]:
    """For each replica (R,): the kurtosis of the entries of a block's matrix, a mean over these; that of the stream's
    activations as it leaves the last block; and the largest of these over their root mean square."""
    matrices = [p.flatten(1) for name, p in snapshot.parameters.items() if name.startswith("blocks") and p.ndim == 3]
    stream = _Stream(made(task.model))
    parameters = {f"model.{name}": p for name, p in snapshot.parameters.items()}
    length = snapshot.parameters["positions.weight"].shape[1]
    x = windows_read(length, corpus).to(matrices[0].device)
    h = vmap(lambda own: functional_call(stream, own, (x,)))(parameters).flatten(1)
    return {
        WEIGHTS: torch.stack([kurtosis(matrix) for matrix in matrices]).mean(0),
        ACTIVATIONS: kurtosis(h),
        LARGEST: h.abs().amax(1) / h.square().mean(1).sqrt(),
    }
