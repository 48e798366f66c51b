"""Robustness · covariate shift: closed forms against others' code, and disturbed data whose answer is known."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge
from torch.nn import functional

from adamw_book.data import digits, generator
from adamw_book.evidence import grid, judge
from adamw_book.scenarios import covariate_shift as scenario
from adamw_book.scenarios.covariate_shift import conditions

RNG = lambda seed=0: torch.Generator().manual_seed(seed)  # noqa: E731


# ---- what moves


def test_a_flip_leaves_p_y_given_x_alone_only_where_the_core_decides_the_label():
    winter, summer = (scenario.conditional(1.0, share) for share in (0.95, 0.05))
    assert winter["p_y"].tolist() == summer["p_y"].tolist() == [0, 0, 1, 1]
    assert winter["p"].tolist() == pytest.approx([0.475, 0.025, 0.025, 0.475])
    assert summer["p"].tolist() == pytest.approx([0.025, 0.475, 0.475, 0.025])
    winter, summer = (scenario.conditional(0.9, share).set_index(["core", "bit"])["p_y"] for share in (0.95, 0.05))
    # Bayes by hand: p(y=1 | core 1, bit 0) = .9·.05 / (.9·.05 + .1·.95)
    assert winter[1, 0] == pytest.approx(0.045 / 0.14) and summer[1, 0] == pytest.approx(0.855 / 0.86)


def test_probabilities_sum_to_one_and_impossible_inputs_are_left_out():
    assert scenario.conditional(0.7, 0.6)["p"].sum() == pytest.approx(1)
    assert len(scenario.conditional(1.0, 1.0)) == 2
    with pytest.raises(ValueError, match="agreement: 1.2; a probability between 0 and 1"):
        scenario.conditional(0.5, 1.2)


# ---- F12


@pytest.mark.parametrize("problem", [(1.0, 1.0, 1.0), (1.0, 2.0, 0.7), (0.5, 3.0, 0.4)])
@pytest.mark.parametrize("decay", [1e-3, 0.1, 3.0])
def test_ridge_in_closed_form_is_sklearns_ridge(problem, decay):
    names = dict(zip(("core", "spurious", "noise"), problem, strict=True))
    x, y = scenario.two_features(200, RNG(), **names)
    sklearn = Ridge(alpha=len(y) * decay, fit_intercept=False).fit(x.numpy(), y.numpy()).coef_
    np.testing.assert_allclose(scenario.ridge_weights(decay, **names), sklearn, rtol=1e-9)


def test_decay_switches_the_spurious_feature_on():
    core, spurious = scenario.ridge_weights(np.array([0.0, 1e-3, 1.0, 1e3]))
    assert core[0] == 1 and spurious[0] == 0 and (spurious[1:] > 0).all()
    rho = scenario.reliance(np.geomspace(1e-4, 1e8, 40), core=1.0, spurious=3.0, noise=0.5)
    assert (np.diff(rho) > 0).all() and rho[-1] == pytest.approx(9, rel=1e-4)
    lam = np.array([0.2, 5.0])
    np.testing.assert_allclose(scenario.reliance(lam, 0.5, 2.0, 0.3), 4 * lam / (0.25 * (4 * 0.09 + lam)), rtol=1e-12)


@pytest.mark.parametrize("flipped", [False, True])
def test_the_accuracy_of_a_reliance_is_that_of_a_large_sample(flipped):
    w_core, w_spurious = scenario.ridge_weights(0.8, 1.0, 1.5, 0.7)
    y = torch.randint(0, 2, (400_000,), generator=RNG(1)) * 2.0 - 1
    spurious = 1.5 * ((-y if flipped else y) + 0.7 * torch.randn(len(y), generator=RNG(2)))
    right = ((float(w_core) * y + float(w_spurious) * spurious).sign() == y).float().mean()
    rho = scenario.reliance(0.8, 1.0, 1.5, 0.7)
    assert scenario.accuracy_of(rho, 0.7, flipped) == pytest.approx(right.item(), abs=0.003)


def test_without_reliance_nothing_can_be_flipped():
    assert scenario.accuracy_of(0.0, 0.5, flipped=True) == 1
    assert scenario.accuracy_of(1.0, 0.5, flipped=True) == pytest.approx(0.5)


def test_two_features_have_the_populations_moments():
    x, y = scenario.two_features(60, RNG(3), core=0.5, spurious=2.0, noise=0.3)
    assert y.sum() == 0 and torch.equal(x[:, 0], 0.5 * y)
    np.testing.assert_allclose(x.T @ x / 60, [[0.25, 1.0], [1.0, 4 * 1.09]], atol=1e-12)
    np.testing.assert_allclose(x.T @ y / 60, [0.5, 2.0], atol=1e-12)


def test_adam_with_l2_trains_to_the_closed_form_and_adamw_leans_more_as_its_decay_grows():
    table = scenario.trained_reliance({"AdamW": [0.0, 0.3, 3.0], "Adam + L2": [0.1, 1.0]}, [0, 1])
    means = table.groupby(["arm", "dose"])["reliance"].mean()
    # the penalty's gradient ℓw belongs to ½ℓ‖w‖²
    for l2 in (0.1, 1.0):
        assert means["Adam + L2", l2] == pytest.approx(float(scenario.reliance(l2 / 2)), rel=0.03)
    # features of another size: the reliance is on what they add, not on their weights
    other = scenario.trained_reliance({"Adam + L2": [0.3]}, [0, 1], core=0.5, spurious=2.0, noise=0.7)
    assert other["reliance"].mean() == pytest.approx(float(scenario.reliance(0.15, 0.5, 2.0, 0.7)), rel=0.03)
    assert abs(means["AdamW", 0.0]) < 0.01 < means["AdamW", 0.3] < means["AdamW", 3.0]


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: scenario.ridge_weights(-1.0), "decay: -1.0; finite numbers of 0 or more"),
        (lambda: scenario.reliance(1.0, noise=0.0), "noise: 0.0; a finite number above 0"),
        (lambda: scenario.accuracy_of(-0.1), "r: -0.1; numbers of 0 or more"),
        (lambda: scenario.two_features(7, RNG()), "n: 7; an even number of at least 6"),
        (lambda: scenario.trained_reliance({"SGD": [0.1]}, [0]), r"doses: the arms \['SGD'\]; at least one of 'AdamW'"),
        (lambda: scenario.trained_reliance({}, [0]), r"doses: the arms \[\]; at least one of 'AdamW'"),
        (lambda: scenario.ridge_weights([1.0, math.nan]), "decay: nan; finite numbers of 0 or more"),
        (lambda: scenario.reliance(math.inf), "decay: inf; finite numbers of 0 or more"),
        (lambda: scenario.accuracy_of(math.nan), "r: nan; numbers of 0 or more"),
        (lambda: scenario.two_features(8, RNG(), core=math.inf), "core: inf; a finite number above 0"),
    ],
)
def test_theory_refuses(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# ---- disturbed data


def test_a_quarter_turn_is_exact_and_both_ways_occur():
    x = torch.rand(40, 64, generator=RNG())
    turned = scenario.rotated(x, 90, RNG(5)).view(-1, 8, 8)
    ways = [
        [torch.allclose(t, torch.rot90(i, k), atol=1e-5) for k in (1, -1)]
        for t, i in zip(turned, x.view(-1, 8, 8), strict=True)
    ]
    assert all(any(way) for way in ways) and 5 < sum(way[0] for way in ways) < 35
    torch.testing.assert_close(scenario.rotated(x, 0, RNG()), x, atol=1e-6, rtol=0)
    torch.testing.assert_close(scenario.rotated(x.double(), 90, RNG(5)).float(), turned.flatten(1))


def test_noise_has_its_size_and_stays_in_range():
    x = torch.full((200, 64), 0.5)
    noisy = scenario.noised(x, 0.1, RNG())
    assert noisy.std().item() == pytest.approx(0.1, rel=0.05)
    assert scenario.noised(x, 5.0, RNG()).aminmax() == (0, 1)
    assert torch.equal(scenario.noised(x, 0.0, RNG()), x)


def test_only_silent_inputs_light_up():
    x = torch.rand(30, 4, generator=RNG())
    x[:, 2] = 0.25
    assert scenario.silent(x).tolist() == [False, False, True, False]
    changed = scenario.lit(x, scenario.silent(x), 0.5, RNG())
    assert torch.equal(changed[:, [0, 1, 3]], x[:, [0, 1, 3]])
    assert changed[:, 2].std() > 0.1 and changed[:, 2].max() <= 0.5 and (x[:, 2] == 0.25).all()


@pytest.mark.parametrize("agreement", [0.95, 0.05, 1.0, 0.0])
def test_the_bit_agrees_as_often_as_it_should_in_each_class(agreement):
    y = torch.tensor([0] * 100 + [1] * 40)
    agrees = scenario.winter_bit(y, agreement, RNG()) == y
    assert agrees[:100].sum() == round(100 * agreement) and agrees[100:].sum() == round(40 * agreement)


def test_winter_splits_are_disjoint_images_with_a_bit_that_flips():
    x, y = torch.arange(200.0)[:, None], torch.arange(200) % 2
    splits = scenario.winter_splits(x, y, 0, {"train": 80, "shifted validation": 40, "test": None}, agreement=0.9)
    assert {name: len(t) for name, (_, t) in splits.items()} == {
        "train": 80,
        "shifted validation": 40,
        "test": 80,
        "flipped test": 80,
    }
    images = torch.cat([splits[name][0][:, 0] for name in ("train", "shifted validation", "test")])
    assert images.sort().values.tolist() == list(range(200))
    assert torch.equal(splits["test"][0][:, 0], splits["flipped test"][0][:, 0])
    for name, (inputs, targets) in splits.items():
        label, wrong = scenario.label_of(targets), scenario.group_of(targets)
        assert torch.equal(label, inputs[:, 0].long() % 2), name
        assert torch.equal(inputs[:, 1].long() != label, wrong == 1), name
        expected = 0.9 if name in ("shifted validation", "flipped test") else 0.1
        assert wrong.float().mean().item() == pytest.approx(expected, abs=0.03), name


def test_noise_inputs_are_fresh_and_only_they_get_louder():
    x, y = torch.rand(90, 3, generator=RNG()), torch.arange(90) % 2
    splits = scenario.chance_splits(x, y, 0, {"train": 45, "test": None}, inputs=5, louder=3.0)
    (test, labels), (loud, same) = splits["test"], splits["louder test"]
    assert test.shape == (45, 8) and torch.equal(labels, same) and torch.equal(test[:, :3], loud[:, :3])
    torch.testing.assert_close(loud[:, 3:], 3 * test[:, 3:])
    assert (splits["train"][0][:, 3:] != test[:, 3:]).all()


def test_shifted_splits_disturb_the_test_images_alone():
    x, y = digits()
    sizes = {"train": 300, "validation": 100, "test": None}
    splits = scenario.shifted_splits(x, y, 4, sizes, rotation=[0, 30], noise=[0.2], light=1.0)
    assert list(splits) == [
        "train",
        "validation",
        "test",
        "rotation 0°",
        "rotation 30°",
        "pixel noise 0.2",
        "silent pixels",
    ]
    test = splits["test"][0]
    torch.testing.assert_close(splits["rotation 0°"][0], test, atol=1e-6, rtol=0)
    for name in ("rotation 30°", "pixel noise 0.2", "silent pixels"):
        assert torch.equal(splits[name][1], splits["test"][1]) and not torch.equal(splits[name][0], test)
    quiet = scenario.silent(splits["train"][0])
    assert 0 < quiet.sum() < 20
    assert torch.equal(splits["silent pixels"][0][:, ~quiet], test[:, ~quiet])
    assert (splits["silent pixels"][0][:, quiet].std(0) > 0.2).all()
    few = scenario.shifted_splits(x, y, 4, sizes, noise=[0.2], columns=torch.tensor([20, 21]))
    assert torch.equal(few["test"][0], test[:, [20, 21]]) and few["pixel noise 0.2"][0].shape == (1397, 2)


def test_a_biased_sample_moves_p_x_and_not_p_y_given_x():
    score = torch.linspace(-1, 1, 4000, dtype=torch.float64)
    # the label's probability depends on the score: if the draw looked at the label, this would move
    y = (torch.rand(4000, generator=RNG(9)) < 0.5 + 0.3 * score).long()
    x = score[:, None].float()
    groups = ["low", "high"]
    splits = scenario.reweighted_splits(x, y, score, 0, {"train": 1000, "validation": 500}, 1.5, groups)
    means = {name: inputs.mean().item() for name, (inputs, _) in splits.items()}
    assert means["train"] < -0.2 and abs(means["train"] - means["validation"]) < 0.1 and means["high"] > 0.3
    assert splits["low"][0].max() <= splits["high"][0].min()
    # odds exp(−1.5 z): drawn shares near the two ends
    drawn = torch.cat([splits[n][0][:, 0] for n in ("train", "validation")])
    assert (drawn < -0.8).sum() > 4 * (drawn > 0.8).sum()
    kept = torch.cat([splits[n][0][:, 0] for n in splits]).sort().values
    assert torch.equal(kept, x[:, 0])  # every example once
    middle = {
        n: labels[(inputs[:, 0] - 0.3).abs() < 0.2].float().mean().item() for n, (inputs, labels) in splits.items()
    }
    assert middle["train"] == pytest.approx(0.59, abs=0.1) and middle["high"] == pytest.approx(0.59, abs=0.1)


def test_strength_zero_is_an_ordinary_split_and_scaling_uses_the_training_split():
    x, y = torch.randn(500, 2, generator=RNG()) * 3 + 7, torch.arange(500) % 2
    splits = scenario.reweighted_splits(
        x, y, x[:, 0], 0, {"train": 200, "validation": 50}, 0.0, ["rest"], standardize=True
    )
    assert abs(splits["rest"][0].mean().item()) < 0.15
    torch.testing.assert_close(splits["train"][0].mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(splits["train"][0].std(0), torch.ones(2), atol=1e-5, rtol=0)


def reweighted(**change):
    given = {"score": X[:, 0], "seed": 0, "sizes": {"train": 9}, "strength": 1.0, "groups": ["a"]} | change
    return scenario.reweighted_splits(X, Y, **given)


def test_whole_numbers_score_as_the_same_floats_do_and_groups_may_come_one_by_one():
    ranks = torch.arange(50)
    found = reweighted(score=ranks, groups=iter(["low", "high"]))
    for name, (inputs, labels) in reweighted(score=ranks.double(), groups=["low", "high"]).items():
        assert torch.equal(found[name][0], inputs) and torch.equal(found[name][1], labels)


def test_seeds_may_come_one_by_one():
    doses = {"AdamW": [0.1], "Adam + L2": [0.1]}
    assert scenario.trained_reliance(doses, iter([0, 1]), steps=2).groupby("arm").size().tolist() == [2, 2]


X, Y = torch.rand(50, 64, generator=RNG()), torch.arange(50) % 2


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: scenario.rotated(X[:, :60], 10, RNG()), r"x: torch.float32 of shape \(50, 60\); flat square images"),
        (lambda: scenario.rotated(X[0], 10, RNG()), r"of shape \(64,\); flat square images"),
        (lambda: scenario.rotated(X[:0], 10, RNG()), r"of shape \(0, 64\); flat square images"),
        (lambda: scenario.rotated(X.long(), 10, RNG()), "x: torch.int64 of shape .* of floats are needed"),
        (lambda: scenario.rotated(X, math.nan, RNG()), "degrees: nan; a finite angle"),
        (lambda: scenario.noised(X, -1.0, RNG()), "sd: -1.0; a finite number of 0 or more"),
        (lambda: scenario.noised(X, math.nan, RNG()), "sd: nan; a finite number of 0 or more"),
        (lambda: scenario.noised(2 + X.round(), 0.1, RNG()), r"x: values from 2 to 3; pixels in \[0, 1\]"),
        (lambda: scenario.silent(X[:0]), r"x: shape \(0, 64\); \(N, D\) with at least one example"),
        (
            lambda: scenario.lit(X, torch.ones(64).bool(), math.nan, RNG()),
            "level: torch.float32, nan; .* a finite level",
        ),
        (lambda: scenario.lit(X.long(), torch.ones(64).bool(), 1.0, RNG()), "torch.int64, 1.0; floating-point inputs"),
        (lambda: scenario.lit(X, torch.ones(3).bool(), 1.0, RNG()), "one bool for each of the 64 inputs"),
        (lambda: scenario.winter_bit(Y + 1, 0.9, RNG()), r"y: labels \[1, 2\]; .* each 0 or 1"),
        (lambda: scenario.winter_bit(Y[:0], 0.9, RNG()), "at least one label"),
        (lambda: scenario.winter_bit(Y, 1.5, RNG()), "agreement: 1.5; a share between 0 and 1"),
        (lambda: scenario.winter_bit(Y.view(10, 5), 0.9, RNG()), r"y: shape \(10, 5\); one label for each example"),
        (
            lambda: scenario.winter_splits(X, Y, 0, {"train": 9}),
            r"sizes: {'train': 9}; 'test' must be among the splits, and",
        ),
        (
            lambda: scenario.winter_splits(X, Y, 0, {"flipped test": 9, "test": None}),
            "'flipped test' must not, for it is made here",
        ),
        (
            lambda: scenario.chance_splits(X, Y, 0, {"train": 9}, inputs=1),
            "'test' must be among the splits, and 'louder test' must not",
        ),
        (lambda: scenario.chance_splits(X, Y, 0, {"test": 9}, inputs=1, louder=math.nan), "louder: nan; a finite"),
        (lambda: scenario.shifted_splits(X, Y, 0, {"test": 9}), "sizes: {'test': 9}; 'train' and 'test' must be among"),
        (
            lambda: scenario.shifted_splits(X, Y, 0, {"train": 9, "test": 9}, columns=torch.tensor([64])),
            r"columns: \[64\]; at least one, in 0…63",
        ),
        (lambda: scenario.winter_splits(X, Y, 0, {"train": 0, "test": None}), r"sizes\['train'\]: 0; .* the 50 ex"),
        (lambda: scenario.winter_splits(X, Y * 3, 0, {"train": 9, "test": None}), r"y: labels \[0, 3\]"),
        (lambda: scenario.chance_splits(X, Y, 0, {"train": 9, "test": None}, inputs=0), "inputs: 0; a positive whole"),
        (lambda: scenario.shifted_splits(X, Y, 0, {"train": 60, "test": None}), r"sizes\['train'\]: 60; .* the 50"),
        (lambda: scenario.reweighted_splits(X, Y, X[:5, 0], 0, {"train": 9}, 1.0, ["a"]), "one number for each"),
        (
            lambda: scenario.reweighted_splits(X, Y, X[:, 0], 0, {"train": 49}, 1.0, ["a", "b"]),
            "groups: 2 of them for the 1",
        ),
        (lambda: scenario.reweighted_splits(X, Y, X[:, 0], 0, {"train": 9}, 1.0, []), "at least one group"),
        (lambda: reweighted(score=torch.full((50,), 0.1)), r"score: the values are \[0.1.*\]; .* not all the same"),
        (lambda: reweighted(score=torch.where(Y == 0, torch.nan, X[:, 0])), "score: .*; finite numbers"),
        (lambda: reweighted(score=torch.where(Y == 0, -torch.inf, X[:, 0])), r"score: the values are \[-inf, .*finite"),
        (lambda: reweighted(strength=math.nan), "strength: nan; a finite number"),
        (lambda: reweighted(sizes={"train": None}), "sizes: {'train': None}; a positive whole number of examples"),
        (lambda: reweighted(sizes={"train": 20, "validation": -5}), "sizes: .*-5}; a positive whole number"),
        (lambda: reweighted(sizes={"validation": 5}), "sizes: {'validation': 5}; 'train' must be among"),
        (lambda: reweighted(groups=["a", "a"]), r"groups: \['a', 'a'\] beside .*; distinct names"),
        (lambda: reweighted(groups=["train"]), r"groups: \['train'\] beside the splits \['train'\]; distinct names"),
        (lambda: scenario.balanced_accuracy(LOGITS, TARGETS % 2), "targets: a replica has examples of one group only"),
        (lambda: scenario.choose(pd.DataFrame(columns=["condition"])), "tuning: the table is empty"),
        (lambda: scenario.group_weights(Y, 1.0), "agreement: 1.0; .* both groups must occur"),
        (lambda: scenario.arms("quadratic"), "own: 'quadratic' is no grid; choose from 'default'"),
        (lambda: scenario.train_condition("autumn", None, ()), "'autumn' is no condition; .* 'digits, MLP'"),
        (lambda: scenario.judged_on("autumn"), "'autumn' is no condition"),
    ],
)
def test_bad_input_is_named_with_what_would_do(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# ---- losses and metrics


LOGITS = torch.tensor([[[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 0.0]]])  # says 0, 1, 0, 0
TARGETS = torch.tensor([[0, 1, 1, 2]])  # labels 0, 1, 1, 0; the bit is wrong in the last


def test_accuracies_look_at_labels_and_at_groups():
    assert scenario.winter_accuracy(LOGITS, TARGETS).item() == 0.75
    assert scenario.balanced_accuracy(LOGITS, TARGETS).item() == pytest.approx((2 / 3 + 1) / 2)
    assert scenario.balanced_accuracy(LOGITS * torch.nan, TARGETS).item() == 0  # a diverged run


def test_the_balanced_loss_counts_both_groups_alike():
    each = functional.cross_entropy(LOGITS[0], torch.tensor([0, 1, 1, 0]), reduction="none")
    assert scenario.winter_loss(LOGITS, TARGETS).item() == pytest.approx(each.mean().item())
    weights = torch.tensor([0.5 / 0.95] * 3 + [0.5 / 0.05])
    assert scenario.balanced_loss(LOGITS, TARGETS).item() == pytest.approx((weights * each).mean().item())
    groups = torch.tensor([[0] * 95 + [2] * 5])
    assert scenario.group_weights(groups, 0.95).mean().item() == pytest.approx(1)


# ---- the protocol


def test_grids_are_of_one_size_and_no_step_overshoots():
    for own, axes in conditions.GRIDS.items():
        runs = grid(scenario.arms(own), [0])  # refuses unequal budgets
        assert (runs.groupby("arm").size() == 30).all()
        assert max(axes["lr"]) * max(axes["weight_decay"]) < 1
    assert scenario.DOSE["lr"] * max(scenario.DOSE["weight_decay"]) < 1
    assert not set(scenario.SETTINGS["tuning_seeds"]) & set(scenario.SETTINGS["evaluation_seeds"])


def test_every_condition_has_data_that_fits_its_model():
    for name, (task, own, metric) in scenario.CONDITIONS.items():
        splits = task.data(0)
        logits = task.model()(splits["train"][0])
        classes = 10 if "digits" in name or "ink" in name else 2
        assert logits.shape == (len(splits["train"][0]), classes) and own in conditions.GRIDS, name
        assert metric.split(" ", 1)[1] in task.metrics and "validation" in splits
        assert ("shifted validation" in splits) == (name in scenario.WITH_ORACLE)


def test_the_biased_samples_are_of_little_ink_and_of_small_nuclei():
    splits = scenario.CONDITIONS["re-weighted by ink, MLP"][0].data(0)
    ink = {name: x.mean(1) for name, (x, _) in splits.items()}
    groups = scenario.SETTINGS["ink"]["groups"]
    assert all(ink[a].max() <= ink[b].min() for a, b in itertools.pairwise(groups))
    assert ink["train"].mean() < ink[groups[2]].mean() - 0.02
    splits = scenario.CONDITIONS["re-weighted by radius, MLP"][0].data(0)
    torch.testing.assert_close(splits["train"][0].std(0), torch.ones(30), atol=1e-4, rtol=0)
    torch.testing.assert_close(splits["train"][0].mean(0), torch.zeros(30), atol=1e-4, rtol=0)
    assert splits["the rest"][0][:, 0].mean() > 0.5


def test_every_regime_reads_a_split_that_its_condition_has():
    for claim in scenario.STUDY.claims:
        for condition, metric in scenario.REGIMES[claim.id].values():
            assert metric.removesuffix(" accuracy") in scenario.judged_on(condition)
        assert set(scenario.HEADLINE[claim.id]) <= set(scenario.REGIMES[claim.id])


@pytest.mark.filterwarnings("ignore::adamw_book.evidence.EdgeWarning")
def test_no_condition_is_tuned_or_chosen_on_test_data(monkeypatch):
    asked, seeds = [], {}

    def train_condition(name, runs, evaluate, **options):
        asked.append(tuple(evaluate))
        seeds[name] = sorted(set(runs["seed"]))
        tables = [
            runs.assign(step=400, metric=f"{s} {m}", value=0.5)
            for s in evaluate
            for m in ("accuracy", "balanced accuracy")
        ]
        return pd.concat(tables, ignore_index=True).assign(condition=name)

    monkeypatch.setattr(conditions, "train_condition", train_condition)
    tables = [scenario.tune(name) for name in scenario.CONDITIONS]
    assert not any("test" in split for splits in asked for split in splits)
    assert {split for splits in asked for split in splits} == {"validation", "shifted validation"}
    tuning, few = scenario.SETTINGS["tuning_seeds"], scenario.SETTINGS["fewer_tuning_seeds"]
    assert seeds == {name: tuning[: few.get(name)] for name in scenario.CONDITIONS} and len(seeds["digits, CNN"]) == 10
    winners = scenario.choose(pd.concat(tables, ignore_index=True))
    counts = winners.groupby("chosen_on").size()
    assert counts[scenario.IN_DISTRIBUTION] == 3 * len(scenario.CONDITIONS)
    assert counts[scenario.ORACLE] == 3 * len(scenario.WITH_ORACLE)


def test_the_oracle_chooses_on_shifted_validation_data():
    rows = [("AdamW", 0.01, 0.9, 0.2), ("AdamW", 0.02, 0.8, 0.6), ("AdamW", 0.03, 0.7, 0.1)]
    table = pd.concat(
        pd.DataFrame([(arm, lr, v) for arm, lr, *vs in rows for v in [vs[i]]], columns=["arm", "lr", "value"]).assign(
            metric=m
        )
        for i, m in enumerate(("validation accuracy", "shifted validation accuracy"))
    ).assign(weight_decay=0.0, l2=0.0, seed=0, step=400, condition="spurious bit, linear")
    with pytest.warns(UserWarning, match="edge"):
        chosen = scenario.choose(table).set_index("chosen_on")["lr"]
    assert chosen.to_dict() == {scenario.IN_DISTRIBUTION: 0.01, scenario.ORACLE: 0.02}


def made_up(seeds, gain):
    """A table of evaluation in which AdamW is ahead by ``gain`` on every test split."""
    rows = [
        {"arm": arm, "condition": name, "chosen_on": on, "seed": seed, "step": 400, "metric": f"{split} accuracy",
         "value": 0.5 + (arm == "AdamW") * (gain if on == scenario.IN_DISTRIBUTION else 0.3) + 0.001 * seed}
        for name in scenario.CONDITIONS for split in scenario.judged_on(name)
        for on in [scenario.IN_DISTRIBUTION] + [scenario.ORACLE] * (name in scenario.WITH_ORACLE)
        for arm in ("AdamW", "Adam + L2", "Adam") for seed in seeds
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("gain, verdict", [(0.02, "supported"), (-0.02, "refuted")])
def test_effects_are_of_the_tuned_arms_and_positive_where_adamw_is_ahead(gain, verdict):
    effects = scenario.STUDY.effects({"evaluation": made_up(range(6), gain)})
    assert {claim: set(found) for claim, found in effects.items()} == {c: set(r) for c, r in scenario.REGIMES.items()}
    for claim in scenario.STUDY.claims:
        for effect in effects[claim.id].values():
            assert effect.mean == pytest.approx(gain) and judge(effect, claim.smallest_effect) == verdict
            assert effect.treatment == "AdamW" and effect.metric == claim.metric
    assert {e.control for e in effects[scenario.SPURIOUS.id].values()} == {"Adam"}
    assert {e.control for e in effects[scenario.SPURIOUS_KIND.id].values()} == {"Adam + L2"}


def test_the_headline_retrains_the_recorded_winners_on_the_seeds_it_is_given(monkeypatch):
    asked = []

    def evaluate_winners(name, winners, seeds):
        assert set(winners["chosen_on"]) == {scenario.IN_DISTRIBUTION}
        asked.append(name)
        table = made_up(seeds, 0.02)
        return table[(table["condition"] == name) & (table["chosen_on"] == scenario.IN_DISTRIBUTION)]

    monkeypatch.setattr(scenario, "evaluate_winners", evaluate_winners)
    winners = pd.DataFrame({"chosen_on": [scenario.IN_DISTRIBUTION, scenario.ORACLE]})
    effects = scenario.STUDY.headline({"winners": winners}, list(range(300, 306)))
    assert {claim: list(found) for claim, found in effects.items()} == scenario.HEADLINE
    assert all(e.differences.index.tolist() == list(range(300, 306)) for f in effects.values() for e in f.values())
    assert len(asked) == len(set(asked))


def test_winners_are_retrained_on_fresh_seeds_of_their_own_condition(monkeypatch):
    name = "re-weighted by radius, MLP"
    winners = pd.DataFrame([("AdamW", name, 0.01, 0.1, 0.0)], columns=["arm", "condition", "lr", "weight_decay", "l2"])
    winners = winners.assign(score=0.9, n_seeds=20, edge="", chosen_on=scenario.IN_DISTRIBUTION)
    monkeypatch.setitem(scenario.SETTINGS, "steps", 3)
    table = scenario.evaluate_winners(name, winners, [300, 301])
    assert set(table["metric"]) == {"the rest accuracy"} and table["seed"].tolist() == [300, 301]
    assert set(table["chosen_on"]) == {scenario.IN_DISTRIBUTION} and set(table["condition"]) == {name}
    with pytest.raises(ValueError, match="seeds 3 were used for tuning"):
        scenario.evaluate_winners(name, winners, [3, 300])
    with pytest.raises(ValueError, match="winners: none for the condition 'digits, MLP'"):
        scenario.evaluate_winners("digits, MLP", winners, [300])


def test_doses_are_run_plain_and_balanced():
    dose = scenario.DOSE | {"weight_decay": [0.0, 1.0], "l2": [0.01]}
    table = conditions.dose_response(iter([500]), dose)
    assert table.groupby(["condition", "metric"]).size().to_dict() == {
        (c, m): 3 for c in dose["conditions"] for m in ("test accuracy", "flipped test accuracy")
    }
    assert math.isclose(table["lr"].unique().item(), dose["lr"])


def test_generators_of_the_shift_and_of_the_split_are_independent():
    assert generator(4, "shift").initial_seed() != generator(4, "data").initial_seed()
