"""Class imbalance: its data, its judgements and its formulas on cases whose answer is known."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.utils.class_weight import compute_class_weight

from adamw_book.data import breast_cancer, digits
from adamw_book.ensemble import Result, train
from adamw_book.evidence import EdgeWarning, grid, paired
from adamw_book.scenarios import class_imbalance as imbalance

RECIPE = {"lr": 0.01, "weight_decay": [0.0, 1.0], "steps": 5}

# ---- data


@pytest.mark.parametrize("name", imbalance.COUNTS)
def test_splits_hold_the_counts_that_they_promise(name):
    splits = imbalance.splits(name, 3)
    for split, (positives, negatives) in imbalance.COUNTS[name].items():
        x, y = splits[split]
        assert len(x) == len(y) == positives + negatives and int(y.sum()) == positives
    rows = torch.cat([x for x, _ in splits.values()])
    assert len(rows.unique(dim=0)) == len(rows)  # no example is in two splits
    again, other = imbalance.splits(name, 3), imbalance.splits(name, 4)
    assert torch.equal(splits["test"][0], again["test"][0]) and not torch.equal(splits["test"][0], other["test"][0])


def test_the_positives_are_the_eights_and_the_malignant_tumours():
    x, y = digits()
    images, labels = imbalance.splits("digit 8", 0)["train"]
    known = {tuple(image.tolist()): int(label) for image, label in zip(x, y, strict=True)}
    assert all((known[tuple(i.tolist())] == 8) == bool(t) for i, t in zip(images, labels, strict=True))
    x, y = breast_cancer()
    assert x.shape == (569, 30) and int(y.sum()) == 212
    assert x[y == 1, 0].mean() > x[y == 0, 0].mean()  # malignant nuclei are larger


def test_measurements_are_standardised_by_the_training_split():
    splits = imbalance.splits("breast cancer", 1)
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
        ([0, 1, 0, 1, 0], {"train": (1, 2), "test": (1, 2)}, r"counts\['test'\]: 2 negatives of the 1 left"),
    ],
)
def test_data_that_cannot_be_split(labels, counts, what):
    with pytest.raises(ValueError, match=what):
        imbalance.imbalanced_splits(torch.zeros(5, 1), torch.tensor(labels), counts, 0)


def test_no_examples_at_all():
    with pytest.raises(ValueError, match="y: labels"):
        imbalance.imbalanced_splits(torch.zeros(0, 1), torch.zeros(0), COUNTS, 0)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: imbalance.task("iris", "MLP", "unweighted"), "data: 'iris' is unknown; choose from 'digit 8'"),
        (lambda: imbalance.task("digit 8", "CNN", "unweighted"), "model: 'CNN' is unknown"),
        (lambda: imbalance.task("digit 8", "MLP", "focal"), "loss: 'focal' is unknown"),
        (lambda: imbalance.splits("iris", 0), "name: 'iris' is unknown"),
        (lambda: imbalance.condition("digit 8 · MLP"), "name: 'digit 8 · MLP' is no condition"),
        (lambda: imbalance.condition("digit 8 · CNN · unweighted"), "is no condition; choose from 'digit 8 · MLP"),
        (lambda: imbalance.class_weights(0, 5), "positives, negatives: 0, 5; at least one"),
        (lambda: imbalance.log_odds(1.0), "share: 1.0"),
        (lambda: imbalance.wash_out([0.1], weight=0.0), "weight: 0.0; a finite number above 0"),
        (lambda: imbalance.wash_out([0.1], weight=math.inf), "weight: inf; a finite number above 0"),
        (lambda: imbalance.weighted_bias(1.0, -2.0), "weight: -2.0; a finite number above 0"),
        (lambda: imbalance.wash_out([0.1, -1.0]), "weight_decay, l2: -1.0; finite values of 0 or more"),
        (lambda: imbalance.wash_out([0.1], l2=[math.nan]), "weight_decay, l2: nan; finite values of 0 or more"),
        (lambda: imbalance.wash_out([0.1], steps=2.5), r"record: \[2.5\]; whole numbers from 1 to steps=2.5"),
        (lambda: imbalance.class_weights(math.nan, 5), "positives, negatives: nan, 5; at least one"),
        (lambda: imbalance.weighted_cross_entropy((1.0, 1.0), torch.zeros(1, 5, 2), torch.zeros(1, 5)),
         r"logits: shape \(1, 5, 2\) for targets \(1, 5\); one logit for each"),
        (lambda: imbalance.wash_out([0.1], steps=5, record=(7,)), r"record: \[7\]; whole numbers from 1 to steps=5"),
        (lambda: imbalance.prior("digit 9"), "name: 'digit 9' is unknown; choose from 'digit 8'"),
        (lambda: imbalance.tune("digit 8 · linear · unweighted", [0]), "name: .* has no grid; choose from 'digit 8"),
        (lambda: imbalance.wash_out([0.1], l2=[0.0, 0.1]), "weight_decay, l2: 1 and 2 values"),
        (lambda: imbalance.logits_by_decay("digit 8", "unweighted", [1.0], [0], lr=0.1, steps=1, bias="none"),
         "bias: 'none' is unknown"),
        (lambda: imbalance.fixed_recipe("digit 8 · MLP · unweighted", [100], **RECIPE | {"steps": 0}),
         "steps: 0; a positive whole number"),
        (lambda: imbalance.retrained("digit 8 · MLP · unweighted", WINNERS, [5, 200]), "seeds 5 were used for tuning"),
    ],
)  # fmt: skip
def test_bad_input_is_named_with_what_would_do(call, what):
    with pytest.raises(ValueError, match=what):
        call()


# ---- losses and judgements


def test_a_diverged_replica_is_not_judged_and_the_others_are():
    logits = torch.tensor([[[1.0], [-1.0], [2.0]], [[1.0], [torch.nan], [torch.inf]]])
    targets = torch.tensor([[1, 0, 0]] * 2)
    for name, judge in imbalance.judgements(0.5).items():
        alone, (first, second) = judge(logits[:1], targets[:1]), judge(logits, targets)
        assert first == alone and first.isfinite() and second.isnan(), name


def test_class_weights_are_scikit_learns_balanced_ones():
    y = np.array([1] * 24 + [0] * 576)
    negative, positive = compute_class_weight("balanced", classes=np.array([0, 1]), y=y)
    assert imbalance.class_weights(24, 576) == pytest.approx((positive, negative))


def test_the_weighted_loss_counts_each_positive_as_often_as_its_weight():
    rng = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(3, 8, 1, generator=rng), torch.tensor([[1, 0, 0, 0] * 2] * 3)
    found = imbalance.weighted_cross_entropy((3.0, 1.0), logits, targets)
    repeated = [0, 0, 0, 1, 2, 3, 4, 4, 4, 5, 6, 7]
    plain = imbalance.weighted_cross_entropy((1.0, 1.0), logits[:, repeated], targets[:, repeated])
    torch.testing.assert_close(found * 8, plain * 12)
    chance = torch.full((1, 8, 1), math.log(1 / 3))
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert imbalance.weighted_cross_entropy((1.0, 1.0), chance, targets[:1]).item() == pytest.approx(entropy, rel=1e-5)


def linear_models(weights: list[float], seeds: list[int]) -> tuple:
    """Trained "models" whose logit is a multiple of the first measurement, so that a test can compute it itself."""
    task = imbalance.task("breast cancer", "linear", "unweighted")
    runs = grid({"AdamW": {"lr": [0.01], "weight_decay": [0.1]}}, seeds)
    parameters = {"weight": torch.zeros(len(seeds), 1, 30), "bias": torch.full((len(seeds), 1), -1.0)}
    parameters["weight"][:, 0, 0] = torch.tensor(weights)
    return task, Result(runs.assign(step=7, metric="weight norm", value=0.0), runs, parameters)


def test_scores_belong_to_the_runs_own_weights_and_data():
    task, result = linear_models([2.0, -1.0, 2.0], [4, 5, 6])
    scores, targets = imbalance.scores(task, result, "test", block=2)
    for i, (w, seed) in enumerate(zip([2.0, -1.0, 2.0], [4, 5, 6], strict=True)):
        x, y = task.data(seed)["test"]
        torch.testing.assert_close(scores[i], w * x[:, 0] - 1)
        assert torch.equal(targets[i], y)
    with pytest.raises(ValueError, match="result.parameters: None; train with keep_parameters=True"):
        imbalance.scores(task, Result(result.table, result.runs, None), "test")


def middle_best_cut(scores: np.ndarray, targets: torch.Tensor) -> float:
    ordered = np.unique(scores)
    cuts = np.concatenate([[ordered[0] - 1], (ordered[1:] + ordered[:-1]) / 2, [ordered[-1] + 1]])
    values = np.array([balanced_accuracy_score(targets, scores > cut) for cut in cuts])
    best = cuts[values > values.max() - 1e-6]
    return best[(len(best) - 1) // 2]


def test_the_moved_threshold_comes_from_validation_data_alone():
    task, result = linear_models([1.0, -0.5], [4, 5])
    table = imbalance.judge_on_test(task, result, 0.04).pivot(index="seed", columns="metric", values="value")
    for w, seed in zip([1.0, -0.5], [4, 5], strict=True):
        (x, y), (held_out, held_out_y) = (task.data(seed)[split] for split in ("test", "validation"))
        logits, held_out = (w * x[:, 0] - 1).numpy(), (w * held_out[:, 0] - 1).numpy()
        row = table.loc[seed]
        assert row["test AUC"] == pytest.approx(roc_auc_score(y, logits), rel=1e-5)
        assert row["test balanced accuracy"] == pytest.approx(balanced_accuracy_score(y, logits > 0), rel=1e-5)
        shifted = balanced_accuracy_score(y, logits > math.log(0.04 / 0.96))
        assert row["test balanced accuracy, threshold at the prior"] == pytest.approx(shifted, rel=1e-5)
        cut, elsewhere = middle_best_cut(held_out, held_out_y), middle_best_cut(logits, y)
        moved, peeked = (balanced_accuracy_score(y, logits > c) for c in (cut, elsewhere))
        assert row["test balanced accuracy, threshold moved"] == pytest.approx(moved, rel=1e-5)
        assert moved < peeked  # a threshold chosen on the test data would look better
    assert "test best balanced accuracy" not in table


# ---- the two formulas


def test_the_best_constant_logit_is_the_log_prior_odds():
    share = 0.04
    loss = lambda b: share * np.logaddexp(0, -b) + (1 - share) * np.logaddexp(0, b)  # noqa: E731
    assert minimize_scalar(loss).x == pytest.approx(imbalance.log_odds(share), abs=1e-4)


@pytest.mark.parametrize("weight", [0.5, 1.0, 24.0])
@pytest.mark.parametrize("slope", [0.1, 1.0, 5.0])
def test_the_weighted_bias_minimises_the_loss_of_the_two_points(weight, slope):
    loss = lambda b: weight * np.logaddexp(0, -slope - b) + np.logaddexp(0, b - slope)  # noqa: E731
    assert imbalance.weighted_bias(slope, weight) == pytest.approx(minimize_scalar(loss).x, abs=1e-4)


def test_the_weighted_bias_of_steep_slopes_is_half_the_log_weight():
    slopes = [12.0, 400.0, 2000.0]  # e to their power is no float any more
    np.testing.assert_allclose(imbalance.weighted_bias(slopes, 24.0), math.log(24) / 2, atol=1e-3)


def test_the_weighted_bias_is_where_both_points_pull_alike_however_lopsided():
    for slope, weight in ((-20.0, 0.5), (-20.0, 24.0), (0.01, 1e-6)):
        b = imbalance.weighted_bias(slope, weight)
        assert weight * expit(-slope - b) == pytest.approx(expit(b - slope), rel=1e-6)


def test_class_weights_wash_out_and_decay_keeps_them():
    table = imbalance.wash_out([0.0, 0.3, 0.0], l2=[0.0, 0.0, 0.001], steps=2000, record=(500, 2000))
    early, late = (table[table["step"] == step].set_index(["weight_decay", "l2"]) for step in (500, 2000))
    assert abs(late.loc[(0.0, 0.0), "boundary"]) < 0.7 * abs(early.loc[(0.0, 0.0), "boundary"])
    assert abs(late.loc[(0.3, 0.0), "boundary"]) > 2 * abs(late.loc[(0.0, 0.0), "boundary"])
    assert late.loc[(0.3, 0.0), "slope"] < 1 / 0.3
    predicted = -imbalance.weighted_bias(late["slope"].to_numpy(), 24.0) / late["slope"]
    np.testing.assert_allclose(late["boundary"], predicted, rtol=0.01)
    even = imbalance.wash_out(iter([0.0]), weight=1.0, steps=50)
    assert even["boundary"].item() == pytest.approx(0, abs=1e-9) and even["step"].item() == 50


def test_under_strong_decay_every_logit_is_the_log_prior_odds():
    table = imbalance.logits_by_decay("digit 8", "unweighted", [0.0, 20.0], [0, 1], lr=0.04, steps=500)
    means = table.pivot_table(index="weight_decay", columns="metric", values="value")
    assert means.loc[20.0, "mean logit"] == pytest.approx(imbalance.log_odds(0.04), abs=0.25)
    assert means.loc[20.0, "largest logit"] < -2 and means.loc[20.0, "validation recall"] == 0
    assert means.loc[20.0, "largest weight"] * 20 < 1 and means.loc[0.0, "validation recall"] > 0.3
    weighted = imbalance.logits_by_decay("digit 8", "class-weighted", [20.0], [0, 1], lr=0.04, steps=500)
    assert abs(weighted[weighted["metric"] == "mean logit"]["value"].mean()) < 0.5


def test_what_is_measured_is_what_the_trained_model_says():
    """`logits_by_decay` computes a linear model's logits itself: the recall that follows is the ensemble's."""
    task = imbalance.task("digit 8", "linear", "unweighted")
    x = task.data(0)["validation"][0]
    table = imbalance.logits_by_decay("digit 8", "unweighted", [0.1], [0], lr=0.03, steps=40)
    runs = grid({"AdamW": {"lr": [0.03], "weight_decay": [0.1]}}, [0]).assign(schedule="cosine")
    kept = train(task, runs, steps=40, batch_size=50, decays=imbalance.BIASES["undecayed bias"],
                 keep_parameters=True, device="cpu").parameters  # fmt: skip
    logits = x @ kept["weight"][0, 0] + kept["bias"][0]
    values = table.set_index("metric")["value"]
    assert values["mean logit"] == pytest.approx(logits.mean().item(), abs=1e-4)
    assert values["largest logit"] == pytest.approx(logits.max().item(), abs=1e-4)


def test_no_recall_beyond_the_bound():
    x = imbalance.splits("digit 8", 0)["validation"][0]
    lam = imbalance.recall_bound("digit 8", 0)
    largest = x.abs().sum(1).max().item() / lam  # the largest w·x with every |w| = 1/λ
    assert largest + imbalance.log_odds(0.04) == pytest.approx(0, abs=1e-5)


# ---- the protocol


def test_biases_are_decayed_or_not():
    runs = grid({"AdamW": {"lr": [0.01], "weight_decay": [5.0]}}, [0])
    task, sizes = imbalance.task("digit 8", "MLP", "unweighted"), {}
    for bias, decays in imbalance.BIASES.items():
        parameters = train(task, runs, steps=60, batch_size=50, decays=decays, keep_parameters=True,
                           device="cpu").parameters  # fmt: skip
        sizes[bias] = parameters["layers.1.bias"].abs().item(), parameters["layers.1.weight"].norm().item()
    assert sizes["undecayed bias"][0] > 1.5 * sizes["decayed bias"][0]
    assert imbalance.condition("digit 8 · MLP · unweighted")[3] is imbalance.BIASES["undecayed bias"]
    assert imbalance.condition("digit 8 · MLP · unweighted · decayed bias")[3] is imbalance.BIASES["decayed bias"]


def test_budgets_are_equal_and_steps_stay_below_one():
    settings = imbalance.SETTINGS
    for name, values in settings["grids"].items():
        runs = grid(imbalance.arms(values), [0])  # refuses unequal budgets
        assert runs.groupby("arm").size().to_dict() == {"AdamW": 36, "Adam + L2": 36, "Adam": 36}, name
        assert (runs["lr"] * runs["weight_decay"]).max() < 1, name
    assert len(settings["tuning_seeds"]) >= 10 and len(settings["evaluation_seeds"]) >= 24
    assert not set(settings["tuning_seeds"]) & set(settings["evaluation_seeds"])
    assert imbalance.TUNING_METRICS[0] == settings["tuning_metric"]


@pytest.mark.parametrize("bias", ["", " · decayed bias"])
def test_a_condition_is_tuned_and_evaluated_as_its_name_says(bias, monkeypatch):
    from adamw_book.scenarios.class_imbalance import protocol

    asked, shares = [], []

    def watched(task, runs, **options):
        asked.append((task.name, options["evaluate"], options["decays"], set(runs["schedule"])))
        return train(task, runs, **options | {"steps": 2})

    def judged(task, result, share):
        shares.append(share)
        return imbalance.judge_on_test(task, result, share)

    monkeypatch.setattr(protocol, "train", watched)
    monkeypatch.setattr(protocol, "judge_on_test", judged)
    name = "breast cancer · MLP · class-weighted" + bias
    decays = imbalance.condition(name)[3]
    tuning = imbalance.tune(name, [0])
    assert set(tuning["metric"]) == set(imbalance.TUNING_METRICS) and set(tuning["condition"]) == {name}
    runs = grid({"AdamW": {"lr": [0.01], "weight_decay": [0.3]}}, [200])
    table = imbalance.evaluate(name, runs)
    assert table["metric"].str.startswith("test ").all() and "schedule" not in table
    own = "breast cancer · MLP · class-weighted"
    assert asked == [(own, ("validation",), decays, {"cosine"}), (own, (), decays, {"cosine"})]
    assert shares == [imbalance.prior("breast cancer")]


def test_doses_are_taken_in_three_ways(monkeypatch):
    from adamw_book.scenarios.class_imbalance import protocol

    def evaluate(name, runs, steps=None):
        return runs.assign(condition=name, step=steps)

    monkeypatch.setattr(protocol, "evaluate", evaluate)
    table, dose = imbalance.doses("digit 8", "MLP", iter([100])), imbalance.SETTINGS["dose"]
    assert table.groupby("training")["condition"].unique().map(list).to_dict() == {
        "no class weights": ["digit 8 · MLP · unweighted"],
        "no class weights, decayed bias": ["digit 8 · MLP · unweighted · decayed bias"],
        "class weights": ["digit 8 · MLP · class-weighted"],
    }
    assert set(table["lr"]) == {dose["lr"]} and set(table["step"]) == {dose["steps"]} and set(table["arm"]) == {"AdamW"}
    assert all(own["weight_decay"].tolist() == dose["weight_decay"] for _, own in table.groupby("training"))


WINNERS = pd.DataFrame(
    [
        ("AdamW", 0.02, 0.3, 0.0, "balanced accuracy"),
        ("AdamW", 0.02, 0.3, 0.0, "best balanced accuracy"),
        ("Adam", 0.03, 0.0, 0.0, "balanced accuracy"),
        ("Adam", 0.01, 0.0, 0.0, "best balanced accuracy"),
    ],
    columns=["arm", "lr", "weight_decay", "l2", "tuned_for"],
).assign(condition="digit 8 · MLP · unweighted", score=0.9, n_seeds=12, edge="")


def test_winners_that_several_tuning_metrics_share_are_trained_once(monkeypatch):
    counted = []
    from adamw_book.scenarios.class_imbalance import protocol

    monkeypatch.setattr(protocol, "train", lambda task, runs, **o: counted.append(len(runs)) or train(task, runs, **o))
    monkeypatch.setitem(protocol.SETTINGS, "steps", 3)
    table = imbalance.retrained("digit 8 · MLP · unweighted", WINNERS, [200, 201])
    assert counted == [6] and set(table["step"]) == {3}
    rows = table[table["metric"] == "test AUC"]
    assert rows.groupby(["arm", "tuned_for"]).size().tolist() == [2, 2, 2, 2]
    both = rows[rows["arm"] == "AdamW"].pivot(index="seed", columns="tuned_for", values="value")
    assert both.iloc[:, 0].tolist() == both.iloc[:, 1].tolist()
    only = imbalance.retrained("digit 8 · MLP · unweighted", WINNERS, [200], ["balanced accuracy"], ("Adam",))
    assert set(only["arm"]) == {"Adam"} and set(only["lr"]) == {0.03}


def test_each_tuning_metric_has_its_own_winner():
    values = {"balanced accuracy": (0.9, 0.7), "accuracy": (0.6, 0.8), "AUC": (0.5, 0.6),
              "best balanced accuracy": (0.9, 0.8)}  # fmt: skip
    rows = [
        {"condition": "c", "arm": "Adam", "lr": lr, "weight_decay": 0.0, "l2": 0.0, "seed": seed, "step": 9,
         "metric": metric, "value": pair[i] + 0.01 * seed}
        for metric, pair in values.items() for i, lr in enumerate((0.01, 0.1)) for seed in (0, 1)
    ]  # fmt: skip
    with pytest.warns(EdgeWarning) as warned:  # one for each metric on which a claim rests
        chosen = imbalance.winners_of(pd.DataFrame(rows)).set_index("tuned_for")["lr"].to_dict()
    assert len(warned) == 2
    assert chosen == {"balanced accuracy": 0.01, "accuracy": 0.1, "AUC": 0.1, "best balanced accuracy": 0.01}


def tables(seeds=range(8)) -> dict[str, pd.DataFrame]:
    """Tables in which every number is chosen: recall +0.1 or −0.2 and so on, with a little noise that cancels."""
    rows = []

    def add(condition, arm, metric, value, tuned_for="balanced accuracy", **more):
        for seed in seeds:
            noise = 0.001 * (-1) ** seed
            rows.append({"condition": condition, "arm": arm, "metric": f"test {metric}", "value": value + noise,
                         "tuned_for": tuned_for, "seed": seed, "step": 1000, **more})  # fmt: skip

    key = "digit 8 · MLP"
    for arm, recall, balanced in (("AdamW", 0.6, 0.8), ("Adam", 0.5, 0.75)):
        add(f"{key} · unweighted", arm, "recall", recall)
        add(f"{key} · class-weighted", arm, "balanced accuracy", balanced + 0.1)
    add(f"{key} · unweighted", "Adam", "balanced accuracy, threshold moved", 0.93, "best balanced accuracy")
    add(f"{key} · unweighted", "AdamW", "balanced accuracy, threshold moved", 0.5, "best balanced accuracy")
    evaluation, rows = pd.DataFrame(rows), []
    for decay, recall in ((0.0, 0.7), (0.3, 0.6), (1.0, 0.5)):
        add(f"{key} · unweighted", "AdamW", "recall", recall, weight_decay=decay, training="no class weights")
        add(f"{key} · unweighted", "AdamW", "recall", 0.1, weight_decay=decay, training="class weights")
    dose, rows = pd.DataFrame(rows), []
    for arm, recall, balanced in (("AdamW", 0.9, 0.9), ("Adam", 0.5, 0.6)):
        add("breast cancer · MLP · unweighted", arm, "recall", recall)
        add("breast cancer · MLP · class-weighted", arm, "balanced accuracy", balanced)
    return {"evaluation": evaluation, "dose": dose, "long": pd.DataFrame(rows)}


def test_effects_follow_from_the_tables():
    found = imbalance.effects(tables())
    means = {claim: {regime: round(e.mean, 6) for regime, e in by.items()} for claim, by in found.items()}
    assert means == {
        "class_imbalance.minority": {
            "digit 8, tuned": 0.1,
            "digit 8, λ = 1, 1000 steps": -0.2,
            "breast cancer, λ = 1, 5000 steps": 0.4,
        },
        "class_imbalance.weights": {
            "digit 8, tuned, against Adam": 0.05,
            "breast cancer, λ = 1, 5000 steps": 0.3,
        },
        "class_imbalance.threshold": {"digit 8": -0.03},
    }
    threshold = found["class_imbalance.threshold"]["digit 8"]
    assert threshold.contrast == "AdamW with class weights − Adam with a moved threshold"


def test_the_headline_retrains_winners_on_the_seeds_that_it_is_given(monkeypatch):
    from adamw_book.scenarios.class_imbalance import protocol

    asked = []

    def evaluate(name, runs, steps=None, device=None):
        asked.append((name, sorted(set(runs["seed"])), steps))
        metrics = ("recall", "balanced accuracy", "balanced accuracy, threshold moved")
        frames = [runs.assign(condition=name, step=1, metric=f"test {m}", value=0.5 + 0.01 * i)
                  for i, m in enumerate(metrics)]  # fmt: skip
        return pd.concat(frames, ignore_index=True)

    monkeypatch.setattr(protocol, "evaluate", evaluate)
    conditions = [f"{data} · MLP · {loss}" for data in imbalance.COUNTS for loss in imbalance.LOSSES]
    winners = pd.concat([WINNERS.assign(condition=name) for name in conditions])
    found = imbalance.headline({"winners": winners}, range(300, 306))
    assert set(found) == {claim.id for claim in imbalance.STUDY.claims} and all(found.values())
    assert all(seeds == list(range(300, 306)) for _, seeds, _ in asked)
    assert set(found["class_imbalance.minority"]) == {
        f"{data}, {regime}" for data in imbalance.COUNTS for regime in ("tuned", "λ = 1, 1000 steps")
    }
    assert set(found["class_imbalance.threshold"]) == set(imbalance.COUNTS)


def test_a_fixed_recipe_is_adam_where_it_has_no_decay():
    table = imbalance.fixed_recipe("breast cancer · linear · class-weighted", [100, 101], **RECIPE)
    assert table.groupby("arm")["weight_decay"].unique().map(list).to_dict() == {"Adam": [0.0], "AdamW": [1.0]}
    assert set(table["lr"]) == {0.01} and set(table["step"]) == {5}
    assert paired(table, "AdamW", "Adam", "test recall").n == 2
