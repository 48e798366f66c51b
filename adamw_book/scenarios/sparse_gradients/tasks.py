"""The *tasks*: four kinds of synthetic text and real text, for a linear model and for an MLP, with and without
LayerNorm."""

from collections.abc import Callable

from torch import nn

from adamw_book.data import Splits
from adamw_book.models import MLP
from adamw_book.protocol import Condition
from adamw_book.task import Task

from .library import library_packages, library_splits
from .texts import CONDITIONS as SYNTHETIC
from .texts import synthetic_texts

LIBRARY = "real text"
TEXTS = (*SYNTHETIC, LIBRARY)
CONTROL = "equal frequency"
NORMALISED = (SYNTHETIC[0], LIBRARY)  # the texts that the network with LayerNorm reads
# The weights that belong to words: column j is word j's embedding, without a gradient where a batch lacks the word.
WORD_WEIGHTS = {"linear": "weight", "MLP": "layers.0.weight", "MLP, LayerNorm": "layers.0.weight"}

SIZES = {
    "synthetic": {"train": 1000, "validation": 1000, "test": 1000, "words": 400, "length": 10.0, "frequent": 40,
                  "strength": 4.0},
    "library": {"train": 150, "validation": 40, "test": 60, "vocabulary": 2000},
}  # fmt: skip

# Settled on validation data alone: wide enough that the winners lie inside.
RANGES = {
    ("synthetic", "linear"): {"lr": (0.003, 0.3), "weight_decay": (0.02, 6.0), "l2": (0.0003, 0.09), "count": 30},
    ("synthetic", "MLP"): {"lr": (0.001, 0.1), "weight_decay": (0.1, 30.0), "l2": (0.0003, 0.09), "count": 30},
    ("synthetic", "MLP, LayerNorm"): {
        "lr": (0.001, 0.1), "weight_decay": (0.1, 30.0), "l2": (0.001, 0.3), "count": 30,
    },
    (LIBRARY, "linear"): {"lr": (0.001, 0.1), "weight_decay": (0.05, 15.0), "l2": (0.000003, 0.0009), "count": 24},
    (LIBRARY, "MLP"): {"lr": (0.001, 0.1), "weight_decay": (0.05, 15.0), "l2": (0.000003, 0.0009), "count": 24},
    (LIBRARY, "MLP, LayerNorm"): {
        "lr": (0.001, 0.1), "weight_decay": (0.1, 30.0), "l2": (0.0001, 0.03), "count": 24,
    },
}  # fmt: skip


def classifier(model: str, words: int, classes: int, width: int = 16) -> Callable[[], nn.Module]:
    """A maker of one model over bags of words (N, words): "linear" (softmax regression, each word one weight a class)
    or "MLP" (``width`` hidden ReLU units: the sum of the words' embeddings, then a read-out), "MLP, LayerNorm" with a
    LayerNorm before these."""
    if model not in WORD_WEIGHTS:
        raise ValueError(f"model: {model!r}; choose from {', '.join(map(repr, WORD_WEIGHTS))}")
    if model == "linear":
        return lambda: nn.Linear(words, classes)
    return lambda: MLP(words, width, 1, classes, norm="LayerNorm" in model)


def texts(text: str, seed: int) -> Splits:
    """The splits of one kind of text (a name in ``TEXTS``), in the sizes of ``SIZES``."""
    if text == LIBRARY:
        return library_splits(seed, **SIZES["library"])
    return synthetic_texts(text, seed, **SIZES["synthetic"])


def condition(text: str, model: str) -> Condition:
    """One model on one kind of text."""
    words, classes = SIZES["synthetic"]["words"], 2
    if text == LIBRARY:
        words, classes = SIZES["library"]["vocabulary"], len(library_packages())
    task = Task(f"{text} · {model}", classifier(model, words, classes), lambda seed: texts(text, seed))
    ranges = RANGES[text if text == LIBRARY else "synthetic", model]
    chunk = 40 if text == LIBRARY else None  # 2,000 words
    return Condition(task, ranges, steps=300, batch_size=50, schedule="cosine", chunk_size=chunk)


CONDITIONS = {
    f"{text} · {model}": condition(text, model)
    for text in TEXTS
    for model in WORD_WEIGHTS
    if "LayerNorm" not in model or text in NORMALISED
}
# The control answers another question, what is left where no word is rare: measured, but no regime of the claim.
REGIMES = [name for name in CONDITIONS if not name.startswith(CONTROL)]
