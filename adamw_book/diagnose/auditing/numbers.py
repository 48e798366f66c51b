"""The audit of a run that is described by numbers alone."""

from __future__ import annotations

from .course import above_zero, at_peak, course, named_factors, number, sizes
from .finding import of_course


def audit_numbers(
    lr: float,
    weight_decay: float,
    steps: int,
    schedule: str = "constant",
    warmup: int = 0,
    final: float = 0.0,
    batch_size: int | None = None,
    dataset_size: int | None = None,
    beta1: float = 0.9,
    gradient_rms: float | None = None,
) -> dict:
    """What AdamW's decay will do in a run of ``steps`` steps with the peak rate η = ``lr`` and λ = ``weight_decay``.

    schedule: a name in :data:`adamw_book.schedules.SCHEDULES`. warmup: steps of a straight climb before it. final: the
    share of ``lr`` at which "linear" and "cosine" end. gradient_rms: a typical √v̂, for ``comparable_l2``.

    Returns the arguments and, None where a value has no meaning:

    * ``remaining``: ∏(1 − η_tλ), the share of an initial weight that decay alone leaves; ``remaining_after_warmup``:
      at the peak of the rate, which step ``warmup_steps`` reaches; ``warmup_share``: the share of Ση_tλ before it.
    * ``timescale_steps``: 1/(ηλ); ``timescale_epochs``; ``timescales_in_run``: Ση_tλ; ``epochs``.
    * ``half_life_steps``: ln 2 / −ln(1 − ηλ), at the peak rate; ``half_left_after``: steps until half is left.
    * ``noise_floor``: √(η/2λ), the root mean square of a weight whose gradients are noise; ``rotation_per_step``:
      √(2ηλ)·√((1−β₁)/(1+β₁)), the angle (radians) by which scale-invariant weights turn, once in equilibrium (Kosson
      et al., 2024).
    * ``comparable_l2``: λ·√v̂, the coupled penalty that pulls as hard.
    * ``findings``: dicts of ``code``, ``severity`` ("error", "warning", "note"), ``text`` and ``fix``, worst first.

    Raises ``ValueError`` for an argument that cannot be.
    """
    lr = above_zero("lr", lr)
    weight_decay = number("weight_decay", weight_decay, 0, needed="a finite number of 0 or more")
    number("lr · weight_decay", lr * weight_decay, 0, 1e301, "a product that a float can hold")
    beta1 = number("beta1", beta1, 0, 1, "a number of 0 or more and less than 1")
    if gradient_rms is not None:
        gradient_rms = above_zero("gradient_rms", gradient_rms)
    epochs_per_step = sizes(batch_size, dataset_size)
    rates = lr * named_factors(schedule, steps, warmup, final)
    found = {
        "lr": lr,
        "weight_decay": weight_decay,
        "steps": len(rates),
        "schedule": schedule,
        "warmup": int(warmup),
        "final": float(final),
        "batch_size": batch_size,
        "dataset_size": dataset_size,
        "beta1": beta1,
        "gradient_rms": gradient_rms,
    }
    found |= course(rates, rates * weight_decay, epochs_per_step) | at_peak(
        lr, lr * weight_decay, beta1, epochs_per_step
    )
    found["comparable_l2"] = None if gradient_rms is None else weight_decay * gradient_rms
    findings = of_course(found, weight_decay, weight_decay * float(rates.max()), beta1)
    return found | {"findings": [finding.as_dict() for finding in findings]}
