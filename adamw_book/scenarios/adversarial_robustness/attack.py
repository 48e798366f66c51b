"""Attacks within an L∞ ball, for any model: projected gradient descent, and the radius that it leaves.

Everything works on one model, with logits (N, C), and on a stack of replicas, with logits (R, N, C): the letters in
front of N may be any. `closed_form` holds the exact answers that these attacks are checked against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral

import torch
from torch import Tensor
from torch.nn import functional

Logits = Callable[[Tensor], Tensor]
Bounds = tuple[float, float] | None


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """The lead of the right class over its strongest rival: logits (..., N, C), class labels (..., N) → (..., N).

    f_y − max_{k ≠ y} f_k, in the unit of the logits; positive where the prediction is right. Raises ``ValueError`` for
    fewer than two classes, for there is no rival.
    """
    check_classes(logits.shape[-1])
    own = logits.gather(-1, y[..., None])
    return own[..., 0] - logits.scatter(-1, y[..., None], -torch.inf).amax(-1)


def margin_loss(logits: Tensor, y: Tensor, rival: Tensor | None = None) -> Tensor:
    """What an attack raises (..., N): minus the lead over the strongest rival, or over the class ``rival`` (..., N)."""
    if rival is None:
        return -margin(logits, y)
    return (logits.gather(-1, rival[..., None]) - logits.gather(-1, y[..., None]))[..., 0]


def cross_entropy_loss(logits: Tensor, y: Tensor, rival: Tensor | None = None) -> Tensor:
    """The loss of training, example by example (..., N), whatever the rival: on large logits its gradient is zero."""
    return functional.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="none").view(y.shape)


def ball(x: Tensor, epsilon: float | Tensor, bounds: Bounds = (0.0, 1.0)) -> tuple[Tensor, Tensor]:
    """The lowest and the highest value that each input (..., N, D) can be given: x ∓ ε, cut to ``bounds``.

    epsilon: one radius, or one for each example (..., N). Raises ``ValueError`` for a radius below 0 or not finite, for
    radii of another shape, and for inputs that are not finite, no floating-point numbers, or outside ``bounds``.
    """
    if not (x.is_floating_point() and x.isfinite().all()):
        raise ValueError(f"x: {x.dtype}, from {x.min()} to {x.max()}; finite floating-point numbers are needed")
    radius = torch.as_tensor(epsilon, dtype=x.dtype, device=x.device)
    if not (radius.isfinite().all() and (radius >= 0).all()):
        raise ValueError(f"epsilon: {epsilon}; finite radii of 0 or more are needed")
    if radius.ndim and radius.shape != x.shape[:-1]:
        raise ValueError(
            f"epsilon: shape {tuple(radius.shape)}; one radius, or {tuple(x.shape[:-1])}, one for each example, is "
            "needed"
        )
    if bounds is None:
        return x - radius[..., None], x + radius[..., None]
    if not bounds[0] <= float(x.min()) <= float(x.max()) <= bounds[1]:
        raise ValueError(
            f"x: values from {float(x.min()):g} to {float(x.max()):g}; with bounds={bounds} they must lie within these "
            f"(bounds=None allows any value)"
        )
    return (x - radius[..., None]).clamp(min=bounds[0]), (x + radius[..., None]).clamp(max=bounds[1])


def check_classes(classes: int) -> None:
    """Raise ``ValueError`` for fewer than two classes: no margin and no boundary lies between them."""
    if classes < 2:
        raise ValueError(f"logits: {classes} for each example; at least two classes are needed")


def check_examples(x: Tensor, y: Tensor, classes: int) -> None:
    """Raise ``ValueError`` where x (..., N, D) is empty, y does not fit to it, a label is none of the classes, or there
    are fewer than two of these."""
    check_classes(classes)
    if x.numel() == 0:
        raise ValueError(f"x: shape {tuple(x.shape)}, no examples; at least one is needed")
    if y.shape != x.shape[:-1]:
        raise ValueError(f"y: shape {tuple(y.shape)}; one label an example of x, {tuple(x.shape[:-1])}, is needed")
    if y.is_floating_point():
        raise ValueError(f"y: {y.dtype}; class labels of an integer type, such as torch.long, are needed")
    if not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise ValueError(
            f"y: labels from {int(y.min())} to {int(y.max())}; with {classes} logits they must lie in 0…{classes - 1}"
        )


def _check_whole(**numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, Integral) or number < 1:
            raise ValueError(f"{name}: {number}; a positive whole number is needed")


def pgd(
    logits: Logits,
    x: Tensor,
    y: Tensor,
    epsilon: float | Tensor,
    *,
    steps: int = 20,
    restarts: int = 1,
    loss: Callable[..., Tensor] = margin_loss,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
) -> Tensor:
    """Projected gradient descent (Madry et al., 2018) within ‖δ‖∞ ≤ ε: of all inputs (..., N, D) that it met, the one
    with the smallest :func:`margin` for each example.

    Each of ``steps`` moves every input by 2.5 ε / steps along the sign of the gradient of ``loss``, and back into the
    :func:`ball`. The first restart begins at x and fights the strongest rival class. Each later one begins at a random
    place, the same for each replica, and fights one rival from beginning to end: the second strongest at x, the third,
    …, the strongest, and so on in turn. As many restarts as classes find the exact answer for a linear model.

    Raises ``ValueError`` for fewer than one step or restart, fewer than two classes, and for examples, labels or radii
    that do not fit.
    """
    _check_whole(steps=steps, restarts=restarts)
    with torch.no_grad():
        clean = logits(x)
    check_examples(x, y, clean.shape[-1])
    low, high = ball(x, epsilon, bounds)
    rate = 2.5 / steps * torch.as_tensor(epsilon, dtype=x.dtype, device=x.device)[..., None]
    rivals = clean.scatter(-1, y[..., None], -torch.inf).argsort(-1, descending=True)[..., :-1]
    rng = torch.Generator().manual_seed(seed)
    best, smallest = x, margin(clean, y)
    for restart in range(restarts):
        rival = None if restart == 0 else rivals[..., restart % rivals.shape[-1]]
        z = x if restart == 0 else low + (high - low) * torch.rand(x.shape[-2:], generator=rng).to(x)
        for step in range(steps + 1):
            z = z.detach().requires_grad_()
            out = logits(z)
            found = margin(out.detach(), y)
            better = found < smallest
            best, smallest = torch.where(better[..., None], z.detach(), best), torch.where(better, found, smallest)
            if step < steps:
                (slope,) = torch.autograd.grad(loss(out, y, rival).sum(), z)
                z = (z.detach() + rate * slope.sign()).clamp(low, high)
    return best


def robust(logits: Logits, x: Tensor, y: Tensor, epsilon: float | Tensor, **options) -> Tensor:
    """Whether each example (..., N) is still classified correctly after :func:`pgd` with these ``options``."""
    adversarial = pgd(logits, x, y, epsilon, **options)
    with torch.no_grad():
        return margin(logits(adversarial), y) > 0


def attack_radius(logits: Logits, x: Tensor, y: Tensor, largest: float = 0.5, halvings: int = 8, **options) -> Tensor:
    """The smallest ε at which :func:`pgd` turns each example (..., N), by bisection up to ``largest``; 0 where the
    model is wrong anyway.

    What an attack finds is an upper bound of the true radius. The mean over examples is the area under the curve of
    robust accuracy against ε (up to ``largest``).
    """
    if not 0 < largest < float("inf"):
        raise ValueError(f"largest: {largest}; a finite radius above 0 is needed")
    _check_whole(halvings=halvings)
    with torch.no_grad():
        right = margin(logits(x), y) > 0
    low = torch.zeros(y.shape, device=x.device)
    high = torch.full_like(low, largest)
    for _ in range(halvings):
        middle = (low + high) / 2
        holds = robust(logits, x, y, middle, **options)
        low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
    return torch.where(right, (low + high) / 2, 0.0)


def zero_gradients(logits: Logits, x: Tensor, y: Tensor, loss: Callable[..., Tensor] = cross_entropy_loss) -> Tensor:
    """The share (...) of examples whose gradient of ``loss`` by the input is exactly zero in every coordinate: a
    gradient-based attack cannot take a first step there."""
    z = x.detach().requires_grad_()
    out = logits(z)
    check_examples(x, y, out.shape[-1])
    (slope,) = torch.autograd.grad(loss(out, y).sum(), z)
    return (slope == 0).all(-1).float().mean(-1)


def rescaled(parameters: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """Every layer's weights times ``factor``, and its biases so that the network stays the same function up to a
    constant: with ReLU, layer l's bias times factor^l, and the logits times factor^depth.

    parameters: weights and biases in the order of the layers, of one model or a stack. Raises ``ValueError`` for a
    factor that is not above 0, which would be another function.
    """
    if not 0 < factor < float("inf"):
        raise ValueError(f"factor: {factor}; a finite number above 0 is needed")
    depth, out = 0, {}
    for name, value in parameters.items():
        depth += name.endswith("weight")
        out[name] = value * factor ** (1 if name.endswith("weight") else depth)
    return out
