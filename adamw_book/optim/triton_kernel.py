"""The update as one Triton kernel over a work table: one launch for all tensors, each program one block of one row.

A row is what shares its coefficients: a whole tensor, or one replica's part of it. A row of an ensemble starts wherever
the one before it ended, so blocks are laid on the grid of 16-byte vectors of the *tensor*: the blocks inside a row are
aligned and full and take 128-bit accesses; only the ends of a row carry masks, whose bounds, read at run time, would
rule those out.
"""

from contextlib import nullcontext

import torch
import triton
import triton.language as tl

from .layout import VECTOR, Column, WorkTable
from .triton_rule import divide, rounded, rule, update

# Without contraction the kernel rounds where triton_rule.py says so, whatever a version of Triton takes for granted.
OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}
PIECE = 256  # elements that the ends of a row take at a time: two a thread
DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float64: tl.float64}

PARAM, GRAD, EXP_AVG = (
    tl.constexpr(int(Column.PARAM)),
    tl.constexpr(int(Column.GRAD)),
    tl.constexpr(int(Column.EXP_AVG)),
)
EXP_AVG_SQ, LARGEST = tl.constexpr(int(Column.EXP_AVG_SQ)), tl.constexpr(int(Column.MAX_EXP_AVG_SQ))
LENGTH, FIRST_BLOCK = tl.constexpr(int(Column.LENGTH)), tl.constexpr(int(Column.FIRST_BLOCK))
_VECTOR = tl.constexpr(VECTOR)


@triton.jit
def locate(table, tensor_of_block, tensors, blocks_a_row, program, BLOCK: tl.constexpr):
    """Program → its tensor's entry, its row, that row's first and last element and the first of its block."""
    row = (program // blocks_a_row).to(tl.int64)
    block = program % blocks_a_row
    entry = table + tl.load(tensor_of_block + block)
    length = tl.load(entry + LENGTH * tensors)
    low = row * length
    block -= tl.load(entry + FIRST_BLOCK * tensors).to(tl.int32)
    return entry, row, low, low + length, low // _VECTOR * _VECTOR + block.to(tl.int64) * BLOCK


@triton.jit
def fetch(
    param_ptr, grad_ptr, exp_avg_ptr, exp_avg_sq_ptr, largest_ptr, places, mask,
    AMSGRAD: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """θ, g, m, v and, with AMSGrad, the largest v, of some elements."""
    grad = tl.load(grad_ptr + places, mask).to(COMPUTE)
    param = tl.load(param_ptr + places, mask).to(COMPUTE)
    exp_avg = tl.load(exp_avg_ptr + places, mask).to(COMPUTE)
    exp_avg_sq = tl.load(exp_avg_sq_ptr + places, mask).to(COMPUTE)
    largest = exp_avg_sq
    if AMSGRAD:
        largest = tl.load(largest_ptr + places, mask).to(COMPUTE)
    return param, grad, exp_avg, exp_avg_sq, largest


@triton.jit
def finish(
    param_ptr, grad_ptr, exp_avg_ptr, exp_avg_sq_ptr, largest_ptr, places, mask,
    param, grad, exp_avg, exp_avg_sq, largest, position,
    seed, decay, step_size, inverse_root, new1, new2, eps, l2, grad_scale, clip,
    AMSGRAD: tl.constexpr, MAXIMIZE: tl.constexpr, CAUTIOUS: tl.constexpr, STOCHASTIC: tl.constexpr,
    SCALED: tl.constexpr, CLIPPED: tl.constexpr,
):  # fmt: skip
    """Update and write them; return the decay step and the gradient step. ``position``: of place 0 in its row."""
    if SCALED:
        grad = divide(grad, grad_scale)
        tl.store(grad_ptr + places, grad.to(grad_ptr.dtype.element_ty), mask)
    if CLIPPED:
        grad *= clip
    if MAXIMIZE:
        grad = -grad
    exp_avg, exp_avg_sq, largest, decay_step, gradient_step = update(
        param, grad, exp_avg, exp_avg_sq, largest, decay, step_size, inverse_root, new1, new2, eps, l2,
        AMSGRAD, CAUTIOUS,
    )  # fmt: skip
    new = (param - decay_step) - gradient_step
    tl.store(param_ptr + places, rounded(new, position + places, seed, param_ptr.dtype.element_ty, STOCHASTIC), mask)
    tl.store(exp_avg_ptr + places, exp_avg.to(exp_avg_ptr.dtype.element_ty), mask)
    tl.store(exp_avg_sq_ptr + places, exp_avg_sq.to(exp_avg_sq_ptr.dtype.element_ty), mask)
    if AMSGRAD:
        tl.store(largest_ptr + places, largest.to(largest_ptr.dtype.element_ty), mask)
    return decay_step, gradient_step


@triton.jit(do_not_specialize=["tensors", "blocks_a_row"])
def adamw_kernel(
    table, tensor_of_block, tensors, blocks_a_row, ticks, grad_scale_ptr, found_inf_ptr, squares_ptr, max_norm,
    sums_ptr,
    PARAM_DTYPE: tl.constexpr, GRAD_DTYPE: tl.constexpr, STATE_DTYPE: tl.constexpr, STEP_DTYPE: tl.constexpr,
    COMPUTE: tl.constexpr, AMSGRAD: tl.constexpr, MAXIMIZE: tl.constexpr, CAUTIOUS: tl.constexpr,
    STOCHASTIC: tl.constexpr, SCALED: tl.constexpr, SKIPPABLE: tl.constexpr, CLIPPED: tl.constexpr,
    EXPLAIN: tl.constexpr, BLOCK: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """Program i updates block i % blocks_a_row of row i // blocks_a_row.

    ``table`` is (columns, tensors). ``ticks`` is added to every step count, so that counts kept on the host need no
    upload. A ``found_inf`` other than 0 leaves everything as it was. ``squares`` holds each row's sum of squared
    gradients, for clipping; ``sums`` takes Σθ², Σd², Σu², Σdu of each program's block, d and u being the two steps.
    """
    if SKIPPABLE:
        if tl.load(found_inf_ptr) != 0:
            return
    program = tl.program_id(0)
    entry, row, low, high, begin = locate(table, tensor_of_block, tensors, blocks_a_row, program, BLOCK)
    param_address = tl.load(entry + PARAM * tensors)
    grad_address = tl.load(entry + GRAD * tensors)
    exp_avg_address = tl.load(entry + EXP_AVG * tensors)
    exp_avg_sq_address = tl.load(entry + EXP_AVG_SQ * tensors)
    largest_address = tl.load(entry + LARGEST * tensors)
    param_ptr = param_address.to(tl.pointer_type(PARAM_DTYPE)) + begin
    grad_ptr = grad_address.to(tl.pointer_type(GRAD_DTYPE)) + begin
    exp_avg_ptr = exp_avg_address.to(tl.pointer_type(STATE_DTYPE)) + begin
    exp_avg_sq_ptr = exp_avg_sq_address.to(tl.pointer_type(STATE_DTYPE)) + begin
    largest_ptr = largest_address.to(tl.pointer_type(STATE_DTYPE)) + begin
    sums_ptr += program * 4
    aligned = ((param_address | grad_address | exp_avg_address | exp_avg_sq_address | largest_address) % 16) == 0
    if aligned & (begin >= low) & (begin + BLOCK <= high):
        # Every block inside a row. The data are asked for before the coefficients, so that the two waits overlap.
        places = tl.arange(0, BLOCK)
        param_ptr, grad_ptr = tl.multiple_of(param_ptr, 16), tl.multiple_of(grad_ptr, 16)
        exp_avg_ptr, exp_avg_sq_ptr = tl.multiple_of(exp_avg_ptr, 16), tl.multiple_of(exp_avg_sq_ptr, 16)
        largest_ptr = tl.multiple_of(largest_ptr, 16)
        param, grad, exp_avg, exp_avg_sq, largest = fetch(
            param_ptr, grad_ptr, exp_avg_ptr, exp_avg_sq_ptr, largest_ptr, places, None, AMSGRAD, COMPUTE
        )
        seed, decay, step_size, inverse_root, new1, new2, eps, l2, grad_scale, clip = rule(
            entry, tensors, row, ticks, grad_scale_ptr, squares_ptr, max_norm, STEP_DTYPE, COMPUTE, SCALED, CLIPPED
        )
        decay_step, gradient_step = finish(
            param_ptr, grad_ptr, exp_avg_ptr, exp_avg_sq_ptr, largest_ptr, places, None,
            param, grad, exp_avg, exp_avg_sq, largest, begin - low,
            seed, decay, step_size, inverse_root, new1, new2, eps, l2, grad_scale, clip,
            AMSGRAD, MAXIMIZE, CAUTIOUS, STOCHASTIC, SCALED, CLIPPED,
        )  # fmt: skip
        if EXPLAIN:
            tl.store(sums_ptr, tl.sum(param * param))
            tl.store(sums_ptr + 1, tl.sum(decay_step * decay_step))
            tl.store(sums_ptr + 2, tl.sum(gradient_step * gradient_step))
            tl.store(sums_ptr + 3, tl.sum(decay_step * gradient_step))
    else:
        # The ends of a row, and tensors that do not start on the grid: as far as the row goes, in pieces.
        seed, decay, step_size, inverse_root, new1, new2, eps, l2, grad_scale, clip = rule(
            entry, tensors, row, ticks, grad_scale_ptr, squares_ptr, max_norm, STEP_DTYPE, COMPUTE, SCALED, CLIPPED
        )
        if EXPLAIN:
            params2 = tl.zeros([PIECE], COMPUTE)
            decays2 = tl.zeros([PIECE], COMPUTE)
            gradients2 = tl.zeros([PIECE], COMPUTE)
            products = tl.zeros([PIECE], COMPUTE)
        last = tl.minimum(high - begin, BLOCK).to(tl.int32)
        for first in range(tl.maximum(low - begin, 0).to(tl.int32), last, PIECE):
            places = first + tl.arange(0, PIECE)
            mask = places < last
            param, grad, exp_avg, exp_avg_sq, largest = fetch(
                param_ptr, grad_ptr, exp_avg_ptr, exp_avg_sq_ptr, largest_ptr, places, mask, AMSGRAD, COMPUTE
            )
            decay_step, gradient_step = finish(
                param_ptr, grad_ptr, exp_avg_ptr, exp_avg_sq_ptr, largest_ptr, places, mask,
                param, grad, exp_avg, exp_avg_sq, largest, begin - low,
                seed, decay, step_size, inverse_root, new1, new2, eps, l2, grad_scale, clip,
                AMSGRAD, MAXIMIZE, CAUTIOUS, STOCHASTIC, SCALED, CLIPPED,
            )  # fmt: skip
            if EXPLAIN:
                params2 += tl.where(mask, param * param, 0.0)
                decays2 += tl.where(mask, decay_step * decay_step, 0.0)
                gradients2 += tl.where(mask, gradient_step * gradient_step, 0.0)
                products += tl.where(mask, decay_step * gradient_step, 0.0)
        if EXPLAIN:
            tl.store(sums_ptr, tl.sum(params2))
            tl.store(sums_ptr + 1, tl.sum(decays2))
            tl.store(sums_ptr + 2, tl.sum(gradients2))
            tl.store(sums_ptr + 3, tl.sum(products))


@triton.jit(do_not_specialize=["tensors", "blocks_a_row", "programs"])
def squares_kernel(
    table, tensor_of_block, tensors, blocks_a_row, programs, partial_ptr, arrived_ptr, squares_ptr,
    GRAD_DTYPE: tl.constexpr, COMPUTE: tl.constexpr, BLOCK: tl.constexpr, PIECE: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    """The sum of squared gradients of each row, in one launch and always in the same order.

    Program i takes every ``programs``-th block of row i // programs; the last one of a row to arrive adds the parts up.
    """
    program = tl.program_id(0)
    row = program // programs
    total = tl.zeros([BLOCK], COMPUTE)
    ends = tl.zeros([PIECE], COMPUTE)
    for block in range(program % programs, blocks_a_row, programs):
        entry, _, low, high, begin = locate(
            table, tensor_of_block, tensors, blocks_a_row, row * blocks_a_row + block, BLOCK
        )
        address = tl.load(entry + GRAD * tensors)
        grad_ptr = address.to(tl.pointer_type(GRAD_DTYPE)) + begin
        if (address % 16 == 0) & (begin >= low) & (begin + BLOCK <= high):
            grad = tl.load(tl.multiple_of(grad_ptr, 16) + tl.arange(0, BLOCK)).to(COMPUTE)
            total += grad * grad
        else:
            last = tl.minimum(high - begin, BLOCK).to(tl.int32)
            for first in range(tl.maximum(low - begin, 0).to(tl.int32), last, PIECE):
                places = first + tl.arange(0, PIECE)
                grad = tl.load(grad_ptr + places, places < last, 0.0).to(COMPUTE)
                ends += grad * grad
    tl.store(partial_ptr + program, tl.sum(total) + tl.sum(ends))
    if tl.atomic_add(arrived_ptr + row, 1, sem="acq_rel") == programs - 1:
        others = tl.arange(0, MOST)
        parts = tl.load(partial_ptr + row * programs + others, others < programs, 0.0, cache_modifier=".cg")
        tl.store(squares_ptr + row, tl.sum(parts))
        tl.store(arrived_ptr + row, 0)


def launch(
    work: WorkTable,
    ticks: float,
    sums: torch.Tensor,
    *,
    explain: bool = False,
    grad_scale: torch.Tensor | None = None,
    found_inf: torch.Tensor | None = None,
    squares: torch.Tensor | None = None,
    max_norm: float = 0.0,
) -> None:
    """Run the update over one work table.

    ticks: steps to be added to the counts that the table leads to. sums: (programs, 4) in the table's compute dtype,
    filled where ``explain``, any tensor of that dtype else. grad_scale, found_inf: a gradient scaler's 1-element
    float32 tensors. squares: each row's sum of squared gradients (R,), to clip with ``max_norm``.
    """
    device = work.table.device
    grad_scale, found_inf = (t if t is None else t.to(device) for t in (grad_scale, found_inf))
    param, grad, state, step = (DTYPES[d] for d in work.dtypes)
    with _on(device):
        adamw_kernel[(work.programs,)](
            work.table, work.tensor_of_block, work.table.shape[1], work.blocks_a_row, ticks,
            grad_scale, found_inf, squares, max_norm, sums,
            PARAM_DTYPE=param, GRAD_DTYPE=grad, STATE_DTYPE=state, STEP_DTYPE=step, COMPUTE=DTYPES[work.compute_dtype],
            AMSGRAD=work.flags.amsgrad, MAXIMIZE=work.flags.maximize, CAUTIOUS=work.flags.cautious,
            STOCHASTIC=work.flags.stochastic_rounding and param == tl.bfloat16,
            SCALED=grad_scale is not None, SKIPPABLE=found_inf is not None, CLIPPED=squares is not None,
            EXPLAIN=explain, BLOCK=work.block, PIECE=PIECE, **OPTIONS,
        )  # fmt: skip


def sum_of_squares(work: WorkTable, partial: torch.Tensor, arrived: torch.Tensor, squares: torch.Tensor) -> None:
    """Write each row's sum of squared gradients to ``squares`` (R,).

    partial: (R, programs), scratch in the kernel's dtype. arrived: (R,) int32, zero before and after.
    """
    rows, programs = partial.shape
    with _on(work.table.device):
        squares_kernel[(rows * programs,)](
            work.table, work.tensor_of_block, work.table.shape[1], work.blocks_a_row, programs,
            partial, arrived, squares,
            GRAD_DTYPE=DTYPES[work.dtypes[1]], COMPUTE=DTYPES[work.compute_dtype], BLOCK=work.block, PIECE=PIECE,
            MOST=triton.next_power_of_2(programs), **OPTIONS,
        )  # fmt: skip


def _on(device: torch.device):
    """Triton launches on the current device, which need not be the parameters'."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
