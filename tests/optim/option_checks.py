"""What the options beyond torch's promise, checked for any backend on any device."""

import torch
from seven_steps import parameters
from torch import Tensor, nn

from adamw_book.optim import AdamW

SHAPES = [(40, 30), (7,), (), (3, 5, 2), (1030,), (0, 4)]
R = 4
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def tensors(shapes=SHAPES, seed=0, device="cpu", dtype=torch.float32, scale=1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [(scale * torch.randn(s, generator=generator)).to(device, dtype) for s in shapes]


def give(params: list[Tensor], grads: list[Tensor | None]) -> None:
    for p, g in zip(params, grads, strict=True):
        p.grad = None if g is None else g.clone()


def assert_all_close(mine: list[Tensor], theirs: list[Tensor], what: str = "parameter", **tolerance) -> None:
    for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        torch.testing.assert_close(a, b, **(tolerance or CLOSE), msg=lambda m, j=i: f"{what} {j}: {m}")


def lr_independent(device: str, backend: str | None) -> None:
    """The share λ at any lr: torch's AdamW with λ/lr; under a scheduler both steps follow its factor."""
    for scheduled in (False, True):
        for lr in (0.1, torch.tensor(0.1, device=device)):
            mine, theirs = tensors(device=device), tensors(device=device)
            ours = AdamW(mine, lr=lr, weight_decay=0.02, lr_independent=True, backend=backend)
            torchs = torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.2)
            schedulers = [
                torch.optim.lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)) for o in (ours, torchs) if scheduled
            ]
            for step in range(4):
                for params in (mine, theirs):
                    give(params, tensors(seed=step + 1, device=device))
                ours.step()
                torchs.step()
                for scheduler in schedulers:
                    scheduler.step()
            assert_all_close(mine, theirs)


def lr_independent_replicas(device: str, backend: str | None) -> None:
    lr, decay = torch.tensor([0.1, 0.01, 0.3, 0.0], device=device), torch.tensor([0.0, 0.3, 0.01, 0.1], device=device)
    params = tensors([(R, 6), (R, 3, 400)], device=device)
    before = [p.clone() for p in params]
    give(params, [torch.zeros_like(p) for p in params])
    AdamW(params, lr=lr, weight_decay=decay, lr_independent=True, backend=backend).step()
    decay = decay * (lr > 0)  # a learning rate of 0 stops both steps
    assert_all_close(params, [(1 - decay.view(R, *[1] * (p.dim() - 1))) * p for p in before])


def lr_independent_without_a_learning_rate(device: str, backend: str | None) -> None:
    """lr = 0 moves nothing, as a number and as a tensor; a schedule that began at 0 leaves the factor at 1."""
    for lr in (0.0, torch.tensor(0.0, device=device)):
        params = tensors(device=device)
        before = [p.clone() for p in params]
        give(params, tensors(seed=1, device=device))
        optimizer = AdamW(params, lr=lr, weight_decay=0.1, lr_independent=True, backend=backend)
        optimizer.step()
        assert_all_close(params, before, rtol=0, atol=0)
        optimizer.param_groups[0] |= {"lr": lr + 0.1, "initial_lr": lr}
        give(params, [torch.zeros_like(p) for p in params])
        for p in params:
            optimizer.state[p]["exp_avg"].zero_()
        optimizer.step()
        assert_all_close(params, [0.9 * p for p in before])
        optimizer.param_groups[0]["lr"] = lr  # 0 of 0: the schedule's factor is 1 there, too
        optimizer.step()
        assert_all_close(params, [0.81 * p for p in before])


def lr_independent_of_another_peak(device: str, backend: str | None) -> None:
    """λ·lr over the peak that the group names, from the step on at which it names another."""
    for number in (float, lambda x: torch.tensor(x, device=device)):
        params = tensors(device=device)
        optimizer = AdamW(params, lr=number(0.1), weight_decay=0.2, lr_independent=True, backend=backend)
        for peak in (None, 0.4, 0.2, 0.1):
            before = [p.clone() for p in params]
            optimizer.param_groups[0] |= {} if peak is None else {"max_lr": number(peak)}
            give(params, [torch.zeros_like(p) for p in params])
            optimizer.step()
            assert_all_close(params, [(1 - 0.02 / (peak or 0.1)) * p for p in before], f"peak {peak}, parameter")


def cautious(device: str, backend: str | None) -> None:
    """Each coordinate moves as under AdamW where θ and the first moment agree in sign, as under Adam elsewhere."""
    params, plain, adam = (tensors(device=device) for _ in range(3))
    kwargs = {"lr": 0.1, "betas": (0.6, 0.9)}
    ours = AdamW(params, weight_decay=0.5, cautious=True, backend=backend, **kwargs)
    others = torch.optim.AdamW(plain, weight_decay=0.5, **kwargs), torch.optim.AdamW(adam, weight_decay=0.0, **kwargs)
    both = [0, 0]
    for step in range(5):
        before = [p.clone() for p in params]
        for same in (params, plain, adam):
            give(same, tensors(seed=step + 1, device=device))
        ours.step()
        for other, copies in zip(others, (plain, adam), strict=True):
            for copy, p in zip(copies, before, strict=True):
                copy.copy_(p)
            other.step()
        for p, old, decayed, free in zip(params, before, plain, adam, strict=True):
            agrees = ours.state[p]["exp_avg"] * old >= 0
            torch.testing.assert_close(p, torch.where(agrees, decayed, free), **CLOSE)
            both[0] += int(agrees.sum())
            both[1] += int((~agrees).sum())
    assert min(both) > 1000


def max_norm(device: str, backend: str | None) -> None:
    """clip_grad_norm_ and torch's AdamW; the gradients stay as they were."""
    for scale in (1e-3, 1.0, 100.0):
        mine, theirs = tensors(device=device), tensors(device=device)
        groups = [[{"params": p[:2], "lr": 0.03}, {"params": p[2:], "maximize": True}] for p in (mine, theirs)]
        ours = AdamW(groups[0], max_norm=1.0, backend=backend)
        torchs = torch.optim.AdamW(groups[1])
        for step in range(4):
            grads = tensors(seed=step + 1, device=device, scale=scale)
            grads[1] = None if step == 2 else grads[1]
            give(mine, grads), give(theirs, grads)
            ours.step()
            torch.nn.utils.clip_grad_norm_(theirs, 1.0)
            torchs.step()
            assert all(g is None or torch.equal(p.grad, g) for p, g in zip(mine, grads, strict=True))
        assert_all_close(mine, theirs)
        state = [[o.state[p]["exp_avg_sq"] for p in q] for o, q in ((ours, mine), (torchs, theirs))]
        assert_all_close(*state, "exp_avg_sq", rtol=2e-5, atol=1e-10)


def max_norm_replicas(device: str, backend: str | None) -> None:
    """Each replica is clipped by its own norm, as it would be alone."""
    shapes = [(R, 6), (R, 3, 400), (R,)]
    scales = torch.tensor([0.01, 0.1, 1.0, 10.0], device=device)
    params, lr = tensors(shapes, device=device), torch.tensor([0.1, 0.2, 0.3, 0.4], device=device)
    alone = [[p[r].clone() for p in params] for r in range(R)]
    ours = AdamW(params, lr=lr, max_norm=1.0, backend=backend)
    solos = [torch.optim.AdamW(p, lr=float(lr[r])) for r, p in enumerate(alone)]
    for step in range(3):
        grads = [g * scales.view(R, *[1] * (g.dim() - 1)) for g in tensors(shapes, seed=step + 1, device=device)]
        give(params, grads)
        ours.step()
        for r, solo in enumerate(solos):
            give(alone[r], [g[r] for g in grads])
            torch.nn.utils.clip_grad_norm_(alone[r], 1.0)
            solo.step()
    for r in range(R):
        assert_all_close([p[r] for p in params], alone[r], f"replica {r}, parameter")


def max_norm_of_scaled_gradients(device: str, backend: str | None) -> None:
    """Under a GradScaler within the step, the norm is that of the unscaled gradients."""
    mine, theirs = tensors(device=device), tensors(device=device)
    ours = AdamW(mine, lr=0.1, fused=True, max_norm=1.0, backend=backend)
    torchs = torch.optim.AdamW(theirs, lr=0.1)
    for step in range(3):
        grads = tensors(seed=step + 1, device=device)
        give(mine, [256 * g for g in grads]), give(theirs, grads)
        ours.grad_scale, ours.found_inf = torch.full((1,), 256.0, device=device), torch.zeros(1, device=device)
        ours.step()
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        torchs.step()
    assert_all_close(mine, theirs)


def max_norm_meets_infinity(device: str, backend: str | None) -> None:
    """As after clip_grad_norm_: an infinite gradient becomes nan, all others 0."""
    mine, theirs = tensors([(5,), (4,)], device=device), tensors([(5,), (4,)], device=device)
    grads = tensors([(5,), (4,)], seed=1, device=device)
    grads[0][2] = float("inf")
    give(mine, grads), give(theirs, grads)
    AdamW(mine, max_norm=1.0, backend=backend).step()
    torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    torch.optim.AdamW(theirs).step()
    assert_all_close(mine, theirs, equal_nan=True, **CLOSE)


def stochastic_rounding(device: str, backend: str | None) -> None:
    """Steps below bfloat16's precision: to nearest nothing ever moves; at random the mean goes the right way, each
    value to one of its two neighbours, and a second run repeats the first."""

    def run(stochastic: bool, steps: int = 20) -> Tensor:
        p = torch.full((20_000,), 1.0, dtype=torch.bfloat16, device=device)
        optimizer = AdamW([p], lr=1e-4, weight_decay=0.0, stochastic_rounding=stochastic, backend=backend)
        for _ in range(steps):
            p.grad = torch.ones_like(p)
            optimizer.step()
        return p

    assert (run(False) == 1).all() or device == "cpu"  # Triton's interpreter rounds towards zero
    first = run(True, 1).float()
    assert set(first.unique().tolist()) == {1.0, 1.0 - 2**-8}
    moved, again = run(True), run(True)
    assert torch.equal(moved, again)
    assert abs(moved.double().mean().item() - (1 - 20e-4)) < 1e-4


def stochastic_rounding_as_the_reference(device: str, backend: str | None) -> None:
    """The same bits as the reference's, for tensors and, row by row, for replicas."""
    vectors = {"lr": torch.tensor([0.1, 0.2, 0.3, 0.4], device=device)}
    for shapes, kwargs in ((SHAPES, {"lr": 0.1}), ([(R, 6), (R, 1030)], vectors)):
        mine, theirs = (tensors(shapes, device=device, dtype=torch.bfloat16) for _ in range(2))
        options = {"stochastic_rounding": True, "state_dtype": torch.float32, **kwargs}
        ours, reference = AdamW(mine, backend=backend, **options), AdamW(theirs, backend="reference", **options)
        for step in range(2):
            for params in (mine, theirs):
                give(params, tensors(shapes, seed=step + 1, device=device, dtype=torch.bfloat16))
            ours.step()
            reference.step()
            for p, q in zip(mine, theirs, strict=True):  # apart where the float32 results differ in their last bit
                assert (p != q).sum() <= 1 + p.numel() // 200
                torch.testing.assert_close(p, q, rtol=2**-7, atol=1e-6)
                p.copy_(q)


def stochastic_rounding_of_one_replica(device: str, backend: str | None) -> None:
    """A replica is rounded as it would be alone, at the ends of its row and in full blocks."""
    for length in (600, 2048):
        params = tensors([(R, length)], device=device, dtype=torch.bfloat16)
        grads = tensors([(R, length)], seed=1, device=device, dtype=torch.bfloat16)
        alone = params[0][2].clone()
        give(params, grads)
        lr = torch.tensor([0.1, 0.2, 0.3, 0.4], device=device)
        AdamW(params, lr=lr, stochastic_rounding=True, backend=backend).step()
        alone.grad = grads[0][2].clone()
        AdamW([alone], lr=float(lr[2]), stochastic_rounding=True, backend=backend).step()
        assert torch.equal(params[0][2], alone)


def state_in_float32(device: str, backend: str | None) -> None:
    """bfloat16 parameters, float32 moments: those of a float32 run, through a state_dict as well."""
    params, exact = tensors(device=device, dtype=torch.bfloat16), tensors(device=device)
    ours = AdamW(params, state_dtype=torch.float32, backend=backend)
    control = torch.optim.AdamW(exact)
    for step in range(4):
        if step == 2:
            saved = ours.state_dict()
            ours = AdamW(params, state_dtype=torch.float32, backend=backend)
            ours.load_state_dict(saved)
        grads = tensors(seed=step + 1, device=device, dtype=torch.bfloat16)
        give(params, grads), give(exact, [g.float() for g in grads])
        ours.step()
        control.step()
    for p, q in zip(params, exact, strict=True):
        for name in ("exp_avg", "exp_avg_sq"):
            assert ours.state[p][name].dtype == torch.float32
            torch.testing.assert_close(ours.state[p][name], control.state[q][name], **CLOSE)
    number = torch.ones(3, dtype=torch.complex64, device=device)  # whose moments are complex, whatever is asked
    number.grad = number.clone()
    ours = AdamW([number], state_dtype=torch.float32, backend=backend)
    ours.step()
    assert ours.state[number]["exp_avg"].dtype == torch.complex64


def explanation(device: str, backend: str | None) -> None:
    """Norms and cosine of the two steps, from runs that take one of them only."""
    params = tensors(device=device)
    ours = AdamW(params, lr=0.1, weight_decay=0.3, explain=True, backend=backend)
    for step in range(3):
        give(params, tensors(seed=step + 1, device=device))
        before = [p.clone() for p in params]
        ours.step()
        explained = ours.explanation()
        assert len(explained) == len(params)
        for p, old in zip(params, before, strict=True):
            decay = 0.03 * old
            gradient = old - decay - p
            found = explained[p]
            torch.testing.assert_close(found.param_norm.float(), old.norm(), **CLOSE)
            torch.testing.assert_close(found.decay_norm.float(), decay.norm(), **CLOSE)
            torch.testing.assert_close(found.gradient_norm.float(), gradient.norm(), rtol=1e-4, atol=1e-6)
            if old.numel():
                cosine = (decay * gradient).sum() / (decay.norm() * gradient.norm())
                torch.testing.assert_close(found.cosine.float(), cosine, rtol=1e-4, atol=1e-5)
            else:
                assert found.cosine.isnan()


def explanation_of_replicas(device: str, backend: str | None) -> None:
    """(R,) for each figure, each row that of the run alone; cautious decay counts where it acted."""
    shapes = [(R, 6), (R, 3, 400)]
    params, lr = tensors(shapes, device=device), torch.tensor([0.1, 0.2, 0.3, 0.4], device=device)
    give(params, tensors(shapes, seed=1, device=device))
    options = {"weight_decay": 0.3, "cautious": True, "explain": True, "backend": backend}
    alone = [[p[r].clone() for p in params] for r in range(R)]
    ours = AdamW(params, lr=lr, **options)
    ours.step()
    for r in range(R):
        give(alone[r], [p.grad[r] for p in params])
        solo = AdamW(alone[r], lr=float(lr[r]), **options)
        solo.step()
        for p, q in zip(params, alone[r], strict=True):
            for mine, theirs in zip(ours.explanation()[p], solo.explanation()[q], strict=True):
                assert mine.shape == (R,) and theirs.shape == ()
                torch.testing.assert_close(mine[r], theirs, rtol=1e-5, atol=1e-7)


def explanation_of_a_skipped_step(device: str, backend: str | None) -> None:
    """A step that an overflow keeps from being taken is made of nothing, whatever the one before was made of."""
    for options in ({}, {"fused": True}):
        params = tensors(device=device)
        ours = AdamW(params, explain=True, backend=backend, **options)
        for found_inf in (1.0, 0.0, 1.0, 0.0, 2.0):
            give(params, tensors(seed=1, device=device))
            ours.grad_scale, ours.found_inf = (torch.full((1,), x, device=device) for x in (1.0, found_inf))
            ours.step()
            assert set(ours.explanation()) == (set() if found_inf else set(params))


def explanation_changes_nothing(device: str, backend: str | None) -> None:
    """The step is the same with and without; asked for in turn."""
    results = []
    for explain in (lambda t: False, lambda t: t % 2 == 0):
        params = parameters(device=device)
        ours = AdamW(params, lr=0.1, backend=backend)
        for step in range(4):
            ours.explain = explain(step)
            give(params, [torch.ones_like(p) for p in params])
            ours.step()
        results.append([p.detach() for p in params])
    assert_all_close(*results)


def parameter_modules_own_names(device: str, backend: str | None) -> None:
    """The explanation is keyed by parameter, so a module's names find it."""
    layer = nn.Linear(3, 2).to(device)
    ours = AdamW(layer.named_parameters(), explain=True, backend=backend)
    layer(torch.ones(1, 3, device=device)).sum().backward()
    ours.step()
    assert {name: ours.explanation()[p].param_norm.shape for name, p in layer.named_parameters()} == {
        "weight": torch.Size(()),
        "bias": torch.Size(()),
    }


CHECKS = {
    check.__name__.replace("_", " "): check
    for check in (
        lr_independent, lr_independent_replicas, lr_independent_without_a_learning_rate,
        lr_independent_of_another_peak, cautious, max_norm, max_norm_replicas, max_norm_of_scaled_gradients,
        max_norm_meets_infinity, stochastic_rounding, stochastic_rounding_as_the_reference,
        stochastic_rounding_of_one_replica, state_in_float32, explanation, explanation_of_replicas,
        explanation_of_a_skipped_step, explanation_changes_nothing, parameter_modules_own_names,
    )
}  # fmt: skip
