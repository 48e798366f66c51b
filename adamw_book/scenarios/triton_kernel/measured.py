"""Times and bytes of optimizer steps, and the benchmark's records."""

import json
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pandas as pd
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...ledger.files import find_root

Make = Callable[[list[Tensor]], Optimizer]


def stand_in():
    """What ``triton`` and ``tl`` must have for kernels to be written down where Triton does not exist."""
    return SimpleNamespace(jit=lambda function: function), SimpleNamespace(constexpr=object)


def parameters(shapes: list[tuple[int, ...]], device: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Random parameters with random gradients, the same at each call."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.randn(s, generator=generator).to(device, dtype).requires_grad_() for s in shapes]
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(device, dtype)
    return params


def seconds(step: Callable[[], object], device: str, repeat: int = 7) -> float:
    """The shortest time of some, until the device is done."""

    def once() -> float:
        start = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    return min(once() for _ in range(repeat))


def race(shapes: list[tuple[int, ...]], makes: dict[str, Make], device: str, rounds: int = 7) -> dict[str, float]:
    """Name → seconds of a step, the median over rounds; all take turns on the same parameters."""
    params = parameters(shapes, device)
    optimizers = {name: make(params) for name, make in makes.items()}
    taken: dict[str, list[float]] = {name: [] for name in makes}
    for _ in range(rounds):
        for name, optimizer in optimizers.items():
            taken[name].append(seconds(optimizer.step, device, repeat=1))
    return {name: statistics.median(values) for name, values in taken.items()}


class _Counter(TorchDispatchMode):
    """Adds up the bytes that each operation has to read and to write: every tensor it is given, once; every one it
    changes or makes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        schema = operation._schema
        if not schema.name.endswith(("::detach", "::view", "::alias", "::unbind")):  # no data is touched
            given = {a.name: value for a, value in zip(schema.arguments, args, strict=False)} | kwargs
            for argument in schema.arguments:
                size = _bytes(given.get(argument.name))
                self.bytes += size * (2 if argument.alias_info is not None and argument.alias_info.is_write else 1)
        result = operation(*args, **kwargs)
        if all(r.alias_info is None for r in schema.returns):
            self.bytes += _bytes(result)
        return result


def _bytes(value) -> int:
    return sum(t.numel() * t.element_size() for t in tree_leaves(value) if isinstance(t, Tensor))


def bytes_moved(make: Make, number: int = 2**16) -> float:
    """Bytes a parameter that a step of an optimizer reads and writes, by the operations that it calls. The second step
    counts: the first one makes the state."""
    optimizer = make(parameters([(number,)], "cpu"))
    optimizer.step()
    with _Counter() as counter:
        optimizer.step()
    return round(counter.bytes / number, 2)


@contextmanager
def without_launches():
    """Optimizers do all that they do on the host, and launch nothing: of ours the kernel's launch is left out, of
    torch's fused AdamW its operator."""
    from ...optim import triton_kernel

    nothing = lambda *_, **__: None  # noqa: E731
    with patch.object(triton_kernel, "launch", nothing), patch.object(torch, "_fused_adamw_", nothing):
        yield


def host_seconds(makes: dict[str, Make], shapes: list[tuple[int, ...]], rounds: int = 40) -> dict[str, float]:
    """Name → seconds of a step on the host without its launches, the median over rounds in turns."""
    with without_launches():
        optimizers = {name: make(parameters(shapes, "cpu")) for name, make in makes.items()}
        taken: dict[str, list[float]] = {name: [] for name in makes}
        for _ in range(rounds):
            for name, optimizer in optimizers.items():
                taken[name].append(seconds(optimizer.step, "cpu", repeat=1))
    return {name: statistics.median(values) for name, values in taken.items()}


def records() -> list[dict]:
    """What ``python benchmarks/optimizer_step.py --record`` has written, one record a device."""
    folder: Path = find_root().parent / "benchmarks" / "results"
    return [json.loads(path.read_text()) for path in sorted(folder.glob("optimizer_step_*.json"))]


def asked_table(found: list[dict]) -> pd.DataFrame:
    """What is asked of the optimizer beside what the records measured of it; with several of one kind, the newest's.

    Columns: what, device ("GPU" or "CPU"), asked, measured (a number, or nan), met (True, False or None).
    """
    rows: dict[str, dict] = {}
    for record in sorted(found, key=lambda r: r["date"]):
        for row in record["asked"]:
            if row["measured"] is not None or row["what"] not in rows:
                rows[row["what"]] = row
    return pd.DataFrame(list(rows.values()), columns=["what", "device", "asked", "measured", "met"])
