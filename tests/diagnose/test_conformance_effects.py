"""What a difference costs: each finding has its effect, which plain runs confirm, or says that it can have none."""

import copy

import numpy as np
import plain_adamw
import pytest
import torch
from planted import BOTH, DECAY, STEP, Forgets, Trips, codes, planted

from adamw_book.diagnose import conformance
from adamw_book.diagnose.black_box import effects
from adamw_book.diagnose.black_box.difference import difference
from adamw_book.diagnose.black_box.rule import Rule, simulate
from adamw_book.diagnose.black_box.words import WORDS

LENGTH = 20
DOUBLED = STEP.replace("-lr", "-lr * {}")
COUNTED = '            group["runs"] = group.get("runs", 0) + 1\n            lr, ('


@pytest.fixture
def twenty(monkeypatch):
    """Effects after 20 steps alone."""
    effects.effect.cache_clear()
    monkeypatch.setattr(effects, "STEPS", (LENGTH,))
    yield
    effects.effect.cache_clear()


def adamw(given: np.ndarray, lr=effects.USUAL["lr"], step: float = 1.0) -> np.ndarray:
    """The weights after these gradients; step: times AdamW's own, beside the usual decay."""
    lrs = np.broadcast_to(lr, len(given))
    values = effects.USUAL | {"lr": lrs * step, "weight_decay": effects.USUAL["weight_decay"] / step}
    return simulate(Rule(), effects.stream(effects.STEPS[-1])[0], given, **values)[-1]


def off(found: np.ndarray, wanted: np.ndarray) -> float:
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def resumed(kind: type, **lrs) -> np.ndarray:
    """The weights of a run that is saved and loaded after half of its steps."""
    start, given = effects.stream(LENGTH)
    p = torch.nn.Parameter(torch.tensor(start.reshape(16, 16)))
    optimizer = kind([p], **effects.USUAL | lrs)
    for t, g in enumerate(given):
        if t == LENGTH // 2:
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer = kind([p], **effects.USUAL)
            optimizer.load_state_dict(saved)
        p.grad = torch.tensor(g.reshape(16, 16))
        optimizer.step()
    return p.detach().numpy().ravel()


def effect_of(report, code: str) -> float:
    [finding] = [f for f in report.findings if f.code == code]
    assert f"after {LENGTH} steps" in finding.size() and finding.where
    return finding.effect[LENGTH]


def test_a_late_start_is_measured_where_the_first_gradient_comes_late(twenty):
    late = {
        "            lr, (": COUNTED,
        "exp_avg_sq=torch.zeros_like(p))": 'exp_avg_sq=torch.zeros_like(p), late=group["runs"] > 1)',
        STEP: DOUBLED.format('(1 + state["late"])'),
    }
    report = conformance(planted(late))
    assert codes(report) == ["late_start"]
    given = effects.stream(LENGTH)[1][LENGTH // 10 :]
    assert effect_of(report, "late_start") == pytest.approx(off(adamw(given, step=2), adamw(given)), rel=1e-6)


def test_what_other_parameters_change_is_measured_beside_another(twenty):
    report = conformance(planted({STEP: DOUBLED.format('len(group["params"])')}))
    assert codes(report) == ["parameters_mixed"]
    given = effects.stream(LENGTH)[1]
    assert effect_of(report, "parameters_mixed") == pytest.approx(off(adamw(given, step=2), adamw(given)), rel=1e-6)


@pytest.mark.parametrize(("axes", "words"), [(1, "1 axis"), (3, "3 axes"), (4, "4 axes")])
def test_steps_by_shape_are_measured_in_a_tensor_of_that_shape(axes, words, twenty):
    report = conformance(planted({STEP: DOUBLED.format(f"(1 + (p.ndim == {axes}))")}))
    assert codes(report) == ["steps_differ_by_shape"] and f" in a tensor of {words}" in report.findings[0].where
    given = effects.stream(LENGTH)[1]
    found = effect_of(report, "steps_differ_by_shape")
    assert found == pytest.approx(off(adamw(given, step=2), adamw(given)), rel=1e-6)


def test_coefficients_that_are_changed_are_simulated_as_they_are_held(twenty):
    given = effects.stream(LENGTH)[1]
    for usual, lr in ({}, 1e-3), ({"lr": 1e-2}, 1e-2):
        report = conformance(planted({'{"lr": lr,': '{"lr": lr / 2,'}), **usual)
        wanted = off(adamw(given, lr=lr / 2), adamw(given, lr=lr))
        assert effect_of(report, "coefficients_changed") == pytest.approx(wanted, rel=1e-6)


def test_a_decay_that_lags_behind_a_schedule_is_measured_under_one(twenty):
    report = conformance(planted({DECAY: 'p.mul_(1 - weight_decay * state.get("rate", lr)); state["rate"] = lr'}))
    lrs = effects.USUAL["lr"] * (1 + np.cos(np.pi * np.arange(LENGTH) / LENGTH)) / 2
    start, given = effects.stream(LENGTH)
    steps, left = np.diff(simulate(Rule("none"), start, given, **effects.USUAL | {"lr": lrs}), axis=0), start
    for lr, step in zip(np.append(lrs[0], lrs[:-1]), steps, strict=True):
        left = left * (1 - lr * effects.USUAL["weight_decay"]) + step
    found = effect_of(report, "decay_on_another_schedule")
    assert found == pytest.approx(off(left, adamw(given, lr=lrs)), rel=1e-6)


def test_what_groups_mix_is_measured_in_two_of_them(twenty):
    report = conformance(planted({DECAY: 'p.mul_(1 - self.param_groups[0]["lr"] * weight_decay)'}))
    given = effects.stream(LENGTH)[1]
    first, second, mixed = adamw(given), adamw(given, lr=1e-4), adamw(given, step=0.1)
    wanted = off(np.append(first, mixed), np.append(first, second))
    assert effect_of(report, "groups_mixed") == pytest.approx(wanted, rel=1e-6)


def test_a_schedule_that_reaches_the_decay_alone_is_measured_under_one(twenty):
    report = conformance(planted({STEP: STEP.replace("-lr", '-self.defaults["lr"]')}))
    start, given = effects.stream(LENGTH)
    lrs = effects.USUAL["lr"] * (1 + np.cos(np.pi * np.arange(LENGTH) / LENGTH)) / 2
    steps, left = np.diff(simulate(Rule("none"), start, given, **effects.USUAL), axis=0), start
    for lr, step in zip(lrs, steps, strict=True):
        left = left * (1 - lr * effects.USUAL["weight_decay"]) + step
    wanted = off(left, adamw(given, lr=lrs))
    assert effect_of(report, "changes_in_part") == pytest.approx(wanted, rel=1e-6)


class Apart(plain_adamw.AdamW):
    """Both betas have a name of their own, and the second is held as another."""

    def __init__(self, params, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=1e-2):
        super().__init__(params, lr, None, eps, weight_decay)
        for group in self.param_groups:
            del group["betas"]
            group.update(beta1=group.get("beta1", beta1), beta2=group.get("beta2", beta2) ** 2)

    def step(self, closure=None):
        for group in self.param_groups:
            group["betas"] = group["beta1"], group["beta2"]
        super().step(closure)
        for group in self.param_groups:
            del group["betas"]


def test_betas_that_are_held_apart_are_simulated_together(twenty):
    report = conformance(Apart)
    [finding] = [f for f in report.findings if f.code == "coefficients_changed"]
    assert "beta1 and beta2=(0.6, 0.9) is given" in finding.text
    start, given = effects.stream(LENGTH)
    other = simulate(Rule(), start, given, **effects.USUAL | {"betas": (0.9, 0.999**2)})[-1]
    assert finding.effect[LENGTH] == pytest.approx(off(other, adamw(given)), rel=1e-6)


def test_a_state_that_is_cast_is_simulated_from_the_checkpoint_on(twenty):
    narrow = planted(
        {
            "zeros_like(p)": "zeros_like(p, dtype=torch.bfloat16)",
            "m.mul_(beta1).add_(g, alpha=1 - beta1)": "m.copy_(m.double() * beta1 + g * (1 - beta1))",
            "v.mul_(beta2).addcmul_(g, g, value=1 - beta2)": "v.copy_(v.double() * beta2 + g * g * (1 - beta2))",
        }
    )
    report = conformance(narrow)
    assert codes(report) == ["state_narrow", "state_cast"]
    cast, kept = effect_of(report, "state_cast"), [f for f in report.findings if f.code == "state_narrow"][0]
    wanted = off(resumed(narrow), resumed(torch.optim.AdamW))
    assert cast == pytest.approx(wanted, rel=0.1) and kept.effect[LENGTH] > 1.1 * cast


class Packed(plain_adamw.AdamW):
    """The first moment is packed into whole numbers by a checkpoint, and so rounded."""

    def load_state_dict(self, saved):
        super().load_state_dict(saved)
        for own in self.state.values():
            own["exp_avg"] = own["exp_avg"].mul(8).round().to(torch.int8)

    def step(self, closure=None):
        for own in self.state.values():
            own["exp_avg"] = own["exp_avg"].double() / (8 if own["exp_avg"].dtype == torch.int8 else 1)
        return super().step(closure)


def test_a_cast_that_no_rule_describes_is_measured_over_a_checkpoint(twenty):
    report = conformance(Packed)
    assert set(codes(report)) == {"checkpoint_loses", "state_cast"}
    wanted = off(resumed(Packed), resumed(torch.optim.AdamW))
    for code in codes(report):
        assert effect_of(report, code) == pytest.approx(wanted, rel=1e-6)


class Halves(plain_adamw.AdamW):
    def load_state_dict(self, saved):
        super().load_state_dict(saved)
        for own in self.state.values():
            own["exp_avg"] /= 2


class Keeps(plain_adamw.AdamW):
    def load_state_dict(self, saved):
        own = [{key: group[key] for key in self.defaults} for group in self.param_groups]
        super().load_state_dict(saved)
        for group, coefficients in zip(self.param_groups, own, strict=True):
            group.update(coefficients)


def test_a_checkpoint_that_loses_something_else_is_measured_too(twenty):
    report = conformance(Halves)
    assert codes(report) == ["checkpoint_loses"] and "part of what it had" in report.findings[0].text
    wanted = off(resumed(Halves), resumed(torch.optim.AdamW))
    assert effect_of(report, "checkpoint_loses") == pytest.approx(wanted, rel=1e-6)
    report = conformance(Keeps)
    assert codes(report) == ["checkpoint_loses"] and "coefficients of its groups" in report.findings[0].text
    wanted = off(resumed(Keeps, lr=1e-4), resumed(torch.optim.AdamW, lr=1e-4))
    assert effect_of(report, "checkpoint_loses") == pytest.approx(wanted, rel=1e-6)


def test_what_depends_on_the_shape_is_driven_in_a_matrix(twenty):
    """As the questions are asked there: a rule of matrices alone has its effect where it acts."""
    report = conformance(
        planted({BOTH: f"{DECAY}\n                {DOUBLED.format('(1 + (p.ndim == 2) * p.norm())')}"})
    )
    assert "depends_on_weight" in codes(report) and report.findings[0].effect[LENGTH] > 0.001


@pytest.mark.parametrize(("kind", "code"), [(Trips, "raises"), (Forgets, "checkpoint_raises")])
def test_what_raises_has_no_effect_and_the_report_says_so(kind, code, short):
    report = conformance(kind)
    assert codes(report) == [code] and report.findings[0].effect == {} and not report.is_adamw
    assert "It stops there" in str(report) and "It stops there" in report._repr_html_()


def test_an_effect_that_is_not_there_is_said_to_be_missing(monkeypatch):
    monkeypatch.setattr(effects, "PATIENCE", 0.0)
    monkeypatch.setattr(effects, "STEPS", (10, 2000))
    report = conformance(torch.optim.RAdam, decoupled_weight_decay=True)
    assert list(report.findings[0].effect) == [10] and "2,000 steps could not be waited for" in str(report)
    assert "could not be measured" in difference("late_start", {}).size()
    assert all(difference(code, {}, **VALUES).size() for code in WORDS if WORDS[code][0] != "note")


VALUES = {"low": 1, "high": 2, "factor": 2, "powers": (1, 2), "axes": "", "name": "", "names": "", "what": "",
          "weights": "", "state": "", "before": "", "after": "", "off": "", "question": "", "where": "", "given": "",
          "held": ""}  # fmt: skip
