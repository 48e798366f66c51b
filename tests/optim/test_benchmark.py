"""The benchmark's parameter lists are those of the models that they are named after, and its races run."""

import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def races():
    """The benchmark's modules, which are no part of the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        import optimizer_step
        from optimizer_races import asked, checks, scenarios, shapes

        yield {"step": optimizer_step, "asked": asked, "checks": checks, "scenarios": scenarios, "shapes": shapes}


@pytest.mark.parametrize(
    ("model", "tensors", "numbers"),
    [("resnet50", 161, 25_557_032), ("gpt2", 148, 124_439_808), ("llama", 246, 1_518_450_688)],
)
def test_shapes(races, model, tensors, numbers):
    shapes = getattr(races["shapes"], model)()
    assert len(shapes) == tensors
    assert sum(map(math.prod, shapes)) == numbers


def test_a_run_on_the_cpu(tmp_path):
    """One call checks, times, and prints what was asked beside what was measured."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, ROOT / "benchmarks" / "optimizer_step.py", "--only", "mlp", "--seconds", "0.1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any("1 billion numbers in float32" in line and line.endswith("not yet measured") for line in lines)
    assert any("MLP 64-32-32-10" in line and line.endswith(("met", "MISSED")) for line in lines)


def test_what_is_asked_is_measured_by_the_races(races):
    """With a figure for every contender of every race and every check, no line stays without one."""
    figures = {"whole": 1.0, "host": 1.0, "device": 1.0, "share": 1.0, "launches": 1}
    checks = {"rows": 0.0, "failures": 0, "sanitizer": 0}
    for kind, scenarios in (("GPU", races["scenarios"].gpu_scenarios), ("CPU", races["scenarios"].cpu_scenarios)):
        raced = {
            name: {"contenders": dict.fromkeys(s.contenders, figures)}
            for s in scenarios(1e12)
            for name in (s.name, races["asked"].busy(s.name))
        }
        steady = {"steady": dict.fromkeys(("adamw_book", "torch fused"), {"host": 1.0, "cpu": 1.0})}
        rows = races["asked"].rows({"scenarios": raced, "checks": checks, "host": steady}, kind)
        assert [row["what"] for row in rows if (row["measured"] is None) == (row["device"] == kind)] == []
    nothing = races["asked"].rows({"scenarios": {}, "checks": {}}, "GPU")
    assert all(row["measured"] is None and row["met"] is None for row in nothing)


def test_a_figure_is_held_against_what_was_asked(races):
    least = races["asked"].Asked("", "CPU", True, 1.1, lambda results: results["figure"])
    assert [least.row({"figure": f}, "CPU")["met"] for f in (1.0, 1.1, 1.2)] == [False, True, True]
    most = least._replace(least=False)
    assert [most.row({"figure": f}, "CPU")["met"] for f in (1.0, 1.1, 1.2)] == [True, True, False]


def test_every_contender_of_the_gpu_races_can_be_made(races):
    """On tiny tensors and the CPU, where torch.compile stays out."""
    for scenario in races["scenarios"].gpu_scenarios(141e9):
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


def test_errors_of_the_sanitizer_are_added_up(races, tmp_path, monkeypatch):
    tool = tmp_path / "compute-sanitizer"
    summary = "echo '========= ERROR SUMMARY: 2 errors'"
    tool.write_text(f"""#!/bin/sh\necho '["a case", null]'\n{summary}\n""")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    runs = 2 * races["checks"].workers()  # of both tools
    assert races["checks"].sanitizer() == 2 * runs
    tool.write_text(f"""#!/bin/sh\necho '["a case", "why it failed"]'\n{summary}\n""")
    assert races["checks"].sanitizer() == 3 * runs
    tool.write_text("""#!/bin/sh\necho '["a case", null]'\necho '== RACECHECK SUMMARY: 1 hazard displayed'\n""")
    assert races["checks"].sanitizer() == runs
    for crashed in ("#!/bin/sh\necho '========= ERROR SUMMARY: 0 errors'\n", "#!/bin/sh\nexit 1\n"):
        tool.write_text(crashed)
        assert races["checks"].sanitizer() == runs  # nothing ran
    tool.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(races["checks"].shutil, "which", lambda *_, **__: None)
    assert races["checks"].sanitizer() is None


def test_tests_that_do_not_run_are_no_success(races, monkeypatch):
    for code, output, failures in ((0, "5 passed", 0), (1, "2 failed, 5 passed", 2), (1, "", 1), (5, "no tests ran", 1),
                                   (0, "", 1)):  # fmt: skip
        done = subprocess.CompletedProcess([], code, output, "")
        monkeypatch.setattr(races["checks"].subprocess, "run", lambda *_, done=done, **__: done)
        assert races["checks"].tests_on_the_gpu() == failures


def test_agreement_depends_on_the_betas(races, monkeypatch):
    assert races["checks"].agreement(torch.device("cpu")) < 1e-3
    other = lambda params, **options: torch.optim.AdamW(params, betas=(0.8, 0.999), **options)  # noqa: E731
    monkeypatch.setattr(races["checks"], "AdamW", other)
    assert races["checks"].agreement(torch.device("cpu")) > 1e-2


def test_fewer_numbers_are_no_billion(races):
    contenders = {"adamw_book": {"share": 0.99, "device": 1.0}, "torch fused": {"device": 1.0}}
    for numbers, measured in ((10**9, True), (570_000_000, False)):
        scenario = {"contenders": contenders, "numbers": numbers}
        both = {"one tensor, float32": scenario, "one tensor, bfloat16": scenario}
        rows = races["asked"].rows({"scenarios": both, "checks": {}}, "GPU")
        assert all((row["measured"] is not None) == measured for row in rows if "1 billion" in row["what"])


def test_recorded_results_are_of_this_benchmark(races):
    """Each record says what was asked, on which hardware, with which versions, and when."""
    for path in (ROOT / "benchmarks" / "results").glob("optimizer_step_*.json"):
        record = json.loads(path.read_text())
        assert {"date", "kind", "device", "versions", "bandwidth"} <= set(record)
        assert record["asked"] == races["asked"].rows(record, record["kind"]), path.name


def test_the_readme_quotes_the_records():
    folder, text = ROOT / "benchmarks" / "results", " ".join((ROOT / "README.md").read_text().split())
    record = json.loads((folder / "optimizer_step_nvidia_h100_80gb_hbm3.json").read_text())
    measured = {row["what"]: row["measured"] for row in record["asked"]}
    quoted = [
        ("1 billion numbers in float32: share of the triad's bandwidth", "at {:.0%} of the bandwidth"),
        ("1 billion numbers in float32: torch fused ÷ this one", "{:.2f} times as fast as torch's fused kernel"),
        ("1 billion numbers in bfloat16: torch fused ÷ this one", "in bfloat16 {:.2f} times"),
        ("GPT-2 124M, whole step: torch fused ÷ this one", "a step of GPT-2 124M is {:.2f} times as fast"),
        ("1,000 replicas: torch fused with a group each ÷ this one", "a learning rate each {:.0f} times"),
    ]
    ensembles = json.loads((folder / "ensemble_nvidia_h100_80gb_hbm3.json").read_text())
    assert ensembles["device"] == record["device"]
    sentences = [f"On an {record['device']} (torch {record['versions']['torch']},"]
    sentences += [sentence.format(measured[what]) for what, sentence in quoted]
    sentences += [
        f"{statistics.median(ratios):,.0f} times as many"
        for which, ratios in ensembles["ratios"].items()
        if " 1,000 runs" in which and "fastest" in which
    ]
    on_a_core = json.loads((folder / "ensemble_intel_r_xeon_r_processor.json").read_text())
    beside_jax = [
        statistics.median(ratios)
        for model in ("MLP", "RNN", "CNN")
        for which, ratios in on_a_core[model]["ratios"].items()
        if "÷ jax.vmap" in which and "CPU" not in which
    ]
    told = "256 MLPs at once train {:.2f} times as many a second as JAX, RNNs {:.2f} times and CNNs {:.2f} times"
    sentences += [told.format(*beside_jax), f"Intel Xeon (torch {on_a_core['versions']['torch']})"]
    assert [sentence for sentence in sentences if sentence not in text] == []
