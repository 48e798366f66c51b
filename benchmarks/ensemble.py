"""Runs per second: the ensemble against a plain loop over torch.optim.AdamW, side by side in one process.

The task is that of the learning-rate × decay map: digits, MLP 64-32-10, batches of 50. The plain loop is what a
practitioner would write for one model; it is timed in each of torch's settings (default, loop, which is the default
on a CPU, foreach and fused; one thread and all), and the ensemble is compared with the default and with the fastest of
them. Rounds of both are interleaved, so that a change in the machine's speed meets both.

    python benchmarks/ensemble.py            prints a table
    python benchmarks/ensemble.py --record   also writes benchmarks/results/ensemble_<device>.json
"""

import argparse
import json
import platform
import re
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this clone's package, whatever is installed
from adamw_book.ensemble import batch_order, initial_parameters, train  # noqa: E402
from adamw_book.evidence import grid  # noqa: E402
from adamw_book.scenarios.decoupled_weight_decay import TASK  # noqa: E402

BATCH = 50
SETTINGS = {
    "default": {},
    "loop": {"foreach": False, "fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}


def plain_run(seed: int, steps: int, device: torch.device, lr: float = 3e-3, weight_decay: float = 1.0, **setting):
    """One model, one optimizer, as a practitioner would write it; returns the trained module."""
    model = TASK.model()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(initial_parameters(TASK.model, [seed])[name][0])
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, **setting)
    x, y = (t.to(device) for t in TASK.data(seed)["train"])
    batches = batch_order(seed, len(x), BATCH, steps).to(device)
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    return model


def ensemble_runs(count: int, steps: int, device: torch.device):
    """``count`` runs at once, learning rates × decays × seeds."""
    arms = {"AdamW": {"lr": [1e-3, 3e-3, 1e-2, 3e-2], "weight_decay": [0.1, 0.3, 1.0, 3.0]}}
    runs = grid(arms, range(-(-count // 16))).iloc[:count]
    result = train(
        TASK, runs, steps=steps, batch_size=BATCH, evaluate=(), keep_parameters=True, device=device, progress=False
    )
    return runs, result


def seconds(function, device: torch.device) -> float:
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def largest_difference(steps: int, device: torch.device) -> float:
    """Between the parameters of one row of an ensemble and of the same run as a plain loop."""
    runs, result = ensemble_runs(48, steps, device)
    row = runs.reset_index(drop=True).query("seed == 1 and lr == 0.003 and weight_decay == 1.0").index[0]
    model = plain_run(1, steps, device)
    return max((result.parameters[n][row] - p.detach().cpu()).abs().max().item() for n, p in model.named_parameters())


def measure(count: int, steps: int, rounds: int, device: torch.device) -> dict:
    """Runs per second of both, each round on its own, and the ratio of each round."""
    all_threads = torch.get_num_threads()
    threads = sorted({1, all_threads})
    candidates = [(n, s) for n in threads for s in SETTINGS]
    plain, together = {c: [] for c in candidates}, []
    for c in candidates:  # warm-up
        torch.set_num_threads(c[0])
        plain_run(0, min(steps, 30), device, **SETTINGS[c[1]])
    torch.set_num_threads(all_threads)
    ensemble_runs(count, min(steps, 30), device)
    for _ in range(rounds):
        for c in candidates:
            torch.set_num_threads(c[0])
            plain[c].append(1 / seconds(lambda c=c: plain_run(0, steps, device, **SETTINGS[c[1]]), device))
        torch.set_num_threads(all_threads)
        together.append(count / seconds(lambda: ensemble_runs(count, steps, device), device))

    def median(candidate):
        return statistics.median(plain[candidate])

    def ratios(candidate):
        return [e / p for e, p in zip(together, plain[candidate], strict=True)]

    default, fastest = max((c for c in candidates if c[1] == "default"), key=median), max(candidates, key=median)
    return {
        "plain": {label(c): plain[c] for c in candidates},
        "ensemble": together,
        "ensemble threads": all_threads,
        "ratios": {
            f"torch.optim.AdamW as it comes ({label(default)})": ratios(default),
            f"the fastest setting ({label(fastest)})": ratios(fastest),
        },
    }


def label(candidate: tuple[int, str]) -> str:
    threads, setting = candidate
    return f"{setting}, {threads} thread{'s' * (threads > 1)}"


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=512, help="runs in the ensemble")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="write the figures to benchmarks/results/")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = device_name(device)
    print(f"{name}, torch {torch.__version__}, Python {platform.python_version()}")
    print(
        f"MLP 64-32-10, batch {BATCH}, {options.steps} steps; {options.runs} runs at once; {options.rounds} rounds, "
        f"medians"
    )
    difference = largest_difference(min(options.steps, 50), device)
    print(f"one row of the ensemble against the same run alone: largest difference {difference:.1e}\n")
    found = measure(options.runs, options.steps, options.rounds, device)
    rows = {f"torch.optim.AdamW, {k}": v for k, v in found["plain"].items()}
    rows[f"ensemble, {found['ensemble threads']} threads"] = found["ensemble"]
    for row, values in rows.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{row:40s} {middle:8.1f} runs/s   [{low:.1f}, {high:.1f}]")
    print()
    for against, values in found["ratios"].items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"ensemble ÷ {against}: {middle:.1f}×   [{low:.1f}, {high:.1f}]")
    if options.record:
        results = Path(__file__).parent / "results"
        results.mkdir(exist_ok=True)
        target = results / f"ensemble_{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}.json"
        versions = {"torch": torch.__version__, "python": platform.python_version()}
        about = {"date": datetime.now(UTC).date().isoformat(), "device": name, "versions": versions}
        about |= {"runs": options.runs, "steps": options.steps, "largest difference": difference}
        target.write_text(json.dumps(about | found, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {target.name}")


if __name__ == "__main__":
    main()
