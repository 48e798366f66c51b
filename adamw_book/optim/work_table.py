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

from .coefficients import decay_rate
from .entry import Entry, local, numbers, sharding

MOMENTS = 5  # (1 − β₁, 1 − β₂, ln β₁, ln β₂, ε)
COEFFICIENTS = ("lr", "weight_decay", "decay_rate", "l2")  # in the order of the table's columns
VECTOR = 8  # elements to which blocks are aligned: 16 bytes of the narrowest dtype
PARTS = 1024  # programs that share the sum of squared gradients, over all replicas


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
    FIRST_BLOCK = 6  # blocks of a row in the tensors before it
    LR = 7
    LR_STRIDE = 8  # 0 for a number, else the vector's
    WEIGHT_DECAY = 9
    WEIGHT_DECAY_STRIDE = 10
    DECAY_RATE = 11  # what the decay is multiplied with: lr, or the schedule's factor
    DECAY_RATE_STRIDE = 12
    L2 = 13
    L2_STRIDE = 14
    MOMENTS = 15
    MOMENTS_STRIDE = 16  # 0, or the length of a row of them where a beta is a vector
    STEP = 17
    INDEX = 18  # the parameter's number in the optimizer


def capturing(device: torch.device) -> bool:
    """Whether a CUDA graph records what is asked of this device now."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def blocks_of(length: int, rows: int, block: int) -> int:
    """Blocks that cover a row of ``length`` elements wherever it starts on the grid of vectors."""
    shift = 0 if rows == 1 or length % VECTOR == 0 else VECTOR - 1
    return -(-(length + shift) // block)


class Launch:
    """What one kernel launch updates: tensors of one kind, and the table that describes them."""

    def __init__(self, entries: list[Entry]) -> None:
        if capturing(entries[0].device):
            raise RuntimeError(
                "step() is recorded into a CUDA graph, but parameters, gradients or options changed since the "
                "last step outside of a graph, or there was none; take one with the same parameters first"
            )
        self.entries = entries
        self.device, dtypes, self.flags, self.replicas = entries[0].kind
        self.sharding = sharding(entries[0].param)
        self.dtypes = [d.to_real() if d.is_complex else d for d in dtypes]
        self.compute_dtype = torch.float64 if self.dtypes[0] == torch.float64 else torch.float32
        self.block = 512 if self.compute_dtype == torch.float64 else 1024  # elements of a program
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
        lengths = [numbers(e.param).numel() // self.replicas for e in entries]
        blocks = np.array([blocks_of(length, self.replicas, self.block) for length in lengths])
        self.host[Column.LENGTH], self.host[Column.INDEX] = lengths, [e.index for e in entries]
        self.host[Column.FIRST_BLOCK] = np.cumsum(blocks) - blocks
        self.blocks_a_row = int(blocks.sum())
        self.programs = self.blocks_a_row * self.replicas
        self.tensor_of_block = torch.from_numpy(np.repeat(np.arange(n, dtype=np.int32), blocks)).to(self.device)

        # All step counts lie in one buffer, and the state's counts are views of it: one addition advances them all.
        # Counts on the host are sent to the device once; the kernel adds the steps since then, ``ticks``.
        self.steps = _common_buffer([e.step for e in entries])
        for e, view in zip(entries, self.steps, strict=True):
            e.state["step"] = e.step = view
        self.offsets = self.steps if self.flags.counts_on_device else self.steps.to(self.device, copy=True)
        self.sent, self.ticks = self.steps.clone(), 0.0
        self.host[Column.STEP] = self.offsets.data_ptr() + np.arange(n) * self.offsets.element_size()

        width = len(COEFFICIENTS) + MOMENTS
        self.numbers = torch.zeros(len(self.groups), width, dtype=self.compute_dtype, device=self.device)
        self.number_rows: list[list[float]] = []
        self.buffers: dict[tuple, Tensor] = {}
        self.places: list[list[int]] = []
        self.grads: list[Tensor] = []
        self.sums: Tensor | None = None
        self.table = torch.from_numpy(self.host).to(self.device)
        # Under capture an upload is recorded and reads its source at every replay: memory that stays and never changes.
        pinned = self.device.type == "cuda" and bool(entries[0].group["capturable"])
        self.staged_table = torch.empty(self.table.shape, dtype=torch.int64, pin_memory=pinned)
        self.staged_numbers = torch.empty(self.numbers.shape, dtype=self.compute_dtype, pin_memory=pinned)
        self.captured = False

    def fits(self) -> bool:
        """Whether the table still describes the tensors: all lie where they lay, gradients are of the same kind.

        A table that was recorded into a CUDA graph belongs to graphs.
        """
        if self.captured and not capturing(self.device):
            return False
        tensors = map(local, self.tensors) if self.sharded else self.tensors
        return [t.data_ptr() for t in tensors] == self.addresses and all(e.fits() for e in self.entries)

    def squares(self) -> Tensor:
        """Each replica's sum of squared gradients (R,), in one launch."""
        from . import triton_kernel

        self._find_gradients()
        parts = min(self.blocks_a_row, -(-PARTS // self.replicas))
        squares = self._buffer("squares", (self.replicas,), self.compute_dtype)
        if parts:
            partial = self._buffer("partial", (self.replicas, parts), self.compute_dtype)
            arrived = self._buffer("arrived", (self.replicas,), torch.int32)
            triton_kernel.sum_of_squares(self, partial, arrived, squares)
        return squares

    def step(
        self,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
        squares: Tensor | None,
        max_norm: float | None,
        explain: bool,
    ) -> None:
        """One launch. A ``found_inf`` of 1 skips the step, within the kernel where the counts are on the device."""
        if found_inf is not None and not self.flags.counts_on_device and found_inf.item():
            return
        from . import triton_kernel

        self._count(found_inf)
        self._find_gradients()
        self._find_coefficients()
        self.sums = self._buffer("sums", (self.programs, 4), self.compute_dtype) if explain else None
        if self.programs:
            triton_kernel.launch(
                self,
                grad_scale=grad_scale,
                found_inf=found_inf,
                squares=None if squares is None else squares.to(self.compute_dtype),
                max_norm=max_norm or 0.0,
                sums=self.sums,
            )
        self.captured |= capturing(self.device)

    def explained(self) -> dict[Tensor, Tensor]:
        """parameter → Σθ², Σd², Σu², Σdu of the last step that was to be explained, shape (R, 4)."""
        if self.sums is None:
            return {}
        by_block = self.sums.double().view(self.replicas, self.blocks_a_row, 4)
        totals = by_block.new_zeros(self.replicas, len(self.entries), 4)
        totals.index_add_(1, self.tensor_of_block.long(), by_block)
        return {e.param: totals[:, i] for i, e in enumerate(self.entries)}

    def _count(self, found_inf: Tensor | None) -> None:
        """Count one step, none where ``found_inf`` is 1. A count that was changed from outside is believed."""
        if self.flags.counts_on_device:
            self.steps.add_(1 if found_inf is None else 1 - found_inf.to(self.device, self.steps.dtype).squeeze())
            return
        if not torch.equal(self.steps, self.sent + self.ticks):
            self.offsets.copy_(self.steps)
            self.sent, self.ticks = self.steps.clone(), 0.0
        self.steps.add_(1)
        self.ticks += 1

    def _find_gradients(self) -> None:
        self.grads = [local(e.param.grad) if self.sharded else e.param.grad for e in self.entries]
        for i, (grad, stride) in enumerate(zip(self.grads, self.strides, strict=True)):
            if not grad.is_contiguous() if stride is None else grad.stride() != stride:
                self.grads[i] = torch.empty_like(local(self.entries[i].param), dtype=grad.dtype).copy_(grad)
        self._write(Column.GRAD, np.array([g.data_ptr() for g in self.grads], dtype=np.int64))

    def _find_coefficients(self) -> None:
        """Numbers go to the device where they changed; vectors that lie there are read in place, others in a copy."""
        size = self.numbers.element_size()
        number_rows, places = [], []
        for i, group in enumerate(self.groups):
            base = self.numbers.data_ptr() + i * self.numbers.shape[1] * size
            row, place = [], []
            values = (group["lr"], group["weight_decay"], decay_rate(group), group["l2"])
            for j, (name, value) in enumerate(zip(COEFFICIENTS, values, strict=True)):
                address, stride = base + j * size, 0
                if self._is_read(value):
                    given = any(value is group[other] for other in ("lr", "weight_decay", "l2"))
                    value = self._as_read((i, name), value, given)
                    address, stride, value = value.data_ptr(), value.stride(0) if value.numel() > 1 else 0, 0.0
                row.append(float(value))
                place += [address, stride]
            beta1, beta2 = group["betas"]
            if self._is_read(beta1) or self._is_read(beta2):
                moments = self._as_read((i, "betas"), _moments(beta1, beta2, group["eps"], self.device), False)
                place += [moments.data_ptr(), MOMENTS if moments.shape[0] > 1 else 0]
                row += [0.0] * MOMENTS
            else:
                place += [base + len(COEFFICIENTS) * size, 0]
                b1, b2 = float(beta1), float(beta2)
                logs = [math.log(b) if b > 0 else -math.inf for b in (b1, b2)]
                row += [1 - b1, 1 - b2, *logs, float(group["eps"])]
            number_rows.append(row)
            places.append(place)
        if number_rows != self.number_rows:
            self.number_rows = number_rows
            self._upload(self.numbers, torch.tensor(number_rows, dtype=self.compute_dtype), self.staged_numbers)
        if places != self.places:
            self.places = places
            for column, addresses in zip(
                range(Column.LR, Column.STEP), np.array(places, dtype=np.int64).T, strict=True
            ):
                self._write(column, addresses[self.group_of])

    def _is_read(self, value: float | Tensor) -> bool:
        """Whether the kernel reads a coefficient's tensor: vectors, and numbers that lie on the device already."""
        return isinstance(value, Tensor) and (value.numel() > 1 or value.device == self.device)

    def _as_read(self, key: tuple, value: Tensor, given: bool) -> Tensor:
        """The user's tensor itself where the kernel can read it; else a copy, refreshed at each step, that stays."""
        if given and value.device == self.device and value.dtype == self.compute_dtype:
            return value
        return self._buffer(key, tuple(value.shape), self.compute_dtype).copy_(value)

    def _buffer(self, key: object, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Zeros at first, then the same memory at every step."""
        buffer = self.buffers.get(key)
        if buffer is None or buffer.shape != shape:
            buffer = self.buffers[key] = torch.zeros(shape, dtype=dtype, device=self.device)
        return buffer

    def _write(self, column: int, values: np.ndarray) -> None:
        if not np.array_equal(self.host[column], values):
            self.host[column] = values
            self._upload(self.table[column], torch.from_numpy(self.host[column]), self.staged_table[column])

    def _upload(self, target: Tensor, values: Tensor, staged: Tensor) -> None:
        if not capturing(self.device):
            target.copy_(values)
        elif not self.captured:
            target.copy_(staged.copy_(values), non_blocking=True)
        else:
            raise RuntimeError(
                "step() is recorded into a CUDA graph a second time with gradients or numbers that moved in between; "
                "take a step outside of a graph between the two"
            )


def _common_buffer(steps: list[Tensor]) -> Tensor:
    """One buffer of all step counts: the one they lie in already, which a graph may know, or a new one."""
    buffer = steps[0]._base
    if buffer is not None and buffer.dim() == 1 and len(buffer) == len(steps):
        size = buffer.element_size()
        if all(s.dim() == 0 and s.data_ptr() == buffer.data_ptr() + i * size for i, s in enumerate(steps)):
            return buffer
    return torch.stack([s.detach().reshape(()) for s in steps])


def _moments(beta1: float | Tensor, beta2: float | Tensor, eps: float, device: torch.device) -> Tensor:
    """(1 − β₁, 1 − β₂, ln β₁, ln β₂, ε) of tensor betas, shape (R, 5) or (1, 5), in float64."""
    betas = [torch.as_tensor(b, dtype=torch.float64).to(device).reshape(-1) for b in (beta1, beta2)]
    columns = torch.broadcast_tensors(*(1 - b for b in betas), *(b.log() for b in betas), betas[0].new_tensor([eps]))
    return torch.stack(columns, 1)
