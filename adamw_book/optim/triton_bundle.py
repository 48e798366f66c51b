"""The backend of the Triton kernel: param groups → the rows that it walks, in a table of addresses, lengths and
coefficients on the device.

The table is built once. Each step then looks at the addresses and uploads only those columns that moved, such as the
gradients' after ``zero_grad(set_to_none=True)``.
"""

import numpy as np
import torch
from torch import Tensor

from .device_coefficients import DeviceCoefficients
from .entry import Entry, as_stored, local, numbers, sharding
from .layout import Column, WorkTable, block_size, blocks_of
from .watch import ABSENT, Gradients, Watch, common_buffer

PARTS = 1024  # programs that share the sum of squared gradients, over all replicas


def capturing(device: torch.device) -> bool:
    """Whether a CUDA graph records what is asked of this device now."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


class TritonBundle:
    """Parameters of one kind, which one launch updates, and the table that describes them."""

    def __init__(self, entries: list[Entry]) -> None:
        if capturing(entries[0].device):
            raise RuntimeError(
                "step() is recorded into a CUDA graph, but parameters, gradients or options changed since the last "
                "step outside of a graph, or there was none; take one with the same parameters first"
            )
        from . import triton_kernel  # which asks for Triton

        self.kernel, self.entries = triton_kernel, entries
        self.device, dtypes, self.flags, self.replicas = entries[0].kind
        self.sharding = sharding(entries[0].param)
        dtypes = tuple(d.to_real() if d.is_complex else d for d in dtypes)
        self.compute_dtype = torch.float64 if dtypes[0] == torch.float64 else torch.float32
        block = block_size(self.compute_dtype)
        self.groups = list({id(e.group): e.group for e in entries}.values())
        order = {id(g): i for i, g in enumerate(self.groups)}
        self.group_of = np.array([order[id(e.group)] for e in entries])

        # All step counts lie in one buffer, and the state's counts are views of it: one addition advances them all.
        # Counts on the host are sent to the device once; the kernel adds the steps since then, ``ticks``.
        self.steps = common_buffer(entries)
        self.offsets = self.steps if self.flags.counts_on_device else self.steps.to(self.device, copy=True)
        self.ticks = 0.0
        if not self.flags.counts_on_device:
            self.counts = self.steps.detach().numpy()  # the same memory: numpy looks at so few numbers sooner
            self.counted = self.counts.tobytes()  # as the last step left them
        self.watch = Watch(entries, by_address=True)

        n = len(entries)
        self.host = np.zeros((len(Column), n), dtype=np.int64)
        self.host[Column.PARAM] = self.watch.places
        columns = [Column.EXP_AVG, Column.EXP_AVG_SQ, Column.MAX_EXP_AVG_SQ][: len(entries[0].names)]
        self.host[columns] = np.array(self.watch.state_places, dtype=np.int64).reshape(n, -1).T[1:]  # without the count
        self.lengths = np.array([numbers(e.param).numel() // self.replicas for e in entries])
        blocks = np.array([blocks_of(length, self.replicas, block) for length in self.lengths.tolist()])
        self.host[Column.LENGTH], self.host[Column.INDEX] = self.lengths, [e.index for e in entries]
        self.host[Column.FIRST_BLOCK] = np.cumsum(blocks) - blocks
        tensor_of_block = torch.from_numpy(np.repeat(np.arange(n, dtype=np.int32), blocks)).to(self.device)
        self.host[Column.STEP] = self.offsets.data_ptr() + np.arange(n) * self.offsets.element_size()

        self.coefficients = DeviceCoefficients(self.groups, self.device, self.compute_dtype)
        self.places: np.ndarray | None = None  # of the coefficients
        self.gradients: list[int] = []  # their addresses
        self.present: list[bool] | None = None  # who has one; None: everyone
        self.buffers: dict[str, Tensor] = {}
        self.sums: Tensor | None = None
        self.found_inf: Tensor | None = None  # of the last step
        self.table = torch.from_numpy(self.host).to(self.device, copy=True)
        self.work = WorkTable(
            self.table, tensor_of_block, int(blocks.sum()), self.replicas, block, dtypes, self.compute_dtype, self.flags
        )
        # Under capture an upload is recorded and reads its source at every replay: memory that stays and never changes.
        self.staged: list[Tensor] = []
        if entries[0].group["capturable"]:
            targets = (self.coefficients.numbers, *self.table)
            pinned = self.device.type == "cuda"
            self.staged = [torch.empty(t.shape, dtype=t.dtype, device="cpu", pin_memory=pinned) for t in targets]
        self.captured = False
        self.held: list[list[Tensor]] = []

    def fits(self) -> bool:
        """Whether the table still describes the tensors: all lie where they lay, gradients are of the same kind.

        A table that was recorded into a CUDA graph belongs to graphs.
        """
        if self.captured and not capturing(self.device):
            return False
        return self.watch.look()

    def squares(self) -> Tensor:
        """Each replica's sum of squared gradients (R,), in one launch."""
        parts = min(self.work.blocks_a_row, -(-PARTS // self.replicas))
        squares = self._buffer("squares", (self.replicas,), self.compute_dtype)
        if parts:
            partial = self._buffer("partial", (self.replicas, parts), self.compute_dtype)
            arrived = self._buffer("arrived", (self.replicas,), torch.int32)
            found, grads = self._place_gradients()
            self.kernel.sum_of_squares(self.work, partial, arrived, squares)
            self.watch.found = found._replace(all=grads)  # the launch is queued, and the step goes on with them
        else:
            squares.zero_()  # a shard without elements; what other processes added at the last step lies here
        return squares

    def step(
        self,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
        squares: Tensor | None,
        max_norm: float | None,
        explain: bool,
    ) -> None:
        """One launch. A ``found_inf`` above 0 skips the step, within the kernel where the counts are on the device."""
        self.sums, self.found_inf = None, found_inf
        if found_inf is not None and not self.flags.counts_on_device and found_inf.item():
            self.watch.found = None
            return
        found, grads = self._place_gradients()
        self._count(found_inf)
        places = self.coefficients.places(self._upload)
        if places is not self.places:
            self.places = places
            for column, values in enumerate(places.T, start=Column.LR):
                self._write(column, values[self.group_of])
        if explain:
            self.sums = self._buffer("sums", (self.work.programs, 4), self.compute_dtype)
        if self.work.programs:
            self.kernel.launch(
                self.work,
                self.ticks,
                self.coefficients.numbers if self.sums is None else self.sums,
                explain=explain,
                grad_scale=grad_scale,
                found_inf=found_inf,
                squares=None if squares is None else squares.to(self.compute_dtype),
                max_norm=float(max_norm or 0.0),
            )
        if grad_scale is not None and not found.ordinary:  # the kernel may have unscaled a copy
            for e, grad in zip(self.entries, grads, strict=True):
                if grad is not None:
                    local(e.param.grad).copy_(grad)
        del found, grads  # the launch is queued
        if capturing(self.device):
            self.captured, self.held = True, [e.moments for e in self.entries]  # a replay writes to them

    def explained(self) -> dict[Tensor, Tensor]:
        """parameter → Σθ², Σd², Σu², Σdu of the last step, shape (R, 4), if that was to be explained and was taken."""
        if self.sums is None or (self.found_inf is not None and self.found_inf.item()):
            return {}
        by_block = self.sums.double().view(self.replicas, self.work.blocks_a_row, 4)
        totals = by_block.new_zeros(self.replicas, len(self.entries), 4)
        totals.index_add_(1, self.work.tensor_of_block.long(), by_block)
        took_part = self.present or [True] * len(self.entries)
        return {e.param: totals[:, i].contiguous() for i, e in enumerate(self.entries) if took_part[i]}

    def _count(self, found_inf: Tensor | None) -> None:
        """Count one step of those that have a gradient, none where ``found_inf``, which a scaler adds up over devices,
        is above 0. A count that was changed from outside is believed."""
        if self.flags.counts_on_device:
            one = 1 if found_inf is None else (found_inf == 0).to(self.device, self.steps.dtype).squeeze()
            self.steps.add_(one if self.present is None else one * (self.table[Column.GRAD] != ABSENT))
            return
        if self.present is not None:
            self.steps.add_(torch.tensor(self.present, device="cpu"))
        if self.present is not None or self.ticks == 2**20 or self.counts.tobytes() != self.counted:
            self.ticks = 0.0
            self._upload(self.offsets, self.steps)
        if self.present is None:
            self.counts += 1
            self.ticks += 1
        self.counted = self.counts.tobytes()

    def _place_gradients(self) -> tuple[Gradients, list[Tensor | None]]:
        """Write the gradients' addresses; return what was found, and the tensors, which must live until the launch.

        A gradient of another layout than its parameter's, or whose sign or conjugate is still to be taken, is copied
        into that layout. The rows of a parameter without one have no elements.
        """
        found = self.watch.take()
        grads, places = found.all, found.places
        if not found.ordinary:
            grads = [g if g is None else self._laid_out(g, e) for g, e in zip(grads, self.entries, strict=True)]
            places = [ABSENT if g is None else g.data_ptr() for g in grads]
        if found.mask != self.present:
            self.present = found.mask
            self._write(Column.LENGTH, self.lengths if found.mask is None else self.lengths * np.array(found.mask))
        if places != self.gradients:
            self.gradients = places
            self._write(Column.GRAD, np.array(places, dtype=np.int64))
        return found, grads

    def _laid_out(self, grad: Tensor, entry: Entry) -> Tensor:
        param = local(entry.param)
        if as_stored(grad) and grad.stride() == param.stride():
            return grad
        return torch.empty_like(param, dtype=grad.dtype).copy_(grad)

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Zeros at first, then the same memory at every step."""
        if name not in self.buffers:
            self.buffers[name] = torch.zeros(shape, dtype=dtype, device=self.device)
        return self.buffers[name]

    def _write(self, column: int, values: np.ndarray) -> None:
        if not np.array_equal(self.host[column], values):
            self.host[column] = values
            self._upload(self.table[column], torch.from_numpy(values))

    def _upload(self, target: Tensor, values: Tensor) -> None:
        if not capturing(self.device):
            # Pinned, the copy waits for nothing; torch hands the pinned memory out again when the copy has been made.
            pinned = self.device.type == "cuda"
            target.copy_(values.pin_memory() if pinned else values, non_blocking=pinned)
        elif not self.captured:
            staged = self.staged[
                0 if target is self.coefficients.numbers else 1 + target.storage_offset() // len(target)
            ]
            target.copy_(staged.copy_(values), non_blocking=True)
        else:
            raise RuntimeError(
                "step() is recorded into a CUDA graph a second time with gradients or numbers that moved in between; "
                "take a step outside of a graph between the two"
            )
