"""The exercises of the chapter on the Triton kernel. Nothing is tuned there, so no winner is near-tied."""

from __future__ import annotations

from . import exercise
from .answers import ask, near, number


@exercise
def master_weights(moved: float) -> str:
    """Bytes a parameter that a step moves with a float32 master copy beside bfloat16 parameters and gradients."""
    slips = {
        14.0: "That is read or written alone: the master copy and the moments are both.",
        26.0: "One of the five tensors is written and never read, and one is read and never written: are both counted?",
        30.0: "The bfloat16 parameter need not be read: it is rounded from the master copy.",
    }
    near(number(moved, "moved"), (2 + 4 + 2 * 4) + (2 + 4 + 2 * 4), "moved", 0.001, slips)
    return "As many as in plain float32."


@exercise
def roofline(milliseconds: float) -> str:
    """The least time of a step of 10⁹ float32 parameters at 3.35 TB/s."""
    right = 28 * 1e9 / 3.35e12 * 1e3
    slips = {
        right / 1e3: "That is in seconds.",
        right * 4 / 7: "Three tensors are written as well.",
        right / 7: "Seven tensors are moved, not one.",
    }
    near(number(milliseconds, "milliseconds"), right, "milliseconds", 0.02, slips)
    return "No kernel is faster than its memory traffic."


@exercise
def sixteen_bytes(loads: float, stores: float) -> str:
    """Wide accesses a thread, for 1,024 elements, 128 threads and everything in bfloat16."""
    each = 1024 // 128 * 2 // 16
    near(number(loads, "loads"), 4 * each, "loads", 0.001, {8.0 * each: "An element has two bytes, and an access 16."})
    near(number(stores, "stores"), 3 * each, "stores", 0.001, {4.0 * each: "The gradient is not written."})
    return "Eight elements of two bytes are one access."


@exercise
def stuck(smallest: float) -> str:
    """The smallest β₂ (to three digits) at which v = 1 in bfloat16 never falls, where gradients are zero."""
    value = number(smallest, "smallest")
    ask(value < 1, "At β₂ = 1 nothing moves in any format. Where does rounding to the nearest begin to undo the step?")
    ask(value > 0.5, "`smallest` is far too small: at such a β₂ the product is another bfloat16 number.")
    near(value, 1 - 2**-9, "smallest", 0.0006)
    return "bfloat16 numbers below 1 are 2⁻⁸ apart: a step of less than half of that is rounded away."
