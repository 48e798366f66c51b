"""The protocol, from a declaration to effects, on a task that trains in a moment."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from adamw_book import protocol as module
from adamw_book.arms import ADAM, ADAM_L2, ADAMW
from adamw_book.data import digits_splits
from adamw_book.ensemble import train
from adamw_book.evidence import CONFIGURATION, Claim, Side, paired, smoothed
from adamw_book.ledger import PROBE, Unfinished
from adamw_book.models import MLP, matrices
from adamw_book.protocol import Condition, Contrast, Measurement, Protocol
from adamw_book.task import Task

RANGES = {"lr": (0.003, 0.03), "weight_decay": (0.1, 10.0), "l2": (0.001, 0.1), "count": 6}
CLAIM = Claim(
    id="toy.lift",
    tag=None,
    statement="AdamW has the higher test accuracy.",
    source="AdamW generalises better.",
    criterion="Half a point or more.",
    metric="test accuracy",
    smallest_effect=0.005,
    primary="right labels",
)
DRIFT = dataclasses.replace(CLAIM, id="toy.drift", metric="drift", primary="a drift", arithmetic=True)


def condition(name, noise=0.0, **changes):
    task = Task(
        name, lambda: MLP(width=4, norm=True), lambda s: digits_splits(s, train=40, label_noise=noise, fixed_test=True)
    )
    return Condition(task, RANGES, steps=4, batch_size=10, **changes)


def drift(seeds):
    rows = [("AdamW", s, 1.0 + s % 3) for s in seeds] + [("Adam + L2", s, 0.0) for s in seeds]
    return pd.DataFrame(rows, columns=["arm", "seed", "value"]).assign(step=9, metric="drift")


def declared(**changes):
    conditions = {
        "right labels": condition("right labels", rules={"accuracy": "validation accuracy", "loss": "validation loss"}),
        "wrong labels": condition("wrong labels", 0.2, schedule="cosine"),
    }
    own = {
        "chapter": "folder/toy",
        "conditions": conditions,
        "claims": {
            CLAIM: Contrast(),
            DRIFT: lambda tables: {"a drift": paired(tables["drift"], "AdamW", "Adam + L2", "drift")},
        },
        "tuning_seeds": range(4),
        "evaluation_seeds": range(100, 106),
        "measurements": [Measurement("drift", drift, list(range(200, 206)), lambda table: table)],
        "probed": ["wrong labels"],
        "settings": {"dose": 3},
    }
    return Protocol(**own | changes)


PROTOCOL = declared()


@pytest.fixture(scope="module")
def tables():
    return PROTOCOL.run()


def test_every_configuration_is_tuned_on_validation_data_alone(tables):
    tuning = tables["tuning"]
    assert {m: len(t) for m, t in tuning.groupby("metric")} == {"validation accuracy": 144, "validation loss": 72}
    assert set(tuning.loc[tuning["condition"] == "wrong labels", "metric"]) == {
        "validation accuracy"
    }  # what its rule reads
    sizes = tuning.groupby(["condition", "metric", "arm"])["lr"].agg(["nunique", "size"])
    assert (sizes["nunique"] == 6).all() and (sizes["size"] == 24).all() and set(tuning["seed"]) == {0, 1, 2, 3}


def test_what_is_chosen_is_the_best_mean_of_each_rule(tables):
    keys = ["condition", "arm"]
    for rule, metric, best in (("accuracy", "validation accuracy", "max"), ("loss", "validation loss", "min")):
        scores = tables["tuning"][tables["tuning"]["metric"] == metric].groupby([*keys, *CONFIGURATION])["value"].mean()
        won = tables["winners"][tables["winners"]["rule"] == rule].set_index(keys)["score"]
        expected = scores.groupby(keys).agg(best)
        pd.testing.assert_series_equal(won.sort_index(), expected.sort_index(), check_names=False, check_exact=False)
    assert not tables["winners"].duplicated(["condition", "arm", "rule"]).any() and "winner" not in tables["winners"]
    assert len(tables["candidates"]) > len(tables["winners"]) == 9


def test_each_candidate_meets_the_test_data_once_a_seed_whatever_chose_it(tables):
    evaluation = tables["evaluation"]
    assert set(evaluation["seed"]) == set(range(100, 106))
    assert set(evaluation["metric"]) == {"train accuracy", "test accuracy", "weight norm"}
    keys = ["condition", "arm", *CONFIGURATION]
    run = evaluation[keys].drop_duplicates().sort_values(keys, ignore_index=True)
    chosen = tables["candidates"][keys].drop_duplicates().sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(run, chosen)
    assert not evaluation.duplicated([*keys, "seed", "metric"]).any()


def test_a_condition_is_trained_as_it_says(tables):
    row = tables["evaluation"][lambda t: (t["condition"] == "wrong labels") & (t["arm"] == "AdamW")].iloc[:1]
    runs = row[["arm", *CONFIGURATION, "seed"]]
    own = PROTOCOL["wrong labels"]
    options = {"steps": 4, "batch_size": 10, "evaluate": ("test",), "schedule": "cosine"}

    def loss(**changes):
        table = train(own.task, runs, **options | {"decays": matrices} | changes).table
        return table[table["metric"] == "test loss"]["value"].item()

    found = own.train(runs, ("test",))
    assert found[found["metric"] == "test loss"]["value"].item() == loss()
    assert all(
        abs(loss(**other) - loss()) > 1e-4 for other in ({"schedule": "constant"}, {"decays": lambda name: True})
    )


def test_effects_are_those_of_the_whole_procedure(tables):
    effects = PROTOCOL.effects(tables)
    assert list(effects) == ["toy.lift", "toy.drift"] and list(effects["toy.lift"]) == list(PROTOCOL.conditions)
    assert effects["toy.drift"]["a drift"].mean == 2.0

    def side(arm):
        tuning, candidates, evaluation = (
            tables[t][lambda x: (x["condition"] == "right labels") & (x["arm"] == arm)]
            for t in ("tuning", "candidates", "evaluation")
        )
        evaluation = evaluation.merge(candidates.loc[candidates["rule"] == "accuracy", list(CONFIGURATION)])
        return Side.of(tuning, evaluation, "validation accuracy", "test accuracy", decayed=True)

    expected = smoothed(side("AdamW"), side("Adam + L2"), "test accuracy")
    found = effects["toy.lift"]["right labels"]
    assert (found.mean, found.low, found.high) == (expected.mean, expected.low, expected.high)
    assert found.by_seeds and found.by_tuning and (found.treatment, found.control) == ("AdamW", "Adam + L2")
    backwards = PROTOCOL.contrast(tables, "right labels", "test accuracy", ADAM_L2, ADAMW)
    assert backwards.mean == pytest.approx(-found.mean)


def test_another_rule_gives_the_arms_that_it_chose(tables):
    sides = {
        rule: PROTOCOL.side(tables, "right labels", ADAM, "test accuracy", rule) for rule in (None, "accuracy", "loss")
    }
    scores = {rule: side.scores.max().max() for rule, side in sides.items()}
    assert scores[None] == scores["accuracy"] <= 1 < scores["loss"]  # a loss of the untrained in nats
    one = declared(claims={CLAIM: Contrast(conditions=["right labels"], rule="loss")}).effects(tables)["toy.lift"]
    assert list(one) == ["right labels"]
    expected = PROTOCOL.contrast(tables, "right labels", "test accuracy", ADAMW, ADAM_L2, "loss")
    assert one["right labels"].mean == expected.mean


def test_the_hook_judges_the_trained_models_on_validation_data_while_tuning():
    asked = []

    def judge(result, splits):
        asked.append(splits)
        norms = result.parameters["layers.0.weight"].flatten(1).norm(dim=1)
        rows = result.runs.assign(step=4, metric=f"{splits[-1]} accuracy of norms")
        return rows.assign(value=norms.numpy())

    rules = {"norms": "validation accuracy of norms"}
    own = declared(conditions={"right labels": condition("right labels", rules=rules, judge=judge)}, claims={})
    tables = own.run()
    assert asked == [("validation",), ("train", "test")]
    assert set(tables["tuning"]["metric"]) == {"validation accuracy of norms"}
    assert "test accuracy of norms" in set(tables["evaluation"]["metric"])


def test_a_measure_is_made_anew_for_each_training():
    made = []

    def measure(own):
        made.append(own.task.name)
        return lambda snapshot: {"norm of g": sum(g.flatten(1).norm(dim=1) for g in snapshot.gradients.values())}

    own = declared(conditions={"right labels": condition("right labels", measure=measure)}, claims={})
    evaluation = own.run()["evaluation"]
    assert made == ["right labels"] * 2 and "norm of g" in set(evaluation["metric"])


def test_a_further_column_is_tuned_like_the_others():
    def vary(runs):
        return runs.merge(pd.DataFrame({"schedule": ["constant", "cosine"]}), how="cross")

    tuned = (*CONFIGURATION, "schedule")
    own = declared(conditions={"right labels": condition("right labels", vary=vary, tuned=tuned)}, measurements=[])
    own = dataclasses.replace(own, claims={CLAIM: Contrast()})
    tables = own.run()
    assert len(tables["tuning"]) == 3 * 6 * 4 * 2
    assert set(tables["candidates"]["schedule"]) <= {"constant", "cosine"}
    assert set(tables["evaluation"]["schedule"]) == set(tables["candidates"]["schedule"])
    assert np.isfinite(own.effects(tables)["toy.lift"]["right labels"].mean)


def test_seeds_that_tuned_do_not_evaluate(tables):
    with pytest.raises(ValueError, match="seeds 3 were used for tuning; expected fresh seeds"):
        PROTOCOL.evaluate("right labels", tables["candidates"], [3, 100])


def test_live_trains_the_winners_again(tables):
    effect = PROTOCOL.live(tables, "right labels", [300, 301, 302], "test accuracy")
    assert effect.differences.index.tolist() == [300, 301, 302] and effect.by_seeds is None
    same = PROTOCOL.live(tables, "right labels", PROTOCOL.evaluation_seeds, "test accuracy", ADAMW, ADAM)
    won = tables["winners"][lambda t: (t["condition"] == "right labels") & (t["rule"] == "accuracy")]
    again = tables["evaluation"].merge(won[["condition", "arm", *CONFIGURATION]])
    expected = paired(again, "AdamW", "Adam", "test accuracy")
    pd.testing.assert_series_equal(same.differences, expected.differences, atol=1e-6)


def test_the_primary_comparisons_are_made_again_from_the_start():
    found = PROTOCOL.retuned([50, 51, 52, 53, 54, 55], [60, 61, 62, 63, 64, 65])
    assert {claim: list(regimes) for claim, regimes in found.items()} == {
        "toy.lift": ["right labels"], "toy.drift": ["a drift"],
    }  # fmt: skip
    assert found["toy.lift"]["right labels"].differences.index.tolist() == [60, 61, 62, 63, 64, 65]


def test_a_probe_trains_a_run_an_arm_and_looks_at_every_task():
    probe = PROTOCOL.probe()
    assert list(probe.columns) == PROBE and not probe.duplicated(["run", "step", "metric"]).any()
    runs = set(probe["run"])
    assert sum("wrong labels" in run and not run.startswith("untrained") for run in runs) == 3
    assert {f"untrained, {name}, seed 0" for name in PROTOCOL.conditions} < runs
    assert (probe["metric"] == "drift").sum() == 2
    decayed = probe[(probe["metric"] == "decayed parameters") & probe["run"].str.contains("right")]["value"].item()
    assert decayed == 64 * 4 + 4 * 10  # neither biases nor gains


def test_what_a_measurement_trains_by_itself_is_probed_and_not_tuned():
    own = declared(
        conditions={}, claims={}, measured={"other labels": condition("other labels")}, probed=["other labels"]
    )
    assert list(own.run()) == ["drift"] and "other labels" in own.study.settings["conditions"]
    runs = set(own.probe()["run"])
    assert "untrained, other labels, seed 0" in runs and "AdamW, other labels, seed 0" in runs


def test_a_run_that_was_stopped_goes_on_with_what_it_had(tmp_path):
    done = []

    def part(name, function):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(name)
        return Unfinished(PROTOCOL.study, tmp_path).part(name, function)

    with pytest.raises(KeyboardInterrupt):
        PROTOCOL.run(part)
    assert done == ["tuning of right labels", "evaluation of right labels", "tuning of wrong labels"]
    ran = []

    def counted(name, function):
        return Unfinished(PROTOCOL.study, tmp_path).part(name, lambda: (ran.append(name), function())[1])

    resumed = PROTOCOL.run(counted)
    assert ran == ["evaluation of wrong labels", "drift"]
    whole = PROTOCOL.run(Unfinished(PROTOCOL.study, tmp_path / "another").part)
    assert list(resumed) == list(whole)
    for name, table in whole.items():
        pd.testing.assert_frame_equal(resumed[name], table, rtol=1e-5)


def test_the_study_keeps_what_defines_the_protocol():
    study = PROTOCOL.study
    assert study.chapter == "folder/toy" and study.claims == (CLAIM, DRIFT)
    kept = study.settings
    assert (
        kept["dose"] == 3
        and kept["tuning_seeds"] == [0, 1, 2, 3]
        and kept["measurements"] == {"drift": [200, 201, 202, 203, 204, 205]}
    )
    changes = {"steps": 5, "schedule": "cosine", "batch_size": 20, "rules": {"loss": "validation loss"},
               "judged": ("test",), "search": RANGES | {"count": 7}, "arms": (ADAMW, ADAM)}  # fmt: skip
    base = PROTOCOL["right labels"]
    for name, value in changes.items():
        assert dataclasses.replace(base, **{name: value}).described() != base.described(), name


def test_an_unknown_condition_is_named_with_what_there_is():
    with pytest.raises(
        ValueError, match="name: 'no labels' is no condition; choose from 'right labels', 'wrong labels'"
    ):
        PROTOCOL["no labels"]


def test_the_middle_of_the_ranges():
    middle = PROTOCOL["right labels"].middle().set_index("arm")
    assert middle.loc["AdamW"].tolist() == pytest.approx([0.00949, 1.0, 0.0], rel=1e-3)
    assert middle.loc["Adam + L2"].tolist() == pytest.approx([0.00949, 0.0, 0.01], rel=1e-3)
    assert middle.loc["Adam"].tolist() == pytest.approx([0.00949, 0.0, 0.0], rel=1e-3)


def test_nothing_is_kept_of_a_part_by_default():
    assert module.at_once("x", lambda: 3) == 3
