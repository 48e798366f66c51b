"""The real data that the chapters share, split and disturbed in a way that a seed decides.

Every function that draws at random takes a ``torch.Generator``; ``generator(seed, purpose)`` makes independent ones,
so that the data split, the initial weights and the batch order of one seed never depend on each other.
"""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from numbers import Real

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor
from torch.nn.functional import one_hot

from adamw_book.arguments import shown, whole

Splits = dict[str, tuple[Tensor, Tensor]]
_SEEDING = threading.RLock()  # held while a seed, not the state of the whole program, stands in the global generators


@contextmanager
def generators_kept(seed: int | None = None) -> Iterator[None]:
    """Inside, the global generators of torch, numpy and python are free to move, from ``seed`` on where one is given;
    afterwards they stand where they stood. A GPU's are not touched: what draws from them is not made reproducible here.

    With a seed one thread is inside at a time, and none that enters or leaves without one comes between its draws.
    """
    with _SEEDING if seed is not None else nullcontext():
        with _SEEDING:
            states = torch.get_rng_state(), np.random.get_state(), random.getstate()
        try:
            if seed is not None:
                torch.default_generator.manual_seed(seed)  # torch.manual_seed would move every GPU's generator as well
                np.random.seed(seed % 2**32)
                random.seed(seed)
            yield
        finally:
            with _SEEDING:
                torch.set_rng_state(states[0])
                np.random.set_state(states[1])
                random.setstate(states[2])


def generator(seed: int, purpose: str) -> torch.Generator:
    """A generator for one ``purpose`` ("data", "weights", "batches", …) of one ``seed``, independent of every other
    purpose. Raises ``ValueError`` for a seed that is not a whole number of 0 or more."""
    if not isinstance(seed, (Real, Tensor)) or not 0 <= seed < float("inf") or seed % 1:
        raise ValueError(f"seed: {shown(seed)}; a whole number of 0 or more is needed")
    entropy = [int(seed), *purpose.encode()]
    return torch.Generator().manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]) >> 1)


@cache
def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's handwritten digits: images (1797, 64) in [0, 1], row by row of 8 × 8 pixels, and labels (1797,)
    in 0…9."""
    bunch = load_digits()
    return torch.tensor(bunch.data / 16.0, dtype=torch.float32), torch.tensor(bunch.target)


def varying(x: Tensor, sd: float) -> Tensor:
    """The columns (features,) of x (N, D) whose standard deviation over the examples exceeds ``sd``, in order.

    Of the digits' 64 pixels some never see ink; with sd=0.25 a little more than half remain. Raises ``ValueError``
    where none does.
    """
    columns = torch.nonzero(x.std(0) > sd)[:, 0]
    if not len(columns):
        raise ValueError(f"sd: {sd}; no feature varies more, the largest standard deviation is {x.std(0).max():.3g}")
    return columns


@cache
def breast_cancer() -> tuple[Tensor, Tensor]:
    """scikit-learn's breast cancer data (Wisconsin, diagnostic): 30 measurements of cell nuclei in their own units
    (569, 30), and labels (569,): 1 malignant (212 of them), 0 benign."""
    bunch = load_breast_cancer()
    return torch.tensor(bunch.data, dtype=torch.float32), torch.tensor(1 - bunch.target)


def standardized(splits: Splits) -> Splits:
    """Each feature with mean 0 and standard deviation 1 on the split "train"; the same change to all splits. Raises
    ``ValueError`` where "train" gives no standard deviation: fewer than two examples, or values that are not finite."""
    x = splits["train"][0]
    if len(x) < 2 or not x.isfinite().all():
        raise ValueError(
            f"splits['train']: {len(x)} examples, {int((~x.isfinite()).sum())} values that are not finite; two or more "
            "examples of finite values are needed"
        )
    mean, sd = x.mean(0), x.std(0).clamp(min=1e-6)
    return {name: ((x - mean) / sd, y) for name, (x, y) in splits.items()}


def split(x: Tensor, y: Tensor, sizes: dict[str, int | None], rng: torch.Generator) -> Splits:
    """Cut (x, y) of N examples at random into disjoint named splits.

    ``sizes`` gives the number of examples of each split, in order; ``None``, at most once and last, takes what is left.
    Raises ``ValueError`` when a size is not positive or the sizes do not fit into N.
    """
    n = len(x)
    if len(y) != n:
        raise ValueError(f"y: {len(y)} labels for {n} examples in x; one label for each example is needed")
    order = torch.randperm(n, generator=rng)
    start, result = 0, {}
    for i, (name, size) in enumerate(sizes.items()):
        if size is None and i == len(sizes) - 1:
            size = n - start
        left = f"a positive whole number of at most the {n - start} examples left (of {n})"
        size = whole(f"sizes[{name!r}]", size, 1, n - start, left)
        chosen = order[start : start + size]
        result[name] = (x[chosen], y[chosen])
        start += size
    return result


def apart(x: Tensor, y: Tensor, test: int) -> Splits:
    """(x, y) of N examples as two parts, "rest" and a "test" part of ``test`` examples that is the same whatever the
    seed: no tuning run of any seed can have seen it. Raises ``ValueError`` for a size outside 1 … N − 1."""
    size = whole("test", test, 1, len(x) - 1, f"a whole number from 1 to {len(x) - 1}")
    return split(x, y, {"test": size, "rest": None}, generator(0, "test"))


def flip_labels(y: Tensor, fraction: float, classes: int, rng: torch.Generator) -> Tensor:
    """Symmetric label noise: exactly ``round(fraction · N)`` of the labels (N,), drawn at random, move to a
    different class."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: {fraction}; a share between 0 and 1 is needed")
    whole("classes", classes, 2, needed="a whole number of at least 2, so that a label can move,")
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise ValueError(
            f"y: labels from {int(y.min())} to {int(y.max())}; with classes={classes} they must lie in 0…{classes - 1}"
        )
    chosen = torch.randperm(len(y), generator=rng)[: round(fraction * len(y))]
    noisy = y.clone()
    noisy[chosen] = (y[chosen] + torch.randint(1, classes, (len(chosen),), generator=rng)) % classes
    return noisy


DIGITS_TEST = 597  # images, a third


def digits_splits(
    seed: int, *, train: int, validation: int = 400, label_noise: float = 0.0, fixed_test: bool = False
) -> Splits:
    """The digits as ``train``, ``validation`` and ``test``; only the training labels carry ``label_noise``.

    fixed_test: ``test`` is the same 597 images under each seed (:func:`apart`), else all that the others leave.
    """
    rng = generator(seed, "data")
    if fixed_test:
        parts = apart(*digits(), DIGITS_TEST)
        splits = split(*parts["rest"], {"train": train, "validation": validation}, rng) | {"test": parts["test"]}
    else:
        splits = split(*digits(), {"train": train, "validation": validation, "test": None}, rng)
    x, y = splits["train"]
    splits["train"] = (x, flip_labels(y, label_noise, 10, rng))
    return splits


def modular_addition(seed: int, prime: int = 23, share: float = 0.6) -> Splits:
    """All pairs (a, b), 0 ≤ a, b < prime, as two one-hot vectors (2·prime,), with label (a + b) mod prime.

    ``share`` of the prime² pairs is the training set; the rest is halved into validation and test, the latter the same
    under each seed (:func:`apart`). Raises ``ValueError`` for a ``prime`` that is no positive whole number and a share
    that leaves a split empty.
    """
    if not 0 < share < 1:
        raise ValueError(f"share: {share}; a share between 0 and 1 is needed")
    whole("prime", prime)
    a, b = (t.flatten() for t in torch.meshgrid(torch.arange(prime), torch.arange(prime), indexing="ij"))
    x = torch.cat([one_hot(a, prime), one_hot(b, prime)], 1).float()
    held_out = len(x) - round(share * len(x))
    parts = apart(x, (a + b) % prime, held_out - held_out // 2)
    splits = split(*parts["rest"], {"train": len(x) - held_out, "validation": None}, generator(seed, "data"))
    return splits | {"test": parts["test"]}
