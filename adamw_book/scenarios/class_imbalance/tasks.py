"""Imbalanced two-class data, the tasks made of it, and what is measured on a trained model."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Integral

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from adamw_book import metrics
from adamw_book.data import Splits, breast_cancer, digits, generator, standardized
from adamw_book.ensemble import Result, Task, over_replicas
from adamw_book.models import MLP

# Splits as (positives, negatives). The held-out splits hold more positives than 1 in 25, so that a recall is measured
# on more than a handful of them; what depends on how common they are is reweighted to the share of the training data.
COUNTS = {
    "digit 8": {"train": (24, 576), "validation": (24, 168), "test": (126, 879)},
    "breast cancer": {"train": (8, 192), "validation": (24, 60), "test": (180, 105)},
}
MODELS = {"linear": lambda features: nn.Linear(features, 1), "MLP": lambda features: MLP(features, classes=1)}
LOSSES = ("unweighted", "class-weighted")


def all_but_biases(name: str) -> bool:
    """For ``decays``: the penalty acts on weights alone, as most recipes have it."""
    return not name.endswith("bias")


def everything(name: str) -> bool:
    """For ``decays``: the penalty acts on biases too, as torch does unless told otherwise."""
    return True


BIASES: dict[str, Callable[[str], bool]] = {"undecayed bias": all_but_biases, "decayed bias": everything}


def imbalanced_splits(x: Tensor, y: Tensor, counts: Mapping[str, tuple[int, int]], seed: int) -> Splits:
    """Disjoint random splits with exactly the given numbers of each class.

    x: (N, D). y: (N,), 1 for the positives, 0 for the rest. counts: {split: (positives, negatives)}.

    Raises ValueError for labels other than 0 and 1, an empty split, a split without one of the classes, and counts
    that the data cannot fill.
    """
    if y.shape != x.shape[:1]:
        raise ValueError(f"y: shape {tuple(y.shape)} for {len(x)} examples in x; one label for each example is needed")
    if not len(y) or not ((y == 0) | (y == 1)).all():
        raise ValueError(f"y: labels {y.unique().tolist()}; 1 for the positives and 0 for the rest are needed")
    rng = generator(seed, "data")
    pools = [(y == label).nonzero()[:, 0] for label in (1, 0)]
    pools = [pool[torch.randperm(len(pool), generator=rng)] for pool in pools]
    splits, start = {}, [0, 0]
    for name, wanted in counts.items():
        if not isinstance(wanted, Sequence) or len(wanted) != 2:
            raise ValueError(f"counts[{name!r}]: {wanted}; a pair, positives and negatives, is needed")
        chosen = []
        for i, (pool, count) in enumerate(zip(pools, wanted, strict=True)):
            if not isinstance(count, Integral) or count < 1 or start[i] + count > len(pool):
                raise ValueError(
                    f"counts[{name!r}]: {count} {('positives', 'negatives')[i]} of the {len(pool) - start[i]} left (of "
                    f"{len(pool)}); a positive whole number that fits is needed"
                )
            chosen.append(pool[start[i] : start[i] + count])
            start[i] += count
        index = torch.cat(chosen)
        splits[name] = (x[index], y[index])
    return splits


def splits(name: str, seed: int) -> Splits:
    """The splits of one data set, by its name in ``COUNTS``: "digit 8" (against the other digits), pixels in 0…1, or
    "breast cancer" (malignant against benign), its 30 measurements standardised on the training split."""
    _known("name", name, COUNTS)
    if name == "digit 8":
        x, y = digits()
        return imbalanced_splits(x, (y == 8).long(), COUNTS[name], seed)
    return standardized(imbalanced_splits(*breast_cancer(), COUNTS[name], seed))


def prior(name: str) -> float:
    """π, the share of positives in the training split of a data set, by its name in ``COUNTS``."""
    _known("name", name, COUNTS)
    positives, negatives = COUNTS[name]["train"]
    return positives / (positives + negatives)


def class_weights(positives: int, negatives: int) -> tuple[float, float]:
    """The "balanced" weights of (positives, negatives), N / (2 N_c): both classes count the same, the mean is 1."""
    if not (positives >= 1 and negatives >= 1):
        raise ValueError(f"positives, negatives: {positives}, {negatives}; at least one of each is needed")
    total = positives + negatives
    return total / (2 * positives), total / (2 * negatives)


def weighted_cross_entropy(weights: tuple[float, float], logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over N of weight × cross-entropy, in nats: logits (R, N, 1), targets (R, N) in {0, 1} → (R,)."""
    if logits.shape != (*targets.shape, 1):
        raise ValueError(
            f"logits: shape {tuple(logits.shape)} for targets {tuple(targets.shape)}; one logit for each is needed"
        )
    losses = functional.binary_cross_entropy_with_logits(logits[..., 0], targets.float(), reduction="none")
    return (losses * torch.where(targets == 1, *weights)).mean(1)


def judgements(share: float) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The metrics of logits (R, N, 1) and targets (R, N). Accuracy and calibration are those at ``share`` of
    positives; "best balanced accuracy" is the one at the threshold that suits these very data. A replica whose logits
    are not finite gets NaN, so that its configuration is never chosen."""

    def on_scores(metric):
        def judged(logits, targets):
            finite = logits.isfinite().flatten(1).all(1)
            return metric(logits[..., 0].nan_to_num(), targets).where(finite, torch.nan)

        return judged

    def best(scores, targets):
        return metrics.balanced_accuracy(scores, targets, metrics.best_threshold(scores, targets))

    found = {
        "accuracy": partial(metrics.accuracy_at, share),
        "recall": metrics.recall,
        "balanced accuracy": metrics.balanced_accuracy,
        "AUC": metrics.auc,
        "calibration error": partial(metrics.calibration_error, prior=share),
        "best balanced accuracy": best,
    }
    return {name: on_scores(metric) for name, metric in found.items()}


def task(data: str, model: str, loss: str) -> Task:
    """One task: a data set (``COUNTS``), a model (``MODELS``), a loss (``LOSSES``). One logit, for the positives."""
    for argument, value, known in (("data", data, COUNTS), ("model", model, MODELS), ("loss", loss, LOSSES)):
        _known(argument, value, known)
    weights = class_weights(*COUNTS[data]["train"]) if loss == "class-weighted" else (1.0, 1.0)
    features = splits(data, 0)["train"][0].shape[1]
    mean_loss = partial(weighted_cross_entropy, weights)
    return Task(
        f"{data} · {model} · {loss}",
        lambda: MODELS[model](features),
        lambda seed: splits(data, seed),
        mean_loss,
        {"loss": mean_loss, **judgements(prior(data))},
    )


@torch.no_grad()
def scores(task: Task, result: Result, split: str, block: int = 128) -> tuple[Tensor, Tensor]:
    """Logits (R, N) and targets (R, N) of trained models (a result with its parameters kept) on one split."""
    if result.parameters is None:
        raise ValueError("result.parameters: None; train with keep_parameters=True")
    apply = over_replicas(task.model)
    data = {seed: task.data(int(seed))[split] for seed in result.runs["seed"].unique()}
    x, y = (torch.stack([data[seed][i] for seed in result.runs["seed"]]) for i in (0, 1))
    parts = [
        apply({name: p[i : i + block] for name, p in result.parameters.items()}, x[i : i + block])[..., 0]
        for i in range(0, len(x), block)
    ]
    return torch.cat(parts), y


def judge_on_test(task: Task, result: Result, share: float) -> pd.DataFrame:
    """Test metrics of trained models, a tidy table: those of :func:`judgements`, and two moved thresholds.

    "test balanced accuracy, threshold moved": at the threshold that was best on the run's own validation split. "…,
    threshold at the prior": at ln(π / (1 − π)) with π = ``share``, which needs no data. Both shift the threshold of a
    model that was trained without weights; a weighted one aims at 0 already.
    """
    logits, targets = scores(task, result, "test")
    values = {f"test {name}": metric(logits[..., None], targets) for name, metric in judgements(share).items()}
    values.pop("test best balanced accuracy")  # its threshold would be chosen on the test data
    moved = metrics.best_threshold(*scores(task, result, "validation"))
    for name, threshold in (("threshold moved", moved), ("threshold at the prior", math.log(share / (1 - share)))):
        values[f"test balanced accuracy, {name}"] = metrics.balanced_accuracy(logits, targets, threshold)
        values[f"test recall, {name}"] = metrics.recall(logits, targets, threshold)
    step = int(result.table["step"].max())
    frames = [result.runs.assign(step=step, metric=name, value=v.double().numpy()) for name, v in values.items()]
    return pd.concat(frames, ignore_index=True)


def _known(argument: str, value: object, known) -> None:
    if value not in known:
        raise ValueError(f"{argument}: {value!r} is unknown; choose from {', '.join(map(repr, known))}")
