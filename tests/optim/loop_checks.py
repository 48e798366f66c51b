"""What other people's models, loops and wrappers hand to an optimizer, checked for any backend on any device."""

import warnings

import pytest
import torch
from seven_steps import parameters
from torch import Tensor, nn

from adamw_book.optim import AdamW
from adamw_book.optim.watch import BLOCK

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def random(seed: int, *shape: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).to(device)


def conjugated_gradients(device: str, backend: str | None) -> None:
    """Autograd hands out gradients whose conjugate or sign is still to be taken: the step is that of their numbers."""
    for max_norm in (None, 100.0):
        p = nn.Parameter(torch.zeros(1, dtype=torch.cfloat, device=device))
        optimizer = AdamW([p], lr=0.1, weight_decay=0.0, max_norm=max_norm, backend=backend)
        for _ in range(200):
            optimizer.zero_grad()
            (p.conj() - (1 + 2j)).abs().square().sum().backward()
            assert p.grad.is_conj()
            optimizer.step()
        torch.testing.assert_close(p.detach().cpu(), torch.tensor([1 - 2j]), rtol=0.01, atol=0)

    start, a = random(0, 3, 3, device=device, dtype=torch.cfloat), random(1, 3, 2, device=device, dtype=torch.cfloat)
    ends = []
    for resolve in (False, True):
        w = nn.Parameter(start.clone())
        optimizer = AdamW([w], lr=0.1, backend=backend) if not resolve else torch.optim.AdamW([w], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (w.mH @ a).abs().square().sum().backward()
            w.grad = w.grad.resolve_conj() if resolve else w.grad
            optimizer.step()
        ends.append(w.detach())
    torch.testing.assert_close(*ends, **CLOSE)

    ends = []
    for cls, options in ((AdamW, {"backend": backend}), (torch.optim.AdamW, {"foreach": False})):
        p = nn.Parameter(torch.ones(3, 2, device=device))
        optimizer = cls([p], lr=0.1, **options)
        for step in range(3):
            grad = random(step, 3, 2, device=device)
            p.grad = torch._neg_view(grad) if step != 1 else grad
            optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(*ends, **CLOSE)


def infinite_parameters(device: str, backend: str | None) -> None:
    """A mask of −∞ without a gradient stays; where no penalty acts, it puts none into the moments."""
    for options in ({}, {"amsgrad": True}, {"maximize": True}):
        p, q = (nn.Parameter(torch.tensor([-torch.inf, 1.0, torch.inf], device=device)) for _ in range(2))
        mine, theirs = AdamW([p], lr=0.1, backend=backend, **options), torch.optim.AdamW([q], lr=0.1, **options)
        for _ in range(3):
            p.grad, q.grad = torch.zeros_like(p), torch.zeros_like(q)
            mine.step()
            theirs.step()
        torch.testing.assert_close(p, q)
    rows = nn.Parameter(torch.tensor([[-torch.inf, 1.0]] * 2, device=device))
    rows.grad = torch.zeros_like(rows)
    vectors = {"lr": torch.tensor([0.1, 0.2], device=device), "l2": torch.tensor([0.0, 0.3], device=device)}
    AdamW([rows], weight_decay=0.1, backend=backend, **vectors).step()
    torch.testing.assert_close(rows[0].detach().cpu(), torch.tensor([-torch.inf, 0.99]))


def nan_spreads_as_in_torch(device: str, backend: str | None) -> None:
    """One nan: AMSGrad's maximum keeps it when the gradients are well again, and a norm of nan reaches everything."""
    for max_norm in (None, 1.0):
        mine, theirs = ([nn.Parameter(random(i, n, device=device)) for i, n in enumerate((6, 1030, 3))] for _ in "ab")
        ours = AdamW(mine, lr=0.1, amsgrad=True, max_norm=max_norm, backend=backend)
        torchs = torch.optim.AdamW(theirs, lr=0.1, amsgrad=True, fused=ours.backend == "torch")
        for step in range(3):
            for params in (mine, theirs):
                for i, p in enumerate(params):
                    p.grad = random(10 * step + i, *p.shape, device=device)
                if step == 1:
                    params[0].grad[2] = params[1].grad[1027] = params[1].grad[7] = torch.nan
            if max_norm is not None:
                torch.nn.utils.clip_grad_norm_(theirs, max_norm)
            ours.step()
            torchs.step()
            for p, q in zip(mine, theirs, strict=True):
                ours.state[p]["exp_avg"].nan_to_num_(0.1)  # what stays is the maximum's alone
                torchs.state[q]["exp_avg"].nan_to_num_(0.1)
                torch.testing.assert_close(p, q, equal_nan=True, **CLOSE)
                largest = [o.state[r]["max_exp_avg_sq"] for o, r in ((ours, p), (torchs, q))]
                torch.testing.assert_close(*largest, equal_nan=True, **CLOSE)
        assert ours.backend == "torch" or largest[0].isnan().all() == (max_norm is not None)  # on a CPU fused loses it


def gradients_that_are_views_of_a_bucket(device: str, backend: str | None) -> None:
    """As with DistributedDataParallel: one buffer holds all gradients, back to back and off the grid of vectors, and
    every other step another one does."""
    shapes = [(3,), (5, 7), (1,), (1030,), (0,), (4, 2, 3), (2055,)]
    for dtype, options in ((torch.float32, {}), (torch.bfloat16, {"state_dtype": torch.float32})):
        mine, theirs = (
            [nn.Parameter(random(i, *s, device=device).to(dtype)) for i, s in enumerate(shapes)] for _ in range(2)
        )
        ours = AdamW(mine, lr=0.1, backend=backend, **options)
        torchs = AdamW(theirs, lr=0.1, backend="reference", **options)
        buckets = [torch.zeros(sum(p.numel() for p in mine) + 1, device=device, dtype=dtype) for _ in range(2)]
        for step in range(4):
            start = 1
            for i, (p, q) in enumerate(zip(mine, theirs, strict=True)):
                q.grad = random(10 * step + i, *p.shape, device=device).to(dtype)
                p.grad = buckets[step % 2][start : start + p.numel()].view(p.shape).copy_(q.grad)
                start += p.numel()
            ours.step()
            torchs.step()
        for p, q in zip(mine, theirs, strict=True):
            torch.testing.assert_close(p, q, **CLOSE if dtype == torch.float32 else {"rtol": 2**-5, "atol": 2**-8})


def moments_are_let_go(device: str, backend: str | None) -> None:
    """Who replaces a moment, puts other memory beneath it or clears the state has its memory back at once."""

    def replace(optimizer, p):
        optimizer.state[p]["exp_avg"] = torch.zeros_like(p)

    def set_data(optimizer, p):
        optimizer.state[p]["exp_avg"].data = torch.zeros_like(p)

    for change in (replace, set_data, lambda optimizer, p: optimizer.state.clear()):
        p = nn.Parameter(torch.ones(5, device=device))
        optimizer = AdamW([p], backend=backend)
        for _ in range(2):
            p.grad = torch.ones_like(p)
            optimizer.step()
        memory = optimizer.state[p]["exp_avg"].untyped_storage()
        change(optimizer, p)
        assert torch._C._storage_Use_Count(memory._cdata) == 1, "something but this test still uses the old memory"


def sets_of_gradients(device: str, backend: str | None) -> None:
    """Another eighth of the parameters without a gradient at every step, as with experts or dropped layers: torch's
    steps, norms that count those that are there, and no parameter sorted anew once each has had its turn."""
    for options in ({}, {"max_norm": 1.0}, {"explain": True}, {"capturable": True}, {"amsgrad": True}):
        shapes = [(5,), (3, 4), (), (1030,), (7,), (2, 3), (1,), (0,)] * 2
        mine, theirs = ([nn.Parameter(random(i, *s, device=device)) for i, s in enumerate(shapes)] for _ in range(2))
        ours = AdamW([{"params": mine[:9]}, {"params": mine[9:], "lr": 0.3}], lr=0.1, backend=backend, **options)
        torchs = torch.optim.AdamW(
            [{"params": theirs[:9]}, {"params": theirs[9:], "lr": 0.3}], lr=0.1, amsgrad="amsgrad" in options
        )
        plans = []
        for step in range(12):
            missing = {(step * 5) % 16, (step * 3 + 1) % 16}
            for params in (mine, theirs):
                for i, p in enumerate(params):
                    p.grad = None if i in missing else random(100 * step + i, *p.shape, device=device)
            before = [p.detach().clone() for p in mine]
            ours.step()
            plans.append(ours._now.plan)
            if "max_norm" in options:
                torch.nn.utils.clip_grad_norm_(theirs, 1.0)
            torchs.step()
            for i, (p, q) in enumerate(zip(mine, theirs, strict=True)):
                torch.testing.assert_close(p, q, **CLOSE, msg=lambda m, w=f"step {step}, {i}": f"{w}: {m}")
                assert i not in missing or torch.equal(p, before[i])
            if "explain" in options:
                assert set(ours.explanation()) == {p for p in mine if p.grad is not None}
        assert all(plan is plans[5] for plan in plans[5:])
        assert [int(ours.state[p]["step"]) for p in mine] == [int(torchs.state[q]["step"]) for q in theirs]


def one_gradient_among_many(device: str, backend: str | None) -> None:
    """More parameters than are looked at together: a gradient of another layout among the first, none among the last,
    and the other way round."""
    number, ends = BLOCK + 1, (0, BLOCK)
    mine, theirs = ([nn.Parameter(random(i, 2, 3, device=device)) for i in range(number)] for _ in range(2))
    ours, torchs = AdamW(mine, lr=0.1, backend=backend), torch.optim.AdamW(theirs, lr=0.1)
    for step, (turned, missing) in enumerate(((None, None), ends, ends[::-1])):
        for i, (p, q) in enumerate(zip(mine, theirs, strict=True)):
            grad = random(1000 * step + i, 3, 2, device=device).t() if i == turned else random(i, 2, 3, device=device)
            p.grad = q.grad = None if i == missing else grad
        ours.step()
        torchs.step()
        for p, q in zip(mine, theirs, strict=True):
            torch.testing.assert_close(p, q, **CLOSE)


def gradients_of_one_kind_after_another(device: str, backend: str | None) -> None:
    """A gradient of another layout or dtype at one step, of its parameter's at the next."""
    p, q = (nn.Parameter(random(0, 4, 4, device=device)) for _ in range(2))
    mine, theirs = AdamW([p], lr=0.1, backend=backend), torch.optim.AdamW([q], lr=0.1)
    for step in range(4):
        grad = random(step, 4, 4, device=device)
        p.grad = q.grad = grad.t() if step % 2 else grad
        mine.step()
        theirs.step()
    grad = random(5, 4, 4, device=device).bfloat16()
    p.grad, q.grad = torch.zeros_like(p), grad.float()
    p.grad.data = grad
    mine.step()
    theirs.step()
    torch.testing.assert_close(p, q, **CLOSE)


def gradients_wider_than_their_parameter(device: str, backend: str | None) -> None:
    """float64 gradients of a float32 parameter, alone and beside others of its own: clipped as if they were narrow."""
    for options in ({}, {"max_norm": 0.5}):
        mine, theirs = ([nn.Parameter(random(i, 5, device=device)) for i in range(2)] for _ in "ab")
        ours, torchs = AdamW(mine, lr=0.1, backend=backend, **options), torch.optim.AdamW(theirs, lr=0.1)
        for step, wide in enumerate(((0, 1), (1,), ())):
            for i, (p, q) in enumerate(zip(mine, theirs, strict=True)):
                p.grad_dtype = None
                q.grad = random(10 * step + i, 5, device=device)
                p.grad = q.grad.double() if i in wide else q.grad.clone()
            ours.step()
            if options:
                nn.utils.clip_grad_norm_(theirs, 0.5)
            torchs.step()
        for p, q in zip(mine, theirs, strict=True):
            torch.testing.assert_close(p, q, **CLOSE)


def scaled_gradients_of_another_layout(device: str, backend: str | None) -> None:
    """The gradients of a scaled step are unscaled in place, whatever their layout; clipped by the norm or not."""
    for max_norm in (None, 1.0):
        p, q = (nn.Parameter(random(i, 4, 4, device=device)) for i in range(2))
        grads = [64 * random(2, 4, 4, device=device).t(), 64 * random(3, 4, 4, device=device)]
        p.grad, q.grad = grads[0].clone(), grads[1].clone()
        assert not p.grad.is_contiguous()
        optimizer = AdamW([p, q], fused=True, max_norm=max_norm, backend=backend)
        optimizer.grad_scale, optimizer.found_inf = torch.full((1,), 64.0, device=device), torch.zeros(1, device=device)
        optimizer.step()
        for param, grad in zip((p, q), grads, strict=True):
            torch.testing.assert_close(param.grad, grad / 64)


def the_same_parameter_twice(device: str, backend: str | None) -> None:
    """torch warns of it and updates it twice; so does this, count included."""
    ends = []
    for cls, options in ((AdamW, {"backend": backend}), (torch.optim.AdamW, {"foreach": False})):
        p, q = nn.Parameter(torch.ones(1, device=device)), nn.Parameter(torch.ones(2, device=device))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            optimizer = cls([p, p, q], lr=0.1, **options)
        for _ in range(4):
            p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
            optimizer.step()
        ends.append([p.detach(), q.detach(), optimizer.state[p]["step"], optimizer.state[q]["step"]])
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)
    assert ends[0][2] == 8


def random_bits_beyond_two_to_the_24(device: str, backend: str | None) -> None:
    """Where a float32 count stands still, rounding at random goes on with fresh bits."""
    for start in (0, 2**24, 2**30):
        p = nn.Parameter(torch.ones(2000, dtype=torch.bfloat16, device=device))
        optimizer = AdamW([p], lr=1e-4, weight_decay=0.0, stochastic_rounding=True, backend=backend)
        p.grad = torch.ones_like(p)
        optimizer.step()
        optimizer.state[p]["step"].fill_(start)
        steps = []
        for _ in range(4):
            p.data.fill_(1.0)
            p.grad = torch.ones_like(p)
            optimizer.step()
            steps.append(p.detach().clone())
        assert optimizer.state[p]["step"] == start + 4
        assert not any(torch.equal(a, b) for i, a in enumerate(steps) for b in steps[:i]), start

    p = nn.Parameter(torch.ones(2000, dtype=torch.bfloat16, device=device))  # a count that torch made
    mine, theirs = AdamW([p], stochastic_rounding=True, backend=backend), torch.optim.AdamW([p])
    p.grad = torch.ones_like(p)
    theirs.step()
    mine.load_state_dict(theirs.state_dict())
    mine.step()
    assert mine.state[p]["step"].dtype == torch.float64 and mine.state[p]["step"] == 2


def state_dtype_changes(device: str, backend: str | None) -> None:
    """The moments are cast, and the backend that is named is the one in use."""
    p, q = (nn.Parameter(random(0, 40, device=device)) for _ in range(2))
    mine, theirs = AdamW([p], lr=0.1, backend=backend), torch.optim.AdamW([q], lr=0.1)
    for step, dtype in enumerate((None, torch.float64, torch.float64, None)):
        mine.param_groups[0]["state_dtype"] = dtype
        p.grad, q.grad = random(step, 40, device=device), random(step, 40, device=device)
        mine.step()
        theirs.step()
        assert {mine.state[p][n].dtype for n in ("exp_avg", "exp_avg_sq")} == {dtype or torch.float32}
        torch.testing.assert_close(p, q, **CLOSE)


def options_through_the_groups(device: str, backend: str | None) -> None:
    """What a wrapper that hands on the groups alone can reach: clipping and the explanation."""
    params, other = parameters(device=device), parameters(device=device)
    mine = AdamW([{"params": params[:2]}, {"params": params[2:]}], lr=0.1, backend=backend)
    theirs = torch.optim.AdamW(other, lr=0.1)
    mine.param_groups[1] |= {"max_norm": 0.5, "explain": True}
    for step in range(2):
        for p, q in zip(params, other, strict=True):
            p.grad, q.grad = (random(step, *p.shape, device=device) for _ in range(2))
        mine.step()
        torch.nn.utils.clip_grad_norm_(other, 0.5)
        theirs.step()
    for p, q in zip(params, other, strict=True):
        torch.testing.assert_close(p, q, **CLOSE)
    assert mine.max_norm == 0.5 and mine.explain and len(mine.explanation()) == len(params)
    mine.param_groups[0]["max_norm"] = 0.4
    with pytest.raises(ValueError, match=r"Invalid max_norm value: .*0\.4.*; a number above 0, or None, the same for"):
        mine.step()
    mine.max_norm = None
    mine.explain = False
    assert not any({"max_norm", "explain"} & set(group) for group in mine.param_groups)


def unfit_states_are_named(device: str, backend: str | None) -> None:
    """The parameter, the key and what is needed; nothing is written."""

    def one(**options):
        p = nn.Parameter(torch.ones(3, device=device))
        optimizer = AdamW([nn.Parameter(torch.ones(2, device=device)), p], backend=backend, **options)
        p.grad = torch.ones_like(p)
        optimizer.step()
        return p, optimizer

    p, optimizer = one()
    p.data = p.data.double()
    p.grad = None
    p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match="state of parameter 1: exp_avg has .* torch.float32 .* torch.float64 wi"):
        optimizer.step()
    assert (p == p[0]).all() and optimizer.state[p]["step"] == 1

    p, optimizer = one()
    optimizer.param_groups[0]["amsgrad"] = True
    with pytest.raises(ValueError, match="state of parameter 1: 'max_exp_avg_sq' is missing, only 'step', 'exp_avg', "):
        optimizer.step()

    for foreign, missing in (({"momentum_buffer": torch.ones(3)}, "step"), ({"exp_avg": torch.ones(3)}, "step"),
                             ({"step": torch.tensor(1.0), "exp_avg": torch.ones(3)}, "exp_avg_sq")):  # fmt: skip
        p, optimizer = one()
        saved = optimizer.state_dict()
        saved["state"] = {1: {name: t.to(device) for name, t in foreign.items()}}
        optimizer.load_state_dict(saved)
        with pytest.raises(ValueError, match=f"state of parameter 1: {missing!r} is missing, only .* are there"):
            optimizer.step()
    for step in ("5", None, torch.ones(2)):
        p, optimizer = one()
        optimizer.state[p]["step"] = step
        with pytest.raises(ValueError, match="state of parameter 1: step "):
            optimizer.step()


CHECKS = {
    check.__name__.replace("_", " "): check
    for check in (
        conjugated_gradients, infinite_parameters, nan_spreads_as_in_torch, gradients_that_are_views_of_a_bucket,
        moments_are_let_go, sets_of_gradients, one_gradient_among_many,
        gradients_of_one_kind_after_another, gradients_wider_than_their_parameter,
        scaled_gradients_of_another_layout, the_same_parameter_twice,
        random_bits_beyond_two_to_the_24, state_dtype_changes, options_through_the_groups, unfit_states_are_named,
    )
}  # fmt: skip
