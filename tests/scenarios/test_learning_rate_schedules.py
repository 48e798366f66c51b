"""Frontier · learning-rate schedules: what noise leaves, the settings, and rules on tables whose answer is known."""

import numpy as np
import pandas as pd
import pytest
import torch

from adamw_book.dynamics import drive, noise
from adamw_book.scenarios.learning_rate_schedules import floor, rules, settings, study
from adamw_book.schedules import DECAY_SCHEDULES, learning_rate_factors

# ---- the noise floor

LR, DECAY, STEPS = 0.01, 0.5, 2000


@pytest.mark.parametrize("schedule", ["cosine", "WSD"])
@pytest.mark.parametrize("form", DECAY_SCHEDULES)
def test_noise_leaves_what_the_recursion_says(schedule, form):
    how = {"schedule": schedule, "decay_schedule": form, "warmup": 0.05}
    draws = noise(1.0, torch.Generator().manual_seed(0))
    path = drive(draws, torch.zeros(1, 1000), STEPS, lr=LR, weight_decay=DECAY, **how)[:, 0]
    measured = path.square().mean(1).sqrt().numpy()
    predicted = floor.floor(LR, DECAY, STEPS, **how)
    assert measured.shape == predicted.shape and predicted[0] == 0
    np.testing.assert_allclose(measured[200:], predicted[200:], rtol=0.12)


def test_the_floor_comes_to_rest_where_noise_and_decay_balance():
    factors = learning_rate_factors("cosine", STEPS)
    balances = {form: floor.balance(LR, DECAY, STEPS, "cosine", 0.0, form) for form in DECAY_SCHEDULES}
    np.testing.assert_allclose(balances["torch"], np.sqrt(LR * factors / (2 * DECAY)), rtol=1e-9)
    np.testing.assert_allclose(balances["constant"], LR * factors / np.sqrt(2 * LR * DECAY), rtol=1e-9)
    np.testing.assert_allclose(balances["AdamC"], np.sqrt(LR / (2 * DECAY)), rtol=1e-9)
    settled = floor.floor(LR, DECAY, STEPS)[-1]
    assert settled == pytest.approx(floor.balance(LR, DECAY, STEPS)[-1], rel=0.01)


def test_the_floor_freezes_while_less_than_one_memory_is_left():
    assert floor.freezes(0.01, 1.0, 1000, "constant") == 1000 - 49  # 49 steps of 2 · 0.01 are less than 1
    times = [floor.freezes(LR, DECAY, STEPS, "cosine", form) for form in ("AdamC", "torch", "constant")]
    assert times == sorted(times) and len(set(times)) == 3
    final = floor.floor(LR, DECAY, STEPS, "cosine")
    assert final[times[1]] / final[-1] < 1.7 < final[STEPS // 2] / final[-1] * 1.3


# ---- the settings


def test_only_what_an_axis_names_changes():
    reference, changed = settings.SETTINGS[settings.REFERENCE], settings.AXES
    epochs = {name: one.steps / one.steps_an_epoch for name, one in settings.SETTINGS.items()}
    same = [settings.REFERENCE, *changed["schedule"], *changed["batch size"], *changed["data, same epochs"]]
    assert {epochs[name] for name in same} == {50.0} and reference.steps_an_epoch == 8
    assert {one.steps for one in changed["data, same steps"].values()} == {reference.steps}
    assert [epochs[name] for name in changed["length"]] == [12.5, 25, 100, 200]
    assert len(settings.SETTINGS) == 1 + sum(map(len, changed.values()))


@pytest.mark.parametrize(
    ("one", "share"),
    [
        (settings.Setting("constant"), 1.0),
        (settings.Setting(), 0.5),
        (settings.Setting("linear"), 0.5),
        (settings.Setting("WSD"), 0.85),
        (settings.Setting(warmup=0.5), 0.5),
        (settings.Setting(decay_schedule="constant"), 1.0),
        (settings.Setting(decay_schedule="AdamC"), 3 / 8),
    ],
)
def test_what_decay_takes_on_average(one, share):
    assert one.share == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize("model", settings.MODELS)
def test_every_dose_is_tried_under_each_seed_and_the_largest_leaves_something_of_a_weight(model):
    for name in ("reference", "one-cycle", "cosine, AdamC", "800 steps"):
        runs = settings.runs(model, name, [3, 4])
        arms = ["AdamW", "Adam + L2"] if name in settings.COUPLED else ["AdamW"]
        assert list(runs["arm"].unique()) == arms and len(runs) == 2 * 8 * len(arms)
        assert set(runs["lr"]) == {settings.PEAK[model]} and set(runs["seed"]) == {3, 4}
        assert (runs["lr"] * runs["weight_decay"]).max() < 0.6
        one = settings.SETTINGS[name]
        assert {tuple(row) for row in runs[["setting", "schedule", "warmup", "decay_schedule"]].to_numpy()} == {
            (name, one.schedule, one.warmup, one.decay_schedule)
        }
    doses = settings.decays(model, settings.ARMS[0])
    np.testing.assert_allclose(np.divide(doses[1:], doses[:-1]), 2)


def test_the_digits_of_a_setting_carry_wrong_labels_in_training_alone():
    few, many = (settings.task("MLP", n).data(1) for n in (100, 800))
    assert [len(s["train"][0]) for s in (few, many)] == [100, 800] and len(many["validation"][0]) == 400
    assert torch.equal(few["test"][0], settings.task("MLP", 100).data(2001)["test"][0])
    assert any(isinstance(m, torch.nn.LayerNorm) for m in settings.task("MLP, LayerNorm", 100).model().modules())


def test_a_map_trains_each_setting_as_it_says(monkeypatch):
    short = {
        "reference": settings.Setting(steps=5),
        "constant": settings.Setting("constant", steps=5),
        "100 images, 50 epochs": settings.Setting(steps=3, images=100),
    }
    monkeypatch.setattr(settings, "SETTINGS", short)
    table = settings.train_map("MLP", [0, 1], "validation", list(short))
    assert set(table["metric"]) == {"validation accuracy"} and set(table["condition"]) == {"MLP"}
    assert table.groupby(["setting", "arm"]).size().to_dict() == {
        ("reference", "AdamW"): 16, ("reference", "Adam + L2"): 16, ("constant", "AdamW"): 16,
        ("constant", "Adam + L2"): 16, ("100 images, 50 epochs", "AdamW"): 16,
    }  # fmt: skip
    assert table.groupby("setting")["step"].unique().map(list).to_dict() == {
        "reference": [5], "constant": [5], "100 images, 50 epochs": [3],
    }  # fmt: skip
    mine = table[(table["arm"] == "AdamW") & (table["setting"] == "constant")].reset_index(drop=True)
    runs = settings.runs("MLP", "constant", [0, 1]).query("arm == 'AdamW'")
    alone = settings.condition("MLP", steps=5).train(runs, ("validation",), schedule="constant")
    alone = alone[alone["metric"] == "validation accuracy"].reset_index(drop=True)
    np.testing.assert_allclose(mine["value"], alone["value"], atol=0.003)


# ---- the rules


@pytest.mark.parametrize(
    ("rule", "setting", "doses"),
    [
        (rules.CONSTANT, "1600 steps", 0),
        (rules.TOTAL, "1600 steps", -2),
        (rules.TOTAL, "constant", -1),
        (rules.TOTAL, "100 images, 400 steps", 0),
        (rules.TOTAL, "cosine, λ constant", -1),
        (rules.TIMESCALE, "1600 steps", 0),
        (rules.TIMESCALE, "constant", 0),
        (rules.TIMESCALE, "100 images, 400 steps", 2),
        (rules.TIMESCALE, "800 images, 50 epochs", -1),
        (rules.TIMESCALE, "batches of 25", -1),
        (rules.TIMESCALE, "batches of 200", 2),
        ("the same, of the mean rate", "constant", -1),
        ("the same, of the mean rate", "100 images, 50 epochs", 2),
    ],
)
def test_how_far_a_rule_moves_the_decay(rule, setting, doses):
    assert rules.shift(rule, setting) == doses


def table_of(best: dict[str, int], model: str = "MLP", arm: str = "AdamW", tuning=range(6), seeds=8) -> pd.DataFrame:
    """A network's table in which each setting's accuracy falls by a point for each squared dose from the ``best``."""
    doses = settings.decays(model, next(a for a in settings.ARMS if a.name == arm))
    rows = [
        {
            "arm": arm, "lr": 0.01, "weight_decay": dose if arm == "AdamW" else 0.0,
            "l2": 0.0 if arm == "AdamW" else dose, "seed": seed, "setting": name, "step": 400,
            "metric": f"{split} accuracy", "value": 0.9 - 0.01 * (k - place) ** 2 + 0.002 * np.sin(7 * seed),
            "condition": model,
        }
        for name, place in best.items()
        for split, drawn in (("validation", tuning), ("test", range(2000, 2000 + seeds)))
        for seed in drawn
        for k, dose in enumerate(doses)
    ]  # fmt: skip
    return pd.DataFrame(rows)


BEST = {"reference": 4, "100 images, 400 steps": 6, "800 images, 400 steps": 3, "1600 steps": 1, "100 steps": 7}


def test_what_tuning_again_is_worth_is_the_mean_over_all_pairs():
    names = ["reference", "1600 steps", "100 images, 400 steps"]  # best doses 4, 1, 6
    effect = rules.tuning_again(table_of(BEST), names, "m")
    assert (effect.treatment, effect.control) == (rules.AGAIN, rules.KEPT)
    assert effect.mean == pytest.approx(0.01 * (9 + 4 + 25) / 3)
    assert effect.low == pytest.approx(effect.mean) and effect.high == pytest.approx(effect.mean)
    assert rules.tuning_again(table_of(dict.fromkeys(BEST, 4)), names, "m").mean == pytest.approx(0)


def test_a_rule_is_judged_where_it_carries_the_references_decay():
    own, data = table_of(BEST), ["100 images, 400 steps", "800 images, 400 steps"]
    against = rules.rule_against(own, rules.TIMESCALE, rules.CONSTANT, data, "m")
    assert (against.treatment, against.control) == (rules.TIMESCALE, rules.CONSTANT)
    assert against.mean == pytest.approx(0.01 * (4 + 1) / 2)  # the rule is right in both, λ kept two and one doses off
    lost = rules.rule_against(own, rules.TOTAL, rules.IN_PLACE, ["1600 steps", "100 steps"], "m")
    assert lost.mean == pytest.approx(-0.01 * (1 + 1) / 2)  # 4 − 2 and 4 + 2 where 1 and 7 are best
    assert rules.regret(own, rules.TOTAL, ["1600 steps", "100 steps"]).tolist() == pytest.approx([0.01] * 8)
    far = table_of(BEST | {"reference": 7})
    assert rules.rule_against(far, rules.TOTAL, rules.IN_PLACE, ["100 steps"], "m").mean == 0  # stays at the end


def test_what_other_tuning_seeds_would_choose_widens_the_interval():
    own = table_of(BEST)
    torn = (own["metric"] == "validation accuracy") & (own["setting"] == "reference") & (own["seed"] < 3)
    own.loc[torn, "value"] = table_of(BEST | {"reference": 6}).loc[torn, "value"]
    tuned = rules.Tuned.of(own, ["reference", "1600 steps"])
    assert len(tuned.ways) > 1 and tuned.ways.shape[1] == 2 and tuned.accuracy.shape == (8, 2, 8)
    effect = rules.rule_against(own, rules.CONSTANT, rules.IN_PLACE, ["1600 steps"], "m")
    assert effect.low < effect.mean - 0.01 and effect.by_seeds[1] - effect.by_seeds[0] < 0.01
    found = rules.best_doses(own, ["reference", "1600 steps"]).set_index("setting")
    doses = settings.decays("MLP", settings.ARMS[0])
    assert found.loc["1600 steps"].tolist() == [doses[1]] * 3
    assert found.loc["reference", "low"] < found.loc["reference", "high"]


def test_a_setting_that_was_not_run_is_named():
    with pytest.raises(ValueError, match="names: the table has no setting 'linear'; it has"):
        rules.Tuned.of(table_of(BEST), ["reference", "linear"])


# ---- the study


def test_each_primary_comparison_is_made_for_every_network_and_change():
    everywhere = dict.fromkeys(settings.SETTINGS, 4)
    table = pd.concat(
        [table_of(everywhere, model, seeds=6) for model in settings.MODELS]
        + [table_of(dict.fromkeys(settings.COUPLED, 4), model, "Adam + L2", seeds=6) for model in settings.MODELS]
    )
    validation = table["metric"] == "validation accuracy"
    found = study.PROTOCOL.effects({"tuned": table[validation], "tested": table[~validation]})
    for claim in study.PROTOCOL.claims:
        assert claim.primary in found[claim.id]
    assert all(effect.mean == pytest.approx(0, abs=1e-12) for effect in found[study.INTERPLAY.id].values())
    data = found[study.RULE.id][study.RULE.primary]
    moved = [rules.shift(rules.TIMESCALE, name) for name in study.DATA]
    assert len(moved) == 9 and data.mean == pytest.approx(-0.01 * np.mean(np.square(moved)))


def test_no_seed_tunes_and_evaluates():
    tuning, evaluation = study.PROTOCOL.tuning_seeds, study.PROTOCOL.evaluation_seeds
    assert not set(tuning) & set(evaluation)
    assert [list(one.seeds) for one in study.PROTOCOL.measurements] == [list(tuning), list(evaluation)]
