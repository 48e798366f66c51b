"""The network that is deployed: an MLP as engines know it, out of standard layers, and its sizes and answers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from adamw_book.models import MLP

Answer = Callable[[Tensor], Tensor]


def as_torch(network: nn.Module) -> Answer:
    """A module as an answer, without gradients."""

    def answer(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(x)

    return answer


@dataclass(frozen=True)
class Deployed:
    """answer: inputs (N, D) → logits (N, C). size: bytes on disk. bits: of a weight, 32 where none is quantised.
    grid: how the chapter's own quantiser comes closest, with a range each "tensor" or "channel", "" for none. module:
    what answers, where that is one of torch's."""

    answer: Answer
    size: int
    bits: int
    grid: str = ""
    module: nn.Module | None = None

    @classmethod
    def of(cls, module: nn.Module, path: Path, bits: int = 32, grid: str = "") -> "Deployed":
        """One of torch's modules, whose state is written to ``path``."""
        torch.save(module.state_dict(), path)
        return cls(as_torch(module), path.stat().st_size, bits, grid, module)


def of_layers(mlp: MLP) -> nn.Sequential:
    """The same function as ``mlp``, of nn.Linear, nn.LayerNorm and nn.ReLU, which engines recognise; it shares the
    parameters."""
    layers: list[nn.Module] = []
    for i, linear in enumerate(mlp.layers):
        layers.append(linear)
        if i < len(mlp.layers) - 1:
            layers += [mlp.norms[i]] if mlp.norms is not None else []
            layers.append(nn.ReLU())
    return nn.Sequential(*layers).eval()
