"""Generalization · overfitting: its grids, and its measurements on gradients whose answer is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from adamw_book.ensemble import batch_order, initial_parameters, train
from adamw_book.evidence import grid, three_arms
from adamw_book.models import CNN, MLP, RNN
from adamw_book.scenarios import overfitting
from adamw_book.scenarios.overfitting import conditions, pull

# ---- overfitting: the conditions


def test_conditions_are_every_model_with_clean_and_with_wrong_labels():
    assert len(overfitting.CONDITIONS) == 2 * len(overfitting.MODELS) == 20
    assert overfitting.CONDITIONS[overfitting.condition("CNN", "clean labels")] == ("CNN", "clean labels")
    assert overfitting.condition("CNN", "clean labels") == "CNN · clean labels"


@pytest.mark.parametrize(
    ("name", "kind", "norm"),
    [
        ("MLP, 8 hidden layers · clean labels", MLP, False),
        ("MLP, 4 hidden layers, LayerNorm · 20% wrong labels", MLP, True),
        ("CNN, GroupNorm · clean labels", CNN, True),
        ("RNN over image rows · clean labels", RNN, False),
        ("RNN over image rows, LayerNorm · clean labels", RNN, True),
    ],
)
def test_a_task_is_what_its_name_says(name, kind, norm):
    task = overfitting.task(name)
    model = task.model()
    assert isinstance(model, kind) and task.name == name
    assert norm == any(isinstance(m, torch.nn.LayerNorm | torch.nn.GroupNorm) for m in model.modules())
    if kind is MLP:
        assert len(model.layers) - 1 == int(name.split()[1])


def test_only_training_labels_are_wrong():
    clean, noisy = (overfitting.task(f"CNN · {labels}").data(3) for labels in overfitting.LABEL_NOISE)
    assert (clean["train"][1] != noisy["train"][1]).sum() == 0.2 * overfitting.SETTINGS["train"]
    assert torch.equal(clean["train"][0], noisy["train"][0])
    assert all(torch.equal(clean[split][1], noisy[split][1]) for split in ("validation", "test"))


def test_an_unknown_condition_is_named_with_what_there_is():
    with pytest.raises(ValueError, match="name: 'Transformer · clean labels' is no condition; .* 'CNN · clean labels'"):
        overfitting.task("Transformer · clean labels")


@pytest.mark.parametrize("name", overfitting.CONDITIONS)
def test_the_arms_of_a_condition_have_grids_of_one_size(name):
    settings = overfitting.SETTINGS
    runs = overfitting.tuning_runs(name)  # refuses unequal budgets
    configurations = runs.drop(columns="seed").drop_duplicates().groupby("arm").size()
    assert configurations.to_dict() == {"AdamW": 30, "Adam + L2": 30, "Adam": 30}
    assert (runs["lr"] * runs["weight_decay"]).max() < 1
    assert set(runs["seed"]) == set(settings["tuning_seeds"])
    assert not set(settings["tuning_seeds"]) & set(settings["evaluation_seeds"])


def test_the_arms_of_the_showcase_have_grids_of_one_size():
    settings = overfitting.GROKKING
    runs = grid(three_arms(settings, settings["lr_adam"]), [0])
    assert runs.groupby("arm").size().to_dict() == {"AdamW": 12, "Adam + L2": 12, "Adam": 12}
    assert not set(settings["tuning_seeds"]) & set(settings["evaluation_seeds"])


def test_a_condition_is_trained_with_its_settings_unless_told_otherwise(monkeypatch):
    schedules = []

    def watched(task, runs, **options):
        schedules.append(set(runs["schedule"]))
        return train(task, runs, **options)

    monkeypatch.setattr(conditions, "train", watched)
    name = "MLP, 1 hidden layer · 20% wrong labels"
    runs = grid({"Adam": {"lr": [0.001]}}, [0])
    table = overfitting.train_condition(name, runs, ("train",), steps=2)
    assert set(table["condition"]) == {name} and set(table["step"]) == {2}
    table = overfitting.train_condition(name, runs, ())
    assert set(table["step"]) == {overfitting.SETTINGS["steps"]} and schedules == [{"cosine"}] * 2


def test_winners_are_retrained_on_fresh_seeds_of_their_own_condition(monkeypatch):
    asked = []

    def train_condition(name, runs, evaluate):
        asked.append((name, runs, evaluate))
        return pd.concat(
            runs.assign(metric=m, step=500, value=0.5) for m in ("test accuracy", "test loss", "weight norm")
        )

    monkeypatch.setattr(conditions, "train_condition", train_condition)
    winners = pd.DataFrame(
        [("CNN · clean labels", 0.1), ("RNN over image rows · clean labels", 0.7)],
        columns=["condition", "weight_decay"],
    ).assign(arm="AdamW", lr=0.001, l2=0.0, score=0.9, n_seeds=10, edge="")
    table = overfitting.evaluate_winners("CNN · clean labels", winners)
    ((name, runs, evaluate),) = asked
    assert name == "CNN · clean labels" and set(runs["weight_decay"]) == {0.1} and evaluate == ("train", "test")
    assert runs["seed"].tolist() == overfitting.SETTINGS["evaluation_seeds"]
    assert set(table["metric"]) == {"test accuracy", "weight norm"}
    with pytest.raises(ValueError, match="seeds 3 were used for tuning"):
        overfitting.evaluate_winners("CNN · clean labels", winners, seeds=[3, 200])


# ---- overfitting: which coordinates does the penalty hit?


def test_recorded_gradients_are_those_that_the_training_met():
    task = overfitting.task("MLP, 1 hidden layer · 20% wrong labels")
    start, gradients = overfitting.record_gradients(task, [4, 9], steps=3, lr=0.01, batch_size=20)
    shapes = {name: tuple(p.shape) for name, p in task.model().named_parameters()}
    assert {name: tuple(w.shape) for name, w in start.items()} == {name: (2, *s) for name, s in shapes.items()}
    assert {name: tuple(g.shape) for name, g in gradients.items()} == {name: (3, 2, *s) for name, s in shapes.items()}
    model, (x, y) = task.model(), task.data(9)["train"]
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(initial_parameters(task.model, [9])[name][0])
            assert torch.equal(p, start[name][1])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step, batch in enumerate(batch_order(9, len(x), 20, 3)):
        optimizer.zero_grad()
        functional.cross_entropy(model(x[batch]), y[batch]).backward()
        for name, p in model.named_parameters():
            torch.testing.assert_close(gradients[name][step, 1], p.grad, rtol=1e-4, atol=1e-6)
        optimizer.step()


HYPER = {"lr": 1e-3, "weight_decay": 0.5, "l2": 1e-4}
STEPS = 300


def played(sizes: torch.Tensor, bins: int = 4) -> pd.DataFrame:
    """`pull_by_gradient` on noise gradients whose standard deviations are `sizes` (R, n), of a weight and a bias."""
    rng = torch.Generator().manual_seed(0)
    replicas, n = sizes.shape
    start = {"weight": torch.randn(replicas, n // 10, 10, generator=rng), "bias": torch.full((replicas, 9), 1e6)}
    draws = torch.randn(STEPS, replicas, n, generator=rng) * sizes
    gradients = {"weight": draws.unflatten(2, (n // 10, 10)), "bias": torch.full((STEPS, replicas, 9), 1e6)}
    return overfitting.pull_by_gradient(start, gradients, **HYPER, bins=bins)


def test_adamw_pulls_on_every_coordinate_alike_and_l2_on_the_weak_ones_most():
    sizes = torch.tensor([0.001, 0.01, 0.1, 1.0]).repeat_interleave(400)
    shuffled = torch.stack([sizes[torch.randperm(1600, generator=torch.Generator().manual_seed(i))] for i in range(3)])
    pulls = played(shuffled)
    assert list(pulls.columns) == ["arm", "seed", "bin", "gradient", "pull"] and len(pulls) == 2 * 3 * 4
    np.testing.assert_allclose(pulls.groupby("bin")["gradient"].mean(), [0.001, 0.01, 0.1, 1.0], rtol=0.01)
    adamw, l2 = (
        pulls[pulls["arm"] == arm].pivot(index="seed", columns="bin", values="pull") for arm in ("AdamW", "Adam + L2")
    )
    np.testing.assert_allclose(adamw, 1 - (1 - HYPER["lr"] * HYPER["weight_decay"]) ** STEPS, rtol=0.03)
    # ℓ|w| is small beside σ, so a coordinate loses the share ηℓ/σ a step
    expected = 1 - np.exp(-HYPER["lr"] * HYPER["l2"] * STEPS / np.array([0.001, 0.01, 0.1, 1.0]))
    np.testing.assert_allclose(l2.mean(), expected, rtol=0.2)
    assert (l2.diff(axis=1).iloc[:, 1:] < 0).all().all()


def test_adamws_pull_on_silent_coordinates_is_exact():
    pulls = played(torch.zeros(2, 80))
    adamw = pulls.loc[pulls["arm"] == "AdamW", "pull"]
    np.testing.assert_allclose(adamw, 1 - (1 - HYPER["lr"] * HYPER["weight_decay"]) ** STEPS, rtol=1e-4)


def test_pulls_of_a_model_carry_its_seeds_and_its_name(monkeypatch):
    monkeypatch.setitem(overfitting.PULL, "steps", 4)
    asked = []

    def record_gradients(task, *rest):
        asked.append(task.name)
        return overfitting.record_gradients(task, *rest)

    monkeypatch.setattr(pull, "record_gradients", record_gradients)
    pulls = overfitting.measure_pull("CNN", iter([203, 201]))
    assert set(pulls["model"]) == {"CNN"} and pulls["seed"].unique().tolist() == [203, 201]
    assert np.isfinite(pulls["pull"]).all() and set(pulls["bin"]) == set(range(12))
    assert asked == ["CNN · 20% wrong labels"]


def test_weak_over_strong_compares_the_outer_quarters():
    weak, middle, strong = [0.4] * 3, [77.0] * 6, [0.1, 0.1, 0.1]
    rows = [
        {"arm": arm, "seed": seed, "bin": i, "gradient": 1.0, "pull": pull * scale}
        for arm, pulls in {"Adam + L2": weak + middle + strong, "AdamW": [0.2] * 12}.items()
        for seed, scale in ((7, 1.0), (8, 0.5))
        for i, pull in enumerate(pulls)
    ]
    values = overfitting.weak_over_strong(pd.DataFrame(rows))
    assert set(values["metric"]) == {overfitting.WEAK_GRADIENTS.metric}
    found = values.set_index(["arm", "seed"])["value"].to_dict()
    assert found == {
        ("Adam + L2", 7): pytest.approx(2.0),
        ("Adam + L2", 8): pytest.approx(2.0),
        ("AdamW", 7): pytest.approx(0.0, abs=1e-9),
        ("AdamW", 8): pytest.approx(0.0, abs=1e-9),
    }


def test_where_strong_gradients_have_just_stopped_l2_spares_and_adamw_does_not():
    values = overfitting.just_silenced([3, 4, 5]).set_index(["arm", "seed"])["value"]
    assert (values["AdamW"].abs() < 0.1).all() and (values["Adam + L2"] < -2).all()
    alone = overfitting.just_silenced(iter([4])).set_index(["arm", "seed"])["value"]
    assert alone["AdamW", 4] == pytest.approx(values["AdamW", 4], abs=1e-5)
    assert alone["Adam + L2", 4] == pytest.approx(values["Adam + L2", 4], abs=1e-5)  # the seed alone decides
    # the same halves after a silence that v has forgotten: the sparing is over
    later = overfitting.just_silenced([3], before=100, after=6000, sd=(0.03, 0.03)).set_index("arm")["value"]
    assert later["Adam + L2"] > 1


def test_only_what_was_taken_since_the_silence_counts(monkeypatch):
    """By hand: of what was left at the silence the silenced half loses a half and the steady one a fifth."""

    def drive(gradient, start, steps, **hyper):
        assert [bool(gradient(t, start)[:, :200].any()) for t in (3, 4)] == [True, False]  # silent after four steps
        assert all(gradient(t, start)[:, 200:].all() for t in range(steps))
        path = torch.ones(steps + 1, *start.shape)
        if "weight_decay" in hyper or "l2" in hyper:
            path[4, :, :200], path[4, :, 200:], path[-1] = 0.8, 0.5, 0.4
        return path

    monkeypatch.setattr(pull, "drive", drive)
    values = overfitting.just_silenced([1, 2], before=4, after=3)
    assert values["value"].tolist() == pytest.approx([np.log2(0.5 / 0.2)] * 4) and set(values["step"]) == {7}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: played(torch.ones(1, 20), bins=21), "bins: 21; a whole number from 1 to 20, the weights in start"),
        (lambda: played(torch.ones(1, 20), bins=2.5), "bins: 2.5; a whole number from 1 to 20"),
        (lambda: overfitting.pull_by_gradient({"b": torch.ones(1, 9)}, {"b": torch.ones(2, 1, 9)}, **HYPER),
         "bins: 12; a whole number from 1 to 0, .*biases left out"),
        (lambda: overfitting.weak_over_strong(PULLS[PULLS["bin"] < 3]), "pulls: 3 groups; at least four"),
        (lambda: overfitting.weak_over_strong(PULLS.assign(pull=PULLS["pull"].where(PULLS["bin"] > 0))),
         "pulls: 12 groups; at least four with finite pulls"),
        (lambda: overfitting.just_silenced([]), r"seeds, before, after, sd: \[\], .*; at least one seed"),
        (lambda: overfitting.just_silenced([3], after=0), "1000, 0, .* 0 and 1 steps"),
        (lambda: overfitting.just_silenced([3], sd=[1.0]), r"\[1.0\]; .* two finite standard deviations"),
        (lambda: overfitting.just_silenced([3], sd=[1.0, float("nan")]), r"\[1.0, nan\]; .* two finite"),
    ],
)  # fmt: skip
def test_what_has_no_pull_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


PULLS = pd.DataFrame({"arm": "AdamW", "seed": 0, "bin": range(12), "gradient": 1.0, "pull": 0.1})


def test_effects_are_positive_where_adamw_is_ahead(monkeypatch):
    ahead = {"AdamW": 0.7, "Adam + L2": 0.6, "Adam": 0.1}
    evaluation = pd.DataFrame(
        [(name, arm, seed, value + 0.01 * seed) for name in overfitting.CONDITIONS for arm, value in ahead.items()
         for seed in range(4)],
        columns=["condition", "arm", "seed", "value"],
    ).assign(metric="test accuracy", step=400)  # fmt: skip
    pulls = pd.concat([PULLS.assign(arm=arm, seed=seed, model="CNN", pull=np.where(PULLS["bin"] < 3, 0.4, 0.1) ** power)
                       for arm, power in (("AdamW", 1), ("Adam + L2", 0.5)) for seed in (0, 1)])  # fmt: skip
    silenced = pd.DataFrame({"arm": ["AdamW", "Adam + L2"] * 2, "seed": [0, 0, 1, 1], "value": [0.0, -3.0] * 2})
    silenced = silenced.assign(metric=overfitting.WEAK_GRADIENTS.metric, step=1)
    found = overfitting.STUDY.effects({"evaluation": evaluation, "pulls": pulls, "silenced": silenced})
    weak = found[overfitting.WEAK_GRADIENTS.id]
    assert [e.mean for e in weak.values()] == pytest.approx([1.0, 3.0]) and list(weak)[0] == "CNN"
    means = {name: e.mean for name, e in found[overfitting.GENERALIZATION.id].items()}
    assert means == dict.fromkeys(overfitting.CONDITIONS, pytest.approx(0.1))
    monkeypatch.setattr(conditions, "evaluate_winners", lambda name, *rest: evaluation[evaluation["condition"] == name])
    headline = {name: e.mean for name, e in overfitting.headline_conditions(None, [0]).items()}
    assert headline == dict.fromkeys(overfitting.HEADLINE, pytest.approx(0.1))


# ---- overfitting: the showcase


def test_the_showcase_is_addition_modulo_23():
    splits = overfitting.GROKKING_TASK.data(0)
    assert {name: len(x) for name, (x, _) in splits.items()} == {"train": 317, "validation": 106, "test": 106}
    for x, y in splits.values():
        a, b = x[:, :23].argmax(1), x[:, 23:].argmax(1)
        assert torch.equal(y, (a + b) % 23) and (x.sum(1) == 2).all()
    assert overfitting.GROKKING_TASK.model()(splits["test"][0]).shape == (106, 23)


def test_the_showcase_trains_on_the_whole_set_at_every_step(monkeypatch):
    monkeypatch.setitem(overfitting.GROKKING, "steps", 3)
    runs = grid({"AdamW": {"lr": [0.01], "weight_decay": [1.0]}}, [0])
    table = overfitting.train_grokking(runs, record=[0, 3])
    loss = table[table["metric"] == "train loss"].set_index("step")["value"]
    assert set(table["metric"]) > {"train accuracy", "test accuracy"} and loss[3] < loss[0]
    model, (x, y) = overfitting.GROKKING_TASK.model(), overfitting.GROKKING_TASK.data(0)["train"]
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(initial_parameters(overfitting.GROKKING_TASK.model, [0])[name][0])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert loss[3] == pytest.approx(functional.cross_entropy(model(x), y).item(), rel=1e-5)
