"""Where the kernel finds lr, weight_decay, l2 and the betas of each group: an address and a stride for every one.

Numbers are sent to the device when they change. Vectors that lie there are read where they are, so that changing one in
place costs nothing; those of another device or dtype are read from a copy, refreshed at each step.
"""

import math
from collections.abc import Callable
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor

from .coefficients import decay_rate

NAMES = ("lr", "weight_decay", "decay_rate", "l2")
_VALUES = itemgetter("lr", "weight_decay", "betas", "eps")
_MORE = ("l2", "lr_independent", "initial_lr", "max_lr")
MOMENTS = 5  # (1 − β₁, 1 − β₂, ln β₁, ln β₂, ε), in this order


class DeviceCoefficients:
    """The coefficients of some groups on one device, in one dtype."""

    def __init__(self, groups: list[dict], device: torch.device, dtype: torch.dtype) -> None:
        self.groups, self.device, self.dtype = groups, device, dtype
        self.numbers = torch.zeros(len(groups), len(NAMES) + MOMENTS, dtype=dtype, device=device)
        self.sent: list[list[float]] = []
        self.copies: dict[tuple[int, str], Tensor] = {}
        self.seen: list[tuple] | None = None  # the groups' values at the last call, if all were numbers
        self.seen_places: np.ndarray | None = None

    def places(self, upload: Callable[[Tensor, Tensor], None]) -> np.ndarray:
        """(groups, 10): address and stride of each of ``NAMES`` and of the moments' five; stride 0 is a number.

        ``upload(target, values)`` writes to the device what has changed since the last call. Where no number has, the
        array is the same object as at the last call.
        """
        values = [(*_VALUES(group), *map(group.get, _MORE)) for group in self.groups]
        numbers = not any(isinstance(v, Tensor) for lr, decay, betas, *others in values
                          for v in (lr, decay, *betas, *others))  # fmt: skip
        if numbers and values == self.seen:
            return self.seen_places
        self.seen = values if numbers else None
        rows, places = [], []
        for i, group in enumerate(self.groups):
            row, place = self._of_group(i, group)
            rows.append(row)
            places.append(place)
        if rows != self.sent:
            self.sent = rows
            upload(self.numbers, torch.tensor(rows, dtype=self.dtype, device="cpu"))  # whatever the default device
        places = np.array(places, dtype=np.int64)
        if self.seen_places is None or not np.array_equal(places, self.seen_places):
            self.seen_places = places
        return self.seen_places

    def _of_group(self, i: int, group: dict) -> tuple[list[float], list[int]]:
        """The numbers to send (0 where a tensor is read instead), and the places to read."""
        size = self.numbers.element_size()
        base = self.numbers.data_ptr() + i * self.numbers.shape[1] * size
        row, place = [], []
        for j, name in enumerate(NAMES):
            value = decay_rate(group) if name == "decay_rate" else group.get(name, 0.0)
            if self._is_read(value):
                theirs = any(value is group.get(n) for n in ("lr", "weight_decay", "l2"))
                value = self._readable((i, name), value, theirs)
                row.append(0.0)
                place += [value.data_ptr(), value.stride(0) if value.numel() > 1 else 0]
            else:
                row.append(float(value))
                place += [base + j * size, 0]
        beta1, beta2 = group["betas"]
        if self._is_read(beta1) or self._is_read(beta2):
            moments = self._readable((i, "betas"), moments_of(beta1, beta2, group["eps"], self.device), False)
            row += [0.0] * MOMENTS
            place += [moments.data_ptr(), MOMENTS if moments.shape[0] > 1 else 0]
        else:
            logs = [math.log(b) if b > 0 else -math.inf for b in (float(beta1), float(beta2))]
            row += [1 - float(beta1), 1 - float(beta2), *logs, float(group["eps"])]
            place += [base + len(NAMES) * size, 0]
        return row, place

    def _is_read(self, value: float | Tensor) -> bool:
        """Whether the kernel reads a tensor itself: a vector, or a number that lies on the device already."""
        return isinstance(value, Tensor) and (value.numel() > 1 or value.device == self.device)

    def _readable(self, key: tuple[int, str], value: Tensor, theirs: bool) -> Tensor:
        """The user's own tensor where the kernel can read it, else a copy whose address stays."""
        if theirs and value.device == self.device and value.dtype == self.dtype:
            return value
        copy = self.copies.get(key)
        if copy is None or copy.shape != value.shape:
            copy = self.copies[key] = torch.empty(value.shape, dtype=self.dtype, device=self.device)
        return copy.copy_(value)


def moments_of(beta1: float | Tensor, beta2: float | Tensor, eps: float, device: torch.device) -> Tensor:
    """(1 − β₁, 1 − β₂, ln β₁, ln β₂, ε) of tensor betas, shape (R, 5) or (1, 5), in float64."""
    betas = [torch.as_tensor(b, dtype=torch.float64).to(device).reshape(-1) for b in (beta1, beta2)]
    columns = torch.broadcast_tensors(*(1 - b for b in betas), *(b.log() for b in betas), betas[0].new_tensor([eps]))
    return torch.stack(columns, 1)
