"""The engine: every row of an ensemble is the run that plain torch would have made, whatever stands beside it."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from adamw_book import ensemble, replicas
from adamw_book.data import digits_splits
from adamw_book.ensemble import Task, batch_order, initial_parameters, train
from adamw_book.models import CNN, MLP, RNN
from adamw_book.schedules import SCHEDULES, learning_rate_factors

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
    return Task("digits", model, lambda seed: digits_splits(seed, train=60, validation=40, **options))


def values(result, metric: str, step: int) -> np.ndarray:
    table = result.table
    return table[(table["metric"] == metric) & (table["step"] == step)]["value"].to_numpy()


def solo(task: Task, run, steps: int, batch_size: int | None, schedule: str = "constant") -> nn.Module:
    """One run as anybody would write it, with torch's own optimizers."""
    model = task.model()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(initial_parameters(task.model, [run.seed])[name][0])
    if run.l2:
        optimizer = torch.optim.Adam(model.parameters(), lr=run.lr, weight_decay=run.l2)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=run.lr, weight_decay=run.weight_decay)
    factors = learning_rate_factors(schedule, steps)
    x, y = task.data(run.seed)["train"]
    order = batch_order(run.seed, len(x), batch_size, steps) if batch_size else [slice(None)] * steps
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = run.lr * factors[step]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[order[step]]), y[order[step]]).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch_size", [16, None])
def test_every_row_equals_its_solo_run_with_torch(name, batch_size):
    t = task(MODELS[name])
    result = train(t, RUNS, steps=12, batch_size=batch_size, keep_parameters=True, progress=False, device="cpu")
    for i, run in enumerate(RUNS.itertuples()):
        for parameter, expected in solo(t, run, 12, batch_size).named_parameters():
            torch.testing.assert_close(
                result.parameters[parameter][i],
                expected.detach(),
                rtol=1e-5,
                atol=1e-6,
                msg=lambda m, p=parameter: f"{p}: {m}",
            )


@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_schedules_are_per_replica(schedule):
    t = task()
    runs = RUNS.assign(schedule=["constant", schedule, schedule, "cosine", "constant"])
    result = train(t, runs, steps=20, batch_size=16, keep_parameters=True, progress=False, device="cpu")
    for i, run in enumerate(runs.itertuples()):
        expected = dict(solo(t, run, 20, 16, run.schedule).named_parameters())
        for parameter, stack in result.parameters.items():
            torch.testing.assert_close(stack[i], expected[parameter].detach(), rtol=1e-5, atol=1e-6)


def test_schedule_shapes():
    for name in SCHEDULES:
        factors = learning_rate_factors(name, 100)
        assert factors.shape == (100,) and (factors > 0).all() and factors.max() <= 1
    assert learning_rate_factors("cosine", 100)[-1] < 1e-3
    assert learning_rate_factors("warm-up + cosine", 100)[:10].tolist() == sorted(
        learning_rate_factors("warm-up + cosine", 100)[:10]
    )
    assert (learning_rate_factors("WSD", 100)[10:80] == 1).all()


def test_a_run_is_the_same_alone_and_in_any_chunk():
    t = task()
    together = train(t, RUNS, steps=30, batch_size=16, keep_parameters=True, progress=False, device="cpu")
    in_twos = train(t, RUNS, steps=30, batch_size=16, keep_parameters=True, chunk_size=2, progress=False, device="cpu")
    for i in range(len(RUNS)):
        alone = train(t, RUNS.iloc[[i]], steps=30, batch_size=16, keep_parameters=True, progress=False, device="cpu")
        for name in together.parameters:
            torch.testing.assert_close(alone.parameters[name][0], together.parameters[name][i], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(in_twos.parameters[name][i], together.parameters[name][i], rtol=1e-5, atol=1e-6)


def test_chunks_side_by_side_give_what_one_after_the_other_gives():
    t = task()
    options = {"steps": 20, "batch_size": 16, "chunk_size": 2, "keep_parameters": True, "progress": False}
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
    pd.testing.assert_frame_equal(one.table, three.table, rtol=1e-4)
    for name in one.parameters:
        torch.testing.assert_close(one.parameters[name], three.parameters[name], rtol=1e-5, atol=1e-6)


def test_arms_are_paired_by_seed():
    t = task()
    twins = pd.concat([RUNS.iloc[[0]], RUNS.iloc[[0]].assign(arm="Adam", weight_decay=0.0)], ignore_index=True)
    result = train(t, twins, steps=1, batch_size=16, record=(0, 1), progress=False, device="cpu")
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


def test_initial_weights_leave_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    initial_parameters(MLP, [0, 1])
    assert torch.equal(torch.rand(3), expected)


def test_recorded_trajectory_and_measure():
    seen = []

    def measure(snapshot):
        seen.append((snapshot.step, snapshot.parameters["layers.0.weight"].shape, set(snapshot.exp_avg_sq)))
        return {
            "largest weight": torch.stack([p.abs().flatten(1).amax(1) for p in snapshot.parameters.values()]).amax(0)
        }

    result = train(
        task(), RUNS, steps=10, batch_size=16, record=(0, 5, 10), measure=measure, progress=False, device="cpu"
    )
    table = result.table
    assert list(table.columns[:5]) == list(RUNS.columns) and set(table["step"]) == {0, 5, 10}
    wanted = {"train loss", "train accuracy", "validation loss", "validation accuracy", "weight norm", "largest weight"}
    assert set(table["metric"]) == wanted and len(table) == 3 * len(wanted) * len(RUNS)
    assert [s for s, _, _ in seen] == [0, 5, 10] and seen[0][1] == (5, 32, 64)
    last = train(task(), RUNS, steps=10, batch_size=16, keep_parameters=True, progress=False, device="cpu")
    norm = torch.cat([p.flatten(1) for p in last.parameters.values()], 1).norm(dim=1)
    np.testing.assert_allclose(values(result, "weight norm", 10), norm, rtol=1e-5)


def test_metrics_are_those_of_each_model_alone():
    t = task()
    result = train(
        t, RUNS, steps=40, batch_size=16, evaluate=("test",), keep_parameters=True, progress=False, device="cpu"
    )
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
    logits = torch.tensor([[[0.0, 1.0]], [[float("nan"), 1.0]]])
    assert ensemble.accuracy(logits, torch.tensor([[1], [1]])).tolist() == [1.0, 0.0]


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
        progress=False,
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
        torch.testing.assert_close(kept.parameters[name][0], p.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("runs", "cores", "chunks"), [(900, 2, 4), (72, 2, 2), (1, 2, 1), (3, 2, 2), (600, 1, 3), (7, 4, 4)]
)
def test_the_cores_share_the_runs_evenly(runs, cores, chunks, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    table = pd.DataFrame({"seed": range(runs)})
    splits = {0: digits_splits(0, train=60, validation=40)}
    size = ensemble._fitting_chunk(task(), MLP(), table, splits, 16, torch.device("cpu"))
    assert size <= 256 and -(-runs // size) == chunks and chunks * size - runs < chunks


def test_short_memory_halves_the_chunk(monkeypatch):
    real, sizes = replicas.initial_parameters, []

    def short(model, seeds):
        sizes.append(len(seeds))
        if len(seeds) > 2:
            raise torch.OutOfMemoryError("full")
        return real(model, seeds)

    t = task()
    expected = train(t, RUNS, steps=5, batch_size=16, progress=False, device="cpu").table
    monkeypatch.setattr(replicas, "initial_parameters", short)
    got = train(t, RUNS, steps=5, batch_size=16, progress=False, device="cpu").table
    assert sizes == [5, 2, 2, 1]
    order = ["seed", "arm", "metric"]
    np.testing.assert_allclose(got.sort_values(order)["value"], expected.sort_values(order)["value"], rtol=1e-5)


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 10), nn.BatchNorm1d(10))

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": RUNS.drop(columns="l2")}, "runs: no column 'l2'"),
        ({"runs": RUNS.iloc[:0]}, "runs: the table is empty"),
        ({"runs": RUNS.assign(lr=np.nan)}, "found a missing one"),
        ({"runs": RUNS.assign(schedule="linear")}, "schedule: 'linear' is unknown; choose from 'constant'"),
        ({"steps": 0}, "steps: 0; a positive whole number"),
        ({"batch_size": 0}, "batch_size: 0; a positive whole number"),
        ({"batch_size": 61}, "batch_size: 61; the training set has 60"),
        ({"record": (0, 99)}, r"record: \[0, 99\]; whole numbers from 0 to steps=5"),
        ({"record": (0.5,)}, r"record: \[0.5\]; whole numbers"),
        ({"runs": RUNS.assign(seed=0.5)}, "runs: the seed 0.5; whole numbers are needed"),
        ({"evaluate": ("holdout",)}, "no split 'holdout'; it has"),
        ({"task": task(Stateful)}, "keeps buffers"),
        ({"chunk_size": 0}, "chunk_size: 0; a positive whole number"),
    ],
)
def test_bad_input_names_the_argument(change, message):
    arguments = {
        "task": task(),
        "runs": RUNS,
        "steps": 5,
        "batch_size": 16,
        "progress": False,
        "device": "cpu",
        **change,
    }
    with pytest.raises(ValueError, match=message):
        train(arguments.pop("task"), arguments.pop("runs"), **arguments)
