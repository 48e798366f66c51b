"""What only a GPU shows: launches, waiting, autocast with a scaler. Skipped without one."""

import pytest
import torch
from torch import nn

from adamw_book.optim import AdamW

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def tensors(count: int = 100) -> list[nn.Parameter]:
    return [nn.Parameter(torch.randn(100 + i, device="cuda")) for i in range(count)]


def give(params: list[nn.Parameter]) -> None:
    """New gradients, elsewhere than the last ones."""
    old = [p.grad for p in params]
    for p in params:
        p.grad = torch.ones_like(p)
    del old


@pytest.mark.parametrize(("options", "launches"), [({}, 1), ({"explain": True}, 1), ({"max_norm": 1.0}, 2)], ids=str)
def test_launches(options, launches):
    from torch.profiler import ProfilerActivity, profile

    params = tensors()
    optimizer = AdamW(params, **options)
    assert optimizer.backend == "triton"
    for _ in range(2):
        give(params)
        optimizer.step()
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        optimizer.step()
        torch.cuda.synchronize()
    counts = {e.key: e.count for e in trace.key_averages() if e.device_type.name == "CUDA" and "Mem" not in e.key}
    assert sum(counts.values()) == launches, counts


@pytest.mark.parametrize("options", [{}, {"max_norm": 1.0}, {"capturable": True}, {"explain": True}], ids=str)
def test_a_step_does_not_wait_for_the_gpu(options):
    """Not when gradients have moved either, nor when a schedule has set another number."""
    params = tensors()
    optimizer = AdamW(params, **options)
    for _ in range(2):
        give(params)
        optimizer.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(3):
            give(params)
            optimizer.param_groups[0]["lr"] = 1e-3 / (1 + step)
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_numbers_of_several_steps_do_not_overtake_each_other():
    """Uploads that are queued behind a busy GPU keep the values of their own step."""
    results = []
    for cls in (AdamW, torch.optim.AdamW):
        torch.manual_seed(0)
        params = tensors(20)
        optimizer = cls(params)
        torch.cuda._sleep(500_000_000)
        for step in range(30):
            give(params)
            optimizer.param_groups[0]["lr"] = 1e-2 / (1 + step)
            optimizer.step()
        results.append(params)
    for p, q in zip(*results, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"max_norm": 1.0}, {"capturable": True}], ids=str)
def test_steps_on_streams_in_turn(options):
    """Each waits for the one before it, as a loop with a stream of its own does; gradients come and go."""
    results, streams = [], [torch.cuda.current_stream(), torch.cuda.Stream(), torch.cuda.Stream()]
    for cls in (AdamW, torch.optim.AdamW):
        torch.manual_seed(0)
        params = tensors(20)
        optimizer = cls(params, **{k: v for k, v in options.items() if cls is AdamW or k != "max_norm"})
        for step in range(12):
            stream, before = streams[step % 3], streams[(step - 1) % 3]
            stream.wait_stream(before)
            with torch.cuda.stream(stream):
                torch.cuda._sleep(20_000_000)
                for i, p in enumerate(params):
                    p.grad = None if (i + step) % 8 == 0 else torch.full_like(p, 0.1 * (i - 10) + step)
                optimizer.param_groups[0]["lr"] = 1e-2 / (1 + step)
                if cls is torch.optim.AdamW and "max_norm" in options:
                    torch.nn.utils.clip_grad_norm_(params, options["max_norm"])
                optimizer.step()
        torch.cuda.synchronize()
        results.append(params)
    for p, q in zip(*results, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fused", [None, True])
def test_gradient_scaler(fused):
    results = []
    for cls in (AdamW, torch.optim.AdamW):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 1)).cuda()
        optimizer = cls(model.parameters(), lr=0.01, fused=fused)
        scaler = torch.amp.GradScaler("cuda", init_scale=2.0**16, growth_interval=2)
        for step in range(8):
            optimizer.zero_grad()
            with torch.autocast("cuda", dtype=torch.float16):
                loss = model(torch.ones(8, 30, device="cuda") * (1 + step)).square().mean()
            scaler.scale(loss).backward()
            if step == 3:
                model[0].weight.grad[0, 0] = float("inf")
            scaler.step(optimizer)
            scaler.update()
        results.append([*model.parameters(), torch.tensor(scaler.get_scale())])
    for p, q in zip(*results, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_another_device_than_the_current_one():
    p = torch.ones(5, device="cuda:1")
    p.grad = torch.ones_like(p)
    AdamW([p], lr=0.1, weight_decay=0.0).step()
    torch.testing.assert_close(p, torch.full_like(p, 0.9))
