"""Foundations · decoupled weight decay: the map's grids and measurements, on tables whose answer is known."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from adamw_book.data import digits_splits
from adamw_book.ensemble import initial_parameters
from adamw_book.evidence import smoothed
from adamw_book.scenarios import decoupled_weight_decay as decay_map

INDEPENDENT = decay_map.INDEPENDENT.name


def test_decades():
    assert decay_map.decades(-3, -1.5) == [0.001, 0.00178, 0.00316, 0.00562, 0.01, 0.0178, 0.0316]
    assert decay_map.decades(-2, 0, 1) == [0.01, 0.1, 1.0]


@pytest.mark.parametrize("model", decay_map.MODELS)
def test_the_map_holds_every_pair_of_each_arm(model):
    runs = decay_map.map_runs(model, [0, 5, 6])
    assert len(runs) == 3 * 7 * 12 * 3 and not runs.duplicated(["arm", "lr", "decay", "seed"]).any()
    for arm, own in runs.groupby("arm"):
        pairs = itertools.product(decay_map.LR[model], decay_map.DECAYS[model][arm])
        assert set(zip(own["lr"], own["decay"], strict=True)) == set(pairs)
        lost = {"AdamW": own["weight_decay"], "Adam + L2": own["l2"], INDEPENDENT: own["weight_decay"] * own["lr"]}
        np.testing.assert_allclose(lost[arm], own["decay"])
        assert not own["weight_decay" if arm == "Adam + L2" else "l2"].any()


def test_independent_decay_is_trained_as_torchs_form_under_another_name(monkeypatch):
    """λ′ = ηλ: the two arms' runs coincide where their numbers do."""
    monkeypatch.setitem(decay_map.LR, "MLP", [0.01])
    monkeypatch.setitem(
        decay_map.DECAYS, "MLP", {"AdamW": [0.3, 1.0], "Adam + L2": [1e-3, 1e-2], INDEPENDENT: [3e-3, 1e-2]}
    )
    runs = decay_map.map_runs("MLP", [0])
    table = decay_map.CONDITIONS["MLP"].train(runs, ("train",), steps=2)
    values = table[table["metric"] == "train loss"].set_index(["arm", "decay"])["value"]
    assert values[INDEPENDENT, 0.003] == pytest.approx(values["AdamW", 0.3], rel=1e-6)
    assert values[INDEPENDENT, 0.01] == pytest.approx(values["AdamW", 1.0], rel=1e-6)
    assert values["AdamW", 1.0] != pytest.approx(values["AdamW", 0.3], rel=1e-6)


def test_decays_are_tuned_on_validation_data_and_judged_on_test_data_of_other_seeds(monkeypatch):
    asked = []

    def train_map(model, seeds, split):
        asked.append((model, seeds, split))
        return pd.DataFrame({"condition": [model], "value": [0.5]})

    monkeypatch.setattr(decay_map, "train_map", train_map)
    own = dataclasses.replace(decay_map.PROTOCOL, claims={})
    own.run()
    tuning, tested = list(decay_map.TUNING_SEEDS), list(decay_map.EVALUATION_SEEDS)
    expected = [
        (m, seeds, split) for seeds, split in ((tuning, "validation"), (tested, "test")) for m in decay_map.MODELS
    ]
    assert asked == expected and not set(tuning) & set(tested)
    asked.clear()
    own.retuned([50, 51], [60, 61, 62])  # as `make stability` asks
    assert [(seeds, split) for _, seeds, split in asked[::2]] == [([50, 51], "validation"), ([60, 61, 62], "test")]


def test_a_map_is_the_accuracy_at_the_end(monkeypatch):
    monkeypatch.setattr(
        decay_map, "map_runs", lambda model, seeds: RUNS.merge(pd.DataFrame({"seed": seeds}), how="cross")
    )
    table = decay_map.train_map("MLP, LayerNorm", [3], "validation")
    assert set(table["metric"]) == {"validation accuracy"} and set(table["step"]) == {600}
    assert set(table["condition"]) == {"MLP, LayerNorm"} and table["value"].between(0.3, 1).all()


RUNS = pd.DataFrame({"arm": ["AdamW"], "lr": 0.01, "weight_decay": 1.0, "l2": 0.0, "decay": 1.0})


def test_a_fifth_of_the_training_labels_is_wrong_and_test_images_are_the_same_for_all():
    found, clean = decay_map.data(3), digits_splits(3, train=300, fixed_test=True)
    assert {name: int((y != clean[name][1]).sum()) for name, (_, y) in found.items()} == {
        "train": 60, "validation": 0, "test": 0,
    }  # fmt: skip
    assert torch.equal(found["test"][0], decay_map.data(4)["test"][0])


def table_of(value, arms=("AdamW", "Adam + L2"), lrs=(0.01, 0.1), decays=(0.1, 1.0, 10.0), tuning=8, tested=6):
    """A network's map whose validation and test accuracies are ``value(arm, lr, decay, seed, split)``."""
    rows = [
        (arm, lr, 0.0 if "L2" in arm else decay, decay if "L2" in arm else 0.0, decay, seed, f"{split} accuracy",
         value(arm, lr, decay, seed, split))
        for split, seeds in (("validation", range(tuning)), ("test", range(100, 100 + tested)))
        for arm, lr, decay, seed in itertools.product(arms, lrs, decays, seeds)
    ]  # fmt: skip
    columns = ["arm", "lr", "weight_decay", "l2", "decay", "seed", "metric", "value"]
    return pd.DataFrame(rows, columns=columns).assign(step=600, condition="MLP")


def ridge(slope):
    """Accuracies whose best decay is proportional to lr ** slope."""
    return lambda arm, lr, decay, seed, split: 0.1 * seed - abs(np.log10(decay) - slope * np.log10(lr) - 1)


@pytest.mark.parametrize("slope", [-1.0, -0.5, 0.0, 0.5])
def test_the_best_decay_of_each_learning_rate_and_the_slope_of_these(slope):
    table = table_of(ridge(slope), ("AdamW",), (1e-3, 1e-2, 1e-1), decay_map.decades(-3, 5, 2))
    best = decay_map.best_decay(table)
    np.testing.assert_allclose(best["decay"], 10 * best["lr"] ** slope, rtol=0.5)
    assert decay_map.slopes(best)["AdamW"] == pytest.approx(slope, abs=0.01)
    paper = table.assign(arm=INDEPENDENT)  # the same runs under the paper's name: decay is the share a step
    assert decay_map.slopes(decay_map.best_decay(paper))[INDEPENDENT] == pytest.approx(slope + 1, abs=0.01)


def test_the_change_under_transfer_worked_by_hand():
    accuracy = {(0.01, 1.0): 0.90, (0.01, 10.0): 0.80, (0.1, 10.0): 0.70, (0.1, 1.0): 0.40}

    def value(arm, lr, decay, seed, split):
        return accuracy.get((lr, decay), 0.1) + (0.001 * seed if split == "test" else 0)

    side = decay_map.transfer(table_of(value), "AdamW")
    assert side.values.shape == (6, 1)  # every resample tunes alike
    np.testing.assert_allclose(side.values, -(0.10 + 0.30) / 2)
    np.testing.assert_allclose(decay_map.regret(side), 0.20)
    np.testing.assert_allclose(side.scores, (0.90 + 0.70) / 2)


def test_every_ordered_pair_of_learning_rates_counts_once():
    side = decay_map.transfer(
        table_of(lambda arm, lr, d, seed, split: -((d / 10 - lr) ** 2), lrs=(1.0, 2.0, 3.0), decays=(10.0, 20.0, 30.0)),
        "AdamW",
    )
    np.testing.assert_allclose(side.values, -(1 + 4 + 1 + 1 + 4 + 1) / 6)


def test_each_resample_tunes_every_learning_rate_again():
    rng = np.random.default_rng(0)
    noise = {key: rng.normal(0, 0.05) for key in itertools.product((0.01, 0.1, 1.0), (0.1, 1.0, 10.0), range(8))}

    def value(arm, lr, decay, seed, split):
        return 0.5 + (noise[lr, decay, seed] if split == "validation" else 0.01 * np.log10(decay) * (1 + np.log10(lr)))

    table = table_of(value, lrs=(0.01, 0.1, 1.0))
    side, control = decay_map.transfer(table, "AdamW"), decay_map.transfer(table, "Adam + L2")
    assert side.values.shape[1] > 5
    effect = smoothed(side, control, decay_map.SEPARABILITY.metric)
    assert effect.mean == 0 and effect.by_tuning == (0, 0)  # an arm against its copy: both draw the same seeds
    better = table["value"].where((table["arm"] == "Adam + L2") | (table["metric"] == "validation accuracy"), 0.5)
    found = decay_map.separability_effects(pd.concat([table.assign(value=better), table[table["arm"] == "AdamW"].assign(
        arm=INDEPENDENT)]))  # fmt: skip
    torch_form, paper_form = found.values()
    assert (
        torch_form.mean == pytest.approx(decay_map.regret(control).mean()) and torch_form.by_tuning[1] > torch_form.mean
    )
    assert paper_form.mean == 0 and list(found)[0] == decay_map.SEPARABILITY.primary


PAIR = pd.DataFrame({"arm": "AdamW", "lr": [0.01, 0.1], "decay": [1.0, 3.0]})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: decay_map.decades(1, 0), "low, high, a_decade: 1, 0, 4; low < high"),
        (lambda: decay_map.decades(0, 1, 0), "low, high, a_decade: 0, 1, 0; .* a number above 0"),
        (lambda: decay_map.slopes(PAIR[1:]), "best: .*'AdamW': 1} learning rates, .*; at least two for each arm"),
        (lambda: decay_map.slopes(PAIR.assign(decay=0.0)), "the smallest decay 0.0; .* decays above 0"),
        (lambda: decay_map.transfer(table_of(ridge(0), lrs=(0.1,)), "AdamW"), "table: 1 learning rates of 'AdamW'"),
        (lambda: decay_map.null_coordinate_response([0], decay_map.NULL | {"coefficients": [0.1]}),
         r"coefficients \[0.1\], steps 50; at least two different ones"),
        (lambda: decay_map.null_coordinate_response([0], decay_map.NULL | {"coefficients": [0.0, 1.0]}), "different"),
        (lambda: decay_map.null_coordinate_response([0], decay_map.NULL | {"steps": 0}), "steps 0; .* one step"),
    ],
)  # fmt: skip
def test_what_has_no_answer_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_exempting_is_judged_at_the_best_rate_with_lambda_tuned_on_each_side_and_with_lambda_kept(monkeypatch):
    spared = {("validation", 1.0): 0.9, ("test", 1.0): 0.80}
    taken = {("validation", 10.0): 0.9, ("test", 1.0): 0.70, ("test", 10.0): 0.78}

    def value(arm, lr, decay, seed, split):
        tied = split == "validation" and decay == 10.0  # with what is best at 0.1: the smaller decay is taken
        return (spared.get((split, decay), 0.5) if lr == 0.1 else 0.9 if tied else 0.4) + 0.001 * seed

    class Trained:
        def train(self, runs, splits, decays):
            assert all(map(decays, ("layers.0.weight", "layers.0.bias", "norms.0.weight"))), "this side decays all"
            assert set(runs["lr"]) == {0.1}
            found = [taken.get((splits[0], d), 0.5) for d in runs["weight_decay"]] + 0.001 * runs["seed"]
            return runs.assign(metric=f"{splits[0]} accuracy", step=600, value=found)

    model = "MLP, LayerNorm"
    monkeypatch.setitem(decay_map.CONDITIONS, model, Trained())
    monkeypatch.setitem(decay_map.DECAYS, model, {"AdamW": [0.1, 1.0, 10.0]})
    monkeypatch.setattr(decay_map, "TUNING_SEEDS", range(8))
    monkeypatch.setattr(decay_map, "EVALUATION_SEEDS", range(100, 106))
    table = table_of(value).assign(condition=model)
    validation = table["metric"] == "validation accuracy"
    found = decay_map.exempting({"map": table[validation], "transfer": table[~validation]})
    assert {name: round(effect.mean, 6) for name, effect in found.items()} == {"each λ tuned": 0.02, "λ kept": 0.10}
    assert {(e.treatment, e.control) for e in found.values()} == {("exempt", "all decay")}


def test_the_box_is_measured_on_torchs_adamw():
    table = decay_map.box([0.5, 0.999], [1.0, 3.0], iter([1, 30]))  # steps may come one by one
    assert list(table.columns) == [(f"β₂ = {b}", f"{t} steps") for b in (0.5, 0.999) for t in (1, 30)]
    x, y = decay_map.data(0)["train"]
    start = initial_parameters(lambda: torch.nn.Linear(64, 10), [0])
    for beta2, decay in itertools.product((0.5, 0.999), (1.0, 3.0)):
        model = torch.nn.Linear(64, 10)
        model.load_state_dict({name: p[0] for name, p in start.items()})
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, beta2), weight_decay=decay)
        for step in range(1, 31):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            if step in (1, 30):
                largest = max(p.abs().max().item() for p in model.parameters())
                assert table.loc[decay, (f"β₂ = {beta2}", f"{step} steps")] == pytest.approx(decay * largest, rel=1e-3)
    assert (table["β₂ = 0.5", "30 steps"] / table["β₂ = 0.999", "30 steps"] - 1).abs().min() > 0.005


def test_a_null_coordinate_answers_to_lambda_and_not_to_l():
    response = decay_map.null_coordinate_response(range(4))
    assert len(response) == 8 and set(response["metric"]) == {decay_map.UNCONDITIONAL.metric}
    by_arm = response.groupby("arm")["value"]
    np.testing.assert_allclose(by_arm.get_group("AdamW"), 1.0, atol=1e-3)
    np.testing.assert_allclose(by_arm.get_group("Adam + L2"), 0.0, atol=1e-5)
    assert by_arm.get_group("AdamW").round(7).nunique() == 4  # each seed has a start and a learning rate of its own
