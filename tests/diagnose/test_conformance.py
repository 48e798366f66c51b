"""The conformance test: every planted mistake is named, no right AdamW is accused, bad input is told as such."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import plain_adamw
import pytest
import torch
from planted import DECAY, PLANTED, SOURCE, Forgets, Trips, codes, planted

import adamw_book
from adamw_book.command_line import main
from adamw_book.diagnose import CouldNotRun, conformance, require
from adamw_book.diagnose.black_box import effects
from adamw_book.diagnose.black_box.box import open_box
from adamw_book.diagnose.black_box.rule import Rule, simulate

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
# what no run in a dtype can show: torch's own moments of bfloat16 weights are bfloat16
INVISIBLE = {("state in bfloat16", torch.bfloat16)}


@DTYPES
@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_named(mistake, dtype, short):
    wanted, replacements = PLANTED[mistake]
    report = conformance(planted(replacements), dtype)
    assert codes(report) == ([] if (mistake, dtype) in INVISIBLE else wanted)
    assert all(list(finding.effect) == [10] for finding in report.findings if finding.severity != "note")


def test_a_decay_that_acts_seldom_is_not_said_to_be_none(short):
    report = conformance(planted(PLANTED["decay in every 16th step"][1]))
    assert "0 to 16 times ηλ" in str(report)
    assert report.answers["weights without gradients"] == "decay where gradients are 0"


DECOUPLED = {"decoupled_weight_decay": True}
RIGHT = {
    "plain": (plain_adamw.AdamW, {}),
    "torch, for loop": (torch.optim.AdamW, {"foreach": False}),
    "torch, foreach": (torch.optim.AdamW, {"foreach": True}),
    "torch, fused": (torch.optim.AdamW, {"fused": True}),
    "torch's Adam, decoupled": (torch.optim.Adam, {"foreach": False, **DECOUPLED, "weight_decay": 0.01}),
    "torch's Adam, decoupled, foreach": (torch.optim.Adam, {"foreach": True, **DECOUPLED, "weight_decay": 0.01}),
    "torch's Adam, decoupled, fused": (torch.optim.Adam, {"fused": True, **DECOUPLED, "weight_decay": 0.01}),
    "the book's, torch": (adamw_book.AdamW, {"backend": "torch"}),
    "the book's, reference": (adamw_book.AdamW, {"backend": "reference"}),
    "a function": (lambda params, **own: torch.optim.AdamW(params, **own), {}),
    "a function of nothing but parameters": (lambda params: torch.optim.AdamW(params, lr=3e-4), {}),
}


@DTYPES
@pytest.mark.parametrize("right", RIGHT)
def test_no_right_adamw_is_accused(right, dtype):
    make, keywords = RIGHT[right]
    report = conformance(make, dtype, **keywords)
    assert report.findings == [] and report.is_adamw, report
    assert f"torch.{report.dtype}" == str(dtype)


RELATIVES = {
    "Adam": (torch.optim.Adam, {}, ["coupled"]),
    "NAdam": (torch.optim.NAdam, DECOUPLED, ["relative"]),
    "RAdam": (torch.optim.RAdam, DECOUPLED, ["relative"]),
    "Adamax": (torch.optim.Adamax, {}, ["relative", "coupled"]),
}


@DTYPES
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("name", RELATIVES)
def test_torchs_other_classes_are_accused_of_nothing_but_what_they_are(name, foreach, dtype, short):
    kind, keywords, wanted = RELATIVES[name]
    assert codes(conformance(kind, dtype, foreach=foreach, **keywords)) == wanted


def test_a_report_says_what_passes_for_rounding(short):
    coarse, fine = (conformance(torch.optim.AdamW, dtype) for dtype in (torch.bfloat16, torch.float32))
    words = "a difference of under 15% of a path passes for it"
    assert words in str(coarse) and words in coarse._repr_html_() and "passes for" not in str(fine)


def test_what_a_difference_costs_is_what_a_plain_simulation_says():
    """Weights that get no gradient: the share that is left is known in closed form, for AdamW and for a wrong sign."""
    found = effects.effect(Rule("gradients"), "silent")
    left = (1 - 1e-3 * 0.1) ** np.array([100, 10_000])
    assert list(found) == [100, 10_000]
    assert np.allclose(list(found.values()), (1 - left) / left, rtol=1e-9)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_simulated_rules_are_torchs(amsgrad):
    rng = np.random.default_rng(0)
    start, given = rng.standard_normal(7), rng.standard_normal((30, 7))
    values = {"lr": 0.1, "weight_decay": 0.3, "betas": (0.8, 0.95), "eps": 0.1}
    p = torch.nn.Parameter(torch.tensor(start))
    optimizer = torch.optim.AdamW([p], amsgrad=amsgrad, **values)
    for g in given:
        p.grad = torch.tensor(g)
        optimizer.step()
    rule = Rule(second="largest" if amsgrad else "squares")
    assert np.allclose(simulate(rule, start, given, **values)[-1], p.detach().numpy(), rtol=1e-10)


def test_the_effect_of_a_difference_no_rule_describes_is_that_of_the_optimizer_itself(monkeypatch):
    monkeypatch.setattr(effects, "STEPS", (5, 50))
    box = open_box(torch.optim.AdamW, {})
    assert max(effects.measured(box).values()) < 1e-9
    assert min(effects.measured(open_box(torch.optim.RAdam, {"decoupled_weight_decay": True})).values()) > 0.01


def test_a_report_says_what_was_asked_what_was_found_and_what_it_costs():
    report = conformance(torch.optim.Adam, name="mine", weight_decay=0.5)
    assert not report.is_adamw and [f.code for f in report.findings] == ["coupled"]
    assert "mine differs from AdamW in 1 way (asked in float64 on cpu)" in str(report)
    assert "after 100 steps and by" in str(report) and "p.mul_(1 - lr * weight_decay)" in str(report)
    as_json = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert as_json["findings"][0]["effect"]["10000"] > as_json["findings"][0]["effect"]["100"] > 0
    assert as_json["answers"]["decay"] == "coupled" and as_json["is_adamw"] is False
    assert "<th" in report._repr_html_() and "coupled" in report._repr_html_()
    weak = conformance(torch.optim.Adam, weight_decay=0.01).findings[0].effect
    assert weak[100] < report.findings[0].effect[100]


def test_one_line_in_a_test_suite_fails_where_an_optimizer_is_not_adamw(short):
    require(torch.optim.AdamW)
    require(torch.optim.AdamW, allow=["amsgrad"], amsgrad=True)
    with pytest.raises(AssertionError, match="AMSGrad"):
        require(torch.optim.AdamW, amsgrad=True)


class Closure(plain_adamw.AdamW):
    def step(self, closure):
        return super().step(closure)


class Modes(plain_adamw.AdamW):
    def train(self):
        pass


class Rubs(plain_adamw.AdamW):
    def step(self, closure=None):
        super().step(closure)
        for p in self.param_groups[0]["params"]:
            p.grad = None


class Renamed(plain_adamw.AdamW):
    def __init__(self, params, learning_rate=1e-3, b1=0.9, b2=0.999, epsilon=1e-8, wd=0.01):
        super().__init__(params, learning_rate, (b1, b2), epsilon, wd)


@pytest.mark.parametrize(
    ("kind", "wanted", "adamw"),
    [
        (Closure, ["needs_closure"], True),
        (Modes, ["modes"], True),
        (Rubs, ["writes_gradients"], True),
        (Trips, ["raises"], False),
        (Forgets, ["checkpoint_raises"], False),
    ],
)
def test_what_else_a_box_needs_or_cannot_is_told(kind, wanted, adamw, short):
    report = conformance(kind)
    assert [f.code for f in report.findings] == wanted and report.is_adamw is adamw


def test_coefficients_that_the_constructor_calls_otherwise_are_set_in_the_groups():
    assert conformance(Renamed).findings == []


class Float32Only(plain_adamw.AdamW):
    def step(self, closure=None):
        if self.param_groups[0]["params"][0].dtype == torch.float64:
            raise RuntimeError("no kernel for float64")
        return super().step(closure)


def test_what_cannot_be_stepped_in_float64_is_asked_in_float32():
    report = conformance(Float32Only)
    assert report.is_adamw and report.dtype == "float32"


class Nan(plain_adamw.AdamW):
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.fill_(float("nan"))


class Raises(plain_adamw.AdamW):
    def step(self, closure=None):
        raise ZeroDivisionError("float division by zero")


BAD = [
    (Nan, {}, CouldNotRun, "weights that are not finite"),
    (Raises, {}, CouldNotRun, "its step raises ZeroDivisionError: float division by zero"),
    (torch.optim.AdamW, {"weight_deacy": 0.1}, CouldNotRun, "unexpected keyword argument 'weight_deacy'"),
    (torch.optim.AdamW, {"betas": (0.9, 1.5), "foreach": 3, "fused": True}, CouldNotRun, "cannot be made"),
    (lambda params: None, {}, CouldNotRun, "NoneType has no step and no param_groups"),
    (lambda params: torch.optim.AdamW([]), {}, CouldNotRun, "empty parameter list"),
    ("torch.optim.AdamW", {}, TypeError, "a class or a function of the parameters is needed"),
    (torch.optim.AdamW, {"dtype": torch.float16}, ValueError, "dtype: torch.float16"),
]


@pytest.mark.parametrize(("make", "keywords", "error", "words"), BAD)
def test_what_could_not_run_says_why(make, keywords, error, words):
    with pytest.raises(error) as raised:
        conformance(make, **keywords)
    assert words in str(raised.value)


def on_the_command_line(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(["conformance", *arguments])
    return status, *capsys.readouterr()


def test_the_command_finds_a_class_a_module_and_a_file(capsys, tmp_path, short):
    assert on_the_command_line(capsys, "torch.optim.AdamW")[0] == 0
    status, out, _ = on_the_command_line(capsys, "torch.optim:AdamW", "amsgrad=True", "--json")
    assert status == 1 and [f["code"] for f in json.loads(out)["findings"]] == ["amsgrad"]
    (tmp_path / "mine.py").write_text(SOURCE.replace(DECAY, "p.mul_(1 + lr * weight_decay)"))
    status, out, _ = on_the_command_line(capsys, f"{tmp_path / 'mine.py'}:AdamW", "--dtype", "float32")
    assert status == 1 and "they grow" in out and "asked in float32" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["AdamW"], "TARGET: 'AdamW'; package.module.Class"),
        (["nowhere.at.all:AdamW"], "TARGET: nowhere.at.all cannot be imported: ModuleNotFoundError"),
        (["torch.optim:AdamV"], "TARGET: torch.optim has no AdamV"),
        (["missing.py:AdamW"], "TARGET: there is no file missing.py"),
        (["optimizers.py"], "TARGET: 'optimizers.py'; package.module.Class, package.module:Class or file.py:Class"),
        (["torch.optim:__name__"], "TARGET: torch.optim:__name__ is a str, and cannot be called"),
        (["torch.optim.AdamW", "lr"], "'lr' is no keyword argument; name=value is needed"),
        (["torch.optim.AdamW", "lr=-1"], "Invalid learning rate"),
        (["torch.optim.AdamW", "weight_decay=abc"], "it cannot be made"),
        (["torch.nn.Linear"], "it cannot be made"),
        (
            ["torch.optim.AdamW", "--device", "nowhere"],
            "device: torch knows none that is called 'nowhere'; here it can",
        ),
        (["torch.optim.AdamW", "--device", "meta"], "device: meta cannot be used on this machine"),
    ],
)
def test_the_command_says_what_is_wrong_and_returns_2(capsys, arguments, words):
    status, out, err = on_the_command_line(capsys, *arguments)
    assert (status, out) == (2, "") and words in err and err.startswith("conformance: ") and "Traceback" not in err


EXITS = {
    "an import": ("import sys\nsys.exit()\n", "{path} exits with 0 when imported"),
    "an import with words": ("import sys\nsys.exit('no GPU')\n", "{path} exits with no GPU when imported"),
    "a step": (SOURCE.replace(DECAY, "raise SystemExit(3)"), "its step raises SystemExit: 3"),
    "a constructor": ("def AdamW(params):\n    raise SystemExit(0)\n", "it cannot be made: SystemExit: 0"),
}


@pytest.mark.parametrize("where", EXITS)
def test_a_file_that_exits_does_not_choose_the_status(where, capsys, tmp_path):
    source, words = EXITS[where]
    path = tmp_path / "mine.py"
    path.write_text(source)
    status, out, err = on_the_command_line(capsys, f"{path}:AdamW")
    assert (status, out) == (2, "") and words.format(path=path) in err and err.startswith("conformance: ")


class Leaves(plain_adamw.AdamW):
    def load_state_dict(self, saved):
        raise SystemExit(0)


def test_a_checkpoint_that_exits_is_told(short):
    report = conformance(Leaves)
    assert codes(report) == ["checkpoint_raises"] and "raises SystemExit: 0" in str(report)


@pytest.mark.parametrize("device", ["cuda", "cuda:99"])
def test_a_gpu_that_is_not_there_is_told_in_one_line(device, capsys):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    status, out, err = on_the_command_line(capsys, "torch.optim.AdamW", "--device", device)
    assert (status, out) == (2, "") and err.startswith(f"conformance: device: {device} cannot be used on this machine")
    assert err.count("\n") == 1 and "here it can be cpu" in err
    with pytest.raises(ValueError, match=f"device: {device} cannot be used"):
        conformance(torch.optim.AdamW, device=device)


def test_the_command_runs_as_a_user_starts_it():
    done = subprocess.run(
        [sys.executable, "-m", "adamw_book", "conformance", "torch.optim.AdamW", "weight_decay=0.1"],
        capture_output=True,
        text=True,
        cwd=Path(adamw_book.__file__).parents[1],
    )
    assert done.returncode == 0 and done.stdout.startswith("torch.optim.AdamW is AdamW"), done.stderr
