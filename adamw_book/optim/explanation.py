"""What a step was made of: how far the decay moved a tensor, how far the gradient did, and whether they agreed."""

from typing import NamedTuple

import torch
from torch import Tensor


class Explanation(NamedTuple):
    """One tensor's last step: Euclidean norms, 0-dim or (R,) for replicas.

    With d = ηλθ the decay step and u the gradient step, both as they are subtracted from the parameter:
    """

    param_norm: Tensor  # ‖θ‖ before the step
    decay_norm: Tensor  # ‖d‖
    gradient_norm: Tensor  # ‖u‖
    cosine: Tensor  # d·u / (‖d‖ ‖u‖): 1 where the gradient shrinks the tensor too; nan where a step is 0

    @classmethod
    def of(cls, sums: Tensor) -> "Explanation":
        """From Σθ², Σd², Σu² and Σdu, shape (…, 4)."""
        param, decay, gradient, product = sums.unbind(-1)
        return cls(param.sqrt(), decay.sqrt(), gradient.sqrt(), product / (decay.sqrt() * gradient.sqrt()))


def widest(device: torch.device) -> torch.dtype:
    """float64, or float32 on Apple's GPUs, which have no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def sums_of(param: Tensor, decay_step: Tensor, gradient_step: Tensor, replicas: int) -> Tensor:
    """Σθ², Σd², Σu² and Σdu of each replica, shape (R, 4), in the device's widest dtype."""
    dtype = widest(param.device)
    rows = [t.detach().reshape(replicas, t.numel() // replicas).to(dtype) for t in (param, decay_step, gradient_step)]
    squares = [row.square().sum(1) for row in rows]
    return torch.stack([*squares, (rows[1] * rows[2]).sum(1)], 1)
