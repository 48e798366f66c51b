"""Each finding of an audit, and a run that shows that it is true."""

import ast
import functools
import json
import math
import re
from pathlib import Path

import pytest
import torch
from specimens import Capped, Deaf, Doubled, LateAndCautious, Model, codes, groups, matrix
from torch import nn
from torch.optim import lr_scheduler

import adamw_book
from adamw_book.diagnose import audit, audit_numbers, auditing
from adamw_book.diagnose.auditing.finding import TEMPLATES
from adamw_book.diagnose.auditing.groups import paste
from adamw_book.diagnose.auditing.parameters import kind_of
from adamw_book.dynamics import drive, silent

SHOWN: set[str] = set()


def shows(*found: str):
    """Marks the test whose run shows a finding."""
    SHOWN.update(found)
    return lambda test: test


def numbers(**arguments) -> list[str]:
    return [finding["code"] for finding in audit_numbers(**arguments)["findings"]]


# ---- Of numbers


@shows("share_above_one")
def test_a_share_above_one_turns_signs():
    assert numbers(lr=0.1, weight_decay=15.0, steps=10)[0] == "share_above_one"
    path = drive(silent, torch.ones(1, 1), 4, lr=0.1, weight_decay=15.0)[:, 0, 0]
    assert (path[1:] * path[:-1] < 0).all()
    assert "share_above_one" not in numbers(lr=0.1, weight_decay=9.9, steps=10)


@shows("share_above_momentum")
def test_a_share_above_momentum_forgets_before_it():
    assert "share_above_momentum" in numbers(lr=0.1, weight_decay=2.0, steps=100)
    assert "share_above_momentum" not in numbers(lr=0.1, weight_decay=0.9, steps=100)
    # one gradient at the first of ten steps: what it still moves at the last has outlived what was there before it
    path = drive(lambda t, w: torch.full_like(w, float(t == 0)), torch.zeros(1, 1), 11, lr=0.1, weight_decay=2.0)
    untouched = drive(silent, torch.ones(1, 1), 11, lr=0.1, weight_decay=2.0)
    momentum_left, weight_left = 0.9**10, untouched[10].item()
    assert weight_left < momentum_left and path[-1].item() < 0


@shows("no_decay")
def test_no_decay_leaves_everything():
    assert numbers(lr=1e-3, weight_decay=0.0, steps=100) == ["no_decay"]
    assert (drive(silent, torch.ones(1, 1), 100, lr=1e-3, weight_decay=0.0) == 1).all()


@shows("decay_idle")
def test_idle_decay_changes_nothing_that_matters():
    settings = {"lr": 1e-3, "weight_decay": 0.1, "steps": 400}
    assert numbers(**settings) == ["decay_idle"]
    draws = torch.randn(400, 1, 50, generator=torch.Generator().manual_seed(0))
    start = torch.randn(1, 50, generator=torch.Generator().manual_seed(1))
    ends = [drive(lambda t, w: draws[t], start, 400, lr=1e-3, weight_decay=decay)[-1] for decay in (0.1, 0.0)]
    # the same gradient steps: what decay takes is at most 5% of the start and of each step
    assert ((ends[0] - ends[1]).abs() <= 0.05 * (start.abs() + 1e-3 * 400)).all()
    assert numbers(lr=1e-3, weight_decay=0.2, steps=400) == []


def test_the_decay_that_a_fix_suggests_leaves_a_third():
    settings = {"lr": 1e-3, "steps": 5000, "schedule": "cosine", "warmup": 500}
    [finding] = audit_numbers(weight_decay=1e-3, **settings)["findings"]
    suggested = float(finding["fix"].split()[0].removeprefix("weight_decay="))
    assert audit_numbers(weight_decay=suggested, **settings)["remaining"] == pytest.approx(math.exp(-1), rel=0.05)


@shows("decay_in_warmup")
def test_most_of_the_decay_is_done_before_the_rate_is_at_its_peak():
    settings = {"lr": 1e-2, "weight_decay": 1.0, "steps": 100, "schedule": "linear", "warmup": 60}
    assert numbers(**settings) == ["decay_in_warmup"]
    path = drive(silent, torch.ones(1, 1), 100, lr=1e-2, weight_decay=1.0, schedule="linear", warmup=0.6)[:, 0, 0]
    assert path[60].log() / path[-1].log() > 0.5
    assert numbers(**settings | {"warmup": 6}) == []  # the shorter climb that the fix names


@shows("initial_forgotten")
def test_initial_weights_are_forgotten():
    settings = {"lr": 1e-2, "weight_decay": 1.0, "steps": 1000}
    assert numbers(**settings) == ["initial_forgotten"]
    draws = torch.randn(1000, 1, 50, generator=torch.Generator().manual_seed(0))
    starts = torch.zeros(1, 50), torch.full((1, 50), 5.0)
    ends = [drive(lambda t, w: draws[t], start, 1000, lr=1e-2, weight_decay=1.0)[-1] for start in starts]
    assert (ends[0] - ends[1]).abs().max() < 0.01 * 5


# ---- Of an optimizer


@shows("coupled")
def test_coupled_l2_pulls_hardest_where_gradients_are_small():
    w = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    scale = torch.tensor([[1e-3, 1e-3], [1.0, 1.0]], dtype=torch.float64)
    optimizer = torch.optim.Adam([w], lr=1e-3, weight_decay=1e-2)
    rng = torch.Generator().manual_seed(0)
    for _ in range(500):
        w.grad = scale * torch.randn(2, 2, generator=rng, dtype=torch.float64)
        optimizer.step()
    assert w[0].abs().mean() < 0.7 < w[1].abs().mean()
    found = audit(optimizer, steps=500)
    assert codes(found) == ["coupled"] and "torch.optim.AdamW" in found.findings[0].fix
    # √v̂ of the weaker half is near ℓ, of the stronger near 1; the median lies between
    assert 1e-2 / 1.5 < found.table["comparable_decay"][0] < 10


def test_what_is_named_for_a_coupled_decay_pulls_as_hard():
    w = nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    optimizer = torch.optim.Adam([w], lr=1e-4, weight_decay=0.1, eps=1e-3)
    w.grad = torch.full_like(w, 5e-3)
    optimizer.step()
    found = audit(optimizer, steps=100)
    assert found.table["comparable_decay"][0] == pytest.approx(0.1 / (5e-3 + 1e-3))  # what the gradient is divided by
    assert found.findings[0].fix == "optimizer = torch.optim.AdamW(params, lr=0.0001, weight_decay=17)"
    new = torch.optim.Adam([matrix()], lr=1e-4, weight_decay=0.1)
    assert "weight_decay=0.1)" in audit(new, steps=100).findings[0].fix


def test_only_what_should_be_exempt_is_decayed():
    model = nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(
        [{"params": [model.weight], "weight_decay": 0.0}, {"params": [model.bias], "weight_decay": 1.0}], lr=1e-2
    )
    found = {finding.code: finding.text for finding in audit(optimizer, model, 50).findings}
    assert set(found) == {"no_decay", "exempt_decayed"}
    assert found["no_decay"].startswith("weight_decay is 0 for every matrix: ")


def test_a_frozen_matrix_that_decays_stands_for_no_other():
    frozen, trained = matrix(), matrix()
    frozen.requires_grad_(False)
    groups = [{"params": [frozen], "weight_decay": 1.0}, {"params": [trained], "weight_decay": 0.0}]
    found = {f.code: f.text for f in audit(torch.optim.AdamW(groups, lr=1e-2), steps=50).findings}
    assert found["no_decay"].startswith("weight_decay is 0 for every matrix: ")


def test_of_a_share_above_one_nothing_else_is_said():
    for weight_decay in (15.0, 25.0):  # the weights shrink, the weights grow
        found = audit_numbers(lr=0.1, weight_decay=weight_decay, steps=10)
        assert [finding["code"] for finding in found["findings"]] == ["share_above_one"]
        assert found["rotation_per_step"] is None
    assert audit_numbers(lr=0.1, weight_decay=0.0, steps=10)["rotation_per_step"] == 0
    # the peak that a run reaches, not the one that its schedule could
    assert "share_above_one" not in numbers(lr=0.1, weight_decay=15.0, steps=1, schedule="linear")


def test_the_numbers_in_a_text_are_those_of_the_run():
    [text] = [f["text"] for f in audit_numbers(0.1, 2.0, 100, beta1=0.9)["findings"] if "momentum" in f["code"]]
    assert "reaches 0.2: a weight is forgotten within 5 steps" in text and "forgets a gradient (10 steps)" in text
    [found] = audit_numbers(1e-3, 0.1, 400)["findings"]
    assert f"{100 * (1 - 1e-4) ** 400:.4g}% of the initial weights would be left" in found["text"]
    [found] = audit_numbers(1e-2, 1.0, 100, "linear", 60)["findings"]
    assert found["text"].startswith("58% of the decay falls before") and found["fix"].startswith("warmup=5 ")


@shows("exempt_decayed")
def test_exempt_parameters_that_are_decayed_and_the_groups_that_mend_it():
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1.0)
    found = audit(optimizer, model, 100)
    [text] = [finding.text for finding in found.findings if finding.code == "exempt_decayed"]
    assert text.startswith("4 parameters (")  # a gain of no norm is among them
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert torch.equal(model.norm.weight, torch.full((4,), 0.99))
    [fix] = [finding.fix for finding in found.findings if finding.code == "exempt_decayed"]
    scope = {"torch": torch, "model": model}
    exec(fix, scope)
    mended = audit(scope["optimizer"], model, 100)
    assert codes(mended) == ["embedding_decayed", "tied"]


class NormalHead(nn.Linear):
    """No norm, whatever its name says."""


class NormalLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.gain = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(1, 4, 1, 1))


def flattened(module: nn.Module) -> nn.Module:
    """As FSDP keeps a module's parameters with use_orig_params=True: each a part of one axis."""
    for name, p in [*module.named_parameters(recurse=False)]:
        module.register_parameter(name, nn.Parameter(p.detach().flatten()))
    return module


@pytest.mark.parametrize("make", [flattened, lambda module: module])
@pytest.mark.parametrize("kind", [nn.Linear, NormalHead])
def test_a_matrix_is_one_in_one_axis_and_whatever_its_module_is_called(make, kind):
    model = make(kind(4, 4, bias=False))
    found = audit(torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1.0), model, 50)
    assert codes(found) == [] and found.table["kind"].tolist() == ["matrix"]


KINDS = [
    (lambda: nn.Linear(4, 4), {"weight": "matrix", "bias": "bias"}),
    (lambda: NormalHead(4, 4), {"weight": "matrix", "bias": "bias"}),
    (lambda: nn.Bilinear(2, 3, 4), {"weight": "matrix", "bias": "bias"}),
    (lambda: nn.Conv1d(2, 3, 4), {"weight": "matrix", "bias": "bias"}),
    (lambda: nn.ConvTranspose2d(2, 3, 4), {"weight": "matrix", "bias": "bias"}),
    (lambda: nn.GRU(2, 3), dict.fromkeys(["weight_ih_l0", "weight_hh_l0"], "matrix")
     | dict.fromkeys(["bias_ih_l0", "bias_hh_l0"], "bias")),
    (lambda: nn.LSTMCell(2, 3), dict.fromkeys(["weight_ih", "weight_hh"], "matrix")
     | dict.fromkeys(["bias_ih", "bias_hh"], "bias")),
    (lambda: nn.MultiheadAttention(4, 2), {"in_proj_weight": "matrix", "in_proj_bias": "bias"}),
    (lambda: nn.MultiheadAttention(4, 2, kdim=3),
     dict.fromkeys(["q_proj_weight", "k_proj_weight", "v_proj_weight"], "matrix") | {"in_proj_bias": "bias"}),
    (lambda: nn.Embedding(4, 4), {"weight": "embedding"}),
    (lambda: nn.EmbeddingBag(4, 4), {"weight": "embedding"}),
    (lambda: nn.LayerNorm(4), {"weight": "norm", "bias": "norm"}),
    (lambda: nn.LayerNorm((4, 5)), {"weight": "norm", "bias": "norm"}),
    (lambda: nn.BatchNorm2d(4), {"weight": "norm", "bias": "norm"}),
    (lambda: nn.PReLU(4), {"weight": "vector"}),
]  # fmt: skip


@pytest.mark.parametrize("make", [flattened, lambda module: module])
@pytest.mark.parametrize(("module", "kinds"), [*KINDS, (NormalLayer, {"weight": "matrix", "gain": "norm"})])
def test_the_groups_of_a_fix_spare_what_the_audit_calls_bias_norm_or_vector(make, module, kinds: dict):
    if module is NormalLayer and make is flattened:
        pytest.skip("in one axis a module's name is all there is")
    model = make(module())
    found = {name: kind_of(name, p, model) for name, p in model.named_parameters(recurse=False)}
    assert found == kinds
    if make is flattened:
        return
    exec(paste("1e-3", 1.0), scope := {"torch": torch, "model": model})
    exempt = {name for name, p in model.named_parameters(recurse=False) if scope["spared"][p]}
    assert exempt == {name for name, kind in kinds.items() if kind in ("bias", "norm", "vector")}


def test_the_groups_of_a_flat_model_go_by_name():
    model = nn.ModuleDict({"body": flattened(nn.Linear(4, 4)), "norm": nn.LayerNorm(4)})
    found = audit(torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1.0), model, 50)
    [fix] = [f.fix for f in found.findings if f.code == "exempt_decayed"]
    exec(fix, scope := {"torch": torch, "model": model})
    spared = {name for name, p in model.named_parameters() if scope["spared"][p]}
    assert spared == {"body.bias", "norm.weight", "norm.bias"}


def test_the_field_guide_shows_the_groups_of_the_fix():
    guide = json.loads((Path(__file__).resolve().parents[2] / "chapters/practice/field_guide.ipynb").read_text("utf-8"))
    cells = [ast.parse("".join(cell["source"])).body for cell in guide["cells"] if cell["cell_type"] == "code"]
    wanted = [ast.dump(line) for line in ast.parse(paste("1e-3", 0.5)).body]
    assert [ast.dump(line) for line in next(c for c in cells if "spared" in ast.dump(c[0]))][: len(wanted)] == wanted


def test_the_rate_of_a_fix_is_left_open_where_groups_differ():
    model = nn.Linear(4, 4)
    optimizer = torch.optim.AdamW([{"params": [model.weight], "lr": 1e-5}, {"params": [model.bias], "lr": 5e-2}])
    [fix] = [f.fix for f in audit(optimizer, model, 50).findings if f.code == "exempt_decayed"]
    assert fix.endswith("torch.optim.AdamW(groups, lr=…)")
    optimizer.param_groups[0]["lr"] = 5e-2
    [fix] = [f.fix for f in audit(optimizer, model, 50).findings if f.code == "exempt_decayed"]
    assert fix.endswith("torch.optim.AdamW(groups, lr=0.05)")


@shows("flat")
def test_what_is_in_a_flat_parameter_decays_alike_and_is_not_told():
    flat_param = pytest.importorskip("torch.distributed.fsdp._flat_param")
    layer = nn.Linear(2, 2)
    model = nn.Module()
    model._flat_param = flat_param.FlatParameter(torch.cat([torch.ones(4), layer.bias.detach().fill_(1)]))
    model.bias = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1.0)
    found = audit(optimizer, model, 50)
    assert codes(found) == ["exempt_decayed", "flat"] and set(found.table["kind"]) == {"flat", "bias"}
    exec(found.findings[0].fix, scope := {"torch": torch, "model": model})
    assert scope["spared"] == {model._flat_param: False, model.bias: True}  # by its shape it would be spared whole
    model._flat_param.grad = torch.zeros(6)
    optimizer.step()
    torch.testing.assert_close(model._flat_param.detach(), torch.full((6,), 0.99))
    # a part of one, of a module that does not tell
    part = nn.Module()
    part.weight = nn.Parameter(torch.ones(6))
    part.weight._fsdp_flattened = True
    assert codes(audit(torch.optim.AdamW(part.parameters(), lr=1e-2, weight_decay=1.0), part, 50)) == ["flat"]
    assert codes(audit(torch.optim.AdamW(part.parameters(), weight_decay=0.0), part, 50)) == ["no_decay", "flat"]


@shows("in_two_groups")
def test_a_parameter_in_two_groups_is_decayed_twice():
    w = matrix()
    optimizer = torch.optim.AdamW([{"params": [w]}, {"params": [matrix()]}], lr=1e-2)
    assert "in_two_groups" not in codes(audit(optimizer, steps=1000))
    optimizer.param_groups[1]["params"] = [w]
    assert codes(audit(optimizer, steps=1000))[0] == "in_two_groups"
    w.grad = torch.zeros(2, 2)
    optimizer.step()
    assert w[0, 0].item() == pytest.approx((1 - 1e-4) ** 2, rel=1e-6)


@shows("not_held", "foreign")
def test_what_the_optimizer_does_not_hold_rests_and_what_it_holds_of_another_model_is_trained_in_vain():
    model, other = Model(), Model()
    optimizer = torch.optim.AdamW(other.parameters(), lr=1e-2)
    assert {"not_held", "foreign"} <= set(codes(audit(optimizer, model, 1000)))
    before = model(torch.arange(20)).detach()
    for p in (*model.parameters(), *other.parameters()):
        p.grad = torch.ones_like(p)
    start = other.hidden.weight.clone()
    optimizer.step()
    assert torch.equal(model(torch.arange(20)), before) and not torch.equal(other.hidden.weight, start)


def test_what_another_optimizer_trains_is_left_out_with_its_part_of_the_model():
    model = nn.ModuleDict({"generator": nn.Linear(4, 4), "critic": nn.Linear(4, 4, bias=False)})
    optimizer = torch.optim.AdamW(model["generator"].parameters(), lr=1e-2, weight_decay=1.0)
    found = {f.code: f for f in audit(optimizer, model, 50).findings}
    assert set(found) == {"exempt_decayed", "not_held"}
    text, fix = found["not_held"].text, found["not_held"].fix
    assert text.startswith("1 parameter (critic.weight) of the model is trainable and in no group of this optimizer")
    assert "if another one does, pass only the part" in text and "where no other trains it" in fix
    assert "of what this optimizer trains" in found["exempt_decayed"].fix
    assert codes(audit(optimizer, model["generator"], 50)) == ["exempt_decayed"]


def test_what_is_frozen_may_be_left_out():
    model = Model()
    model.tokens.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert "not_held" not in codes(audit(torch.optim.AdamW(trained, lr=1e-2), model, 1000))


@shows("shared_memory")
def test_two_parameters_over_one_memory():
    first = matrix()
    second = nn.Parameter(first.data)
    optimizer = torch.optim.AdamW([first, second], lr=1e-2, weight_decay=1.0)
    assert codes(audit(optimizer, steps=50)) == ["shared_memory"]
    first.grad, second.grad = torch.zeros(2, 2), torch.zeros(2, 2)
    optimizer.step()
    assert first[0, 0].item() == pytest.approx(0.99**2)


@shows("frozen_held", "frozen_decayed")
def test_frozen_parameters():
    w = matrix()
    optimizer = torch.optim.AdamW([w], lr=1e-2, weight_decay=1.0)
    w.requires_grad_(False)
    assert codes(audit(optimizer, steps=50)) == ["frozen_held"]
    optimizer.step()
    assert torch.equal(w, torch.ones(2, 2))
    w.grad = torch.zeros(2, 2)
    assert codes(audit(optimizer, steps=50)) == ["frozen_decayed"]
    optimizer.step()
    assert w[0, 0].item() == pytest.approx(0.99)


@shows("decay_rounded_away")
def test_a_decay_that_16_bits_round_away():
    for share, moves in ((1e-3, False), (3e-3, True)):
        w = nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16))
        optimizer = torch.optim.AdamW([w], lr=share, weight_decay=1.0)
        assert ("decay_rounded_away" in codes(audit(optimizer, steps=100))) != moves
        for _ in range(100):
            w.grad = torch.zeros_like(w)
            optimizer.step()
        assert (w[0, 0].item() < 1) == moves


ROUNDED = [  # optimizer, dtype, whether its decay moves a weight of 1
    (lambda w: adamw_book.AdamW([w], lr=1e-3, weight_decay=1.0, stochastic_rounding=True), torch.bfloat16, True),
    (lambda w: adamw_book.AdamW([w], lr=1e-5, weight_decay=1.0, stochastic_rounding=True), torch.float16, False),
    (lambda w: adamw_book.AdamW([w], lr=1e-3, weight_decay=3e-3, lr_independent=True), torch.bfloat16, True),
    (lambda w: adamw_book.AdamW([w], lr=10.0, weight_decay=1e-3, lr_independent=True), torch.bfloat16, False),
    (lambda w: Doubled([w], lr=1.5e-3, weight_decay=1.0), torch.bfloat16, True),
    (lambda w: torch.optim.SGD([w], lr=1e-3, momentum=0.9, weight_decay=1.0), torch.bfloat16, True),
    (lambda w: torch.optim.SGD([w], lr=1e-4, momentum=0.9, weight_decay=1.0), torch.bfloat16, False),
    (lambda w: torch.optim.Adam([w], lr=1e-2, weight_decay=1e-3), torch.bfloat16, True),
]


@pytest.mark.parametrize(("make", "dtype", "moves"), ROUNDED)
def test_a_decay_that_is_no_share_of_lr_times_weight_decay_or_rounds_at_random(make, dtype, moves: bool):
    w = nn.Parameter(torch.ones(20, 20, dtype=dtype))
    optimizer = make(w)
    fixes = [finding.fix for finding in audit(optimizer, steps=100).findings if finding.code == "decay_rounded_away"]
    assert len(fixes) == (not moves) and all(("float()" in fix) == (dtype == torch.float16) for fix in fixes)
    for _ in range(100):
        w.grad = torch.zeros_like(w)
        optimizer.step()
    assert (w.float().mean().item() < 1) == moves


def test_each_16_bit_weight_is_judged_by_the_rate_of_its_own_group():
    body, head = (nn.Parameter(torch.ones(2, 2, dtype=dtype)) for dtype in (torch.bfloat16, torch.bfloat16))
    optimizer = torch.optim.AdamW([{"params": [body], "lr": 1e-5}, {"params": [head], "lr": 5e-2}], weight_decay=0.1)
    [text] = [f.text for f in audit(optimizer, steps=100).findings if f.code == "decay_rounded_away"]
    assert text.startswith("1 parameter (") and "a share of 1e-06 rounds back" in text
    for _ in range(100):
        body.grad, head.grad = torch.zeros_like(body), torch.zeros_like(head)
        optimizer.step()
    assert (body == 1).all() and (head < 1).all()


def test_a_penalty_beside_a_decay_of_0_is_coupled_and_not_nothing():
    w = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    optimizer = adamw_book.AdamW([w], lr=1e-4, weight_decay=0.0, l2=0.1)
    for _ in range(5):
        w.grad = torch.full_like(w, 0.4)
        optimizer.step()
    found = audit(optimizer, steps=50)
    [coupled] = found.findings
    assert (coupled.code, coupled.severity) == ("coupled", "note") and coupled.text.startswith("AdamW's l2 in group 0")
    row = found.table.iloc[0]
    assert row["decay"] == "coupled, adaptive" and math.isnan(row["remaining"])
    # the penalty is in v, too: √v̂ is that of the gradient and of what it adds
    assert row["comparable_l2"] == 0.1 and row["comparable_decay"] == pytest.approx(0.1 / 0.5, rel=1e-3)
    bare = nn.Parameter(torch.ones(2, 2))
    beside = adamw_book.AdamW([{"params": [w], "l2": 0.1}, {"params": [bare]}], weight_decay=0.0)
    assert codes(audit(beside, steps=50)) == ["coupled"]
    beside.param_groups[0]["l2"] = 0.0
    assert codes(audit(beside, steps=50)) == ["no_decay"]
    still = adamw_book.AdamW([w], lr=0.0, weight_decay=0.0, l2=0.1)
    assert codes(audit(still, steps=50)) == ["no_rate"]


@shows("penalty_beside")
def test_a_decay_beside_a_penalty_is_decoupled_and_not_all_that_shrinks():
    ends = []
    for l2 in (0.1, 0.0):
        w = matrix()
        optimizer = adamw_book.AdamW([w], lr=0.1, weight_decay=0.1, l2=l2)  # a rate that the trial sees
        found = audit(optimizer, steps=50)
        assert codes(found) == ["penalty_beside"] * (l2 > 0)
        assert found.table["remaining"][0] == pytest.approx(0.99**50)
        for _ in range(5):
            w.grad = torch.zeros(2, 2)
            optimizer.step()
        ends.append(w[0, 0].item())
    assert ends[0] < ends[1] == pytest.approx(0.99**5)
    both = adamw_book.AdamW([matrix()], weight_decay=0.01, l2=0.1, lr_independent=True, cautious=True)
    assert codes(audit(both, steps=100)) == ["lr_independent", "cautious", "penalty_beside"]


@shows("cautious")
@pytest.mark.parametrize("maximize", [False, True])
def test_a_cautious_decay_takes_nothing_of_what_grows(maximize: bool):
    w = nn.Parameter(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    optimizer = adamw_book.AdamW([w], lr=1e-2, weight_decay=1.0, maximize=maximize, cautious=True)
    plain = torch.optim.AdamW([v := nn.Parameter(w.detach().clone())], lr=1e-2, weight_decay=0.0, maximize=maximize)
    found = audit(optimizer, steps=50)
    assert codes(found) == ["cautious"] and "takes nothing of a weight that the gradient" in found.findings[0].text
    for _ in range(50):
        w.grad = v.grad = (1 if maximize else -1) * w.detach().sign()
        optimizer.step()
        plain.step()
    torch.testing.assert_close(w, v)
    for other in (LateAndCautious([matrix()], weight_decay=1.0), Doubled([matrix()], weight_decay=1.0)):  # by its steps
        assert ("cautious" in codes(audit(other, steps=50))) == isinstance(other, LateAndCautious)


@shows("no_rate")
def test_without_a_rate_nothing_moves():
    w = matrix()
    optimizer = torch.optim.AdamW([w], lr=0.0, weight_decay=1.0)
    found = audit(optimizer, steps=50).findings[0]
    assert (found.code, found.severity) == ("no_rate", "error")
    w.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(w, torch.ones(2, 2))
    exec(found.fix, {"optimizer": optimizer})
    assert "no_rate" not in codes(audit(optimizer, steps=50))


def test_adams_default_is_no_decay():
    assert codes(audit(torch.optim.Adam([matrix()]), steps=50)) == ["no_decay"]


@shows("ignored")
def test_an_optimizer_that_ignores_its_decay_ends_where_it_would_without():
    ends = []
    for weight_decay in (0.5, 0.0):
        w = matrix()
        optimizer = Deaf([w], weight_decay=weight_decay)
        assert ("ignored" in codes(audit(optimizer, steps=100))) == (weight_decay > 0)
        for _ in range(5):
            w.grad = torch.ones(2, 2)
            optimizer.step()
        ends.append(w.detach())
    assert torch.equal(*ends)


@shows("neither")
def test_a_capped_decay_is_the_same_for_twice_the_weight_decay():
    ends = []
    for weight_decay in (1.0, 2.0):
        w = matrix()
        optimizer = Capped([w], weight_decay=weight_decay)
        found = audit(optimizer, steps=10)
        assert codes(found) == ["neither"] and found.table["remaining"].isna().all()
        for _ in range(10):
            w.grad = torch.zeros(2, 2)
            optimizer.step()
        ends.append(w.detach())
    assert torch.equal(*ends) and ends[0][0, 0] < 1


@shows("lr_independent")
def test_a_decay_that_ignores_lr_takes_the_same_share_at_any_rate():
    for lr in (1e-2, 1e-4):
        w = matrix()
        optimizer = adamw_book.AdamW([w], lr=lr, weight_decay=1e-3, lr_independent=True)
        found = audit(optimizer, steps=100)
        assert codes(found) == ["lr_independent"]
        for _ in range(100):
            w.grad = torch.zeros(2, 2)
            optimizer.step()
        assert w[0, 0].item() == pytest.approx(found.table["remaining"][0], rel=1e-4)


@shows("embedding_decayed")
def test_rows_decay_in_steps_in_which_their_token_does_not_occur():
    table = nn.Embedding(10, 4)
    optimizer = torch.optim.AdamW(table.parameters(), lr=1e-2, weight_decay=1.0)
    found = audit(optimizer, table, 20)
    assert codes(found) == ["embedding_decayed"]
    start = table.weight.detach().clone()
    for _ in range(20):
        optimizer.zero_grad()
        table(torch.tensor([1, 2])).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(table.weight[7].detach(), start[7] * found.table["remaining"][0])


@shows("tied")
def test_a_tied_tensor_is_decayed_once_a_step():
    model = Model()
    optimizer = torch.optim.AdamW(groups(model), lr=1e-2)
    assert "tied" in codes(audit(optimizer, model, 100))
    start = model.tokens.weight.detach().clone()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(model.head.weight.detach(), start * 0.99)


def test_a_tensor_under_two_names_of_one_module_is_tied_too():
    model = nn.Module()
    model.first = model.second = matrix()
    assert "tied" in codes(audit(torch.optim.AdamW(model.parameters(), lr=1e-2), model, 1000))


def test_a_module_under_two_names_is_tied_too():
    layer = nn.Linear(4, 4)
    model = nn.ModuleDict({"first": layer, "second": layer})
    assert "tied" in codes(audit(torch.optim.AdamW(model.parameters(), lr=1e-2), model, 1000))


@shows("schedule_unfinished", "rate_rises_again")
def test_a_weight_of_noise_ends_wide_where_the_rate_has_not_come_down_or_is_up_again():
    ends = {}
    for length, expected in ((200, []), (2000, ["schedule_unfinished"]), (120, ["rate_rises_again"])):
        w, rng = nn.Parameter(torch.zeros(20, 20)), torch.Generator().manual_seed(0)
        optimizer = torch.optim.AdamW([w], lr=1e-1, weight_decay=0.5)
        schedule = lr_scheduler.CosineAnnealingLR(optimizer, length)
        found = audit(optimizer, steps=200, schedule=schedule)
        assert codes(found) == expected + (["initial_forgotten"] if found.table["remaining"][0] < 0.01 else [])
        for _ in range(200):
            w.grad = torch.randn(20, 20, generator=rng)
            optimizer.step()
            schedule.step()
        ends[length] = w.square().mean().sqrt().item()
    assert ends[200] < 0.8 * min(ends[2000], ends[120])


@pytest.mark.parametrize(("length", "percent"), [(330, 34), (450, 59), (900, 88)])
def test_a_schedule_is_unfinished_that_ends_above_half_of_its_peak(length: int, percent: int):
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(2, 2))], lr=1e-3, weight_decay=1.0)
    found = audit(optimizer, steps=200, schedule=lr_scheduler.CosineAnnealingLR(optimizer, length))
    texts = [f.text for f in found.findings if f.code == "schedule_unfinished"]
    assert [f"ends at {percent}" in text for text in texts] == ([True] if percent > 50 else [])


def linear(step: int, *, num_training_steps: int) -> float:
    return max(0.0, 1 - step / num_training_steps)


def inverse_root(step: int) -> float:
    return min((step + 1) / 80, (80 / (step + 1)) ** 0.5)


LINEAR = functools.partial(linear, num_training_steps=500)  # as transformers makes them
UNFINISHED = [  # schedule, settings, what is found for a run of 200 steps
    (lambda o: lr_scheduler.CosineAnnealingLR(o, 30), {"schedule_interval": 20}, ("warning", 10)),
    (lambda o: lr_scheduler.CosineAnnealingLR(o, 30), {"schedule_interval": 21}, ("warning", 10)),
    (lambda o: lr_scheduler.CosineAnnealingLR(o, 10), {"schedule_interval": 20}, None),
    (lambda o: lr_scheduler.CosineAnnealingLR(o, 30), {"schedule_interval": 200}, None),  # one rate, all the run
    (lambda o: lr_scheduler.LinearLR(o, 1.0, 0.6, 500), {}, ("warning", 200)),
    (lambda o: lr_scheduler.PolynomialLR(o, 500), {}, ("warning", 200)),
    (lambda o: lr_scheduler.OneCycleLR(o, 1e-3, total_steps=400, pct_start=0.3), {}, ("warning", 200)),
    (lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, 1.0, 10), lr_scheduler.PolynomialLR(o, 500)], [10]), {}, ("warning", 200)),
    (lambda o: lr_scheduler.LambdaLR(o, LINEAR), {}, ("warning", 200)),
    # open ends
    (lambda o: lr_scheduler.LambdaLR(o, inverse_root), {}, ("note", 200)),
    (lambda o: inverse_root, {}, ("note", 200)),
    (lambda o: lr_scheduler.ExponentialLR(o, 0.999), {}, ("note", 200)),
    (lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, 1.0, 10), lr_scheduler.ExponentialLR(o, 0.999)], [10]), {}, ("note", 200)),
    # what ends with the run, high as it is
    (lambda o: "linear", {"final": 0.6}, None),
    (lambda o: lr_scheduler.CosineAnnealingLR(o, 200, 6e-4), {}, None),
    (lambda o: lr_scheduler.LinearLR(o, 1.0, 0.6, 200), {}, None),
    (lambda o: lr_scheduler.LinearLR(o, 1.0, 0.6, 10), {"schedule_interval": 20}, None),
    (lambda o: [1 - 0.4 * t / 200 for t in range(200)], {}, None),
    (lambda o: [1 - 0.4 * t / 200 for t in range(200)].__getitem__, {}, None),
]  # fmt: skip


@pytest.mark.parametrize(("make", "settings", "expected"), UNFINISHED)
def test_a_schedule_is_unfinished_that_falls_on_after_the_run(make, settings: dict, expected):
    optimizer = torch.optim.AdamW([matrix()], lr=1e-3, weight_decay=1.0)
    schedule = make(optimizer)
    found = [
        f
        for f in audit(optimizer, steps=200, schedule=schedule, **settings).findings
        if f.code == "schedule_unfinished"
    ]
    assert [(f.severity, int(re.search(r"total_steps=(\d+)", f.fix)[1])) for f in found] == [expected] * (
        expected is not None
    )
    assert all(("if it is meant to end near 0" in f.text) == (f.severity == "note") for f in found)


def test_the_length_that_mends_a_schedule_counts_the_steps_that_it_has_taken():
    optimizer = torch.optim.AdamW([matrix()], lr=1e-3, weight_decay=1.0)
    schedule = lr_scheduler.CosineAnnealingLR(optimizer, 900)
    for _ in range(50):
        optimizer.step()
        schedule.step()
    fixes = {f.code: f.fix for f in audit(optimizer, steps=200, schedule=schedule).findings}
    assert fixes["schedule_unfinished"].startswith("total_steps=250 ")
    schedule.T_max = 150
    fixes = {f.code: f.fix for f in audit(optimizer, steps=200, schedule=schedule).findings}
    assert fixes["rate_rises_again"] == "T_max=250"


@pytest.mark.parametrize("taken", [1, 5])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_comparable_coefficients_come_from_a_second_moment_that_is_corrected(kind, taken: int):
    w = nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    optimizer = kind([w], lr=1e-4, weight_decay=0.1)
    for _ in range(taken):
        w.grad = torch.full_like(w, 0.5)  # √v̂ is 0.5 from the first step on
        optimizer.step()
    row = audit(optimizer, steps=100).table.iloc[0]
    wanted = {"comparable_l2": 0.05, "comparable_decay": 0.1} if kind is torch.optim.AdamW else {
        "comparable_l2": 0.1, "comparable_decay": 0.2}  # fmt: skip
    assert row[list(wanted)].to_dict() == pytest.approx(wanted, rel=1e-3)


def test_every_finding_has_a_run_that_shows_it():
    code = "".join(path.read_text(encoding="utf-8") for path in Path(auditing.__file__).parent.glob("*.py"))
    assert set(re.findall(r'(?:Finding|find)\(\s*"(\w+)"', code)) | set(TEMPLATES) == SHOWN
