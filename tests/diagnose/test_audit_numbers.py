"""The audit of numbers: closed forms against plain loops and against torch, findings against runs, bad input."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from adamw_book.command_line import main
from adamw_book.diagnose import audit_numbers
from adamw_book.dynamics import drive, noise, scale_invariant_noise
from adamw_book.schedules import SCHEDULES, learning_rate_factors


def codes(**arguments) -> list[str]:
    return [finding["code"] for finding in audit_numbers(**arguments)["findings"]]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_remains_is_what_torch_leaves(schedule: str):
    lr, decay, steps, warmup = 1e-2, 2.0, 300, 0 if schedule in ("WSD", "one-cycle") else 30
    found = audit_numbers(lr, decay, steps, schedule, warmup)
    w = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([w], lr=lr, weight_decay=decay)
    path = []
    for factor in learning_rate_factors(schedule, steps, warmup / steps):
        optimizer.param_groups[0]["lr"], w.grad = lr * factor, torch.zeros_like(w)
        optimizer.step()
        path.append(w.item())
    assert found["remaining"] == pytest.approx(path[-1], rel=1e-9)
    assert found["half_left_after"] == int(np.argmax(np.array(path) <= 0.5)) + 1
    if found["warmup_steps"]:
        assert found["remaining_after_warmup"] == pytest.approx(path[found["warmup_steps"] - 1], rel=1e-9)
        logs = np.log(path)
        assert found["warmup_share"] == pytest.approx(logs[found["warmup_steps"] - 1] / logs[-1], rel=0.02)


def test_noise_floor_and_rotation_are_reached_by_runs():
    found = audit_numbers(lr=1e-2, weight_decay=1.0, steps=5000)
    rng = torch.Generator().manual_seed(0)
    path = drive(noise(0.1, rng), torch.zeros(1, 400), 5000, lr=1e-2, weight_decay=1.0)[-2000:]
    assert path.square().mean().sqrt().item() == pytest.approx(found["noise_floor"], rel=0.1)
    start = torch.randn(1, 400, generator=rng) * found["noise_floor"]
    path = drive(scale_invariant_noise(rng), start, 3000, lr=1e-2, weight_decay=1.0)[-1000:, 0]
    turned = torch.nn.functional.cosine_similarity(path[1:], path[:-1]).clamp(max=1).acos().mean().item()
    assert turned == pytest.approx(found["rotation_per_step"], rel=0.1)


def test_timescales():
    found = audit_numbers(1e-3, 0.1, 20_000, batch_size=50, dataset_size=1000, gradient_rms=1e-3)
    assert found["timescale_steps"] == pytest.approx(10_000) and found["timescale_epochs"] == pytest.approx(500)
    assert found["timescales_in_run"] == pytest.approx(2) and found["epochs"] == pytest.approx(1000)
    assert found["half_life_steps"] == pytest.approx(found["half_left_after"], abs=1)
    assert found["comparable_l2"] == pytest.approx(1e-4)
    assert audit_numbers(1e-3, 0.1, 10)["timescale_epochs"] is None


# ---- What cannot be


BAD = [
    ({"lr": -1e-3}, "lr: -0.001; a finite number above 0"),
    ({"lr": math.nan}, "lr: nan; a finite number above 0"),
    ({"lr": 0.0}, "lr: 0.0"),
    ({"weight_decay": -1.0}, "weight_decay: -1.0; a finite number of 0 or more"),
    ({"weight_decay": math.inf}, "weight_decay: inf"),
    ({"steps": 0}, "steps: 0; a whole number from 1 to"),
    ({"warmup": 1000}, "warmup: 1000; a whole number of steps, fewer than the 1000"),
    ({"final": 1.5, "schedule": "cosine"}, "final: 1.5; a share of the peak rate"),
    ({"final": 0.1}, "final: 0.1 with the schedule 'constant'"),
    ({"batch_size": 8}, "dataset_size: None, beside batch_size"),
    ({"batch_size": 8, "dataset_size": 4}, "batch_size: 8; a whole number of examples, at most"),
    ({"beta1": 1.0}, "beta1: 1.0; a number of 0 or more and less than 1"),
    ({"gradient_rms": 0.0}, "gradient_rms: 0.0"),
    ({"lr": 1e200, "weight_decay": 1e200}, "lr · weight_decay: inf; a product that a float can hold"),
]


@pytest.mark.parametrize(("changed", "message"), BAD)
def test_bad_input_is_named_in_python_and_on_the_command_line(changed: dict, message: str, capsys):
    settings = {"lr": 1e-3, "weight_decay": 0.1, "steps": 1000} | changed
    with pytest.raises(ValueError) as error:
        audit_numbers(**settings)
    assert message in str(error.value)
    words = [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    assert main(["audit", *words]) == 2
    assert f"audit: {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--lr -1e-3", "audit: lr: -0.001; a finite number above 0 is needed"),  # which argparse takes for an option
        ("--lr -inf", "audit: lr: -inf"),
        ("--lr fast", "argument --lr: invalid float value: 'fast'"),
        ("--steps 1.5", "argument --steps: 1.5; a whole number is needed"),
        ("--warmup nan", "argument --warmup: nan; a whole number is needed"),
        ("--batch-size -1e1 --dataset-size 100", "audit: batch_size: -10; a whole number of examples"),
    ],
)
def test_what_the_command_line_cannot_read_is_named(changed: str, message: str, capsys):
    words = f"audit --lr 1e-3 --weight-decay 0.1 --steps 1000 {changed}".split()
    try:
        status = main(words)
    except SystemExit as error:
        status = error.code
    assert status == 2 and message in capsys.readouterr().err


def test_whole_numbers_may_be_written_as_powers_of_ten(capsys):
    assert main("audit --lr 3e-4 --weight-decay 0.1 --steps 1e5 --json".split()) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 100_000


def test_an_unknown_schedule():
    with pytest.raises(ValueError, match="schedule: 'step' is unknown; choose from 'constant'"):
        audit_numbers(1e-3, 0.1, 100, "step")
    for given in (None, ["cosine"]):
        with pytest.raises(ValueError, match=r"schedule: .*; one of the names 'constant', 'linear'"):
            audit_numbers(1e-3, 0.1, 100, given)
    with pytest.raises(SystemExit) as error:
        main(["audit", "--lr", "1", "--weight-decay", "0", "--steps", "9", "--schedule", "step"])
    assert error.value.code == 2


def test_json_holds_what_python_returns(capsys):
    words = "--lr 3e-4 --weight-decay 0.1 --steps 100000 --schedule cosine --warmup 2000 --json"
    assert main(["audit", *words.split()]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == audit_numbers(3e-4, 0.1, 100_000, "cosine", 2000)
    wanted = "remaining timescale_steps timescale_epochs half_life_steps warmup_share noise_floor findings"
    assert set(wanted.split()) <= printed.keys()
    # what grows without bound is no number in JSON
    main("audit --lr 1 --weight-decay 1e300 --steps 100 --json".split())
    assert json.loads(capsys.readouterr().out)["remaining"] is None


def test_text_names_findings_and_their_fix(capsys):
    assert main("audit --lr 1e-3 --weight-decay 0 --steps 100".split()) == 1
    out = capsys.readouterr().out
    assert "warning: weight_decay is 0" in out and "    weight_decay=0.1" in out


BARE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("scipy", "sklearn", "matplotlib", "joblib", "tqdm", "IPython"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from adamw_book.command_line import main
sys.exit(main(sys.argv[1:]))
"""


def test_only_the_book_needs_the_books_packages():
    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-c", BARE, *words], capture_output=True, text=True)

    done = run("audit", "--lr", "1e-2", "--weight-decay", "1", "--steps", "100")
    assert done.returncode == 0 and "timescale" in done.stdout, done.stderr
    done = run("check")
    assert done.returncode == 2 and "is not installed: pip install 'adamw-book[book]'" in done.stderr
