"""Data under shift: each function takes inputs and labels, or a seed and sizes, and returns the disturbed data."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from adamw_book.data import Splits, generator, split, standardized


def _images(x: Tensor) -> Tensor:
    side = math.isqrt(x.shape[-1])
    if x.ndim != 2 or side * side != x.shape[1]:
        raise ValueError(f"x: shape {tuple(x.shape)}; flat square images (N, side²) are needed")
    return x.view(-1, 1, side, side)


def rotated(x: Tensor, degrees: float, rng: torch.Generator) -> Tensor:
    """Flat square images (N, side²), each turned about its centre by +degrees or −degrees at even odds (bilinear;
    what comes in from outside is 0)."""
    images = _images(x)
    sign = 2.0 * torch.randint(0, 2, (len(x),), generator=rng) - 1
    angle = sign * math.radians(degrees)
    zero = torch.zeros_like(angle)
    matrix = torch.stack([angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero], 1).view(-1, 2, 3)
    places = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, places, align_corners=False).flatten(1)


def noised(x: Tensor, sd: float, rng: torch.Generator) -> Tensor:
    """Pixels in [0, 1] with normal noise of standard deviation ``sd``, cut off at 0 and 1."""
    if sd < 0:
        raise ValueError(f"sd: {sd}; a number of 0 or more is needed")
    return (x + sd * torch.randn(x.shape, generator=rng)).clamp(0, 1)


def silent(x: Tensor) -> Tensor:
    """The inputs (D,), True or False, that have the same value in every example of x (N, D)."""
    return (x == x[:1]).all(0)


def lit(x: Tensor, which: Tensor, level: float, rng: torch.Generator) -> Tensor:
    """x (N, D) with the inputs ``which`` (D,) replaced by values drawn uniformly between 0 and ``level``."""
    if which.shape != x.shape[1:] or which.dtype != torch.bool:
        raise ValueError(
            f"which: {which.dtype} of shape {tuple(which.shape)}; one bool for each of the {x.shape[1]} inputs"
        )
    changed = x.clone()
    changed[:, which] = level * torch.rand(len(x), int(which.sum()), generator=rng)
    return changed


def _two_classes(y: Tensor) -> None:
    if not len(y) or not ((y == 0) | (y == 1)).all():
        raise ValueError(f"y: labels {sorted(set(y.tolist()))}; at least one label, each 0 or 1, is needed")


def winter_bit(y: Tensor, agreement: float, rng: torch.Generator) -> Tensor:
    """A bit for each label (N,) in {0, 1} that agrees with it in ``round(agreement · N_class)`` examples of each class,
    and is wrong in the others: 0.95 in winter, 0.05 in summer."""
    _two_classes(y)
    if not 0 <= agreement <= 1:
        raise ValueError(f"agreement: {agreement}; a share between 0 and 1 is needed")
    bit = y.clone()
    for label in (0, 1):
        own = (y == label).nonzero()[:, 0]
        own = own[torch.randperm(len(own), generator=rng)]
        bit[own[round(agreement * len(own)) :]] = 1 - label
    return bit


def winter_splits(x: Tensor, y: Tensor, seed: int, sizes: Mapping[str, int | None], agreement: float = 0.95) -> Splits:
    """x (N, D) with a bit as a last input, 0 or 1, that agrees with the label in ``agreement`` of the examples, or in
    1 − agreement where the split's name says "shifted"; the test images come again, flipped, as "flipped test".

    sizes: as in :func:`adamw_book.data.split`; with "test". Targets (N,) are label + 2 · (the bit is wrong), so that a
    loss can weight the two groups and a metric can tell them apart: :func:`label_of`, :func:`group_of`.
    """
    _two_classes(y)
    rng = generator(seed, "data")
    parts = split(x, y, dict(sizes), rng)
    rates = {name: 1 - agreement if "shifted" in name else agreement for name in parts}
    parts["flipped test"], rates["flipped test"] = parts["test"], 1 - agreement
    made = {}
    for name, (images, labels) in parts.items():
        bit = winter_bit(labels, rates[name], rng)
        made[name] = (torch.cat([images, bit[:, None].to(images)], 1), labels + 2 * (bit != labels).long())
    return made


def label_of(targets: Tensor) -> Tensor:
    """The labels, 0 or 1, in the targets of :func:`winter_splits`."""
    return targets % 2


def group_of(targets: Tensor) -> Tensor:
    """0 where the bit agrees with the label, 1 where it is wrong, in the targets of :func:`winter_splits`."""
    return targets // 2


def chance_splits(
    x: Tensor, y: Tensor, seed: int, sizes: Mapping[str, int | None], inputs: int, louder: float = 2.0
) -> Splits:
    """x (N, D) with ``inputs`` further inputs of standard normal noise, which say nothing about y: whatever goes with
    the label in the training split does so by chance. "louder test" is the test split with that noise ``louder``
    times as strong: p(x) moves, p(y|x) stays."""
    if not isinstance(inputs, int) or inputs < 1:
        raise ValueError(f"inputs: {inputs}; a positive whole number of noise inputs is needed")
    rng = generator(seed, "data")
    parts = split(x, y, dict(sizes), rng)
    noise = {name: torch.randn(len(labels), inputs, generator=rng) for name, (_, labels) in parts.items()}
    made = {name: (torch.cat([images, noise[name]], 1), labels) for name, (images, labels) in parts.items()}
    images, labels = parts["test"]
    return made | {"louder test": (torch.cat([images, louder * noise["test"]], 1), labels)}


def shifted_splits(
    x: Tensor,
    y: Tensor,
    seed: int,
    sizes: Mapping[str, int | None],
    rotation: Sequence[float] = (),
    noise: Sequence[float] = (),
    light: float | None = None,
    columns: Tensor | None = None,
) -> Splits:
    """Images (N, side²) split into ``sizes`` (with "train" and "test"), and the test split again under each shift:
    "rotation 15°", "pixel noise 0.3", and "silent pixels" (those that never change in this training split take values
    up to ``light``). ``columns`` keeps some pixels only, after the shift."""
    rng = generator(seed, "data")
    parts = split(x, y, dict(sizes), rng)
    images, labels = parts["test"]
    rng = generator(seed, "shift")
    for degrees in rotation:
        parts[f"rotation {degrees:g}°"] = (rotated(images, degrees, rng), labels)
    for sd in noise:
        parts[f"pixel noise {sd:g}"] = (noised(images, sd, rng), labels)
    if light is not None:
        parts["silent pixels"] = (lit(images, silent(parts["train"][0]), light, rng), labels)
    return parts if columns is None else {name: (x[:, columns], y) for name, (x, y) in parts.items()}


def reweighted_splits(
    x: Tensor,
    y: Tensor,
    score: Tensor,
    seed: int,
    sizes: Mapping[str, int],
    strength: float,
    groups: Sequence[str],
    standardize: bool = False,
) -> Splits:
    """A biased sample: "train" and "validation" (``sizes``) are drawn without replacement with odds proportional to
    exp(−strength · standardised score), a function of x alone, so p(y|x) is the same in every split. What is left,
    sorted by score and cut into equal parts, makes the test splits, named by ``groups``; where it does not divide
    evenly, the few examples with the lowest scores are left out.

    standardize: scale each input to mean 0 and standard deviation 1 in the training split.

    Raises ValueError where the sizes leave too few examples for the groups, or there is no group.
    """
    if score.shape != y.shape or len(x) != len(y):
        raise ValueError(f"score: shape {tuple(score.shape)} for {len(x)} examples; one number for each is needed")
    drawn = sum(sizes.values())
    if not groups or len(x) - drawn < len(groups):
        raise ValueError(
            f"groups: {len(groups)} of them for the {len(x) - drawn} examples that sizes leave; at least one group, "
            "and an example for each, is needed"
        )
    rng = generator(seed, "data")
    z = (score - score.mean()) / score.std()
    # Gumbel noise makes the order a draw without replacement with odds exp(−strength · z)
    keys = -strength * z - torch.log(-torch.log(torch.rand(len(x), generator=rng, dtype=torch.float64)))
    order = keys.argsort(descending=True)
    own, rest = order[:drawn], order[drawn:]
    parts = split(x[own], y[own], dict(sizes), rng)
    rest = rest[z[rest].argsort()]
    size = len(rest) // len(groups)
    for name, part in zip(groups, rest[len(rest) % len(groups) :].split(size), strict=True):
        parts[name] = (x[part], y[part])
    return standardized(parts) if standardize else parts
