"""The benchmark's parameter lists are those of the models that they are named after, and its races run."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parents[2] / "benchmarks" / "optimizer_step.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("optimizer_step", PATH)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("model", "tensors", "numbers"),
    [("resnet50", 161, 25_557_032), ("gpt2", 148, 124_439_808), ("llama", 246, 1_518_450_688)],
)
def test_shapes(benchmark, model, tensors, numbers):
    shapes = getattr(benchmark, model)()
    assert len(shapes) == tensors
    assert sum(map(math.prod, shapes)) == numbers


def test_a_race_on_the_cpu(benchmark, capsys):
    scenario = benchmark.cpu_scenarios()[0]
    result = benchmark.race(scenario, torch.device("cpu"), seconds=0.1)
    benchmark.report(scenario, result, {"copy": 1e10, "triad": 1e10})
    printed = capsys.readouterr().out
    assert "torch fused ÷ adamw_book:" in printed
    assert all(row["whole"] > 0 for row in result["contenders"].values())
    assert benchmark.agree(torch.device("cpu")) < 1e-3


def test_every_contender_of_the_gpu_races_can_be_made(benchmark):
    """On tiny tensors and the CPU, where torch.compile stays out."""
    for scenario in benchmark.gpu_scenarios(141e9):
        replicas = scenario.shapes[0][0] if "ensemble" in scenario.name else 4
        for name, contender in scenario.contenders.items():
            if name in ("torch compiled", "flashoptim", "torch-optimi"):
                continue
            params = [torch.ones(replicas, 2, requires_grad=True) for _ in range(2)]
            for p in params:
                p.grad = torch.ones_like(p)
            before = params[0].detach().clone()
            contender.step(contender.make(params))
            assert (params[0] < before).all(), (scenario.name, name)
