"""The *tasks*: is a digit 5 or more, with a bit that goes with the label in training and flips afterwards, or with
inputs of pure noise; and digits (or cell nuclei) whose inputs move. How each is tuned, and on what it is judged."""

from torch import Tensor, nn
from torch.nn import functional

from adamw_book.data import (
    DIGITS_TEST,
    Splits,
    apart,
    breast_cancer,
    digits,
    digits_splits,
    generator,
    split,
    standardized,
    varying,
)
from adamw_book.models import CNN, MLP
from adamw_book.protocol import Condition
from adamw_book.task import Task, accuracy, cross_entropy

from .shifts import biased_splits, chance_splits, group_of, label_of, shifted_splits, winter_splits

TRAIN = 400
AGREEMENT = 0.95  # of the bit with the label
NOISE_INPUTS = 100
ROTATION, NOISE = (10, 15, 20, 30, 45), (0.1, 0.2, 0.3, 0.45)
ACTIVE_SD = 0.25
INK = {"train": TRAIN, "validation": 200, "test": DIGITS_TEST, "strength": 1.5}
RADIUS = {"train": 120, "validation": 80, "test": 189, "strength": 1.0}


def low_and_high() -> tuple[Tensor, Tensor]:
    """The digits (1797, 64) as a question of two classes: is it 5 or more? Labels (1797,), 0 or 1."""
    x, digit = digits()
    return x, (digit >= 5).long()


def question(seed: int) -> Splits:
    """:func:`low_and_high` with the fixed test part of 597 images, and the other 1,200 in three splits of 400: "train",
    "validation", "flipped validation"."""
    parts = apart(*low_and_high(), DIGITS_TEST)
    sizes = {"train": TRAIN, "validation": TRAIN, "flipped validation": TRAIN}
    return split(*parts["rest"], sizes, generator(seed, "data")) | {"test": parts["test"]}


def winter(seed: int) -> Splits:
    """The question, with the winter bit."""
    return winter_splits(question(seed), seed, AGREEMENT)


def chance(seed: int) -> Splits:
    """The question, with inputs of pure noise."""
    parts = question(seed)
    return chance_splits({name: parts[name] for name in ("train", "validation", "test")}, seed, NOISE_INPUTS)


def active_pixels() -> Tensor:
    """The pixels that vary enough to carry ink in many images."""
    return varying(digits()[0], ACTIVE_SD)


def shifted(seed: int, columns: Tensor | None = None) -> Splits:
    """The ten digits, and their test images rotated and noised; ``columns`` keeps some pixels only."""
    return shifted_splits(digits_splits(seed, train=TRAIN, fixed_test=True), ROTATION, NOISE, columns)


def ink(seed: int) -> Splits:
    """The ten digits, drawn with odds that favour little ink."""
    x, y = digits()
    return biased_splits(x, y, x.mean(1), seed, **INK)


def radius(seed: int) -> Splits:
    """Malignant or benign, drawn with odds that favour a small mean radius."""
    x, y = breast_cancer()
    return standardized(biased_splits(x, y, x[:, 0], seed, **RADIUS))


def group_weights(targets: Tensor, agreement: float) -> Tensor:
    """Weights that let the two groups of :func:`.shifts.winter_splits` count the same: ½ / (share of the example's
    group)."""
    if not 0 < agreement < 1:
        raise ValueError(f"agreement: {agreement}; a share between 0 and 1 is needed, for both groups must occur")
    wrong = group_of(targets)
    return 0.5 / ((1 - wrong) * agreement + wrong * (1 - agreement))


def winter_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the labels: logits (R, N, 2), targets (R, N) of :func:`.shifts.winter_splits` → (R,), in
    nats."""
    return cross_entropy(logits, label_of(targets))


def balanced_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The same, each example weighted so that both groups count the same in expectation: group-balanced training."""
    losses = functional.cross_entropy(logits.transpose(1, 2), label_of(targets), reduction="none")
    return (losses * group_weights(targets, AGREEMENT)).mean(1)


def winter_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Share of right labels: logits (R, N, 2), targets (R, N) of :func:`.shifts.winter_splits` → (R,)."""
    return accuracy(logits, label_of(targets))


def balanced_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of the accuracies where the bit agrees with the label and where it is wrong; each group must occur, or
    ``ValueError`` is raised. As with :func:`adamw_book.task.accuracy` a replica whose logits are not finite counts as
    0."""
    right = (logits.argmax(-1) == label_of(targets)).float()
    wrong = group_of(targets).float()
    if not ((wrong == 0).any(1) & (wrong == 1).any(1)).all():
        raise ValueError(
            "targets: a replica has examples of one group only; each needs some whose bit is wrong or right"
        )
    mean = ((right * (1 - wrong)).sum(1) / (1 - wrong).sum(1) + (right * wrong).sum(1) / wrong.sum(1)) / 2
    return mean * logits.isfinite().flatten(1).all(1)


ON_LABELS = {"loss": winter_loss, "accuracy": winter_accuracy, "balanced accuracy": balanced_accuracy}
TRAINING = {"steps": 400, "batch_size": 50, "schedule": "cosine"}

# Settled on validation data alone: wide enough that the winners lie inside, and that accuracy has turned.
BIT = {"lr": (0.0003, 0.15), "weight_decay": (0.1, 60.0), "l2": (0.0002, 0.12), "count": 36}
BIT_NORM = {"lr": (0.0003, 0.15), "weight_decay": (0.2, 120.0), "l2": (0.0005, 0.3), "count": 36}
BIT_LINEAR = {"lr": (0.0003, 1.5), "weight_decay": (0.02, 12.0), "l2": (0.0002, 0.12), "count": 48}
CHANCE = {"lr": (0.0003, 0.1), "weight_decay": (0.1, 60.0), "l2": (0.0001, 0.06), "count": 36}
CHANCE_LINEAR = {"lr": (0.001, 1.0), "weight_decay": (0.01, 4.0), "l2": (0.00005, 0.02), "count": 36}
PLAIN = {"lr": (0.001, 0.3), "weight_decay": (0.02, 8.0), "l2": (0.0002, 0.08), "count": 36}
NORMALISED = {"lr": (0.001, 0.3), "weight_decay": (0.1, 40.0), "l2": (0.001, 0.4), "count": 36}
CELLS = {"lr": (0.0003, 0.3), "weight_decay": (0.2, 80.0), "l2": (0.002, 0.8), "count": 36}
CONVOLUTION, CONVOLUTION_NORM = ({**ranges, "count": 24} for ranges in (PLAIN, NORMALISED))


def with_bit(name: str, model, search: dict, balanced: bool = False) -> Condition:
    """The winter bit. Two rules choose: the ordinary one sees validation data in which the coincidence holds, the
    oracle such in which it is flipped, as nobody has them in practice."""
    task = Task(name, model, winter, balanced_loss if balanced else winter_loss, ON_LABELS)
    chosen = "validation balanced accuracy" if balanced else "validation accuracy"
    return Condition(
        task, search, **TRAINING, rules={"accuracy": chosen, "oracle": "flipped validation accuracy"},
        seen=("validation", "flipped validation"), judged=("test", "flipped test"),
    )  # fmt: skip


def ordinary(name: str, model, data, search: dict, judged: tuple[str, ...]) -> Condition:
    """A condition chosen by its validation accuracy."""
    return Condition(Task(name, model, data), search, **TRAINING, judged=judged)


SHIFTED = ("test", *(f"rotation {d:g}°" for d in ROTATION), *(f"pixel noise {sd:g}" for sd in NOISE))
NETWORKS = {
    "MLP": (MLP, PLAIN),
    "MLP, LayerNorm": (lambda: MLP(norm=True), NORMALISED),
    "CNN": (CNN, CONVOLUTION),
    "CNN, GroupNorm": (lambda: CNN(norm=True), CONVOLUTION_NORM),
}
CONDITIONS = {
    condition.task.name: condition
    for condition in (
        with_bit("bit · MLP", lambda: MLP(65, classes=2), BIT),
        with_bit("bit · MLP, LayerNorm", lambda: MLP(65, classes=2, norm=True), BIT_NORM),
        with_bit("bit · linear", lambda: nn.Linear(65, 2), BIT_LINEAR),
        with_bit("bit, group-balanced · MLP", lambda: MLP(65, classes=2), BIT, balanced=True),
        ordinary(
            "noise inputs · MLP", lambda: MLP(64 + NOISE_INPUTS, classes=2), chance, CHANCE, ("test", "louder test")
        ),
        ordinary(
            "noise inputs · linear", lambda: nn.Linear(64 + NOISE_INPUTS, 2), chance, CHANCE_LINEAR,
            ("test", "louder test"),
        ),
        *(ordinary(f"digits · {name}", model, shifted, search, SHIFTED) for name, (model, search) in NETWORKS.items()),
        ordinary(
            "digits, active pixels · MLP", lambda: MLP(len(active_pixels())),
            lambda seed: shifted(seed, active_pixels()), PLAIN, SHIFTED,
        ),
        ordinary("little ink · MLP", MLP, ink, PLAIN, ("test", "highest fifth test")),
        ordinary("small radius · MLP", lambda: MLP(30, classes=2), radius, CELLS, ("test",)),
    )
}  # fmt: skip
