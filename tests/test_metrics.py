"""Metrics of two-class scores: against scikit-learn, and on cases worked by hand."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score, roc_auc_score, roc_curve

from adamw_book import metrics
from adamw_book.scenarios.covariate_shift import tasks
from adamw_book.task import accuracy


def random_scores(ties: bool, replicas: int = 6, examples: int = 150) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(3)
    targets = (torch.rand(replicas, examples, generator=rng) < 0.15).long()
    scores = 1.5 * torch.randn(replicas, examples, generator=rng) + 1.2 * targets - 0.8
    return (scores.round() if ties else scores), targets


@pytest.mark.parametrize("ties", [False, True])
def test_scores_are_judged_as_scikit_learn_judges_them(ties):
    scores, targets = random_scores(ties)
    pairs = list(zip(scores.numpy(), targets.numpy(), strict=True))
    found = {
        "recall": metrics.recall(scores, targets, 0.3),
        "specificity": metrics.specificity(scores, targets, 0.3),
        "balanced": metrics.balanced_accuracy(scores, targets, 0.3),
        "auc": metrics.auc(scores, targets),
    }
    wanted = {
        "recall": [recall_score(y, s > 0.3) for s, y in pairs],
        "specificity": [recall_score(y, s > 0.3, pos_label=0) for s, y in pairs],
        "balanced": [balanced_accuracy_score(y, s > 0.3) for s, y in pairs],
        "auc": [roc_auc_score(y, s) for s, y in pairs],
    }
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)
        assert np.ptp(values) > 0.01, name


METRICS = (
    metrics.auc,
    metrics.recall,
    metrics.specificity,
    metrics.balanced_accuracy,
    lambda scores, targets: metrics.accuracy_at(0.3, scores, targets),
    metrics.best_threshold,
    metrics.calibration_error,
    lambda scores, targets: metrics.calibration_error(scores, targets, prior=0.3),
)


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.bool, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("metric", METRICS)
def test_scores_of_any_kind_are_judged_as_the_same_numbers_in_float64_are(metric, kind):
    scores, targets = random_scores(ties=True, replicas=3, examples=5000)
    scores = (scores.abs() if kind in (torch.uint8, torch.bool) else scores).to(kind)
    wanted = metric(scores.double(), targets)
    assert wanted.dtype == torch.float64 and len(set(wanted.tolist())) > (metric is not metrics.best_threshold)
    for labels in (targets, targets.bool(), targets.float()):
        assert torch.equal(metric(scores, labels), wanted)


def test_the_auc_of_whole_numbers():
    scores, targets = torch.tensor([[1, 2, 2, 3]]), torch.tensor([[0, 0, 1, 1]])
    assert metrics.auc(scores, targets).tolist() == [0.875]  # a tie among four pairs
    assert metrics.recall(scores, targets, 2.5).tolist() == [0.5]  # not cut to 2


@pytest.mark.parametrize("metric", [metrics.recall, metrics.specificity])
def test_a_score_at_the_threshold_does_not_lie_above_it(metric):
    scores, targets = torch.tensor([[0.0, 0.0, 1.0, -1.0]]), torch.tensor([[1, 0, 1, 0]])
    assert metric(scores, targets).item() == {metrics.recall: 0.5, metrics.specificity: 1.0}[metric]


def test_a_threshold_between_neighbours_in_floating_point_and_between_huge_scores():
    one = torch.tensor(1.0)
    for low, high in ((one, one.nextafter(2 * one)), (one.nextafter(2 * one), one * (1 + 2**-22)), (3e38, 3.2e38)):
        scores, targets = torch.tensor([[float(low), float(high)]]), torch.tensor([[0, 1]])
        found = metrics.best_threshold(scores, targets)
        assert metrics.balanced_accuracy(scores, targets, found).item() == 1


def test_infinite_scores():
    scores, targets = torch.tensor([[-torch.inf, torch.inf, 0.0, torch.inf]]), torch.tensor([[0, 1, 0, 0]])
    assert metrics.auc(scores, targets).item() == pytest.approx(2.5 / 3)
    assert metrics.specificity(scores, targets).item() == pytest.approx(2 / 3)
    assert metrics.calibration_error(scores, targets).item() == pytest.approx(0.125 + 0.25)
    with pytest.raises(ValueError, match="scores: some are infinite"):
        metrics.best_threshold(scores, targets)


def test_a_network_that_diverged_is_no_correct_one():
    """Class 0 is what argmax makes of NaN, and here it is right."""
    logits = torch.tensor([[[2.0, 0.0]] * 3, [[torch.nan, torch.nan]] * 3, [[2.0, 0.0], [torch.inf, 0.0], [2.0, 0.0]]])
    targets = torch.zeros(3, 3, dtype=torch.long)
    assert accuracy(logits, targets).tolist() == [1, 0, 0]
    targets[:, 0] = 2  # the label 0 without the bit, so that both groups occur
    found = tasks.balanced_accuracy(logits, targets)
    assert found[0] > 0 and found[1:].tolist() == [0, 0]
    assert tasks.winter_accuracy(logits, targets)[1:].tolist() == [0, 0]


def test_a_threshold_may_differ_from_replica_to_replica():
    scores, targets = random_scores(ties=False)
    thresholds = torch.linspace(-1, 1, 6)
    together = metrics.recall(scores, targets, thresholds)
    alone = torch.cat([metrics.recall(scores[i : i + 1], targets[i : i + 1], float(thresholds[i])) for i in range(6)])
    assert torch.equal(together, alone) and len(set(together.tolist())) > 3


@pytest.mark.parametrize("ties", [False, True])
def test_no_threshold_is_better_than_the_best(ties):
    scores, targets = random_scores(ties, replicas=80, examples=60)
    best = metrics.balanced_accuracy(scores, targets, metrics.best_threshold(scores, targets))
    for score, target, value in zip(scores.numpy(), targets.numpy(), best.tolist(), strict=True):
        false_positives, true_positives, _ = roc_curve(target, score, drop_intermediate=False)
        assert value == pytest.approx(((1 - false_positives + true_positives) / 2).max(), abs=1e-6)


def test_the_best_threshold_is_the_middle_one_of_several():
    scores = torch.tensor([[-3.0, -1.0, 2.0, 4.0, 8.0]])
    assert metrics.best_threshold(scores, torch.tensor([[0, 0, 0, 1, 1]])).item() == 3.0
    alternating = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]])
    # cuts at 0.5, 2.5 and 4.5 all have a balanced accuracy of 2/3
    assert metrics.best_threshold(alternating, torch.tensor([[0, 1, 0, 1, 0, 1]])).item() == 2.5
    # below all, in the middle and above all: 1/2 each
    assert metrics.best_threshold(alternating[:, :4], torch.tensor([[1, 0, 1, 0]])).item() == 1.5


def test_of_an_even_number_of_best_thresholds_it_is_the_lower_one_in_the_middle():
    for pairs, middle in ((2, 0.5), (4, 2.5)):  # of the cuts at 0.5, 2.5, …: each leaves one pair in its right order
        scores, targets = torch.arange(2.0 * pairs)[None], torch.tensor([[0, 1] * pairs])
        assert metrics.best_threshold(scores, targets).item() == middle


@pytest.mark.parametrize("scores", [[-3.2e38, -3e38], [3e38, 3.2e38], [1e9, 2e9], [-2e9, -1e9], [1e-45, 3e-45]])
@pytest.mark.parametrize("targets", [[0, 1], [1, 0]])
def test_the_best_threshold_of_scores_of_any_size_is_finite_and_as_good_as_it_says(scores, targets):
    """Also where the sum of two scores overflows, and where 1 is less than what rounding leaves."""
    scores, targets = torch.tensor([scores]), torch.tensor([targets])
    threshold = metrics.best_threshold(scores, targets)
    assert threshold.isfinite().all()
    assert metrics.balanced_accuracy(scores, targets, threshold).item() == (1.0 if targets[0, 1] else 0.5)


def test_accuracy_at_the_share_that_the_data_have_is_plain_accuracy():
    scores, targets = random_scores(ties=False)
    for i in range(6):
        share = targets[i].float().mean().item()
        one = slice(i, i + 1)
        wanted = accuracy_score(targets[i], scores[i] > 0)
        assert metrics.accuracy_at(share, scores[one], targets[one]).item() == pytest.approx(wanted, rel=1e-6)
    assert metrics.accuracy_at(0.5, scores, targets).tolist() == metrics.balanced_accuracy(scores, targets).tolist()


@pytest.mark.parametrize("bins", [5, 10])
def test_calibration_error_follows_from_scikit_learns_curve(bins):
    scores, targets = random_scores(ties=False)
    found = metrics.calibration_error(scores, targets, bins=bins)
    for score, target, value in zip(scores, targets.numpy(), found.tolist(), strict=True):
        probability = score.sigmoid().numpy()
        share, mean = calibration_curve(target, probability, n_bins=bins)
        counts = np.histogram(probability, bins=np.linspace(0, 1, bins + 1))[0]
        assert value == pytest.approx(np.abs(share - mean) @ counts[counts > 0] / len(target), rel=1e-4)


def test_calibration_at_another_share_of_positives():
    """A share of 20% positives in place of 50% is what dropping three positives in four would give."""
    scores = torch.tensor([[2.0, -1.0, 0.5, -0.2] * 4])
    targets = torch.tensor([[1, 0, 1, 0] * 4])
    kept = torch.tensor([0, 2, *[i for i in range(16) if i % 2]])
    thinned = metrics.calibration_error(scores[:, kept], targets[:, kept])
    assert metrics.calibration_error(scores, targets, prior=0.2).item() == pytest.approx(thinned.item(), rel=1e-5)
    assert metrics.calibration_error(scores, targets).item() != pytest.approx(thinned.item(), rel=0.05)


def test_probabilities_that_are_right_have_no_calibration_error():
    scores = torch.logit(torch.tensor([[0.25] * 40 + [0.75] * 40]))
    targets = torch.tensor([[1] * 10 + [0] * 30 + [1] * 30 + [0] * 10])
    assert metrics.calibration_error(scores, targets).item() == pytest.approx(0, abs=1e-6)


def test_a_probability_of_1_lies_in_the_last_bin():
    scores = torch.tensor([[100.0, 100.0, 3.0, 1.7, -100.0]])  # probabilities 1, 1, 0.953, 0.846 and 0
    targets = torch.tensor([[1, 0, 1, 1, 0]])
    assert scores.sigmoid()[0, 0] == 1
    last, before = 1 - 1 / (1 + np.exp(3)), 1 / (1 + np.exp(1.7))
    assert metrics.calibration_error(scores, targets).item() == pytest.approx((last + before) / 5, rel=1e-5)
    assert metrics.calibration_error(scores, targets, bins=1).item() == pytest.approx((last - before) / 5, rel=1e-5)


def test_a_number_of_bins_may_be_numpys():
    scores, targets = random_scores(ties=False)
    found = metrics.calibration_error(scores, targets, bins=np.int64(5))
    assert torch.equal(found, metrics.calibration_error(scores, targets, bins=5))


@pytest.mark.parametrize("bins", [0, -1, 2.5])
def test_bins_are_counted(bins):
    with pytest.raises(ValueError, match=f"bins: {bins}; a positive whole number"):
        metrics.calibration_error(*random_scores(ties=False), bins=bins)


@pytest.mark.parametrize("threshold", [float("nan"), torch.zeros(5), torch.zeros(6, 1), torch.full((6,), torch.nan)])
def test_a_threshold_is_a_number_or_one_a_replica(threshold):
    for metric in (metrics.recall, metrics.specificity, metrics.balanced_accuracy):
        with pytest.raises(ValueError, match="threshold: .*; a number, or one for each of the 6 replicas, is needed"):
            metric(*random_scores(ties=False), threshold)


@pytest.mark.parametrize(
    ("scores", "targets", "what"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), r"scores, targets: shapes \(2, 3\) and \(2, 4\); equal shapes"),
        (torch.zeros(1, 2), torch.tensor([[1, 2]]), "targets: labels from 1 to 2; only 0 and 1"),
        (torch.zeros(1, 2), torch.tensor([[1, torch.nan]]), "targets: labels from nan"),
        (torch.zeros(2, 2), torch.tensor([[0, 1], [1, 1]]), "targets: a replica has examples of one class only"),
        (torch.zeros(2, 2), torch.tensor([[0, 1], [0, 0]]), "targets: a replica has examples of one class only"),
        (torch.zeros(2, 0), torch.zeros(2, 0), "targets: a replica has examples of one class only"),
        (torch.zeros(2), torch.zeros(2), r"scores, targets: shapes \(2,\) and"),
        (torch.tensor([[0, torch.nan]]), torch.tensor([[0, 1]]), "scores: 1 of 2 are NaN; numbers are needed"),
    ],
)
def test_scores_that_cannot_be_judged(scores, targets, what):
    for metric in METRICS:
        with pytest.raises(ValueError, match=what):
            metric(scores, targets)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_of_positives_lies_between_0_and_1(share):
    scores, targets = random_scores(ties=False)
    for judged in (lambda: metrics.accuracy_at(share, scores, targets),
                   lambda: metrics.calibration_error(scores, targets, prior=share)):  # fmt: skip
        with pytest.raises(ValueError, match=f"prior: {share}; a share between 0 and 1"):
            judged()
