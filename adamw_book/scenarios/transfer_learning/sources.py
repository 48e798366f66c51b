"""The *sources*: MNIST's digits in the form of scikit-learn's, and the weights that networks have learned from them."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import pandas as pd
import torch
from torch import Tensor

from adamw_book.data import Splits, generator, split
from adamw_book.ensemble import train
from adamw_book.models import CNN, MLP, matrices
from adamw_book.task import Task

FILE = "mnist_8x8.tsv.gz"
SYMBOLS = "0123456789abcdefg"  # of the counts 0 … 16
MODELS = {
    "MLP": lambda: MLP(depth=2),
    "MLP, LayerNorm": lambda: MLP(depth=2, norm=True),
    "CNN, GroupNorm": lambda: CNN(norm=True),
}
HEADS = ("layers.2.", "head.")  # the read-outs of MODELS; all else is body
APART = 100_000  # pre-training draws under seeds so far from those of fine-tuning


@dataclass(frozen=True)
class Source:
    """How a network was trained before: on so many images, with pixels in a wrong order or not, by so many steps of
    AdamW (cosine schedule, batches of 50)."""

    images: int
    steps: int
    lr: float
    weight_decay: float
    permuted: bool = False


SOURCES = {
    "useful source": Source(4000, 600, 0.005, 0.1),
    "mismatched source": Source(4000, 600, 0.005, 0.1, permuted=True),
    "over-trained source": Source(400, 1200, 0.02, 0.0),
}


@cache
def mnist() -> tuple[Tensor, Tensor]:
    """5,000 digits of MNIST as tools/mnist_8x8.py made them: images (5000, 64) in [0, 1] like those of
    :func:`adamw_book.data.digits`, and labels (5000,) in 0…9."""
    packed = files("adamw_book").joinpath("data_files", FILE).read_bytes()
    lines = [line.split("\t") for line in gzip.decompress(packed).decode().splitlines() if not line.startswith("#")]
    counts = [[SYMBOLS.index(symbol) for symbol in image] for _, image in lines]
    return torch.tensor(counts, dtype=torch.float32) / 16, torch.tensor([int(label) for label, _ in lines])


@cache
def wrong_order() -> Tensor:
    """A permutation (64,) of the pixels, one for all: what a network learns from digits seen so is of no use for
    digits as they are."""
    return torch.randperm(64, generator=generator(0, "pixels"))


def source_images(seed: int, source: str) -> Splits:
    """What a source (a name in ``SOURCES``) is trained on under a seed, and 1,000 other images as "validation"."""
    x, y = mnist()
    x = x[:, wrong_order()] if SOURCES[source].permuted else x
    return split(x.double(), y, {"validation": 1000, "train": SOURCES[source].images}, generator(seed, "data"))


def body(name: str) -> bool:
    """Whether a parameter of that name belongs to what is handed over: all but the read-out."""
    return not name.startswith(HEADS)


def pre_training(model: str, source: str, seeds: Sequence[int]) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """Train a model (a name in ``MODELS``) on a source under each seed: what was recorded at its end, and its weights
    {name: (len(seeds), …)}.

    In float64, so that another processor's rounding has not grown into other weights by the end.
    """
    how = SOURCES[source]
    task = Task(
        f"{model} · {source}", lambda: MODELS[model]().double(), lambda seed: source_images(seed, source)
    )  # fmt: skip
    runs = pd.DataFrame(
        {"arm": "AdamW", "lr": how.lr, "weight_decay": how.weight_decay, "l2": 0.0, "seed": [APART + s for s in seeds]}
    )
    result = train(
        task, runs, steps=how.steps, batch_size=50, schedule="cosine", decays=matrices, keep_parameters=True,
        device="cpu",
    )  # fmt: skip
    return result.table.assign(seed=result.table["seed"] - APART), result.parameters


_KEPT: dict[tuple[str, str, int], dict[str, Tensor]] = {}


def pre_trained(model: str, source: str, seeds: Sequence[int]) -> dict[str, Tensor]:
    """The body {name: (len(seeds), …)}, float32, of a model (a name in ``MODELS``) that a source has trained under each
    seed. A process trains each once."""
    missing = [seed for seed in dict.fromkeys(seeds) if (model, source, seed) not in _KEPT]
    if missing:
        _, parameters = pre_training(model, source, missing)
        for i, seed in enumerate(missing):
            _KEPT[model, source, seed] = {n: p[i].float() for n, p in parameters.items() if body(n)}
    kept = [_KEPT[model, source, seed] for seed in seeds]
    return {name: torch.stack([weights[name] for weights in kept]) for name in kept[0]}
