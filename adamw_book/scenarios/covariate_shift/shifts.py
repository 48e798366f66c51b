"""Data under shift: each function takes inputs and labels, or splits and a seed, and returns the disturbed data. What
is drawn for a test split is drawn once, the same under every seed."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from adamw_book.arguments import whole
from adamw_book.data import Splits, apart, generator, split


def _images(x: Tensor) -> Tensor:
    side = math.isqrt(x.numel() // max(len(x), 1)) if x.ndim == 2 else 0
    if not side or side * side != x.shape[1] or not x.is_floating_point():
        raise ValueError(f"x: {x.dtype} of shape {tuple(x.shape)}; flat square images (N, side²) of floats are needed")
    return x.view(-1, 1, side, side)


def rotated(x: Tensor, degrees: float, rng: torch.Generator) -> Tensor:
    """Flat square images (N, side²), each turned about its centre by +degrees or −degrees at even odds (bilinear;
    what comes in from outside is 0)."""
    images = _images(x)
    if not math.isfinite(degrees):
        raise ValueError(f"degrees: {degrees}; a finite angle is needed")
    sign = 2.0 * torch.randint(0, 2, (len(x),), generator=rng) - 1
    angle = sign * math.radians(degrees)
    zero = torch.zeros_like(angle)
    matrix = torch.stack([angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero], 1).view(-1, 2, 3)
    places = functional.affine_grid(matrix.to(x), list(images.shape), align_corners=False)
    return functional.grid_sample(images, places, align_corners=False).flatten(1)


def noised(x: Tensor, sd: float, rng: torch.Generator) -> Tensor:
    """Pixels in [0, 1] with normal noise of standard deviation ``sd``, cut off at 0 and 1."""
    if not 0 <= sd < math.inf:
        raise ValueError(f"sd: {sd}; a finite number of 0 or more is needed")
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError(f"x: values from {x.min():g} to {x.max():g}; pixels in [0, 1] are needed")
    return (x + sd * torch.randn(x.shape, generator=rng)).clamp(0, 1)


def _drawn(seed: int, name: str, what: str) -> torch.Generator:
    """The generator of what is drawn for a split; one for all seeds where it is a test split."""
    return generator(0 if "test" in name else seed, f"{what} of {name}")


def winter_bit(y: Tensor, agreement: float, rng: torch.Generator) -> Tensor:
    """A bit for each label (N,) in {0, 1} that agrees with it in ``round(agreement · N_class)`` examples of each class,
    and is wrong in the others: 0.95 in winter, 0.05 in summer."""
    if y.ndim != 1 or not len(y) or not ((y == 0) | (y == 1)).all():
        raise ValueError(
            f"y: shape {tuple(y.shape)}, labels {y.unique().tolist()}; labels (N,), each 0 or 1, are needed"
        )
    if not 0 <= agreement <= 1:
        raise ValueError(f"agreement: {agreement}; a share between 0 and 1 is needed")
    bit = y.clone()
    for label in (0, 1):
        own = (y == label).nonzero()[:, 0]
        own = own[torch.randperm(len(own), generator=rng)]
        bit[own[round(agreement * len(own)) :]] = 1 - label
    return bit


def winter_splits(parts: Splits, seed: int, agreement: float = 0.95) -> Splits:
    """``parts`` (inputs (N, D)) with a bit as a last input, 0 or 1, that agrees with the label in ``agreement`` of the
    examples, or in 1 − agreement where the split's name says "flipped"; "test" comes again, flipped, as "flipped test".

    Targets (N,) are label + 2 · (the bit is wrong), so that a loss can weight the two groups and a metric can tell them
    apart: :func:`label_of`, :func:`group_of`.
    """
    made = {}
    for name, (inputs, labels) in (parts | {"flipped test": parts["test"]}).items():
        share = 1 - agreement if "flipped" in name else agreement
        bit = winter_bit(labels, share, _drawn(seed, name, "bit"))
        made[name] = (torch.cat([inputs, bit[:, None].to(inputs)], 1), labels + 2 * (bit != labels))
    return made


def label_of(targets: Tensor) -> Tensor:
    """The labels, 0 or 1, in the targets of :func:`winter_splits`."""
    return targets % 2


def group_of(targets: Tensor) -> Tensor:
    """0 where the bit agrees with the label, 1 where it is wrong, in the targets of :func:`winter_splits`."""
    return targets // 2


def chance_splits(parts: Splits, seed: int, inputs: int, louder: float = 2.0) -> Splits:
    """``parts`` (inputs (N, D)) with ``inputs`` further inputs of standard normal noise, which say nothing about the
    label: whatever goes with it in the training split does so by chance. "louder test" is the test split with that
    noise ``louder`` times as strong: p(x) moves, p(y|x) stays."""
    whole("inputs", inputs)
    if not 0 <= louder < math.inf:
        raise ValueError(f"louder: {louder}; a finite number of 0 or more is needed")
    made, size = {}, parts["train"][0].shape[1]
    for name, (x, y) in parts.items():
        noise = torch.randn(len(y), inputs, generator=_drawn(seed, name, "noise"))
        made[name] = torch.cat([x, noise], 1), y
    x, y = made["test"]
    return made | {"louder test": (torch.cat([x[:, :size], louder * x[:, size:]], 1), y)}


def shifted_splits(
    parts: Splits, rotation: Sequence[float] = (), noise: Sequence[float] = (), columns: Tensor | None = None
) -> Splits:
    """``parts`` of images (N, side²), and their test split again under each shift: "rotation 15°", "pixel noise 0.3",
    the same under every seed. ``columns`` keeps some pixels only, after the shift."""
    images, labels = parts["test"]
    made = dict(parts)
    for name, disturb, doses in (("rotation {:g}°", rotated, rotation), ("pixel noise {:g}", noised, noise)):
        for dose in doses:
            made[name.format(dose)] = disturb(images, dose, generator(0, "shift")), labels
    return made if columns is None else {name: (x[:, columns], y) for name, (x, y) in made.items()}


def biased_splits(
    x: Tensor, y: Tensor, score: Tensor, seed: int, *, train: int, validation: int, test: int, strength: float
) -> Splits:
    """A biased sample: of all that the fixed, unbiased ``test`` examples leave, "train" and "validation" are drawn
    without replacement with odds proportional to exp(−strength · standardised score (N,)), a function of x alone:
    p(y|x) is the same in every split. "highest fifth test" are the test examples with the highest fifth of the scores.

    Raises ValueError where the sizes do not fit, and where the scores cannot be standardised: all the same, or not
    finite.
    """
    if score.shape != y.shape or not score.isfinite().all() or score.min() == score.max():
        raise ValueError(
            f"score: shape {tuple(score.shape)}, values {score.unique()[:4].tolist()}; a finite number for each of the "
            f"{len(y)} examples, not all the same, is needed"
        )
    if not math.isfinite(strength):
        raise ValueError(f"strength: {strength}; a finite number is needed")
    z = (score.double() - score.double().mean()) / score.double().std()
    parts = apart(torch.arange(len(y)), z, test)
    rest, z_rest = parts["rest"]
    rng = generator(seed, "data")
    # Gumbel noise makes the order a draw without replacement with odds exp(−strength · z)
    keys = -strength * z_rest - torch.log(-torch.log(torch.rand(len(rest), generator=rng, dtype=torch.float64)))
    order = rest[keys.argsort(descending=True)[: train + validation]]
    own, (held, z_held) = split(order, order, {"train": train, "validation": validation}, rng), parts["test"]
    places = {"train": own["train"][0], "validation": own["validation"][0], "test": held}
    places["highest fifth test"] = held[z_held >= z_held.quantile(0.8)]
    return {name: (x[place], y[place]) for name, place in places.items()}
