"""One optimizer step: time on the device and on the host, launches, bytes a second against the memory's ceiling.

All contenders run in one process, in turns, on the same parameters and gradients, each with its own state; figures are
medians. A step must read parameter, gradient and both moments and write all but the gradient, so its floor is bytes
over bandwidth; the bandwidth is that of a copy and of a triad a = b + s·c, measured in the same run.

    python benchmarks/optimizer_step.py                prints tables (on a CPU: the single models)
    python benchmarks/optimizer_step.py --only gpt2    scenarios whose name contains a word
    python benchmarks/optimizer_step.py --record       also writes benchmarks/results/optimizer_step_<device>.json

flashoptim and torch-optimi take part where they are installed.
"""

import argparse
import importlib.metadata
import json
import platform
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from adamw_book.optim import AdamW

Shapes = list[tuple[int, ...]]
LR, DECAY = 1e-3, 0.1


def resnet50() -> Shapes:
    """The 161 parameters of ResNet-50 (He et al., 2016), 25,557,032 numbers."""
    shapes: Shapes = [(64, 3, 7, 7), (64,), (64,)]
    width = 64
    for blocks, inner in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            for out, into, kernel in ((inner, width, 1), (inner, inner, 3), (4 * inner, inner, 1)):
                shapes += [(out, into, kernel, kernel), (out,), (out,)]
            if block == 0:
                shapes += [(4 * inner, width, 1, 1), (4 * inner,), (4 * inner,)]
            width = 4 * inner
    return shapes + [(1000, 2048), (1000,)]


def gpt2() -> Shapes:
    """The 148 parameters of GPT-2 124M (Radford et al., 2019), 124,439,808 numbers."""
    d = 768
    block: Shapes = [(d,), (d,), (d, 3 * d), (3 * d,), (d, d), (d,), (d,), (d,), (d, 4 * d), (4 * d,), (4 * d, d), (d,)]
    return [(50257, d), (1024, d)] + 12 * block + [(d,), (d,)]


def llama() -> Shapes:
    """246 parameters in the shape of a Llama (Touvron et al., 2023) of 27 layers, 1,518,450,688 numbers."""
    d, inner = 2048, 5632
    layer: Shapes = [(d, d)] * 4 + [(inner, d), (inner, d), (d, inner), (d,), (d,)]
    return [(32000, d)] + 27 * layer + [(d,), (32000, d)]


@dataclass
class Contender:
    """An optimizer in the race: ``make(params)`` builds it, ``step(optimizer)`` is what is timed."""

    make: Callable[[list[Tensor]], torch.optim.Optimizer]
    step: Callable[[torch.optim.Optimizer], object] = field(default=lambda optimizer: optimizer.step())


@dataclass
class Scenario:
    """Parameters, and who competes on them; ``target`` is (contender, rival, least ratio of whole steps)."""

    name: str
    shapes: Shapes
    dtype: torch.dtype
    contenders: dict[str, Contender]
    targets: list[tuple[str, str, float]] = field(default_factory=list)


def plain(**options) -> Contender:
    return Contender(lambda params: AdamW(params, lr=LR, weight_decay=DECAY, **options))


def torchs(**options) -> Contender:
    return Contender(lambda params: torch.optim.AdamW(params, lr=LR, weight_decay=DECAY, **options))


def compiled() -> Contender:
    """torch.compile over torch's capturable foreach step."""

    def make(params):
        optimizer = torch.optim.AdamW(params, lr=torch.tensor(LR), weight_decay=DECAY, foreach=True, capturable=True)
        optimizer.compiled = torch.compile(optimizer.step, fullgraph=False)
        return optimizer

    return Contender(make, lambda optimizer: optimizer.compiled())


def installed() -> dict[str, Contender]:
    """Peers that are installed; they are never needed."""
    found = {}
    try:
        from flashoptim import FlashAdamW

        found["flashoptim"] = Contender(
            lambda params: FlashAdamW(params, lr=LR, weight_decay=DECAY, quantize=False, master_weight_bits=None)
        )
    except ImportError:
        pass
    try:
        from optimi import AdamW as Optimi

        found["torch-optimi"] = Contender(
            lambda params: Optimi(params, lr=LR, weight_decay=DECAY, betas=(0.9, 0.999), eps=1e-8, triton=True)
        )
    except ImportError:
        pass
    return found


def one_group_a_replica(replicas: int) -> Contender:
    """What torch offers for different coefficients: a parameter group for each replica."""

    def make(params):
        rows = [[p.detach()[r] for p in params] for r in range(replicas)]
        for row, grads in zip(rows, zip(*(p.grad for p in params), strict=True), strict=True):
            for p, g in zip(row, grads, strict=True):
                p.grad = g
        groups = [{"params": row, "lr": LR * (1 + r / replicas), "weight_decay": DECAY} for r, row in enumerate(rows)]
        return torch.optim.AdamW(groups, fused=True)

    return Contender(make)


def clipped_by_torch() -> Contender:
    def step(optimizer):
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1e9)
        optimizer.step()

    return Contender(torchs(fused=True).make, step)


def gpu_scenarios(memory: float) -> list[Scenario]:
    """The races on a GPU with so many bytes of free memory."""
    rivals = {"torch fused": torchs(fused=True), "torch foreach": torchs(foreach=True), "torch compiled": compiled()}
    everyone = {"adamw_book": plain(), **rivals, **installed()}
    lean = {"adamw_book": plain(), "torch fused": torchs(fused=True), **installed()}
    billion = min(10**9, int(memory / (4 * (2 + 2 * len(lean)) * 1.1)) // 1024 * 1024)
    title = "one tensor of 1 billion" if billion == 10**9 else f"one tensor of {billion / 1e6:.0f} million"
    replicas = 1000
    mlp: Shapes = [(replicas, *s) for s in ((32, 64), (32,), (10, 32), (10,))]
    vectors = Contender(
        lambda params: AdamW(
            params, lr=LR * (1 + torch.arange(replicas, device=params[0].device) / replicas), weight_decay=DECAY
        )
    )
    variants = {
        "plain": plain(),
        "cautious": plain(cautious=True),
        "lr_independent": plain(lr_independent=True),
        "l2": plain(l2=0.01),
        "explain": plain(explain=True),
    }
    f32, bf16 = torch.float32, torch.bfloat16
    scenarios = [
        Scenario(f"{title}, float32", [(billion,)], f32, lean, [("adamw_book", "torch fused", 1.0)]),
        Scenario(f"{title}, bfloat16", [(billion,)], bf16, lean, [("adamw_book", "torch fused", 1.1)]),
        Scenario("1,000 tensors of 1,000", [(1000,)] * 1000, f32, everyone),
        Scenario("resnet50", resnet50(), f32, everyone, [("adamw_book", "torch fused", 1.3)]),
        Scenario("gpt2 124M", gpt2(), f32, everyone, [("adamw_book", "torch fused", 1.3)]),
        Scenario("gpt2 124M, bfloat16", gpt2(), bf16, lean),
        Scenario(
            "ensemble of 1,000 with their own lr", mlp, f32,
            {"adamw_book": vectors, "torch fused, 1,000 groups": one_group_a_replica(replicas)},
            [("adamw_book", "torch fused, 1,000 groups", 100.0)],
        ),
        Scenario(
            "gpt2 124M, clip and step", gpt2(), f32,
            {"adamw_book max_norm": plain(max_norm=1e9), "torch clip + fused": clipped_by_torch()},
            [("adamw_book max_norm", "torch clip + fused", 1.2)],
        ),
        Scenario("gpt2 124M, variants", gpt2(), f32, variants, [(v, "plain", 0.97) for v in list(variants)[1:]]),
    ]  # fmt: skip
    if memory > 4 * 1.52e9 * (2 + 2 * len(lean)) * 1.05:
        scenarios.insert(6, Scenario("llama 1.5B", llama(), f32, lean))
    return scenarios


def cpu_scenarios() -> list[Scenario]:
    """A single model on the CPU, against torch's best there."""
    rivals = {
        "torch loop": torchs(foreach=False),
        "torch foreach": torchs(foreach=True),
        "torch fused": torchs(fused=True),
    }
    everyone = {"adamw_book": plain(), **rivals}
    mlp: Shapes = [(32, 64), (32,), (32, 32), (32,), (10, 32), (10,)]
    best = [("adamw_book", rival, 1 / 1.1) for rival in rivals]
    return [
        Scenario("mlp 64-32-32-10", mlp, torch.float32, everyone, best),
        Scenario("1,000 tensors of 1,000", [(1000,)] * 1000, torch.float32, everyone, best),
        Scenario("resnet50", resnet50(), torch.float32, everyone, best),
    ]


class Clock:
    """Times steps on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def time(self, step: Callable[[], object]) -> dict[str, float]:
        """Seconds of one step: on the host until the call returns, on the device, and until all is done (whole)."""
        self.wait()
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if self.device.type == "cuda" else []
        start = time.perf_counter()
        if events:
            events[0].record()
        step()
        if events:
            events[1].record()
        host = time.perf_counter() - start
        self.wait()
        whole = time.perf_counter() - start
        return {"host": host, "whole": whole} | ({"device": events[0].elapsed_time(events[1]) / 1e3} if events else {})

    def queued(self, step: Callable[[], object], times: int) -> float:
        """Seconds of device time a step when several wait in the queue, so that the host is out of the picture."""
        self.wait()
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        torch.cuda._sleep(200_000_000)
        events[0].record()
        for _ in range(times):
            step()
        events[1].record()
        self.wait()
        return events[0].elapsed_time(events[1]) / 1e3 / times

    def launches(self, step: Callable[[], object]) -> int | None:
        """Kernels that one step launches."""
        if self.device.type != "cuda":
            return None
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as trace:
            step()
            self.wait()
        return sum(e.count for e in trace.key_averages() if e.device_type.name == "CUDA" and "Mem" not in e.key)

    def extra_memory(self, step: Callable[[], object]) -> int | None:
        """Bytes that a step needs for a moment, beyond what stays."""
        if self.device.type != "cuda":
            return None
        self.wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        self.wait()
        return torch.cuda.max_memory_allocated() - before


def ceiling(device: torch.device, numbers: int) -> dict[str, float]:
    """Bytes a second of a copy and of a triad over float32 vectors of so many numbers, the best of ten."""
    a, b, c = (torch.ones(numbers, device=device) for _ in range(3))
    clock, best = Clock(device), {"copy": 0.0, "triad": 0.0}
    for _ in range(10):
        for name, step, moved in (
            ("copy", lambda: a.copy_(b), 8 * numbers),
            ("triad", lambda: torch.add(b, c, alpha=0.5, out=a), 12 * numbers),
        ):
            spent = clock.time(step)
            best[name] = max(best[name], moved / spent.get("device", spent["whole"]))
    return best


def race(scenario: Scenario, device: torch.device, seconds: float) -> dict:
    """Time every contender in turns for about ``seconds``; medians, launches, memory."""
    torch.manual_seed(0)
    params = [torch.randn(s, device=device, dtype=scenario.dtype).requires_grad_() for s in scenario.shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    clock, steps = Clock(device), {}
    for name, contender in scenario.contenders.items():
        optimizer = contender.make(params)
        steps[name] = lambda c=contender, o=optimizer: c.step(o)
        for _ in range(3):
            steps[name]()
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in steps}
    start = time.perf_counter()
    while len(samples[name]) < 5 or (time.perf_counter() - start < seconds and len(samples[name]) < 200):
        for name, step in steps.items():
            samples[name].append(clock.time(step))
    found = {}
    for name, step in steps.items():
        found[name] = {k: statistics.median(s[k] for s in samples[name]) for k in samples[name][0]}
        if device.type == "cuda":
            found[name]["device"] = statistics.median(clock.queued(step, 5) for _ in range(5))
            found[name]["launches"] = clock.launches(step)
            found[name]["extra memory"] = clock.extra_memory(step)
    return {"contenders": found, "numbers": sum(p.numel() for p in params), "rounds": len(samples[name])}


def agree(device: torch.device) -> float:
    """The largest difference between a step of ours and of torch's, as a share of the learning rate."""
    start = [torch.randn(s, device=device) for s in ((1000, 100), (7,), (3, 5, 7))]
    results = []
    for make in (plain(), torchs()):
        params = [p.clone().requires_grad_() for p in start]
        for p in params:
            p.grad = torch.ones_like(p)
        make.step(make.make(params))
        results.append(params)
    return max((a - b).abs().max().item() for a, b in zip(*results, strict=True)) / LR


def report(scenario: Scenario, result: dict, bandwidth: dict[str, float]) -> None:
    moved = 7 * result["numbers"] * torch.empty((), dtype=scenario.dtype).element_size()
    print(f"\n{scenario.name}: {len(scenario.shapes)} tensors, {result['numbers'] / 1e6:,.1f} million numbers, "
          f"{result['rounds']} rounds")  # fmt: skip
    for name, row in result["contenders"].items():
        device = row.get("device", row["whole"])
        share = moved / device / bandwidth["triad"]
        line = f"  {name:28s} whole {row['whole'] * 1e6:10,.0f} µs   host {row['host'] * 1e6:9,.0f} µs"
        if "device" in row:
            line += f"   device {device * 1e6:10,.0f} µs   {share:5.0%} of triad   {row['launches']:4d} launches"
            line += f"   {row['extra memory'] / 2**20:8,.0f} MiB for a moment"
        print(line)
    for name, rival, least in scenario.targets:
        ratio = result["contenders"][rival]["whole"] / result["contenders"][name]["whole"]
        verdict = "reached" if ratio >= least else "missed"
        print(f"  {rival} ÷ {name}: {ratio:.2f} (at least {least:.2f}: {verdict})")


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda or "none"}
    for package in ("triton", "flashoptim", "torch-optimi"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each scenario")
    parser.add_argument("--record", action="store_true", help="write the figures to benchmarks/results/")
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    scenarios = gpu_scenarios(torch.cuda.mem_get_info()[0]) if gpu else cpu_scenarios()
    about = {"date": datetime.now(UTC).date().isoformat(), "device": device_name(device), "versions": versions()}
    print(f"{about['device']}, " + ", ".join(f"{k} {v}" for k, v in about["versions"].items()))
    if not gpu:
        about["threads"] = torch.get_num_threads()
        print(f"{about['threads']} threads")
    print(f"one step of adamw_book and of torch differ by {agree(device):.1e} of the learning rate at most")
    bandwidth = ceiling(device, 2**28 if gpu else 2**24)
    print("memory: " + ", ".join(f"{k} {v / 1e9:,.0f} GB/s" for k, v in bandwidth.items()))
    results = {}
    for scenario in scenarios:
        if options.only in scenario.name:
            results[scenario.name] = race(scenario, device, options.seconds)
            report(scenario, results[scenario.name], bandwidth)
            if gpu:
                torch.cuda.empty_cache()
    if not gpu:
        print("\nnot yet measured here, for want of a GPU:")
        for scenario in gpu_scenarios(141e9):
            print(f"  {scenario.name}: {', '.join(scenario.contenders)}")
    if options.record:
        folder = Path(__file__).parent / "results"
        folder.mkdir(exist_ok=True)
        target = folder / f"optimizer_step_{re.sub(r'[^a-z0-9]+', '_', about['device'].lower()).strip('_')}.json"
        target.write_text(json.dumps(about | {"bandwidth": bandwidth, "scenarios": results}, indent=1) + "\n")
        print(f"wrote {target.name}")


if __name__ == "__main__":
    main()
