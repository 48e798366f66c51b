"""Runs per second: the ensemble against a plain loop over torch.optim.AdamW, side by side in one process.

The task is that of the learning-rate × decay map: digits, MLP 64-32-10, batches of 50. The plain loop is what a
practitioner would write for one model; it is timed in each of torch's settings (default, loop, which is the default
on a CPU, foreach and fused; one thread and all), and the ensemble is compared with the default and with the fastest of
them. Where JAX and optax are installed, jax.vmap takes part: the same runs, compiled as a whole beforehand. Rounds of
all are interleaved, so that a change in the machine's speed meets all.

    python benchmarks/ensemble.py                     prints a table
    python benchmarks/ensemble.py --runs 1000 10000   ensembles of these sizes
    python benchmarks/ensemble.py --record            also writes benchmarks/results/ensemble_<device>.json
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this clone's package, whatever is installed
from adamw_book.ensemble import batch_order, initial_parameters, train  # noqa: E402
from adamw_book.evidence import grid  # noqa: E402
from adamw_book.scenarios.decoupled_weight_decay import CONDITIONS  # noqa: E402

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take most of a GPU's memory
BATCH = 50
TASK = CONDITIONS["MLP"].task
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


def ensemble_table(count: int) -> pd.DataFrame:
    """``count`` runs, learning rates × decays × seeds."""
    arms = {"AdamW": {"lr": [1e-3, 3e-3, 1e-2, 3e-2], "weight_decay": [0.1, 0.3, 1.0, 3.0]}}
    return grid(arms, range(-(-count // 16))).iloc[:count]


def ensemble_runs(count: int, steps: int, device: torch.device):
    """``count`` runs at once."""
    return train(
        TASK, ensemble_table(count), steps=steps, batch_size=BATCH, evaluate=(), keep_parameters=True, device=device,
    )  # fmt: skip


def seconds(function, device: torch.device) -> float:
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def largest_differences(steps: int, device: torch.device) -> dict[str, float]:
    """Between the parameters of one row of an ensemble and of the same run as a plain loop."""
    runs = ensemble_table(48).reset_index(drop=True)
    row = runs.query("seed == 1 and lr == 0.003 and weight_decay == 1.0").index[0]
    model = plain_run(1, steps, device)
    together = {"ensemble": ensemble_runs(48, steps, device).parameters}
    if find_spec("jax"):
        from ensemble_races.jax_vmap import train_runs

        together["jax.vmap"] = train_runs(TASK, runs, steps, BATCH)
    return {
        name: max(
            (torch.as_tensor(parameters[n][row]) - p.detach().cpu()).abs().max().item()
            for n, p in model.named_parameters()
        )
        for name, parameters in together.items()
    }


def contenders(counts: list[int], steps: int, device: torch.device) -> dict[tuple, tuple[int, Callable[[], object]]]:
    """(kind, setting or runs, threads) → how many models it trains, and the call that does."""
    all_threads, found = torch.get_num_threads(), {}
    for threads in sorted({1, all_threads}):
        for setting, options in SETTINGS.items():
            found["plain", setting, threads] = 1, lambda o=options: plain_run(0, steps, device, **o)
    for count in counts:
        found["ensemble", count, all_threads] = count, lambda c=count: ensemble_runs(c, steps, device)
        if find_spec("jax"):
            from ensemble_races.jax_vmap import train_runs

            runs = ensemble_table(count)
            found["jax.vmap", count, all_threads] = count, lambda r=runs: train_runs(TASK, r, steps, BATCH)
    return found


def measure(counts: list[int], steps: int, rounds: int, device: torch.device) -> dict:
    """Runs per second of all, each round on its own, and the ratio of each round."""
    calls, all_threads = contenders(counts, steps, device), torch.get_num_threads()
    speed = {key: [] for key in calls}
    for round in range(rounds + 1):
        for key, (models, call) in calls.items():
            torch.set_num_threads(key[2])
            spent = seconds(call, device)
            if round:  # the first warms up, and JAX compiles in it
                speed[key].append(models / spent)
    torch.set_num_threads(all_threads)

    def median(key):
        return statistics.median(speed[key])

    plain = [key for key in speed if key[0] == "plain"]
    default, fastest = max((k for k in plain if k[1] == "default"), key=median), max(plain, key=median)
    ratios = {}
    for key in speed:
        if key[0] != "plain":
            for what, other in (("torch.optim.AdamW as it comes", default), ("the fastest setting", fastest)):
                pairs = zip(speed[key], speed[other], strict=True)
                ratios[f"{label(key)} ÷ {what} ({label(other)})"] = [a / b for a, b in pairs]
    return {"runs per second": {label(key): values for key, values in speed.items()}, "ratios": ratios}


def label(key: tuple) -> str:
    kind, which, threads = key
    threads = f"{threads} thread{'s' * (threads > 1)}"
    return f"{which}, {threads}" if kind == "plain" else f"{kind}, {which:,} runs at once, {threads}"


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[512], help="runs in the ensemble, one or more numbers")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="write the figures to benchmarks/results/")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = device_name(device)
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    versions |= {"jax": importlib.metadata.version("jax")} if find_spec("jax") else {}
    print(f"{name}, " + ", ".join(f"{k} {v}" for k, v in versions.items()))
    print(f"MLP 64-32-10, batch {BATCH}, {options.steps} steps; {options.rounds} rounds, medians")
    differences = largest_differences(min(options.steps, 50), device)
    for together, difference in differences.items():
        print(f"one row of {together} against the same run alone: largest difference {difference:.1e}")
    found = measure(options.runs, options.steps, options.rounds, device)
    print()
    for row, values in found["runs per second"].items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{row:48s} {middle:9.1f} runs/s   [{low:.1f}, {high:.1f}]")
    print()
    for against, values in found["ratios"].items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{against}: {middle:.1f}×   [{low:.1f}, {high:.1f}]")
    if options.record:
        results = Path(__file__).parent / "results"
        results.mkdir(exist_ok=True)
        target = results / f"ensemble_{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}.json"
        about = {"date": datetime.now(UTC).date().isoformat(), "device": name, "versions": versions}
        about |= {"steps": options.steps, "largest difference": differences}
        target.write_text(json.dumps(about | found, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {target.name}")


if __name__ == "__main__":
    main()
