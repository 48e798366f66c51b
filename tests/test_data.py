"""Splits that a seed decides, and label noise that is exactly what it says."""

import pytest
import torch

from adamw_book.data import digits, digits_splits, flip_labels, generator, modular_addition, split


def test_digits_are_the_real_ones():
    x, y = digits()
    assert x.shape == (1797, 64) and 0 <= x.min() and x.max() == 1 and sorted(set(y.tolist())) == list(range(10))


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
    moves = (noisy - y)[noisy != y] % 10
    assert set(moves.tolist()) == set(range(1, 10))
    clean, wrong = digits_splits(0, train=300), digits_splits(0, train=300, label_noise=0.2)
    assert (clean["train"][1] != wrong["train"][1]).sum() == 60
    assert torch.equal(clean["test"][1], wrong["test"][1]) and torch.equal(
        clean["validation"][1], wrong["validation"][1]
    )


def test_modular_addition_is_addition():
    parts = modular_addition(0, prime=7, share=0.5)
    x, y = (torch.cat([p[i] for p in parts.values()]) for i in (0, 1))
    assert x.shape == (49, 14) and len({tuple(row.tolist()) for row in x}) == 49
    assert torch.equal((x[:, :7].argmax(1) + x[:, 7:].argmax(1)) % 7, y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split(torch.ones(5), torch.ones(4), {"train": 2}, generator(0, "x")), "y: 4 labels for 5 examples"),
        (lambda: split(torch.ones(5), torch.ones(5), {"train": 6}, generator(0, "x")), r"sizes\['train'\]: 6 of the 5"),
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
        (lambda: modular_addition(0, share=1.0), "share: 1.0"),
    ],
)
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
