"""Foundations · decoupled weight decay: the map's grids and measurements, on tables whose answer is known."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from adamw_book.data import digits_splits
from adamw_book.ensemble import initial_parameters
from adamw_book.scenarios import decoupled_weight_decay as decay_map

INDEPENDENT = decay_map.INDEPENDENT


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
    table = decay_map.train_map(runs, evaluate=("train",), steps=SMALL["steps"])
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


def test_a_decay_that_diverged_is_never_the_best_and_only_the_last_step_counts():
    rows = [("AdamW", 0.01, 0.1, 0, 0.99), ("AdamW", 0.01, 1.0, 0, 0.5), ("AdamW", 0.01, 1.0, 1, 0.5)]
    early = measured([("AdamW", 0.01, d, s, 1.0 - d) for d in (0.1, 1.0) for s in (0, 1)], step=1)
    for lost in (np.nan, np.inf):
        table = measured([*rows, ("AdamW", 0.01, 0.1, 1, lost)])
        assert decay_map.best_decay(pd.concat([early, table]))["decay"].tolist() == [1.0]
    with pytest.raises(ValueError, match="table: every decay of 'AdamW' has a value that is not finite"):
        decay_map.best_decay(measured(rows[:1]).assign(value=np.nan))
    with pytest.raises(ValueError, match="table: from 1 to 2 seeds a decay; equally many"):
        decay_map.best_decay(measured(rows))


def test_changes_are_those_of_the_last_step():
    rows = [("AdamW", lr, d, 7, lr * d) for lr in (0.01, 0.1) for d in (1.0, 3.0)]
    late, early = measured(rows, "test accuracy"), measured(rows, "test accuracy", step=1).assign(value=0.9)
    (both, alone) = (decay_map.transfer_change(t, BEST[:2]) for t in (pd.concat([early, late]), late))
    pd.testing.assert_frame_equal(both, alone)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: decay_map.decades(1, 0), "low, high, a_decade: 1, 0, 4; low < high"),
        (lambda: decay_map.decades(0, 1, 0), "low, high, a_decade: 0, 1, 0; .* a number above 0"),
        (lambda: decay_map.best_decay(measured([])), "table: 0 rows of 'validation accuracy' at the last step"),
        (lambda: decay_map.transfer_change(pd.concat([measured(PAIR, "test accuracy")] * 2), BEST[:2]),
         "table: 4 rows of 'test accuracy' at the last step; one for each run"),
        (lambda: decay_map.transfer_change(measured(PAIR, "test accuracy"), BEST[:1]),
         "best: {'AdamW': 1} learning rates; at least two"),
        (lambda: decay_map.slopes(BEST[1:]), "best: .*'AdamW': 1} learning rates; at least two for each arm"),
        (lambda: decay_map.slopes(BEST.assign(decay=0.0)), "best: the decay 0.0; decays above 0"),
        (lambda: decay_map.transfer_runs(BEST[:0], [100]), "best: {} learning rates"),
        (lambda: decay_map.transfer_runs(BEST, [3, 100]), "seeds 3 were used for tuning"),
        (lambda: decay_map.transfer_runs(BEST, [100, 100]), "seeds repeat a value"),
        (lambda: decay_map.null_coordinate_response([0], NULL | {"coefficients": [0.1]}),
         r"coefficients \[0.1\], steps 50; at least two different ones"),
        (lambda: decay_map.null_coordinate_response([0], NULL | {"coefficients": [0.0, 0.1]}), "different ones"),
        (lambda: decay_map.null_coordinate_response([0], NULL | {"steps": 0}), "steps 0; .* one step"),
    ],
)  # fmt: skip
def test_what_has_no_answer_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_box_is_measured_on_torchs_adamw():
    table = decay_map.box([0.5, 0.999], [1.0, 3.0], iter([1, 30]))  # steps may come one by one
    assert list(table.columns) == [(f"β₂ = {b}", f"{t} steps") for b in (0.5, 0.999) for t in (1, 30)]
    x, y = decay_map.TASK.data(0)["train"]
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


def test_a_fifth_of_the_training_labels_is_wrong_and_no_other():
    found, clean = decay_map.TASK.data(3), digits_splits(3, train=300)
    assert {name: int((y != clean[name][1]).sum()) for name, (_, y) in found.items()} == {
        "train": 60, "validation": 0, "test": 0,
    }  # fmt: skip


def test_decays_are_chosen_on_validation_data_and_transferred_on_test_data_of_fresh_seeds(monkeypatch):
    asked = []

    def train_map(runs, evaluate=("validation",)):
        asked.append((sorted(set(runs["seed"])), tuple(evaluate)))
        tables = [
            runs.assign(step=600, metric=f"{s} {m}", value=-runs["decay"])
            for s in evaluate
            for m in ("accuracy", "loss")
        ]
        return pd.concat(tables, ignore_index=True)

    monkeypatch.setattr(decay_map, "train_map", train_map)
    tables, settings = decay_map.run(), decay_map.SETTINGS
    decay_map.headline(tables, [900, 901])
    assert asked == [
        (settings["tuning_seeds"], ("validation",)), (settings["evaluation_seeds"], ("test",)), ([900, 901], ("test",)),
    ]  # fmt: skip
    assert set(tables["map"]["metric"]) == {"validation accuracy"} and set(tables["transfer"]["metric"]) == {
        "test accuracy"
    }
    assert sorted(set(tables["null_coordinate"]["seed"])) == settings["evaluation_seeds"]


NULL = decay_map.SETTINGS["null_coordinate"]
PAIR = [("AdamW", 0.01, 1.0, 0, 0.3), ("AdamW", 0.1, 3.0, 0, 0.3)]


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
    runs = decay_map.transfer_runs(best, iter([100, 101]))
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
    assert by_arm.get_group("AdamW").round(7).nunique() == 4  # each seed has a start and a learning rate of its own
