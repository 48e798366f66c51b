"""What a coefficient may be: a number, or a vector with one value a replica. Checks them, with torch's messages where
torch has one.
"""

from numbers import Real

from torch import Tensor

from .options import option

_NAMES = ("lr", "weight_decay", "l2", "betas[0]", "betas[1]")
_INVALID = {  # torch's words for a value out of its range
    "lr": "Invalid learning rate",
    "weight_decay": "Invalid weight_decay value",
    "l2": "Invalid l2 value",
    "betas[0]": "Invalid beta parameter at index 0",
    "betas[1]": "Invalid beta parameter at index 1",
}
_NOTES = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr")  # of torch's schedulers


def is_vector(value) -> bool:
    """Whether a coefficient holds one value a replica; a tensor of one element is a number, as in torch."""
    return isinstance(value, Tensor) and value.numel() != 1


def decay_rate(group: dict) -> float | Tensor:
    """What ``weight_decay`` is multiplied with: lr; with ``lr_independent`` the factor of the schedule, lr over its
    peak.

    torch's schedulers note in the group where lr began, ``initial_lr``, and OneCycleLR its peak, ``max_lr``. Without
    either there is no schedule to follow: the factor is 1, and 0 where lr is 0, which stops both steps. So it is under
    ReduceLROnPlateau, which notes nothing: ``group["initial_lr"] = float(group["lr"])`` is for the user to say.
    (torch.distributed.checkpoint takes a step with lr = 0 to make a state.)

    Raises:
        ValueError: lr is above the peak, as on a schedule that climbs from ``initial_lr``: the decay would grow
            with it, a hundredfold on some. (A tensor on a GPU is not waited for; there the factor ends at 1.)
    """
    lr, initial, peak = group["lr"], group.get("initial_lr"), group.get("max_lr")
    if not option(group, "lr_independent"):
        return lr
    if initial is None and peak is None:
        return (lr != 0).to(lr.dtype) if isinstance(lr, Tensor) else float(lr != 0)
    peak = initial if peak is None else peak
    tensors = isinstance(lr, Tensor) or isinstance(peak, Tensor)
    if tensors:
        peak = peak.to(lr.device) if isinstance(peak, Tensor) and isinstance(lr, Tensor) else peak
        factor = (lr / peak).nan_to_num(1.0, posinf=1.0)  # where the schedule began at 0
    else:
        factor = lr / peak if peak else 1.0
    if tensors and factor.device.type != "cpu":
        return factor.clamp(max=1.0)
    if (factor.max() if tensors else factor) > 1.0 + 1e-6:
        raise ValueError(
            f"lr_independent: lr is {lr}, above {peak}, from which its schedule is measured; say how high it climbs, "
            "param_group['max_lr'] = ..., so that the decay is weight_decay · lr / max_lr"
        )
    return factor


def replicas_of(group: dict) -> int | None:
    """The number of replicas that a group's vectors agree on, None where it has none. Raises ``TypeError`` for a
    coefficient that is neither a number nor a tensor."""
    values = _values(group)
    if not any(map(is_vector, values)):
        return None
    vectors = _vectors(values)
    first, leading = vectors[0]
    for name, value in vectors:
        _check_shape(name, value)
        if len(value) != len(leading):
            raise ValueError(
                f"{name} holds {len(value)} replicas, {first} holds {len(leading)}; "
                "vectors of a group must have one length"
            )
    return len(leading)


def _values(group: dict) -> tuple:
    values = group["lr"], group["weight_decay"], option(group, "l2"), *group["betas"]
    for name, value in zip(_NAMES, values, strict=True):
        _check_kind(name, value)
    return values


def _vectors(values: tuple) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in zip(_NAMES, values, strict=True) if is_vector(value)]


def check_vectors(group: dict) -> None:
    """Refuse vectors of a group that are out of range, as the constructor does; numbers are let pass, as in torch."""
    for name, vector in _vectors(_values(group)):
        _check_range(name, vector)


def check_leading_axis(p: Tensor, replicas: int | None, group: dict) -> None:
    """Whether a group's vectors fit one of its parameters: a value for each replica, and all replicas here."""
    if replicas is None:
        return
    name, _ = _vectors(_values(group))[0]
    if p.dim() == 0 or p.shape[0] != replicas:
        raise ValueError(
            f"Tensor {name} must be 1-element, or hold one value for each replica along the leading axis of every "
            f"parameter of its group; got {replicas} values and a parameter of shape {tuple(p.shape)}"
        )
    if any(placement.is_shard(0) for placement in getattr(p, "placements", ())):
        raise ValueError(
            f"{name}: the replicas of a parameter of shape {tuple(p.shape)} are spread over processes; "
            "shard another axis, or give each process replicas and vectors of its own"
        )


def noted(group: dict) -> dict:
    """What a group says of what torch's schedulers write to it at their making, lr apart."""
    return {name: group[name] for name in ("betas", *_NOTES) if name in group}


def take_back(group: dict, before: dict) -> None:
    """Have a group say again what it said ``before`` a scheduler was made, which is refused."""
    if group.get("max_momentum") != before.get("max_momentum"):  # a cycle has put a number in the place of β₁
        group["betas"] = before.get("betas", group["betas"])
    for name in _NOTES:
        group.pop(name, None)
    group.update({name: value for name, value in before.items() if name in _NOTES})


def check_schedulable(group: dict, before: dict) -> None:
    """Refuse torch's schedulers where they would give all replicas one lr, or one β₁ as cycles do.

    Raises:
        ValueError: lr is a vector, or a beta was one (in what :func:`noted` found ``before``) and a cycle has put a
            number in its place.
    """
    betas = zip(before.get("betas", ()), group["betas"], strict=False)
    replaced = [i for i, (old, new) in enumerate(betas) if is_vector(old) and not is_vector(new)]
    if not is_vector(group["lr"]) and not replaced:
        return
    name = f"betas[{replaced[0]}]" if replaced else "lr"
    raise ValueError(
        f"{name} holds one value for each replica, and torch's schedulers set one number a group; schedule it between "
        "steps by hand: param_group['lr'] = factor * base_lr, with cycle_momentum=False where there is one. "
        "CyclicLR overwrites lr before it can be refused: give the groups theirs again"
    )


def check_arguments(lr, betas, eps, weight_decay, l2, *, foreach, capturable) -> None:
    """torch's checks with torch's messages, extended to vectors, whose offending replica is named."""
    if isinstance(lr, Tensor) and foreach and not capturable:
        raise ValueError("lr as a Tensor is not supported for capturable=False and foreach=True")
    _check_range("lr", lr)
    if is_vector(eps) or not isinstance(eps, (Real, Tensor)):
        raise TypeError(f"eps: {eps!r}; a number, one for all replicas, is needed")
    if not 0.0 <= eps:
        raise ValueError(f"Invalid epsilon value: {eps}")
    if not hasattr(betas, "__len__") or len(betas) != 2:
        raise ValueError(f"betas: {betas!r}; a pair (β₁, β₂) is needed")
    for i, beta in enumerate(betas):
        _check_range(f"betas[{i}]", beta)
    _check_range("weight_decay", weight_decay)
    _check_range("l2", l2)
    numbers = [b for b in betas if not is_vector(b)]
    if len({isinstance(b, Tensor) for b in numbers}) > 1 or not all(isinstance(b, (float, Tensor)) for b in numbers):
        raise ValueError("betas must be either both floats or both Tensors")
    for i, beta in enumerate(betas):
        if isinstance(beta, Tensor) and foreach and not capturable:
            raise ValueError(f"betas[{i}] as a Tensor is not supported for capturable=False and foreach=True")


def _check_shape(name: str, vector: Tensor) -> None:
    if vector.dim() != 1:
        raise ValueError(
            f"Tensor {name} must be 1-element, or of shape (R,) with one value a replica; "
            f"got shape {tuple(vector.shape)}"
        )


def _check_kind(name: str, value) -> None:
    if not isinstance(value, (float, Tensor, Real)):
        raise TypeError(f"{name}: {value!r}; a number, or a tensor of shape (R,) with one value a replica, is needed")


def _check_range(name: str, value: float | Tensor) -> None:
    _check_kind(name, value)
    message, below = _INVALID[name], 1.0 if name.startswith("betas") else float("inf")
    if not is_vector(value):
        if not 0.0 <= value < below:
            raise ValueError(f"{message}: {value}")
        return
    _check_shape(name, value)
    wrong = ~((value >= 0.0) & (value < below))
    if wrong.any():
        replica = int(wrong.nonzero()[0])
        limit = "0 or more" if below == float("inf") else f"in [0, {below:g})"
        raise ValueError(
            f"{message}: {name}[{replica}] is {value[replica].item():g}; each replica's value must be {limit}"
        )
