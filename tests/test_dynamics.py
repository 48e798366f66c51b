"""The closed forms of the update, each as a check that the optimizer passes and that planted mistakes fail."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from adamw_book import dynamics
from adamw_book.data import digits_splits
from adamw_book.dynamics import drive, noise, remaining, scale_invariant_noise, silent
from adamw_book.schedules import SCHEDULES, learning_rate_factors


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rms(path: torch.Tensor) -> torch.Tensor:
    """Root mean square over steps and coordinates, one value a replica."""
    return path.square().mean((0, 2)).sqrt()


# ---- the checks


def equals_torch() -> None:
    """Three replicas (AdamW, Adam + L2, Adam) on the same gradients, some of them None, under each schedule."""
    steps, lr = 40, column(1e-2, 3e-3, 1e-3)
    weight_decay, l2 = column(0.5, 0.0, 0.0), column(0.0, 0.3, 0.0)
    draws = torch.randn(steps, 3, 4, dtype=torch.float64, generator=rng())
    start = torch.randn(3, 4, dtype=torch.float64, generator=rng(1))

    def gradient(step, w):
        return None if step % 7 == 2 else draws[step] + 0.1 * w

    for schedule in SCHEDULES:
        path = drive(gradient, start, steps, schedule=schedule, lr=lr, weight_decay=weight_decay, l2=l2)
        for i in range(3):
            w = start[i].clone().requires_grad_()
            if l2[i]:
                optimizer = torch.optim.Adam([w], weight_decay=l2[i].item())
            else:
                optimizer = torch.optim.AdamW([w], weight_decay=weight_decay[i].item())
            for step, factor in enumerate(learning_rate_factors(schedule, steps)):
                optimizer.param_groups[0]["lr"] = lr[i].item() * factor
                w.grad = None if step % 7 == 2 else draws[step, i] + 0.1 * w.detach()
                optimizer.step()
                torch.testing.assert_close(path[step + 1, i], w.detach(), rtol=1e-9, atol=1e-12)


def f1() -> None:
    """AdamW, null coordinate: w₀∏(1 − η_tλ) under each schedule, close to w₀·exp(−λΣη_t); half-life ln 2/(ηλ)."""
    steps, lr, decay = 1000, 1e-2, 0.3
    for schedule in SCHEDULES:
        path = drive(silent, column(0.1, -2.0)[:, None], steps, schedule=schedule, lr=lr, weight_decay=decay)[..., 0]
        share, total = 1.0, 0.0
        for t, factor in enumerate(learning_rate_factors(schedule, steps)):
            np.testing.assert_allclose(path[t], [0.1 * share, -2.0 * share], rtol=1e-10)
            share, total = share * (1 - lr * factor * decay), total + lr * factor
        np.testing.assert_allclose(path[:, 0], 0.1 * remaining(lr, decay, steps, schedule), rtol=1e-10)
        for follows, power in (("torch", 1), ("constant", 0), ("AdamC", 2)):
            how = {"schedule": schedule, "warmup": 0.1, "decay_schedule": follows}
            found = drive(silent, column(1.0)[:, None], 200, lr=lr, weight_decay=decay, **how)[:, 0, 0]
            shares = lr * decay * learning_rate_factors(schedule, 200, 0.1) ** power
            np.testing.assert_allclose(found[1:], np.cumprod(1 - shares), rtol=1e-10)
            np.testing.assert_allclose(found, remaining(lr, decay, 200, **how), rtol=1e-10)
        assert path[-1, 0].item() == pytest.approx(0.1 * math.exp(-decay * total), rel=0.01)
        if schedule == "constant":
            assert int((path[:, 0] < 0.05).int().argmax()) == pytest.approx(math.log(2) / (lr * decay), abs=1)


def f2() -> None:
    """Adam + L2, null coordinate: one path for ℓ from 1e-4 to 1, whose first step is η·sign(w)."""
    coefficients = column(1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    start = torch.stack([torch.full((5,), 0.1), torch.full((5,), -0.1)], 1).double()
    path = drive(silent, start, 120, lr=1e-3, l2=coefficients)
    # ε/(ℓ|w|) is 1e-3 at the smallest coefficient, and that is how far the paths may part
    torch.testing.assert_close(path[0] - path[1], (1e-3 * start.sign()), rtol=2e-3, atol=0)
    assert (path - path[:, -1:]).abs().max() < 2e-3 * 0.1
    halved = (path[..., 0] < 0.05).int().argmax(0)
    assert ((halved - 55).abs() <= 1).all()
    crossed = drive(silent, column(0.1)[:, None], 300, lr=1e-2, l2=0.1)
    assert (-crossed.min() / 1e-2).item() == pytest.approx(2.73, abs=0.02)  # the overshoot


def f3() -> None:
    """Adam + L2, null coordinate with the faintest nudge: it rings at ℓ/√v̂ = 38/η, rms η/38; not where ε damps it."""
    lrs = torch.tensor([3e-3, 1e-2])
    for l2, sd, rings in ((1.0, 1e-8, True), (0.1, 1e-8, True), (1e-5, 1e-12, False)):
        late = rms(drive(noise(sd, rng()), torch.full((2, 4), 0.1), 12_000, lr=lrs, l2=l2)[-2000:]) / (lrs / 38)
        assert ((late - 1).abs() < 0.1).all() if rings else (late < 0.01).all()


def f4() -> None:
    """A coordinate that gets only noise of sd σ: rms η√T under Adam, √(η/2λ) under AdamW, √(ησ/2ℓ) under Adam + L2."""
    lr, decay, l2, steps = 1e-2, 1.0, 1e-2, 5000
    sd = torch.tensor([1e-3, 1e-2, 1e-1])
    arms = {"Adam": {}, "AdamW": {"weight_decay": decay}, "Adam + L2": {"l2": l2}}
    paths = {
        arm: drive(noise(sd[:, None], rng(1)), torch.zeros(3, 400), steps, lr=lr, **hyper)
        for arm, hyper in arms.items()
    }
    assert ((rms(paths["Adam"][-1:]) / (lr * steps**0.5) - 1).abs() < 0.12).all()
    assert ((rms(paths["AdamW"][-2000:]) / (lr / (2 * decay)) ** 0.5 - 1).abs() < 0.1).all()
    assert ((rms(paths["Adam + L2"][-2000:]) / (lr * sd / (2 * l2)).sqrt() - 1).abs() < 0.1).all()


def f5() -> None:
    """A constant gradient g: −sign(g)/λ under AdamW; −g/ℓ under Adam + L2, at the end of a learning rate that falls to
    zero, and on average at a constant one, where the path leaves it in bursts. Wherever the last bit puts the start."""
    g = column(10.0, -1e-3)[:, None]
    start = column(0.0, 1e-16, -1e-16, 1e-13, 1e-9).expand(2, 5)
    end = drive(lambda step, w: g.expand(2, 5), start, 4000, lr=1e-2, weight_decay=0.5)[-1]
    torch.testing.assert_close(end, (-g.sign() / 0.5).expand(2, 5), rtol=1e-4, atol=0)
    falling = drive(lambda step, w: g.expand(2, 5), start, 12_000, lr=1e-2, l2=0.5, schedule="cosine")
    torch.testing.assert_close(falling[-1], (-g / 0.5).expand(2, 5), rtol=1e-6, atol=0)
    # the weaker gradient: v forgets it, until ℓ/√v̂ reaches the 38/η at which the path rings
    constant = drive(lambda step, w: g[1:].expand(1, 5), start[1:], 12_000, lr=1e-2, l2=0.5)[-6000:, 0] * 0.5 / -g[1]
    assert ((constant.mean(0) - 1).abs() < 1e-3).all() and (constant.amax(0) > 1.3).all()


def f9() -> None:
    """No gradient, no decay; a gradient of zeros, decay."""
    one = column(1.0)[:, None]
    without = drive(lambda step, w: None, one, 10, lr=1e-2, weight_decay=0.1)
    assert (without == 1).all()
    zeros = drive(silent, one, 10, lr=1e-2, weight_decay=0.1)
    assert zeros[-1].item() == pytest.approx((1 - 1e-3) ** 10, rel=1e-12)


def f10() -> None:
    """Scale-invariant weights: ‖w‖ → √(ηn/2λ), and √(2ηλ)·√((1−β₁)/(1+β₁)) radians a step, from any start."""
    lr, decay, n = 1e-2, 0.5, 400
    start = torch.randn(4, n, generator=rng()) * torch.tensor([0.03, 0.1, 0.3, 0.5])[:, None]
    path = drive(scale_invariant_noise(rng(2)), start, 2500, lr=lr, weight_decay=decay)[-500:].double()
    norm = path.norm(dim=2)
    cosine = functional.cosine_similarity(path[1:], path[:-1], dim=2)
    angle = torch.arccos(cosine.clamp(max=1)).mean(0)
    assert ((norm.mean(0) / (lr * n / (2 * decay)) ** 0.5 - 1).abs() < 0.1).all()
    assert ((angle / ((2 * lr * decay) ** 0.5 * (0.1 / 1.9) ** 0.5) - 1).abs() < 0.1).all()


def f11() -> None:
    """Full batch, β₂ = 0.95: AdamW fills the box ‖w‖∞ ≤ 1/λ and stays inside. A linear classifier of digits."""
    x, y = digits_splits(0, train=300, label_noise=0.2)["train"]
    targets = functional.one_hot(y, 10).float()
    decay = torch.tensor([0.5, 1.0, 2.0, 4.0])

    def gradient(step, w):
        error = (w.view(-1, 10, 64) @ x.T).softmax(1) - targets.T
        return (error @ x / len(x)).flatten(1)

    start = torch.randn(4, 640, generator=rng()) * 0.1
    end = drive(gradient, start, 3000, lr=1e-2, betas=(0.9, 0.95), weight_decay=decay)[-1]
    filled = end.abs().amax(1) * decay
    assert (filled < 1.003).all() and (filled > 0.99).all()


# ---- the mistakes


class Mistaken:
    """The update written out, with at most one mistake in it; takes what `drive` hands to the optimizer."""

    mistake = "none"

    def __init__(self, params, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, l2=0.0):
        (self.w,) = params
        self.param_groups = [{"lr": lr, "weight_decay": weight_decay}]
        self.first_lr, self.betas, self.eps, self.l2 = lr, betas, eps, l2
        self.t, self.m, self.v = 0, torch.zeros_like(self.w), torch.zeros_like(self.w)

    @torch.no_grad()
    def step(self) -> None:
        w, g, made = self.w, self.w.grad, self.mistake.__eq__
        if g is None and made("decay without a gradient"):
            g = torch.zeros_like(w)
        if g is None or (made("zeros count as no gradient") and not g.any()):
            return
        lr, weight_decay, l2, first_lr = (
            value[:, None] if isinstance(value, torch.Tensor) else value
            for value in (*self.param_groups[0].values(), self.l2, self.first_lr)
        )
        (beta1, beta2), eps = self.betas, self.eps
        self.t += 1
        if made("decay joins the gradient"):
            l2, weight_decay = l2 + weight_decay, 0.0
        if made("l2 is decoupled"):
            l2, weight_decay = 0.0, weight_decay + l2
        after = made("l2 after the moments")
        joined = g if after else g - l2 * w if made("sign of l2") else g + l2 * w
        self.m = beta1 * self.m + (1 - beta1) * joined
        self.v = beta2 * self.v + (1 - beta2) * joined**2
        corrected = not made("no bias correction")
        m = (self.m / (1 - beta1**self.t) if corrected else self.m) + (l2 * w if after else 0.0)
        v = self.v / (1 - beta2**self.t) if corrected else self.v
        if made("eps inside the root"):
            direction = m / (v + eps).sqrt()
        else:
            direction = m / ((v if made("no square root") else v.sqrt()) + eps)
        keep = 1 - lr * weight_decay
        if made("decay without the learning rate"):
            keep = 1 - weight_decay
        if made("decay without the schedule"):
            keep = 1 - first_lr * weight_decay
        self.w.copy_(keep * (w - lr * direction) if made("decay after the step") else keep * w - lr * direction)


NOTICED = {
    equals_torch: [
        "decay after the step",
        "eps inside the root",
        "no bias correction",
        "no square root",
        "l2 after the moments",
        "sign of l2",
        "l2 is decoupled",
        "decay joins the gradient",
        "decay without the learning rate",
        "decay without the schedule",
        "decay without a gradient",
    ],
    f1: [
        "decay without the schedule",
        "decay without the learning rate",
        "decay joins the gradient",
        "zeros count as no gradient",
    ],
    f2: ["l2 is decoupled", "l2 after the moments", "eps inside the root", "no bias correction", "no square root"],
    f3: ["l2 is decoupled", "l2 after the moments", "eps inside the root", "sign of l2"],
    f4: ["l2 is decoupled", "sign of l2", "decay joins the gradient", "no square root"],
    f5: [
        "decay after the step",
        "l2 is decoupled",
        "l2 after the moments",
        "decay joins the gradient",
        "no square root",
    ],
    f9: ["decay without a gradient", "zeros count as no gradient"],
    f10: ["decay joins the gradient", "decay without the learning rate", "no square root"],
    f11: ["decay joins the gradient", "decay without the learning rate", "no square root"],
}


@pytest.mark.parametrize("check", NOTICED, ids=lambda check: check.__name__)
def test_formula(check):
    check()


def test_the_update_written_out_is_right_without_a_mistake(monkeypatch):
    """So that what a check notices below is the mistake."""
    monkeypatch.setattr(dynamics, "AdamW", Mistaken)
    for check in NOTICED:
        check()


@pytest.mark.parametrize(
    ("check", "mistake"),
    [
        pytest.param(check, mistake, id=f"{check.__name__}: {mistake}")
        for check in NOTICED
        for mistake in NOTICED[check]
    ],
)
def test_formula_notices(check, mistake, monkeypatch):
    monkeypatch.setattr(dynamics, "AdamW", type("AdamW", (Mistaken,), {"mistake": mistake}))
    with pytest.raises(AssertionError):
        check()


# ---- the drive itself


def test_the_path_starts_at_the_start_and_leaves_it_alone():
    start = torch.ones(2, 3)
    path = drive(silent, start, 5, weight_decay=1.0)
    assert path.shape == (6, 2, 3) and not path.requires_grad
    assert (path[0] == 1).all() and (path[1] < 1).all() and (start == 1).all()


def test_the_gradient_sees_the_step_and_the_weights_of_that_step():
    seen = []

    def gradient(step, w):
        seen.append((step, w.clone()))
        return torch.ones_like(w)

    path = drive(gradient, torch.zeros(1, 2), 4, lr=0.1)
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert all(torch.equal(w, path[step]) for step, w in seen)


def test_gradients_are_taken_in_the_dtype_of_the_start():
    start = torch.linspace(-1, 1, 6, dtype=torch.double).view(2, 3)
    for gradient in (noise(0.5, torch.Generator().manual_seed(0)), lambda step, w: torch.ones(2, 3).half()):
        drawn = [gradient(step, start) for step in range(4)]
        found = drive(lambda step, w, g=drawn: g[step], start, 4, lr=0.1)
        assert found.dtype == torch.double
        assert torch.equal(found, drive(lambda step, w, g=drawn: g[step].double(), start, 4, lr=0.1))


def test_a_start_without_replicas_is_refused():
    with pytest.raises(ValueError, match=r"start: shape \(3,\), torch.float32; a tensor \(R, n\)"):
        drive(silent, torch.ones(3), 5)
    with pytest.raises(ValueError, match=r"start: shape \(1, 3\), torch.int64; a tensor \(R, n\) of floating-point"):
        drive(silent, torch.ones(1, 3, dtype=torch.int64), 5)


@pytest.mark.parametrize("sd", [-1.0, math.nan, torch.tensor([[1.0], [math.inf]])])
def test_noise_of_no_size_is_refused(sd):
    with pytest.raises(ValueError, match="(?s)sd: .*; finite numbers of 0 or more are needed"):
        noise(sd, rng())


def test_noise_has_its_size_and_comes_from_its_generator():
    w = torch.zeros(2, 20_000)
    sd = torch.tensor([[0.01], [3.0]])
    draw = noise(sd, rng())(0, w)
    np.testing.assert_allclose(draw.std(1), sd[:, 0], rtol=0.03)
    assert draw.mean(1).abs().div(sd[:, 0]).max() < 0.03
    assert torch.equal(draw, noise(sd, rng())(0, w)) and not torch.equal(draw, noise(sd, rng(1))(0, w))


def test_scale_invariant_noise_is_orthogonal_and_inverse_to_the_norm():
    w = torch.randn(3, 5000, generator=rng())
    g = scale_invariant_noise(rng(1))(0, w)
    assert (functional.cosine_similarity(g, w) < 1e-5).all()
    torch.testing.assert_close(scale_invariant_noise(rng(1))(0, 10 * w), g / 10)
    np.testing.assert_allclose(g.norm(dim=1) * w.norm(dim=1) / 5000**0.5, 1, rtol=0.05)


def test_a_negative_number_of_steps_is_refused():
    with pytest.raises(ValueError, match="steps: -1; a whole number of 0 or more is needed"):
        drive(silent, torch.zeros(1, 1), -1)
