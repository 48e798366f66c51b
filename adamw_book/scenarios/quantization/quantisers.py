"""Quantisers: weights rounded to a few equally spaced levels, for all replicas at once, and what their loss depends on.

A weight tensor is (R, …), the replica axis in front; the axis after it counts the output channels (rows of a matrix,
filters of a convolution). With b bits there are M = 2^(b−1) − 1 levels on either side of 0, one step s apart:

    Q(w) = s · clamp(round(w / s), −M, M)        s = range / M

so that the grid is symmetric and reaches to ± range (Jacob et al., 2018, with the zero point at 0, as is usual for
weights). The range is the largest |w|, the size that a given share of the |w| does not exceed, or preset.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adamw_book.arguments import whole


def levels(bits: int) -> int:
    """M, the number of levels on either side of 0: 127 of 8 bits, 7 of 4, 3 of 3, 1 of 2. Raises ``ValueError`` for
    fewer than 2 bits, with which there would be none."""
    return 2 ** (whole("bits", bits, 2, 16, "a whole number from 2 to 16") - 1) - 1


@dataclass(frozen=True)
class Scheme:
    """How weights are quantised: to ``bits``, with one range for the whole tensor or one a channel.

    held: the share of the |w| that the range holds; 1 takes the largest (absmax), less than 1 a percentile, beyond
    which weights are clipped. preset: a range that was settled before the weights were known, in the weights' unit;
    ``held`` and ``per_channel`` play no part then.

    Raises ``ValueError`` for bits that give no levels, a share outside (0, 1] and a preset that is not above 0.
    """

    bits: int
    per_channel: bool = False
    held: float = 1.0
    preset: float | None = None

    def __post_init__(self) -> None:
        levels(self.bits)
        if not 0 < self.held <= 1:
            raise ValueError(f"held: {self.held}; a share of the weights above 0 and up to 1 is needed")
        if self.preset is not None and not 0 < self.preset < float("inf"):
            raise ValueError(f"preset: {self.preset}; a finite range above 0, or None, is needed")

    def range(self, w: Tensor) -> Tensor:
        """The range of each group of weights that shares one, shaped to be broadcast against w (R, …)."""
        if self.preset is not None:
            return w.new_full((1,) * w.ndim, self.preset)
        groups = w.abs().flatten(2 if self.per_channel and w.ndim > 2 else 1)
        if self.held == 1:
            size = groups.amax(-1)
        else:
            size = groups.quantile(self.held, -1)
        return size.reshape(size.shape + (1,) * (w.ndim - size.ndim))

    def __call__(self, w: Tensor) -> Tensor:
        """w (R, …) on the grid. A group of zeros stays as it is."""
        top = levels(self.bits)
        step = (self.range(w) / top).clamp(min=torch.finfo(w.dtype).tiny)
        return step * (w / step).round().clamp(-top, top)


def is_weight(name: str, p: Tensor) -> bool:
    """Whether a stacked parameter (R, …) is quantised: matrices and filters are; biases and the gains of
    normalisations, of which there are few, stay as they are, as in practice."""
    return p.ndim > 2


def quantised(parameters: Mapping[str, Tensor], scheme: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Stacked parameters {name: (R, …)} with every weight on its grid."""
    return {name: scheme(p) if is_weight(name, p) else p for name, p in parameters.items()}


# ---- the shape of a distribution, which the loss depends on


def crest(w: Tensor) -> Tensor:
    """max|w| / rms(w), the crest factor (R,): how many times its usual size the largest weight has."""
    flat = w.flatten(1)
    return flat.abs().amax(1) / flat.square().mean(1).sqrt()


def kurtosis(w: Tensor) -> Tensor:
    """Mean fourth over squared mean second power (R,), about 0: 1.8 for a uniform distribution, 3 for a normal one,
    more for one with tails."""
    square = w.flatten(1).square()
    return square.square().mean(1) / square.mean(1).square()


def relative_error(w: Tensor, scheme: Callable[[Tensor], Tensor]) -> Tensor:
    """rms(Q(w) − w) / rms(w) (R,)."""
    return ((scheme(w) - w).flatten(1).square().mean(1) / w.flatten(1).square().mean(1)).sqrt()


def clipped(w: Tensor, scheme: Scheme) -> Tensor:
    """Share of the weights (R,) that lie more than half a step beyond the grid, so that they are moved further than
    rounding moves any."""
    reach = scheme.range(w) * (1 + 0.5 / levels(scheme.bits))
    return (w.abs() > reach).flatten(1).float().mean(1)


def expected_error(size: float | Tensor, bits: int) -> float | Tensor:
    """The relative error of an absmax grid for a crest factor ``size``: c / (√12 · M), as of roundings that are
    uniform within half a step. They are where the distribution is smooth over a step; a peak at 0 that is narrower
    than a step costs less."""
    return size / (12**0.5 * levels(bits))


def over_weights(parameters: Mapping[str, Tensor], function: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean (R,) over a network's weight tensors, each counting once."""
    return torch.stack([function(p) for name, p in parameters.items() if is_weight(name, p)]).mean(0)
