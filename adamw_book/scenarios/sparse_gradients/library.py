"""Real text: which package of Python's standard library does a function come from, judged by its identifiers?

The corpus is a file of the package, made by tools/stdlib_identifiers.py, which says what it leaves out: the packages'
own names, tests, and repeated functions. Modules (files) are never shared between training, validation and test, so
that neither near-duplicates nor a class's private names can be looked up.
"""

import gzip
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from numbers import Integral

import numpy as np
import torch

from adamw_book.data import Splits, generator

FILE = "stdlib_identifiers.tsv.gz"


@dataclass(frozen=True)
class Function:
    """One function of the library: the package and module it is from, and how often it uses each identifier."""

    package: str
    module: str
    identifiers: Mapping[str, int]


@cache
def library_functions() -> tuple[Function, ...]:
    """The functions of ten packages of CPython 3.11's standard library, in the order of the file."""
    packed = files("adamw_book").joinpath("data_files", FILE).read_bytes()
    found = []
    for line in gzip.decompress(packed).decode().splitlines():
        if not line.startswith("#"):
            package, module, names = line.split("\t")
            pairs = (name.partition(":") for name in names.split(" "))
            found.append(Function(package, module, {name: int(n or 1) for name, _, n in pairs}))
    return tuple(found)


def library_packages() -> tuple[str, ...]:
    """The ten packages, in alphabetical order: class c is the c-th of them."""
    return tuple(sorted({function.package for function in library_functions()}))


def split_by_module(
    functions: tuple[Function, ...], seed: int, sizes: Mapping[str, int]
) -> dict[str, list[tuple[Function, int]]]:
    """For each split, ``sizes[split]`` functions of each package with their class; no module is in two splits.

    Modules are dealt out whole, in random order, to one split after the other until each has enough functions; what a
    split has too many of is left out at random.

    Raises ValueError where a package cannot be dealt out so, or there is none.
    """
    functions = tuple(functions)
    if not functions:
        raise ValueError("functions: there are none; at least one package of them is needed")
    if not sizes or any(not isinstance(size, Integral) or size < 1 for size in sizes.values()):
        raise ValueError(f"sizes: {dict(sizes)}; a positive number of functions a package is needed for each split")
    rng = np.random.default_rng(generator(seed, "library").initial_seed())
    packages = sorted({function.package for function in functions})
    chosen: dict[str, list[tuple[Function, int]]] = {name: [] for name in sizes}
    for label, package in enumerate(packages):
        modules: dict[str, list[Function]] = {}
        for function in functions:
            if function.package == package:
                modules.setdefault(function.module, []).append(function)
        for name, members in _deal(package, modules, sizes, rng).items():
            order = rng.permutation(len(members))[: sizes[name]]
            chosen[name] += [(members[i], label) for i in order]
    return chosen


def _deal(package, modules, sizes, rng, attempts: int = 1000) -> dict[str, list[Function]]:
    """Modules dealt to splits. An unlucky order, in which one large module leaves too little, is drawn again."""
    for _ in range(attempts):
        left = [modules[name] for name in rng.permutation(sorted(modules))]
        hands: dict[str, list[Function]] = {}
        for split, size in sizes.items():
            hands[split] = []
            while left and len(hands[split]) < size:
                hands[split] += left.pop()
        if all(len(hands[split]) >= size for split, size in sizes.items()):
            return hands
    total = sum(map(len, modules.values()))
    raise ValueError(
        f"sizes: {dict(sizes)} do not fit {package!r} with {total} functions in {len(modules)} modules; "
        "smaller splits are needed"
    )


def library_splits(
    seed: int, *, train: int = 150, validation: int = 40, test: int = 60, vocabulary: int = 2000,
    functions: tuple[Function, ...] | None = None,
) -> Splits:  # fmt: skip
    """Functions as (N, vocabulary) indicators of the identifiers they use, with their package as class.

    train, validation, test: functions of each package, so that classes are balanced. The vocabulary is the identifiers
    that most of the *training* functions use, the commonest first (ties in alphabetical order); others are dropped.
    Test functions are the same under each seed, and so are their modules, from which no other split takes any.
    functions: by default :func:`library_functions`.

    Raises ValueError where the sizes do not fit or the training functions use fewer identifiers than ``vocabulary``.
    """
    functions = library_functions() if functions is None else functions
    functions = tuple(functions)
    held_out = split_by_module(functions, 0, {"test": test, "rest": train + validation})["test"]
    modules = {(function.package, function.module) for function, _ in held_out}
    rest = tuple(function for function in functions if (function.package, function.module) not in modules)
    # validation first: the order decides who gets whole modules, and the larger split takes what is left more easily
    chosen = split_by_module(rest, seed, {"validation": validation, "train": train}) | {"test": held_out}
    used = Counter(name for function, _ in chosen["train"] for name in function.identifiers)
    if not isinstance(vocabulary, Integral) or not 0 < vocabulary <= len(used):
        raise ValueError(f"vocabulary: {vocabulary}; the training functions use {len(used)} identifiers: up to as many")
    ranked = sorted(used, key=lambda name: (-used[name], name))[:vocabulary]
    column = {name: i for i, name in enumerate(ranked)}
    splits = {}
    for split in ("train", "validation", "test"):
        x = torch.zeros(len(chosen[split]), vocabulary)
        for row, (function, _) in enumerate(chosen[split]):
            x[row, [column[name] for name in function.identifiers if name in column]] = 1
        splits[split] = (x, torch.tensor([label for _, label in chosen[split]]))
    return splits


def baselines(seed: int, split: str = "validation", **sizes: int) -> dict[str, float]:
    """Accuracy of two classifiers without an optimizer, on the same splits: chance, and scikit-learn's naive Bayes."""
    from sklearn.dummy import DummyClassifier
    from sklearn.naive_bayes import MultinomialNB

    splits = library_splits(seed, **sizes)
    if split not in splits:
        raise ValueError(f"split: {split!r}; choose from {', '.join(map(repr, splits))}")
    (x, y), (x_new, y_new) = ((x.numpy(), y.numpy()) for x, y in (splits["train"], splits[split]))
    models = {"majority": DummyClassifier(), "naive Bayes": MultinomialNB(alpha=0.1)}
    return {name: float(model.fit(x, y).score(x_new, y_new)) for name, model in models.items()}
