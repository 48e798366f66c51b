"""Real text: modules of Python's standard library, byte by byte.

The corpus is a file of the package, made by tools/stdlib_text.py, which says what it takes. All of it is ASCII, so that
the vocabulary is the 128 codes of ASCII, of which some never occur. Modules are never shared between training,
validation and test.
"""

import gzip
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import torch
from torch import Tensor

from adamw_book.arguments import whole
from adamw_book.data import Splits, generator

FILE = "stdlib_text.json.gz"
VOCABULARY = 128


@cache
def library_text() -> Mapping[str, str]:
    """{module's path: its text}, in the order of the file."""
    packed = files("adamw_book").joinpath("data_files", FILE).read_bytes()
    return json.loads(gzip.decompress(packed))["files"]


@cache
def parts() -> dict[str, Tensor]:
    """The text as bytes (length,), int64, of each split: of ten modules one is for testing, one for validation."""
    modules = list(library_text().values())
    chosen = {
        "test": modules[0::10],
        "validation": modules[1::10],
        "train": [text for i, text in enumerate(modules) if i % 10 > 1],
    }
    return {name: torch.tensor(list("".join(texts).encode("ascii"))) for name, texts in chosen.items()}


@cache
def shares() -> Tensor:
    """How often each byte occurs in the training text, as a share of all, (128,)."""
    return torch.bincount(parts()["train"], minlength=VOCABULARY) / len(parts()["train"])


def windows(text: Tensor, starts: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """(inputs, targets), each (len(starts), length): the bytes from each start on, and the byte after each of them."""
    rows = text[starts[:, None] + torch.arange(length + 1)]
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def text_splits(seed: int, *, train: int, validation: int = 256, test: int = 512, length: int = 32) -> Splits:
    """Windows of ``length`` bytes as ``train``, ``validation`` and ``test``, so many of each, from modules of their
    own.

    Training and validation windows start where the seed says; test windows are the same under each seed, evenly spread.
    Raises ``ValueError`` for sizes that are no positive whole numbers.
    """
    sizes = {"train": train, "validation": validation, "test": test}
    for name, value in sizes.items() | {("length", length)}:
        whole(name, value)
    rng, splits = generator(seed, "data"), {}
    for name, count in sizes.items():
        text = parts()[name]
        last = len(text) - length
        starts = torch.arange(count) * last // count if name == "test" else torch.randint(last, (count,), generator=rng)
        splits[name] = windows(text, starts, length)
    return splits
