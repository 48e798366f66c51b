"""What is recorded during a run: from our optimizer's explanation and by hooks, against the run and against theory."""

import math

import numpy as np
import pytest
import torch
from specimens import Deaf, Doubled
from torch import nn

import adamw_book
from adamw_book.diagnose import DecayRecorder, auditing
from adamw_book.diagnose.auditing.decay import Decay


def run(kind, every: int = 3, record: bool = True, steps: int = 60, **hyper):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 4)).double()
    optimizer = kind(model.parameters(), lr=1e-2, **{"weight_decay": 0.5} | hyper)
    recorder = DecayRecorder(optimizer, model, every)
    if record:
        recorder.__enter__()
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(32, 8, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
    recorder.detach()
    return recorder, model, optimizer


def test_explanation_and_hooks_record_the_same_and_change_nothing():
    ours, _, optimizer = run(adamw_book.AdamW)
    theirs, model, _ = run(torch.optim.AdamW)
    assert not optimizer.explain
    one, other = ours.table(), theirs.table()
    assert one["step"].unique().tolist() == list(range(0, 60, 3)) and set(one["kind"]) == {"matrix", "bias", "norm"}
    numbers = one.columns[3:]
    np.testing.assert_allclose(one[numbers], other[numbers], rtol=1e-6, atol=1e-12)
    _, untouched, _ = run(torch.optim.AdamW, record=False)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), untouched.parameters(), strict=True))
    np.testing.assert_allclose(one["decay_norm"], 5e-3 * one["param_norm"], rtol=1e-9)
    start = one.groupby("kind")["param_norm"].transform("first")
    np.testing.assert_allclose(one["decay_alone"], start * 0.995 ** one["step"], rtol=1e-9)


def test_noise_leads_to_the_norm_and_the_step_that_theory_says():
    w = nn.Parameter(torch.zeros(20, 20))
    optimizer = torch.optim.AdamW([w], lr=1e-2, weight_decay=1.0)
    rng = torch.Generator().manual_seed(0)
    with DecayRecorder(optimizer, every=10) as recorder:
        for _ in range(1500):
            w.grad = torch.randn(20, 20, generator=rng)
            optimizer.step()
    late = recorder.table().tail(50)
    assert late["param_norm"].mean() == pytest.approx(late["equilibrium_norm"].iloc[0], rel=0.1)
    assert late["gradient_norm"].mean() == pytest.approx(late["noise_gradient_norm"].iloc[0], rel=0.1)


def test_a_coupled_decay_is_not_told_from_the_gradient_step():
    table = run(torch.optim.Adam)[0].table()
    assert (table["decay_norm"] == 0).all() and table["cosine"].isna().all() and (table["gradient_norm"] > 0).all()


def test_parameters_without_a_gradient_take_no_part():
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(2, 2))])
    with DecayRecorder(optimizer) as recorder:
        optimizer.step()
    assert recorder.table().empty
    with pytest.raises(ValueError, match="no step is recorded yet"):
        recorder.plot()


def test_it_draws_and_is_attached_once():
    plt = pytest.importorskip("matplotlib.pyplot")
    recorder, _, optimizer = run(torch.optim.AdamW)
    norm, step, cosine = recorder.plot()
    assert len(norm.lines) == 9 and len(step.lines) == 9 and len(cosine.lines) == 3
    plt.close("all")
    recorder.attach(optimizer)
    with pytest.raises(RuntimeError, match="an optimizer is attached"):
        recorder.attach(optimizer)
    recorder.detach()
    with pytest.raises(TypeError, match="optimizer: Linear; a torch.optim.Optimizer"):
        recorder.attach(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="every: 0; a whole number of steps"):
        DecayRecorder(every=0)


@pytest.mark.parametrize("kind", [adamw_book.AdamW, torch.optim.AdamW])
def test_gradients_that_a_closure_makes_are_seen_from_the_first_step(kind):
    w = nn.Parameter(torch.ones(2, 2))
    optimizer = kind([w], lr=1e-2, weight_decay=0.5)

    def closure():
        optimizer.zero_grad()
        loss = w.square().sum()
        loss.backward()
        return loss

    with DecayRecorder(optimizer) as recorder:
        for _ in range(3):
            optimizer.step(closure)
    assert recorder.table()["step"].tolist() == [0, 1, 2]
    assert recorder.table()["decay_norm"].iloc[0] == pytest.approx(1e-2 * 0.5 * 2)


def test_what_cannot_be_recorded_is_named_before_the_run():
    empty = torch.optim.AdamW([nn.Parameter(torch.ones(2, 2))])
    empty.param_groups[0]["params"] = []
    with pytest.raises(ValueError, match=r"groups \[0\] hold no parameters"):
        DecayRecorder().attach(empty)
    two = torch.full((2,), 0.9)
    for name, vector in {"lr": two, "weight_decay": two, "l2": two, "betas": (0.9, two)}.items():
        with pytest.raises(ValueError, match=rf"{name}: \(2,\) values in group 0; audit one replica at a time"):
            DecayRecorder().attach(adamw_book.AdamW([nn.Parameter(torch.ones(2, 2))], **{name: vector}))
    broken = torch.optim.AdamW([nn.Parameter(torch.ones(2, 2))])
    broken.param_groups[0]["lr"] = float("nan")
    with pytest.raises(ValueError, match="lr in group 0: nan; a finite number of 0 or more"):
        DecayRecorder().attach(broken)


@pytest.mark.parametrize("kind", [adamw_book.AdamW, torch.optim.AdamW])
def test_groups_and_parameters_that_join_are_recorded_from_then_on(kind):
    model = nn.ParameterDict(
        {name: torch.ones(2, 2) for name in ("first", "second", "third")} | {"norm": torch.ones(2)}
    )
    optimizer = kind([("first", model["first"])], lr=1e-2, weight_decay=0.5)

    def step() -> None:
        for p in model.values():
            p.grad = torch.zeros_like(p)
        optimizer.step()

    with DecayRecorder(optimizer) as recorder:
        step()
        optimizer.add_param_group({"params": [("second", model["second"])], "weight_decay": 2.0})
        step()
        optimizer.param_groups[0]["params"] += [model["third"], model["norm"]]
        step()
        optimizer.param_groups.pop(0)
        step()
        optimizer.load_state_dict(kind([("second", model["second"])], lr=1e-2, weight_decay=0.5).state_dict())
        step()
    table = recorder.table()
    assert table[["step", "group", "kind"]].values.tolist() == [
        [0, 0, "matrix"], [1, 0, "matrix"], [1, 1, "matrix"],
        [2, 0, "matrix"], [2, 0, "vector"], [2, 1, "matrix"], [3, 0, "matrix"],
        [4, 0, "matrix"],
    ]  # fmt: skip
    shares = table["decay_norm"] / table["param_norm"]
    assert shares.tolist() == pytest.approx([5e-3, 5e-3, 2e-2, 5e-3, 5e-3, 2e-2, 2e-2, 5e-3], rel=1e-4)
    # without a gradient step decay is alone, of each parameter from its first step on
    np.testing.assert_allclose(table["decay_alone"], table["param_norm"], rtol=1e-6)


def test_a_parameter_that_is_frozen_rests_and_begins_with_the_norm_that_it_has_then():
    early, late = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    with DecayRecorder(optimizer := torch.optim.AdamW([early, late], lr=1e-2, weight_decay=0.5)) as recorder:
        for t in range(8):
            early.grad = torch.zeros(2, 2)
            late.grad = torch.zeros(2, 2) if t in (3, 4, 7) else None
            optimizer.step()
    table = recorder.table()
    np.testing.assert_allclose(table["decay_alone"], table["param_norm"], rtol=1e-6)
    shares = np.array([[0, 0], [1, 0], [2, 0], [3, 0], [4, 1], [5, 2], [6, 2], [7, 2]])
    norms = 2 * 0.995**shares * [[1, t in (3, 4, 7)] for t in range(8)]
    np.testing.assert_allclose(table["param_norm"], np.linalg.norm(norms, axis=1), rtol=1e-6)


def test_a_group_that_stays_as_it_is_is_tried_once(monkeypatch):
    tried = []
    monkeypatch.setattr(auditing.recorder, "decay_of", lambda *given: tried.append(given[1]) or Decay("decoupled"))
    first, second, third = (nn.Parameter(torch.ones(2, 2)) for _ in range(3))
    optimizer = torch.optim.AdamW([first], lr=1e-2, weight_decay=0.5)
    with DecayRecorder(optimizer):
        optimizer.step()
        optimizer.add_param_group({"params": [second]})
        optimizer.step()
        optimizer.step()
        optimizer.param_groups[1]["params"].append(third)
        optimizer.step()
    known, joined = optimizer.param_groups
    assert [group is known for group in tried] == [True, False, False] and tried[1] is tried[2] is joined


@pytest.mark.parametrize("kind", [adamw_book.AdamW, torch.optim.AdamW])
def test_a_decay_that_rises_from_0_is_a_decay(kind):
    w = nn.Parameter(torch.ones(2, 2))
    optimizer = kind([w], lr=1e-2, weight_decay=0.0)
    with DecayRecorder(optimizer) as recorder:
        for weight_decay in (0.0, 0.5):
            optimizer.param_groups[0]["weight_decay"] = weight_decay
            w.grad = torch.zeros(2, 2)
            optimizer.step()
    table = recorder.table()
    assert table["decay_norm"].tolist() == pytest.approx([0.0, 1e-2 * 0.5 * 2])
    assert table["gradient_norm"].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert table["equilibrium_norm"].tolist() == pytest.approx([math.nan, 1e-2 * math.sqrt(4 / 1e-2)], nan_ok=True)


def test_an_optimizer_of_which_no_copy_can_be_stepped_is_recorded_without_a_decay():
    class Own(torch.optim.SGD):
        def __init__(self, params, lr, weight_decay, owner):
            super().__init__(params, lr, weight_decay=weight_decay)

    for weight_decay in (0.0, 0.5):
        w = nn.Parameter(torch.ones(2, 2))
        optimizer = Own([w], 1e-2, weight_decay, "me")
        if weight_decay:
            with pytest.raises(ValueError, match="Own for one small parameter raises TypeError"):
                DecayRecorder(optimizer).__enter__()
            continue
        with DecayRecorder(optimizer) as recorder:
            w.grad = torch.ones(2, 2)
            optimizer.step()
        assert recorder.table()["gradient_norm"].tolist() == pytest.approx([2e-2])


@pytest.mark.parametrize("make", [
    lambda w: Doubled([w], lr=1e-2, weight_decay=0.5),
    lambda w: adamw_book.AdamW([w], lr=1e-2, weight_decay=1e-2, lr_independent=True),
])  # fmt: skip
def test_a_share_that_is_not_lr_times_weight_decay(make):
    optimizer = make(w := nn.Parameter(torch.ones(2, 2)))
    with DecayRecorder(optimizer) as recorder:
        for _ in range(5):
            w.grad = torch.zeros(2, 2)
            optimizer.step()
    table = recorder.table()
    np.testing.assert_allclose(table["decay_norm"], 1e-2 * table["param_norm"], rtol=1e-4)
    np.testing.assert_allclose(table["decay_alone"], table["param_norm"], rtol=1e-6)
    np.testing.assert_allclose(table["equilibrium_norm"], 1e-2 * np.sqrt(4 / 2e-2), rtol=1e-4)


def test_a_step_that_calls_the_step_of_its_base_is_recorded_once():
    """Where the base class has been used before, torch calls the hooks of both; and a step that broke is no step."""
    Deaf([nn.Parameter(torch.ones(2, 2))])
    optimizer = Doubled([w := nn.Parameter(torch.ones(2, 2))], lr=1e-2, weight_decay=0.5)
    with DecayRecorder(optimizer) as recorder:
        w.grad = torch.zeros(2, 2)
        optimizer.step()
        w.grad = None
        with pytest.raises(AttributeError):
            optimizer.step()
        w.grad = torch.zeros(2, 2)
        optimizer.step()
    table = recorder.table()
    assert table["step"].tolist() == [0, 1]
    np.testing.assert_allclose(table["decay_norm"], 1e-2 * table["param_norm"], rtol=1e-4)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [adamw_book.AdamW, torch.optim.AdamW])
def test_steps_that_a_gradient_scaler_skips_are_none(kind, fused: bool, every: int):
    optimizer = kind([w := nn.Parameter(torch.ones(2, 2))], lr=1e-2, weight_decay=0.5, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with DecayRecorder(optimizer, every=every) as recorder:
        for factor in (1.0, math.inf, math.inf, 1.0, 1.0):
            optimizer.zero_grad()
            scaler.scale((0 * w).sum() * factor).backward()
            scaler.step(optimizer)
            scaler.update()
    table = recorder.table()
    assert table["step"].tolist() == list(range(0, 3, every))
    np.testing.assert_allclose(table["param_norm"], 2 * 0.995 ** table["step"], rtol=1e-6)
    np.testing.assert_allclose(table["decay_alone"], table["param_norm"], rtol=1e-6)


def test_a_step_that_another_optimizer_or_a_method_takes_is_recorded():
    class Own(torch.optim.AdamW):
        def train(self):
            self.step()

    class Outer(torch.optim.SGD):
        def step(self, closure=None):
            inner.step()

    w = nn.Parameter(torch.ones(2, 2))
    inner = Own([w], lr=1e-2, weight_decay=0.5)
    outer = Outer([nn.Parameter(torch.ones(1))], lr=1e-2)
    with DecayRecorder(inner) as recorder:
        w.grad = torch.zeros(2, 2)
        inner.train()
        outer.step()
    assert recorder.table()["step"].tolist() == [0, 1]


def test_the_cosine_is_1_where_the_gradient_shrinks_the_weights_too():
    for sign in (1.0, -1.0):
        for kind in (adamw_book.AdamW, torch.optim.AdamW):
            optimizer = kind([w := nn.Parameter(torch.ones(2, 2))], lr=1e-2, weight_decay=0.5)
            with DecayRecorder(optimizer) as recorder:
                w.grad = torch.full((2, 2), sign)
                optimizer.step()
            assert recorder.table()["cosine"].tolist() == pytest.approx([sign], rel=1e-4)


def test_a_warm_up_from_0_below_the_rate_of_the_trial():
    w = nn.Parameter(torch.ones(2, 2))
    optimizer = adamw_book.AdamW([w], lr=1e-4, weight_decay=0.5, lr_independent=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: t / 2)
    with DecayRecorder(optimizer) as recorder:
        for _ in range(3):
            w.grad = torch.zeros(2, 2)
            optimizer.step()
            schedule.step()
    table = recorder.table()
    assert table["decay_norm"].tolist() == pytest.approx([0.0, 0.25 * 2, 0.5 * 1.5])
    np.testing.assert_allclose(table["decay_alone"], table["param_norm"], rtol=1e-6)
