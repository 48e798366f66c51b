"""Robustness · covariate shift: closed forms against others' code, disturbed data whose answer is known, the record."""

import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge
from torch.nn import functional

from adamw_book import ledger
from adamw_book.data import DIGITS_TEST
from adamw_book.evidence import verdict
from adamw_book.scenarios.covariate_shift import dose, shifts, study, tasks, theory
from adamw_book.scenarios.covariate_shift.study import PROTOCOL, STUDY
from adamw_book.task import Snapshot

RNG = lambda seed=0: torch.Generator().manual_seed(seed)  # noqa: E731


# ---- what moves


def test_a_flip_leaves_p_y_given_x_alone_only_where_the_core_decides_the_label():
    winter, summer = (theory.conditional(1.0, share) for share in (0.95, 0.05))
    assert winter["p_y"].tolist() == summer["p_y"].tolist() == [0, 0, 1, 1]
    assert winter["p"].tolist() == pytest.approx([0.475, 0.025, 0.025, 0.475])
    winter, summer = (theory.conditional(0.9, share).set_index(["core", "bit"])["p_y"] for share in (0.95, 0.05))
    # Bayes by hand: p(y=1 | core 1, bit 0) = .9·.05 / (.9·.05 + .1·.95)
    assert winter[1, 0] == pytest.approx(0.045 / 0.14) and summer[1, 0] == pytest.approx(0.855 / 0.86)
    assert theory.conditional(0.7, 0.6)["p"].sum() == pytest.approx(1)
    assert len(theory.conditional(1.0, 1.0)) == 2  # inputs that cannot occur are left out


# ---- ridge regression with a core and a spurious feature


@pytest.mark.parametrize("problem", [(1.0, 1.0, 1.0), (0.5, 3.0, 0.4)])
@pytest.mark.parametrize("decay", [1e-3, 3.0])
def test_ridge_in_closed_form_is_sklearns_ridge(problem, decay):
    names = dict(zip(("core", "spurious", "noise"), problem, strict=True))
    x, y = theory.two_features(200, RNG(), **names)
    sklearn = Ridge(alpha=len(y) * decay, fit_intercept=False).fit(x.numpy(), y.numpy()).coef_
    np.testing.assert_allclose(theory.ridge_weights(decay, **names), sklearn, rtol=1e-9)


def test_decay_switches_the_spurious_feature_on():
    core, spurious = theory.ridge_weights(np.array([0.0, 1e-3, 1.0, 1e3]))
    assert core[0] == 1 and spurious[0] == 0 and (spurious[1:] > 0).all()
    r = theory.reliance(np.geomspace(1e-4, 1e8, 40), core=1.0, spurious=3.0, noise=0.5)
    assert (np.diff(r) > 0).all() and r[-1] == pytest.approx(9, rel=1e-4)


def test_two_features_have_the_populations_moments():
    x, y = theory.two_features(60, RNG(3), core=0.5, spurious=2.0, noise=0.3)
    np.testing.assert_allclose(x.T @ x / 60, [[0.25, 1.0], [1.0, 4 * 1.09]], atol=1e-12)
    np.testing.assert_allclose(x.T @ y / 60, [0.5, 2.0], atol=1e-12)


def test_adam_with_l2_trains_to_the_closed_form_and_adamw_leans_more_as_its_decay_grows():
    table = theory.trained_reliance({"AdamW": [0.0, 0.3, 3.0], "Adam + L2": [0.1, 1.0]}, [0, 1])
    means = table.groupby(["arm", "dose"])["reliance"].mean()
    for l2 in (0.1, 1.0):  # the penalty's gradient ℓw belongs to ½ℓ‖w‖²
        assert means["Adam + L2", l2] == pytest.approx(float(theory.reliance(l2 / 2)), rel=0.03)
    assert abs(means["AdamW", 0.0]) < 0.01 < means["AdamW", 0.3] < means["AdamW", 3.0]
    # features of another size: the reliance is on what they add, not on their weights
    other = theory.trained_reliance({"Adam + L2": [0.3]}, [0, 1], core=0.5, spurious=2.0, noise=0.7)
    assert other["reliance"].mean() == pytest.approx(float(theory.reliance(0.15, 0.5, 2.0, 0.7)), rel=0.03)


def test_runs_at_a_dose_have_the_coefficient_of_their_arm():
    runs = theory.runs_at({"AdamW": [0.3], "Adam + L2": [0.1], "Adam": [0.5]}, 0.01, iter([4, 5]))
    first = runs[runs["seed"] == 4].set_index("arm")[["lr", "weight_decay", "l2"]]
    assert first.to_numpy().tolist() == [[0.01, 0.3, 0], [0.01, 0, 0.1], [0.5, 0, 0]] and len(runs) == 6


# ---- disturbed data


def test_a_quarter_turn_is_exact_and_both_ways_occur():
    x = torch.rand(40, 64, generator=RNG())
    turned = shifts.rotated(x, 90, RNG(5)).view(-1, 8, 8)
    ways = [
        [torch.allclose(t, torch.rot90(i, k), atol=1e-5) for k in (1, -1)]
        for t, i in zip(turned, x.view(-1, 8, 8), strict=True)
    ]
    assert all(any(way) for way in ways) and 5 < sum(way[0] for way in ways) < 35
    torch.testing.assert_close(shifts.rotated(x, 0, RNG()), x, atol=1e-6, rtol=0)


def test_noise_has_its_size_and_stays_in_range():
    x = torch.full((200, 64), 0.5)
    assert shifts.noised(x, 0.1, RNG()).std().item() == pytest.approx(0.1, rel=0.05)
    assert shifts.noised(x, 5.0, RNG()).aminmax() == (0, 1)


@pytest.mark.parametrize("agreement", [0.95, 0.05, 1.0, 0.0])
def test_the_bit_agrees_as_often_as_it_should_in_each_class(agreement):
    y = torch.tensor([0] * 100 + [1] * 40)
    agrees = shifts.winter_bit(y, agreement, RNG()) == y
    assert agrees[:100].sum() == round(100 * agreement) and agrees[100:].sum() == round(40 * agreement)


def test_winter_splits_have_a_bit_that_flips():
    x, y = torch.arange(200.0)[:, None], torch.arange(200) % 2
    parts = {"train": (x[:80], y[:80]), "flipped validation": (x[80:120], y[80:120]), "test": (x[120:], y[120:])}
    splits = shifts.winter_splits(parts, 0, agreement=0.9)
    assert list(splits) == [*parts, "flipped test"]
    for name, (inputs, targets) in splits.items():
        label, wrong = shifts.label_of(targets), shifts.group_of(targets)
        assert torch.equal(label, inputs[:, 0].long() % 2), name
        assert torch.equal(inputs[:, 1].long() != label, wrong == 1), name
        expected = 0.9 if "flipped" in name else 0.1
        assert wrong.float().mean().item() == pytest.approx(expected, abs=0.03), name


def test_noise_inputs_are_fresh_and_only_they_get_louder():
    x, y = torch.rand(90, 3, generator=RNG()), torch.arange(90) % 2
    splits = shifts.chance_splits({"train": (x[:45], y[:45]), "test": (x[45:], y[45:])}, 0, inputs=5, louder=3.0)
    (test, labels), (loud, same) = splits["test"], splits["louder test"]
    assert test.shape == (45, 8) and torch.equal(labels, same) and torch.equal(test[:, :3], loud[:, :3])
    torch.testing.assert_close(loud[:, 3:], 3 * test[:, 3:])
    assert (splits["train"][0][:, 3:] != test[:, 3:]).all()


def test_a_biased_sample_moves_p_x_and_not_p_y_given_x():
    score = torch.linspace(-1, 1, 20000, dtype=torch.float64)
    # the label's probability depends on the score: if the draw looked at the label, this would move
    y = (torch.rand(20000, generator=RNG(9)) < 0.5 + 0.3 * score).long()
    splits = shifts.biased_splits(
        score[:, None].float(), y, score, 0, train=5000, validation=2500, test=5000, strength=1.5
    )
    means = {name: inputs.mean().item() for name, (inputs, _) in splits.items()}
    assert means["train"] < -0.2 and abs(means["train"] - means["validation"]) < 0.05 and abs(means["test"]) < 0.05
    held, highest = splits["test"][0][:, 0], splits["highest fifth test"][0][:, 0]
    assert len(highest) == 1000 and highest.min() >= held.sort().values[3999]
    used = torch.cat([splits[name][0][:, 0] for name in ("train", "validation", "test")])
    assert len(used.unique()) == 12500  # disjoint
    drawn = used[:7500]
    assert (drawn < -0.8).sum() > 4 * (drawn > 0.8).sum()  # odds exp(−1.5 z) near the two ends
    middle = {n: labels[(x[:, 0] - 0.3).abs() < 0.2].float().mean().item() for n, (x, labels) in splits.items()}
    assert middle["train"] == pytest.approx(0.59, abs=0.06) and middle["test"] == pytest.approx(0.59, abs=0.06)


# ---- the tasks


@pytest.mark.parametrize("name", PROTOCOL.conditions)
def test_every_seed_has_the_same_test_part_and_meets_none_of_it_before(name):
    condition = PROTOCOL[name]
    one, other = condition.task.data(0), condition.task.data(1)
    standardized = name.startswith("small radius")  # by the training split, which differs
    for split in condition.judged:
        assert torch.equal(one[split][1], other[split][1]), split
        assert standardized or torch.equal(one[split][0], other[split][0]), split
    assert not torch.equal(one["train"][0], other["train"][0])
    images = 30 if standardized else 34 if "active" in name else 64  # what comes before a bit or noise inputs
    rows = [tuple(row) for split in ("train", *condition.seen, "test") for row in one[split][0][:, :images].tolist()]
    assert len(set(rows)) > len(rows) - 3  # the data hold a few images twice at most
    logits = condition.task.model()(one["train"][0])
    assert logits.shape == (len(one["train"][0]), 10 if name.startswith(("digits", "little ink")) else 2)


def test_shifts_disturb_the_test_images_alone():
    splits = tasks.shifted(4)
    test, labels = splits["test"]
    assert len(labels) == DIGITS_TEST and set(tasks.SHIFTED) < set(splits)
    for name in tasks.SHIFTED[1:]:
        assert torch.equal(splits[name][1], labels) and not torch.equal(splits[name][0], test)
    few = tasks.shifted(4, torch.tensor([20, 21]))
    assert torch.equal(few["pixel noise 0.3"][0], splits["pixel noise 0.3"][0][:, [20, 21]])


def test_the_biased_samples_are_of_little_ink_and_of_small_nuclei():
    ink = {name: x.mean().item() for name, (x, _) in tasks.ink(0).items()}
    assert ink["train"] < ink["test"] - 0.01 and ink["test"] < ink["highest fifth test"] - 0.02
    cells = tasks.radius(0)
    torch.testing.assert_close(cells["train"][0].std(0), torch.ones(30), atol=1e-4, rtol=0)
    assert cells["test"][0][:, 0].mean() > 0.3


LOGITS = torch.tensor([[[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 0.0]]])  # says 0, 1, 0, 0
TARGETS = torch.tensor([[0, 1, 1, 2]])  # labels 0, 1, 1, 0; the bit is wrong in the last


def test_accuracies_look_at_labels_and_at_groups():
    assert tasks.winter_accuracy(LOGITS, TARGETS).item() == 0.75
    assert tasks.balanced_accuracy(LOGITS, TARGETS).item() == pytest.approx((2 / 3 + 1) / 2)
    assert tasks.balanced_accuracy(LOGITS * torch.nan, TARGETS).item() == 0  # a diverged run


def test_the_balanced_loss_counts_both_groups_alike():
    each = functional.cross_entropy(LOGITS[0], torch.tensor([0, 1, 1, 0]), reduction="none")
    assert tasks.winter_loss(LOGITS, TARGETS).item() == pytest.approx(each.mean().item())
    weights = torch.tensor([0.5 / 0.95] * 3 + [0.5 / 0.05])
    assert tasks.balanced_loss(LOGITS, TARGETS).item() == pytest.approx((weights * each).mean().item())
    groups = torch.tensor([[0] * 95 + [2] * 5])
    assert tasks.group_weights(groups, 0.95).mean().item() == pytest.approx(1)


# ---- what is refused

X, Y = torch.rand(50, 64, generator=RNG()), torch.arange(50) % 2
PARTS = {"train": (X[:20], Y[:20]), "test": (X[20:], Y[20:])}
biased = partial(shifts.biased_splits, X, Y, seed=0, train=20, validation=10, test=10, strength=1.0)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: theory.conditional(0.5, 1.2), "agreement: 1.2; a probability between 0 and 1"),
        (lambda: theory.ridge_weights([1.0, math.nan]), "decay: nan; finite numbers of 0 or more"),
        (lambda: theory.reliance(1.0, noise=0.0), "noise: 0.0; a finite number above 0"),
        (lambda: theory.two_features(7, RNG()), "n: 7; an even number of at least 6"),
        (lambda: theory.trained_reliance({"SGD": [0.1]}, [0]), r"doses: the arms \['SGD'\]; at least one of 'AdamW'"),
        (lambda: theory.runs_at({}, 0.1, [0]), r"doses: the arms \[\]; at least one of 'AdamW'"),
        (lambda: shifts.rotated(X[:, :60], 10, RNG()), r"x: torch.float32 of shape \(50, 60\); flat square images"),
        (lambda: shifts.rotated(X, math.nan, RNG()), "degrees: nan; a finite angle"),
        (lambda: shifts.noised(X, -1.0, RNG()), "sd: -1.0; a finite number of 0 or more"),
        (lambda: shifts.noised(2 + X.round(), 0.1, RNG()), r"x: values from 2 to 3; pixels in \[0, 1\]"),
        (lambda: shifts.winter_bit(Y + 1, 0.9, RNG()), r"y: .* labels \[1, 2\]; labels \(N,\), each 0 or 1"),
        (lambda: shifts.winter_bit(Y, 1.5, RNG()), "agreement: 1.5; a share between 0 and 1"),
        (lambda: shifts.chance_splits(PARTS, 0, inputs=0), "inputs: 0; a positive whole number"),
        (lambda: shifts.chance_splits(PARTS, 0, inputs=1, louder=math.nan), "louder: nan; a finite number"),
        (lambda: biased(score=X[:5, 0]), "score: .*; a finite number for each of the 50 examples"),
        (lambda: biased(score=torch.full((50,), 0.1)), "score: .* not all the same"),
        (lambda: biased(score=X[:, 0], strength=math.nan), "strength: nan; a finite number"),
        (lambda: biased(score=X[:, 0], validation=90), r"sizes\['validation'\]: 90; .* the 20 examples left"),
        (lambda: tasks.balanced_accuracy(LOGITS, TARGETS % 2), "targets: a replica has examples of one group only"),
        (lambda: tasks.group_weights(Y, 1.0), "agreement: 1.0; .* both groups must occur"),
    ],
)
def test_bad_input_is_named_with_what_would_do(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# ---- the dose


def test_the_largest_weights_are_found_where_they_are():
    first, last = torch.zeros(2, 3, 65), torch.zeros(2, 2, 3)
    first[0, 1, 64], first[0, 2, 7], first[1, 0, 0], last[1, 0, 2] = -4.0, 3.0, 1.0, -5.0
    parameters = {"layers.0.weight": first, "norms.0.weight": torch.full((2, 3), 9.0), "layers.1.weight": last}
    found = dose.weights(Snapshot(1, pd.DataFrame(), parameters, {}, {}))
    assert {name: value.tolist() for name, value in found.items()} == {
        "largest weight": [4, 5], "largest weight on the bit": [4, 0], "largest weight on a pixel": [3, 1]
    }  # fmt: skip


def test_a_strong_decoupled_decay_holds_every_weight_in_its_box_and_a_strong_penalty_does_not(monkeypatch):
    monkeypatch.setitem(dose.DOSE, "doses", {"AdamW": [10.0], "Adam + L2": [0.1]})
    monkeypatch.setitem(dose.DOSE, "conditions", ["bit · MLP"])
    table = dose.dose_response([500, 501])
    means = table.groupby(["arm", "metric"])["value"].mean()
    assert 0.8 < 10 * means["AdamW", "largest weight"] < 1.3
    l2_bit, l2_pixel = (means["Adam + L2", f"largest weight on {where}"] for where in ("the bit", "a pixel"))
    assert l2_bit > 2 * l2_pixel
    assert means["AdamW", "flipped test accuracy"] > means["Adam + L2", "flipped test accuracy"] + 0.2


# ---- the protocol


def test_every_regime_reads_a_split_that_its_condition_is_judged_on():
    for claim, contrast in PROTOCOL.claims.items():
        assert claim.primary in contrast.regimes and claim.smallest_effect == 0.01
        for one in contrast.regimes.values():
            condition = PROTOCOL[one.condition]
            assert one.metric.removesuffix(" accuracy") in condition.judged
            assert one.rule is None or one.rule in condition.rules
    assert PROTOCOL.primary_condition(study.SHIFT) == "digits · CNN, GroupNorm"
    assert {claim: contrast.control.name for claim, contrast in PROTOCOL.claims.items()} == {
        study.SPURIOUS: "Adam", study.KIND: "Adam + L2", study.SHIFT: "Adam + L2"
    }  # fmt: skip


def test_ranges_are_equally_wide_and_tuning_sees_no_test_data():
    for name, condition in PROTOCOL.conditions.items():
        wide = [condition.search[decay][1] / condition.search[decay][0] for decay in ("weight_decay", "l2")]
        assert wide[0] == pytest.approx(wide[1]) and 200 <= wide[0] <= 600 and condition.search["count"] >= 24, name
        assert not any("test" in split for split in condition.seen)
        assert list(condition.rules)[0] == "accuracy" and "flipped" not in condition.rules["accuracy"]
    assert not set(PROTOCOL.tuning_seeds) & set(PROTOCOL.evaluation_seeds)
    assert any("Norm" in name for name in PROTOCOL.conditions)


def test_the_oracle_is_tuned_on_flipped_validation_data_in_the_same_runs():
    name = "bit · linear"
    table = PROTOCOL.tune(name, seeds=[0, 1], count=6)
    assert set(table["metric"]) == {"validation accuracy", "flipped validation accuracy"}
    chosen = PROTOCOL.choose(table)
    assert set(chosen["rule"]) == {"accuracy", "oracle"}
    won = chosen[chosen["winner"] & (chosen["arm"] == "Adam")].set_index("rule")["score"]
    best = table[table["arm"] == "Adam"].groupby(["metric", "lr"])["value"].mean().groupby("metric").max()
    assert won["oracle"] == best["flipped validation accuracy"] and won["accuracy"] == best["validation accuracy"]


@pytest.mark.parametrize("claim", PROTOCOL.claims, ids=lambda claim: claim.id)
def test_the_recorded_verdict_follows_from_the_recorded_tables(claim):
    record = ledger.read(claim.id)
    assert record.claim == claim and set(record.effects) == set(PROTOCOL.claims[claim].regimes)
    effects = STUDY.effects(record.tables)[claim.id]
    assert verdict(claim, effects) == record.verdict
    for regime, effect in effects.items():
        assert effect.metric == claim.metric and effect.n == len(PROTOCOL.evaluation_seeds)
        assert effect.mean == pytest.approx(record.effects[regime].mean, abs=1e-6), regime
