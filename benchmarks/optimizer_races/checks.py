"""What must hold before times mean anything."""

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import torch

from adamw_book.optim import AdamW

from .scenarios import DECAY, LR

ROOT = Path(__file__).parents[2]


def agreement(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """The largest difference after three steps of ours and of torch's, as a share of the learning rate."""
    start, *grads = ([torch.randn(s, device=device, dtype=dtype) for s in ((1000, 100), (7,), (3, 5, 7))]
                     for _ in range(4))  # fmt: skip
    results = []
    for cls in (AdamW, torch.optim.AdamW):
        params = [p.clone().requires_grad_() for p in start]
        optimizer = cls(params, lr=LR, weight_decay=DECAY)
        for now in grads:
            for p, g in zip(params, now, strict=True):
                p.grad = g.clone()
            optimizer.step()
        results.append(params)
    return max((a - b).abs().max().item() for a, b in zip(*results, strict=True)) / LR


def rows(device: torch.device, replicas: int = 1000, steps: int = 3) -> float:
    """The largest difference between a replica of an ensemble and the same model alone under torch's AdamW."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(replicas, 32, 64), (replicas, 32), (replicas, 10, 32), (replicas, 10)]
    params = [torch.randn(s, generator=generator).to(device) for s in shapes]
    grads = [[torch.randn(s, generator=generator).to(device) for s in shapes] for _ in range(steps)]
    lr = LR * (1 + torch.arange(replicas, device=device) / replicas)
    decay = 0.1 * torch.arange(replicas, device=device) / replicas
    chosen = sorted({0, 1, replicas // 2, replicas - 1})
    alone = {r: [p[r].clone() for p in params] for r in chosen}
    optimizers = {r: torch.optim.AdamW(alone[r], lr=float(lr[r]), weight_decay=float(decay[r])) for r in chosen}
    ensemble = AdamW(params, lr=lr, weight_decay=decay)
    for now in grads:
        for p, g in zip(params, now, strict=True):
            p.grad = g
        ensemble.step()
        for r in chosen:
            for p, g in zip(alone[r], now, strict=True):
                p.grad = g[r].clone()
            optimizers[r].step()
    return max((p[r] - q).abs().max().item() for r in chosen for p, q in zip(params, alone[r], strict=True))


def workers() -> int:
    """Processes that share a GPU while it is checked: a core each, and memory for as many contexts."""
    return max(1, min(8, (os.cpu_count() or 1) // 2))


def tests_on_the_gpu() -> int:
    """Failures among the tests that use it: torch's own configurations, the kernel's cases, CUDA graphs."""
    print("tests on the GPU:", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/optim", "-k", "cuda or gpu"]
    command += ["-n", str(workers())] if find_spec("xdist") else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(*done.stdout.splitlines()[-12:], sep="\n")
    counted = [int(n) for n in re.findall(r"(\d+) (?:failed|error)", done.stdout)]
    return sum(counted) if done.returncode == 0 and " passed" in done.stdout else max(1, sum(counted))


# Hazards need shared memory, which the kernels use for sums over a block.
TOOLS = {"memcheck": [], "racecheck": ["clipped", "explain", "all", "norm", "explanation"]}


def sanitizer() -> int | None:
    """Errors and hazards that NVIDIA's compute-sanitizer finds while the kernel's cases run, and cases that fail; None
    where it is not installed."""
    tool = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if tool is None:
        print("compute-sanitizer is not installed")
        return None
    print("compute-sanitizer:", flush=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
    parts, jobs = workers(), []
    for name, only in TOOLS.items():
        for i in range(parts):
            cases = [sys.executable, "tests/optim/kernel_cases.py", "--device", "cuda", "--brief"]
            cases += ["--part", f"{i}/{parts}", *(["--only", *only] if only else [])]
            # Calls that fail on purpose, as torch's and Triton's questions what a driver can do, are no errors.
            options = ["--target-processes", "application-only", "--report-api-errors", "no"]
            jobs.append((name, [tool, "--tool", name, *options, *cases]))

    def run(job: tuple[str, list[str]]) -> int:
        name, command = job
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        found = re.search(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:error|hazard)", done.stdout)
        ran = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
        failed = [case for case, why in ran if why is not None]
        print(f"  {name}: {len(ran)} cases, failed: {failed or 'none'};", *done.stdout.splitlines()[-1:], flush=True)
        return len(failed) + (int(found[1]) if found and ran and done.returncode == 0 else 1)

    with ThreadPoolExecutor(parts) as pool:
        return sum(pool.map(run, jobs))
