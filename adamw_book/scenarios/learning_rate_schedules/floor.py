"""The *noise floor*: how far nothing but noise drives a weight while a schedule changes the rate and the decay."""

import numpy as np

from adamw_book.schedules import steps_and_shares


def floor(lr: float, weight_decay: float, steps: int, *schedules, **named) -> np.ndarray:
    """Root mean square (steps + 1,) of a weight that starts at 0 and gets only noise, after 0 … steps updates. The
    arguments, here and below, are those of :func:`adamw_book.schedules.steps_and_shares`.

    Each step of AdamW then goes η_t in a random direction, after the decay has taken the share q_t: the mean square
    follows V ← (1 − q_t)² V + η_t².
    """
    squares = [0.0]
    for step, share in zip(*steps_and_shares(lr, weight_decay, steps, *schedules, **named), strict=True):
        squares.append((1 - share) ** 2 * squares[-1] + step**2)
    return np.sqrt(squares)


def balance(lr: float, weight_decay: float, steps: int, *schedules, **named) -> np.ndarray:
    """Where noise and decay would balance if the rate stood still at each step, η_t/√(2q_t), shape (steps,): √(η_t/2λ)
    in torch's form, η_t/√(2η_max λ) where the decay ignores the schedule, √(η_max/2λ) under AdamC."""
    step, share = steps_and_shares(lr, weight_decay, steps, *schedules, **named)
    return step / np.sqrt(2 * share)


def freezes(lr: float, weight_decay: float, steps: int, schedule: str, decay_schedule: str = "torch") -> int:
    """The step from which on less than one memory of the noise is left, 2Σq_s < 1 over all later steps: too little for
    the floor to follow the balance any further."""
    _, share = steps_and_shares(lr, weight_decay, steps, schedule, 0.0, decay_schedule)
    return int((2 * share[::-1].cumsum()[::-1] < 1).argmax())
