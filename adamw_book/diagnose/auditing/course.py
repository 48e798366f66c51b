"""What a sequence of learning rates makes of a weight: the arithmetic that every audit rests on."""

from __future__ import annotations

import math

import numpy as np

from adamw_book.arguments import whole
from adamw_book.schedules import SCHEDULES, learning_rate_factors

MOST_STEPS = 10_000_000
FALLING = ("linear", "cosine")  # the schedules that may end above 0


def number(name: str, value, least: float, below: float = math.inf, needed: str = "") -> float:
    """``value`` as a float. Raises ``ValueError``, which names it and what is ``needed``, where it is no number in
    ``least`` ≤ value < ``below``."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not least <= found < below:
        raise ValueError(f"{name}: {value}; {needed} is needed")
    return found


def above_zero(name: str, value) -> float:
    """``value`` as a float; ``ValueError`` where it is no finite number above 0."""
    return number(name, value, math.ulp(0.0), needed="a finite number above 0")


def named_factors(schedule: str, steps: int, warmup: int = 0, final: float = 0.0) -> np.ndarray:
    """The factors (steps,) by which a schedule of :mod:`adamw_book.schedules` multiplies the peak rate.

    warmup: steps, not a share, of a straight climb before the schedule begins. final: the share of the peak rate at
    which "linear" and "cosine" end. Step t is taken at progress (t + ½) / steps, half a step later than torch's
    schedulers take it. Raises ``ValueError`` for what does not fit.
    """
    if not isinstance(schedule, str):
        raise ValueError(f"schedule: {schedule!r}; one of the names {', '.join(map(repr, SCHEDULES))} is needed")
    steps = whole("steps", steps, 1, MOST_STEPS, f"a whole number from 1 to {MOST_STEPS:,}")
    warmup = whole("warmup", warmup, 0, steps - 1, f"a whole number of steps, fewer than the {steps} of the run,")
    final = number("final", final, 0, math.nextafter(1, 2), "a share of the peak rate, from 0 to 1,")
    factors = learning_rate_factors(schedule, steps, warmup / steps)
    if final:
        if schedule not in FALLING:
            raise ValueError(f"final: {final} with the schedule {schedule!r}; it fits {' and '.join(FALLING)} only")
        factors[warmup:] = final + (1 - final) * factors[warmup:]
    return factors


def sizes(batch_size, dataset_size) -> float | None:
    """Epochs a step: batch_size / dataset_size, or None where neither is given. Raises ``ValueError`` for one without
    the other, and for what cannot be a size."""
    if (batch_size is None) != (dataset_size is None):
        given, other = ("batch_size", "dataset_size") if dataset_size is None else ("dataset_size", "batch_size")
        raise ValueError(f"{other}: None, beside {given}; epochs need both, or leave out both")
    if batch_size is None:
        return None
    dataset_size = whole("dataset_size", dataset_size)
    needed = f"a whole number of examples, at most the data set's {dataset_size},"
    return whole("batch_size", batch_size, 1, dataset_size, needed) / dataset_size


def finite(value: float) -> float | None:
    """``value``, or None where it has grown beyond all numbers: JSON has no infinity."""
    return float(value) if math.isfinite(value) else None


def course(rates: np.ndarray, shares: np.ndarray, epochs_per_step: float | None = None) -> dict:
    """What a run leaves of a weight from which decay takes the share ``shares[t]`` = η_tλ at step t (closed form F1 of
    the chapter on decoupled decay: ∏(1 − η_tλ)).

    rates, shares: (T,). The peak is the first step with the largest rate. Keys and what None means: see
    :func:`adamw_book.diagnose.audit_numbers`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        left = np.cumprod(1 - shares)
    climb, total = int(rates.argmax()), float(shares.sum())
    halved = np.flatnonzero(left <= 0.5)
    return {
        "remaining": finite(left[-1]),
        "remaining_after_warmup": finite(left[climb - 1]) if climb else 1.0,
        "warmup_steps": climb,
        "warmup_share": float(shares[:climb].sum()) / total if total else None,
        "half_left_after": int(halved[0]) + 1 if len(halved) else None,
        "timescales_in_run": total,
        "epochs": len(rates) * epochs_per_step if epochs_per_step else None,
    }


def at_peak(rate: float, share: float, beta1: float = 0.9, epochs_per_step: float | None = None) -> dict:
    """What a constant rate η = ``rate`` whose decay takes ``share`` = ηλ a step tends to: closed forms F4 (the noise
    floor) and F10 (the rotation; Kosson et al., 2024), good where 1/(ηλ) is well above 1/(1−β₁) steps. Keys and what
    None means: see :func:`adamw_book.diagnose.audit_numbers`."""
    timescale = 1 / share if share else None
    defined = 0 < share < 1
    return {
        "timescale_steps": timescale,
        "timescale_epochs": timescale * epochs_per_step if share and epochs_per_step else None,
        "half_life_steps": -math.log(2) / math.log1p(-share) if defined else None,
        "noise_floor": rate / math.sqrt(2 * share) if defined else None,
        "rotation_per_step": math.sqrt(2 * share * (1 - beta1) / (1 + beta1)) if share < 1 else None,
    }
