"""What an ensemble learns, how it is judged, and what a measurement of it sees."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from torch import Tensor, nn
from torch.nn import functional

from adamw_book.data import Splits


def cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of each label: logits (R, N, …, C), class labels (R, N, …) → (R, N, …), in nats.

    Labels may have further axes, such as the places of a sequence.
    """
    if logits.ndim == 3:  # the models' logits lie (R, C, N) in memory
        return functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of each replica: logits (R, N, …, C), class labels (R, N, …) → (R,), in nats."""
    return cross_entropies(logits, targets).flatten(1).mean(1)


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Share of labels predicted correctly in each replica: logits (R, N, …, C), class labels (R, N, …) → (R,), in 0…1.

    A replica whose logits are not finite has learned nothing that could be used: it counts as 0.
    """
    correct = (logits.argmax(-1) == targets).float().flatten(1).mean(1)
    return correct * logits.isfinite().flatten(1).all(1)


@dataclass(frozen=True)
class Task:
    """What is learned: ``model()`` makes one module, ``data(seed)`` its splits {"train": (x, y), …}, ``loss`` and
    ``metrics`` judge it.

    ``loss`` and each metric map (logits (R, N, C), targets (R, N)) to (R,), or those of sequences, (R, N, T, C) and
    (R, N, T). ``perturb``, where there is one, is called before every update as ``perturb(logits, x, y)`` and returns
    the inputs (R, N, ...) that the update is taken on in the place of x: ``logits`` maps inputs to the logits of the
    current models, whose parameters take no gradient in it. Adversarial training is such a ``perturb``. For a run to be
    the same alone and among others neither it nor the module may draw at random, as dropout does. ``start``, where
    there is one, gives weights that runs begin with in the place of those that ``model()`` draws: ``start(seeds)``
    returns {name: (len(seeds), …)} for some or all of the parameters, a row a seed, which must hang on that seed alone.
    What it leaves out (a new read-out) is drawn as ever. A parameter that asks for no gradient
    (``requires_grad=False``), or that the loss does not hang on, stays where it is, as under torch: no decay either.
    All of these functions hang on their arguments alone: what is done at every step is recorded at the first ones and
    replayed.
    """

    name: str
    model: Callable[[], nn.Module]
    data: Callable[[int], Splits]
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = field(
        default_factory=lambda: {"loss": cross_entropy, "accuracy": accuracy}
    )
    perturb: Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor] | None = None
    start: Callable[[Sequence[int]], Mapping[str, Tensor]] | None = None


@dataclass(frozen=True)
class Snapshot:
    """What a ``measure`` function sees after ``step`` updates: R replicas, each tensor with the replica axis in
    front. Gradients and second moments are 0 at step 0, and for parameters that have none."""

    step: int
    runs: pd.DataFrame
    parameters: dict[str, Tensor]
    gradients: dict[str, Tensor]
    exp_avg_sq: dict[str, Tensor]
