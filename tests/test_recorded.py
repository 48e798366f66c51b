"""A recorded function gives on other numbers what the function gives; one that looks at its numbers is not replayed."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.func import vmap

from adamw_book import replicas
from adamw_book.ensemble import Task, _whole_seeds, train
from adamw_book.models import CNN, MLP, RNN
from adamw_book.recorded import record
from adamw_book.replicas import _same

RUNS = pd.DataFrame(
    [{"arm": "AdamW", "lr": lr, "weight_decay": 0.1, "l2": 0.0, "seed": s} for lr in (1e-3, 1e-2, 3e-3) for s in (4, 2)]
)


def splits(seed):
    rng = torch.Generator().manual_seed(seed)

    def some(n):
        return torch.rand(n, 64, generator=rng), torch.randint(10, (n,), generator=rng)

    return {"train": some(40), "validation": some(30)}


CONSTANT = torch.arange(3.0)


def gradient(parameters, x):
    """Through vmap, autograd, a view, an operation in place, one with several results, and a constant of its own."""
    values, places = vmap(lambda w, x: (w * x).view(3).sort())(parameters[0], x)
    out = (values.tanh() * CONSTANT + torch.full((3,), 2.0)).clone()
    out[:, 0].mul_(3.0)
    return list(torch.autograd.grad((out * places).sum() + parameters[1].square().sum(), parameters))


def test_a_replay_gives_what_the_function_gives_on_other_numbers():
    def inputs(seed):
        torch.manual_seed(seed)
        return [torch.randn(4, 3, requires_grad=True), torch.randn((), requires_grad=True)], torch.randn(4, 3)

    results, again = record(gradient, *inputs(0))
    assert all(map(torch.equal, results, gradient(*inputs(0))))
    for seed in (1, 2):
        replayed = again(*inputs(seed))
        torch.testing.assert_close(replayed, gradient(*inputs(seed)))
        assert not replayed[0].requires_grad and not torch.allclose(replayed[0], results[0])


def test_a_view_of_another_dtype_is_no_view_that_changes_nothing():
    def bits(x):
        return [(x * 2).view(torch.int32) + 1]

    _, again = record(bits, torch.ones(3))
    assert torch.equal(again(torch.tensor([3.0, 4.0, 5.0]))[0], bits(torch.tensor([3.0, 4.0, 5.0]))[0])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: [x if x.sum() > 0 else -x],
        lambda x: [x[x > 0].sum()],
        lambda x: [x + torch.rand(3)],
        lambda x: [x * x.max().item()],
        lambda x: [x * float(x.numpy().mean())],
        lambda x: [x + torch.from_numpy(np.asarray(x) * 2)],
        lambda x: [x * max(x.tolist())],
        lambda x: [x + torch.from_numpy(np.from_dlpack(x) * 2)],
    ],
    ids=["a branch", "a shape", "a draw", "a number taken out", "numpy", "asarray", "tolist", "dlpack"],
)
def test_what_hangs_on_the_numbers_is_not_replayed(function):
    results, again = record(function, torch.tensor([1.0, -2.0, 3.0]))
    assert again is None and len(results) == 1


def trained(model, runs=RUNS, **options):
    task = Task("random", model, splits, **options.pop("task", {}))
    defaults = {"steps": 12, "batch_size": 8, "keep_parameters": True, "device": "cpu"}
    return train(task, runs, **defaults | options)


@pytest.mark.parametrize("batch_size", [None, 8])
@pytest.mark.parametrize("model", [MLP, RNN, lambda: CNN(norm=True)], ids=["MLP", "RNN", "CNN"])
def test_replayed_steps_and_shared_batches_train_as_eager_steps_on_batches_of_each_run(model, batch_size, monkeypatch):
    replayed = trained(model, batch_size=batch_size)
    with monkeypatch.context() as patch:
        patch.setattr(replicas, "record", lambda function, *inputs: (function(*inputs), None))
        patch.setattr(replicas.np, "array_equal", lambda *_: False)  # no two runs share a seed's batches
        eager = trained(model, batch_size=batch_size)
    for name, parameter in eager.parameters.items():
        torch.testing.assert_close(replayed.parameters[name], parameter, atol=2e-5, rtol=1e-4)
    pd.testing.assert_frame_equal(replayed.table, eager.table, atol=1e-3)
    assert replayed.runs.equals(RUNS)


def test_a_perturbation_that_asks_for_gradients_is_replayed(monkeypatch):
    def uphill(logits, x, y):
        with torch.enable_grad():
            moved = x.clone().requires_grad_()
            loss = torch.nn.functional.cross_entropy(logits(moved).transpose(1, 2), y, reduction="sum")
            return x + 0.1 * torch.autograd.grad(loss, moved)[0].sign()

    replayed = trained(MLP, task={"perturb": uphill})
    monkeypatch.setattr(replicas, "record", lambda function, *inputs: (function(*inputs), None))
    eager, unmoved = trained(MLP, task={"perturb": uphill}), trained(MLP)
    for name, parameter in eager.parameters.items():
        torch.testing.assert_close(replayed.parameters[name], parameter, atol=2e-5, rtol=1e-4)
    assert (unmoved.parameters["layers.0.weight"] - eager.parameters["layers.0.weight"]).abs().max() > 1e-3


def test_steps_are_replayed_and_a_function_that_changes_is_not(monkeypatch):
    calls = []

    def loss(logits, targets, weight=1.0):
        calls.append(len(calls))
        return weight * torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none").mean(1)

    trained(MLP, task={"loss": loss})
    steady = len(calls)
    calls.clear()
    trained(MLP, task={"loss": lambda logits, targets: loss(logits, targets, 1.0 + len(calls))})
    assert steady < 6 and len(calls) > 10  # the second has other weights at the second step than were recorded


def test_a_loss_that_looks_at_its_numbers_through_numpy_is_asked_at_every_step():
    def weighed(mean):
        each = torch.nn.functional.cross_entropy
        return lambda logits, y: each(logits.transpose(1, 2), y, reduction="none").mean(1) * (mean(y) > 4.5)

    by_numpy, by_torch = (
        trained(MLP, task={"loss": weighed(mean)}, steps=30).parameters["layers.0.weight"]
        for mean in (lambda y: float(y.numpy().mean()), lambda y: y.double().mean().item())
    )
    assert torch.equal(by_numpy, by_torch)


def test_a_replica_without_finite_gradients_keeps_no_other_from_being_replayed():
    calls = []

    def loss(logits, targets):
        calls.append(len(calls))
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none").mean(1)
        return each * torch.where(torch.arange(len(each)) == 0, torch.nan, 1.0)

    found = trained(MLP, task={"loss": loss}).parameters["layers.0.weight"].isfinite().flatten(1).all(1)
    assert 0 < found.sum() < len(RUNS) and len(calls) < 6


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
def test_a_gradient_that_is_not_finite_hides_no_change_of_the_others(odd):
    first = torch.tensor([odd, 1.0, 1e-3])
    assert _same(first, first * torch.tensor([1.0, 1 + 1e-5, 1 - 1e-5]))
    for other in ([odd, 1.01, 1e-3], [odd, 1.0, 2e-3], [3.0, 1.0, 1e-3]):
        assert not _same(first, torch.tensor(other))


def test_runs_keep_their_order_whatever_their_seeds(monkeypatch):
    shuffled = RUNS.sample(frac=1.0, random_state=1)
    expected = trained(MLP).table.set_index(["lr", "seed", "metric"])["value"]
    for size in (None, 4, 3, 2, 1):
        found = trained(MLP, shuffled, chunk_size=size)
        first = found.table[found.table["metric"] == "weight norm"]
        assert first[["lr", "seed"]].to_numpy().tolist() == shuffled[["lr", "seed"]].to_numpy().tolist()
        keys = found.table.set_index(["lr", "seed", "metric"])["value"]
        pd.testing.assert_series_equal(keys.sort_index(), expected.sort_index(), atol=1e-3)
        norms = sum(p.flatten(1).square().sum(1) for p in found.parameters.values()).sqrt()
        torch.testing.assert_close(norms.double(), torch.tensor(first["value"].to_numpy()), rtol=1e-4, atol=0)


def test_a_measurement_sees_the_runs_in_the_order_given():
    seen = []
    trained(MLP, measure=lambda s: seen.append(s.runs["lr"].tolist()) or {"x": torch.zeros(6)}, chunk_size=6)
    assert seen == [RUNS["lr"].tolist()]


def test_chunks_hold_whole_seeds():
    seeds = pd.Series([0] * 10 + [1] * 10 + [2] * 10)
    assert [_whole_seeds(seeds, n) for n in (40, 25, 19, 10, 9, 4, 1)] == [40, 20, 10, 10, 5, 4, 1]
