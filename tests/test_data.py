"""Splits that a seed decides, and label noise that is exactly what it says."""

import math
import random

import numpy as np
import pytest
import torch

from adamw_book.data import (
    apart,
    breast_cancer,
    digits,
    digits_splits,
    flip_labels,
    generator,
    generators_kept,
    modular_addition,
    split,
    standardized,
    varying,
)


def test_digits_are_the_real_ones():
    x, y = digits()
    assert x.shape == (1797, 64) and 0 <= x.min() and x.max() == 1 and sorted(set(y.tolist())) == list(range(10))


def test_the_tumours_are_the_real_ones():
    x, y = breast_cancer()
    assert x.shape == (569, 30) and y.sum() == 212
    assert (x[y == 1, 0].mean() > x[y == 0, 0].mean()).all()  # malignant nuclei are larger


def test_columns_that_vary_are_those_above_the_standard_deviation():
    x = torch.tensor([[0.0, 0.0, 5.0], [0.2, 1.0, 5.0], [0.4, 2.0, 5.0]])  # standard deviations 0.2, 1 and 0
    assert varying(x, 0.1).tolist() == [0, 1] and varying(x, 0.5).tolist() == [1]
    assert varying(x, 1.0 - 1e-6).tolist() == [1]


def test_features_are_standardised_by_the_training_set():
    train, test = torch.tensor([[1.0, 7.0], [3.0, 7.0]]), torch.tensor([[2.0, 7.0], [4.0, 8.0]])
    parts = standardized({"train": (train, torch.tensor([0, 1])), "test": (test, torch.tensor([1, 0]))})
    sd = 2**0.5
    torch.testing.assert_close(parts["train"][0], torch.tensor([[-1 / sd, 0.0], [1 / sd, 0.0]]))
    torch.testing.assert_close(parts["test"][0], torch.tensor([[0.0, 0.0], [2 / sd, 1e6]]))
    assert parts["test"][1].tolist() == [1, 0] and train[0, 0] == 1


def test_whole_numbers_of_numpy_are_sizes():
    a, b = (digits_splits(n(3), train=n(100), validation=n(50)) for n in (int, np.int64))
    assert all(torch.equal(x, y) for name in a for x, y in zip(a[name], b[name], strict=True))


def test_kept_generators_start_from_a_seed_inside_and_stand_where_they_stood_outside():
    def draw():
        return torch.rand(1).item(), np.random.rand(), random.random()

    with generators_kept(0):
        expected = draw()
        with generators_kept():
            draw()
        here = draw()
        with pytest.raises(KeyError), generators_kept(3):
            raise KeyError
        assert draw() not in (expected, here)
    with generators_kept(0):
        assert draw() == expected and draw() == here
    with generators_kept(1):
        assert all(a != b for a, b in zip(draw(), expected, strict=True))


def test_splits_are_disjoint_and_complete():
    n = torch.arange(50)
    parts = split(n, n, {"train": 20, "validation": 10, "test": None}, generator(0, "data"))
    assert [len(x) for x, _ in parts.values()] == [20, 10, 20]
    assert sorted(torch.cat([x for x, _ in parts.values()]).tolist()) == list(range(50))


def test_a_seed_decides_and_purposes_are_independent():
    a, b = digits_splits(3, train=100), digits_splits(3, train=100)
    assert all(torch.equal(a[k][i], b[k][i]) for k in a for i in (0, 1))
    assert not torch.equal(digits_splits(4, train=100)["train"][0], a["train"][0])
    draws = {
        purpose: torch.rand(1, generator=generator(0, purpose)).item() for purpose in ("data", "weights", "batches")
    }
    assert len(set(draws.values())) == 3


def test_label_noise_moves_exactly_the_share_and_only_in_training():
    y = torch.arange(1000) % 10
    noisy = flip_labels(y, 0.2, 10, generator(0, "noise"))
    assert (noisy != y).sum() == 200 and 0 <= noisy.min() and noisy.max() <= 9
    assert (flip_labels(y[:100], 0.29, 10, generator(0, "noise")) != y[:100]).sum() == 29  # 0.29 · 100 is just below 29
    moves = (noisy - y)[noisy != y] % 10
    assert set(moves.tolist()) == set(range(1, 10))
    clean, wrong = digits_splits(0, train=300), digits_splits(0, train=300, label_noise=0.2)
    assert (clean["train"][1] != wrong["train"][1]).sum() == 60
    assert torch.equal(clean["test"][1], wrong["test"][1]) and torch.equal(
        clean["validation"][1], wrong["validation"][1]
    )


def test_a_part_set_apart_is_the_same_every_time_and_leaves_the_rest():
    x, y = torch.arange(10)[:, None], torch.arange(10)
    first, second = apart(x, y, 4), apart(x, y, 4)
    assert len(first["test"][0]) == 4 and torch.equal(first["test"][0], second["test"][0])
    assert sorted(torch.cat([first["test"][1], first["rest"][1]]).tolist()) == list(range(10))
    assert all(torch.equal(x[:, 0], y) for x, y in first.values())


@pytest.mark.parametrize("data", [lambda seed: digits_splits(seed, train=700, fixed_test=True), modular_addition])
def test_a_fixed_test_part_is_no_seeds_training_or_validation(data):
    first, second = data(0), data(1)
    assert torch.equal(first["test"][0], second["test"][0])
    seen = {
        tuple(row) for splits in (first, second) for part in ("train", "validation") for row in splits[part][0].tolist()
    }
    assert not seen & {tuple(row) for row in first["test"][0].tolist()}
    assert not torch.equal(first["validation"][0], second["validation"][0])


def test_modular_addition_is_addition():
    parts = modular_addition(0, prime=7, share=0.5)
    x, y = (torch.cat([p[i] for p in parts.values()]) for i in (0, 1))
    assert x.shape == (49, 14) and len({tuple(row.tolist()) for row in x}) == 49
    assert torch.equal((x[:, :7].argmax(1) + x[:, 7:].argmax(1)) % 7, y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split(torch.ones(5), torch.ones(4), {"train": 2}, generator(0, "x")), "y: 4 labels for 5 examples"),
        (
            lambda: split(torch.ones(5), torch.ones(5), {"train": 6}, generator(0, "x")),
            r"sizes\['train'\]: 6; a positive whole number of at most the 5 examples left \(of 5\)",
        ),
        (
            lambda: split(torch.ones(5), torch.ones(5), {"train": 5, "test": None}, generator(0, "x")),
            r"sizes\['test'\]: 0",
        ),
        (
            lambda: split(torch.ones(5), torch.ones(5), {"train": None, "test": 2}, generator(0, "x")),
            r"sizes\['train'\]: None",
        ),
        (lambda: flip_labels(torch.tensor([1]), 1.5, 10, generator(0, "x")), "fraction: 1.5"),
        (lambda: flip_labels(torch.tensor([10]), 0.5, 10, generator(0, "x")), "labels from 10 to 10"),
        (lambda: flip_labels(torch.tensor([0]), 1.0, 1, generator(0, "x")), "classes: 1; a whole number of at least 2"),
        (lambda: flip_labels(torch.tensor([0]), math.nan, 2, generator(0, "x")), "fraction: nan"),
        (lambda: modular_addition(0, share=1.0), "share: 1.0"),
        (lambda: modular_addition(0, prime=2.5), "prime: 2.5; a positive whole number is needed"),
        (lambda: modular_addition(0, prime=1), "test: 0; a whole number from 1 to 0"),
        (lambda: apart(torch.ones(5), torch.ones(5), 5), "test: 5; a whole number from 1 to 4"),
        (lambda: digits_splits(0, train=801, fixed_test=True), r"sizes\['validation'\]: 400; .* 399 examples left"),
        (lambda: digits_splits(0, train=0), r"sizes\['train'\]: 0"),
        (lambda: digits_splits(0, train=1397), r"sizes\['test'\]: 0"),
        (lambda: digits_splits(0, train=100, label_noise=-0.1), "fraction: -0.1"),
        (lambda: generator(-1, "x"), "seed: -1; a whole number of 0 or more is needed"),
        (lambda: generator(0.5, "x"), "seed: 0.5"),
        (lambda: generator(math.nan, "x"), "seed: nan"),
        (lambda: generator(math.inf, "x"), "seed: inf"),
        (lambda: varying(torch.ones(3, 2), 0.1), "sd: 0.1; no feature varies more, the largest"),
        (lambda: standardized({"train": (torch.ones(1, 2), torch.ones(1))}), "1 examples, 0 values that are not"),
        (lambda: standardized({"train": (torch.tensor([[1.0], [math.nan]]), None)}), "2 examples, 1 values"),
    ],
)
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
