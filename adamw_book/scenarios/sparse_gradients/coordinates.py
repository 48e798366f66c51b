"""Single weights whose gradient is zero at most steps, as an embedding row's is: what the two penalties make of them.

Equation F6 is the level at which a weight settles when its rare gradients all push the same way, F7 the rate at which
it decays when they cancel on average. Both are played to the optimizer with prescribed gradients.
"""

from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from torch import Tensor

from adamw_book.dynamics import drive

ARMS = ("AdamW", "Adam + L2")


def _penalty(arm: str, coefficient: float) -> dict[str, float]:
    if arm not in ARMS:
        raise ValueError(f"arm: {arm!r}; {' or '.join(map(repr, ARMS))} is needed")
    if not coefficient > 0:
        raise ValueError(f"coefficient: {coefficient}; a decay above 0 is needed")
    return {"weight_decay": coefficient} if arm == "AdamW" else {"l2": coefficient}


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name}: {value}; a finite number above 0 is needed")


def _column(probabilities: Sequence[float]) -> Tensor:
    p = torch.as_tensor(probabilities, dtype=torch.float32)
    if p.ndim != 1 or not len(p) or not bool(((p > 0) & (p <= 1)).all()):
        raise ValueError(f"probabilities: {probabilities}; a list of numbers above 0 and up to 1 is needed")
    return p[:, None]


def sparse(
    probabilities: Sequence[float], size: float, rng: torch.Generator, zero_mean: bool = False
) -> Callable[[int, Tensor], Tensor]:
    """A gradient for :func:`adamw_book.dynamics.drive`: zero, except with probability p at each step and coordinate.

    Row i of the weights (R, n) has p = ``probabilities[i]``. Where it is not zero, the gradient is ``size``, or with
    ``zero_mean`` a normal draw of standard deviation ``size``.
    """
    p = _column(probabilities)
    _positive(size=size)

    def gradient(step: int, w: Tensor) -> Tensor:
        hit = torch.rand(w.shape, generator=rng) < p
        return size * hit * (torch.randn(w.shape, generator=rng) if zero_mean else 1.0)

    return gradient


def settled(
    arm: str, probabilities: Sequence[float], coefficient: float, *, size: float = 1.0, lr: float = 3e-3,
    steps: int = 6000, copies: int = 100, seed: int = 0,
) -> Tensor:  # fmt: skip
    """Where weights with rare gradients of one sign settle: the mean over ``copies`` and the last third of the steps,
    one value a probability (R,). For theory see :func:`settling_level`."""
    if not all(isinstance(n, Integral) for n in (steps, copies)) or steps < 3 or copies < 1:
        raise ValueError(f"steps, copies: {steps}, {copies}; whole numbers of at least 3 and 1 are needed")
    rng = torch.Generator().manual_seed(seed)
    start = torch.zeros(len(_column(probabilities)), copies)
    path = drive(sparse(probabilities, size, rng), start, steps, lr=lr, **_penalty(arm, coefficient))
    return path[-(steps // 3) :].mean((0, 2))


def settling_level(arm: str, probabilities: Sequence[float], coefficient: float, size: float = 1.0) -> Tensor:
    """F6: −√p/λ for AdamW, whatever the size μ of the gradients, and −pμ/ℓ for Adam + L2; one value a probability.

    Adam's mean step is η·pμ/√(pμ²) = η√p, which AdamW's ηλw must balance; the coupled penalty is at rest where the mean
    of the whole gradient, pμ + ℓw, is zero.
    """
    _penalty(arm, coefficient)
    _positive(size=size)
    p = _column(probabilities)[:, 0]
    return -p.sqrt() / coefficient if arm == "AdamW" else -p * size / coefficient


def decay_rates(
    arm: str, probabilities: Sequence[float], coefficient: float, *, size: float = 1.0, lr: float = 1e-3,
    steps: int = 8000, discard: int = 3000, copies: int = 600, seed: int = 0,
) -> Tensor:  # fmt: skip
    """How fast weights with rare gradients that cancel on average decay, a share a step; one value a probability (R,).

    Weights start at 1; the rate is that of the mean over ``copies``, in which the noise cancels. The first ``discard``
    steps are left out: until then v has seen too few of the rare gradients.
    """
    if not all(isinstance(n, Integral) for n in (steps, discard, copies)) or not 0 <= discard < steps or copies < 1:
        raise ValueError(
            f"discard: {discard}; a number of steps from 0 to below steps={steps}, and at least one copy (copies: "
            f"{copies}), are needed"
        )
    rng = torch.Generator().manual_seed(seed)
    start = torch.ones(len(_column(probabilities)), copies)
    path = drive(sparse(probabilities, size, rng, zero_mean=True), start, steps, lr=lr, **_penalty(arm, coefficient))
    mean = path.mean(2)
    return (mean[discard] / mean[-1]).log() / (steps - discard)


def decay_rate(
    arm: str, probabilities: Sequence[float], coefficient: float, size: float = 1.0, lr: float = 1e-3, w: float = 1.0
) -> Tensor:
    """F7: ηλ for AdamW, and ηℓ/√(pσ² + ℓ²w²) for Adam + L2, whose denominator holds the rare gradients and the penalty
    itself."""
    _penalty(arm, coefficient)
    _positive(size=size, lr=lr)
    p = _column(probabilities)[:, 0]
    if arm == "AdamW":
        return torch.full_like(p, lr * coefficient)
    return lr * coefficient / (p * size**2 + (coefficient * w) ** 2).sqrt()
