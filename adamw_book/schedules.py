"""Learning-rate schedules by name: what the ensemble, the prescribed-gradient runs and the formulas multiply ``lr``
by; and how the decay of AdamW follows them."""

from numbers import Real

import numpy as np

from adamw_book.arguments import whole


def _constant(progress: np.ndarray) -> np.ndarray:
    return np.ones_like(progress)


def _linear(progress: np.ndarray) -> np.ndarray:
    return 1 - progress


def _cosine(progress: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.cos(np.pi * progress))


def _warmup_cosine(progress: np.ndarray, warmup: float = 0.1) -> np.ndarray:
    return np.where(progress < warmup, progress / warmup, _cosine((progress - warmup) / (1 - warmup)))


def _warmup_stable_decay(progress: np.ndarray, warmup: float = 0.1, decay: float = 0.2) -> np.ndarray:
    return np.minimum(1.0, np.minimum(progress / warmup, (1 - progress) / decay))


def _one_cycle(progress: np.ndarray, rise: float = 0.3, start: float = 1 / 25, end: float = 1 / 250_000) -> np.ndarray:
    up, down = _cosine(1 - progress / rise), _cosine((progress - rise) / (1 - rise))
    return np.where(progress < rise, start + (1 - start) * up, end + (1 - end) * down)


SCHEDULES = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "warm-up + cosine": _warmup_cosine,  # cosine with warmup=0.1
    "WSD": _warmup_stable_decay,  # warm-up over 10% of the steps, stable, linear decay over the last 20%
    "one-cycle": _one_cycle,  # torch's OneCycleLR: from 1/25 up over 30% of the steps, down to 1/250,000
}


def learning_rate_factors(schedule: str, steps: int, warmup: float = 0.0) -> np.ndarray:
    """The factors (steps,), above 0 and at most 1, by which a named schedule multiplies ``lr``: step t = 0 … steps−1
    is taken at progress (t + ½) / steps.

    warmup: the share of the steps over which the factor first climbs from 0 to 1 in a straight line; the named schedule
    runs over the rest, from its own beginning (which "WSD" and "one-cycle" have a climb of their own in). Raises
    ``ValueError`` for an unknown schedule, steps that are no whole number of 0 or more and a share outside 0 ≤ warmup
    < 1.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule: {schedule!r} is unknown; choose from {', '.join(map(repr, SCHEDULES))}")
    steps = whole("steps", steps, 0, needed="a whole number of 0 or more")
    if not isinstance(warmup, Real) or not 0 <= warmup < 1:
        raise ValueError(f"warmup: {warmup}; a share of the steps, from 0 to less than 1, is needed")
    progress = (np.arange(steps) + 0.5) / steps
    factors = SCHEDULES[schedule](np.clip((progress - warmup) / (1 - warmup), 0, None))
    return np.where(progress <= warmup, progress / warmup, factors) if warmup else factors


# What ``weight_decay`` is multiplied by where the schedule multiplies ``lr`` by f: a step takes the share (lr · f) ·
# (weight_decay · this) from a weight. The peak rate is ``lr`` itself.
DECAY_SCHEDULES = {
    "torch": np.ones_like,  # η_t λ, as torch's AdamW
    "constant": lambda factors: 1 / factors,  # η_max λ: the same share at every step, whatever the schedule
    "AdamC": lambda factors: factors,  # η_t² λ / η_max (Defazio, 2025, for weights in front of a normalisation)
}


def decay_factors(decay_schedule: str, factors: np.ndarray) -> np.ndarray:
    """The factors that ``weight_decay`` takes, for ``decay_schedule`` in ``DECAY_SCHEDULES``, while a schedule
    multiplies ``lr`` by ``factors``, of the same shape. Raises ``ValueError`` for an unknown name."""
    if decay_schedule not in DECAY_SCHEDULES:
        known = ", ".join(map(repr, DECAY_SCHEDULES))
        raise ValueError(f"decay_schedule: {decay_schedule!r} is unknown; choose from {known}")
    return DECAY_SCHEDULES[decay_schedule](np.asarray(factors, float))


def steps_and_shares(
    lr: float,
    weight_decay: float,
    steps: int,
    schedule: str = "constant",
    warmup: float = 0.0,
    decay_schedule: str = "torch",
) -> tuple[np.ndarray, np.ndarray]:
    """η_t and the share q_t = η_t λ_t that AdamW's decay takes from a weight, at each step, both (steps,). Raises as
    :func:`learning_rate_factors` and :func:`decay_factors` do."""
    factors = learning_rate_factors(schedule, steps, warmup)
    return lr * factors, lr * factors * weight_decay * decay_factors(decay_schedule, factors)
