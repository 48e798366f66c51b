"""What a coefficient may be: a number, or a vector with one value a replica. Checks them, with torch's messages where
torch has one.
"""

from torch import Tensor

_NAMES = ("lr", "weight_decay", "l2", "betas[0]", "betas[1]")


def is_vector(value) -> bool:
    """Whether a coefficient holds one value a replica; a tensor of one element is a number, as in torch."""
    return isinstance(value, Tensor) and value.numel() != 1


def decay_rate(group: dict) -> float | Tensor:
    """What ``weight_decay`` is multiplied with: lr; with ``lr_independent`` the factor of the schedule, lr /
    initial_lr.

    torch's schedulers note ``initial_lr`` in the group. Without it there is no schedule to follow: the factor is 1, and
    0 where lr is 0, which stops both steps. (torch.distributed.checkpoint takes a step with lr = 0 to make a state.)
    """
    lr, initial = group["lr"], group.get("initial_lr")
    if not group["lr_independent"]:
        return lr
    if initial is None:
        return (lr != 0).to(lr.dtype) if isinstance(lr, Tensor) else float(lr != 0)
    if isinstance(lr, Tensor) or isinstance(initial, Tensor):
        factor = lr / initial  # nan or infinite where the schedule began at 0
        return factor.where(factor.isfinite(), 1.0)
    return lr / initial if initial else 1.0


def replicas_of(group: dict) -> int | None:
    """The number of replicas that a group's vectors agree on, None where it has none."""
    beta1, beta2 = group["betas"]
    values = group["lr"], group["weight_decay"], group["l2"], beta1, beta2
    if not any(map(is_vector, values)):
        return None
    vectors = [(name, value) for name, value in zip(_NAMES, values, strict=True) if is_vector(value)]
    first, leading = vectors[0]
    for name, value in vectors:
        _check_shape(name, value)
        if len(value) != len(leading):
            raise ValueError(
                f"{name} holds {len(value)} replicas, {first} holds {len(leading)}; "
                "vectors of a group must have one length"
            )
    return len(leading)


def check_leading_axis(p: Tensor, replicas: int | None, group: dict) -> None:
    """Whether a group's vectors fit one of its parameters: a value for each replica, and all replicas here."""
    if replicas is None:
        return
    values = group["lr"], group["weight_decay"], group["l2"], *group["betas"]
    name = next(name for name, value in zip(_NAMES, values, strict=True) if is_vector(value))
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


def check_arguments(lr, betas, eps, weight_decay, l2, *, foreach, capturable) -> None:
    """torch's checks with torch's messages, extended to vectors, whose offending replica is named."""
    if isinstance(lr, Tensor) and foreach and not capturable:
        raise ValueError("lr as a Tensor is not supported for capturable=False and foreach=True")
    _check_range("lr", "Invalid learning rate", lr)
    if not 0.0 <= eps:
        raise ValueError(f"Invalid epsilon value: {eps}")
    for i, beta in enumerate(betas):
        _check_range(f"betas[{i}]", f"Invalid beta parameter at index {i}", beta, below=1.0)
    _check_range("weight_decay", "Invalid weight_decay value", weight_decay)
    _check_range("l2", "Invalid l2 value", l2)
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


def _check_range(name: str, message: str, value: float | Tensor, below: float = float("inf")) -> None:
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
