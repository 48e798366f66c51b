"""The audit of an optimizer: kinds, schedules and decay as runs show them, findings, bad input, and nothing touched."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import adamw_book
from adamw_book.diagnose import audit


class Model(nn.Module):
    """One parameter of each kind, a tied pair among them."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 4)
        self.norm = nn.LayerNorm(4)
        self.hidden = nn.Linear(4, 4)
        self.gain = nn.Parameter(torch.ones(4))
        self.head = nn.Linear(4, 20, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x):
        return self.head(self.gain * self.hidden(self.norm(self.tokens(x))))


def groups(model: nn.Module, weight_decay: float = 1.0) -> list[dict]:
    exempt = [model.norm.weight, model.norm.bias, model.hidden.bias, model.gain]
    matrices = [model.hidden.weight, model.tokens.weight]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]


def codes(found) -> list[str]:
    return [finding.code for finding in found.findings]


def matrix() -> nn.Parameter:
    return nn.Parameter(torch.ones(2, 2))


def row(found, kind: str):
    return found.table.set_index("kind").loc[kind]


def test_kinds_and_what_each_is_left_with():
    model = Model()
    found = audit(torch.optim.AdamW(groups(model), lr=1e-3), model, 1000, "linear", 10, 1000)
    assert found.table["kind"].tolist() == ["matrix", "embedding", "bias", "norm", "vector"]
    assert found.table["parameters"].tolist() == [16, 80, 4, 8, 4] and found.table["share"].sum() == pytest.approx(1)
    left = np.prod(1 - 1e-3 * (1 - (np.arange(1000) + 0.5) / 1000))
    assert row(found, "matrix")["remaining"] == pytest.approx(left, rel=1e-12)
    assert row(found, "matrix")["timescale_epochs"] == pytest.approx(10, rel=1e-3)
    assert row(found, "norm")["remaining"] == 1 and row(found, "norm")["decay"] == "none"
    assert codes(found) == ["embedding_decayed", "tied"]
    assert found.as_dict()["groups"][2]["timescale_steps"] is None


def test_without_a_model_names_and_axes_tell_the_kind():
    model = Model()
    named = audit(torch.optim.AdamW(model.named_parameters(), lr=1e-2), steps=100)
    assert set(named.table["kind"]) == {"matrix", "bias", "norm", "vector"}
    table = nn.ModuleDict({"wte": nn.Embedding(5, 4)})
    assert set(audit(torch.optim.AdamW(table.named_parameters()), steps=100).table["kind"]) == {"embedding"}
    assert set(audit(torch.optim.AdamW(model.parameters(), lr=1e-2), steps=100).table["kind"]) == {"matrix", "vector"}


SCHEDULERS = [
    lambda o: lr_scheduler.OneCycleLR(o, 1e-2, total_steps=60),
    lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
    lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 20),
    lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=10), lr_scheduler.CosineAnnealingLR(o, 50)], [10]
    ),
    lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.ConstantLR(o, 0.1, 4), lr_scheduler.ExponentialLR(o, 0.95)]),
]


@pytest.mark.parametrize("make", SCHEDULERS)
@pytest.mark.parametrize("kind", [torch.optim.AdamW, adamw_book.AdamW])
@pytest.mark.parametrize("begun", [0, 7])
def test_a_scheduler_is_followed_on_a_copy_and_nothing_is_touched(make, kind, begun: int):
    model = Model()
    optimizer = kind(groups(model, 5.0), lr=1e-2)
    scheduler = make(optimizer)
    tokens = torch.arange(20)
    for _ in range(begun):
        model(tokens).square().mean().backward()
        optimizer.step()
        scheduler.step()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    schedule_before = repr(scheduler.state_dict())
    steps = 60 - begun
    found = audit(optimizer, model, steps, scheduler)
    after = (model.state_dict(), optimizer.state_dict())
    assert repr(scheduler.state_dict()) == schedule_before
    assert repr(after) == repr(before)
    for old, new in zip(before[1]["state"].values(), after[1]["state"].values(), strict=True):
        assert all(torch.equal(old[key], new[key]) for key in old)
    # the run itself, on a weight without a gradient of its own
    left = 1.0
    for t in range(steps):
        left *= 1 - optimizer.param_groups[0]["lr"] * 5.0
        if t < steps - 1:
            optimizer.step()
            scheduler.step()
    assert row(found, "matrix")["remaining"] == pytest.approx(left, rel=1e-9)


def test_a_scheduler_once_an_epoch():
    optimizer = torch.optim.AdamW([matrix()], lr=1e-2, weight_decay=1.0)
    scheduler = lr_scheduler.StepLR(optimizer, 1, 0.5)
    found = audit(optimizer, steps=30, schedule=scheduler, schedule_interval=10)
    left = 0.99**10 * 0.995**10 * 0.9975**10
    assert found.table["remaining"][0] == pytest.approx(left, rel=1e-12)


HOW = [
    (lambda p: torch.optim.AdamW(p, weight_decay=0.1), "decoupled"),
    (lambda p: torch.optim.Adam(p, weight_decay=0.1), "coupled, adaptive"),
    (lambda p: torch.optim.Adam(p, weight_decay=0.1, decoupled_weight_decay=True), "decoupled"),
    (lambda p: torch.optim.NAdam(p, weight_decay=0.1), "coupled, adaptive"),
    (lambda p: torch.optim.NAdam(p, weight_decay=0.1, decoupled_weight_decay=True), "decoupled"),
    (lambda p: torch.optim.RAdam(p, weight_decay=0.1), "coupled, adaptive"),
    (lambda p: torch.optim.RMSprop(p, weight_decay=0.1), "coupled, adaptive"),
    (lambda p: torch.optim.Adafactor(p, weight_decay=0.1), "decoupled"),
    (lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1), "decoupled"),  # without momentum it is the same
    (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1), "coupled"),
    (lambda p: adamw_book.AdamW(p, weight_decay=0.1), "decoupled"),
    (lambda p: adamw_book.AdamW(p, weight_decay=0.1, cautious=True), "decoupled"),
    (lambda p: adamw_book.AdamW(p), "decoupled"),
]


@pytest.mark.parametrize(("make", "how"), HOW)
def test_how_a_decay_acts_is_found_by_stepping(make, how: str):
    found = audit(make([matrix()]), steps=1000)
    assert found.table["decay"].tolist() == [how]
    assert ("coupled" in codes(found)) == (how == "coupled, adaptive")


def test_a_decay_that_ignores_lr():
    found = audit(adamw_book.AdamW([matrix()], lr=1e-3, weight_decay=1e-3, lr_independent=True), steps=100)
    assert found.table["remaining"][0] == pytest.approx(0.999**100) and codes(found) == ["lr_independent"]


class Deaf(torch.optim.Optimizer):
    """Takes a weight_decay and does not decay."""

    def __init__(self, params, lr=1e-2, weight_decay=0.1):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.sub_(group["lr"] * p.grad.sign())


class Closure(torch.optim.AdamW):
    def step(self, closure):
        super().step(closure)


class Raising(torch.optim.AdamW):
    def step(self, closure=None):
        raise RuntimeError("no GPU here")


def test_an_optimizer_that_ignores_needs_a_closure_or_raises():
    assert "ignored" in codes(audit(Deaf([matrix()]), steps=100))
    assert audit(Closure([matrix()], lr=1e-2), steps=100).table["decay"][0] == "decoupled"
    with pytest.raises(ValueError, match=r"Raising .* raises RuntimeError: no GPU here; describe the run in numbers"):
        audit(Raising([matrix()]), steps=100)


# ---- Each finding, and a run that shows it


def test_coupled_l2_pulls_hardest_where_gradients_are_small():
    w = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    scale = torch.tensor([[1e-3, 1e-3], [1.0, 1.0]], dtype=torch.float64)
    optimizer = torch.optim.Adam([w], lr=1e-3, weight_decay=1e-2)
    rng = torch.Generator().manual_seed(0)
    for _ in range(500):
        w.grad = scale * torch.randn(2, 2, generator=rng, dtype=torch.float64)
        optimizer.step()
    assert w[0].abs().mean() < 0.7 < w[1].abs().mean()
    found = audit(optimizer, steps=500)
    assert codes(found) == ["coupled"] and "torch.optim.AdamW" in found.findings[0].fix
    # √v̂ of the weaker half is near ℓ, of the stronger near 1; the median lies between
    assert 1e-2 / 1.5 < found.table["comparable_decay"][0] < 10


def test_exempt_parameters_that_are_decayed_and_the_groups_that_mend_it():
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1.0)
    found = audit(optimizer, model, 100)
    assert "exempt_decayed" in codes(found)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert torch.equal(model.norm.weight, torch.full((4,), 0.99))
    [fix] = [finding.fix for finding in found.findings if finding.code == "exempt_decayed"]
    scope = {"torch": torch, "model": model}
    exec(fix, scope)
    mended = audit(scope["optimizer"], model, 100)
    assert codes(mended) == ["embedding_decayed", "tied"]


def test_held_twice_or_not_at_all():
    model, other = Model(), Model()
    optimizer = torch.optim.AdamW([{"params": [model.hidden.weight]}, {"params": [other.hidden.weight]}], lr=1e-2)
    assert {"not_held", "foreign"} <= set(codes(audit(optimizer, model, 1000)))
    optimizer.param_groups[1]["params"] = [model.hidden.weight]
    assert codes(audit(optimizer, steps=1000))[0] == "in_two_groups"
    with torch.no_grad():
        model.hidden.weight.fill_(1.0).grad = torch.zeros(4, 4)
    optimizer.step()
    assert model.hidden.weight[0, 0].item() == pytest.approx((1 - 1e-4) ** 2, rel=1e-6)


def test_two_parameters_over_one_memory():
    first = matrix()
    second = nn.Parameter(first.data)
    optimizer = torch.optim.AdamW([first, second], lr=1e-2, weight_decay=1.0)
    assert codes(audit(optimizer, steps=50)) == ["shared_memory"]
    first.grad, second.grad = torch.zeros(2, 2), torch.zeros(2, 2)
    optimizer.step()
    assert first[0, 0].item() == pytest.approx(0.99**2)


def test_frozen_parameters():
    w = matrix()
    optimizer = torch.optim.AdamW([w], lr=1e-2, weight_decay=1.0)
    w.requires_grad_(False)
    assert codes(audit(optimizer, steps=50)) == ["frozen_held"]
    optimizer.step()
    assert torch.equal(w, torch.ones(2, 2))
    w.grad = torch.zeros(2, 2)
    assert codes(audit(optimizer, steps=50)) == ["frozen_decayed"]
    optimizer.step()
    assert w[0, 0].item() == pytest.approx(0.99)


def test_a_decay_that_16_bits_round_away():
    for share, moves in ((1e-3, False), (3e-3, True)):
        w = nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16))
        optimizer = torch.optim.AdamW([w], lr=share, weight_decay=1.0)
        assert ("decay_rounded_away" in codes(audit(optimizer, steps=100))) != moves
        for _ in range(100):
            w.grad = torch.zeros_like(w)
            optimizer.step()
        assert (w[0, 0].item() < 1) == moves


def test_no_decay_at_all_and_no_rate():
    assert codes(audit(torch.optim.Adam([matrix()]), steps=50)) == ["no_decay"]
    assert "no_rate" in codes(audit(torch.optim.AdamW([matrix()], lr=0.0), steps=50))


def test_schedules_that_do_not_fit_the_run():
    optimizer = torch.optim.AdamW([matrix()], lr=1e-2, weight_decay=1.0)
    long = lr_scheduler.CosineAnnealingLR(optimizer, 1000)
    assert codes(audit(optimizer, steps=100, schedule=long)) == ["schedule_unfinished"]
    short = lr_scheduler.CosineAnnealingLR(torch.optim.AdamW([matrix()], lr=1e-2, weight_decay=1.0), 60)
    assert codes(audit(short.optimizer, steps=100, schedule=short)) == ["rate_rises_again"]


# ---- Hugging Face's TrainingArguments, by their attributes


def arguments(**changed) -> SimpleNamespace:
    given = {
        "learning_rate": 5e-5, "weight_decay": 0.0, "optim": "adamw_torch_fused", "lr_scheduler_type": "linear",
        "max_steps": -1, "num_train_epochs": 3, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1,
        "warmup_steps": 0, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8,
    }  # fmt: skip
    return SimpleNamespace(**given | changed)


def test_training_arguments():
    assert codes(audit(arguments(), dataset_size=1000)) == ["no_decay"]
    found = audit(arguments(weight_decay=0.1, learning_rate=1e-2, warmup_steps=0.1), Model(), dataset_size=1000)
    assert row(found, "matrix")["epochs"] == pytest.approx(3) and row(found, "matrix")["warmup_steps"] == 38
    assert row(found, "norm")["weight_decay"] == 0 and row(found, "bias")["weight_decay"] == 0
    for changed, message in (
        ({}, "steps: TrainingArguments count epochs; give dataset_size"),
        ({"max_steps": 9, "optim": "sgd"}, "optim: 'sgd' is no AdamW"),
        ({"max_steps": 9, "lr_scheduler_type": "polynomial"}, "lr_scheduler_type: 'polynomial' is none of 'linear'"),
        ({"max_steps": 9, "learning_rate": -1.0}, "learning_rate: -1.0; a finite number"),
    ):
        with pytest.raises(ValueError) as error:
            audit(arguments(**changed))
        assert message in str(error.value)


# ---- What cannot be


def broken(**group) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW([matrix()], lr=1e-2)
    optimizer.param_groups[0].update(group)
    return optimizer


BAD = [
    (lambda: audit(broken(lr=-1.0), steps=10), "lr in group 0: -1.0; a finite number of 0 or more"),
    (lambda: audit(broken(lr=math.nan), steps=10), "lr in group 0: nan"),
    (lambda: audit(broken(weight_decay=math.inf), steps=10), "weight_decay in group 0: inf"),
    (lambda: audit(broken(params=[]), steps=10), "groups [0] hold no parameters"),
    (lambda: audit(broken(lr=torch.ones(3)), steps=10), "lr: (3,) values in group 0; audit one replica at a time"),
    (lambda: audit(broken()), "steps: None; the number of optimizer steps of the run"),
    (lambda: audit(broken(), steps=10, schedule=[1.0] * 9), "schedule: shape (9,); one factor for each of the 10"),
    (lambda: audit(broken(), steps=2, schedule=[1.0, math.nan]), "schedule: nan at step 1; finite factors"),
    (lambda: audit(broken(), steps=2, schedule=lambda t: -1.0), "schedule: -1.0 at step 0"),
    (lambda: audit(broken(), steps=9, schedule="step"), "schedule: 'step' is unknown"),
    (lambda: audit(broken(), steps=9, schedule=[1.0] * 9, warmup=3), "warmup: 3, final: 0.0, with a schedule"),
    (
        lambda: audit((o := broken()), steps=9, schedule=lr_scheduler.OneCycleLR(o, 1e-2, total_steps=5)),
        "schedule: OneCycleLR raises ValueError",
    ),
    (
        lambda: audit((o := broken()), steps=9, schedule=lr_scheduler.ReduceLROnPlateau(o)),
        "schedule: ReduceLROnPlateau follows a loss",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message: str):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)


def test_what_is_no_optimizer():
    with pytest.raises(TypeError, match="optimizer: Model; a torch"):
        audit(Model(), steps=10)
