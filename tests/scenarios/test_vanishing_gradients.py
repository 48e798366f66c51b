"""Generalization · vanishing gradients: its data and measurements where the answer is known, and its record."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from adamw_book import ledger
from adamw_book.arms import ADAM_L2, ADAMW
from adamw_book.card import claim_card
from adamw_book.data import digits, digits_splits
from adamw_book.dynamics import remaining
from adamw_book.ensemble import Result, Snapshot, initial_parameters, train
from adamw_book.scenarios.vanishing_gradients import noise, null_space, study, tasks

PLAIN, WRONG = (f"silent pixels · MLP, 1 hidden layer · {labels}" for labels in tasks.LABEL_NOISE)


def runs_of(*configurations, seeds=(0, 1)):
    """Runs of (arm, lr, weight_decay, l2) on each seed."""
    runs = pd.DataFrame(configurations, columns=["arm", "lr", "weight_decay", "l2"])
    return runs.merge(pd.DataFrame({"seed": list(seeds)}), how="cross")


def halved(table):
    return table[table["metric"] == null_space.HALVINGS].set_index(["arm", "seed"])["value"]


# ---- inputs that are silent in training


def test_silent_pixels_are_distinct_and_would_have_varied():
    pixels = tasks.silent_pixels(3)
    assert len(pixels.unique()) == 16 and (digits()[0][:, pixels].std(0) > 0.25).all()
    assert not torch.equal(pixels, tasks.silent_pixels(4))
    for silent in (0, 2.5, 65):
        with pytest.raises(ValueError, match=r"silent: .*; a whole number from 1 to \d+, the pixels that vary, is"):
            tasks.silent_pixels(0, silent)


def test_pixels_are_silent_until_they_switch_on():
    splits, whole = tasks.silenced(5, 0.2), digits_splits(5, train=300, label_noise=0.2, fixed_test=True)
    pixels = tasks.silent_pixels(5)
    others = torch.tensor([i for i in range(64) if i not in pixels.tolist()])
    for name in ("train", "validation", "test"):
        assert not splits[name][0][:, pixels].any()
        assert torch.equal(splits[name][0][:, others], whole[name][0][:, others])
        assert torch.equal(splits[name][1], whole[name][1])
    for name in ("validation", "test"):
        assert all(torch.equal(a, b) for a, b in zip(splits[f"{name}, switched on"], whole[name], strict=True))
    assert (splits["train"][1] != tasks.silenced(5, 0.0)["train"][1]).sum() == 0.2 * tasks.TRAIN
    assert torch.equal(splits["test"][1], tasks.silenced(5, 0.0)["test"][1])  # wrong labels in training alone


@pytest.mark.parametrize("name", [PLAIN, "40 images · linear"])
def test_no_seed_tunes_on_a_test_image(name):
    condition = study.PROTOCOL[name]
    test = condition.judged[-1]  # with the pixels on, where some are silent: those differ from seed to seed
    first, second = (condition.task.data(seed) for seed in (0, 2001))
    assert torch.equal(first[test][0], second[test][0]) and len(first[test][0]) == 597
    assert not any(split.startswith("test") for split in condition.seen)
    seen = {tuple(row) for row in first[condition.seen[-1]][0].tolist()}
    assert not seen & {tuple(row) for row in first[test][0].tolist()}


def test_the_change_at_switch_on_is_on_minus_silent():
    rows = [(arm, split, value) for arm, silent, on in (("AdamW", 0.9, 0.8), ("Adam", 0.8, 0.5))
            for split, value in (("test", silent), ("test, switched on", on))]  # fmt: skip
    table = pd.DataFrame(rows, columns=["arm", "split", "value"]).assign(seed=0, step=9)
    table = table.assign(metric=table.pop("split") + " accuracy")
    found = tasks.switched_on(Result(table, table, None), ("test", "test, switched on"))
    assert set(found["metric"]) == {tasks.SWITCHED_ON}
    assert dict(zip(found["arm"], found["value"], strict=True)) == {
        "AdamW": pytest.approx(-0.1),
        "Adam": pytest.approx(-0.3),
    }
    assert tasks.switched_on(Result(table, table, None), ("train", "test")).empty  # of what was not judged both ways


def test_both_ways_are_judged_in_a_run():
    table = study.PROTOCOL[WRONG].train(runs_of(("Adam", 0.01, 0, 0)), ("test", "test, switched on"), steps=30)
    values = table.pivot(index="seed", columns="metric", values="value")
    change = values["test, switched on accuracy"] - values["test accuracy"]
    np.testing.assert_allclose(values[tasks.SWITCHED_ON], change)
    assert (change < -0.02).all() and np.allclose(values[null_space.HALVINGS], 0, atol=1e-6)


# ---- null spaces


def test_the_null_projector_projects_on_what_no_example_has():
    x = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    p = null_space.null_projector(x)
    torch.testing.assert_close(x @ p, torch.zeros(5, 9), atol=1e-5, rtol=0)
    torch.testing.assert_close(p @ p, p, atol=1e-5, rtol=0)
    assert torch.trace(p).item() == pytest.approx(4, abs=1e-4)
    for bad in (x[0], x[:0], x.long(), x * torch.nan):
        with pytest.raises(ValueError, match=r"x: torch\..* of shape .*; finite floats \(N, D\), of at least one"):
            null_space.null_projector(bad)
    with pytest.raises(ValueError, match="x: its 12 examples span all 9 input dimensions"):
        null_space.null_projector(torch.randn(12, 9, generator=torch.Generator().manual_seed(1)))


def test_halvings_count_the_null_part_alone():
    condition, seeds = study.PROTOCOL[PLAIN], [7, 8, 7, 8]
    start = initial_parameters(condition.task.model, seeds)["layers.0.weight"]
    now, silent = start * 3, [tasks.silent_pixels(seed) for seed in seeds]
    for weight, before, pixels, factor in zip(now, start, silent, (0.25, 2.0, 0.0, torch.nan), strict=True):
        weight[:, pixels] = factor * before[:, pixels]
    measure = condition.measure(condition)
    found = measure(Snapshot(1, pd.DataFrame({"seed": seeds}), {"layers.0.weight": now}, {}, {}))[null_space.HALVINGS]
    expected = torch.tensor([2.0, -1.0, null_space.MOST_HALVINGS, torch.nan])
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_silent_weights_obey_the_closed_form():
    runs = runs_of(("AdamW", 0.01, 2.0, 0), ("Adam", 0.01, 0, 0), ("Adam + L2", 0.01, 0, 0.001))
    for name in (PLAIN, "silent pixels · MLP, 4 hidden layers, LayerNorm · 20% wrong labels"):
        found = halved(study.PROTOCOL[name].train(runs, (), steps=100))
        np.testing.assert_allclose(found["Adam"], 0, atol=1e-5)
        np.testing.assert_allclose(found["AdamW"], -np.log2(remaining(0.01, 2.0, 100, "cosine")[-1]), rtol=1e-4)
        assert (found["Adam + L2"] > 1.5).all()  # however small ℓ is, its steps are of the size η


def test_across_pixels_the_gradient_has_no_null_part_and_adams_step_has():
    x, y = tasks.few_digits(0)["train"]
    weight = torch.zeros(10, 64, requires_grad=True)
    functional.cross_entropy(x @ weight.T, y).backward()
    assert (weight.grad @ tasks.left_out(0)).norm() < 1e-5 * weight.grad.norm()
    runs = runs_of(("AdamW", 0.01, 1.0, 0), ("Adam", 0.01, 0, 0), ("Adam + L2", 0.01, 0, 0.01))
    found = halved(study.PROTOCOL["40 images · linear"].train(runs, (), steps=200)).groupby("arm").mean()
    assert found["Adam"] < found["AdamW"] < -0.1 and found["Adam + L2"] > 0


def test_dead_parts_of_a_deep_network(monkeypatch):
    moments = {}

    def watched(task, runs, *, measure, **options):
        def both(snapshot):
            v = torch.cat([snapshot.exp_avg_sq[f"layers.{i}.weight"].flatten(1) for i in range(1, 8)], 1)
            moments.update(zip(zip(snapshot.runs["arm"], snapshot.runs["seed"], strict=True), v.clone(), strict=True))
            return measure(snapshot)

        return train(task, runs, measure=both, **options)

    monkeypatch.setattr(null_space, "train", watched)
    settings = null_space.DEEP | {"steps": 30}
    table = null_space.dead_parts(iter([0, 1]), settings)
    values = table.pivot(index=["arm", "seed"], columns="metric", values="value")
    for run, v in moments.items():
        below = (v > 0) & ((v / (1 - 0.999**30)).sqrt() < settings["l2"] / settings["weight_decay"])
        assert values.loc[run, "second moment zero"] == pytest.approx((v == 0).float().mean().item())
        assert values.loc[run, "below the crossing"] == pytest.approx(below.float().mean().item(), abs=1e-3)
    assert len(moments) == 6
    means = values.groupby("arm").mean()
    silent, left = means["second moment zero"], means["left of these"]
    assert silent["Adam"] > 0.02 and silent["AdamW"] > 0.02 and silent["Adam + L2"] == 0  # the penalty fills v
    assert left["Adam"] == pytest.approx(1, rel=1e-6)
    assert left["AdamW"] == pytest.approx(remaining(0.005, 1.0, 30, "cosine")[-1], rel=1e-5)
    assert (means["no gradient"] >= means["second moment zero"]).all() and means["no gradient"].between(0, 1).all()


# ---- nothing but noise


def test_noise_drives_weights_as_far_as_the_formula_says():
    settings = noise.NOISE | {"steps": 3000, "ratios": [0.1, 1.0, 10.0]}
    table = noise.drift(iter([0, 1, 2]), settings)
    found = table.groupby(["ratio", "arm"])["value"].mean().unstack()
    for ratio in settings["ratios"]:
        for arm, expected in noise.drift_formula(ratio, settings).items():
            assert found.loc[ratio, arm] == pytest.approx(expected, abs=0.15)
    effects = {name: effect.mean for name, effect in noise.drift_effects(table).items()}
    assert effects[noise.regime(0.1)] < -1 and effects[noise.regime(10)] > 1 and noise.DRIFT.primary in effects
    for bad in (([0], {"steps": 2}), ([], {})):
        with pytest.raises(ValueError, match="seeds, steps: .*; at least one seed and three steps are needed"):
            noise.drift(bad[0], settings | bad[1])


def test_the_formula_of_the_drift_has_the_known_limits():
    long = noise.NOISE | {"steps": 10**6}
    lr, decay, l2 = (noise.NOISE[name] for name in ("lr", "weight_decay", "l2"))
    for ratio in (0.1, 1.0, 10.0):
        found, sigma = noise.drift_formula(ratio, long), ratio * l2 / decay
        assert found["AdamW"] == pytest.approx(-np.log2((lr / 2 / decay) ** 0.5), rel=1e-6)
        assert found["Adam + L2"] == pytest.approx(-np.log2((lr * sigma / 2 / l2) ** 0.5), rel=1e-6)
        assert found["AdamW"] - found["Adam + L2"] == pytest.approx(np.log2(ratio) / 2, abs=1e-6)


# ---- the protocol and its record


@pytest.mark.parametrize("name", study.PROTOCOL.conditions)
def test_each_arm_of_a_condition_tries_the_same_learning_rates(name):
    condition = study.PROTOCOL[name]
    runs = condition.runs([0])
    rates = runs.groupby("arm")["lr"].apply(lambda lr: tuple(sorted(lr)))
    assert len(set(rates)) == 1 and len(set(rates.iloc[0])) == condition.search["count"] >= 24
    assert (runs["lr"] * runs["weight_decay"]).max() < 1
    widths = [high / low for low, high in (condition.search[d] for d in ("weight_decay", "l2"))]
    assert widths == pytest.approx([600, 600])
    model = condition.task.model()
    spared = {n for n, p in model.named_parameters() if not condition.decays(n)}
    assert spared == {n for n, p in model.named_parameters() if p.ndim < 2}
    assert any(isinstance(m, torch.nn.LayerNorm) for m in model.modules()) == ("LayerNorm" in name)


def test_each_claim_has_a_primary_comparison_on_fresh_seeds():
    protocol = study.PROTOCOL
    assert study.PRIMARY in protocol.conditions and not set(protocol.tuning_seeds) & set(protocol.evaluation_seeds)
    assert {claim.id: claim.primary for claim in protocol.claims} == {
        study.SHRINKAGE.id: study.PRIMARY, noise.DRIFT.id: noise.regime(1), study.PROTECTION.id: study.PRIMARY,
    }  # fmt: skip
    assert [claim.id for claim in protocol.claims if claim.arithmetic] == [noise.DRIFT.id]


def test_the_recorded_change_is_that_of_the_recorded_accuracies():
    tables = ledger.read(study.PROTECTION.id).tables
    evaluation = tables["evaluation"]
    keys = ["condition", "arm", "lr", "weight_decay", "l2", "seed"]
    wide = evaluation.pivot(index=keys, columns="metric", values="value").dropna()
    change = wide["test, switched on accuracy"] - wide["test accuracy"]
    np.testing.assert_allclose(wide[tasks.SWITCHED_ON], change, atol=2e-5)
    adamw = wide.xs("AdamW", level="arm").reset_index()
    left = [remaining(r.lr, r.weight_decay, 400, "cosine")[-1] for r in adamw.itertuples()]
    expected = np.minimum(-np.log2(left), null_space.MOST_HALVINGS)
    np.testing.assert_allclose(adamw[null_space.HALVINGS], expected, atol=0.01)
    assert {ADAMW.name, ADAM_L2.name} < set(evaluation["arm"])


def test_a_formula_is_shown_without_a_mean_over_its_regimes():
    shown = [
        claim_card(r.claim, r.effects)._repr_markdown_()
        for r in map(ledger.read, (noise.DRIFT.id, study.PROTECTION.id))
    ]
    assert ["Over all" in text for text in shown] == [False, True]
