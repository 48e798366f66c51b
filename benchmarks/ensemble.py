"""Runs per second: the ensemble against a plain loop over torch.optim.AdamW and against JAX, side by side in one
process.

The task is that of the learning-rate × decay map: digits, batches of 50; an MLP 64-32-10, an RNN and a CNN. The plain
loop is what a practitioner would write for one model; it is timed in each of torch's settings (default, loop, which is
the default on a CPU, foreach and fused), and the ensemble is compared with the default and with the fastest of them.
Where JAX and optax are installed (`pip install jax optax`), jax.vmap over lax.scan takes part: the same runs, compiled
as a whole beforehand. All have the same cores, one by default. Rounds of all are interleaved, so that a change in the
machine's speed meets all; CPU seconds stand beside wall seconds.

    python benchmarks/ensemble.py                     prints a table
    python benchmarks/ensemble.py --runs 1000 10000   ensembles of these sizes, and the memory that they took
    python benchmarks/ensemble.py --record            also writes benchmarks/results/ensemble_<device>.json
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this clone's package, whatever is installed
from adamw_book import models  # noqa: E402
from adamw_book.ensemble import Task, batch_order, initial_parameters, train  # noqa: E402
from adamw_book.evidence import grid  # noqa: E402
from adamw_book.scenarios.decoupled_weight_decay import CONDITIONS  # noqa: E402

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take most of a GPU's memory
BATCH = 50
MODELS = ("MLP", "RNN", "CNN")
TASKS = {name: replace(CONDITIONS["MLP"].task, name=name, model=getattr(models, name)) for name in MODELS}
SETTINGS = {
    "default": {},
    "loop": {"foreach": False, "fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}


def plain_run(task: Task, seed: int, steps: int, device: torch.device, lr=3e-3, weight_decay=1.0, **setting):
    """One model, one optimizer, as a practitioner would write it; returns the trained module."""
    model = task.model()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(initial_parameters(task.model, [seed])[name][0])
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, **setting)
    x, y = (t.to(device) for t in task.data(seed)["train"])
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


def ensemble_runs(task: Task, count: int, steps: int, device: torch.device):
    """``count`` runs at once."""
    return train(
        task, ensemble_table(count), steps=steps, batch_size=BATCH, evaluate=(), keep_parameters=True, device=device,
    )  # fmt: skip


def spent(function, device: torch.device) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def largest_differences(task: Task, steps: int, device: torch.device) -> dict[str, float]:
    """Between the parameters of one row of an ensemble and of the same run as a plain loop."""
    runs = ensemble_table(48).reset_index(drop=True)
    row = runs.query("seed == 1 and lr == 0.003 and weight_decay == 1.0").index[0]
    model = plain_run(task, 1, steps, device)
    together = {"ensemble": ensemble_runs(task, 48, steps, device).parameters}
    if find_spec("jax"):
        from ensemble_races.jax_vmap import train_runs

        together["jax.vmap"] = train_runs(task, runs, steps, BATCH)
    return {
        name: max(
            (torch.as_tensor(parameters[n][row]) - p.detach().cpu()).abs().max().item()
            for n, p in model.named_parameters()
        )
        for name, parameters in together.items()
    }


def contenders(task: Task, counts: list[int], steps: int, device) -> dict[tuple, tuple[int, Callable[[], object]]]:
    """(kind, setting or runs) → how many models it trains, and the call that does."""
    found = {}
    for setting, options in SETTINGS.items():
        found["plain", setting] = 1, lambda o=options: plain_run(task, 0, steps, device, **o)
    for count in counts:
        found["ensemble", count] = count, lambda c=count: ensemble_runs(task, c, steps, device)
        if find_spec("jax"):
            from ensemble_races.jax_vmap import train_runs

            runs = ensemble_table(count)
            found["jax.vmap", count] = count, lambda r=runs: train_runs(task, r, steps, BATCH)
    return found


def measure(task: Task, counts: list[int], steps: int, rounds: int, device: torch.device) -> dict:
    """Runs per wall and per CPU second of all, each round on its own, and the ratio of each round."""
    calls = contenders(task, counts, steps, device)
    wall, cpu = {key: [] for key in calls}, {key: [] for key in calls}
    for round in range(rounds + 1):
        for key, (number, call) in calls.items():
            seconds, of_cpu = spent(call, device)
            if round:  # the first warms up, and JAX compiles in it
                wall[key].append(number / seconds)
                cpu[key].append(number / of_cpu)

    plain = [key for key in wall if key[0] == "plain"]
    fastest = max(plain, key=lambda key: statistics.median(wall[key]))
    ratios = {}
    for key in wall:
        rivals = [("torch.optim.AdamW as it comes", ("plain", "default")), ("its fastest setting", fastest)]
        if key[0] == "ensemble" and ("jax.vmap", key[1]) in wall:
            rivals.append(("jax.vmap", ("jax.vmap", key[1])))
        for what, other in rivals if key[0] != "plain" else []:
            for kind, speed in (("", wall), (", in CPU seconds", cpu)):
                pairs = zip(speed[key], speed[other], strict=True)
                ratios[f"{label(key)} ÷ {what} ({label(other)}){kind}"] = [a / b for a, b in pairs]
    return {
        "runs per second": {label(key): values for key, values in wall.items()},
        "runs per CPU second": {label(key): values for key, values in cpu.items()},
        "ratios": ratios,
    }


def label(key: tuple) -> str:
    kind, which = key
    return f"{which}, one at a time" if kind == "plain" else f"{kind}, {which:,} at once"


def megabytes() -> float:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--runs", type=int, nargs="+", default=[256], help="runs in the ensemble, one or more numbers")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, default=1, help="cores that everybody has, on Linux")
    parser.add_argument("--record", action="store_true", help="write the figures to benchmarks/results/")
    options = parser.parse_args()
    torch.set_num_threads(options.cores)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = device_name(device)
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    versions |= {"jax": importlib.metadata.version("jax")} if find_spec("jax") else {}
    print(", ".join([name, f"cores: {options.cores}", *(f"{k} {v}" for k, v in versions.items())]))
    print(f"batch {BATCH}, {options.steps} steps; {options.rounds} rounds, medians [least, most]")
    found = {}
    for model in options.models:
        differences = largest_differences(TASKS[model], min(options.steps, 50), device)
        print(f"\n{model}")
        for together, difference in differences.items():
            print(f"one row of {together} against the same run alone: largest difference {difference:.1e}")
        before = megabytes()
        table = measure(TASKS[model], options.runs, options.steps, options.rounds, device)
        table |= {"largest difference": differences, "megabytes beyond the imports": megabytes() - before}
        for row, values in table["runs per second"].items():
            low, middle, high = min(values), statistics.median(values), max(values)
            of_cpu = statistics.median(table["runs per CPU second"][row])
            print(f"{row:40s} {middle:9.1f} runs/s   [{low:.1f}, {high:.1f}]   {of_cpu:9.1f} runs/CPU s")
        for against, values in table["ratios"].items():
            low, middle, high = min(values), statistics.median(values), max(values)
            print(f"{against}: {middle:.2f}×   [{low:.2f}, {high:.2f}]")
        print(f"memory beyond what was held before: {table['megabytes beyond the imports']:.0f} MiB")
        found[model] = table
    if options.record:
        results = Path(__file__).parent / "results"
        results.mkdir(exist_ok=True)
        target = results / f"ensemble_{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}.json"
        about = {"date": datetime.now(UTC).date().isoformat(), "device": name, "versions": versions}
        about |= {"steps": options.steps, "cores": options.cores}
        target.write_text(json.dumps(about | found, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {target.name}")


if __name__ == "__main__":
    main()
