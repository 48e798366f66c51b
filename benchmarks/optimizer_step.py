"""One optimizer step: time on the device and on the host, launches, bytes a second against the memory's ceiling.

All contenders run in one process, in turns and in a new order each time, on the same parameters and gradients, each
with its own state; figures are medians. A step must read parameter, gradient and both moments and write all but the
gradient, so its floor is bytes over bandwidth; the bandwidth is the better of two triads, a = b + s·c and a = a + s·b,
in the same run. One call compares with torch, times, and prints what was asked beside what was measured; on a GPU the
tests that need one and compute-sanitizer come last:

    python benchmarks/optimizer_step.py                all races on a GPU, single models on a CPU
    python benchmarks/optimizer_step.py --only gpt2    scenarios whose name contains a word
    python benchmarks/optimizer_step.py --no-tests     on a GPU, without the tests and compute-sanitizer
    python benchmarks/optimizer_step.py --record       writes benchmarks/results/optimizer_step_<device>.json, too

flashoptim and torch-optimi take part where they are installed.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import random
import re
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this clone's package, whatever is installed
from optimizer_races import asked, checks, host  # noqa: E402
from optimizer_races.clock import Clock, busy_cores, ceiling  # noqa: E402
from optimizer_races.scenarios import Scenario, cpu_scenarios, free_memory, gpu_scenarios  # noqa: E402


def race(scenario: Scenario, device: torch.device, seconds: float, bandwidth: float) -> dict:
    """Time every contender in turns for about ``seconds``: medians, launches, memory, share of the ceiling."""
    torch.manual_seed(0)
    params = [torch.randn(s, device=device, dtype=scenario.dtype).requires_grad_() for s in scenario.shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    numbers = sum(p.numel() for p in params)
    moved = 7 * numbers * params[0].element_size()
    clock, steps, absent = Clock(device), {}, {}
    for name, contender in scenario.contenders.items():
        try:
            optimizer = contender.make(params)
            for _ in range(3):
                contender.step(optimizer)
        except Exception as error:
            if name.startswith(("adamw_book", "torch fused")):
                raise
            absent[name] = f"{type(error).__name__}: {error}"
            continue
        steps[name] = lambda c=contender, o=optimizer: c.step(o)
    order, shuffled = list(steps), random.Random(0)
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in steps}
    start, rounds = time.perf_counter(), 0
    while rounds < 5 or (time.perf_counter() - start < seconds and rounds < 500):
        shuffled.shuffle(order)
        for name in order:
            samples[name].append(clock.time(steps[name]))
        rounds += 1
        if rounds == 5:  # who is far behind leaves the rounds to the others
            typical = {name: statistics.median(s["whole"] for s in samples[name]) for name in order}
            order = [name for name in order if typical[name] < 3 * min(typical.values())]
    found = {}
    for name, step in steps.items():
        found[name] = {k: statistics.median(s[k] for s in samples[name]) for k in samples[name][0]}
        whole = sorted(s["whole"] for s in samples[name])
        found[name]["quartiles"] = [whole[len(whole) // 4], whole[3 * len(whole) // 4]]
        if device.type == "cuda":
            alone = [clock.queued(step, 5) for _ in range(5)]
            found[name].pop("device")  # beside its own launches
            if None not in alone:
                found[name]["device"] = statistics.median(alone)
            found[name]["launches"] = clock.launches(step)
            found[name]["extra memory"] = clock.extra_memory(step)
        found[name]["share"] = moved / found[name].get("device", found[name]["whole"]) / bandwidth
    return {"contenders": found, "absent": absent, "tensors": len(params), "numbers": numbers, "rounds": rounds}


def report(name: str, result: dict) -> None:
    counted = f"{result['tensors']} tensors, {result['numbers'] / 1e6:,.1f} million numbers, {result['rounds']} rounds"
    print(f"\n{name}: {counted}")
    for contender, row in result["contenders"].items():
        low, high = row["quartiles"]
        line = f"  {contender:28s} whole {row['whole'] * 1e6:10,.0f} µs [{low * 1e6:,.0f}, {high * 1e6:,.0f}]"
        line += f"   processor {row['cpu'] * 1e6:10,.0f} µs   {row['share']:5.0%} of the ceiling"
        if "launches" in row:
            on_device = f"{row['device'] * 1e6:10,.0f} µs" if "device" in row else "  host-bound"
            line += f"   device {on_device}   host {row['host'] * 1e6:9,.0f} µs"
            line += f"   {row['launches']:4d} launches   {row['extra memory'] / 2**20:8,.0f} MiB for a moment"
        print(line)
    for contender, why in result["absent"].items():
        print(f"  {contender:28s} did not run: {why.splitlines()[0]}")


def report_host(situations: dict) -> None:
    for situation, contenders in situations.items():
        print(f"\nhost, the update left out, {host.TENSORS:,} tensors, {situation}:")
        for contender, row in contenders.items():
            print(f"  {contender:28s} host {row['host'] * 1e6:10,.0f} µs   processor {row['cpu'] * 1e6:10,.0f} µs")


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def load() -> float | None:
    """Processes that wanted a core in the last minute, this one among them; None where that is not told."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


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
    parser.add_argument("--no-tests", action="store_true", help="leave out tests and compute-sanitizer on a GPU")
    parser.add_argument("--record", action="store_true", help="write the figures to benchmarks/results/")
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    kind, device = ("GPU", torch.device("cuda")) if gpu else ("CPU", torch.device("cpu"))
    results = {"date": datetime.now(UTC).date().isoformat(), "kind": kind, "device": device_name(device)}
    results |= {"threads": torch.get_num_threads(), "versions": versions(), "load before": load()}
    print(f"{results['device']}, " + ", ".join(f"{k} {v}" for k, v in results["versions"].items()))

    results["checks"] = {"agreement": checks.agreement(device), "rows": checks.rows(device)}
    step, rows = results["checks"].values()
    print(f"largest difference from torch: {step:.1e} of the learning rate; of an ensemble's rows, {rows:.1e}")
    results["bandwidth"] = ceiling(device, 2**28 if gpu else 2**24)
    print("memory: " + ", ".join(f"{k} {v / 1e9:,.0f} GB/s" for k, v in results["bandwidth"].items()))
    roof = max(value for name, value in results["bandwidth"].items() if name.startswith("triad"))
    results["scenarios"] = {}
    for scenario in (gpu_scenarios if gpu else cpu_scenarios)(free_memory(device)):
        if options.only in scenario.name:
            result = race(scenario, device, options.seconds, roof)
            results["scenarios"][scenario.name] = result
            report(scenario.name, result)
            if gpu:
                torch.cuda.empty_cache()
                continue
            with busy_cores():
                results["scenarios"][asked.busy(scenario.name)] = race(scenario, device, options.seconds, roof)
            report(asked.busy(scenario.name), results["scenarios"][asked.busy(scenario.name)])

    if options.only in "host":
        results["host"] = host.situations()
        report_host(results["host"])

    results["load after"] = load()
    settle(results, kind, options.record)
    if gpu and not options.no_tests:  # they take minutes: the times are on record by then
        with ThreadPoolExecutor() as pool:
            failures, errors = (pool.submit(check) for check in (checks.tests_on_the_gpu, checks.sanitizer))
            results["checks"]["failures"] = failures.result()
            results["checks"] |= {} if errors.result() is None else {"sanitizer": errors.result()}
        settle(results, kind, options.record)


def settle(results: dict, kind: str, record: bool) -> None:
    """Print what was asked beside what was measured, and write the record."""
    results["asked"] = asked.rows(results, kind)
    print("\nasked, and measured:")
    print(*map(asked.text, results["asked"]), sep="\n", flush=True)
    if record:
        folder = Path(__file__).parent / "results"
        folder.mkdir(exist_ok=True)
        target = folder / f"optimizer_step_{re.sub(r'[^a-z0-9]+', '_', results['device'].lower()).strip('_')}.json"
        target.write_text(json.dumps(results, indent=1) + "\n")
        print(f"wrote {target.name}")


if __name__ == "__main__":
    main()
