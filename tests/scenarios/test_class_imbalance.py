"""Class imbalance: its data, its judgements and its formulas on cases whose answer is known."""

import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.utils.class_weight import compute_class_weight

from adamw_book import metrics
from adamw_book.data import breast_cancer, digits
from adamw_book.ensemble import Result, train
from adamw_book.evidence import grid, paired
from adamw_book.scenarios.class_imbalance import dose, mechanism, study, tasks

# ---- data


@pytest.mark.parametrize("name", tasks.COUNTS)
def test_splits_hold_the_counts_that_they_promise(name):
    splits = tasks.splits(name, 3)
    for split, (positives, negatives) in tasks.COUNTS[name].items():
        x, y = splits[split]
        assert len(x) == len(y) == positives + negatives and int(y.sum()) == positives
    rows = torch.cat([x for x, _ in splits.values()])
    assert len(rows.unique(dim=0)) == len(rows)  # no example is in two splits
    again, other = tasks.splits(name, 3), tasks.splits(name, 4)
    for split in ("train", "validation"):
        assert torch.equal(splits[split][0], again[split][0]) and not torch.equal(splits[split][0], other[split][0])


def test_the_test_part_is_the_same_for_all_seeds():
    x, y = torch.arange(569.0)[:, None], breast_cancer()[1]
    first, second = (tasks.imbalanced_splits(x, y, tasks.COUNTS["breast cancer"], seed) for seed in (3, 4))
    assert torch.equal(first["test"][0], second["test"][0]) and list(first) == ["train", "validation", "test"]
    seen = torch.cat([first[split][0] for split in ("train", "validation")])
    assert not set(seen.flatten().tolist()) & set(second["test"][0].flatten().tolist())


def test_the_positives_are_the_eights_and_the_malignant_tumours():
    x, y = digits()
    images, labels = tasks.splits("digit 8", 0)["train"]
    known = {tuple(image.tolist()): int(label) for image, label in zip(x, y, strict=True)}
    assert all((known[tuple(i.tolist())] == 8) == bool(t) for i, t in zip(images, labels, strict=True))
    x, y = breast_cancer()
    assert x.shape == (569, 30) and int(y.sum()) == 212
    assert x[y == 1, 0].mean() > x[y == 0, 0].mean()  # malignant nuclei are larger


def test_measurements_are_standardised_by_the_training_split():
    splits = tasks.splits("breast cancer", 1)
    train_x, test_x = splits["train"][0], splits["test"][0]
    torch.testing.assert_close(train_x.mean(0), torch.zeros(30), atol=1e-5, rtol=0)
    torch.testing.assert_close(train_x.std(0), torch.ones(30), atol=1e-4, rtol=0)
    assert test_x.mean(0).abs().max() > 0.3  # the test split has another share of malignant tumours


COUNTS = {"train": (2, 3)}


@pytest.mark.parametrize(
    ("labels", "counts", "what"),
    [
        ([0, 1, 2, 0, 1], COUNTS, r"y: labels \[0, 1, 2\]; 1 for the positives"),
        ([0, 1], COUNTS, r"y: shape \(2,\) for 5 examples"),
        ([[0], [1], [0], [1], [0]], COUNTS, r"y: shape \(5, 1\) for 5 examples"),
        ([0, 1, 0, 1, 0], {"train": 3}, r"counts\['train'\]: 3; a pair, positives and negatives"),
        ([0, 1, 0, 1, 0], {"train": (1, 2, 3)}, r"counts\['train'\]: \(1, 2, 3\); a pair"),
        ([0, 1, 0, 0, 0], COUNTS, r"counts\['train'\]: 2 positives of the 1 left \(of 1\)"),
        ([0, 1, 0, 1, 0], {"train": (0, 1)}, r"counts\['train'\]: 0 positives"),
        ([0, 1, 0, 1, 0], {"train": (1, 2), "test": (1, 2)}, r"counts\['train'\]: 2 negatives of the 1 left"),
    ],
)
def test_data_that_cannot_be_split(labels, counts, what):
    with pytest.raises(ValueError, match=what):
        tasks.imbalanced_splits(torch.zeros(5, 1), torch.tensor(labels), counts, 0)


def test_no_examples_at_all():
    with pytest.raises(ValueError, match="y: labels"):
        tasks.imbalanced_splits(torch.zeros(0, 1), torch.zeros(0), COUNTS, 0)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: tasks.task("iris", "MLP", "unweighted"), "data: 'iris' is unknown; choose from 'digit 8'"),
        (lambda: tasks.task("digit 8", "CNN", "unweighted"), "model: 'CNN' is unknown"),
        (lambda: tasks.task("digit 8", "MLP", "focal"), "loss: 'focal' is unknown"),
        (lambda: tasks.splits("iris", 0), "name: 'iris' is unknown"),
        (lambda: tasks.class_weights(0, 5), "positives, negatives: 0, 5; at least one"),
        (lambda: mechanism.log_odds(1.0), "share: 1.0"),
        (lambda: mechanism.wash_out([0.1], weight=0.0), "weight: 0.0; a finite number above 0"),
        (lambda: mechanism.wash_out([0.1], weight=math.inf), "weight: inf; a finite number above 0"),
        (lambda: mechanism.weighted_bias(1.0, -2.0), "weight: -2.0; a finite number above 0"),
        (lambda: mechanism.wash_out([0.1, -1.0]), "weight_decay, l2: -1.0; finite values of 0 or more"),
        (lambda: mechanism.wash_out([0.1], l2=[math.nan]), "weight_decay, l2: nan; finite values of 0 or more"),
        (lambda: mechanism.wash_out([0.1], steps=2.5), r"record: \[2.5\]; whole numbers from 1 to steps=2.5"),
        (lambda: tasks.class_weights(math.nan, 5), "positives, negatives: nan, 5; at least one"),
        (lambda: tasks.weighted_cross_entropy((1.0, 1.0), torch.zeros(1, 5, 2), torch.zeros(1, 5)),
         r"logits: shape \(1, 5, 2\) for targets \(1, 5\); one logit for each"),
        (lambda: mechanism.wash_out([0.1], steps=5, record=(7,)), r"record: \[7\]; whole numbers from 1 to steps=5"),
        (lambda: tasks.prior("digit 9"), "name: 'digit 9' is unknown; choose from 'digit 8'"),
        (lambda: mechanism.wash_out([0.1], l2=[0.0, 0.1]), "weight_decay, l2: 1 and 2 values"),
        (lambda: mechanism.logits_by_decay("digit 8", "unweighted", [1.0], [0], lr=0.1, steps=1, bias="none"),
         "bias: 'none' is unknown"),
    ],
)  # fmt: skip
def test_bad_input_is_named_with_what_would_do(call, what):
    with pytest.raises(ValueError, match=what):
        call()


# ---- losses and judgements


def test_a_diverged_replica_is_not_judged_and_the_others_are():
    logits = torch.tensor([[[1.0], [-1.0], [2.0]], [[1.0], [torch.nan], [torch.inf]]])
    targets = torch.tensor([[1, 0, 0]] * 2)
    for name, judge in tasks.judgements(0.5).items():
        alone, (first, second) = judge(logits[:1], targets[:1]), judge(logits, targets)
        assert first == alone and first.isfinite() and second.isnan(), name


def test_accuracy_and_calibration_are_those_at_the_share_and_the_rest_is_of_the_data():
    """At 1 in 4, two positives and two negatives are judged as if there were three of each negative."""
    logits, targets = torch.tensor([[2.0, -0.5, -0.3, -1.5]]), torch.tensor([[1, 1, 0, 0]])
    often = [0, 1, 2, 2, 2, 3, 3, 3]
    plain = {"accuracy": ((logits > 0) == (targets == 1))[:, often].double().mean(1).float()}
    plain["calibration error"] = metrics.calibration_error(logits[:, often], targets[:, often])
    judged = tasks.judgements(0.25)
    for name, expected in plain.items():
        found, other = (judge(logits[..., None], targets) for judge in (judged[name], tasks.judgements(0.5)[name]))
        torch.testing.assert_close(found, expected)
        assert (found - other).abs() > 0.01
    for name in judged.keys() - plain.keys():
        assert judged[name](logits[..., None], targets) == judged[name](logits[:, often, None], targets[:, often]), name


def test_class_weights_are_scikit_learns_balanced_ones():
    y = np.array([1] * 24 + [0] * 576)
    negative, positive = compute_class_weight("balanced", classes=np.array([0, 1]), y=y)
    assert tasks.class_weights(24, 576) == pytest.approx((positive, negative))


def test_the_weighted_loss_counts_each_positive_as_often_as_its_weight():
    rng = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(3, 8, 1, generator=rng), torch.tensor([[1, 0, 0, 0] * 2] * 3)
    found = tasks.weighted_cross_entropy((3.0, 1.0), logits, targets)
    repeated = [0, 0, 0, 1, 2, 3, 4, 4, 4, 5, 6, 7]
    plain = tasks.weighted_cross_entropy((1.0, 1.0), logits[:, repeated], targets[:, repeated])
    torch.testing.assert_close(found * 8, plain * 12)
    chance = torch.full((1, 8, 1), math.log(1 / 3))
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert tasks.weighted_cross_entropy((1.0, 1.0), chance, targets[:1]).item() == pytest.approx(entropy, rel=1e-5)


def linear_models(weights: list[float], seeds: list[int]) -> tuple:
    """Trained "models" whose logit is a multiple of the first measurement, so that a test can compute it itself."""
    task = tasks.task("breast cancer", "linear", "unweighted")
    runs = grid({"AdamW": {"lr": [0.01], "weight_decay": [0.1]}}, seeds)
    parameters = {"weight": torch.zeros(len(seeds), 1, 30), "bias": torch.full((len(seeds), 1), -1.0)}
    parameters["weight"][:, 0, 0] = torch.tensor(weights)
    return task, Result(runs.assign(step=7, metric="weight norm", value=0.0), runs, parameters)


def test_scores_belong_to_the_runs_own_weights_and_data():
    task, result = linear_models([2.0, -1.0, 2.0], [4, 5, 6])
    scores, targets = tasks.scores(task, result, "test", block=2)
    for i, (w, seed) in enumerate(zip([2.0, -1.0, 2.0], [4, 5, 6], strict=True)):
        x, y = task.data(seed)["test"]
        torch.testing.assert_close(scores[i], w * x[:, 0] - 1)
        assert torch.equal(targets[i], y)
    with pytest.raises(ValueError, match="result.parameters: None; train with keep_parameters=True"):
        tasks.scores(task, Result(result.table, result.runs, None), "test")


def middle_best_cut(scores: np.ndarray, targets: torch.Tensor) -> float:
    ordered = np.unique(scores)
    cuts = np.concatenate([[ordered[0] - 1], (ordered[1:] + ordered[:-1]) / 2, [ordered[-1] + 1]])
    values = np.array([balanced_accuracy_score(targets, scores > cut) for cut in cuts])
    best = cuts[values > values.max() - 1e-6]
    return best[(len(best) - 1) // 2]


def test_the_moved_threshold_comes_from_validation_data_alone():
    task, result = linear_models([1.0, -0.5], [4, 5])
    table = tasks.judge_on_test(task, 0.04, result, ("test",)).pivot(index="seed", columns="metric", values="value")
    gaps = []
    for w, seed in zip([1.0, -0.5], [4, 5], strict=True):
        (x, y), (held_out, held_out_y) = (task.data(seed)[split] for split in ("test", "validation"))
        logits, held_out = (w * x[:, 0] - 1).numpy(), (w * held_out[:, 0] - 1).numpy()
        row = table.loc[seed]
        judged = tasks.judgements(0.04)
        both = torch.tensor(logits)[None, :, None], y[None]
        assert judged["AUC"](*both).item() == pytest.approx(roc_auc_score(y, logits), rel=1e-5)
        assert judged["balanced accuracy"](*both).item() == pytest.approx(
            balanced_accuracy_score(y, logits > 0), rel=1e-5
        )
        shifted = balanced_accuracy_score(y, logits > math.log(0.04 / 0.96))
        assert row["test balanced accuracy, threshold at the prior"] == pytest.approx(shifted, rel=1e-5)
        cut, elsewhere = middle_best_cut(held_out, held_out_y), middle_best_cut(logits, y)
        moved, peeked = (balanced_accuracy_score(y, logits > c) for c in (cut, elsewhere))
        assert row["test balanced accuracy, threshold moved"] == pytest.approx(moved, rel=1e-5)
        gaps.append(peeked - moved)
    assert min(gaps) >= 0 and max(gaps) > 0.005  # a threshold chosen on the test data would look better
    assert tasks.judge_on_test(task, 0.04, result, ("validation",)).empty


# ---- the two formulas


def test_the_best_constant_logit_is_the_log_prior_odds():
    share = 0.04
    loss = lambda b: share * np.logaddexp(0, -b) + (1 - share) * np.logaddexp(0, b)  # noqa: E731
    assert minimize_scalar(loss).x == pytest.approx(mechanism.log_odds(share), abs=1e-4)


@pytest.mark.parametrize("weight", [0.5, 1.0, 24.0])
@pytest.mark.parametrize("slope", [0.1, 1.0, 5.0])
def test_the_weighted_bias_minimises_the_loss_of_the_two_points(weight, slope):
    loss = lambda b: weight * np.logaddexp(0, -slope - b) + np.logaddexp(0, b - slope)  # noqa: E731
    assert mechanism.weighted_bias(slope, weight) == pytest.approx(minimize_scalar(loss).x, abs=1e-4)


def test_the_weighted_bias_of_steep_slopes_is_half_the_log_weight():
    slopes = [12.0, 400.0, 2000.0]  # e to their power is no float any more
    np.testing.assert_allclose(mechanism.weighted_bias(slopes, 24.0), math.log(24) / 2, atol=1e-3)


def test_the_weighted_bias_is_where_both_points_pull_alike_however_lopsided():
    for slope, weight in ((-20.0, 0.5), (-20.0, 24.0), (0.01, 1e-6)):
        b = mechanism.weighted_bias(slope, weight)
        assert weight * expit(-slope - b) == pytest.approx(expit(b - slope), rel=1e-6)


def test_class_weights_wash_out_and_decay_keeps_them():
    table = mechanism.wash_out([0.0, 0.3, 0.0], l2=[0.0, 0.0, 0.001], steps=2000, record=(500, 2000))
    early, late = (table[table["step"] == step].set_index(["weight_decay", "l2"]) for step in (500, 2000))
    assert abs(late.loc[(0.0, 0.0), "boundary"]) < 0.7 * abs(early.loc[(0.0, 0.0), "boundary"])
    assert abs(late.loc[(0.3, 0.0), "boundary"]) > 2 * abs(late.loc[(0.0, 0.0), "boundary"])
    assert late.loc[(0.3, 0.0), "slope"] < 1 / 0.3
    predicted = -mechanism.weighted_bias(late["slope"].to_numpy(), 24.0) / late["slope"]
    np.testing.assert_allclose(late["boundary"], predicted, rtol=0.01)
    even = mechanism.wash_out(iter([0.0]), weight=1.0, steps=50)
    assert even["boundary"].item() == pytest.approx(0, abs=1e-9) and even["step"].item() == 50


def test_under_strong_decay_every_logit_is_the_log_prior_odds():
    table = mechanism.logits_by_decay("digit 8", "unweighted", [0.0, 20.0], [0, 1], lr=0.04, steps=500)
    means = table.pivot_table(index="weight_decay", columns="metric", values="value")
    assert means.loc[20.0, "mean logit"] == pytest.approx(mechanism.log_odds(0.04), abs=0.25)
    assert means.loc[20.0, "largest logit"] < -2 and means.loc[20.0, "validation recall"] == 0
    assert means.loc[20.0, "largest weight"] * 20 < 1 and means.loc[0.0, "validation recall"] > 0.3
    weighted = mechanism.logits_by_decay("digit 8", "class-weighted", [20.0], [0, 1], lr=0.04, steps=500)
    assert abs(weighted[weighted["metric"] == "mean logit"]["value"].mean()) < 0.5


def test_what_is_measured_is_what_the_trained_model_says():
    """`logits_by_decay` computes a linear model's logits itself: the recall that follows is the ensemble's."""
    task = tasks.task("digit 8", "linear", "unweighted")
    x = task.data(0)["validation"][0]
    table = mechanism.logits_by_decay("digit 8", "unweighted", [0.1], [0], lr=0.03, steps=40)
    runs = grid({"AdamW": {"lr": [0.03], "weight_decay": [0.1]}}, [0]).assign(schedule="cosine")
    kept = train(task, runs, steps=40, batch_size=50, decays=tasks.BIASES["undecayed bias"],
                 keep_parameters=True, device="cpu").parameters  # fmt: skip
    logits = x @ kept["weight"][0, 0] + kept["bias"][0]
    values = table.set_index("metric")["value"]
    assert values["mean logit"] == pytest.approx(logits.mean().item(), abs=1e-4)
    assert values["largest logit"] == pytest.approx(logits.max().item(), abs=1e-4)


def test_no_recall_beyond_the_bound():
    x = tasks.splits("digit 8", 0)["validation"][0]
    lam = mechanism.recall_bound("digit 8", 0)
    largest = x.abs().sum(1).max().item() / lam  # the largest w·x with every |w| = 1/λ
    assert largest + mechanism.log_odds(0.04) == pytest.approx(0, abs=1e-5)


# ---- the protocol


def test_biases_are_decayed_or_not():
    runs = grid({"AdamW": {"lr": [0.01], "weight_decay": [5.0]}}, [0])
    sizes = {}
    for bias in ("", " · decayed bias"):
        own = tasks.CONDITIONS[f"digit 8 · MLP · unweighted{bias}"]
        parameters = train(own.task, runs, steps=60, batch_size=50, decays=own.decays, keep_parameters=True,
                           device="cpu").parameters  # fmt: skip
        sizes[bias] = parameters["layers.1.bias"].abs().item()
    assert sizes[""] > 1.5 * sizes[" · decayed bias"]


@pytest.mark.parametrize("name", tasks.CONDITIONS)
def test_a_condition_is_what_its_name_says_and_each_arm_tries_the_same_learning_rates(name):
    own, parts = tasks.CONDITIONS[name], name.split(" · ")
    assert own.task.name == " · ".join(parts[:3]) and (own.decays("layers.0.bias")) == (len(parts) == 4)
    norms = [n for n, _ in own.task.model().named_parameters() if "norm" in n]
    assert bool(norms) == ("Norm" in name)
    runs = own.runs([0])
    assert runs.groupby("arm")["lr"].apply(lambda lr: tuple(sorted(lr))).nunique() == 1 and len(runs) == 90
    assert (runs["lr"] * runs["weight_decay"]).max() < 1


def test_thresholds_are_moved_when_evaluating_and_nothing_is_judged_while_tuning():
    own = dataclasses.replace(tasks.CONDITIONS["breast cancer · MLP · class-weighted"], steps=2)
    runs = grid({"AdamW": {"lr": [0.01], "weight_decay": [0.3]}}, [200])
    assert own.train(runs, ("validation",))["metric"].str.startswith("validation ").sum() == 7
    table = own.train(runs, ("test",))
    assert not table["metric"].str.startswith("validation").any() and not table.duplicated(["metric"]).any()
    assert {"test AUC", "test balanced accuracy, threshold moved", "test recall, threshold at the prior"} <= set(
        table["metric"]
    )


def test_doses_are_taken_in_three_ways(monkeypatch):
    asked = []

    def fixed_recipe(name, seeds, weight_decay, steps=1000):
        asked.append((name, list(seeds), weight_decay, steps))
        return pd.DataFrame({"condition": [name]})

    monkeypatch.setattr(dose, "fixed_recipe", fixed_recipe)
    table = dose.doses([100])
    assert [name for name, *_ in asked] == table["condition"].tolist() and set(table["data"]) == set(tasks.COUNTS)
    own = table[table["data"] == "digit 8"].set_index("training")["condition"].to_dict()
    assert own == {way: f"digit 8 · MLP · {rest}" for way, rest in dose.WAYS.items()}
    asked.clear()
    dose.long_training([100])
    assert len(asked) == 4 and {steps for *_, steps in asked} == {5000}


def test_a_fixed_recipe_is_adam_where_it_has_no_decay():
    table = dose.fixed_recipe("breast cancer · MLP · class-weighted", [100, 101], [0.0, 1.0], 5)
    assert table.groupby("arm")["weight_decay"].unique().map(list).to_dict() == {"Adam": [0.0], "AdamW": [1.0]}
    assert set(table["lr"]) == {0.01} and set(table["step"]) == {5}
    assert paired(table, "AdamW", "Adam", "test recall").n == 2


def tables(names, tuning_seeds=range(8), seeds=range(100, 108)) -> dict[str, pd.DataFrame]:
    """Tables of some conditions in which every number is chosen: each arm has one candidate a rule, the second being
    Adam's and AdamW's best at a moved threshold."""
    configurations = [(arm, lr, 0.1 * (arm == "AdamW"), 0.01 * ("L2" in arm)) for arm in ("AdamW", "Adam + L2", "Adam")
                      for lr in (0.01, 0.1)]  # fmt: skip
    tuning, candidates, evaluation = [], [], []
    for name, (arm, lr, decay, l2) in itertools.product(names, configurations):
        row = {"condition": name, "arm": arm, "lr": lr, "weight_decay": decay, "l2": l2}
        first = lr == 0.01
        for rule, metric in tasks.RULES.items():
            best = first != (rule == "moved threshold")
            tuning += [
                row | {"seed": s, "step": 9, "metric": metric, "value": 0.9 if best else 0.5} for s in tuning_seeds
            ]
            if best:
                candidates.append(row | {"rule": rule, "winner": True, "share": 1.0, "score": 0.9, "edge": ""})
        value = {"AdamW": 0.6, "Adam + L2": 0.55, "Adam": 0.5}[arm] + 0.2 * ("weighted" in name and "un" not in name)
        values = {"test recall": value, "test balanced accuracy": value,
                  "test balanced accuracy, threshold moved": value + 0.33}  # fmt: skip
        evaluation += [row | {"seed": s, "step": 9, "metric": m, "value": v if first else v + 0.01}
                       for s in seeds for m, v in values.items()]  # fmt: skip
    recipes = []
    for name, arm, seed in itertools.product(names, ("AdamW", "Adam"), seeds):
        row = {"condition": name, "arm": arm, "weight_decay": float(arm == "AdamW"), "seed": seed, "step": 1000}
        recipes += [
            row | {"metric": m, "value": 0.7 if arm == "AdamW" else 0.9}
            for m in ("test recall", "test balanced accuracy")
        ]
    frames = [pd.DataFrame(rows) for rows in (tuning, candidates, evaluation, recipes)]
    found = dict(zip(("tuning", "candidates", "evaluation", "long"), frames, strict=True))
    return found | {"dose": frames[3].assign(training="no class weights")}


def test_effects_follow_from_the_tables():
    names = ["breast cancer · MLP · unweighted", "breast cancer · MLP · class-weighted"]
    found = study.PROTOCOL.effects(tables(names))
    means = {claim: {regime: round(e.mean, 6) for regime, e in by.items()} for claim, by in found.items()}
    assert means == {
        f"class_imbalance.{claim}": {
            name: 0.1,
            f"{name}, not tuned, 1000 steps": -0.2,
            f"{name}, not tuned, 5000 steps": -0.2,
        }
        for claim, name in zip(("minority", "weights"), names, strict=True)
    } | {"class_imbalance.threshold": {"breast cancer · MLP": round(0.8 - (0.5 + 0.33 + 0.01), 6)}}
    threshold = found["class_imbalance.threshold"]["breast cancer · MLP"]
    assert threshold.contrast == "AdamW with class weights − Adam with a moved threshold"
    assert not study.PROTOCOL.effects(tables(names[:1]))["class_imbalance.threshold"]


def test_each_primary_comparison_is_made_again_from_its_conditions():
    """The third claim's two sides are the primary conditions of the other two, so that `make stability` tunes them."""
    primaries = [study.PROTOCOL.primary_condition(claim) for claim in study.PROTOCOL.claims]
    assert primaries == ["breast cancer · MLP · unweighted", "breast cancer · MLP · class-weighted", None]
    assert not set(study.PROTOCOL.tuning_seeds) & {*study.PROTOCOL.evaluation_seeds, *dose.DOSE["seeds"]}
