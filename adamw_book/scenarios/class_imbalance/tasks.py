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
from adamw_book.ensemble import Result, over_replicas
from adamw_book.models import MLP, matrices
from adamw_book.protocol import Condition
from adamw_book.task import Task

# Splits as (positives, negatives). The held-out splits hold more positives than 1 in 25, so that a recall is measured
# on more than a handful of them; what depends on how common they are is reweighted to the share of the training data.
COUNTS = {
    "digit 8": {"train": (24, 576), "validation": (24, 168), "test": (87, 510)},
    "breast cancer": {"train": (8, 192), "validation": (24, 60), "test": (120, 80)},
}
MODELS = {"linear": lambda features: nn.Linear(features, 1), "MLP": lambda features: MLP(features, classes=1),
          "MLP, LayerNorm": lambda features: MLP(features, classes=1, norm=True)}  # fmt: skip
LOSSES = ("unweighted", "class-weighted")


def everything(name: str) -> bool:
    """For ``decays``: the penalty acts on biases too, as torch does unless told otherwise."""
    return True


BIASES: dict[str, Callable[[str], bool]] = {"undecayed bias": matrices, "decayed bias": everything}


def _known(argument: str, value: object, known) -> None:
    if value not in known:
        raise ValueError(f"{argument}: {value!r} is unknown; choose from {', '.join(map(repr, known))}")


def imbalanced_splits(x: Tensor, y: Tensor, counts: Mapping[str, tuple[int, int]], seed: int) -> Splits:
    """Disjoint random splits with exactly the given numbers of each class; "test" is the same under each seed.

    x: (N, D). y: (N,), 1 for the positives, 0 for the rest. counts: {split: (positives, negatives)}.

    Raises ValueError for labels other than 0 and 1, an empty split, a split without one of the classes, and counts
    that the data cannot fill.
    """
    if y.shape != x.shape[:1]:
        raise ValueError(f"y: shape {tuple(y.shape)} for {len(x)} examples in x; one label for each example is needed")
    if not len(y) or not ((y == 0) | (y == 1)).all():
        raise ValueError(f"y: labels {y.unique().tolist()}; 1 for the positives and 0 for the rest are needed")
    pools = [_shuffled((y == label).nonzero()[:, 0], generator(0, "test")) for label in (1, 0)]
    splits, start, own = {}, [0, 0], generator(seed, "data")
    for name in sorted(counts, key=lambda name: name != "test"):  # the others share what the test part leaves
        wanted = counts[name]
        if name != "test" and not splits.keys() - {"test"}:
            pools = [torch.cat([p[:n], _shuffled(p[n:], own)]) for p, n in zip(pools, start, strict=True)]
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
    return {name: splits[name] for name in counts}


def _shuffled(index: Tensor, rng: torch.Generator) -> Tensor:
    return index[torch.randperm(len(index), generator=rng)]


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


def judge_on_test(task: Task, share: float, result: Result, splits: Sequence[str]) -> pd.DataFrame:
    """What moved thresholds do for trained models on test data, a tidy table; for
    :class:`adamw_book.protocol.Condition`, nothing where no test data are asked for.

    "test balanced accuracy, threshold moved": at the threshold that was best on the run's own validation split. "…,
    threshold at the prior": at ln(π / (1 − π)) with π = ``share``, which needs no data. Both shift the threshold of a
    model that was trained without weights; a weighted one aims at 0 already. So for the recall.
    """
    if "test" not in splits:
        return result.table[:0]
    logits, targets = scores(task, result, "test")
    moved = metrics.best_threshold(*scores(task, result, "validation"))
    values = {}
    for name, threshold in (("threshold moved", moved), ("threshold at the prior", math.log(share / (1 - share)))):
        values[f"test balanced accuracy, {name}"] = metrics.balanced_accuracy(logits, targets, threshold)
        values[f"test recall, {name}"] = metrics.recall(logits, targets, threshold)
    step = int(result.table["step"].max())
    frames = [result.runs.assign(step=step, metric=name, value=v.double().numpy()) for name, v in values.items()]
    return pd.concat(frames, ignore_index=True)


# Settled on validation data alone: wide enough that the winners lie inside.
RANGES = {
    "digit 8 · unweighted": {"lr": (0.003, 0.3), "weight_decay": (0.01, 4.0), "l2": (0.00001, 0.004)},
    "digit 8 · class-weighted": {"lr": (0.0003, 0.1), "weight_decay": (0.03, 12.0), "l2": (0.00001, 0.004)},
    "breast cancer · unweighted": {"lr": (0.0005, 1.0), "weight_decay": (0.02, 8.0), "l2": (0.0003, 0.12)},
    "breast cancer · class-weighted": {"lr": (0.0001, 0.2), "weight_decay": (0.1, 40.0), "l2": (0.001, 0.4)},
}
RULES = {
    "balanced accuracy": "validation balanced accuracy",
    "moved threshold": "validation best balanced accuracy",
    "AUC": "validation AUC",
    "accuracy": "validation accuracy",
}


def condition(data: str, model: str, loss: str, bias: str = "undecayed bias") -> Condition:
    """A data set (``COUNTS``), model (``MODELS``), loss (``LOSSES``) and whether decay acts on biases (``BIASES``).

    The first of its rules is the chapter's: the best balanced accuracy at the usual threshold. "moved threshold" asks
    for the best one once the threshold has been moved.
    """
    found = task(data, model, loss)
    ranges = RANGES[f"{data} · {loss}"] | {"count": 30}
    return Condition(
        found, ranges, steps=1000, batch_size=50, schedule="cosine", rules=RULES, judged=("test",),
        decays=BIASES[bias], judge=partial(judge_on_test, found, prior(data)),
    )  # fmt: skip


CONDITIONS = {f"{data} · MLP · {loss}": condition(data, "MLP", loss) for data in COUNTS for loss in LOSSES}
CONDITIONS |= {f"digit 8 · MLP, LayerNorm · {loss}": condition("digit 8", "MLP, LayerNorm", loss) for loss in LOSSES}
CONDITIONS |= {
    f"{data} · MLP · unweighted · decayed bias": condition(data, "MLP", "unweighted", "decayed bias") for data in COUNTS
}
