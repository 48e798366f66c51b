"""Other people's models, loops, schedules and wrappers."""

import copy
import math
from unittest import mock

import pytest
import torch
from loop_checks import CHECKS, CLOSE
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR
from torch.testing._internal.two_tensor import TwoTensor

from adamw_book.optim import AdamW, watch

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("device", DEVICES)
def test_loop(name, backend, device):
    CHECKS[name](device, backend)


@pytest.mark.parametrize("name", ["sets of gradients", "conjugated gradients", "moments are let go"])
def test_without_torchs_guards(name, monkeypatch):
    monkeypatch.setattr(watch, "TensorGuards", None)
    CHECKS[name]("cpu", None)


@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"explain": True}], ids=str)
def test_parameters_without_memory_of_their_own(options):
    """A wrapper around two tensors is updated as each of them would be."""
    torch.manual_seed(0)
    a, b = torch.randn(4, 3), torch.randn(4, 3)
    wrapped, pair = nn.Parameter(TwoTensor(a.clone(), b.clone())), [nn.Parameter(a), nn.Parameter(b)]
    amsgrad = "amsgrad" in options
    mine, theirs = AdamW([wrapped], lr=0.1, **options), torch.optim.AdamW(pair, lr=0.1, amsgrad=amsgrad)
    assert mine.backend == "reference"
    for _ in range(3):
        for optimizer in (mine, theirs):
            optimizer.zero_grad()
        (wrapped * wrapped).sum().backward()
        sum((p * p).sum() for p in pair).backward()
        mine.step()
        theirs.step()
    torch.testing.assert_close(wrapped.a, pair[0].detach(), **CLOSE)
    torch.testing.assert_close(wrapped.b, pair[1].detach(), **CLOSE)


@pytest.mark.parametrize(
    "options", [{}, {"fused": True}, {"capturable": True}, {"max_norm": 1.0, "explain": True}], ids=str
)
def test_fake_tensors(options):
    with FakeTensorMode():
        model = nn.Linear(3, 2)
        optimizer = AdamW(model.parameters(), **options)
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
        assert optimizer.state[model.weight]["exp_avg"].shape == (2, 3) and optimizer.backend == "reference"


def test_a_scale_on_another_device():
    """A scaler's is on the device of its first scaled loss, of a model that may be spread over several."""
    with FakeTensorMode():
        p = nn.Parameter(torch.ones(3))
        p.grad = torch.ones(3)
        optimizer = AdamW([p], fused=True, max_norm=1.0, backend="reference")
        optimizer.grad_scale = torch.ones(1, device="cuda")
        optimizer.step()
        assert p.grad.device == optimizer.state[p]["exp_avg"].device == torch.device("cpu")


def test_lazy_modules():
    ends = []
    for cls in (AdamW, torch.optim.AdamW):
        torch.manual_seed(0)
        model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 1))
        optimizer = cls(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).sum().backward()
            optimizer.step()
        ends.append([p.detach() for p in model.parameters()])
    for p, q in zip(*ends, strict=True):
        torch.testing.assert_close(p, q, **CLOSE)


@pytest.mark.parametrize("scheduler", ["CyclicLR", "OneCycleLR"])
@pytest.mark.parametrize("lr", [1e-4, torch.tensor(1e-4)], ids=["number", "tensor"])
def test_lr_independent_on_a_schedule_that_climbs(scheduler, lr):
    """The decay is λ·lr over the peak, which OneCycleLR says and CyclicLR does not: there it is asked for."""
    p = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = AdamW([p], lr=copy.copy(lr), weight_decay=0.01, lr_independent=True)
    group, peak = optimizer.param_groups[0], 1e-2
    make = {
        "CyclicLR": lambda: lr_scheduler.CyclicLR(optimizer, 1e-4, peak, step_size_up=4, cycle_momentum=False),
        "OneCycleLR": lambda: lr_scheduler.OneCycleLR(optimizer, peak, total_steps=8),
    }
    schedule = make[scheduler]()
    if scheduler == "CyclicLR":
        p.grad = torch.zeros_like(p)
        optimizer.step()
        schedule.step()
        before = p.item()
        with pytest.raises(ValueError, match=r"lr_independent: lr is 0.0.*, above .*, from .*param_group\['max_lr'\]"):
            optimizer.step()
        assert p.item() == before and optimizer.state[p]["step"] == 1
        group["max_lr"] = peak
    for _ in range(6):
        before, share = p.item(), 0.01 * float(group["lr"]) / peak
        p.grad = torch.zeros_like(p)
        optimizer.step()
        assert p.item() / before == pytest.approx(1 - share, rel=1e-6)
        schedule.step()


SCHEDULERS = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=9),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.2),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_torchs_schedulers_refuse_a_learning_rate_for_each_replica(name):
    optimizer = AdamW([nn.Parameter(torch.ones(3, 2))], lr=torch.tensor([0.1, 0.2, 0.3]))
    with pytest.raises(ValueError, match=r"lr holds one value for each replica, and torch's schedulers set one number"):
        SCHEDULERS[name](optimizer)


@pytest.mark.parametrize("name", [*SCHEDULERS, "SWALR"])
def test_a_refused_scheduler_leaves_the_groups_as_they_were(name):
    """But for lr under CyclicLR, of which the message says so: what is written there is overwritten."""
    params, lr = [nn.Parameter(torch.ones(3, 2)) for _ in range(2)], torch.tensor([0.1, 0.2, 0.3])
    betas = (torch.tensor([0.9, 0.8, 0.7]), 0.99)
    groups = [{"params": params[:1], "lr": 0.5, "initial_lr": 0.7}, {"params": params[1:], "betas": betas}]
    optimizer = AdamW(groups, lr=lr, lr_independent=True)
    before = [dict(group) for group in optimizer.param_groups]
    make = (SCHEDULERS | {"SWALR": lambda o: SWALR(o, 0.05)})[name]
    for _ in range(2):
        with pytest.raises(ValueError, match="holds one value for each replica.* CyclicLR overwrites lr before it can"):
            make(optimizer)
        for group, old in zip(optimizer.param_groups, before, strict=True):
            assert group.keys() == old.keys()
            assert all(group[name] is old[name] for name in group if name != "lr")
            assert group["lr"] is old["lr"] or name == "CyclicLR"
    assert lr.tolist() == torch.tensor([0.1] * 3 if name == "CyclicLR" else [0.1, 0.2, 0.3]).tolist()


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)], ids=["number", "tensor"])
def test_the_decay_follows_a_plateau_where_the_group_says_where_lr_began(lr):
    """The line in the docstring; without it nothing tells the decay that lr was reduced."""
    for documented, share in ((True, 0.01), (False, 0.02)):
        p = nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = AdamW([p], lr=copy.deepcopy(lr), weight_decay=0.02, lr_independent=True)
        if documented:
            for param_group in optimizer.param_groups:
                param_group["initial_lr"] = float(param_group["lr"])
        plateau = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        for loss in (1.0, 1.0):
            plateau.step(loss)
        p.grad = torch.zeros_like(p)
        optimizer.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
        assert p.item() == pytest.approx(1 - share)


def test_a_plateau_does_not_reduce_the_learning_rates_of_replicas_in_silence():
    optimizer = AdamW([nn.Parameter(torch.ones(3, 2))], lr=torch.tensor([0.1, 0.2, 0.3]))
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    plateau.step(1.0)
    with pytest.raises((RuntimeError, ValueError), match="element.* converted to"):
        plateau.step(1.0)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_beside_vectors_that_they_leave_alone(name):
    betas = (torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0.99, 0.9, 0.8]))
    cycles = name in ("OneCycleLR", "CyclicLR")
    for vectors in ({"weight_decay": torch.tensor([0.1, 0.2, 0.3])}, {"betas": betas}):
        optimizer = AdamW([nn.Parameter(torch.ones(3, 2))], lr=0.1, **vectors)
        if cycles and "betas" in vectors:  # they put one number in the place of β₁
            with pytest.raises(ValueError, match=r"betas\[0\] holds one value for each replica.* cycle_momentum=False"):
                SCHEDULERS[name](optimizer)
        else:
            SCHEDULERS[name](optimizer)


class Lightning:
    """As Lightning wraps: it takes over the optimizer's ``__dict__`` and becomes a subclass of its class."""

    def __init__(self, optimizer):
        self.__dict__ = {k: v for k, v in optimizer.__dict__.items() if k not in ("step", "__del__")}
        self.__class__ = type("Lightning" + type(optimizer).__name__, (self.__class__, type(optimizer)), {})
        self._optimizer = optimizer

    def step(self):
        self._optimizer.step()


class Accelerated(torch.optim.Optimizer):
    """As accelerate wraps: it hands on state, groups and defaults."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    state = property(lambda self: self.optimizer.state)
    param_groups = property(lambda self: self.optimizer.param_groups)
    defaults = property(lambda self: self.optimizer.defaults)

    def step(self):
        self.optimizer.step()


@pytest.mark.parametrize("wrap", [Lightning, Accelerated])
def test_wrappers(wrap):
    """Options arrive, and a state that is changed through the wrapper is noticed."""
    p = nn.Parameter(torch.ones(3))
    optimizer = AdamW([p], lr=0.1, weight_decay=0.0)
    wrapped = wrap(optimizer)

    def step():
        p.grad = torch.full_like(p, 10.0)
        wrapped.step()

    step()
    if wrap is Lightning:
        wrapped.max_norm, wrapped.explain = 1.0, True
    else:
        wrapped.param_groups[0] |= {"max_norm": 1.0, "explain": True}
    step()
    assert optimizer.max_norm == 1.0 and optimizer.explain
    assert (optimizer if wrap is Accelerated else wrapped).explanation()[p].param_norm > 0
    torch.testing.assert_close(optimizer.state[p]["exp_avg"], torch.full((3,), 0.9 * 1.0 + 0.1 / math.sqrt(3)))
    step()
    wrapped.state[p]["exp_avg"].data = torch.zeros(3)
    step()
    torch.testing.assert_close(optimizer.state[p]["exp_avg"], torch.full((3,), 0.1 / math.sqrt(3)))


@pytest.mark.parametrize("hold", ["the mapping", "a parameter's state", "a moment", "a state_dict"])
def test_a_state_that_somebody_holds_is_looked_at_at_every_step(hold):
    """Who has kept a reference may change the state without asking for it again."""
    p = nn.Parameter(torch.ones(3))
    optimizer = AdamW([p], lr=0.1)

    def step():
        p.grad = torch.ones_like(p)
        optimizer.step()

    step()
    holding, change = {
        "the mapping": (lambda: optimizer.state, lambda held: held[p].update(exp_avg=torch.zeros(3))),
        "a parameter's state": (lambda: optimizer.state[p], lambda held: held.update(exp_avg=torch.zeros(3))),
        "a moment": (lambda: optimizer.state[p]["exp_avg"], lambda held: setattr(held, "data", torch.zeros(3))),
        "a state_dict": (optimizer.state_dict, lambda held: held["state"][0].update(exp_avg=torch.zeros(3))),
    }[hold]
    held = holding()
    for _ in range(3):
        step()
    change(held)
    step()
    torch.testing.assert_close(optimizer.state[p]["exp_avg"], torch.full((3,), 0.1))
    del held
    step()
    step()
    assert not optimizer._now.state_seen, "nobody holds it any more, and yet it is looked at"


def test_small_tensors_are_updated_on_one_core():
    """A region of all cores waits for the busiest of them; a few thousand elements are done sooner alone."""
    seen, real = {}, torch._fused_adamw_

    def spy(params, *args, **kwargs):
        seen[params[0].numel()] = torch.get_num_threads()
        return real(params, *args, **kwargs)

    params = [nn.Parameter(torch.ones(n)) for n in (10, 2**18)]
    for p in params:
        p.grad = torch.ones_like(p)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with mock.patch.object(torch, "_fused_adamw_", spy):
            AdamW(params).step()
        assert seen == {10: 1, 2**18: 2} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
@pytest.mark.parametrize(
    "classes", [(torch.optim.AdamW, AdamW), (AdamW, torch.optim.AdamW)], ids=["from torch", "to torch"]
)
def test_checkpoints_of_torch_distributed(classes, flat, tmp_path):
    """A run saved by torch.distributed.checkpoint goes on in the other class."""
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

    options = StateDictOptions(flatten_optimizer_state_dict=flat)

    def make(cls, seed=0):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
        groups = [{"params": model[0].parameters(), "weight_decay": 0.3}, {"params": model[2].parameters()}]
        return model, cls(groups, lr=0.05)

    def train(model, optimizer, steps):
        for step in steps:
            optimizer.zero_grad()
            (model(torch.full((2, 5), 1.0 + step)) - 1).square().mean().backward()
            optimizer.step()

    source, target = classes
    model, optimizer = make(source)
    train(model, optimizer, range(3))
    weights, state = get_state_dict(model, optimizer, options=options)
    checkpoint.save({"model": weights, "optimizer": state}, checkpoint_id=tmp_path, no_dist=True)
    moved, resumed = make(target, seed=1)
    weights, state = get_state_dict(moved, resumed, options=options)
    checkpoint.load({"model": weights, "optimizer": state}, checkpoint_id=tmp_path, no_dist=True)
    set_state_dict(moved, resumed, model_state_dict=weights, optim_state_dict=state, options=options)
    train(model, optimizer, range(3, 6))
    train(moved, resumed, range(3, 6))
    for p, q in zip(model.parameters(), moved.parameters(), strict=True):
        torch.testing.assert_close(p, q, **CLOSE)
    assert resumed.param_groups[0]["weight_decay"] == 0.3
