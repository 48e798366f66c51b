"""The audit of an optimizer: kinds, schedules and decay as runs show them, bad input, and nothing touched."""

import copy
import json
import math
import re
from html import escape
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from specimens import Capped, Deaf, Doubled, LateAndCautious, Model, codes, groups, matrix
from torch import nn
from torch.optim import lr_scheduler

import adamw_book
from adamw_book.diagnose import audit


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


def test_a_scheduler_or_a_function_once_an_epoch():
    optimizer = torch.optim.AdamW([matrix()], lr=1e-2, weight_decay=1.0)
    scheduler = lr_scheduler.StepLR(optimizer, 1, 0.5)
    found = audit(optimizer, steps=30, schedule=scheduler, schedule_interval=10)
    left = 0.99**10 * 0.995**10 * 0.9975**10
    assert found.table["remaining"][0] == pytest.approx(left, rel=1e-12)
    by_epoch = audit(optimizer, steps=30, schedule=lambda epoch: 0.5**epoch, schedule_interval=10)
    assert by_epoch.table["remaining"][0] == pytest.approx(left, rel=1e-12)


def test_a_scheduler_that_holds_another_is_no_wrapper_to_be_taken_off():
    class Halved(lr_scheduler.LRScheduler):
        def __init__(self, optimizer, scheduler):
            self.scheduler = scheduler
            super().__init__(optimizer)

        def get_lr(self):
            return [lr / 2 for lr in self.base_lrs]

    optimizer = torch.optim.AdamW([matrix()], lr=1e-2, weight_decay=1.0)
    schedule = Halved(optimizer, lr_scheduler.StepLR(optimizer, 1, 0.1))
    assert audit(optimizer, steps=20, schedule=schedule).table["timescales_in_run"][0] == pytest.approx(0.1)


def test_parameters_that_were_appended_have_no_name():
    model = Model()
    optimizer = torch.optim.AdamW([("norm.weight", model.norm.weight)], lr=1e-2)
    optimizer.param_groups[0]["params"] += [model.hidden.weight, model.gain]
    assert audit(optimizer, steps=100).table["kind"].tolist() == ["matrix", "norm", "vector"]
    optimizer.param_groups[0]["params"] = [model.hidden.weight]
    optimizer.param_groups[0]["param_names"] = ["norm.weight", "hidden.weight"]  # which is whose is not known
    assert audit(optimizer, steps=100).table["kind"].tolist() == ["matrix"]


def test_parameters_that_a_scheduler_holds_are_not_copied():
    class Heavy(nn.Parameter):
        def __deepcopy__(self, memo):
            raise MemoryError

    optimizer = torch.optim.AdamW([Heavy(torch.ones(2, 2))], lr=1e-2, weight_decay=1.0)
    schedule = lr_scheduler.StepLR(optimizer, 10, 0.5)
    schedule.held = optimizer.param_groups[0]["params"]
    assert audit(optimizer, steps=20, schedule=schedule).table["timescales_in_run"][0] == pytest.approx(0.15)


def test_factors_are_of_the_rate_that_a_scheduler_has_stored():
    optimizer = torch.optim.AdamW([matrix()], lr=1e-2, weight_decay=1.0)
    lr_scheduler.LambdaLR(optimizer, lambda t: t / 10)  # which has set the rate to 0 by now
    assert audit(optimizer, steps=100, schedule="linear").table["lr"][0] == pytest.approx(1e-2, rel=0.01)
    assert audit(optimizer, steps=100).table["lr"][0] == 0


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
    (lambda p: LateAndCautious(p), "decoupled"),
    (lambda p: torch.optim.Adam(p, weight_decay=0.1, maximize=True), "coupled, adaptive"),
    (lambda p: torch.optim.Adagrad(p, weight_decay=0.1), "coupled, adaptive"),
    (lambda p: Capped(p), "other"),
]


@pytest.mark.parametrize(("make", "how"), HOW)
def test_how_a_decay_acts_is_found_by_stepping(make, how: str):
    found = audit(make([matrix()]), steps=1000)
    assert found.table["decay"].tolist() == [how]
    assert ("coupled" in codes(found)) == (how == "coupled, adaptive")


def test_a_share_that_is_not_lr_times_weight_decay_is_measured():
    w = matrix()
    optimizer = Doubled([w], lr=1e-2, weight_decay=0.5)
    found = audit(optimizer, steps=20)
    for _ in range(20):
        w.grad = torch.zeros(2, 2)
        optimizer.step()
    assert found.table["decay"][0] == "decoupled"
    assert found.table["remaining"][0] == pytest.approx(w[0, 0].item(), rel=1e-5)
    assert found.table["timescale_steps"][0] == pytest.approx(100)


def test_a_decay_that_ignores_lr():
    found = audit(adamw_book.AdamW([matrix()], lr=1e-3, weight_decay=1e-3, lr_independent=True), steps=100)
    assert found.table["remaining"][0] == pytest.approx(0.999**100) and codes(found) == ["lr_independent"]


def test_a_decay_that_ignores_lr_rests_where_lr_is_0_and_has_the_floor_of_the_largest_share():
    w = matrix()
    optimizer = adamw_book.AdamW([w], lr=1e-3, weight_decay=1e-2, lr_independent=True)
    factors = [0.0, 0.5, 1.0, 0.0]
    found = audit(optimizer, steps=4, schedule=factors)
    for factor in factors:
        w.grad, optimizer.param_groups[0]["lr"] = torch.zeros(2, 2), 1e-3 * factor
        optimizer.step()
    assert found.table["remaining"][0] == pytest.approx(w[0, 0].item(), rel=1e-6)
    [note] = [finding.text for finding in found.findings if finding.code == "lr_independent"]
    assert "takes the share 0.01 itself, which torch's AdamW would take with weight_decay=10." in note
    # the share is as large at half of the rate, where it comes first
    assert found.table["noise_floor"][0] == pytest.approx(5e-4 / math.sqrt(2e-2))


class OnlyMatrices(Deaf):
    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for p in group["params"]:
                p.data.mul_(1 - group["lr"] * group["weight_decay"] * (p.ndim > 1))


def test_groups_that_differ_in_their_axes_are_tried_apart():
    found = audit(OnlyMatrices([{"params": [matrix()]}, {"params": [nn.Parameter(torch.ones(2))]}]), steps=100)
    assert found.table["decay"].tolist() == ["decoupled", "ignored"]
    assert found.table["remaining"].tolist() == pytest.approx([0.999**100, 1.0])


@pytest.mark.parametrize("flag", ["capturable", "differentiable"])
def test_a_copy_runs_on_the_cpu_whatever_the_run_needs(flag: str):
    found = audit(torch.optim.AdamW([matrix()], lr=1e-2, weight_decay=1.0, **{flag: True}), steps=50)
    assert found.table["decay"].tolist() == ["decoupled"]


class Wrapper(torch.optim.Optimizer):
    """Shows the groups of the optimizer that it holds."""

    def __init__(self, optimizer) -> None:
        self.optimizer, self.defaults, self.param_groups = optimizer, optimizer.defaults, optimizer.param_groups

    def step(self, closure=None):
        self.optimizer.step()


def test_an_optimizer_is_found_in_wrappers_and_a_schedule_of_a_wrapper_touches_nothing():
    optimizer = torch.optim.AdamW([matrix()], lr=1e-2, weight_decay=1.0)
    wrapper = Wrapper(Wrapper(optimizer))
    schedule = lr_scheduler.StepLR(wrapper, 10, 0.5)
    found = audit(wrapper, steps=20, schedule=schedule)
    assert found.table["remaining"][0] == pytest.approx(0.99**10 * 0.995**10)
    assert optimizer.param_groups[0]["lr"] == 1e-2 and schedule.last_epoch == 0


@pytest.mark.parametrize("make", [*SCHEDULERS, lr_scheduler.ReduceLROnPlateau])
def test_a_scheduler_of_another_optimizer_is_refused(make):
    optimizer, other = broken(), broken(lr=1.0, weight_decay=1e-9)
    for schedule in (make(other), SimpleNamespace(scheduler=make(Wrapper(other)))):
        with pytest.raises(ValueError, match=r"schedule: \w+ drives another optimizer; make the scheduler for the one"):
            audit(optimizer, steps=20, schedule=schedule)
    with pytest.raises(ValueError, match="StepLR drives another optimizer"):
        audit(copy.deepcopy(optimizer), steps=20, schedule=lr_scheduler.StepLR(optimizer, 10))
    own, schedule = copy.deepcopy((optimizer, lr_scheduler.StepLR(optimizer, 10, 0.1)))
    assert audit(own, steps=20, schedule=schedule).table["timescales_in_run"][0] == pytest.approx(0.11 * 1e-2)


def test_a_scheduler_of_the_optimizer_within_or_of_one_around_is_its_own():
    class Around(torch.optim.AdamW):
        """Shares the groups of the optimizer that it steps, which it calls by another name."""

        def __init__(self, base) -> None:
            self.base, self.defaults, self.param_groups = base, base.defaults, base.param_groups

    inner = torch.optim.AdamW([matrix()], lr=1e-2, weight_decay=1.0)
    for audited, driven in ((Wrapper(inner), inner), (inner, Wrapper(inner)), (inner, Around(inner))):
        found = audit(audited, steps=20, schedule=lr_scheduler.StepLR(driven, 10, 0.5))
        assert found.table["remaining"][0] == pytest.approx(0.99**10 * 0.995**10)


def test_a_scheduler_may_change_weight_decay_and_read_the_defaults():
    class Both(lr_scheduler.LRScheduler):
        def get_lr(self):
            for group in self.optimizer.param_groups:
                group["weight_decay"] = 1.0 + self.last_epoch
            return [self.optimizer.defaults["lr"] for _ in self.base_lrs]

    optimizer = torch.optim.AdamW([matrix()], lr=1e-2)
    found = audit(optimizer, steps=3, schedule=Both(optimizer))
    assert found.table["remaining"][0] == pytest.approx(0.99 * 0.98 * 0.97)
    assert found.table["weight_decay"][0] == pytest.approx(3.0)


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
    # a schedule without a name here takes the factors that are given
    polynomial = audit(arguments(lr_scheduler_type="polynomial", max_steps=3), schedule=[1.0, 0.5, 0.25])
    assert polynomial.table["timescales_in_run"][0] == 0 and len(polynomial.table) == 1
    with pytest.raises(ValueError, match="dataset_size: many; a positive whole number"):
        audit(arguments(), dataset_size="many")
    for changed, message in (
        ({}, "steps: TrainingArguments count epochs; give dataset_size"),
        ({"max_steps": 9, "optim": "sgd"}, "optim: 'sgd' is no AdamW"),
        ({"max_steps": 9, "lr_scheduler_type": "polynomial"}, "lr_scheduler_type: 'polynomial' is none of 'linear'"),
        ({"max_steps": 9, "learning_rate": -1.0}, "learning_rate: -1.0; a finite number"),
        ({"max_steps": 9, "num_train_epochs": math.nan}, "num_train_epochs: nan; a finite number above 0"),
    ):
        with pytest.raises(ValueError) as error:
            audit(arguments(**changed))
        assert message in str(error.value)


@pytest.mark.parametrize("name", ["adamw_8bit", "adamw_torch_4bit", "paged_adamw_8bit", "paged_adamw_32bit"])
def test_names_under_which_the_trainer_makes_an_adamw(name: str):
    assert audit(arguments(optim=name, max_steps=9, weight_decay=0.1)).table["decay"].tolist() == ["decoupled"]


@pytest.mark.parametrize("name", ["paged_lion_8bit", "paged_ademamix_32bit", "galore_adamw", "schedule_free_adamw"])
def test_names_under_which_it_makes_another_optimizer_or_other_groups(name: str):
    with pytest.raises(ValueError, match=f"optim: '{name}' is no AdamW, or not the Trainer's groups; audit the"):
        audit(arguments(optim=name, max_steps=9))


def test_what_the_trainer_makes_of_its_arguments():
    settings = {"weight_decay": 0.1, "learning_rate": 1e-2, "max_steps": 200}
    # every device takes its own batch, of the size that the Trainer found to fit
    for changed, epochs in (({}, 1.6), ({"world_size": 2}, 3.2), ({"world_size": 2, "train_batch_size": 2}, 0.8)):
        found = audit(arguments(**settings | changed), dataset_size=1000)
        assert found.table["epochs"][0] == pytest.approx(epochs)
    for changed, steps in (({"warmup_ratio": 0.1}, 20), ({"warmup_steps": 10, "warmup_ratio": 0.1}, 10)):
        assert audit(arguments(**settings | changed)).table["warmup_steps"][0] == steps
    for kind, steps in (("constant", 0), ("constant_with_warmup", 10)):
        found = audit(arguments(**settings, warmup_steps=10, lr_scheduler_type=kind))
        assert found.table["warmup_steps"][0] == steps
    found = audit(arguments(**settings, adam_beta1=0.5, adam_beta2=0.8, lr_scheduler_type="constant"))
    assert found.table["rotation_per_step"][0] == pytest.approx(math.sqrt(2e-3 / 3))
    assert audit(arguments(**settings, warmup_steps=1)).table["warmup_steps"][0] == 1  # a step, not all of the run
    whole, half = (audit(arguments(**settings), steps=n).table["timescales_in_run"][0] for n in (None, 100))
    assert half == pytest.approx(whole / 2)
    # a LayerNorm is exempt whatever its name
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    found = audit(arguments(**settings), model)
    assert found.table[["group", "kind", "weight_decay"]].values.tolist() == [
        [0, "matrix", 0.1], [1, "bias", 0.0], [1, "norm", 0.0],
    ]  # fmt: skip


def test_the_trainer_leaves_out_what_is_frozen():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].requires_grad_(False)
    found = audit(arguments(weight_decay=0.1, learning_rate=1e-2, max_steps=200), model)
    assert found.table["tensors"].tolist() == [1, 1] and not {"frozen_held", "not_held"} & set(codes(found))


@pytest.mark.parametrize(("accumulated", "steps"), [(1, 3 * 126), (4, 3 * 32)])
def test_the_last_step_of_an_epoch_may_be_a_smaller_one(accumulated: int, steps: int):
    found = audit(arguments(weight_decay=0.1, gradient_accumulation_steps=accumulated), dataset_size=1001)
    assert found.table["epochs"][0] == pytest.approx(steps * 8 * accumulated / 1001)


# ---- What cannot be


def broken(**group) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW([matrix()], lr=1e-2)
    optimizer.param_groups[0].update(group)
    return optimizer


def groupless() -> torch.optim.Optimizer:
    optimizer = broken()
    optimizer.param_groups = []
    return optimizer


BAD = [
    (lambda: audit(broken(lr=-1.0), steps=10), "lr in group 0: -1.0; a finite number of 0 or more"),
    (lambda: audit(broken(lr=math.nan), steps=10), "lr in group 0: nan"),
    (lambda: audit(broken(weight_decay=math.inf), steps=10), "weight_decay in group 0: inf"),
    (lambda: audit(broken(params=[]), steps=10), "groups [0] hold no parameters"),
    (lambda: audit(groupless(), steps=10), "its param_groups hold no parameters; give each group some"),
    (lambda: audit(torch.optim.AdamW(nn.LazyLinear(2).parameters()), steps=9), "of lazy modules; call the model once"),
    (lambda: audit(broken(lr=torch.ones(3)), steps=10), "lr: (3,) values in group 0; audit one replica at a time"),
    (
        lambda: audit(adamw_book.AdamW([matrix()], betas=(torch.tensor([0.8, 0.9]), 0.99)), steps=10),
        "betas: (2,) values in group 0; audit one replica at a time",
    ),
    (lambda: audit(broken(), steps="20"), "steps: '20'; the number of optimizer steps of the run"),
    (lambda: audit(broken(weight_decay="1%"), steps=20), "weight_decay in group 0: 1%; a finite number"),
    (lambda: audit(broken(), steps=20, schedule=42), "schedule: 42; a torch scheduler, a name, a function of the step"),
    (lambda: audit(broken()), "steps: None; the number of optimizer steps of the run"),
    (lambda: audit(broken(), steps=10, schedule=[1.0] * 9), "schedule: shape (9,); one factor for each of the 10"),
    (lambda: audit(broken(), steps=2, schedule=[1.0, math.nan]), "schedule: nan at step 1; finite factors"),
    (lambda: audit(broken(), steps=2, schedule=lambda t: -1.0), "schedule: -1.0 at step 0"),
    (lambda: audit(broken(), steps=2, schedule={}.__getitem__), "schedule: __getitem__ raises KeyError: 0; a torch"),
    (lambda: audit(broken(), steps=2, schedule=lambda t: None), "schedule: <lambda> raises TypeError: float()"),
    (lambda: audit(broken(), steps=2, schedule=["a", "b"]), "schedule: list raises ValueError: could not convert"),
    (lambda: audit(broken(), steps=2, schedule=object()), "that returns a factor, or 2 factors are needed"),
    (lambda: audit(broken(), steps=9, schedule="step"), "schedule: 'step' is unknown"),
    (
        lambda: audit((o := broken()), steps=9, schedule=lr_scheduler.LambdaLR(o, lambda t: 1.0 - t / 4)),
        "schedule: LambdaLR sets -0.0025 in group 0 at step 5; 0 or more is needed",
    ),
    (
        lambda: audit(arguments(max_steps=9), Model(), schedule=lr_scheduler.StepLR(broken(), 1)),
        "schedule: drives 1 parameter groups, the optimizer has 2; make the scheduler for this optimizer",
    ),
    (lambda: audit(broken(), steps=9, schedule=[1.0] * 9, warmup=3), "warmup: 3, final: 0.0, with a schedule"),
    (
        lambda: audit((o := broken()), steps=9, schedule=lr_scheduler.OneCycleLR(o, 1e-2, total_steps=5)),
        "schedule: OneCycleLR raises ValueError",
    ),
    (
        lambda: audit((o := broken()), steps=9, schedule=lr_scheduler.ReduceLROnPlateau(o)),
        "schedule: ReduceLROnPlateau follows a loss",
    ),
    (
        lambda: audit((o := broken()), steps=9, schedule=SimpleNamespace(scheduler=lr_scheduler.ReduceLROnPlateau(o))),
        "schedule: ReduceLROnPlateau follows a loss",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message: str):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)


def test_what_is_no_optimizer_or_no_model():
    with pytest.raises(TypeError, match="optimizer: Model; a torch"):
        audit(Model(), steps=10)
    with pytest.raises(TypeError, match="model: generator; a torch.nn.Module"):
        audit(broken(), Model().parameters(), 10)


def test_a_sparse_parameter_has_no_memory_to_share():
    sparse = [nn.Parameter(torch.ones(2, 2).to_sparse()) for _ in range(2)]
    assert "shared_memory" not in codes(audit(torch.optim.AdamW(sparse, lr=1e-2), steps=1000))


# ---- As it is shown


def test_the_html_of_a_notebook_holds_what_the_text_holds():
    found = audit(torch.optim.Adam(Model().parameters(), lr=1e-2, weight_decay=1.0), steps=100)
    html = found._repr_html_()
    assert html.count("<tr") == 1 + len(found.table) and html.count("<strong>") == len(found.findings)
    for finding in found.findings:
        assert escape(finding.text) in html and escape(finding.fix) in html
    assert "#" not in re.sub(r"<pre>.*?</pre>|&#\w+;", "", html, flags=re.DOTALL)  # no colours: a page has its own
    good = audit(torch.optim.AdamW([matrix()], lr=1e-2, weight_decay=1.0), steps=100)
    assert "nothing found" in good._repr_html_() and "nothing found" in str(good) and "nothing found" not in html
    named = nn.ParameterDict({"<b>": matrix()})
    assert "<b>" not in audit(torch.optim.AdamW([matrix()]), named, 10)._repr_html_()


def test_an_audit_as_json_has_no_number_that_json_lacks():
    found = audit(torch.optim.AdamW([matrix()], lr=1e200, weight_decay=1e200), steps=3)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["findings"][0]["code"] == "share_above_one"
