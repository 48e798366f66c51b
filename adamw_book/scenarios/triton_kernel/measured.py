"""Times and bytes of optimizer steps, and the benchmark's records."""

import json
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


def race(steps: dict[str, Callable[[], object]], device: str, rounds: int = 7) -> dict[str, float]:
    """Name → seconds of a step until the device is done: the shortest of several rounds, in which all take turns."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            taken[name].append(time.perf_counter() - start)
    return {name: min(values[1:]) for name, values in taken.items()}  # the first round makes states


class _Counter(TorchDispatchMode):
    """Adds up the bytes that each operation has to read and to write: every tensor that it is given, once, and
    every one that it changes or makes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        schema = operation._schema
        if schema.name.endswith(("::detach", "::view", "::alias", "::unbind")):  # no data is touched
            return result
        given = kwargs | {a.name: value for a, value in zip(schema.arguments, args, strict=False)}
        changed = [given.get(a.name) for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        made = result if all(r.alias_info is None for r in schema.returns) else None
        self.bytes += sum(_bytes(given).values()) + sum(_bytes(changed).values()) + sum(_bytes(made).values())
        return result


def _bytes(values) -> dict[int, int]:
    """Sizes of the tensors in any structure, each once."""
    return {id(t): t.numel() * t.element_size() for t in tree_leaves(values) if isinstance(t, Tensor)}


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


def host_seconds(
    makes: dict[str, Make], shapes: list[tuple[int, ...]], device: str, rounds: int = 40
) -> dict[str, float]:
    """Name → seconds of a step on the host without its launches, the shortest of several rounds in turns."""
    with without_launches():
        return race({name: make(parameters(shapes, device)).step for name, make in makes.items()}, device, rounds)


def records() -> list[dict]:
    """What ``python benchmarks/optimizer_step.py --record`` has written, one record a device."""
    folder = Path(__file__).resolve().parents[3] / "benchmarks" / "results"  # the clone's
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


def race_table(found: list[dict]) -> pd.DataFrame:
    """The records' races of whole steps, one row a contender.

    Columns: device, kind ("GPU" or "CPU"), race, tensors, numbers, contender ("this book's" or torch's), ms (a whole
    step, until the device is done), floor ms (the least that its bytes take at the triad's bandwidth), launches
    (nan on a CPU).
    """
    rows = [
        {
            "device": record["device"],
            "kind": record["kind"],
            "race": name,
            "tensors": race["tensors"],
            "numbers": race["numbers"],
            "contender": "this book's" if contender == "adamw_book" else contender,
            "ms": 1e3 * times["whole"],
            "floor ms": 1e3 * times["share"] * times.get("device", times["whole"]),
            "launches": times.get("launches", float("nan")),
        }
        for record in found
        for name, race in record["scenarios"].items()
        for contender, times in race["contenders"].items()
    ]
    columns = ["device", "kind", "race", "tensors", "numbers", "contender", "ms", "floor ms", "launches"]
    return pd.DataFrame(rows, columns=columns)
