"""What the Triton kernel computes: the coefficients of a row, the update of its elements, and how they are rounded.

A variant of the optimizer changes ``update``; where the elements lie and how they are read is the business of
triton_kernel.py. Division and root are the correctly rounded ones. The kernel is compiled without contraction of
products and sums, so that it rounds where the lines below say so, and a product and a sum in one rounding is written
``tl.fma``.
"""

import triton
import triton.language as tl

from .layout import Column

LR, WEIGHT_DECAY = tl.constexpr(int(Column.LR)), tl.constexpr(int(Column.WEIGHT_DECAY))
DECAY_RATE, L2 = tl.constexpr(int(Column.DECAY_RATE)), tl.constexpr(int(Column.L2))
MOMENTS, STEP = tl.constexpr(int(Column.MOMENTS)), tl.constexpr(int(Column.STEP))
INDEX = tl.constexpr(int(Column.INDEX))


@triton.jit
def one_minus_exp(x):
    """1 − eˣ for x ≤ 0. Near 0 the difference would cancel, so its series is taken, as far as the dtype needs it."""
    series = 1 + x * (1 / 7) * (1 + x * (1 / 8))
    series = 1 + x * (1 / 4) * (1 + x * (1 / 5) * (1 + x * (1 / 6) * series))
    series = -x * (1 + x * (1 / 2) * (1 + x * (1 / 3) * series))
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
def finite(x):
    """x, an infinite one brought back to the largest number."""
    if x.dtype == tl.float32:
        return tl.clamp(x, -3.4028234663852886e38, 3.4028234663852886e38)
    else:
        largest = 1.7976931348623157e308  # tl.clamp is compiled for no GPU in float64
        return tl.where(x > largest, largest, tl.where(x < -largest, -largest, x))


@triton.jit
def coefficient(entry, tensors, row, column: tl.constexpr, COMPUTE: tl.constexpr):
    """A number (stride 0) or this row's element of a vector, read where its tensor lives."""
    address = tl.load(entry + column * tensors).to(tl.pointer_type(COMPUTE))
    return tl.load(address + row * tl.load(entry + (column + 1) * tensors))


@triton.jit
def rule(
    entry, tensors, row, ticks, grad_scale_ptr, squares_ptr, max_norm,
    STEP_DTYPE: tl.constexpr, COMPUTE: tl.constexpr, SCALED: tl.constexpr, CLIPPED: tl.constexpr,
):  # fmt: skip
    """What all elements of a row share: random bits of step and tensor, the decay's share, η/(1 − β₁ᵗ), 1/√(1 − β₂ᵗ),
    1 − β₁, 1 − β₂, ε, ℓ, the gradients' scale and the factor that clips them."""
    count = tl.load(tl.load(entry + STEP * tensors).to(tl.pointer_type(STEP_DTYPE))) + ticks
    seed = count.to(tl.int64).to(tl.uint32) * 0x9E3779B1
    seed += tl.load(entry + INDEX * tensors).to(tl.uint32) * 0x85EBCA77
    step = count.to(COMPUTE)
    lr = coefficient(entry, tensors, row, LR, COMPUTE)
    decay = coefficient(entry, tensors, row, WEIGHT_DECAY, COMPUTE)
    decay *= coefficient(entry, tensors, row, DECAY_RATE, COMPUTE)
    l2 = coefficient(entry, tensors, row, L2, COMPUTE)
    moments = tl.load(entry + MOMENTS * tensors).to(tl.pointer_type(COMPUTE))
    moments += row * tl.load(entry + (MOMENTS + 1) * tensors)
    one = 1.0 + 0 * lr
    step_size = divide(lr, one_minus_exp(step * tl.load(moments + 2)))
    inverse_root = divide(one, root(one_minus_exp(step * tl.load(moments + 3))))
    grad_scale, clip = one, one
    if SCALED:
        grad_scale = tl.load(grad_scale_ptr).to(COMPUTE)
    if CLIPPED:
        norm = divide(root(tl.load(squares_ptr + row).to(COMPUTE)), grad_scale)
        clip = tl.minimum(divide(max_norm * one, norm + 1e-6), one, propagate_nan=tl.PropagateNan.ALL)
    new1, new2, eps = tl.load(moments), tl.load(moments + 1), tl.load(moments + 4)
    return seed, decay, step_size, inverse_root, new1, new2, eps, l2, grad_scale, clip


@triton.jit
def update(
    param, grad, exp_avg, exp_avg_sq, largest, decay, step_size, inverse_root, new1, new2, eps, l2,
    AMSGRAD: tl.constexpr, CAUTIOUS: tl.constexpr,
):  # fmt: skip
    """The equations: the new moments, and the two steps that param is to lose."""
    grad = tl.where(l2 != 0, tl.fma(param, l2, grad), grad)  # 0·∞ would not be 0
    exp_avg = tl.fma(grad, new1, exp_avg * (1 - new1))
    exp_avg_sq = tl.fma(grad * new2, grad, exp_avg_sq * (1 - new2))
    if AMSGRAD:
        largest = tl.maximum(largest, exp_avg_sq, propagate_nan=tl.PropagateNan.ALL)
    else:
        largest = exp_avg_sq
    denominator = tl.fma(root(largest), inverse_root, eps)
    gradient_step = divide(exp_avg, denominator) * step_size
    decay_step = decay * finite(param)  # ∞ − ∞ would not be ∞
    if CAUTIOUS:
        decay_step = tl.where(exp_avg * param >= 0, decay_step, 0.0)
    return exp_avg, exp_avg_sq, largest, decay_step, gradient_step


@triton.jit
def rounded(x, position, seed, DTYPE: tl.constexpr, STOCHASTIC: tl.constexpr):
    """x in DTYPE, to nearest; or up with the probability that makes the mean right. The bits are a hash of where
    and when.
    """
    if STOCHASTIC:
        bits = position.to(tl.uint32) ^ seed
        bits = (bits ^ (bits >> 16)) * 0x7FEB352D
        bits = (bits ^ (bits >> 15)) * 0x846CA68B
        bits = bits ^ (bits >> 16)
        number = x.to(tl.uint32, bitcast=True)
        is_finite = (number & 0x7F800000) != 0x7F800000
        up = ((number + (bits & 0xFFFF)) & 0xFFFF0000).to(tl.float32, bitcast=True)
        x = tl.where(is_finite, up, x)
    return x.to(DTYPE)
