"""Data under shift: each function takes inputs and labels, or a seed and sizes, and returns the disturbed data."""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral

import torch
from torch import Tensor
from torch.nn import functional

from adamw_book.data import Splits, generator, split, standardized


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


def silent(x: Tensor) -> Tensor:
    """The inputs (D,), True or False, that have the same value in every example of x (N, D)."""
    if x.ndim != 2 or not len(x):
        raise ValueError(f"x: shape {tuple(x.shape)}; (N, D) with at least one example is needed")
    return (x == x[:1]).all(0)


def lit(x: Tensor, which: Tensor, level: float, rng: torch.Generator) -> Tensor:
    """x (N, D) with the inputs ``which`` (D,) replaced by values drawn uniformly between 0 and ``level``."""
    if which.shape != x.shape[1:] or which.dtype != torch.bool:
        raise ValueError(
            f"which: {which.dtype} of shape {tuple(which.shape)}; one bool for each of the {x.shape[1]} inputs"
        )
    if not x.is_floating_point() or not 0 <= level < math.inf:
        raise ValueError(
            f"x, level: {x.dtype}, {level}; floating-point inputs and a finite level of 0 or more are needed"
        )
    changed = x.clone()
    changed[:, which] = level * torch.rand(len(x), int(which.sum()), generator=rng)
    return changed


def _two_classes(y: Tensor) -> None:
    if y.ndim != 1:
        raise ValueError(f"y: shape {tuple(y.shape)}; one label for each example, (N,), is needed")
    if not len(y) or not ((y == 0) | (y == 1)).all():
        raise ValueError(f"y: labels {y.unique().tolist()}; at least one label, each 0 or 1, is needed")


def _named(sizes: Mapping[str, int | None], needed: Sequence[str], made: Sequence[str] = ()) -> dict:
    """``sizes`` as a dict. Raises ``ValueError`` where a needed split is missing, or one that is made here is there."""
    if not set(needed) <= set(sizes) or set(made) & set(sizes):
        other = f", and {made[0]!r} must not, for it is made here" if made else ""
        raise ValueError(f"sizes: {dict(sizes)}; {' and '.join(map(repr, needed))} must be among the splits{other}")
    return dict(sizes)


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
    parts = split(x, y.long(), _named(sizes, ["test"], ["flipped test"]), rng)
    rates = {name: 1 - agreement if "shifted" in name else agreement for name in parts}
    parts["flipped test"], rates["flipped test"] = parts["test"], 1 - agreement
    made = {}
    for name, (images, labels) in parts.items():
        bit = winter_bit(labels, rates[name], rng)
        made[name] = (torch.cat([images, bit[:, None].to(images)], 1), labels + 2 * (bit != labels))
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
    if not isinstance(inputs, Integral) or inputs < 1:
        raise ValueError(f"inputs: {inputs}; a positive whole number of noise inputs is needed")
    if not 0 <= louder < math.inf:
        raise ValueError(f"louder: {louder}; a finite number of 0 or more is needed")
    rng = generator(seed, "data")
    parts = split(x, y, _named(sizes, ["test"], ["louder test"]), rng)
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
    if columns is not None and not (len(columns) and 0 <= int(columns.min()) <= int(columns.max()) < x.shape[1]):
        raise ValueError(
            f"columns: {columns.tolist()}; at least one, in 0…{x.shape[1] - 1}, the inputs of x, is needed"
        )
    rng = generator(seed, "data")
    parts = split(x, y, _named(sizes, ["train", "test"]), rng)
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

    Raises ValueError where the sizes leave too few examples for the groups, there is no group or two of one name, and
    where the scores cannot be standardised: all the same, or not finite.
    """
    if score.shape != y.shape or len(x) != len(y):
        raise ValueError(f"score: shape {tuple(score.shape)} for {len(x)} examples; one number for each is needed")
    if not score.isfinite().all() or not len(score) or score.min() == score.max():
        few = score.unique()[:4].tolist()
        raise ValueError(f"score: the values are {few}; finite numbers that are not all the same are needed")
    if not math.isfinite(strength):
        raise ValueError(f"strength: {strength}; a finite number is needed")
    score, sizes, groups = (
        score if score.is_floating_point() else score.double(),
        _named(sizes, ["train"]),
        list(groups),
    )
    if not all(isinstance(size, Integral) and size > 0 for size in sizes.values()):
        raise ValueError(f"sizes: {sizes}; a positive whole number of examples for each split is needed")
    if len({*sizes, *groups}) < len(sizes) + len(groups):
        raise ValueError(f"groups: {groups} beside the splits {list(sizes)}; distinct names are needed")
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
    parts = split(x[own], y[own], sizes, rng)
    rest = rest[z[rest].argsort()]
    size = len(rest) // len(groups)
    for name, part in zip(groups, rest[len(rest) % len(groups) :].split(size), strict=True):
        parts[name] = (x[part], y[part])
    return standardized(parts) if standardize else parts
