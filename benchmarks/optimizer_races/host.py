"""What a step costs on the host when the update itself is left out: ours its kernel's launch, torch's fused AdamW its
operator. Both count their steps.

Needs no GPU: ``TRITON_INTERPRET=1 python host.py`` prints the figures as JSON. It is a process of its own, since the
interpreter must be asked for before the kernel is imported.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]
TENSORS, ROUNDS = 1000, 60


def stay(params: list[Tensor], round: int) -> None:
    """The gradients are where they were, as where a loop does not set them to None."""


def move(params: list[Tensor], round: int) -> None:
    for p in params:
        p.grad = torch.ones_like(p)


def drop(params: list[Tensor], round: int) -> None:
    """Another eighth of the parameters has no gradient, as with experts or dropped layers."""
    for i, p in enumerate(params):
        p.grad = None if (i * 7 + i // 8 + round) % 8 == 0 else torch.ones_like(p)


Prepare = Callable[[list[Tensor], int], None]
SITUATIONS: dict[str, Prepare] = {"steady": stay, "gradients moved": move, "others missing": drop}


def measure() -> dict[str, dict[str, dict[str, float]]]:
    """Situation → contender → median seconds of a step on the wall's clock ("host") and on the processor's ("cpu")."""
    from adamw_book.optim import AdamW, triton_kernel

    torch.set_num_threads(1)
    found = {}
    nothing = lambda *_, **__: None  # noqa: E731
    with patch.object(triton_kernel, "launch", nothing), patch.object(torch, "_fused_adamw_", nothing):
        for situation, prepare in SITUATIONS.items():
            params = [torch.ones(TENSORS, requires_grad=True) for _ in range(TENSORS)]
            move(params, 0)
            optimizers = {
                "adamw_book": AdamW(params, backend="triton"),
                "torch fused": torch.optim.AdamW(params, fused=True),
            }
            samples = {name: {"host": [], "cpu": []} for name in optimizers}
            for round in range(ROUNDS + 10):
                prepare(params, round)
                for name, optimizer in sorted(optimizers.items(), reverse=round % 2 == 0):
                    wall, cpu = time.perf_counter(), time.process_time()
                    optimizer.step()
                    samples[name]["cpu"].append(time.process_time() - cpu)
                    samples[name]["host"].append(time.perf_counter() - wall)
            found[situation] = {
                name: {clock: statistics.median(values[10:]) for clock, values in clocks.items()}
                for name, clocks in samples.items()
            }
    return found


def situations() -> dict[str, dict[str, dict[str, float]]]:
    """What :func:`measure` finds in a process of its own; nothing where there is no Triton."""
    if find_spec("triton") is None:
        return {}
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    print(json.dumps(measure()))
