"""Param groups → the rows that the kernel walks: addresses, lengths and coefficients in a table on the device.

The table is built once. Each step then looks at the addresses and uploads only those columns that moved: gradients
after ``zero_grad(set_to_none=True)``, a number that a schedule changed. Vectors are read where they live, so that
changing one in place costs nothing here.
"""

import math
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from .coefficients import COEFFICIENTS
from .entry import Entry, local

MOMENTS = 5  # (1 − β₁, 1 − β₂, ln β₁, ln β₂, ε)
BLOCK = 1024  # elements of one program
VECTOR = 8  # elements to which blocks are aligned: 16 bytes of the narrowest dtype


class Column(IntEnum):
    """What the table says of each tensor. Addresses, except where noted; a stride belongs to the coefficient
    before it.
    """

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


def blocks_a_row(length: int, rows: int) -> int:
    """Blocks that cover a row of ``length`` elements wherever it starts on the grid of vectors."""
    shift = 0 if rows == 1 or length % VECTOR == 0 else VECTOR - 1
    return -(-(length + shift) // BLOCK)


class Launch:
    """What one kernel launch updates: tensors of one kind, and the table that describes them."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.device, dtypes, (self.steps_on_device, self.amsgrad, self.maximize) = entries[0].kind
        self.dtypes = [d.to_real() if d.is_complex else d for d in dtypes]
        self.compute_dtype = torch.float64 if self.dtypes[0] == torch.float64 else torch.float32
        self.groups = list({id(e.group): e.group for e in entries}.values())
        order = {id(g): i for i, g in enumerate(self.groups)}
        self.group_of = np.array([order[id(e.group)] for e in entries])

        self.sharded = any(local(e.param) is not e.param for e in entries)
        self.tensors = [t for e in entries for t in (e.param, *e.moments)]
        self.addresses = [local(t).data_ptr() for t in self.tensors]
        self.strides = [None if local(e.param).is_contiguous() else local(e.param).stride() for e in entries]

        n = len(entries)
        self.host = np.zeros((len(Column), n), dtype=np.int64)
        fixed = [Column.PARAM, Column.EXP_AVG, Column.EXP_AVG_SQ, Column.MAX_EXP_AVG_SQ][: 1 + len(entries[0].moments)]
        self.host[fixed] = np.array(self.addresses, dtype=np.int64).reshape(n, -1).T
        rows = np.array([e.replicas for e in entries])
        lengths = np.array([local(e.param).numel() * (2 if e.param.is_complex() else 1) for e in entries]) // rows
        blocks_of_row = np.array([blocks_a_row(int(length), int(r)) for length, r in zip(lengths, rows, strict=True)])
        blocks = blocks_of_row * rows
        self.host[Column.LENGTH], self.host[Column.BLOCKS_A_ROW] = lengths, blocks_of_row
        self.host[Column.FIRST_BLOCK] = np.cumsum(blocks) - blocks
        self.blocks = int(blocks.sum())
        self.tensor_of_block = torch.from_numpy(np.repeat(np.arange(n, dtype=np.int32), blocks)).to(self.device)

        # All step counts lie in one buffer, and the state's counts are views of it: one addition advances them all.
        # Counts on the host are sent to the device once; the kernel adds the steps since then, ``ticks``.
        self.steps = torch.stack([e.state["step"].detach().reshape(()) for e in entries])
        for e, view in zip(entries, self.steps, strict=True):
            e.state["step"] = e.step = view
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
        """Whether the table still describes the tensors: they lie where they lay, and gradients are of the
        same kind.
        """
        tensors = map(local, self.tensors) if self.sharded else self.tensors
        return [t.data_ptr() for t in tensors] == self.addresses and all(e.fits() for e in self.entries)

    def step(self, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        """One launch. A ``found_inf`` of 1 skips the step, within the kernel where the counts are on the device."""
        if found_inf is not None and not self.steps_on_device and found_inf.item():
            return
        from . import triton_kernel

        self.advance(found_inf)
        if self.blocks:
            triton_kernel.launch(self, grad_scale, found_inf)

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
        """Numbers go to the device where they changed; vectors that lie there are read in place, others
        through a copy.
        """
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
