"""What a record keeps of a task that nothing has trained yet."""

import dataclasses

import pytest
import torch
from torch import nn

from adamw_book.data import digits_splits
from adamw_book.ensemble import Task, train
from adamw_book.evidence import grid
from adamw_book.ledger import PROBE
from adamw_book.ledger.checks import _drifted
from adamw_book.models import CNN, MLP
from adamw_book.scenarios.adversarial_robustness.tasks import adversarial
from adamw_book.untrained import untrained

TASK = Task("digits", lambda: MLP(depth=2), lambda seed: digits_splits(seed, train=100), perturb=adversarial)


def test_it_is_what_an_ensemble_starts_from():
    runs = grid({"Adam": {"lr": [0.01]}}, [7])
    splits = ("train", "validation", "test")
    table = train(TASK, runs, steps=1, record=[0], evaluate=splits, device="cpu").table
    rows = untrained({"digits": TASK}, seed=7)
    assert list(rows.columns) == PROBE and set(rows["step"]) == {0}
    assert set(rows["run"]) == {"untrained, digits, seed 7"}
    values, wanted = (t.set_index("metric")["value"] for t in (rows, table))
    for split in splits:
        assert values[f"{split} loss"] == pytest.approx(wanted[f"{split} loss"], rel=1e-5)
    assert values["parameters"] == values["decayed parameters"] == sum(p.numel() for p in MLP(depth=2).parameters())
    assert values["perturbed train loss"] > 1.05 * values["train loss"]


def test_it_moves_no_generator():
    torch.manual_seed(3)
    untrained({"digits": TASK})
    found = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(found, torch.rand(2))


def test_a_start_may_be_trained_for():
    """Nothing is learned here, but a task's start may have to be."""

    def start(seeds):
        runs = grid({"Adam": {"lr": [0.01]}}, seeds)
        return train(TASK, runs, steps=1, evaluate=(), keep_parameters=True, device="cpu").parameters

    rows = untrained({"digits": dataclasses.replace(TASK, start=start)}).set_index("metric")["value"]
    assert rows["train loss"] < untrained({"digits": TASK}).set_index("metric")["value"]["train loss"]


CHANGES = {
    "model": {
        "depth": lambda: MLP(depth=3),
        "width": lambda: MLP(depth=2, width=33),
        "norm": lambda: MLP(depth=2, norm=True),
        "kind": CNN,
        "start": lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)),
    },
    "data": {
        "size": lambda seed: digits_splits(seed, train=101),
        "labels": lambda seed: digits_splits(seed, train=100, label_noise=0.05),
        "test data": lambda seed: digits_splits(seed, train=100) | {"test": digits_splits(seed + 1, train=100)["test"]},
    },
    "loss": {"scale": lambda logits, targets: 1.01 * TASK.loss(logits, targets)},
    "start": {"weights": lambda seeds: {"layers.0.bias": torch.ones(len(seeds), 32)}},
    "perturb": {"none": None, "another": lambda logits, x, y: adversarial(logits, x, 9 - y)},
}


@pytest.mark.parametrize("field, name", [(field, name) for field, changes in CHANGES.items() for name in changes])
def test_another_task_under_the_same_name_is_noticed(field, name):
    was = untrained({"digits": TASK})
    assert list(_drifted(untrained({"digits": TASK}), was)) == []
    other = dataclasses.replace(TASK, **{field: CHANGES[field][name]})
    assert list(_drifted(untrained({"digits": other}), was))


def test_what_decay_acts_on_is_noticed():
    was = untrained({"digits": TASK}, {"digits": lambda name: name.endswith("weight")})
    (found,) = _drifted(untrained({"digits": TASK}), was)
    assert "'decayed parameters', gives 3466, and 3392 in the record (allowed: ±0.5)" in found
