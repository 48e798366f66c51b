"""Metrics of two-class scores: against scikit-learn, and on cases worked by hand."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score, roc_auc_score, roc_curve

from adamw_book import metrics


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


@pytest.mark.parametrize(
    ("scores", "targets", "what"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), r"scores, targets: shapes \(2, 3\) and \(2, 4\); equal shapes"),
        (torch.zeros(1, 2), torch.tensor([[1, 2]]), "targets: labels from 1 to 2; only 0 and 1"),
        (torch.zeros(2, 2), torch.tensor([[0, 1], [1, 1]]), "targets: a replica has examples of one class only"),
    ],
)
def test_scores_that_cannot_be_judged(scores, targets, what):
    for metric in (metrics.auc, metrics.recall, metrics.calibration_error, metrics.best_threshold):
        with pytest.raises(ValueError, match=what):
            metric(scores, targets)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_of_positives_lies_between_0_and_1(share):
    scores, targets = random_scores(ties=False)
    for judged in (lambda: metrics.accuracy_at(share, scores, targets),
                   lambda: metrics.calibration_error(scores, targets, prior=share)):  # fmt: skip
        with pytest.raises(ValueError, match=f"prior: {share}; a share between 0 and 1"):
            judged()
