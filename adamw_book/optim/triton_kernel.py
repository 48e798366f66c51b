"""The update as one Triton kernel over a work table: one launch for all tensors, each program one block of one row.

A row is what shares its coefficients: a whole tensor, or one replica's part of it. A row of an ensemble starts
wherever the one before it ended, so blocks are laid on the grid of 16-byte vectors of the *tensor*: the blocks inside
a row are aligned and full, and only the first and the last carry masks. Full blocks take 128-bit accesses; masks with
a bound read at run time would rule those out.
"""

from contextlib import nullcontext

import torch
import triton
import triton.language as tl

from .work_table import BLOCK, VECTOR, Column, Launch

WARPS = 4
DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float64: tl.float64}

PARAM, GRAD, EXP_AVG, EXP_AVG_SQ, LARGEST = (
    tl.constexpr(int(c)) for c in (Column.PARAM, Column.GRAD, Column.EXP_AVG, Column.EXP_AVG_SQ, Column.MAX_EXP_AVG_SQ)
)
LENGTH, FIRST_BLOCK, BLOCKS_A_ROW = (
    tl.constexpr(int(c)) for c in (Column.LENGTH, Column.FIRST_BLOCK, Column.BLOCKS_A_ROW)
)
LR, WEIGHT_DECAY, L2 = (tl.constexpr(int(c)) for c in (Column.LR, Column.WEIGHT_DECAY, Column.L2))
MOMENTS, STEP = tl.constexpr(int(Column.MOMENTS)), tl.constexpr(int(Column.STEP))
_BLOCK, _VECTOR = tl.constexpr(BLOCK), tl.constexpr(VECTOR)


@triton.jit
def one_minus_exp(x):
    """1 − eˣ for x ≤ 0. Near 0 the difference would cancel, so its series is taken, as far as the dtype needs it."""
    series = -x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6 * (1 + x / 7 * (1 + x / 8)))))))
    if x.dtype == tl.float32:
        return tl.where(x > -0.35, series, 1 - tl.exp(x))
    else:
        return tl.where(x > -0.01, series, 1 - tl.exp(x))


@triton.jit
def divide(x, y):
    """x / y, correctly rounded: Triton's own ``/`` is an approximation in float32."""
    if x.dtype == tl.float32:
        return tl.div_rn(x, y)
    else:
        return x / y


@triton.jit
def root(x):
    """√x, correctly rounded."""
    if x.dtype == tl.float32:
        return tl.sqrt_rn(x)
    else:
        return tl.sqrt(x)


@triton.jit
def update(
    param, grad, exp_avg, exp_avg_sq, largest, keep, step_size, inverse_root, new1, new2, eps, l2, AMSGRAD: tl.constexpr
):
    """The equations, for one block: ``new1`` and ``new2`` are 1 − β₁ and 1 − β₂, ``inverse_root`` is 1/√(1 − β₂ᵗ)."""
    grad = tl.fma(param, l2, grad)
    exp_avg = tl.fma(grad, new1, exp_avg * (1 - new1))
    exp_avg_sq = tl.fma(grad * new2, grad, exp_avg_sq * (1 - new2))
    if AMSGRAD:
        largest = tl.maximum(largest, exp_avg_sq, propagate_nan=tl.PropagateNan.ALL)
    else:
        largest = exp_avg_sq
    denominator = tl.fma(root(largest), inverse_root, eps)
    param = tl.fma(divide(exp_avg, denominator), -step_size, keep * param)
    return param, exp_avg, exp_avg_sq, largest


@triton.jit
def adamw_block(
    param_ptr, grad_ptr, exp_avg_ptr, exp_avg_sq_ptr, largest_ptr, begin, low, high,
    keep, step_size, inverse_root, new1, new2, eps, l2, grad_scale,
    AMSGRAD: tl.constexpr, MAXIMIZE: tl.constexpr, SCALED: tl.constexpr, FULL: tl.constexpr,
    COMPUTE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Read, update and write elements begin … begin + BLOCK of a tensor, as far as they lie in the row low … high."""
    offsets = begin + tl.arange(0, BLOCK)
    if FULL:
        mask = None
    else:
        mask = (offsets >= low) & (offsets < high)
    grad = tl.load(grad_ptr + offsets, mask).to(COMPUTE)
    param = tl.load(param_ptr + offsets, mask).to(COMPUTE)
    exp_avg = tl.load(exp_avg_ptr + offsets, mask).to(COMPUTE)
    exp_avg_sq = tl.load(exp_avg_sq_ptr + offsets, mask).to(COMPUTE)
    largest = exp_avg_sq
    if AMSGRAD:
        largest = tl.load(largest_ptr + offsets, mask).to(COMPUTE)
    if SCALED:
        grad = divide(grad, grad_scale)
        tl.store(grad_ptr + offsets, grad.to(grad_ptr.dtype.element_ty), mask)
    if MAXIMIZE:
        grad = -grad
    param, exp_avg, exp_avg_sq, largest = update(
        param, grad, exp_avg, exp_avg_sq, largest, keep, step_size, inverse_root, new1, new2, eps, l2, AMSGRAD
    )
    tl.store(param_ptr + offsets, param.to(param_ptr.dtype.element_ty), mask)
    tl.store(exp_avg_ptr + offsets, exp_avg.to(exp_avg_ptr.dtype.element_ty), mask)
    tl.store(exp_avg_sq_ptr + offsets, exp_avg_sq.to(exp_avg_sq_ptr.dtype.element_ty), mask)
    if AMSGRAD:
        tl.store(largest_ptr + offsets, largest.to(largest_ptr.dtype.element_ty), mask)


@triton.jit
def coefficient(entry, tensors, row, column: tl.constexpr, COMPUTE: tl.constexpr):
    """A number (stride 0) or this row's element of a vector, read where its tensor lives."""
    address = tl.load(entry + column * tensors).to(tl.pointer_type(COMPUTE))
    return tl.load(address + row * tl.load(entry + (column + 1) * tensors))


@triton.jit(do_not_specialize=["tensors"])
def adamw_kernel(
    table, tensor_of_block, tensors, ticks, grad_scale_ptr, found_inf_ptr,
    PARAM_DTYPE: tl.constexpr, GRAD_DTYPE: tl.constexpr, STATE_DTYPE: tl.constexpr, STEP_DTYPE: tl.constexpr,
    COMPUTE: tl.constexpr,
    AMSGRAD: tl.constexpr, MAXIMIZE: tl.constexpr, SCALED: tl.constexpr, SKIPPABLE: tl.constexpr,
):  # fmt: skip
    """Program i updates block i. ``table`` is (columns, tensors); ``ticks`` is added to every step count, so that
    counts kept on the host need no upload. A ``found_inf`` other than 0 leaves everything as it was."""
    if SKIPPABLE:
        if tl.load(found_inf_ptr) != 0:
            return
    block = tl.program_id(0)
    entry = table + tl.load(tensor_of_block + block)
    param_address = tl.load(entry + PARAM * tensors)
    grad_address = tl.load(entry + GRAD * tensors)
    exp_avg_address = tl.load(entry + EXP_AVG * tensors)
    exp_avg_sq_address = tl.load(entry + EXP_AVG_SQ * tensors)
    largest_address = tl.load(entry + LARGEST * tensors)
    length = tl.load(entry + LENGTH * tensors)
    block -= tl.load(entry + FIRST_BLOCK * tensors).to(tl.int32)
    blocks_a_row = tl.load(entry + BLOCKS_A_ROW * tensors).to(tl.int32)
    row = (block // blocks_a_row).to(tl.int64)

    lr = coefficient(entry, tensors, row, LR, COMPUTE)
    weight_decay = coefficient(entry, tensors, row, WEIGHT_DECAY, COMPUTE)
    l2 = coefficient(entry, tensors, row, L2, COMPUTE)
    moments = tl.load(entry + MOMENTS * tensors).to(tl.pointer_type(COMPUTE)) + row * tl.load(
        entry + (MOMENTS + 1) * tensors
    )
    new1, new2, log1, log2, eps = (
        tl.load(moments), tl.load(moments + 1), tl.load(moments + 2), tl.load(moments + 3), tl.load(moments + 4)
    )  # fmt: skip
    step = tl.load(tl.load(entry + STEP * tensors).to(tl.pointer_type(STEP_DTYPE))).to(COMPUTE) + ticks
    step_size = divide(lr, one_minus_exp(step * log1))
    inverse_root = divide(1.0 + 0 * lr, root(one_minus_exp(step * log2)))
    keep = 1 - lr * weight_decay
    grad_scale = lr
    if SCALED:
        grad_scale = tl.load(grad_scale_ptr).to(COMPUTE)

    low = row * length
    high = low + length
    begin = low // _VECTOR * _VECTOR + (block % blocks_a_row).to(tl.int64) * _BLOCK
    aligned = ((param_address | grad_address | exp_avg_address | exp_avg_sq_address | largest_address) % 16) == 0
    if aligned & (begin >= low) & (begin + _BLOCK <= high):
        adamw_block(
            tl.multiple_of(param_address.to(tl.pointer_type(PARAM_DTYPE)), 16),
            tl.multiple_of(grad_address.to(tl.pointer_type(GRAD_DTYPE)), 16),
            tl.multiple_of(exp_avg_address.to(tl.pointer_type(STATE_DTYPE)), 16),
            tl.multiple_of(exp_avg_sq_address.to(tl.pointer_type(STATE_DTYPE)), 16),
            tl.multiple_of(largest_address.to(tl.pointer_type(STATE_DTYPE)), 16),
            tl.multiple_of(begin, 8), low, high, keep, step_size, inverse_root, new1, new2, eps, l2, grad_scale,
            AMSGRAD, MAXIMIZE, SCALED, True, COMPUTE, _BLOCK,
        )  # fmt: skip
    else:
        adamw_block(
            param_address.to(tl.pointer_type(PARAM_DTYPE)),
            grad_address.to(tl.pointer_type(GRAD_DTYPE)),
            exp_avg_address.to(tl.pointer_type(STATE_DTYPE)),
            exp_avg_sq_address.to(tl.pointer_type(STATE_DTYPE)),
            largest_address.to(tl.pointer_type(STATE_DTYPE)),
            begin, low, high, keep, step_size, inverse_root, new1, new2, eps, l2, grad_scale,
            AMSGRAD, MAXIMIZE, SCALED, False, COMPUTE, _BLOCK,
        )  # fmt: skip


def launch(work: Launch, grad_scale: torch.Tensor | None = None, found_inf: torch.Tensor | None = None) -> None:
    """Run the kernel over one work table. ``grad_scale`` and ``found_inf`` are a gradient scaler's 1-element
    float32 tensors.
    """
    grad_scale, found_inf = (t if t is None else t.to(work.device) for t in (grad_scale, found_inf))
    param, grad, state, step = (DTYPES[d] for d in work.dtypes)
    with torch.cuda.device(work.device) if work.device.type == "cuda" else nullcontext():
        adamw_kernel[(work.blocks,)](
            work.table, work.tensor_of_block, len(work.entries), work.ticks, grad_scale, found_inf,
            PARAM_DTYPE=param, GRAD_DTYPE=grad, STATE_DTYPE=state, STEP_DTYPE=step, COMPUTE=DTYPES[work.compute_dtype],
            AMSGRAD=work.amsgrad, MAXIMIZE=work.maximize, SCALED=grad_scale is not None, SKIPPABLE=found_inf is not
            None, num_warps=WARPS,
        )  # fmt: skip
