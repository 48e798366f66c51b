"""The *tasks*: MLP, CNN and RNN on real digits, with and without normalisation, with clean and with wrong training
labels; and addition modulo a small prime, where a network that fits its training set perfectly does or does not find
the rule."""

from adamw_book.data import Splits, digits_splits, modular_addition
from adamw_book.models import CNN, MLP, RNN, QuadraticMLP
from adamw_book.protocol import Condition
from adamw_book.task import Task

MODELS = {
    "MLP, 1 hidden layer": lambda: MLP(depth=1),
    "MLP, 1 hidden layer, LayerNorm": lambda: MLP(depth=1, norm=True),
    "MLP, 4 hidden layers": lambda: MLP(depth=4),
    "MLP, 4 hidden layers, LayerNorm": lambda: MLP(depth=4, norm=True),
    "MLP, 8 hidden layers": lambda: MLP(depth=8),
    "MLP, 8 hidden layers, LayerNorm": lambda: MLP(depth=8, norm=True),
    "CNN": lambda: CNN(),
    "CNN, GroupNorm": lambda: CNN(norm=True),
    "RNN over image rows": lambda: RNN(),
    "RNN over image rows, LayerNorm": lambda: RNN(norm=True),
}
LABEL_NOISE = {"clean labels": 0.0, "20% wrong labels": 0.2}
TRAIN = 400

# Settled on validation data alone: wide enough that the winners lie inside.
PLAIN = {"lr": (0.0005, 0.15), "weight_decay": (0.03, 8.0), "l2": (0.0004, 0.1), "count": 36}
NORMALISED = {"lr": (0.001, 0.1), "weight_decay": (0.1, 60.0), "l2": (0.006, 3.6), "count": 36}
RECURRENT = {"lr": (0.001, 0.3), "weight_decay": (0.03, 8.0), "l2": (0.0008, 0.2), "count": 36}


def digits(seed: int, noise: float) -> Splits:
    """Digits of which a share of the training labels is wrong; those of validation and test data are always right.

    Where there are any, the split "mislabelled" holds the training images with wrong labels: a network that is accurate
    there has learned them by heart.
    """
    splits = digits_splits(seed, train=TRAIN, label_noise=noise, fixed_test=True)
    if noise:
        x, y = splits["train"]
        wrong = y != digits_splits(seed, train=TRAIN, fixed_test=True)["train"][1]
        splits["mislabelled"] = x[wrong], y[wrong]
    return splits


def ranges(model: str) -> dict:
    """The search ranges of a network (a name in ``MODELS``)."""
    return NORMALISED if "Norm" in model else RECURRENT if model.startswith("RNN") else PLAIN


def condition(model: str, labels: str) -> Condition:
    """One network (a name in ``MODELS``) on digits with labels of one kind (a name in ``LABEL_NOISE``)."""
    noise = LABEL_NOISE[labels]
    task = Task(f"{model} · {labels}", MODELS[model], lambda seed: digits(seed, noise))
    judged = ("train", "mislabelled", "test") if noise else ("train", "test")
    return Condition(task, ranges(model), steps=400, batch_size=50, schedule="cosine", judged=judged)


DIGITS = {f"{model} · {labels}": condition(model, labels) for labels in LABEL_NOISE for model in MODELS}

PRIMARY = "CNN, GroupNorm · 20% wrong labels"

PRIME, SHARE, WIDTH = 23, 0.6, 64
ADDITION = Condition(
    Task(
        f"addition modulo {PRIME}",
        lambda: QuadraticMLP(2 * PRIME, WIDTH, PRIME),
        lambda seed: modular_addition(seed, PRIME, SHARE),
    ),
    {"lr": (0.0003, 0.06), "weight_decay": (0.3, 12.0), "l2": (0.00003, 0.0012), "count": 18},
    steps=1500,
)
