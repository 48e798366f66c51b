"""Real text: modules of Python's standard library, byte by byte.

The corpus is a file of the package, made by tools/stdlib_text.py, which says what it takes; for a larger model it is
the library of the Python that runs (`standard_library`). All of it is ASCII, so that the vocabulary is the 128 codes of
ASCII, of which some never occur. Modules are never shared between training, validation and test.
"""

import gzip
import hashlib
import json
import sysconfig
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from adamw_book.arguments import whole
from adamw_book.data import Splits, generator
from adamw_book.ledger import Unavailable

FILE = "stdlib_text.json.gz"
VOCABULARY = 128
# Tests, what came from elsewhere, and what distributions of Python drop or ship apart: not on every machine.
LEFT_OUT = frozenset({
    "test", "tests", "idle_test", "idlelib", "lib2to3", "distutils", "tkinter", "turtle.py", "turtledemo", "ensurepip",
    "site-packages", "dist-packages", "sitecustomize.py", "encodings", "pydoc_data", "__pycache__",
})  # fmt: skip
BUILT = ("_sysconfigdata", "config-")  # what these begin is the build's own

Corpus = Callable[[], Mapping[str, str]]  # {module's path: its text}, in the order in which they are dealt to splits


@cache
def library_text() -> Mapping[str, str]:
    """{module's path: its text}, in the order of the file."""
    packed = files("adamw_book").joinpath("data_files", FILE).read_bytes()
    return json.loads(gzip.decompress(packed))["files"]


@cache
def standard_library(folder: Path | None = None) -> Mapping[str, str]:
    """{module's path: its text}: the ASCII modules of the standard library of the Python that runs, or in a ``folder``,
    in the order of the SHA-256 of their paths. Raises :class:`Unavailable` where there are none."""
    library = Path(sysconfig.get_path("stdlib")) if folder is None else folder
    found = {}
    for path in library.rglob("*.py"):
        inside = path.relative_to(library).parts
        if LEFT_OUT.isdisjoint(inside) and not any(part.startswith(BUILT) for part in inside):
            content = path.read_bytes().replace(b"\r\n", b"\n")  # a line ends as it does elsewhere
            if content.isascii():
                found["/".join(inside)] = content.decode("ascii")
    if not found:
        raise Unavailable(f"{library} holds no modules as files; a Python whose standard library does is needed")
    return {name: found[name] for name in sorted(found, key=lambda name: hashlib.sha256(name.encode()).hexdigest())}


@cache
def parts(corpus: Corpus = library_text) -> dict[str, Tensor]:
    """The text as bytes (length,), int64, of each split: of ten modules one is for testing, one for validation."""
    modules = list(corpus().values())
    chosen = {
        "test": modules[0::10],
        "validation": modules[1::10],
        "train": [text for i, text in enumerate(modules) if i % 10 > 1],
    }
    return {name: torch.tensor(list("".join(texts).encode("ascii"))) for name, texts in chosen.items()}


@cache
def shares(corpus: Corpus = library_text) -> Tensor:
    """How often each byte occurs in the training text, as a share of all, (128,)."""
    text = parts(corpus)["train"]
    return torch.bincount(text, minlength=VOCABULARY) / len(text)


def windows(text: Tensor, starts: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """(inputs, targets), each (len(starts), length): the bytes from each start on, and the byte after each of them."""
    rows = text[starts[:, None] + torch.arange(length + 1)]
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def text_splits(
    seed: int,
    *,
    train: int,
    validation: int = 256,
    test: int = 512,
    length: int = 32,
    apart: bool = False,
    corpus: Corpus = library_text,
) -> Splits:
    """Windows of ``length`` bytes as ``train``, ``validation`` and ``test``, so many of each, from modules of their
    own.

    Training and validation windows start where the seed says; test windows are the same under each seed, evenly spread.
    apart: training windows do not overlap. Raises ``ValueError`` for sizes that are no positive whole numbers, and for
    more windows apart than the text has.
    """
    sizes = {"train": train, "validation": validation, "test": test}
    for name, value in sizes.items() | {("length", length)}:
        whole(name, value)
    rng, splits = generator(seed, "data"), {}
    for name, count in sizes.items():
        text = parts(corpus)[name]
        last = len(text) - length
        if name == "test":
            starts = torch.arange(count) * last // count
        elif name == "train" and apart:
            whole("train", count, 1, last // length, f"at most {last // length}, which the text has apart,")
            starts = torch.randperm(last // length, generator=rng)[:count] * length
        else:
            starts = torch.randint(last, (count,), generator=rng)
        splits[name] = windows(text, starts, length)
    return splits
