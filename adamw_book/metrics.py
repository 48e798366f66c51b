"""Metrics of two-class scores beyond accuracy, for all replicas at once.

Everywhere ``scores`` (R, N) are logits of the positive class and ``targets`` (R, N) its labels, 0 or 1; each replica
needs examples of both classes, and NaN is no score. Scores that are neither float32 nor float64 are judged, and the
metric given, as float64. Recall, specificity, balanced accuracy and AUC do not depend on how common the positive
class is in the data at hand; accuracy and calibration do, so they take the share ``prior`` that is meant.
"""

import torch
from torch import Tensor

from adamw_book.arguments import whole


def _checked(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The scores in a type that can hold the metrics, the positives as a mask (R, N) and their number (R, 1). Raises
    ``ValueError`` where a metric would have no meaning."""
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise ValueError(
            f"scores, targets: shapes {tuple(scores.shape)} and {tuple(targets.shape)}; equal shapes (R, N) are needed"
        )
    if scores.isnan().any():
        raise ValueError(f"scores: {int(scores.isnan().sum())} of {scores.numel()} are NaN; numbers are needed")
    if not ((targets == 0) | (targets == 1)).all():
        raise ValueError(f"targets: labels from {targets.min()} to {targets.max()}; only 0 and 1 have a meaning here")
    positive = targets == 1
    count = positive.sum(1, keepdim=True)
    if not ((count > 0) & (count < targets.shape[1])).all():
        raise ValueError("targets: a replica has examples of one class only; each needs positives and negatives")
    return scores if scores.dtype in (torch.float32, torch.float64) else scores.double(), positive, count


def _found(scores: Tensor, threshold: float | Tensor) -> Tensor:
    """Which scores lie above the threshold, a mask (R, N)."""
    threshold = torch.as_tensor(threshold, dtype=scores.dtype, device=scores.device)
    if threshold.isnan().any() or threshold.shape not in ((), (len(scores),)):
        raise ValueError(
            f"threshold: {threshold.tolist()}; a number, or one for each of the {len(scores)} replicas, is needed"
        )
    return scores > threshold.reshape(-1, 1)


def recall(scores: Tensor, targets: Tensor, threshold: float | Tensor = 0.0) -> Tensor:
    """Share of the positives whose score lies above ``threshold``, a number or (R,): → (R,), in 0…1."""
    scores, positive, count = _checked(scores, targets)
    return (_found(scores, threshold) & positive).sum(1) / count[:, 0].to(scores.dtype)


def specificity(scores: Tensor, targets: Tensor, threshold: float | Tensor = 0.0) -> Tensor:
    """Share of the negatives whose score does not lie above ``threshold``, a number or (R,): → (R,), in 0…1."""
    scores, positive, count = _checked(scores, targets)
    return (~_found(scores, threshold) & ~positive).sum(1) / (targets.shape[1] - count[:, 0]).to(scores.dtype)


def balanced_accuracy(scores: Tensor, targets: Tensor, threshold: float | Tensor = 0.0) -> Tensor:
    """The mean of recall and specificity: → (R,), in 0…1; a constant answer gets 0.5."""
    return (recall(scores, targets, threshold) + specificity(scores, targets, threshold)) / 2


def accuracy_at(prior: float, scores: Tensor, targets: Tensor, threshold: float | Tensor = 0.0) -> Tensor:
    """The accuracy that the same recall and specificity give where the positives' share is ``prior``: → (R,)."""
    if not 0 < prior < 1:
        raise ValueError(f"prior: {prior}; a share between 0 and 1 is needed")
    return prior * recall(scores, targets, threshold) + (1 - prior) * specificity(scores, targets, threshold)


def auc(scores: Tensor, targets: Tensor) -> Tensor:
    """Area under the ROC curve: the probability that a positive scores above a negative, a tie counting half: → (R,).

    From the sum of the positives' ranks (Mann and Whitney's U), equal scores sharing their mean rank.
    """
    scores, positive, count = _checked(scores, targets)
    ordered = scores.sort(1).values.contiguous()
    scores = scores.contiguous()
    below = torch.searchsorted(ordered, scores)
    up_to = torch.searchsorted(ordered, scores, right=True)
    ranks = (below + up_to + 1).double() / 2  # the mean of ranks below + 1 … up_to
    n = count[:, 0].double()
    u = (ranks * positive).sum(1) - n * (n + 1) / 2
    return (u / (n * (targets.shape[1] - n))).to(scores.dtype)


def best_threshold(scores: Tensor, targets: Tensor) -> Tensor:
    """The threshold with the highest balanced accuracy: → (R,). Of several, the middle one; of an even number, the
    lower of the two in the middle.

    Candidates lie half-way between neighbouring scores that differ, and beyond both ends; so the scores are finite.
    """
    scores, positive, count = _checked(scores, targets)
    if scores.isinf().any():
        raise ValueError("scores: some are infinite; a threshold between them and others needs finite ones")
    ordered, order = scores.sort(1)
    sign = positive.gather(1, order).to(scores.dtype)
    n = count.to(scores.dtype)
    ones = scores.new_zeros(len(scores), 1)
    missed = torch.cat([ones, sign.cumsum(1)], 1) / n  # share of the positives at or below the candidate
    right = torch.cat([ones, (1 - sign).cumsum(1)], 1) / (targets.shape[1] - n)  # the same for the negatives
    low, high, first = ordered[:, :-1], ordered[:, 1:], ordered[:, :1]
    middle = (low + high) / 2
    middle = torch.where((low <= middle) & (middle < high), middle, low)  # it may round up, or overflow either way
    below = torch.minimum(first - 1, first.nextafter(first.new_tensor(-torch.inf)))  # beside 1e9 in float32, 1 is 0
    candidates = torch.cat([below, middle, ordered[:, -1:] + 1], 1)
    between = torch.cat([ones == 0, high > low, ones == 0], 1)
    value = torch.where(between, (1 - missed + right) / 2, -1.0)
    best = value >= value.max(1, keepdim=True).values - 1e-6
    chosen = (best.cumsum(1) == (best.sum(1, keepdim=True) + 1) // 2) & best
    return candidates.gather(1, chosen.int().argmax(1, keepdim=True))[:, 0]


def calibration_error(scores: Tensor, targets: Tensor, prior: float | None = None, bins: int = 10) -> Tensor:
    """Expected calibration error of the positive class's probability σ(score), in ``bins`` bins of equal width: →
    (R,), in 0…1 (Guo et al., 2017, Eq. 3, with the probability of the positive class in place of the confidence).

    The mean over examples of |share of positives − mean probability| in the example's bin. With ``prior`` the classes
    are weighted as if the positives' share were that; None takes the data as they are.
    """
    scores, positive, count = _checked(scores, targets)
    if prior is not None and not 0 < prior < 1:
        raise ValueError(f"prior: {prior}; a share between 0 and 1, or None, is needed")
    bins = whole("bins", bins)
    n, total = count.to(scores.dtype), targets.shape[1]
    prior = n / total if prior is None else torch.full_like(n, prior)
    weight = torch.where(positive, prior / n, (1 - prior) / (total - n))  # sums to 1 in each replica
    probability = scores.sigmoid()
    bin_of = (probability * bins).long().clamp(max=bins - 1)
    gap = scores.new_zeros(len(scores), bins).scatter_add_(
        1, bin_of, weight * (positive.to(scores.dtype) - probability)
    )
    return gap.abs().sum(1)
