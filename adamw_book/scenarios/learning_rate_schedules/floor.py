"""The *noise floor*: how far nothing but noise drives a weight while a schedule changes the rate and the decay."""

import numpy as np

from adamw_book.schedules import decay_factors, learning_rate_factors


def _rates(lr: float, weight_decay: float, steps: int, schedule: str, warmup: float, decay_schedule: str) -> tuple:
    factors = learning_rate_factors(schedule, steps, warmup)
    return lr * factors, lr * factors * weight_decay * decay_factors(decay_schedule, factors)


def floor(
    lr: float,
    weight_decay: float,
    steps: int,
    schedule: str = "constant",
    warmup: float = 0.0,
    decay_schedule: str = "torch",
) -> np.ndarray:
    """Root mean square (steps + 1,) of a weight that starts at 0 and gets only noise, after 0 … steps updates.

    Each step of AdamW then goes η_t in a random direction, after the decay has taken the share q_t: the mean square
    follows V ← (1 − q_t)² V + η_t².
    """
    squares = [0.0]
    for step, share in zip(*_rates(lr, weight_decay, steps, schedule, warmup, decay_schedule), strict=True):
        squares.append((1 - share) ** 2 * squares[-1] + step**2)
    return np.sqrt(squares)


def balance(
    lr: float,
    weight_decay: float,
    steps: int,
    schedule: str = "constant",
    warmup: float = 0.0,
    decay_schedule: str = "torch",
) -> np.ndarray:
    """Where noise and decay would balance if the rate stood still at each step, η_t/√(2q_t), shape (steps,): √(η_t/2λ)
    in torch's form, η_t/√(2η_max λ) where the decay ignores the schedule, √(η_max/2λ) under AdamC."""
    step, share = _rates(lr, weight_decay, steps, schedule, warmup, decay_schedule)
    return step / np.sqrt(2 * share)


def freezes(lr: float, weight_decay: float, steps: int, schedule: str, decay_schedule: str = "torch") -> int:
    """The step from which on less than one memory of the noise is left, 2Σq_s < 1 over all later steps: too little for
    the floor to follow the balance any further."""
    _, share = _rates(lr, weight_decay, steps, schedule, 0.0, decay_schedule)
    return int((2 * share[::-1].cumsum()[::-1] < 1).argmax())
