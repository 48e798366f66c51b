"""FSDP2 and DDP with two gloo processes on the CPU: each run ends where the single process ends."""

import os
import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adamw_book.optim import AdamW

STEPS, PROCESSES = 6, 2
SCENARIOS = {  # name → (engine, options)
    "fsdp": ("fsdp", {}),
    "fsdp, amsgrad": ("fsdp", {"amsgrad": True}),
    "fsdp, cautious, l2": ("fsdp", {"cautious": True, "l2": 0.1}),
    "fsdp, clipped": ("fsdp", {"max_norm": 0.5}),
    "fsdp, one head clipped": ("fsdp head", {"max_norm": 0.01}),
    "fsdp, explained": ("fsdp", {"explain": True}),
    "fsdp, resumed from a checkpoint": ("fsdp", {"amsgrad": True}),
    "ddp": ("ddp", {}),
    "ddp, clipped": ("ddp", {"max_norm": 0.5}),
}
BACKENDS = [None, "reference", "triton"]


def network(seed: int = 0, engine: str = "fsdp") -> nn.Sequential:
    """Seven and three rows divide unevenly among two processes, and of one row one of them gets nothing: with the
    engine "fsdp head", where that row alone is trained, nothing at all."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Tanh(), nn.Linear(3, 1))
    if engine == "fsdp head":
        model[:4].requires_grad_(False)
    return model


def batch(step: int) -> Tensor:
    return torch.randn(PROCESSES, 4, 5, generator=torch.Generator().manual_seed(step))


def train(model: nn.Module, optimizer: AdamW, data: list[Tensor]) -> None:
    for x in data:
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()


def outcome(model: nn.Module, optimizer: AdamW) -> dict[str, Tensor]:
    """Parameters, state and explanation by name, in full on every process."""

    def full(t: Tensor) -> Tensor:
        return (t.full_tensor() if hasattr(t, "full_tensor") else t).detach()

    explained = optimizer.explanation() if optimizer.explain else {}
    explained = optimizer.explanation() if optimizer.explain else {}  # asking twice gives the same
    found = {}
    for name, p in model.named_parameters():
        name = name.removeprefix("module.")
        found[name] = full(p)
        found |= {f"{name}, {key}": full(value) for key, value in optimizer.state.get(p, {}).items()}
        if p in explained:
            found |= {f"{name}, {key}": value for key, value in explained[p]._asdict().items()}
    return found


def single_process(engine: str, options: dict) -> dict[str, Tensor]:
    model = network(engine=engine)
    optimizer = AdamW(model.parameters(), lr=0.05, weight_decay=0.1, **options)
    train(model, optimizer, [batch(step).flatten(0, 1) for step in range(STEPS)])
    return outcome(model, optimizer)


def sharded(seed: int, options: dict, engine: str = "fsdp") -> tuple[nn.Module, AdamW]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model, mesh = network(seed, engine), init_device_mesh("cpu", (PROCESSES,))
    for layer in (*(model[i] for i in (0, 2, 4)), model):
        fully_shard(layer, mesh=mesh)
    return model, AdamW(model.parameters(), **{"lr": 0.05, "weight_decay": 0.1, **options})


def through_a_checkpoint(model: nn.Module, optimizer: AdamW, options: dict, folder: Path) -> tuple[nn.Module, AdamW]:
    """What torch.distributed.checkpoint makes of a saved run: a new model and optimizer with its state."""
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    weights, state = get_state_dict(model, optimizer)
    checkpoint.save({"model": weights, "optimizer": state}, checkpoint_id=folder)
    model, optimizer = sharded(1, options | {"amsgrad": True})
    weights, state = get_state_dict(model, optimizer)
    checkpoint.load({"model": weights, "optimizer": state}, checkpoint_id=folder)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
    return model, optimizer


def process(rank: int, folder: str, backend: str | None) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=PROCESSES
    )
    data = [batch(step)[rank] for step in range(STEPS)]
    results = {}
    for name, (engine, options) in SCENARIOS.items():
        options = options | {"backend": backend}
        if engine == "ddp":
            model = DistributedDataParallel(network())
            optimizer = AdamW(model.parameters(), lr=0.05, weight_decay=0.1, **options)
        else:
            model, optimizer = sharded(0, options, engine)
        half = STEPS // 2 if "checkpoint" in name else STEPS
        train(model, optimizer, data[:half])
        if "checkpoint" in name:
            model, optimizer = through_a_checkpoint(model, optimizer, options, Path(folder) / "checkpoint")
            train(model, optimizer, data[half:])
        results[name] = outcome(model, optimizer)
        results[name]["backend"] = optimizer.backend
    try:
        sharded(0, {"lr": torch.ones(7), "backend": backend})
        results["refused"] = "not refused"
    except ValueError as error:
        results["refused"] = str(error)
    if rank == 0:
        torch.save(results, Path(folder) / "results.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results() -> dict:
    """backend → scenario → outcome; one pair of processes for each backend, the kernel's with Triton's interpreter."""
    found = {}
    for backend in BACKENDS:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            if backend == "triton":
                try:
                    import triton  # noqa: F401
                except ImportError:
                    continue
                patch.setitem(os.environ, "TRITON_INTERPRET", "1")
            torch.multiprocessing.spawn(process, args=(folder, backend), nprocs=PROCESSES)
            found[backend] = torch.load(Path(folder) / "results.pt")
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_two_processes_end_where_one_does(scenario, backend, results):
    if backend not in results:
        pytest.skip("Triton is not available for this platform")
    found = dict(results[backend][scenario])
    engine, options = SCENARIOS[scenario]
    beyond_torch = options.get("explain") or options.get("cautious")
    assert found.pop("backend") == (backend or ("reference" if beyond_torch else "torch"))
    expected = single_process(engine, options)
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name].to(value.dtype), value, rtol=1e-5, atol=1e-6, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_vectors_over_shards_are_refused(backend, results):
    if backend not in results:
        pytest.skip("Triton is not available for this platform")
    assert "lr: the replicas of a parameter of shape (7, 5) are spread over processes" in results[backend]["refused"]
