"""Param groups → the rows that the kernel walks: addresses, lengths and coefficients in a table on the device.

The table is built once. Each step then looks at the addresses and uploads only those columns that moved: gradients after
``zero_grad(set_to_none=True)``, a number that a schedule changed. Vectors are read where they live, so that changing one in place costs
nothing here.
"""

import math
from enum import IntEnum
from operator import is_

import numpy as np
import torch
from torch import Tensor

from .coefficients import COEFFICIENTS, replicas_of

MOMENTS = 5  # (1 − β₁, 1 − β₂, ln β₁, ln β₂, ε)
BLOCK = 1024  # elements of one program
VECTOR = 8  # elements to which blocks are aligned: 16 bytes of the narrowest dtype


class Column(IntEnum):
    """What the table says of each tensor. Addresses, except where noted; a stride belongs to the coefficient before it."""

    PARAM = 0
    GRAD = 1
    EXP_AVG = 2
    EXP_AVG_SQ = 3
    MAX_EXP_AVG_SQ = 4
    LENGTH = 5  # elements of a row: the tensor's, or one replica's
    FIRST_BLOCK = 6  # blocks of the tensors before it
    BLOCKS_A_ROW = 7
    LR = 8
    LR_STRIDE = 9  # 0 for a number, else the vector's
    WEIGHT_DECAY = 10
    WEIGHT_DECAY_STRIDE = 11
    L2 = 12
    L2_STRIDE = 13
    MOMENTS = 14
    MOMENTS_STRIDE = 15  # 0, or the length of a row of them where a beta is a vector
    STEP = 16


def local(t: Tensor) -> Tensor:
    """The part of a tensor that this process holds: itself, or a DTensor's shard."""
    t = t.to_local() if hasattr(t, "to_local") else t
    return t.wait() if hasattr(t, "wait") else t


def is_dense(t: Tensor, replicas: int | None) -> bool:
    """Whether the elements fill their memory without gaps, each replica's in one piece."""
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(t.stride(), t.shape, strict=True) if size > 1):
        if stride != expected:
            return False
        expected *= size
    return t.numel() == 0 or replicas in (None, 1) or t.stride(0) * replicas == t.numel()


def blocks_a_row(length: int, rows: int) -> int:
    """Blocks that cover a row of ``length`` elements wherever it starts on the grid of vectors."""
    shift = 0 if rows == 1 or length % VECTOR == 0 else VECTOR - 1
    return -(-(length + shift) // BLOCK)


class Entry:
    """A parameter that has a gradient, with its group, its state and the number of its replicas (1 without vectors)."""

    def __init__(self, param: Tensor, group: dict, state: dict, replicas: int | None) -> None:
        self.param, self.group, self.state, self.replicas = param, group, state, replicas or 1
        self.tensors = [param, state["exp_avg"], state["exp_avg_sq"]] + (
            [state["max_exp_avg_sq"]] if group["amsgrad"] else []
        )

    @property
    def kind(self) -> tuple:
        """Entries of one kind go into one launch."""
        dtypes = self.param.dtype, self.param.grad.dtype, self.tensors[1].dtype, self.state["step"].dtype
        return local(self.param).device, dtypes, flags(self.group)


def flags(group: dict) -> tuple[bool, bool, bool]:
    """What of a group is compiled into the kernel or decides where step counts live: (steps on device, amsgrad, maximize)."""
    return bool(group["capturable"] or group["fused"]), bool(group["amsgrad"]), bool(group["maximize"])


class Launch:
    """What one kernel launch updates: tensors of one kind, and the table that describes them."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.device, dtypes, self.flags = entries[0].kind
        self.steps_on_device, self.amsgrad, self.maximize = self.flags
        self.grad_dtype = dtypes[1]
        self.dtypes = [d.to_real() if d.is_complex else d for d in dtypes]
        self.compute_dtype = torch.float64 if self.dtypes[0] == torch.float64 else torch.float32
        self.groups = list({id(e.group): e.group for e in entries}.values())
        order = {id(g): i for i, g in enumerate(self.groups)}
        self.group_of = np.array([order[id(e.group)] for e in entries])

        self.sharded = any(hasattr(e.param, "to_local") for e in entries)
        self.tensors = [t for e in entries for t in e.tensors]
        self.addresses = [t.data_ptr() for t in map(local, self.tensors)]
        self.strides = [None if local(e.param).is_contiguous() else local(e.param).stride() for e in entries]

        n = len(entries)
        self.host = np.zeros((len(Column), n), dtype=np.int64)
        fixed = [Column.PARAM, Column.EXP_AVG, Column.EXP_AVG_SQ, Column.MAX_EXP_AVG_SQ][: len(entries[0].tensors)]
        self.host[fixed] = np.array(self.addresses, dtype=np.int64).reshape(n, -1).T
        rows = np.array([e.replicas for e in entries])
        lengths = np.array([local(e.param).numel() * (2 if e.param.is_complex() else 1) for e in entries]) // rows
        blocks_of_row = np.array([blocks_a_row(int(length), int(r)) for length, r in zip(lengths, rows, strict=True)])
        blocks = blocks_of_row * rows
        self.host[Column.LENGTH], self.host[Column.BLOCKS_A_ROW] = lengths, blocks_of_row
        self.host[Column.FIRST_BLOCK] = np.cumsum(blocks) - blocks
        self.blocks = int(blocks.sum())
        self.tensor_of_block = torch.from_numpy(np.repeat(np.arange(n, dtype=np.int32), blocks)).to(self.device)

        # All step counts lie in one buffer, and the state's counts are views of it: one addition advances them all. Counts on the host
        # are sent to the device once; the kernel adds the steps since then, ``ticks``.
        self.steps = torch.stack([e.state["step"].detach().reshape(()) for e in entries])
        self.watched = [(e.param, e.state, view, *e.tensors[1:]) for e, view in zip(entries, self.steps, strict=True)]
        for _, state, view, *_ in self.watched:
            state["step"] = view
        self.offsets = self.steps if self.steps_on_device else self.steps.to(self.device, copy=True)
        self.sent, self.ticks = self.steps.clone(), 0.0
        self.host[Column.STEP] = self.offsets.data_ptr() + np.arange(n) * self.offsets.element_size()

        self.numbers = torch.zeros(len(self.groups), 3 + MOMENTS, dtype=self.compute_dtype, device=self.device)
        self.number_rows: list[list[float]] = []
        self.buffers: dict[tuple[int, str], Tensor] = {}
        self.places: list[list[int]] = []
        self.grads: list[Tensor] = []
        self.table = torch.from_numpy(self.host).to(self.device)

    def fits(self) -> bool:
        """Whether the table still describes the tensors and flags; a look at each, no more."""
        if any(flags(group) != self.flags for group in self.groups):
            return False
        tensors = map(local, self.tensors) if self.sharded else self.tensors
        if [t.data_ptr() for t in tensors] != self.addresses:
            return False
        for param, state, step, exp_avg, exp_avg_sq, *_ in self.watched:
            grad = param.grad
            if grad is None or grad.dtype != self.grad_dtype or grad.layout != torch.strided:
                return False
            if state["step"] is not step or state["exp_avg"] is not exp_avg or state["exp_avg_sq"] is not exp_avg_sq:
                return False
        return True

    def advance(self, found_inf: Tensor | None = None) -> None:
        """Count one step (none where ``found_inf`` is 1) and upload what moved since the last one."""
        if self.steps_on_device:
            self.steps.add_(1 if found_inf is None else 1 - found_inf.to(self.device, self.steps.dtype).squeeze())
        else:
            if not torch.equal(self.steps, self.sent + self.ticks):
                self.offsets.copy_(self.steps)
                self.sent, self.ticks = self.steps.clone(), 0.0
            self.steps.add_(1)
            self.ticks += 1
        self._find_gradients()
        self._find_coefficients()

    def _find_gradients(self) -> None:
        self.grads = [local(e.param.grad) if self.sharded else e.param.grad for e in self.entries]
        for i, (grad, stride) in enumerate(zip(self.grads, self.strides, strict=True)):
            if not grad.is_contiguous() if stride is None else grad.stride() != stride:
                self.grads[i] = torch.empty_like(local(self.entries[i].param), dtype=grad.dtype).copy_(grad)
        self._write(Column.GRAD, np.array([g.data_ptr() for g in self.grads], dtype=np.int64))

    def _find_coefficients(self) -> None:
        """Numbers go to the device where they changed; vectors that lie there are read in place, others through a copy."""
        width = self.numbers.shape[1] * self.numbers.element_size()
        number_rows, places = [], []
        for i, group in enumerate(self.groups):
            base = self.numbers.data_ptr() + i * width
            row, place = [], []
            for j, name in enumerate(COEFFICIENTS):
                value, address, stride = group[name], base + j * self.numbers.element_size(), 0
                if isinstance(value, Tensor) and (value.numel() > 1 or value.device == self.device):
                    if value.device != self.device or value.dtype != self.compute_dtype:
                        value = self._copied((i, name), value)
                    address, stride, value = value.data_ptr(), value.stride(0) if value.numel() > 1 else 0, 0.0
                row.append(float(value))
                place += [address, stride]
            beta1, beta2 = group["betas"]
            if any(isinstance(b, Tensor) and (b.numel() > 1 or b.device == self.device) for b in (beta1, beta2)):
                moments = self._copied((i, "betas"), _moments(beta1, beta2, group["eps"], self.device))
                place += [moments.data_ptr(), MOMENTS if moments.shape[0] > 1 else 0]
                row += [0.0] * MOMENTS
            else:
                place += [base + len(COEFFICIENTS) * self.numbers.element_size(), 0]
                b1, b2 = float(beta1), float(beta2)
                logs = [math.log(b) if b > 0 else -math.inf for b in (b1, b2)]
                row += [1 - b1, 1 - b2, *logs, float(group["eps"])]
            number_rows.append(row)
            places.append(place)
        if number_rows != self.number_rows:
            self.number_rows = number_rows
            self.numbers.copy_(torch.tensor(number_rows, dtype=self.compute_dtype))
        if places != self.places:
            self.places = places
            for column, values in zip(range(Column.LR, Column.STEP), np.array(places, dtype=np.int64).T, strict=True):
                self._write(column, values[self.group_of])

    def _copied(self, key: tuple[int, str], value: Tensor) -> Tensor:
        """A copy on the device in the kernel's dtype, refreshed at each step, whose address stays."""
        buffer = self.buffers.get(key)
        if buffer is None or buffer.shape != value.shape:
            buffer = self.buffers[key] = torch.empty(value.shape, dtype=self.compute_dtype, device=self.device)
        return buffer.copy_(value)

    def _write(self, column: int, values: np.ndarray) -> None:
        if not np.array_equal(self.host[column], values):
            self.host[column] = values
            self.table[column].copy_(torch.from_numpy(self.host[column]))


def _moments(beta1: float | Tensor, beta2: float | Tensor, eps: float, device: torch.device) -> Tensor:
    """(1 − β₁, 1 − β₂, ln β₁, ln β₂, ε) of tensor betas, shape (R, 5) or (1, 5), in float64."""
    betas = [torch.as_tensor(b, dtype=torch.float64).to(device).reshape(-1) for b in (beta1, beta2)]
    columns = torch.broadcast_tensors(*(1 - b for b in betas), *(b.log() for b in betas), betas[0].new_tensor([eps]))
    return torch.stack(columns, 1)


class WorkTable:
    """All launches of an optimizer, and what it must update ``elsewhere``: (group, parameters) of the other backends."""

    def __init__(
        self, groups: list[dict], entries: list[Entry], idle: list[Tensor], elsewhere: list[tuple[dict, list[Tensor]]]
    ) -> None:
        """``idle``: the kernel's parameters without a gradient; once one gets a gradient, the table is out of date."""
        self.idle, self.elsewhere = idle, elsewhere
        self.groups = [(group, list(group["params"]), replicas_of(group)) for group in groups]
        self.devices = [p.device for _, params in elsewhere for p in params]
        kinds: dict[tuple, list[Entry]] = {}
        for entry in entries:
            kinds.setdefault(entry.kind, []).append(entry)
        self.launches = [Launch(group) for group in kinds.values()]

    def fits(self, groups: list[dict]) -> bool:
        """Whether groups, parameters, flags and addresses are those that the table was built for."""
        return (
            len(groups) == len(self.groups)
            and all(
                now is group
                and len(now["params"]) == len(params)
                and all(map(is_, now["params"], params))
                and replicas_of(now) == replicas
                for now, (group, params, replicas) in zip(groups, self.groups, strict=True)
            )
            and all(p.grad is None for p in self.idle)
            and [p.device for _, params in self.elsewhere for p in params] == self.devices
            and all(launch.fits() for launch in self.launches)
        )

    def step(self, grad_scale: Tensor | None = None, found_inf: Tensor | None = None) -> None:
        """Update everything in the table: one launch for each combination of device, dtypes and flags."""
        if not self.launches:
            return
        from . import triton_kernel

        if found_inf is not None and not all(launch.steps_on_device for launch in self.launches) and found_inf.item():
            return
        for launch in self.launches:
            launch.advance(found_inf)
            if launch.blocks:
                triton_kernel.launch(launch, grad_scale, found_inf)
