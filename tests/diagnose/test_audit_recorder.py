"""What is recorded during a run: from our optimizer's explanation and by hooks, against the run and against theory."""

import numpy as np
import pytest
import torch
from torch import nn

import adamw_book
from adamw_book.diagnose import DecayRecorder


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
    broken = torch.optim.AdamW([nn.Parameter(torch.ones(2, 2))])
    broken.param_groups[0]["lr"] = float("nan")
    with pytest.raises(ValueError, match="lr in group 0: nan; a finite number of 0 or more"):
        DecayRecorder().attach(broken)
