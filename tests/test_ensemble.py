"""The engine: every row of an ensemble is the run that plain torch would have made, whatever stands beside it."""

import math
import random
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from adamw_book import data, ensemble, replicas
from adamw_book.data import digits_splits, generator
from adamw_book.ensemble import Task, batch_order, initial_parameters, train
from adamw_book.models import CNN, MLP, RNN
from adamw_book.schedules import DECAY_SCHEDULES, SCHEDULES, decay_factors, learning_rate_factors

MODELS = {
    "MLP": lambda: MLP(depth=2),
    "MLP, LayerNorm": lambda: MLP(depth=2, norm=True),
    "CNN": CNN,
    "CNN, GroupNorm": lambda: CNN(norm=True),
    "RNN": RNN,
    "RNN, LayerNorm": lambda: RNN(norm=True),
}
RUNS = pd.DataFrame(
    [
        ("AdamW", 1e-3, 0.5, 0.0, 0),
        ("Adam + L2", 3e-3, 0.0, 1e-2, 0),
        ("Adam", 1e-3, 0.0, 0.0, 1),
        ("AdamW", 5e-3, 2.0, 0.0, 1),
        ("Adam + L2", 1e-3, 0.0, 1e-3, 2),
    ],
    columns=["arm", "lr", "weight_decay", "l2", "seed"],
)


def task(model=MLP, **options) -> Task:
    """In float64: Adam divides a gradient by its own size, so that what rounding leaves of one that vanishes counts as
    a whole step, and in float32 the order in which a processor adds would show."""

    def data(seed):
        return {
            name: (x.double(), y) for name, (x, y) in digits_splits(seed, train=60, validation=40, **options).items()
        }

    return Task("digits", lambda: model().double(), data)


# The coefficients are float32 in an ensemble and float64 in a run alone: 12 to 40 steps of at most 5e-3 · 2⁻²⁴ apart.
NEAR = {"rtol": 1e-6, "atol": 2e-8}


def values(result, metric: str, step: int) -> np.ndarray:
    table = result.table
    return table[(table["metric"] == metric) & (table["step"] == step)]["value"].to_numpy()


def solo(
    task: Task,
    run,
    steps: int,
    batch_size: int | None,
    schedule: str = "constant",
    warmup: float = 0.0,
    decay: str = "torch",
    **options,
) -> nn.Module:
    """One run as anybody would write it, with torch's own optimizers."""
    model = task.model()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(initial_parameters(task.model, [run.seed])[name][0])
    if run.l2:
        optimizer = torch.optim.Adam(model.parameters(), lr=run.lr, weight_decay=run.l2, **options)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=run.lr, weight_decay=run.weight_decay, **options)
    factors = learning_rate_factors(schedule, steps, warmup)
    decay_of = {"torch": lambda f: f, "constant": lambda f: 1.0, "AdamC": lambda f: f**2}[decay]
    x, y = task.data(run.seed)["train"]
    order = batch_order(run.seed, len(x), batch_size, steps) if batch_size else [slice(None)] * steps
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = run.lr * factors[step]
        if not run.l2:  # torch takes the share lr · weight_decay
            optimizer.param_groups[0]["weight_decay"] = run.weight_decay * decay_of(factors[step]) / factors[step]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[order[step]]), y[order[step]]).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch_size", [16, None])
def test_every_row_equals_its_solo_run_with_torch(name, batch_size):
    t = task(MODELS[name])
    result = train(t, RUNS, steps=12, batch_size=batch_size, keep_parameters=True, device="cpu")
    for i, run in enumerate(RUNS.itertuples()):
        for parameter, expected in solo(t, run, 12, batch_size).named_parameters():
            torch.testing.assert_close(
                result.parameters[parameter][i],
                expected.detach(),
                **NEAR,
                msg=lambda m, p=parameter: f"{p}: {m}",
            )


class Partly(nn.Module):
    """A body that is frozen, a read-out that learns, and a layer that nobody asks."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.idle = nn.Linear(64, 16), nn.Linear(16, 10), nn.Linear(3, 3)
        self.body.requires_grad_(False)

    def forward(self, x):
        return self.head(self.body(x).tanh())


@pytest.mark.parametrize("toward", ["zero", "start"])
def test_parameters_without_a_gradient_stay_where_they_are_as_under_torch(toward):
    seen, t = [], task(Partly)
    t = replace(t, start=lambda seeds: initial_parameters(t.model, seeds))
    result = train(t, RUNS.assign(toward=toward), steps=12, batch_size=16, record=(0, 3, 12), keep_parameters=True,
                   measure=lambda s: seen.append(copied(s)) or {}, chunk_size=len(RUNS), device="cpu")  # fmt: skip
    first = initial_parameters(t.model, list(RUNS["seed"]))
    for name, p in result.parameters.items():
        assert torch.equal(p, first[name]) == ("head" not in name)
        for moments in (seen[-1].gradients, seen[-1].exp_avg_sq):
            assert bool(moments[name].any()) == ("head" in name) and moments[name].shape == p.shape
    for i, run in enumerate(RUNS.itertuples()):
        if toward == "zero":
            for name, p in solo(t, run, 12, 16).named_parameters():
                torch.testing.assert_close(result.parameters[name][i], p.detach(), **NEAR)


@pytest.mark.parametrize("option", [{"betas": (0.6, 0.999)}, {"betas": (0.9, 0.9)}, {"eps": 1e-3}], ids=str)
def test_betas_and_eps_are_those_that_were_asked_for(option):
    t = task()
    found, usual = (train(t, RUNS, steps=4, keep_parameters=True, device="cpu", **own) for own in (option, {}))
    for i, run in enumerate(RUNS.itertuples()):
        for parameter, expected in solo(t, run, 4, None, **option).named_parameters():
            torch.testing.assert_close(found.parameters[parameter][i], expected.detach(), **NEAR)
        assert (found.parameters["layers.0.weight"][i] - usual.parameters["layers.0.weight"][i]).abs().max() > 1e-4


SCHEDULED = {"warmup": [0.0, 0.3, 0.0, 0.25, 0.0], "decay_schedule": ["AdamC", "torch", "torch", "AdamC", "constant"]}


@pytest.fixture
def graphs(monkeypatch) -> list:
    """What of each chunk became a CUDA graph, None where its steps go on one by one."""
    found, record = [], replicas.Replicas._record_graph
    monkeypatch.setattr(replicas.Replicas, "_record_graph", lambda self: (record(self), found.append(self.graph)))
    return found


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch_size", [16, None])
def test_every_row_on_a_gpu_equals_its_solo_run(name, batch_size, graphs):
    t, runs = task(MODELS[name]), RUNS.assign(schedule=["constant", "cosine", "WSD", "cosine", "constant"], **SCHEDULED)
    result = train(t, runs, steps=30, batch_size=batch_size, keep_parameters=True, device="cuda")
    assert len(graphs) == 1 and graphs[0] is not None
    for i, run in enumerate(runs.itertuples()):
        alone = solo(t, run, 30, batch_size, run.schedule, run.warmup, run.decay_schedule)
        for parameter, expected in alone.named_parameters():
            torch.testing.assert_close(result.parameters[parameter][i], expected.detach(), **NEAR)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("looks", [True, False])
def test_a_step_that_no_graph_can_hold_goes_on_a_gpu(looks, graphs):
    """A ``perturb`` that looks at its numbers waits for the GPU, which a recording does not allow."""

    def perturb(logits, x, y):
        return x + 0.01 * logits(x).mean((1, 2))[:, None, None] if not looks or x.sum().item() > 0 else x

    t = replace(task(), perturb=perturb)
    options = {"steps": 30, "batch_size": 16, "keep_parameters": True}
    here, there = (train(t, RUNS, device=device, **options) for device in ("cpu", "cuda"))
    assert [graph is None for graph in graphs] == [looks]
    for name, p in here.parameters.items():
        torch.testing.assert_close(there.parameters[name], p, **NEAR)


@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_schedules_are_per_replica(schedule):
    t = task()
    runs = RUNS.assign(schedule=["constant", schedule, schedule, "cosine", "constant"])
    result = train(t, runs, steps=20, batch_size=16, keep_parameters=True, device="cpu")
    for i, run in enumerate(runs.itertuples()):
        expected = dict(solo(t, run, 20, 16, run.schedule).named_parameters())
        for parameter, stack in result.parameters.items():
            torch.testing.assert_close(stack[i], expected[parameter].detach(), **NEAR)


@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_warm_ups_and_how_decay_follows_the_schedule_are_per_replica(schedule):
    t, runs = task(), RUNS.assign(**SCHEDULED)
    result = train(t, runs, steps=20, batch_size=16, schedule=schedule, keep_parameters=True, device="cpu")
    for i, run in enumerate(runs.itertuples()):
        expected = dict(solo(t, run, 20, 16, schedule, run.warmup, run.decay_schedule).named_parameters())
        for parameter, stack in result.parameters.items():
            torch.testing.assert_close(stack[i], expected[parameter].detach(), **NEAR)
    assert list(result.table.columns) == [*runs.columns, "step", "metric", "value"]
    assert "warmup" not in train(t, RUNS, steps=1, batch_size=16).table


def test_runs_that_name_no_schedule_follow_that_of_the_training():
    options = {"steps": 20, "batch_size": 16, "keep_parameters": True}
    mine, named = (
        train(task(), RUNS, schedule="cosine", **options),
        train(task(), RUNS.assign(schedule="cosine"), **options),
    )
    for name, value in mine.parameters.items():
        assert torch.equal(value, named.parameters[name])
    assert "schedule" not in mine.table and set(named.table["schedule"]) == {"cosine"}
    own = train(task(), RUNS.assign(schedule="cosine"), schedule="WSD", **options)  # a run's own goes first
    assert all(torch.equal(value, own.parameters[name]) for name, value in mine.parameters.items())
    with pytest.raises(ValueError, match="schedule: 'triangle' is unknown"):
        train(task(), RUNS, schedule="triangle", **options)


def test_schedule_shapes():
    for name in SCHEDULES:
        factors = learning_rate_factors(name, 100)
        assert factors.shape == (100,) and (factors > 0).all() and factors.max() <= 1
    assert learning_rate_factors("cosine", 100)[-1] < 1e-3
    assert learning_rate_factors("warm-up + cosine", 100)[:10].tolist() == sorted(
        learning_rate_factors("warm-up + cosine", 100)[:10]
    )
    progress = (np.arange(100) + 0.5) / 100
    wsd = np.where(progress < 0.1, progress / 0.1, np.where(progress > 0.8, (1 - progress) / 0.2, 1.0))
    np.testing.assert_allclose(learning_rate_factors("WSD", 100), wsd, rtol=1e-12)
    np.testing.assert_allclose(learning_rate_factors("cosine", 100), np.cos(np.pi * progress / 2) ** 2, rtol=1e-9)
    warm = np.where(progress < 0.1, progress / 0.1, np.cos(np.pi / 2 * (progress - 0.1) / 0.9) ** 2)
    np.testing.assert_allclose(learning_rate_factors("warm-up + cosine", 100), warm, rtol=1e-9)
    assert (learning_rate_factors("constant", 100) == 1).all()
    np.testing.assert_allclose(learning_rate_factors("linear", 100), 1 - progress, rtol=1e-12)


def test_one_cycle_is_torchs():
    """torch's is at its peak and its ends on whole steps, ours halfway between them: they part by a step or two."""
    steps = 4000
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps, cycle_momentum=False)
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(learning_rate_factors("one-cycle", steps), expected, atol=10 / steps)


def test_a_warm_up_climbs_to_the_beginning_of_the_schedule():
    for name in SCHEDULES:
        for share in (0.05, 0.5, np.float32(0.25)):
            factors, climbing = learning_rate_factors(name, 200, share), round(200 * share)
            assert (factors > 0).all() and factors.max() <= 1
            np.testing.assert_allclose(factors[:climbing], (np.arange(climbing) + 0.5) / climbing, rtol=1e-6)
            np.testing.assert_allclose(factors[climbing:], learning_rate_factors(name, 200 - climbing), rtol=1e-6)
    with_cosine = learning_rate_factors("cosine", 77, warmup=0.1)
    np.testing.assert_allclose(with_cosine, learning_rate_factors("warm-up + cosine", 77), rtol=1e-12)


@pytest.mark.parametrize(("steps", "share"), [(5, 0.1), (250, 0.05), (3, 0.5), (1, 0.5)])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_step_at_the_end_of_the_warm_up_is_taken_at_the_peak(name, steps, share):
    """Half a step beside a whole number of them: a schedule's own climb begins at 0, by which none can divide."""
    factors = learning_rate_factors(name, steps, share)
    assert factors[round(steps * share - 0.5)] == 1 and (factors > 0).all()
    assert np.isfinite(factors * decay_factors("constant", factors)).all()


def test_decay_follows_the_schedule_as_its_name_says():
    factors = learning_rate_factors("WSD", 50)
    share = {name: factors * decay_factors(name, factors) for name in DECAY_SCHEDULES}
    np.testing.assert_allclose(share["torch"], factors, rtol=1e-12)
    np.testing.assert_allclose(share["constant"], 1, rtol=1e-12)
    np.testing.assert_allclose(share["AdamC"], factors**2, rtol=1e-12)
    assert list(share) == ["torch", "constant", "AdamC"]


def begun(seeds) -> dict[str, torch.Tensor]:
    """A start for ``task()``: weights of the body that hang on the seed alone; the read-out is left out."""
    drawn = [torch.randn(32, 64, generator=generator(seed, "start"), dtype=torch.double) for seed in seeds]
    return {"layers.0.weight": 0.2 * torch.stack(drawn), "layers.0.bias": torch.full((len(seeds), 32), 0.1)}


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("target", ["zero", "start"])
def test_runs_begin_with_given_weights_and_decay_toward_them_where_asked(target, chunk_size):
    """By hand, as anybody would write it: decay first, toward zero or toward the start, then Adam."""
    t = replace(task(), start=begun)
    runs = RUNS.assign(toward=target).sort_values("seed", ascending=False, ignore_index=True)
    options = {"steps": 12, "batch_size": 16, "keep_parameters": True, "device": "cpu", "chunk_size": chunk_size}
    result = train(t, runs, decays=lambda name: name.endswith("weight"), **options)
    for i, run in enumerate(runs.itertuples()):
        model, (x, y) = task().model(), task().data(run.seed)["train"]
        first = {name: p[0] for name, p in (initial_parameters(task().model, [run.seed]) | begun([run.seed])).items()}
        model.load_state_dict(first)
        pulled = {
            p: first[name].double() * (target == "start" and "layers.0" in name)
            for name, p in model.named_parameters()
            if name.endswith("weight")
        }
        optimizer = torch.optim.Adam(model.parameters(), lr=run.lr)
        for batch in batch_order(run.seed, len(x), 16, 12):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            with torch.no_grad():
                for p, anchor in pulled.items():
                    p.grad += run.l2 * (p - anchor)
                    p -= run.lr * run.weight_decay * (p - anchor)
            optimizer.step()
        for name, p in model.named_parameters():
            torch.testing.assert_close(result.parameters[name][i], p.detach(), **NEAR)


def test_a_run_decays_toward_its_own_target_beside_the_others():
    t, options = replace(task(), start=begun), {"steps": 12, "keep_parameters": True, "device": "cpu"}
    mixed = train(t, RUNS.assign(toward=["start", "zero", "zero", "start", "start"]), **options)
    for target, rows in (("start", [0, 3, 4]), ("zero", [1, 2])):
        alone = train(t, RUNS.assign(toward=target), **options)
        assert set(alone.table["toward"]) == {target}
        for name, p in alone.parameters.items():
            torch.testing.assert_close(mixed.parameters[name][rows], p[rows], **NEAR)
    plain = train(t, RUNS, **options)
    assert "toward" not in plain.table
    for name, p in train(t, RUNS.assign(toward="zero"), **options).parameters.items():
        assert torch.equal(p, plain.parameters[name])


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (lambda seeds: {"head": torch.ones(len(seeds), 3)}, "task.start: it gives 'head'; .* layers.0.weight, "),
        (lambda seeds: {"layers.0.bias": torch.ones(32)},
         r"'layers.0.bias' has the shape \(32,\) for 3 seed\(s\); \(3, 32\) is needed"),
    ],
)  # fmt: skip
def test_a_start_that_is_none_of_the_models_is_refused(start, message):
    with pytest.raises(ValueError, match=message):
        train(replace(task(), start=start), RUNS, steps=1)


def test_the_runs_of_a_result_can_be_trained_another_way():
    """They are those that were given: what was filled in for one training does not stand in the way of the next."""
    given = RUNS.assign(warmup=0.1, note="carried along")
    first = train(task(), given, steps=5, device="cpu", keep_parameters=True)
    pd.testing.assert_frame_equal(first.runs, given)
    again = train(task(), first.runs, steps=5, device="cpu", keep_parameters=True, schedule="cosine")
    named = train(task(), given.assign(schedule="cosine"), steps=5, device="cpu", keep_parameters=True)
    for name, p in named.parameters.items():
        assert torch.equal(again.parameters[name], p) and not torch.equal(first.parameters[name], p)


def test_a_run_is_the_same_alone_and_in_any_chunk():
    t = task()
    together = train(t, RUNS, steps=30, batch_size=16, keep_parameters=True, device="cpu")
    in_twos = train(t, RUNS, steps=30, batch_size=16, keep_parameters=True, chunk_size=2, device="cpu")
    for i in range(len(RUNS)):
        alone = train(t, RUNS.iloc[[i]], steps=30, batch_size=16, keep_parameters=True, device="cpu")
        for name in together.parameters:
            torch.testing.assert_close(alone.parameters[name][0], together.parameters[name][i], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(in_twos.parameters[name][i], together.parameters[name][i], rtol=1e-9, atol=1e-9)


def test_chunks_side_by_side_give_what_one_after_the_other_gives():
    t = task()
    options = {"steps": 20, "batch_size": 16, "chunk_size": 2, "keep_parameters": True}
    threads = torch.get_num_threads()
    results = []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            results.append(train(t, RUNS, **options, device="cpu"))
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(threads)
    one, three = results
    pd.testing.assert_frame_equal(one.table, three.table, rtol=1e-7)
    for name in one.parameters:
        torch.testing.assert_close(one.parameters[name], three.parameters[name], rtol=1e-9, atol=1e-9)


def test_the_tables_order_is_that_of_steps_metrics_and_runs_whatever_the_chunks():
    def measure(snapshot):
        return {"replicas": torch.full((len(snapshot.runs),), float(len(snapshot.runs)))}

    runs = RUNS.assign(mark=list("ebdac"))
    metrics = [f"{split} {metric}" for split in ("validation", "train") for metric in ("loss", "accuracy")]
    metrics += ["weight norm", "replicas"]
    expected = [(step, metric, mark) for step in (0, 2, 3) for metric in metrics for mark in "ebdac"]
    threads, tables = torch.get_num_threads(), []
    try:
        for n, size in ((1, None), (1, 2), (2, None), (3, 2), (2, 1), (2, 5)):
            torch.set_num_threads(n)
            result = train(
                task(), runs, steps=3, batch_size=16, record=(3, 0, 2), evaluate=("validation", "train"),
                measure=measure, chunk_size=size, keep_parameters=True, device="cpu",
            )  # fmt: skip
            order = list(result.table[["step", "metric", "mark"]].itertuples(index=False, name=None))
            assert order == expected, (n, size)
            tables.append(result.table[result.table["metric"] != "replicas"])
    finally:
        torch.set_num_threads(threads)
    for table in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], table, rtol=1e-7)


def test_arms_are_paired_by_seed():
    t = task()
    twins = pd.concat([RUNS.iloc[[0]], RUNS.iloc[[0]].assign(arm="Adam", weight_decay=0.0)], ignore_index=True)
    result = train(t, twins, steps=1, batch_size=16, record=(0, 1), device="cpu")
    start = values(result, "train loss", 0)
    assert start[0] == start[1]
    a, b = (initial_parameters(MLP, [seed, seed + 1]) for seed in (3, 3))
    assert all(torch.equal(a[n], b[n]) and not torch.equal(a[n][0], a[n][1]) for n in a if n.endswith("weight"))
    assert torch.equal(batch_order(4, 60, 16, 9), batch_order(4, 60, 16, 9))
    assert not torch.equal(batch_order(4, 60, 16, 9), batch_order(5, 60, 16, 9))


def test_batches_go_through_the_training_set_epoch_by_epoch():
    order = batch_order(0, 60, 20, 6)
    for epoch in order.view(2, 60):
        assert sorted(epoch.tolist()) == list(range(60))
    assert not torch.equal(*order.view(2, 60))
    # from the generator that is the batches' own: what the weights or the data draw does not move them
    rng = generator(0, "batches")
    assert torch.equal(order.view(2, 60), torch.stack([torch.randperm(60, generator=rng) for _ in range(2)]))


def test_initial_weights_leave_the_global_generator_alone():
    unmoved(lambda: initial_parameters(Drawn, [0, 1]))
    a, b = (initial_parameters(Drawn, [seed, 7]) for seed in (7, 3))
    assert torch.equal(a["w"][0], a["w"][1]) and torch.equal(a["w"][1], b["w"][1])
    assert (a["w"][0] != b["w"][0]).all()


def test_initial_weights_are_what_the_model_draws_under_the_weights_own_seed():
    torch.manual_seed(generator(4, "weights").initial_seed())
    expected = dict(MLP().named_parameters())
    assert all(torch.equal(p[1], expected[name]) for name, p in initial_parameters(MLP, [3, 4]).items())


def test_seeds_may_be_a_tensors():
    for seeds in (torch.tensor([3, 0, 3]), np.array([3.0, 0.0, 3.0]), pd.Series([3, 0, 3])):
        for name, p in initial_parameters(MLP, [3, 0, 3]).items():
            assert torch.equal(initial_parameters(MLP, seeds)[name], p)


def test_a_model_is_drawn_alone_though_a_training_ends_beside_it(monkeypatch):
    """What the training puts back at its end has to wait for the thread whose seed stands in the generators."""
    asks, begun, drawn = threading.Event(), threading.Event(), []

    class Lock:
        """The lock, which tells the thread that the training asks for it."""

        def __enter__(self, lock=data._SEEDING):
            if threading.current_thread() is threading.main_thread():
                asks.set()
            lock.acquire()

        def __exit__(self, *_, lock=data._SEEDING):
            lock.release()

    def slow():
        first = nn.Linear(3, 3)
        begun.set()
        asks.wait(10)
        return nn.Sequential(first, nn.Linear(3, 3))

    thread = threading.Thread(target=lambda: drawn.append(initial_parameters(slow, [3])))

    def measure(snapshot):  # the last thing that the training does before it ends
        asks.clear()
        thread.start()
        begun.wait(10)
        return {}

    monkeypatch.setattr(data, "_SEEDING", Lock())
    unmoved(lambda: (train(task(), RUNS, steps=1, measure=measure, chunk_size=len(RUNS), device="cpu"), thread.join()))
    for name, p in initial_parameters(lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), [3]).items():
        assert torch.equal(drawn[0][name], p)


def test_models_may_be_made_of_models_that_are_made():
    inner = initial_parameters(MLP, [5])
    outer = initial_parameters(lambda: replicas.made(MLP, 5), [0])
    assert all(torch.equal(outer[name], p) for name, p in inner.items())


class Drawn(nn.Module):
    """Draws from torch, numpy and python, as somebody's start may."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([torch.rand(1).item(), np.random.rand(), random.random()]))

    def forward(self, x):
        return x[:, :3] * self.w


def unmoved(function) -> None:
    """Asserts that the global generators stand where they stood."""

    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1:3], random.getstate()

    before = states()
    function()
    for one, other in zip(before, states(), strict=True):
        np.testing.assert_equal(one, other)


@pytest.mark.parametrize("chunk_size", [None, 1, 3])
def test_training_leaves_every_global_generator_alone(chunk_size, monkeypatch):
    def data(seed):
        np.random.rand(), random.random()
        y = torch.zeros(6, dtype=torch.long)
        return dict.fromkeys(("train", "validation"), (torch.rand(6, 3), y))

    def measure(snapshot):
        return {"drawn": torch.rand(len(snapshot.runs)) + np.random.rand() + random.random()}

    def fail(seed):
        raise AssertionError("a GPU's generator was seeded")

    drawing = Task("drawn", Drawn, data)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", fail)
    monkeypatch.setattr(torch.cuda, "manual_seed", fail)
    options = {"steps": 2, "chunk_size": chunk_size, "device": "cpu"}
    unmoved(lambda: train(drawing, RUNS, batch_size=2, record=(0, 1), measure=measure, **options))
    with pytest.raises(ValueError, match="measure"):
        unmoved(lambda: train(drawing, RUNS, measure=lambda snapshot: {"weight norm": torch.rand(5)}, **options))


def test_a_module_is_made_without_moving_a_generator():
    unmoved(lambda: ensemble.over_replicas(Drawn))


def test_recorded_trajectory_and_measure():
    seen = []

    def measure(snapshot):
        seen.append((snapshot.step, snapshot.parameters["layers.0.weight"].shape, set(snapshot.exp_avg_sq)))
        return {
            "largest weight": torch.stack([p.abs().flatten(1).amax(1) for p in snapshot.parameters.values()]).amax(0)
        }

    options = {"steps": 10, "batch_size": 16, "device": "cpu", "chunk_size": len(RUNS)}
    result = train(task(), RUNS, record=(0, 5, 10), measure=measure, **options)
    table = result.table
    assert list(table.columns[:5]) == list(RUNS.columns) and set(table["step"]) == {0, 5, 10}
    wanted = {"train loss", "train accuracy", "validation loss", "validation accuracy", "weight norm", "largest weight"}
    assert set(table["metric"]) == wanted and len(table) == 3 * len(wanted) * len(RUNS)
    assert [s for s, _, _ in seen] == [0, 5, 10] and seen[0][1] == (5, 32, 64)
    last = train(task(), RUNS, keep_parameters=True, **options)
    norm = torch.cat([p.flatten(1) for p in last.parameters.values()], 1).norm(dim=1)
    np.testing.assert_allclose(values(result, "weight norm", 10), norm, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [16, None])
def test_a_snapshot_holds_the_gradient_and_the_second_moment_of_its_step(batch_size):
    seen = []
    train(task(), RUNS, steps=2, batch_size=batch_size, record=(0, 1, 2), betas=(0.9, 0.99), chunk_size=len(RUNS),
          measure=lambda s: seen.append(copied(s)) or {}, device="cpu")  # fmt: skip
    start, first, second = seen
    for i, run in enumerate(RUNS.itertuples()):
        x, y = task().data(run.seed)["train"]
        order = batch_order(run.seed, 60, batch_size, 2) if batch_size else [slice(None)] * 2
        moment = 0.0
        for step, before, after in ((0, start, first), (1, first, second)):
            model = task().model()
            model.load_state_dict({name: p[i] for name, p in before.parameters.items()})
            nn.functional.cross_entropy(model(x[order[step]]), y[order[step]]).backward()
            for name, p in model.named_parameters():
                torch.testing.assert_close(after.gradients[name][i], p.grad, rtol=1e-9, atol=1e-12)
            name = "layers.0.weight"
            joined = after.gradients[name][i] + run.l2 * before.parameters[name][i]
            moment = 0.99 * moment + 0.01 * joined**2
            torch.testing.assert_close(after.exp_avg_sq[name][i], moment, rtol=1e-6, atol=1e-15)
    assert [s.step for s in seen] == [0, 1, 2] and all(s.runs["arm"].equals(RUNS["arm"]) for s in seen)
    assert not any(t.any() for group in (start.gradients, start.exp_avg_sq) for t in group.values())


def copied(snapshot):
    parts = {
        name: {n: t.clone() for n, t in getattr(snapshot, name).items()}
        for name in ("parameters", "gradients", "exp_avg_sq")
    }
    return replace(snapshot, **parts)


def test_many_replicas_are_each_judged_on_their_own_seeds_data():
    """More than are evaluated at a time, so that a block's rows must find their seeds."""
    runs = pd.concat([RUNS.iloc[[0]].assign(seed=seed) for seed in [*[0] * 128, 1, 2]])
    result = train(task(), runs, steps=1, batch_size=16, keep_parameters=True, device="cpu",
                   chunk_size=len(runs), evaluate=("validation",))  # fmt: skip
    for i in (0, 127, 128, 129):
        model = task().model()
        model.load_state_dict({n: p[i] for n, p in result.parameters.items()})
        x, y = task().data(runs["seed"].iloc[i])["validation"]
        expected = nn.functional.cross_entropy(model(x), y).item()
        assert values(result, "validation loss", 1)[i] == pytest.approx(expected, rel=1e-9)


def test_metrics_are_those_of_each_model_alone():
    t = task()
    result = train(t, RUNS, steps=40, batch_size=16, evaluate=("test",), keep_parameters=True, device="cpu")
    for i, run in enumerate(RUNS.itertuples()):
        model = t.model()
        model.load_state_dict({n: p[i] for n, p in result.parameters.items()})
        x, y = t.data(run.seed)["test"]
        logits = model(x)
        assert values(result, "test accuracy", 40)[i] == pytest.approx(
            (logits.argmax(1) == y).float().mean().item(), abs=1e-6
        )
        assert values(result, "test loss", 40)[i] == pytest.approx(
            nn.functional.cross_entropy(logits, y).item(), rel=1e-5
        )


def test_a_diverged_run_counts_as_zero_accuracy():
    logits = torch.tensor([[[1.0, 0.0]], [[math.nan, 1.0]], [[math.inf, 0.0]], [[1.0, -math.inf]]])
    assert logits.argmax(-1).eq(0).all()  # NaN counts as the largest there
    assert ensemble.accuracy(logits, torch.zeros(4, 1, dtype=torch.long)).tolist() == [1.0, 0.0, 0.0, 0.0]


def test_parameters_that_do_not_decay():
    t = task()
    runs = RUNS.iloc[[0, 1]]
    kept = train(
        t,
        runs,
        steps=30,
        batch_size=16,
        decays=lambda n: "bias" not in n,
        keep_parameters=True,
        device="cpu",
    )
    run = next(runs.itertuples())
    model = t.model()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(initial_parameters(t.model, [run.seed])[name][0])
    groups = [[p for n, p in model.named_parameters() if ("bias" in n) == bias] for bias in (False, True)]
    optimizer = torch.optim.AdamW(
        [{"params": groups[0]}, {"params": groups[1], "weight_decay": 0.0}], run.lr, weight_decay=run.weight_decay
    )
    x, y = t.data(run.seed)["train"]
    for batch in batch_order(run.seed, len(x), 16, 30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(kept.parameters[name][0], p.detach(), **NEAR)


@pytest.mark.parametrize(
    ("runs", "cores", "chunks"), [(900, 2, 4), (72, 2, 2), (1, 2, 1), (3, 2, 2), (600, 1, 3), (7, 4, 4)]
)
def test_the_cores_share_the_runs_evenly(runs, cores, chunks, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    table = pd.DataFrame({"seed": range(runs)})
    splits = {0: digits_splits(0, train=60, validation=40)}
    everything = (lambda name: True), (0.9, 0.999), 1e-8, False, torch.device("cpu")
    job = ensemble.Job(task(), table, splits, {0: {}}, 5, 16, (5,), (), None, *everything)
    size = ensemble._fitting_chunk(job, MLP(), elsewhere=1)
    assert ensemble._fitting_chunk(job, MLP(), elsewhere=5) == -(-runs // (-(-chunks // 5) * 5 if chunks > 1 else 5))
    assert size <= 256 and -(-runs // size) == chunks and chunks * size - runs < chunks


class Reporting(replicas.Replicas):
    """Replicas of another kind: two models a run, judged at half their parameters, each chunk with a report."""

    models = 2

    def __init__(self, task, runs, *rest) -> None:
        super().__init__(task, runs, *rest)
        self.reports.append(pd.DataFrame({"seed": [runs["seed"].iloc[0]]}))

    def judged(self):
        return {name: p / 2 for name, p in super().judged().items()}


@pytest.mark.parametrize("threads", [1, 2])
def test_replicas_of_another_kind_are_recorded_kept_and_heard(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    options = {"steps": 3, "batch_size": 16, "record": [0, 3], "chunk_size": 2, "keep_parameters": True}
    plain, found = (train(task(), RUNS, device="cpu", **options, **kind) for kind in ({}, {"kind": Reporting}))
    assert plain.reports.empty and found.reports["seed"].tolist() == RUNS["seed"][::2].tolist()
    assert found.reports.index.tolist() == list(range(len(found.reports)))
    torch.testing.assert_close(found.parameters["layers.0.weight"], plain.parameters["layers.0.weight"] / 2)
    norms = [result.table[result.table["metric"] == "weight norm"]["value"].to_numpy() for result in (plain, found)]
    np.testing.assert_allclose(norms[1], norms[0] / 2, rtol=1e-5)


def test_short_memory_halves_the_chunk(monkeypatch):
    real, sizes = replicas.initial_parameters, []

    def short(model, seeds):
        sizes.append(len(seeds))
        if len(seeds) > 2:
            raise torch.OutOfMemoryError("full")
        return real(model, seeds)

    options = {"steps": 5, "batch_size": 16, "chunk_size": len(RUNS), "device": "cpu"}
    expected = train(task(), RUNS, **options).table
    monkeypatch.setattr(replicas, "initial_parameters", short)
    got = train(task(), RUNS, **options).table
    assert sizes == [5, 2, 2, 1]
    pd.testing.assert_frame_equal(got, expected, rtol=1e-7)


def test_whole_numbers_of_numpy_are_whole_numbers():
    n = np.int64
    options = {"device": "cpu"}
    result = train(task(), RUNS, steps=n(4), batch_size=n(16), chunk_size=n(2), record=np.array([0, 4]), **options)
    expected = train(task(), RUNS, steps=4, batch_size=16, chunk_size=2, record=[4, 0, 0, 4], **options)
    pd.testing.assert_frame_equal(result.table, expected.table)
    assert torch.equal(batch_order(n(3), n(60), n(16), n(9)), batch_order(3, 60, 16, 9))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: batch_order(0, 60, 61, 9), "batch_size: 61; a positive whole number of at most examples=60"),
        (lambda: batch_order(0, 60, 0, 9), "batch_size: 0; a positive whole number"),
        (lambda: batch_order(0, 0, 1, 9), "examples: 0; a positive whole number"),
        (lambda: batch_order(0, 60, 6, 0), "steps: 0; a positive whole number"),
        (lambda: batch_order(0.5, 60, 6, 1), "seed: 0.5; a whole number of 0 or more"),
        (lambda: initial_parameters(MLP, []), "seeds: none; at least one is needed"),
        (lambda: initial_parameters(MLP, [-1]), "seed: -1; a whole number of 0 or more"),
        (lambda: initial_parameters(MLP, torch.tensor([0.0, 0.5])), "seed: 0.5; a whole number of 0 or more"),
        (lambda: initial_parameters(MLP, ["1"]), "seed: '1'; a whole number of 0 or more"),
        (lambda: batch_order("1", 60, 6, 1), "seed: '1'; a whole number of 0 or more"),
        (lambda: initial_parameters(MLP, [math.nan]), "seed: nan; a whole number of 0 or more"),
        (lambda: learning_rate_factors("triangle", 5), "schedule: 'triangle' is unknown"),
        (lambda: learning_rate_factors("linear", 5, 1), "warmup: 1; a share of the steps, from 0 to less than 1"),
        (lambda: learning_rate_factors("linear", 5, float("nan")), "warmup: nan; a share"),
        (lambda: decay_factors("AdamX", np.ones(3)), "decay_schedule: 'AdamX' is unknown; choose from 'torch', 'con"),
        (lambda: learning_rate_factors("WSD", 2.5), "steps: 2.5; a whole number of 0 or more"),
    ],
)
def test_bad_input_of_the_parts_names_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


EMPTY = {"train": (torch.zeros(0, 64), torch.zeros(0, dtype=torch.long)), "validation": None}


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 10), nn.BatchNorm1d(10))

    def forward(self, x):
        return self.net(x)


class Dropping(MLP):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5, self.training)


@pytest.mark.parametrize("perturb", [None, lambda logits, x, y: x + logits(x).mean()], ids=["", "perturbed"])
@pytest.mark.parametrize(
    "model", [lambda: nn.Sequential(nn.Linear(64, 10), nn.Dropout(0.5)), Dropping], ids=["module", "within forward()"]
)
def test_dropout_is_refused_by_name_and_left_alone_where_it_does_nothing(model, perturb):
    for runs in (RUNS, RUNS.iloc[:1], RUNS.iloc[:4]):  # of the last, as many under each seed
        with pytest.raises(ValueError, match=r"task.model: its forward pass draws at random .* make .* \.eval\(\)"):
            train(replace(task(model), perturb=perturb), runs, steps=2, device="cpu")
    still = train(replace(task(lambda: model().eval()), perturb=perturb), RUNS, steps=2, device="cpu")
    assert np.isfinite(still.table["value"]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": RUNS.drop(columns="l2")}, "runs: no column 'l2'"),
        ({"runs": RUNS.iloc[:0]}, "runs: the table is empty"),
        ({"runs": RUNS.assign(lr=np.nan)}, "runs: lr nan; a finite number of 0 or more is needed"),
        ({"runs": RUNS.assign(lr=-1e-3)}, "runs: lr -0.001; a finite number of 0 or more is needed"),
        ({"runs": RUNS.assign(weight_decay=[0, 0, -0.5, 0, 0])}, "runs: weight_decay -0.5; a finite number"),
        ({"runs": RUNS.assign(l2=[0, np.inf, 0, 0, 0])}, "runs: l2 inf; a finite number"),
        ({"runs": RUNS.assign(l2="much")}, "runs: l2 'much'; a finite number"),
        ({"runs": RUNS.assign(lr="0.01")}, "runs: lr '0.01'; a finite number"),
        ({"runs": RUNS.assign(lr=1j)}, "runs: lr 1j; a finite number"),
        ({"runs": RUNS.assign(seed="1")}, "runs: seed '1'; a whole number"),
        ({"runs": RUNS.to_dict("records")}, "runs: of type list; a pandas.DataFrame with a row for each run is needed"),
        ({"runs": RUNS.assign(step=1)}, "runs: the column 'step' is one of the result's; rename it or leave it out"),
        ({"runs": RUNS.assign(metric=1)}, "runs: the column 'metric'"),
        ({"runs": RUNS.assign(value=1)}, "runs: the column 'value'"),
        ({"runs": pd.concat([RUNS, RUNS[["lr"]]], axis=1)}, "runs: two columns 'lr'; one of a name is needed"),
        ({"runs": RUNS.assign(toward="one")}, "runs: toward 'one'; 'zero' or 'start' is needed"),
        ({"runs": RUNS.assign(toward="start")}, "runs: toward 'start', and task 'digits' has no start; 'zero', or"),
        ({"runs": RUNS.assign(schedule="triangle")}, "schedule: 'triangle' is unknown; choose from 'constant'"),
        ({"runs": RUNS.assign(warmup=[0, 0, 0, 0, -0.1])}, "warmup: -0.1; a share of the steps"),
        ({"runs": RUNS.assign(warmup="long")}, "warmup: long; a share of the steps"),
        ({"runs": RUNS.assign(decay_schedule="none")}, "decay_schedule: 'none' is unknown; choose from 'torch'"),
        ({"steps": 0}, "steps: 0; a positive whole number"),
        ({"batch_size": 0}, "batch_size: 0; None, for the whole"),
        ({"batch_size": 61}, "batch_size: 61; None, for the whole training set of 60 examples, or a positive whole"),
        ({"batch_size": 2.0}, "batch_size: 2.0; None"),
        ({"record": (0, 99)}, r"record: \(0, 99\); whole numbers from 0 to steps=5"),
        ({"record": (0.5,)}, r"record: \(0.5,\); whole numbers"),
        ({"record": (-1, 2)}, r"record: \(-1, 2\); whole numbers"),
        ({"record": (np.nan,)}, r"record: \(nan,\); whole numbers"),
        ({"record": ()}, r"record: \(\); whole numbers"),
        ({"record": 3}, "record: 3; whole numbers"),
        ({"record": "end"}, "record: end; whole numbers"),
        ({"runs": RUNS.assign(seed=0.5)}, "runs: seed 0.5; a whole number of 0 or more is needed"),
        ({"runs": RUNS.assign(seed=-1)}, "runs: seed -1; a whole number of 0 or more is needed"),
        ({"evaluate": ("holdout",)}, "no split 'holdout'; it has"),
        ({"evaluate": "train"}, r"evaluate: 'train'; a sequence of names, such as \('train',\)"),
        ({"measure": lambda s: {"weight norm": torch.ones(5)}}, "measure: it gives 'weight norm', which is recorded"),
        ({"measure": lambda s: {"m": torch.ones(())}}, r"measure\['m'\]: shape \(\) for \d replicas; one value each"),
        ({"task": replace(task(), loss=lambda o, y: o.mean())}, r"task.loss: shape \(\) for \d replicas"),
        ({"task": Task("t", MLP, lambda seed: digits_splits(0, train=60 + seed))}, r"'train' has inputs \(61, 64\)"),
        ({"task": Task("t", MLP, lambda seed: dict.fromkeys(EMPTY, EMPTY["train"]))}, "a target for each input"),
        ({"task": Task("t", lambda: MLP().to("meta"), task().data)}, "it makes layers.0.weight on meta; make it on"),
        ({"task": Task("t", MLP(), task().data)}, "task.model: MLP, made already; what makes one is needed"),
        ({"task": Task("t", lambda: "MLP", task().data)}, "task.model: it makes something of type str; a torch.nn.Mod"),
        ({"task": task(Stateful)}, "keeps buffers"),
        ({"task": task(lambda: MLP().requires_grad_(False))}, "task.model: none of its parameters asks for a gradient"),
        ({"task": replace(task(), loss=lambda o, y: o.detach().mean((1, 2)))}, "task.loss: it hangs on no parameter"),
        ({"chunk_size": 0}, "chunk_size: 0; a positive whole number"),
        ({"chunk_size": 2.5}, "chunk_size: 2.5; a positive whole number"),
        ({"steps": 2.5}, "steps: 2.5; a positive whole number"),
    ],
)
def test_bad_input_names_the_argument(change, message):
    arguments = {
        "task": task(),
        "runs": RUNS,
        "steps": 5,
        "batch_size": 16,
        "device": "cpu",
        **change,
    }
    with pytest.raises(ValueError, match=message):
        train(arguments.pop("task"), arguments.pop("runs"), **arguments)
