"""Grids, pairing, intervals and verdicts."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest

from adamw_book.arms import ARMS
from adamw_book.evidence import (
    Claim,
    Effect,
    choose,
    close_call,
    decide,
    grid,
    paired,
    printed,
    retrain,
    show,
    unit_of,
    verdict,
)
from adamw_book.evidence.tables import some

ADAMW = {"lr": [1e-3, 1e-2, 1e-1], "weight_decay": [0.1, 1.0, 4.0]}
ADAM_L2 = {"lr": [1e-3, 1e-2, 1e-1], "l2": [1e-3, 1e-2, 1e-1]}


def effect(differences, metric="test accuracy"):
    return Effect.of(pd.Series(differences, dtype=float), "AdamW", "Adam + L2", metric)


def measured(values, metric="test accuracy", step=100, **columns):
    """A table from {arm: {seed: value}}."""
    rows = [(arm, seed, value) for arm, by_seed in values.items() for seed, value in by_seed.items()]
    table = pd.DataFrame(rows, columns=["arm", "seed", "value"])
    return table.assign(step=step, metric=metric, lr=1e-3, weight_decay=0.0, l2=0.0, **columns)


def tuned(score, arms=None, seeds=range(3), metric="validation accuracy", step=100):
    """A tuning table whose value is score(row)."""
    runs = grid(arms or {"AdamW": ADAMW, "Adam + L2": ADAM_L2}, seeds)
    return runs.assign(step=step, metric=metric, value=[score(row) for row in runs.itertuples()])


def peak(lr=1e-2, decay=1e-2):
    """A score with its peak at one configuration, plus a part that depends on the seed alone."""

    def score(row):
        d = row.l2 or row.weight_decay / 100
        return 0.9 - 0.1 * abs(np.log10(row.lr / lr)) - 0.05 * abs(np.log10(d / decay)) + 0.01 * row.seed

    return score


# ---- claims


def claim(**changes):
    fields = {
        "id": "toy.effect",
        "tag": "3096487",
        "statement": "AdamW has the higher test accuracy.",
        "source": "AdamW generalises better.",
        "criterion": "The interval lies above 0 and the mean reaches half a point.",
        "metric": "test accuracy",
        "smallest_effect": 0.005,
        "primary": "deep",
    }
    return Claim(**fields | changes)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"id": "effect"}, "id is 'effect'"),
        ({"id": "../effect.x"}, "id is"),
        ({"tag": "chapter 3"}, "tag of claim toy.effect"),
        ({"criterion": " "}, "criterion of claim toy.effect is empty"),
        ({"primary": ""}, "primary of claim toy.effect is empty"),
        ({"smallest_effect": 0.0}, "smallest_effect of claim toy.effect is 0.0"),
        ({"smallest_effect": float("nan")}, "smallest_effect"),
    ],
)
def test_claim_refuses(changes, says):
    claim()
    with pytest.raises(ValueError, match=says):
        claim(**changes)


# ---- numbers


def test_a_message_names_the_first_eight_of_many():
    assert some([1, "b"]) == "1, 'b'"
    assert some(range(8)) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert some(np.arange(9)) == "0, 1, 2, 3, 4, 5, 6, 7, ... (9 in all)"


@pytest.mark.parametrize(
    "text, expected",
    [
        (show(0.0123), "+0.012"),
        (show(-0.004), "−0.004"),
        (show(1.234, 1, "pp"), "+1.2 pp"),
        (show(0.897, sign=False), "0.897"),
        (show(0.0), "0.000"),
        (show(-0.0), "0.000"),
        (show(-1.7e-7, 2), "0.00"),
    ],
)
def test_show(text, expected):
    assert text == expected


@pytest.mark.parametrize(
    ("metric", "unit"),
    [
        ("test balanced accuracy", "pp"),
        ("test client agreement", "pp"),
        ("client disagreement", ""),
        ("bits saved per test byte", "bits"),
        ("rise of the training loss", "nats"),
        ("log2 of weak over strong pull", "doublings"),
    ],
)
def test_each_effect_is_told_in_its_unit(metric, unit):
    assert unit_of(metric) == unit
    assert effect([0.5] * 8, metric=metric).parts(0)[0] == {"pp": "+50 pp"}.get(unit, f"0 {unit}".rstrip())


def test_effect_as_text():
    found = Effect("AdamW", "Adam + L2", "test accuracy", pd.Series(dtype=float), 0.0123, -0.0045, 0.0201, 0.95, 24)
    assert found.text(unit="") == "+0.0123 [−0.0045, +0.0201], n = 24"
    assert str(found) == found.text() == found.text(unit="pp") == "+1.23 pp [−0.45, +2.01], n = 24"
    assert found.contrast == "AdamW − (Adam + L2)"
    assert effect([0.5] * 8, metric="weight norm").text() == "+0.5000 [+0.5000, +0.5000], n = 8"
    assert effect([12.5] * 8, metric="log2 ratio").text() == "+12.50 doublings [+12.50, +12.50], n = 8"
    wide = Effect("AdamW", "Adam", "log2 ratio", pd.Series(dtype=float), 0.5, -0.25, 1.25, 0.95, 24)
    assert wide.text() == "+0.50 doublings [−0.25, +1.25], n = 24"
    assert printed("bits", 0.0123, -0.0045, 0.0291, sign=False) == ("0.0123 bits", "[−0.0045, +0.0291]")


# ---- grids


def test_grid_is_the_product_of_values_and_seeds():
    runs = grid({"AdamW": ADAMW, "Adam + L2": ADAM_L2}, range(4))
    assert list(runs.columns) == ["arm", "lr", "weight_decay", "l2", "seed"]
    assert len(runs) == 2 * 9 * 4 and not runs.duplicated().any()
    adamw, coupled = runs[runs.arm == "AdamW"], runs[runs.arm == "Adam + L2"]
    assert set(zip(adamw.lr, adamw.weight_decay, strict=True)) == set(itertools.product(*ADAMW.values()))
    assert (adamw.l2 == 0).all() and (coupled.weight_decay == 0).all() and set(coupled.l2) == set(ADAM_L2["l2"])


def test_iterators_give_the_runs_that_lists_give():
    arms = {"AdamW": ADAMW, "Adam + L2": ADAM_L2}
    wanted = grid(arms, range(4))
    lazy = {arm: {name: iter(values) for name, values in axes.items()} for arm, axes in arms.items()}
    assert grid(lazy, iter(range(4))).equals(wanted) and len(wanted) == 72
    arrays = {arm: {name: np.array(values) for name, values in axes.items()} for arm, axes in arms.items()}
    assert grid(arrays, np.arange(4)).equals(wanted)


def test_an_unknown_arm_is_refused():
    with pytest.raises(
        ValueError, match=r"arms has the unknown arm 'Adam\+L2'; expected 'AdamW', 'Adam \+ L2', 'Adam'"
    ):
        grid({"Adam+L2": {"lr": [1e-3], "weight_decay": [0.1]}}, [0])


@pytest.mark.parametrize(
    "axes, says",
    [
        ({"lr": [1e-3], "momentum": [0.9]}, "unknown column 'momentum'"),
        ({"weight_decay": [0.1]}, "has no 'lr'"),
        ({"lr": []}, "lr of arm 'AdamW' is empty"),
        ({"lr": iter(())}, "lr of arm 'AdamW' is empty"),
        ({"lr": iter([1e-3]), "l2": iter([0.1])}, "defined by l2 = 0"),
        ({"lr": [1e-3], "weight_decay": [float("nan")]}, "contains nan"),
        ({"lr": 1e-3}, "lr of arm 'AdamW' is 0.001; expected a list"),
        ({"lr": [1e-3, 0.0]}, "contains 0.0; expected finite values above 0"),
        ({"lr": [1e-3, float("inf")]}, "contains inf"),
        ({"lr": [1e-3], "weight_decay": [-0.1]}, "contains -0.1; expected finite values of 0 or more"),
        ({"lr": [1e-3, 1e-3]}, "repeats a value"),
        ({"lr": [1e-3], "l2": [0.1]}, "defined by l2 = 0"),
    ],
)
def test_grid_refuses(axes, says):
    with pytest.raises(ValueError, match=says):
        grid({"AdamW": axes}, [0])


@pytest.mark.parametrize(
    "seeds, says",
    [([], "seeds is empty"), ([1, 1], "seeds repeat a value"), ([0.5, 1.5], "seeds hold 0.5; expected whole numbers")],
)
def test_grid_refuses_seeds(seeds, says):
    with pytest.raises(ValueError, match=says):
        grid({"AdamW": ADAMW}, seeds)


# ---- what was chosen


@pytest.mark.parametrize("column", ["step", "arm", "lr", "weight_decay", "l2", "seed"])
def test_a_run_that_does_not_say_what_it_was_is_refused(column):
    table = tuned(peak()).astype({"step": float, "seed": float})
    table.loc[3, column] = None
    with pytest.raises(ValueError, match=f"1 of 54 rows have no '{column}'; every run needs one"):
        choose(table, "validation accuracy")
    other = table.assign(metric="train accuracy")  # of another metric: not what is looked at
    assert len(choose(pd.concat([tuned(peak()), other]), "validation accuracy")) == 2
    if column in ("step", "arm", "seed"):
        with pytest.raises(ValueError, match=f"1 of 54 rows have no '{column}'"):
            paired(table, "AdamW", "Adam + L2", "validation accuracy")
    if column not in ("step", "seed"):
        winners = choose(tuned(peak()), "validation accuracy").assign(condition="deep")
        winners.loc[0, column] = None
        with pytest.raises(ValueError, match=f"1 of {len(winners)} rows have no '{column}'"):
            retrain(winners, [10])


def test_a_condition_without_a_value_is_a_condition():
    table = pd.concat([tuned(peak()).assign(depth=1.0), tuned(peak()).assign(depth=np.nan)])
    assert len(choose(table, "validation accuracy", by=["depth"])) == 4


def test_retrain_crosses_winners_with_fresh_seeds():
    winners = choose(tuned(peak()).assign(depth=4), "validation accuracy", by=["depth"])
    runs = retrain(winners, [10, 11], used=range(3))
    assert list(runs.columns) == ["arm", "depth", "lr", "weight_decay", "l2", "seed"]
    assert len(runs) == 4 and runs.seed.tolist() == [10, 11, 10, 11] and runs.arm.nunique() == 2
    with pytest.raises(ValueError, match="seeds 2 were used for tuning"):
        retrain(winners, [2, 3], used=range(3))
    with pytest.raises(ValueError, match="seeds 1, 2 were used for tuning"):
        retrain(winners, [3, 2, 4, 1], used=iter(range(3)))
    with pytest.raises(ValueError, match="winners is empty; expected at least one row of choose"):
        retrain(winners.iloc[:0], [10])


@pytest.mark.parametrize("column", ["seed", "step", "metric", "value"])
def test_retrain_refuses_runs_in_the_place_of_winners(column):
    winners = choose(tuned(peak()), "validation accuracy")
    with pytest.raises(ValueError, match=f"winners has the column '{column}'; expected rows of choose, not of runs"):
        retrain(winners.assign(**{column: 1}), [10])


# ---- paired differences


def test_positive_favours_the_treatment():
    seeds = range(8)
    table = measured({"AdamW": dict.fromkeys(seeds, 0.9), "Adam + L2": dict.fromkeys(seeds, 0.8)})
    assert paired(table, "AdamW", "Adam + L2", "test accuracy").mean == pytest.approx(0.1)
    assert paired(table, "Adam + L2", "AdamW", "test accuracy").mean == pytest.approx(-0.1)
    assert paired(table, "AdamW", "Adam + L2", "test accuracy", higher_is_better=False).mean == pytest.approx(-0.1)


def correlated(rng, n=24, shift=0.0):
    """Two arms that share what a seed brings along (sd 0.1) and differ by shift and a little noise (sd 0.01)."""
    common = rng.normal(0.8, 0.1, n)
    noise = rng.normal(0, 0.01, (2, n))
    return {"AdamW": dict(enumerate(common + shift + noise[0])), "Adam + L2": dict(enumerate(common + noise[1]))}


def test_pairing_is_by_seed_and_not_by_row():
    values = correlated(np.random.default_rng(0), shift=0.02)
    table = measured(values)
    found = paired(table, "AdamW", "Adam + L2", "test accuracy")
    shuffled = table.sample(frac=1, random_state=1)
    again = paired(shuffled, "AdamW", "Adam + L2", "test accuracy")
    assert (again.mean, again.low, again.high) == (found.mean, found.low, found.high)
    assert again.differences.equals(found.differences)
    for seed in values["AdamW"]:
        assert found.differences[seed] == values["AdamW"][seed] - values["Adam + L2"][seed]


def test_pairing_narrows_the_interval():
    values = correlated(np.random.default_rng(0), shift=0.02)
    found = paired(measured(values), "AdamW", "Adam + L2", "test accuracy")
    mismatched = values | {"Adam + L2": {seed: values["Adam + L2"][(seed + 1) % 24] for seed in range(24)}}
    unpaired = paired(measured(mismatched), "AdamW", "Adam + L2", "test accuracy")
    assert found.mean == pytest.approx(unpaired.mean)
    assert 5 * (found.high - found.low) < unpaired.high - unpaired.low
    assert found.low > 0 > unpaired.low


def test_the_last_step_is_the_last_one_recorded_for_the_metric():
    early, late = ({"AdamW": dict.fromkeys(range(8), x), "Adam + L2": dict.fromkeys(range(8), 0.5)} for x in (0.6, 0.7))
    others = [measured(early, "weight norm", step) for step in (10, 100, 200)]
    table = pd.concat([measured(early, step=10), measured(late, step=100), *others], ignore_index=True)
    assert paired(table, "AdamW", "Adam + L2", "test accuracy").mean == pytest.approx(0.2)
    assert paired(table, "AdamW", "Adam + L2", "test accuracy", step=10).mean == pytest.approx(0.1)
    with pytest.raises(ValueError, match="step is 200; 'test accuracy' was recorded at 10, 100"):
        paired(table, "AdamW", "Adam + L2", "test accuracy", step=200)


def test_paired_refuses_missing_and_repeated_seeds():
    seeds = range(8)
    table = measured({"AdamW": dict.fromkeys(seeds, 0.9), "Adam + L2": dict.fromkeys(range(7), 0.8)})
    with pytest.raises(ValueError, match="seeds 7 are in only one of 'AdamW' and 'Adam \\+ L2'"):
        paired(table, "AdamW", "Adam + L2", "test accuracy")
    with pytest.raises(ValueError, match="arm 'AdamW' has several values of 'test accuracy' for the seeds 0, 1"):
        paired(pd.concat([table, table]), "AdamW", "Adam + L2", "test accuracy")
    with pytest.raises(ValueError, match="no arm 'SGD'"):
        paired(table, "SGD", "AdamW", "test accuracy")
    diverged = measured({"AdamW": dict.fromkeys(seeds, np.nan), "Adam + L2": dict.fromkeys(seeds, 0.8)})
    with pytest.raises(ValueError, match="'test accuracy' is not finite for the seeds 0, 1, 2"):
        paired(diverged, "AdamW", "Adam + L2", "test accuracy")


@pytest.mark.parametrize(
    "differences, confidence, says",
    [([0.1], 0.95, "at least 2"), ([0.1, 0.2], 95, "confidence is 95")],
)
def test_effect_refuses(differences, confidence, says):
    with pytest.raises(ValueError, match=says):
        Effect.of(pd.Series(differences), "AdamW", "Adam", "test accuracy", confidence)
    with pytest.raises(ValueError, match="repeat the seeds 3"):
        Effect.of(pd.Series([0.1, 0.2], index=[3, 3]), "AdamW", "Adam", "test accuracy")


# ---- intervals


def test_the_interval_covers_the_true_mean_about_95_times_in_100():
    """Simulated normal differences of mean 0.3 and sd 1, 24 seeds, 800 times. BCa with n = 24 covers a little less than
    its nominal level. A 90% interval, the spread of the differences instead of their mean's, or a sign mistake all fall
    outside.
    """
    rng = np.random.default_rng(0)
    found = [effect(rng.normal(0.3, 1, 24)) for _ in range(800)]
    covered = np.mean([e.low <= 0.3 <= e.high for e in found])
    assert 0.915 <= covered <= 0.965
    missed_below = np.mean([e.high < 0.3 for e in found])
    missed_above = np.mean([e.low > 0.3 for e in found])
    assert 0.015 <= missed_below <= 0.05 and 0.015 <= missed_above <= 0.05


def test_the_interval_narrows_with_seeds_and_widens_with_confidence():
    rng = np.random.default_rng(0)
    few, many = effect(rng.normal(0, 1, 20)), effect(rng.normal(0, 1, 500))
    assert many.high - many.low == pytest.approx(2 * 1.96 / np.sqrt(500), rel=0.1)
    assert many.high - many.low < few.high - few.low
    wide = Effect.of(few.differences, "AdamW", "Adam + L2", "test accuracy", confidence=0.99)
    assert wide.low < few.low < few.mean < few.high < wide.high
    table = measured(correlated(rng))
    wide, usual = (paired(table, "AdamW", "Adam + L2", "test accuracy", confidence=c) for c in (0.99, 0.95))
    assert wide.low < usual.low < usual.high < wide.high and (wide.confidence, usual.confidence) == (0.99, 0.95)


def test_the_interval_is_corrected_for_skew():
    """BCa reaches further on the side of the long tail: 1.8 times here, where a percentile interval has 1.3."""
    found = effect(np.random.default_rng(0).exponential(size=24))
    assert found.high - found.mean > 1.5 * (found.mean - found.low)


def test_the_interval_is_the_same_every_time():
    values = np.random.default_rng(0).normal(size=24)
    first, second = effect(values), effect(values)
    assert (first.low, first.high) == (second.low, second.high)


@pytest.mark.parametrize("value", [0.0, 0.02, -1e-9, 3e7])
def test_equal_differences_have_an_interval_of_no_width(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = effect([value] * 10)
    assert found.low == found.mean == found.high == value


def test_rounding_noise_does_not_widen_an_interval():
    found = effect([0.1 + 0.2, 0.3, 0.3, 0.1 + 0.2, 0.3, 0.3])
    assert found.low == found.mean == found.high == 0.3


def test_small_differences_between_large_ones_are_no_noise():
    found = effect(1 + 1e-6 * np.random.default_rng(0).normal(size=24))
    assert found.low < found.mean < found.high


def test_ten_digits_are_kept_of_effects_of_any_size():
    differences = np.random.default_rng(0).normal(size=24)
    usual = effect(differences)
    for size in (1e-13, 1e9):
        found = effect(size * differences)
        assert [found.mean, found.low, found.high] == pytest.approx(
            [size * usual.mean, size * usual.low, size * usual.high], rel=1e-8, abs=0
        )


def test_two_values_that_differ_give_finite_bounds():
    found = effect([0.0, 1.0])
    assert -6 < found.low < 0 and 1 < found.high < 7  # Student's t: 0.5 ± 6.35


@pytest.mark.parametrize("n", [6, 12])
def test_an_interval_of_few_seeds_holds_the_truth_as_often_as_it_says(n):
    draws = np.random.default_rng(0).normal(size=(400, n))
    missed = np.mean([found.low > 0 or found.high < 0 for found in map(effect, draws)])
    assert missed < 0.07  # the bootstrap as it is: 0.125 and 0.078


def test_of_even_tails_the_interval_is_that_of_student():
    values = np.random.default_rng(1).normal(size=6)
    values = np.concatenate([values, -values])
    found, error = effect(values), values.std(ddof=1) / np.sqrt(12)
    assert (found.high - found.low) / 2 == pytest.approx(2.200985 * error, rel=0.03)
    assert found.error == pytest.approx(error, rel=0.03)


# ---- verdicts


def with_interval(low, mean, high, n=24):
    return Effect("AdamW", "Adam + L2", "test accuracy", pd.Series(dtype=float), mean, low, high, 0.95, n)


def test_an_effect_in_another_metric_is_refused():
    effects = {"deep": with_interval(0.008, 0.012, 0.016), "shallow": with_interval(-0.003, 0.0, 0.003)}
    assert verdict(claim(), effects) == "supported"
    with pytest.raises(ValueError, match="regime 'deep' measures 'test accuracy'; claim toy.effect is about 'AUC'"):
        verdict(claim(metric="AUC"), effects)


def test_the_arms_are_named_once():
    from adamw_book.plots import ARM_STYLE

    assert tuple(ARM_STYLE) == tuple(ARMS)


# ---- close calls


def effect_at(mean, low, high, n=24, **changes):
    return Effect("AdamW", "Adam", "test accuracy", pd.Series(dtype=float), mean, low, high, 0.95, n, **changes)


@pytest.mark.parametrize(
    "mean, low, high, call",
    [
        (0.020, 0.002, 0.038, ("undecided", {"lower end": -0.002})),
        (0.006, 0.003, 0.009, ("undecided", {"mean": -0.001})),
        (-0.020, -0.038, -0.002, ("undecided", {"upper end": 0.002})),
        (0.001, -0.002, 0.0045, ("undecided", {"upper end": 0.0005})),
        (0.020, -0.002, 0.042, ("supported", {"lower end": 0.002})),
        (-0.004, -0.010, 0.001, ("opposite", {"upper end": -0.001, "mean": -0.001})),
        (0.000, -0.007, 0.006, ("no effect that matters", {"lower end": 0.002, "upper end": -0.001})),
        (0.020, 0.012, 0.030, None),
        (0.000, -0.030, 0.030, None),
        (0.000, 0.000, 0.000, None),
    ],
)
def test_a_close_call_names_the_other_outcome_and_the_distance(mean, low, high, call):
    found = close_call(effect_at(mean, low, high), claim())
    assert (found and found[0]) == (call and call[0])
    if call:
        assert found[1] == pytest.approx(call[1])


def test_a_close_call_is_where_the_verdict_turns():
    rng, turned = np.random.default_rng(0), set()
    for _ in range(400):
        mean, width = rng.normal(0, 0.008), rng.exponential(0.01)
        at = {"mean": mean, "lower end": mean - 0.5 * width, "upper end": mean + 0.5 * width}
        undecayed = ("Adam + L2",) * int(rng.integers(2))

        def outcome(moves, at=at, undecayed=undecayed):
            now = {part: value + moves.get(part, 0) for part, value in at.items()}
            return decide(effect_at(*now.values(), undecayed=undecayed), claim())

        call = close_call(effect_at(*at.values(), undecayed=undecayed), claim())
        reach = max(map(abs, call[1].values())) if call else 0.25 * width
        if call:
            assert outcome({part: 1.001 * move for part, move in call[1].items()}) == call[0] != outcome({})
            turned.add((outcome({}), call[0]))
        for signs in itertools.product((-0.99, 0, 0.99), repeat=3):
            assert outcome({part: reach * s for part, s in zip(at, signs, strict=True)}) == outcome({})
    assert len(turned) == 6


def test_a_formula_and_few_seeds_have_no_close_call():
    near = (0.020, 0.002, 0.038)
    assert close_call(effect_at(*near), claim()) and not close_call(effect_at(*near, n=5), claim())
    assert not close_call(effect_at(*near), claim(arithmetic=True))
