"""The chapters' scenarios: their grids, and their measurements on tables and gradients whose answer is known."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from adamw_book.ensemble import batch_order, initial_parameters
from adamw_book.evidence import grid
from adamw_book.ledger import PROBE
from adamw_book.models import CNN, MLP, RNN
from adamw_book.scenarios import decoupled_weight_decay as decay_map
from adamw_book.scenarios import overfitting

INDEPENDENT = decay_map.INDEPENDENT


@pytest.mark.parametrize("scenario", [decay_map, overfitting], ids=["decoupled_weight_decay", "overfitting"])
def test_the_probe_runs_on_the_cpu_and_holds_what_a_record_needs(scenario, monkeypatch):
    train, devices = scenario.train, set()

    def watched(*arguments, device=None, **options):
        devices.add(device)
        return train(*arguments, device=device, **options)

    monkeypatch.setattr(scenario, "train", watched)
    probe = scenario.probe()
    assert devices == {"cpu"}  # even where there is a GPU
    assert list(probe.columns) == PROBE and np.isfinite(probe[["value", "atol", "rtol"]]).all().all()
    assert not probe.duplicated(["run", "step", "metric"]).any()
    assert {1, 20} < set(probe["step"]) and {"train loss", "weight norm"} < set(probe["metric"])
    arms = {run.split(", seed")[0].split(", MLP")[0] for run in probe["run"]}
    assert {"AdamW", "Adam + L2"} < arms
    assert json.loads(json.dumps(scenario.STUDY.settings)) == scenario.STUDY.settings


# ---- decoupled weight decay: the map


def test_decades():
    assert decay_map.decades(-3, -1.5) == [0.001, 0.00178, 0.00316, 0.00562, 0.01, 0.0178, 0.0316]
    assert decay_map.decades(-2, 0, 1) == [0.01, 0.1, 1.0]


SMALL = {
    "lr": [0.01, 0.1],
    "weight_decay": [0.3, 1.0],
    "l2": [1e-4, 1e-3],
    "decay_per_step": [1e-3, 1e-2],
    "steps": 2,
    "batch_size": 50,
}


def test_the_map_holds_every_pair_of_each_arm():
    runs = decay_map.map_runs([0, 5, 6], SMALL)
    assert len(runs) == 3 * 4 * 3 and not runs.duplicated(["arm", "lr", "decay", "seed"]).any()
    arms = dict(list(runs.groupby("arm")))
    assert set(arms) == {"AdamW", "Adam + L2", INDEPENDENT}
    for arm, column in (("AdamW", "weight_decay"), ("Adam + L2", "l2"), (INDEPENDENT, "decay_per_step")):
        assert set(zip(arms[arm]["lr"], arms[arm]["decay"], strict=True)) == set(
            itertools.product(SMALL["lr"], SMALL[column])
        )
    assert (arms["AdamW"]["weight_decay"] == arms["AdamW"]["decay"]).all() and not arms["AdamW"]["l2"].any()
    assert (arms["Adam + L2"]["l2"] == arms["Adam + L2"]["decay"]).all() and not arms["Adam + L2"]["weight_decay"].any()


def test_independent_decay_is_lambda_prime_over_lr():
    runs = decay_map.map_runs([0], SMALL)
    own = runs[runs["arm"] == INDEPENDENT].set_index(["lr", "decay"])["weight_decay"]
    np.testing.assert_allclose(own[0.01, 1e-3], 0.1)
    np.testing.assert_allclose(own[0.1, 1e-2], 0.1)
    np.testing.assert_allclose(own[0.01, 1e-2], 1.0)


def test_independent_decay_is_trained_as_torchs_form_under_another_name():
    """λ′ = ηλ: the two arms' runs coincide where their numbers do."""
    runs = decay_map.map_runs([0], SMALL | {"lr": [0.01], "decay_per_step": [0.003, 0.01]})
    table = decay_map.train_map(runs, evaluate=("train",), progress=False, settings=SMALL)
    table = table[(table["metric"] == "train loss") & (table["step"] == SMALL["steps"])]
    values = table.set_index(["arm", "decay"])["value"]
    assert values[INDEPENDENT, 0.003] == pytest.approx(values["AdamW", 0.3], rel=1e-6)
    assert values[INDEPENDENT, 0.01] == pytest.approx(values["AdamW", 1.0], rel=1e-6)
    assert values["AdamW", 1.0] != pytest.approx(values["AdamW", 0.3], rel=1e-6)


def test_the_grids_of_the_map_are_of_one_size():
    assert len({len(decay_map.SETTINGS[name]) for name in ("weight_decay", "l2", "decay_per_step")}) == 1
    assert not set(decay_map.SETTINGS["tuning_seeds"]) & set(decay_map.SETTINGS["evaluation_seeds"])


def measured(rows, metric="validation accuracy", step=600):
    """A table from (arm, lr, decay, seed, value)."""
    return pd.DataFrame(rows, columns=["arm", "lr", "decay", "seed", "value"]).assign(metric=metric, step=step)


def test_best_decay_is_the_best_mean_over_seeds():
    values = {0.1: (0.95, 0.10), 1.0: (0.60, 0.70), 10.0: (0.20, 0.90)}  # each seed alone would choose another one
    rows = [("AdamW", 0.01, decay, seed, v) for decay, by_seed in values.items() for seed, v in enumerate(by_seed)]
    rows += [("Adam + L2", 0.01, decay, 0, v) for decay, v in ((0.1, 0.5), (1.0, 0.4), (10.0, 0.3))]
    distraction = measured([("AdamW", 0.01, 10.0, 0, 99.0)], metric="train accuracy")
    best = decay_map.best_decay(pd.concat([measured(rows), distraction])).set_index("arm")
    assert best["decay"].to_dict() == {"AdamW": 1.0, "Adam + L2": 0.1}
    assert best["score"].to_dict() == {"AdamW": pytest.approx(0.65), "Adam + L2": 0.5}
    assert best["edge"].to_dict() == {"AdamW": False, "Adam + L2": True}


def ridge(slope: float) -> pd.DataFrame:
    """A map whose best decay is proportional to lr ** slope."""
    lrs, decays = [1e-3, 1e-2, 1e-1], decay_map.decades(-3, 5, 2)
    rows = [
        ("AdamW", lr, d, seed, -abs(np.log10(d) - slope * np.log10(lr) - 1) + 0.1 * seed)
        for lr in lrs
        for d in decays
        for seed in (0, 1)
    ]
    return measured(rows)


@pytest.mark.parametrize("slope", [-1.0, -0.5, 0.0, 0.5])
def test_slopes_and_the_relabelling_identity(slope):
    table = ridge(slope)
    found = decay_map.slopes(decay_map.best_decay(table))["AdamW"]
    assert found == pytest.approx(slope, abs=0.01)
    relabelled = table.assign(decay=table["decay"] * table["lr"])
    again = decay_map.slopes(decay_map.best_decay(relabelled))["AdamW"]
    assert again - found == pytest.approx(1, abs=1e-9)


BEST = pd.DataFrame(
    [("AdamW", 0.01, 1.0), ("AdamW", 0.1, 3.0), ("Adam + L2", 0.01, 1e-3), ("Adam + L2", 0.1, 1e-2)],
    columns=["arm", "lr", "decay"],
)


def test_transfer_change_of_a_table_worked_by_hand():
    rows = [
        # AdamW: loses 0.10 at η = 0.01 and 0.30 at η = 0.1 under seed 7; 0.02 and 0.04 under seed 8
        *[("AdamW", 0.01, 1.0, 7, 0.90), ("AdamW", 0.01, 3.0, 7, 0.80)],
        *[("AdamW", 0.1, 3.0, 7, 0.70), ("AdamW", 0.1, 1.0, 7, 0.40)],
        *[("AdamW", 0.01, 1.0, 8, 0.82), ("AdamW", 0.01, 3.0, 8, 0.80)],
        *[("AdamW", 0.1, 3.0, 8, 0.74), ("AdamW", 0.1, 1.0, 8, 0.70)],
        # Adam + L2: the decay of the other learning rate happens to be better once
        *[("Adam + L2", 0.01, 1e-3, 7, 0.60), ("Adam + L2", 0.01, 1e-2, 7, 0.70)],
        *[("Adam + L2", 0.1, 1e-2, 7, 0.80), ("Adam + L2", 0.1, 1e-3, 7, 0.76)],
    ]
    change = decay_map.transfer_change(measured(rows, "test accuracy"), BEST)
    assert list(change.columns) == ["arm", "seed", "step", "metric", "value"]
    assert set(change["metric"]) == {decay_map.SEPARABILITY.metric} and set(change["step"]) == {600}
    values = change.set_index(["arm", "seed"])["value"]
    assert values.to_dict() == {
        ("AdamW", 7): pytest.approx(-0.20),
        ("AdamW", 8): pytest.approx(-0.03),
        ("Adam + L2", 7): pytest.approx(0.03),
    }


def test_transfer_change_counts_every_ordered_pair_once():
    best = pd.DataFrame({"arm": "AdamW", "lr": [1.0, 2.0, 3.0], "decay": [10.0, 20.0, 30.0]})
    rows = [("AdamW", lr, d, 0, -((d / 10 - lr) ** 2)) for lr in best["lr"] for d in best["decay"]]
    (value,) = decay_map.transfer_change(measured(rows, "test accuracy"), best)["value"]
    assert value == pytest.approx(-(1 + 4 + 1 + 1 + 4 + 1) / 6)


def test_transfer_runs_are_each_best_decay_at_each_learning_rate():
    best = pd.concat(
        [
            BEST,
            pd.DataFrame({"arm": INDEPENDENT, "lr": [0.01, 0.1, 1.0], "decay": [1e-2, 1e-2, 1e-3]}),
        ]
    )
    runs = decay_map.transfer_runs(best, [100, 101])
    assert runs.groupby("arm").size().to_dict() == {"AdamW": 8, "Adam + L2": 8, INDEPENDENT: 3 * 2 * 2}
    assert not runs.duplicated(["arm", "lr", "decay", "seed"]).any()
    by_arm = dict(list(runs.groupby("arm")))
    assert (by_arm["AdamW"]["weight_decay"] == by_arm["AdamW"]["decay"]).all() and not by_arm["AdamW"]["l2"].any()
    assert (by_arm["Adam + L2"]["l2"] == by_arm["Adam + L2"]["decay"]).all()
    assert not by_arm["Adam + L2"]["weight_decay"].any() and not by_arm[INDEPENDENT]["l2"].any()
    np.testing.assert_allclose(
        by_arm[INDEPENDENT]["weight_decay"] * by_arm[INDEPENDENT]["lr"], by_arm[INDEPENDENT]["decay"]
    )
    # and they are the runs that the transfer asks for
    table = runs.assign(metric="test accuracy", step=600, value=0.5)
    assert (decay_map.transfer_change(table, best)["value"] == 0).all()


def test_a_smaller_loss_of_the_decoupled_form_is_a_positive_effect():
    values = {"AdamW": -0.01, INDEPENDENT: -0.05, "Adam + L2": -0.03}
    rows = [
        {"arm": arm, "seed": seed, "step": 600, "metric": decay_map.SEPARABILITY.metric, "value": value}
        for arm, value in values.items()
        for seed in range(6)
    ]
    torch_form, paper_form = decay_map.separability_effects(pd.DataFrame(rows)).values()
    assert torch_form.mean == pytest.approx(0.02) and paper_form.mean == pytest.approx(-0.02)


def test_a_null_coordinate_answers_to_lambda_and_not_to_l():
    response = decay_map.null_coordinate_response(range(4))
    assert len(response) == 8 and set(response["metric"]) == {decay_map.UNCONDITIONAL.metric}
    by_arm = response.groupby("arm")["value"]
    np.testing.assert_allclose(by_arm.get_group("AdamW"), 1.0, atol=1e-3)
    np.testing.assert_allclose(by_arm.get_group("Adam + L2"), 0.0, atol=1e-5)


# ---- overfitting: the conditions


def test_conditions_are_every_model_with_clean_and_with_wrong_labels():
    assert len(overfitting.CONDITIONS) == 2 * len(overfitting.MODELS) == 18
    assert overfitting.CONDITIONS[overfitting.condition("CNN", "clean labels")] == ("CNN", "clean labels")
    assert overfitting.condition("CNN", "clean labels") == "CNN · clean labels"


@pytest.mark.parametrize(
    ("name", "kind", "norm"),
    [
        ("MLP, 8 hidden layers · clean labels", MLP, False),
        ("MLP, 4 hidden layers, LayerNorm · 20% wrong labels", MLP, True),
        ("CNN, GroupNorm · clean labels", CNN, True),
        ("RNN over image rows · clean labels", RNN, False),
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


@pytest.mark.parametrize("settings", [overfitting.SETTINGS, overfitting.GROKKING], ids=["conditions", "grokking"])
def test_the_arms_have_grids_of_one_size(settings):
    arms = overfitting.arms(settings)
    assert set(arms) == {"AdamW", "Adam + L2", "Adam"}
    runs = grid(arms, [0])  # refuses unequal budgets
    assert runs.groupby("arm").size().nunique() == 1
    assert not set(settings["tuning_seeds"]) & set(settings["evaluation_seeds"])


def test_a_condition_is_trained_with_its_settings_unless_told_otherwise():
    name = "MLP, 1 hidden layer · 20% wrong labels"
    runs = grid({"Adam": {"lr": [0.001]}}, [0])
    table = overfitting.train_condition(name, runs, ("train",), progress=False, steps=2)
    assert set(table["condition"]) == {name} and set(table["step"]) == {2}
    table = overfitting.train_condition(name, runs, (), progress=False)
    assert set(table["step"]) == {overfitting.SETTINGS["steps"]}


def test_winners_are_retrained_on_fresh_seeds_of_their_own_condition(monkeypatch):
    asked = []

    def train_condition(name, runs, evaluate, progress):
        asked.append((name, runs, evaluate))
        return pd.concat(
            runs.assign(metric=m, step=500, value=0.5) for m in ("test accuracy", "test loss", "weight norm")
        )

    monkeypatch.setattr(overfitting, "train_condition", train_condition)
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
    pulls = overfitting.measure_pull("CNN", [203, 201])
    assert set(pulls["model"]) == {"CNN"} and pulls["seed"].unique().tolist() == [203, 201]
    assert np.isfinite(pulls["pull"]).all() and set(pulls["bin"]) == set(range(12))


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
    # the same halves after a silence that v has forgotten: the sparing is over
    later = overfitting.just_silenced([3], before=100, after=6000, sd=(0.03, 0.03)).set_index("arm")["value"]
    assert later["Adam + L2"] > 1


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
    table = overfitting.train_grokking(runs, record=[0, 3], progress=False)
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
