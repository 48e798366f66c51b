"""Learning-rate schedules by name: what the ensemble, the prescribed-gradient runs and the formulas multiply ``lr``
by."""

import numpy as np

from adamw_book.arguments import whole


def _constant(progress: np.ndarray) -> np.ndarray:
    return np.ones_like(progress)


def _cosine(progress: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.cos(np.pi * progress))


def _warmup_cosine(progress: np.ndarray, warmup: float = 0.1) -> np.ndarray:
    return np.where(progress < warmup, progress / warmup, _cosine((progress - warmup) / (1 - warmup)))


def _warmup_stable_decay(progress: np.ndarray, warmup: float = 0.1, decay: float = 0.2) -> np.ndarray:
    return np.minimum(1.0, np.minimum(progress / warmup, (1 - progress) / decay))


SCHEDULES = {"constant": _constant, "cosine": _cosine, "warm-up + cosine": _warmup_cosine, "WSD": _warmup_stable_decay}


def learning_rate_factors(schedule: str, steps: int) -> np.ndarray:
    """The factors (steps,) by which a named schedule multiplies ``lr``: step t = 0 … steps−1 is taken at progress (t
    + ½) / steps. Raises ``ValueError`` for an unknown schedule and for steps that are no whole number of 0 or more."""
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule: {schedule!r} is unknown; choose from {', '.join(map(repr, SCHEDULES))}")
    steps = whole("steps", steps, 0, needed="a whole number of 0 or more")
    return SCHEDULES[schedule]((np.arange(steps) + 0.5) / steps)
