"""AdamW and the rules that are taken for it, as one function of prescribed gradients in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Rule:
    """One variant of AdamW; the defaults are AdamW itself, and each field but the default is one way to differ.

    decay: "decoupled", "none", "coupled" (λθ is added to the gradient), "first moment" (only to the gradient of m),
        "denominator" (divided by √v̂ + ε with the step), "cautious" (only where the step shrinks the weight), "cautious
        or still" (there, and where there is no step), "start" (toward the initial weight), "sign" (of a constant size),
        "gradients" (not where the gradient is 0), "late" (not in the first step).
    order: "before" (from the weight before the step) or "after" (from the weight that the step has left).
    follows: the share of a weight that a step takes: "lr" is η_tλ, "nothing" λ, "first" η_0λ, "schedule" λη_t/η_0,
        "square" η_t²λ; all times ``factor``.
    eps: "outside", "inside" (√(v̂ + ε)), "squared" (√(v̂ + ε²)), "scaled" ((√v + ε)/√(1−β₂ᵗ)), "summed" (added to v at
        each step, and outside), "floor" (max(√v̂, ε)), "ignored".
    corrected: which moments are bias-corrected: "both", "first", "second" or "none"; by β^(t + shift).
    betas: "given", "swapped", or "usual" (0.9 and 0.999, whatever is given).
    second: "squares", "belief" ((g − m)²), "largest" (AMSGrad), "largest corrected", "previous" (v of the last step).
    momentum: "averaged", "nesterov" (m looks a step ahead, each part with its own correction), "nesterov alike"
        (both with that of m), or "summed" (m ← β₁m + g).
    root: whether v's root is taken. ascends: whether the step climbs. state: dtype that the moments are kept in.
        loaded: the same after a checkpoint, "" where it stays.
    """

    decay: str = "decoupled"
    order: str = "before"
    follows: str = "lr"
    factor: float = 1.0
    eps: str = "outside"
    corrected: str = "both"
    shift: int = 0
    betas: str = "given"
    second: str = "squares"
    momentum: str = "averaged"
    root: bool = True
    ascends: bool = False
    state: str = "float64"
    loaded: str = ""

    def share(self, lr: float, first_lr: float, weight_decay: float) -> float:
        """Of a weight, in one step at the rate ``lr`` of a run that began at ``first_lr``."""
        by = {"lr": lr, "nothing": 1.0, "first": first_lr, "square": lr * lr}
        rate = lr / first_lr if self.follows == "schedule" else by[self.follows]
        return self.factor * weight_decay * rate


def simulate(
    rule: Rule,
    start: np.ndarray,
    gradients: np.ndarray,
    *,
    lr,
    weight_decay: float,
    betas: tuple[float, float],
    eps: float,
    counts: np.ndarray | None = None,
    resumed: int | None = None,
    forgets: str = "",
) -> np.ndarray:
    """The path (T + 1, n) of weights that begin at ``start`` (n,) and get ``gradients`` (T, n).

    lr is a number or (T,). counts (T,): the t of the bias correction at each step, 1, 2, … where None. At step
    ``resumed`` the state loses what ``forgets`` names: "step", "exp_avg", "exp_avg_sq", "moments" or "all".
    """
    gradients = np.asarray(gradients, dtype=np.float64)
    lrs = np.broadcast_to(np.asarray(lr, dtype=np.float64), len(gradients))
    counts = np.arange(1, len(gradients) + 1) if counts is None else np.array(counts)
    if resumed is not None and forgets in ("step", "all"):
        counts[resumed:] = counts[: len(counts) - resumed]
    beta1, beta2 = {"given": betas, "swapped": betas[::-1], "usual": (0.9, 0.999)}[rule.betas]
    theta = np.array(start, dtype=np.float64)
    m, v, top = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
    path = np.empty((len(gradients) + 1, *theta.shape))
    path[0] = theta
    for i, g in enumerate(gradients):
        if i == resumed:
            m = np.zeros_like(m) if forgets in ("exp_avg", "moments", "all") else m
            v = np.zeros_like(v) if forgets in ("exp_avg_sq", "moments", "all") else v
        g = -g if rule.ascends else g
        g = g + weight_decay * theta if rule.decay == "coupled" else g
        t, before = float(counts[i] + rule.shift), v
        pulled = g + weight_decay * theta if rule.decay == "first moment" else g
        m = beta1 * m + (pulled if rule.momentum == "summed" else (1 - beta1) * pulled)
        spread = g - m if rule.second == "belief" else g
        v = beta2 * v + (1 - beta2) * spread * spread + (eps if rule.eps == "summed" else 0.0)
        kept = rule.loaded if rule.loaded and resumed is not None and i >= resumed else rule.state
        if kept != "float64":
            m, v = _rounded(m, kept), _rounded(v, kept)
        one = 1 - beta1**t if rule.corrected in ("both", "first") else 1.0
        two = 1 - beta2**t if rule.corrected in ("both", "second") else 1.0
        used = v
        if rule.second == "largest":
            used = top = np.maximum(top, v)
        elif rule.second == "largest corrected":
            top = np.maximum(top, v / two)
            used = top * two
        elif rule.second == "previous" and i:
            used, two = before, 1 - beta2 ** (t - 1) if two != 1.0 else 1.0
        denominator = _denominator(rule, used, two, eps)
        first = m / one
        if rule.momentum == "nesterov alike":
            first = (beta1 * m + (1 - beta1) * g) / one
        elif rule.momentum == "nesterov":
            first = beta1 * m / (1 - beta1 ** (t + 1) if one != 1.0 else 1.0) + (1 - beta1) * g / one
        step = lrs[i] * np.divide(first, denominator, out=np.zeros_like(m), where=denominator != 0)
        share = rule.share(lrs[i], lrs[0], weight_decay) if weight_decay else 0.0
        theta = theta - step - _taken(rule, share, theta, path[0], step, g, denominator, i)
        path[i + 1] = theta
    return path


def _denominator(rule: Rule, v: np.ndarray, two: float, eps: float) -> np.ndarray:
    root = np.sqrt if rule.root else np.asarray
    if rule.eps == "inside":
        return root(v / two + eps)
    if rule.eps == "squared":
        return root(v / two + eps * eps)
    if rule.eps == "scaled":
        return (root(v) + eps) / root(two)
    if rule.eps == "floor":
        return np.maximum(root(v / two), eps)
    return root(v / two) + (0.0 if rule.eps == "ignored" else eps)


def _taken(rule: Rule, share: float, theta, start, step, gradient, denominator, i: int):
    """What decay takes from the weights in one step."""
    if not share or rule.decay in ("none", "coupled", "first moment"):
        return 0.0
    at = theta - step if rule.order == "after" else theta
    if rule.decay == "denominator":
        return share * at / denominator
    if rule.decay == "cautious":
        return share * at * (step * theta > 0)
    if rule.decay == "cautious or still":
        return share * at * (step * theta >= 0)
    if rule.decay == "start":
        return share * (at - start)
    if rule.decay == "sign":
        return share * np.sign(at)
    if rule.decay == "gradients":
        return share * at * (gradient != 0)
    return share * at * (i > 0) if rule.decay == "late" else share * at


def _rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    return torch.from_numpy(x).to(getattr(torch, dtype)).double().numpy()
