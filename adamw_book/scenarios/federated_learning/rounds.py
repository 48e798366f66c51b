"""What a round of local steps and an average comes to where that can be written down: where clients with quadratic
losses meet, and what a decay takes of their disagreement."""

import torch
from torch import Tensor


def meeting_point(
    curvature: Tensor, optimum: Tensor, weights: Tensor, lr: float, weight_decay: float, local_steps: int
) -> Tensor:
    """Where federated averaging of gradient descent ends for clients with the losses h_i (w − c_i)²/2: each takes
    ``local_steps`` = K steps w ← (1 − ηλ)w − ηh_i(w − c_i) from the average, which moves it the share q_i = 1 − (1 −
    η(h_i + λ))^K of the way to its own rest h_i c_i/(h_i + λ). So

        w* = Σ p_i q_i h_i c_i/(h_i + λ) / Σ p_i q_i.

    curvature h, optimum c and weights p (clients, …) → (…). Raises ``ValueError`` where a client's steps would not
    shrink its distance, |1 − η(h_i + λ)| ≥ 1.
    """
    factor = 1 - lr * (curvature + weight_decay)
    if bool((factor.abs() >= 1).any()):
        worst = factor.flatten()[factor.abs().argmax()].item()
        raise ValueError(f"lr: {lr}; 1 − η(h + λ) is {worst:.3g} for a client, and must lie between −1 and 1")
    moved = weights * (1 - factor**local_steps)
    return (moved * curvature * optimum / (curvature + weight_decay)).sum(0) / moved.sum(0)


def average_quadratics(
    curvature: Tensor, optimum: Tensor, weights: Tensor, lr: float, weight_decay: float, local_steps: int, rounds: int
) -> Tensor:
    """The same by doing it: the averages (rounds, …) from 0 on."""
    w, path = torch.zeros_like(optimum[0]), []
    for _ in range(rounds):
        own = w.expand_as(optimum)
        for _ in range(local_steps):
            own = (1 - lr * weight_decay) * own - lr * curvature * (own - optimum)
        w = (weights * own).sum(0) / weights.sum(0)
        path.append(w)
    return torch.stack(path)


def damping(lr: float, weight_decay: float, local_steps: int) -> float:
    """What decay leaves of the distance between two clients at the end of a round, relative to the same round without
    it, where each keeps stepping in its own direction: (1 − (1 − ηλ)^K)/(Kηλ).

    It does not matter whether the decay leads to the origin or to the model that the round began with: both pull all
    clients alike at the start of the round, and differ in what becomes of their mean.
    """
    share = lr * weight_decay
    return 1.0 if share == 0 else (1 - (1 - share) ** local_steps) / (local_steps * share)
