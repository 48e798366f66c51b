"""Quantised networks as engines run them: torchao and ONNX Runtime against float32, side by side in one process.

Two MLPs learn digits as in the chapter on quantisation: the chapter's own, with the rate and decay that it chose, and
a wide one, since a small network is mostly overhead. Each is deployed in every way that there is: bytes on disk,
accuracy on the test images, how often it answers as the chapter's own quantiser does (weights rounded, float32
arithmetic), and the time of an answer for one image and for 64. Rounds of all are interleaved, so that a change in the
machine's speed meets all; ratios are taken within a round. One thread.

    python benchmarks/quantization.py             prints a table; needs torchao, onnx, onnxscript, onnxruntime
    python benchmarks/quantization.py --compile   torch's and torchao's networks also through torch.compile (a C++
                                                  compiler, some minutes)
    python benchmarks/quantization.py --record    also writes benchmarks/results/quantization_<device>.json
"""

import argparse
import importlib.metadata
import json
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # this clone's package, whatever is installed
from deployments import onnx_runtime, torch_ao  # noqa: E402
from deployments.network import Deployed, as_torch, of_layers  # noqa: E402

from adamw_book import ledger  # noqa: E402
from adamw_book.data import digits_splits  # noqa: E402
from adamw_book.ensemble import batch_order  # noqa: E402
from adamw_book.models import MLP  # noqa: E402
from adamw_book.replicas import made  # noqa: E402
from adamw_book.scenarios.quantization.deployed import FLOAT  # noqa: E402
from adamw_book.scenarios.quantization.quantisers import Scheme  # noqa: E402
from adamw_book.scenarios.quantization.tasks import TRAIN  # noqa: E402
from adamw_book.schedules import learning_rate_factors  # noqa: E402

NEEDED = ("torchao", "onnx", "onnxscript", "onnxruntime")
SEED, BATCHES = 300, (1, 64)


def networks() -> dict[str, tuple[Callable[[], MLP], float, float]]:
    """name → (how it is made, lr, weight_decay)."""
    winners = ledger.read("quantization.precision").tables["winners"]
    own = winners.query("condition == 'MLP · clean labels' and rule == 'accuracy' and arm == 'AdamW'").iloc[0]
    return {
        "64-32-10, the chapter's": (lambda: MLP(), own["lr"], own["weight_decay"]),
        "64-1024-1024-10": (lambda: MLP(width=1024, depth=2), 1e-3, 1.0),
    }


def fit(model: MLP, lr: float, weight_decay: float, steps: int = 400) -> MLP:
    """The model trained as in the chapter: batches of 50, a cosine schedule, decay on matrices only."""
    x, y = digits_splits(SEED, train=TRAIN, fixed_test=True)["train"]
    groups = [
        {"params": [p for p in model.parameters() if (p.ndim > 1) == m], "weight_decay": m * weight_decay}
        for m in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    for factor, batch in zip(learning_rate_factors("cosine", steps), batch_order(SEED, len(x), 50, steps), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = lr * factor
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    return model.requires_grad_(False)


def deployments(network: nn.Sequential, calibration: Tensor, folder: Path, compile: bool) -> dict[str, Deployed]:
    """All of them, by name; those of torch also compiled, where that is asked for."""
    found = {FLOAT: Deployed.of(network, folder / "float.pt")}
    found |= torch_ao.deploy(network, folder)
    if compile:
        compiled = {
            f"{n}, compiled": replace(one, answer=as_torch(torch.compile(one.module))) for n, one in found.items()
        }
        found |= compiled
    return found | onnx_runtime.deploy(network, calibration, folder)


def rounded(network: nn.Sequential, bits: int, grid: str) -> Callable[[Tensor], Tensor]:
    """The chapter's own answer: weights on its grid of so many bits, with a range each channel or for the tensor."""
    if bits == 32:
        return as_torch(network)
    scheme = Scheme(bits, per_channel=grid == "channel")
    weights = {n: scheme(p[None])[0] if p.ndim > 1 else p for n, p in network.named_parameters()}
    return lambda x: torch.func.functional_call(network, weights, (x,))


def seconds(answer: Callable[[Tensor], Tensor], x: Tensor, least: float = 0.02) -> float:
    """Of one answer, from as many as fill ``least`` seconds."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < least:
        answer(x)
        count += 1
    return (time.perf_counter() - start) / count


def measured(network: nn.Sequential, found: Mapping[str, Deployed], x: Tensor, y: Tensor, rounds: int) -> dict:
    """What is said of each deployment."""
    times = {name: {str(n): [] for n in BATCHES} for name in found}
    for round in range(rounds + 1):
        for name, one in found.items():
            for n in BATCHES:
                spent = seconds(one.answer, x[:n])
                if round:  # the first warms up, and compiles
                    times[name][str(n)].append(spent)
    classes = {name: one.answer(x).argmax(1) for name, one in found.items()}
    return {
        name: {
            "bytes": one.size,
            "bits": one.bits,
            "accuracy": (classes[name] == y).float().mean().item(),
            "as the chapter": (classes[name] == rounded(network, one.bits, one.grid)(x).argmax(1))
            .float()
            .mean()
            .item(),
            "as float32": (classes[name] == classes[FLOAT]).float().mean().item(),
            "seconds": times[name],
        }
        for name, one in found.items()
    }


def ratio(table: Mapping[str, dict], name: str, batch: int) -> list[float]:
    """Time over that of float32 in torch, round by round."""
    own, other = (table[n]["seconds"][str(batch)] for n in (name, FLOAT))
    return [a / b for a, b in zip(own, other, strict=True)]


def device_name() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--compile", action="store_true", help="torch's and torchao's networks also compiled")
    parser.add_argument("--record", action="store_true", help="write the figures to benchmarks/results/")
    options = parser.parse_args()
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        print(f"{', '.join(missing)}: not installed, so there is nothing to measure; `make engines` installs them")
        return
    torch.set_num_threads(1)
    name = device_name()
    versions = {n: importlib.metadata.version(n) for n in ("torch", *NEEDED)} | {"python": platform.python_version()}
    print(f"{name}, " + ", ".join(f"{k} {v}" for k, v in versions.items()))
    splits, tables = digits_splits(SEED, train=TRAIN, fixed_test=True), {}
    for title, (make, lr, weight_decay) in networks().items():
        network = of_layers(fit(made(make, SEED), lr, weight_decay))
        with tempfile.TemporaryDirectory() as folder:
            found = deployments(network, splits["validation"][0], Path(folder), options.compile)
            table = measured(network, found, *splits["test"], options.rounds)
        tables[title] = {"parameters": sum(p.numel() for p in network.parameters()), "deployments": table}
        print(
            f"\n{title}, lr {lr:g}, λ {weight_decay:g}: time against {FLOAT} for 1 and for 64 images, bytes, accuracy"
        )
        for row, values in table.items():
            one, many = (statistics.median(ratio(table, row, n)) for n in BATCHES)
            print(
                f"{row:68s} {one:6.2f}× {many:6.2f}×  {values['bytes']:9,d}  {values['accuracy']:.4f}, "
                f"as the chapter {values['as the chapter']:.1%}, as float32 {values['as float32']:.1%}"
            )
    if options.record:
        target = (
            ROOT / "benchmarks" / "results" / f"quantization_{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}.json"
        )
        about = {"date": datetime.now(UTC).date().isoformat(), "device": name, "versions": versions, "threads": 1}
        target.write_text(json.dumps(about | {"networks": tables}, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {target.name}")


if __name__ == "__main__":
    main()
