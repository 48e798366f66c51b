"""Designs by one law, the choice and its rivals, and intervals that cover both tuning and evaluation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from adamw_book.arms import ADAM, ADAM_L2, ADAMW, INDEPENDENT, THREE
from adamw_book.evidence import (
    CONFIGURATION,
    MIN_SEEDS,
    Claim,
    Effect,
    Side,
    choose,
    comparable,
    comparison,
    decide,
    divided,
    edge_of,
    holm,
    judgements,
    picks,
    pooled,
    resampled_counts,
    scores_of,
    search,
    smoothed,
    surviving,
    verdict,
)
from adamw_book.evidence.tuned import _jackknife

RANGES = {"lr": (1e-3, 1e-1), "weight_decay": (0.1, 100.0), "l2": (1e-4, 1e-1), "count": 30}

# ---- arms


def test_an_arm_has_its_own_coefficient_and_no_other():
    assert ADAMW.coefficients(0.3) == {"weight_decay": 0.3, "l2": 0.0} and ADAMW.absent == ("l2",)
    assert ADAM_L2.coefficients(0.3) == {"weight_decay": 0.0, "l2": 0.3} and ADAM_L2.absent == ("weight_decay",)
    assert ADAM.coefficients(0.3) == {"weight_decay": 0.0, "l2": 0.0} and ADAM.absent == ("weight_decay", "l2")
    assert INDEPENDENT.coefficients(0.3) == ADAMW.coefficients(0.3)


# ---- the search


def configurations(arm):
    runs = search(RANGES, [0, 1])
    return runs[(runs["arm"] == arm.name) & (runs["seed"] == 0)].reset_index(drop=True)


def test_every_arm_tries_the_same_learning_rates():
    rates = [configurations(arm)["lr"].tolist() for arm in THREE]
    assert rates[0] == rates[1] == rates[2] and len(set(rates[0])) == 30
    assert rates[0][0] == 1e-3 and rates[0][-1] == 1e-1
    np.testing.assert_allclose(np.diff(np.log(rates[0])), np.log(100) / 29, rtol=0.15)


def test_decays_cover_their_range_and_a_sixth_is_none():
    for arm, (low, high) in ((ADAMW, RANGES["weight_decay"]), (ADAM_L2, RANGES["l2"])):
        runs = configurations(arm)
        decays = runs[arm.decay]
        assert 4 <= (decays == 0).sum() <= 6 and (runs[list(arm.absent)] == 0).all().all()
        assert decays[decays > 0].min() >= 0.99 * low and decays.max() <= 1.01 * high
        # without the cap every fifth of the logarithmic range holds about a fifth of the decays
        if arm is ADAM_L2:
            logs = np.log(decays[decays > 0] / low) / np.log(high / low)
            assert (np.histogram(logs, 5, (0, 1.001))[0] >= 4).all()
    assert (configurations(ADAM)[["weight_decay", "l2"]] == 0).all().all()


def test_large_and_small_decays_meet_large_and_small_rates():
    runs = configurations(ADAM_L2)
    runs = runs[runs["l2"] > 0]
    upper = runs["lr"] > runs["lr"].median(), runs["l2"] > runs["l2"].median()
    assert min(pd.crosstab(*upper).to_numpy().ravel()) >= 5


def test_no_step_takes_more_than_nine_tenths_of_a_weight():
    runs = configurations(ADAMW)
    assert 0.85 < (runs["lr"] * runs["weight_decay"]).max() <= 0.9 * 1.005
    assert configurations(ADAM_L2)["l2"].max() > 0.08  # ℓ is not held to it


def test_each_seed_runs_every_configuration():
    runs = search(RANGES, iter([5, 3]))
    assert len(runs) == 180 and runs.groupby("seed")["lr"].nunique().to_dict() == {3: 30, 5: 30}


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"lr": (0.1, 0.1)}, r"ranges\['lr'\] is \(0.1, 0.1\); expected \(low, high\)"),
        ({"l2": (0.0, 0.1)}, r"ranges\['l2'\] is \(0.0, 0.1\)"),
        ({"weight_decay": (0.1, float("inf"))}, "expected .low, high. with 0 < low < high"),
        ({"count": 5}, r"ranges\['count'\]: 5; a whole number of at least 6"),
        ({"momentum": (0.1, 0.9)}, "ranges have the unknown 'momentum'; expected count, l2, lr, weight_decay"),
    ],
)
def test_a_search_refuses(changes, says):
    with pytest.raises(ValueError, match=says):
        search(RANGES | changes, [0])


def test_a_search_refuses_what_is_missing_and_repeated_seeds():
    with pytest.raises(ValueError, match="ranges lack 'l2'"):
        search({name: value for name, value in RANGES.items() if name != "l2"}, [0])
    with pytest.raises(ValueError, match=r"seeds repeat a value: \[1, 1\]"):
        search(RANGES, [1, 1])
    with pytest.raises(ValueError, match="seeds hold 0.5"):
        search(RANGES, [0.5])


# ---- the choice


def table(values, arm="AdamW", metric="validation accuracy", first=0, step=100):
    """A tidy table from {(lr, weight_decay, l2): values, one a seed}."""
    rows = [
        (arm, *configuration, first + seed, step, metric, value)
        for configuration, by_seed in values.items()
        for seed, value in enumerate(by_seed)
    ]
    return pd.DataFrame(rows, columns=["arm", *CONFIGURATION, "seed", "step", "metric", "value"])


A, B, C = (0.01, 0.1, 0.0), (0.02, 0.0, 0.0), (0.03, 0.2, 0.0)


def test_the_winner_comes_first_and_rivals_by_their_share():
    values = {A: [0.9, 0.9, 0.9, 0.5], B: [0.8, 0.8, 0.8, 0.7], C: [0.1, 0.1, 0.1, 0.1]}
    found = choose(table(values), "validation accuracy")
    assert found["lr"].tolist() == [0.01, 0.02] and found["winner"].tolist() == [True, False]
    assert found["score"].tolist() == pytest.approx([0.8, 0.775]) and found["share"].sum() == pytest.approx(1.0)
    # B wins where the fourth seed is drawn twice or more: 1 − (3/4)⁴ − 4·(1/4)(3/4)³
    assert found["share"].iloc[1] == pytest.approx(1 - 0.75**4 - 0.75**3, abs=0.03)


def test_what_wins_less_than_a_fiftieth_is_no_rival():
    rng = np.random.default_rng(0)
    values = {A: 0.9 + 0.01 * rng.normal(size=10), B: 0.87 + 0.01 * rng.normal(size=10)}
    assert len(choose(table(values), "validation accuracy")) == 1


def test_ties_go_to_the_smaller_decay_then_to_the_smaller_rate():
    same = [0.1 + 0.2, 0.3, 0.7]
    found = choose(table({A: same, B: [0.3, 0.1 + 0.2, 0.7], (0.015, 0.0, 0.0): same}), "validation accuracy")
    assert found["lr"].tolist() == [0.015]


@pytest.mark.parametrize("keep", [float, np.float32, "{:.6g}".format], ids=["measured", "single precision", "stored"])
@pytest.mark.parametrize(("low", "high", "whole"), [(570, 600, 600), (30, 90, 600), (7, 64, 7), (1, 9, 90_000)])
def test_a_tie_hangs_on_no_rounding_and_one_image_decides(low, high, whole, keep):
    """Shares of images, and numbers above 1, of ten seeds that add up to the same, or to one image more."""
    rng, once = np.random.default_rng(0), np.ones((1, 10), int)
    for _ in range(40):
        one = rng.integers(low, high, 10)
        other = one + rng.permutation([1, 2, -3, *[0] * 7])
        for rival, better in ((other, 0), (other + np.eye(10, dtype=int)[3], 1)):
            scores = pd.DataFrame(np.transpose([one, rival]) / whole).map(lambda value: float(keep(value)))
            assert picks(scores, once) == picks(-scores, once, higher_is_better=False) == better


def test_ties_in_what_else_is_tuned_go_to_the_first_in_its_own_order():
    runs = pd.concat([table({A: [0.5, 0.5], C: [0.5, 0.5]}).assign(warmup=warmup) for warmup in (3, 1, 2)])
    tuned = ("lr", "weight_decay", "l2", "warmup")
    in_order = scores_of(runs, "validation accuracy", tuned=tuned).columns.tolist()
    assert in_order == [(*one, warmup) for one in (A, C) for warmup in (1, 2, 3)]
    assert choose(runs, "validation accuracy", tuned=tuned)[list(tuned)].to_numpy().tolist() == [[*A, 1]]


def test_lower_is_better_where_it_is_said():
    values = {A: [1.0, 1.1], B: [2.0, 2.1]}
    assert choose(table(values), "validation accuracy", higher_is_better=False)["lr"].tolist() == [0.01]


def test_what_diverged_is_never_chosen():
    values = {A: [0.5, 0.5], B: [0.9, np.nan], C: [0.9, np.inf]}
    assert choose(table(values), "validation accuracy")["lr"].tolist() == [0.01]
    with pytest.raises(ValueError, match="every configuration has a value that is not finite"):
        choose(table({B: [0.9, np.nan]}), "validation accuracy")


def test_conditions_and_arms_are_chosen_apart_and_more_columns_may_be_tuned():
    one = table({A: [0.5, 0.5], B: [0.9, 0.9]}).assign(condition="x", warmup=1)
    two = table({A: [0.9, 0.9], B: [0.5, 0.5]}, arm="Adam + L2").assign(condition="y", warmup=2)
    three = two.assign(warmup=3, value=two["value"] + 0.05)
    found = choose(
        pd.concat([one, two, three]), "validation accuracy", by=["condition"], tuned=[*CONFIGURATION, "warmup"]
    )
    assert found[["arm", "condition", "lr", "warmup"]].to_numpy().tolist() == [
        ["AdamW", "x", 0.02, 1],
        ["Adam + L2", "y", 0.01, 3],
    ]


def test_scores_refuse_what_cannot_be_compared():
    full = table({A: [0.5, 0.6], B: [0.9, 0.8]})
    with pytest.raises(ValueError, match="lr = 0.01, weight_decay = 0.1, l2 = 0.0 was not run on each of the seeds"):
        scores_of(full.iloc[1:], "validation accuracy")
    with pytest.raises(ValueError, match="several values of 'validation accuracy' for one configuration"):
        scores_of(pd.concat([full, full]), "validation accuracy")
    with pytest.raises(ValueError, match="the arms 'AdamW', 'Adam'; expected one"):
        scores_of(pd.concat([full, full.assign(arm="Adam")]), "validation accuracy")


def test_an_edge_is_one_of_the_two_outermost():
    tried = pd.DataFrame({"lr": [1.0, 2, 3, 4, 5, 6], "weight_decay": [0.0, 1, 2, 3, 4, 5], "l2": 0.0})
    assert edge_of((3, 2, 0), tried) == "" and edge_of((3, 0, 0), tried) == ""
    assert edge_of((2, 2, 0), tried) == "lr at 2, the smallest tried being 1"
    largest = "lr at 5, the largest tried being 6, weight_decay at 4, the largest tried being 5"
    assert edge_of((5, 4, 0), tried) == largest


def test_resamples_are_the_same_every_time_and_draw_every_seed_alike():
    counts = resampled_counts(7)
    assert counts.shape == (2000, 7) and (counts.sum(1) == 7).all() and (counts == resampled_counts(7)).all()
    np.testing.assert_allclose(counts.mean(0), 1, atol=0.08)


# ---- the interval of two tuned arms

NAMES = pd.MultiIndex.from_tuples([(0.001 * (i + 1), 0.1, 0.0) for i in range(24)], names=CONFIGURATION)


def drawn(quality, rng, shared, first, noise):
    """Accuracies (seeds × configurations) in steps of 1/400, as 400 images give them."""
    values = quality + shared[:, None] + rng.normal(0, noise, (len(shared), len(quality)))
    return pd.DataFrame(np.round(400 * values) / 400, range(first, first + len(shared)), NAMES[: len(quality)])


def procedure(qualities, rng, noise=0.01, tuning=10, evaluation=24):
    """The whole of it on simulated data: two arms with these true accuracies of their configurations."""
    seeds = rng.normal(0, 0.02, tuning), rng.normal(0, 0.02, evaluation)
    sides = []
    for arm, quality in zip(("AdamW", "Adam + L2"), qualities, strict=True):
        scores, values = drawn(quality, rng, seeds[0], 0, noise), drawn(quality, rng, seeds[1], 100, noise)
        shares = np.bincount(picks(scores, resampled_counts(tuning)), minlength=len(quality)) / 2000
        sides.append(Side(arm, scores, values.loc[:, shares >= 0.02]))
    return smoothed(*sides, "test accuracy")


def dome(depth):
    """24 configurations around a best one, as deep as two accuracies differ between the middle and the edge."""
    return 0.9 - depth * np.linspace(-1, 1, 24) ** 2 - depth / 2 * ((np.arange(24) * 0.618) % 1 - 0.5) ** 2


@pytest.mark.parametrize("depth", [0.002, 0.02, 0.1])
def test_an_arm_against_its_own_copy_is_rarely_found_to_differ_and_a_planted_effect_is_found(depth):
    """Negative control: 200 data sets in which the arms are the same; and 100 in which one is better by twice δ."""
    delta, rng = 0.005, np.random.default_rng(1)
    effects = [procedure([dome(depth)] * 2, rng) for _ in range(200)]
    decided = [abs(e.mean) >= delta and not e.low <= 0 <= e.high for e in effects]
    assert np.mean(decided) <= 0.05
    covered = np.mean([e.low <= 0 <= e.high for e in effects])
    assert 0.93 <= covered <= 0.99  # for a nominal 95%: a little wide where everything is a tie
    found = [procedure([dome(depth) + 2 * delta, dome(depth)], rng) for _ in range(100)]
    assert np.mean([e.low > 0 and e.mean >= delta for e in found]) >= 0.8


def test_the_interval_covers_the_tuning_where_that_decides():
    """Few clearly different configurations, chosen by noise: the evaluation seeds alone cover far too little."""
    rng = np.random.default_rng(2)
    quality = np.array([0.90, 0.88, 0.86, 0.84])
    noise = 0.04

    def expected(size=200_000):
        means = quality + rng.normal(0, noise / np.sqrt(10), (size // 100, 4))
        return quality[means.argmax(1)].mean()

    truth = expected() - expected()
    effects = [procedure([quality, quality], rng, noise) for _ in range(200)]
    assert 0.93 <= np.mean([e.low <= truth <= e.high for e in effects]) <= 0.99
    assert np.mean([e.by_seeds[0] <= truth <= e.by_seeds[1] for e in effects]) < 0.93


def apart(relation, count, rng, noise=0.01, spread=0.05, tuning=10):
    """One arm's tuning scores, what is judged of its configurations, and what its whole procedure is worth: some near
    ties on validation data, as far apart as tuning seeds leave a mean; judged by another metric, under a shift say,
    in which they differ widely and which is correlated with the first as ``relation`` says."""
    error = noise / np.sqrt(tuning)
    gaps = np.arange(count) + rng.normal(0, 0.5, count) if count < 24 else 3 * np.sort(rng.gamma(1, 1, count))
    score = 0.9 - error * gaps
    standard = (score - score[:4].mean()) / score[:4].std()
    judged = 0.5 + spread * (relation * standard + np.sqrt(1 - relation**2) * rng.normal(size=count))
    winners = (score + rng.normal(0, error, (2000, count))).argmax(1)
    return score, judged, judged[winners].mean()


def judged_apart(arms, rng, noise=0.01, tuning=10, evaluation=24):
    """The whole procedure with arms of `apart`: tuned by one metric, judged by the other."""
    seeds = rng.normal(0, 0.02, tuning), rng.normal(0, 0.02, evaluation)
    found = []
    for name, (score, judged, _) in zip(("AdamW", "Adam + L2"), arms, strict=True):
        scores, values = drawn(score, rng, seeds[0], 0, noise), drawn(judged, rng, seeds[1], 100, 2 * noise)
        shares = np.bincount(picks(scores, resampled_counts(tuning)), minlength=len(score)) / 2000
        found.append(Side(name, scores, values.loc[:, shares >= 0.02]))
    return smoothed(*found, "accuracy under shift")


def normal_interval(values, confidence):
    """What the bootstrap over seeds comes to for normal values, a hundred times as fast."""
    reach = stats.norm.ppf((1 + confidence) / 2) * values.std() / np.sqrt(len(values))
    return values.mean() - reach, values.mean() + reach


@pytest.mark.parametrize("relation", [0.0, 0.3, 0.7, 1.0])
def test_the_interval_covers_what_is_judged_apart_from_what_tunes(relation, monkeypatch):
    """Every other data set is a negative control: an arm against its own copy."""
    monkeypatch.setattr(comparison, "_interval", normal_interval)
    rng, covered, decided = np.random.default_rng(7), [], []
    for i in range(200):
        count = (3, 6, 24)[i % 3]
        one = apart(relation, count, rng)
        arms = (one, one) if i % 2 else (one, apart(relation, count, rng))
        effect, truth = judged_apart(arms, rng), arms[0][2] - arms[1][2]
        covered.append(effect.low <= truth <= effect.high)
        if i % 2:
            decided.append(abs(effect.mean) >= 0.005 and not effect.low <= 0 <= effect.high)
    assert 0.93 <= np.mean(covered) <= 0.99 and np.mean(decided) <= 0.05


def sides(scores, values, decays=(0.1, 0.0)):
    names = pd.MultiIndex.from_tuples([(0.01, decay, 0.0) for decay in decays], names=CONFIGURATION)
    return Side(
        "AdamW",
        pd.DataFrame(np.transpose(scores), range(len(scores[0])), names),
        pd.DataFrame(np.transpose(values), range(100, 100 + len(values[0])), names),
    )


def test_a_clear_choice_leaves_the_paired_difference_and_nothing_to_the_tuning():
    rng = np.random.default_rng(3)
    first, second = rng.normal(0.9, 0.01, (2, 8))
    clear = [[0.9] * 6, [0.1] * 6]
    control = Side("Adam", sides(clear, [second, second]).scores, sides(clear, [second, second]).values, decayed=False)
    effect = smoothed(sides(clear, [first, second]), control, "test accuracy")
    plain = Effect.of(pd.Series(first - second, range(100, 108)), "AdamW", "Adam", "test accuracy")
    assert effect.mean == plain.mean and (effect.low, effect.high) == effect.by_seeds == (plain.low, plain.high)
    assert effect.error == plain.error
    assert effect.by_tuning == (effect.mean, effect.mean) and effect.undecayed == ()
    lower = smoothed(sides(clear, [first, second]), control, "test accuracy", higher_is_better=False)
    assert lower.mean == -plain.mean


def test_a_tie_counts_both_configurations_by_their_share_of_the_resamples():
    tied = [[0.9, 0.1] * 5, [0.1, 0.9] * 5]
    flat = Side("Adam", sides(tied, [[0.5] * 8] * 2).scores, sides(tied, [[0.5] * 8] * 2).values)
    both = sides(tied, [[0.8] * 8, [0.6] * 8]), flat
    effect = smoothed(*both, "test accuracy")
    drawn = resampled_counts(10)[:, ::2].sum(1)  # how often the seeds come that favour the first
    assert 0.2 < np.mean(drawn == 5) < 0.3  # a tie: to the first
    assert effect.mean == pytest.approx(0.1 + 0.2 * np.mean(drawn >= 5))
    assert effect.by_seeds == (effect.mean, effect.mean) and effect.by_tuning[1] - effect.mean > 0.05
    assert effect.low == effect.by_tuning[0]
    error = _jackknife(np.where(drawn >= 5, 0.3, 0.1), resampled_counts(10))
    # and Student's t of 3 degrees of freedom, for the two configurations of either side
    assert effect.by_tuning[1] - effect.mean == pytest.approx(3.182446 * error, rel=1e-5) and effect.freedom == 3
    # at the level of its probability it touches 0
    assert smoothed(*both, "test accuracy", confidence=1 - effect.p).low == pytest.approx(0, abs=1e-6) != effect.low


def test_seeds_that_agree_on_no_difference_leave_the_error_of_the_tuning_as_it_is():
    tied, clear = [[0.9, 0.1] * 5, [0.1, 0.9] * 5], [[0.9] * 10, [0.1] * 10]
    drawn = resampled_counts(10)[:, ::2].sum(1)
    mix = np.mean(drawn >= 5)  # of 1 and 0
    alike = sides(clear, [[mix] * 8] * 2)
    effect = smoothed(sides(tied, [[1.0] * 8, [0.0] * 8]), Side("Adam", alike.scores, alike.values), "test accuracy")
    assert not effect.differences.any() and effect.mean == 0 and effect.by_seeds == (0, 0)
    # Student's t of 2 degrees of freedom: two configurations of one side, one of the other
    reach = 4.302653 * _jackknife(np.where(drawn >= 5, 1.0, 0.0), resampled_counts(10))
    assert effect.by_tuning == (effect.low, effect.high) == pytest.approx((-reach, reach), rel=1e-5)
    assert effect.freedom == 2


def test_the_jackknife_finds_the_error_of_a_mean_and_none_in_noise():
    rng = np.random.default_rng(4)
    counts, values = resampled_counts(10), rng.normal(size=10)
    assert _jackknife(counts @ values / 10, counts) == pytest.approx(values.std() / np.sqrt(10), rel=0.1)
    noise = [_jackknife(rng.normal(size=2000), counts) for _ in range(100)]  # √(10/2000) = 0.07 without the correction
    assert np.mean(noise) < 0.04


def test_an_arm_that_tuning_gave_no_decay_is_named():
    clear = [[0.1] * 6, [0.9] * 6]
    one = sides(clear, [[0.5, 0.6] * 4, [0.7, 0.6] * 4])
    other = Side("Adam", one.scores, one.values, decayed=False)
    assert smoothed(one, other, "test accuracy").undecayed == ("AdamW",)


def test_smoothed_refuses_what_cannot_be_paired():
    one = sides([[0.9] * 6, [0.1] * 6], [[0.5, 0.6] * 4] * 2)
    apart = Side("Adam", one.scores.iloc[1:], one.values)
    with pytest.raises(ValueError, match="seeds 0 of the scores are in only one of 'AdamW' and 'Adam'"):
        smoothed(one, apart, "test accuracy")
    with pytest.raises(ValueError, match="seeds 100 of the values are in only one"):
        smoothed(one, Side("Adam", one.scores, one.values.iloc[1:]), "test accuracy")
    used = Side("AdamW", one.scores, one.values.set_axis(range(8)))
    with pytest.raises(ValueError, match="seeds 0, 1, 2, 3, 4, 5 were used for tuning and for evaluation"):
        smoothed(used, used, "test accuracy")
    unknown = Side("Adam", one.scores, one.values.iloc[:, 1:])
    with pytest.raises(ValueError, match="only 0% of the resamples choose configurations"):
        smoothed(one, unknown, "test accuracy")
    broken = Side("Adam", one.scores, one.values.mask(one.values > 0.55))
    with pytest.raises(ValueError, match="'test accuracy' of 'Adam' is not finite"):
        smoothed(one, broken, "test accuracy")


def test_a_side_is_read_from_tidy_tables():
    tuning = table({A: [0.5, 0.6], B: [0.9, 0.8], C: [0.1, 0.2]})
    evaluation = table({A: [0.7, 0.7], B: [0.8, 0.9]}, metric="test accuracy", first=100)
    side = Side.of(tuning, evaluation, "validation accuracy", "test accuracy")
    assert side.arm == "AdamW" and side.scores.shape == (2, 3) and list(side.values.columns) == [B, A]
    assert side.decays.tolist() == [0.0, 0.1]
    assert side.picked(np.array([[1, 1], [0, 2]])).tolist() == [0, 0]


# ---- what a reader of the mean should know


def effect(differences, **changes):
    return Effect.of(pd.Series(differences, dtype=float), "AdamW", "Adam + L2", "test accuracy", **changes)


def test_a_mean_that_few_seeds_carry_is_told_with_the_median():
    lopsided = effect([0.001] * 10 + [0.5, 0.4])
    assert lopsided.carried and lopsided.median == 0.001
    assert lopsided.remarks() == ["few seeds carry the mean: the median is +0.10 pp"]
    small = replace(lopsided, metric="bits saved per byte")  # printed as finely as its interval
    assert small.remarks() == ["few seeds carry the mean: the median is +0.0010 bits"]
    assert not effect(np.linspace(-0.01, 0.02, 12)).carried
    assert effect([0.0] * 12).remarks() == ["no seed differs"]


def test_the_probability_follows_the_side_of_the_interval_towards_zero():
    skewed = replace(measured(0.02, 1.0), low=0.01, high=0.2)  # Student's t of 11 degrees of freedom, twice its reach
    for found in (skewed, replace(skewed, mean=-0.02, low=-0.2, high=-0.01)):
        assert found.p == pytest.approx(2 * stats.t.sf(2 * stats.t.ppf(0.975, 11), 11))
    assert effect([0.0] * 12).p == 1.0 and effect([0.01] * 12).p == 0.0
    assert effect(np.linspace(-0.02, 0.02, 12)).p == 1.0


def tuned(mean, seeds, tuning, freedom, confidence=0.95):
    """An effect of 24 seeds whose interval has parts of these widths, below and above the mean."""
    (below, above), parts = np.hypot(seeds, tuning), [(mean - below, mean + above) for below, above in (seeds, tuning)]
    whole = {"low": mean - below, "high": mean + above, "confidence": confidence, "n": 24}
    return replace(measured(mean, 1.0), by_seeds=parts[0], by_tuning=parts[1], freedom=freedom, **whole)


def test_the_probability_of_tuned_arms_has_the_degrees_of_freedom_of_either_part():
    for mean in (0.02, -0.02):
        seeds, tuning = (tuned(mean, *parts, 2) for parts in (((0.01, 0.01), (0, 0)), ((0, 0), (0.01, 0.01))))
        assert seeds.p == pytest.approx(2 * stats.t.sf(2 * stats.t.ppf(0.975, 23), 23)) and 3e-4 < seeds.p < 5e-4
        assert tuning.p == pytest.approx(2 * stats.t.sf(2 * stats.t.ppf(0.975, 2), 2)) and 0.013 < tuning.p < 0.014
        both = tuned(mean, (0.006, 0.006), (0.008, 0.008), 2)
        assert seeds.p < both.p < tuning.p
        # the parts as wide as they are at the level 1 − p reach 0
        quantiles = [stats.t.isf(both.p / 2, freedom) / stats.t.ppf(0.975, freedom) for freedom in (23, 2)]
        assert np.hypot(0.006 * quantiles[0], 0.008 * quantiles[1]) == pytest.approx(0.02)


def test_the_probability_is_below_a_twentieth_exactly_where_the_interval_excludes_zero():
    rng, excluded = np.random.default_rng(0), []
    for i in range(600):
        if i % 6 == 0:  # skewed and few differences, real intervals
            values = rng.exponential(size=rng.integers(3, 25)) - rng.uniform(0, 2)
            found = effect(values, confidence=rng.choice([0.8, 0.95]))
        else:
            widths = rng.exponential(0.01, (2, 2)) * rng.choice([0, 1, 10], (2, 1), p=[0.2, 0.6, 0.2])
            reach = np.hypot(*widths)[0]
            mean = reach * rng.choice([0.2, 1 - 1e-9, 1.0, 1 + 1e-9, 1.1, 30])
            found = tuned(mean, *widths, int(rng.integers(1, 10)), rng.choice([0.9, 0.95]))
            if rng.integers(2):
                seeds, mirrored = ((-high, -low) for low, high in (found.by_seeds, found.by_tuning))
                whole = {"mean": -found.mean, "low": -found.high, "high": -found.low}
                found = replace(found, by_seeds=seeds, by_tuning=mirrored, **whole)
        excluded.append(found.low > 0 or found.high < 0)
        assert 0 <= found.p <= 1 and (found.p < 1 - found.confidence) == excluded[-1], found
    assert 200 < sum(excluded) < 400


# ---- maps


def measured(mean, error):
    """An effect with a given mean and standard error."""
    reach = 2.200985 * error  # Student's t of 12 values
    series = pd.Series([mean - error, mean + error], dtype=float)
    return Effect("AdamW", "Adam", "test accuracy", series, mean, mean - reach, mean + reach, 0.95, 12)


def test_the_pooled_effect_is_that_of_the_textbook():
    """Effects without a spread beyond their errors: the fixed-effect mean, and no τ."""
    found = pooled({"a": measured(0.010, 0.01), "b": measured(0.012, 0.02), "c": measured(0.009, 0.01)})
    assert found.tau == 0 and found.n == 3
    assert found.mean == pytest.approx((0.010 / 1e-4 + 0.012 / 4e-4 + 0.009 / 1e-4) / (2.25 / 1e-4))
    assert found.high - found.mean == pytest.approx(4.302653 / np.sqrt(2.25e4), rel=1e-4)


def test_the_pooled_effect_knows_the_spread_between_regimes():
    rng = np.random.default_rng(0)
    true = rng.normal(0.02, 0.03, 200)
    errors = rng.uniform(0.005, 0.02, 200)
    pairs = enumerate(zip(true, errors, strict=True))
    found = pooled({str(i): measured(mean + rng.normal(0, error), error) for i, (mean, error) in pairs})
    assert found.tau == pytest.approx(0.03, rel=0.15) and found.low < 0.02 < found.high
    one, two = measured(0.0, 1e-6), measured(1.0, 1e-6)  # τ is then the sample's standard deviation
    assert pooled({"a": one, "b": two}).tau == pytest.approx(np.sqrt(0.5), rel=1e-4)


def test_identical_runs_do_not_carry_the_pooled_effect():
    same = Effect.of(pd.Series([0.0] * 12), "AdamW", "Adam", "test accuracy")
    found = pooled({"a": same, "b": measured(0.02, 0.01), "c": measured(0.02, 0.01)})
    assert found.mean == pytest.approx(0.04 / 3)
    found = pooled({"a": same, "b": measured(0.01, 0.01), "c": measured(0.01, 0.02)})  # the smallest error is its own
    assert found.tau == 0 and found.mean == pytest.approx((0.01 / 1e-4 + 0.01 / 4e-4) / (2.25 / 1e-4))
    with pytest.raises(ValueError, match="effects hold 1 regime"):
        pooled({"a": same})


@pytest.mark.parametrize("mean", [0.0, 0.3, -1e-9])
def test_of_identical_runs_alone_nothing_but_their_spread_is_uncertain(mean):
    def same(mean):
        return Effect.of(pd.Series([mean] * 12), "AdamW", "Adam", "test accuracy")

    found = pooled(dict.fromkeys("abc", same(mean)))
    assert (found.mean, found.low, found.high, found.tau, found.n) == (mean, mean, mean, 0.0, 3)
    found = pooled({"a": same(mean), "b": same(mean + 1e-3), "c": same(mean + 2e-3)})  # plain values: Student's t
    assert found.mean == pytest.approx(mean + 1e-3) and found.tau == pytest.approx(1e-3)
    assert found.high - found.mean == pytest.approx(4.302653 * 1e-3 / np.sqrt(3), rel=1e-6)


def test_the_level_of_the_effects_is_not_that_of_the_pooled_interval():
    def at(level, quantile):
        errors = {"a": (0.010, 0.01), "b": (0.012, 0.02), "c": (0.009, 0.01)}
        bounds = {name: (mean - quantile * error, mean + quantile * error) for name, (mean, error) in errors.items()}
        return {
            name: replace(measured(*errors[name]), low=low, high=high, confidence=level)
            for name, (low, high) in bounds.items()
        }

    usual, narrow = pooled(at(0.95, 2.200985)), pooled(at(0.8, 1.363430))
    assert (narrow.mean, narrow.low, narrow.high) == pytest.approx((usual.mean, usual.low, usual.high), rel=1e-5)
    assert usual.confidence == narrow.confidence == 0.95


def test_the_error_of_tuned_arms_is_that_of_their_parts():
    """Of which each has its own degrees of freedom: two values say little, yet the interval knows that already."""
    found = tuned(0.3, [3 * 2.068658] * 2, [4 * 4.302653] * 2, 2)
    assert found.error == pytest.approx(5.0, rel=1e-6)
    others = {"b": measured(6.0, 5.0), "c": measured(-8.0, 5.0)}
    assert pooled({"a": found} | others).mean == pytest.approx((0.3 + 6.0 - 8.0) / 3, rel=1e-3)


def test_of_many_regimes_those_stand_that_survive_their_number():
    def of(*p):
        return {str(one): measured(0.02, 0.02 / stats.t.isf(one / 2, 11)) for one in p}

    assert surviving(of(0.002, 0.031, 0.046, 0.6, 0.7, 0.75, 0.8, 0.9)) == {"0.002"}  # .031 > 2/8 · .05, …
    assert surviving(of(0.002, 0.031, 0.046)) == {"0.002", "0.031", "0.046"}
    # the largest that passes carries all before it: .033 > .0167, .042 > .033, .043 < .05
    assert surviving(of(0.033, 0.042, 0.043)) == {"0.033", "0.042", "0.043"}
    assert surviving({}) == set()


def test_holm_corrects_step_by_step():
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert list(found) == ["a", "b", "c", "d"]
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.7, "b": 0.9}) == {"a": 1.0, "b": 1.0}


# ---- outcomes

PRIMARY = Claim(
    "toy.lift", None, "More.", "More.", "Half a point.", "test accuracy", 0.005, primary="a", dividing="depth"
)


@pytest.mark.parametrize(
    ("mean", "reach", "outcome"),
    [
        (0.02, 0.01, "supported"),
        (0.006, 0.0055, "supported"),
        (0.0049, 0.001, "undecided"),  # above 0, and may matter or not
        (0.002, 0.001, "no effect that matters"),
        (0.0, 0.0, "no effect that matters"),
        (-0.002, 0.0029, "no effect that matters"),
        (-0.002, 0.004, "undecided"),
        (0.006, 0.007, "undecided"),
        (-0.006, 0.0055, "opposite"),
        (-0.02, 0.01, "opposite"),
    ],
)
def test_the_outcome_is_symmetric_in_sign(mean, reach, outcome):
    effect = replace(measured(mean, 1.0), low=mean - reach, high=mean + reach)
    assert decide(effect, PRIMARY) == outcome
    mirrored = {"supported": "opposite", "opposite": "supported"}.get(outcome, outcome)
    assert decide(replace(effect, mean=-mean, low=-effect.high, high=-effect.low), PRIMARY) == mirrored
    assert decide(effect, replace(PRIMARY, arithmetic=True)) == "arithmetic"
    assert decide(replace(effect, n=MIN_SEEDS - 1), PRIMARY) == "undecided"
    assert decide(replace(effect, n=MIN_SEEDS), PRIMARY) == outcome


def test_an_arm_without_decay_cannot_be_supported_and_may_be_anything_else():
    undecayed = {"undecayed": ("Adam + L2",)}
    for mean, outcome in ((0.02, "undecided"), (-0.02, "opposite"), (0.0, "undecided")):
        assert decide(replace(measured(mean, 0.004), **undecayed), PRIMARY) == outcome
    assert decide(replace(measured(0.0, 0.001), **undecayed), PRIMARY) == "no effect that matters"


def test_the_primary_regime_alone_decides():
    effects = {"a": measured(0.001, 0.001), "b": measured(0.02, 0.001), "c": measured(-0.02, 0.001)}
    assert verdict(PRIMARY, effects) == "no effect that matters"
    assert list(judgements(PRIMARY, effects).values()) == ["no effect that matters", "supported", "opposite"]
    assert divided(PRIMARY, effects) and not divided(PRIMARY, {"a": effects["a"], "b": effects["b"]})
    nothing = {f"{i}": measured(0.0, 0.001) for i in range(19)} | {"a": measured(0.0, 0.001)}
    weak = nothing | {"b": effects["b"], "c": measured(-0.006, 0.0025)}
    assert decide(weak["c"], PRIMARY) == "opposite" and not divided(PRIMARY, weak)  # one of 22 by chance
    other = effects | {"c": replace(effects["c"], control="another rival")}  # another question
    assert list(comparable(PRIMARY, other)) == ["a", "b"] and not divided(PRIMARY, other)
    with pytest.raises(ValueError, match=r"effects hold 3 regime\(s\): test accuracy against Adam, .* another rival; "):
        pooled(other)
    with pytest.raises(ValueError, match="effects lack the primary regime 'a' of claim toy.lift; they have 'b'"):
        verdict(PRIMARY, {"b": effects["b"]})
