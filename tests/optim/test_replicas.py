"""Vectors of coefficients: row r of an ensemble moves as it would alone, under torch's optimizers, with the r-th
values.
"""

import copy

import pytest
import torch
from seven_steps import parameters
from torch import nn

from adamw_book.optim import AdamW

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
R = 6
SHAPES = [(4, 3), (7,), (), (2, 3, 2)]
VECTORS = {
    "lr": torch.tensor([1e-3, 1e-2, 0.1, 0.03, 0.0, 0.3]),
    "weight_decay": torch.tensor([0.0, 0.1, 1.0, 0.01, 0.5, 0.3]),
    "l2": torch.tensor([0.1, 0.01, 1.0, 0.0, 0.3, 1e-4]),
    "betas": (torch.tensor([0.9, 0.0, 0.5, 0.99, 0.8, 0.9]), torch.tensor([0.999, 0.99, 0.5, 0.0, 0.9, 0.9999])),
}


def stacked(device="cpu", dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(R, *s, generator=generator).to(device, dtype) for s in SHAPES]


def gradients(steps=7, device="cpu", dtype=torch.float32):
    """Gradients (R, …) of every parameter at every step; the second parameter has none at step 2, the third from 3
    to 5.
    """
    generator = torch.Generator().manual_seed(1)
    missing = {(2, 1), (3, 2), (4, 2), (5, 2)}
    return [
        [
            None if (t, i) in missing else torch.randn(R, *s, generator=generator).to(device, dtype)
            for i, s in enumerate(SHAPES)
        ]
        for t in range(1, steps + 1)
    ]


def run(optimizer, params, grads, row=None, schedule=None):
    for t, step in enumerate(grads):
        if schedule is not None:
            schedule(optimizer, t)
        for p, g in zip(params, step, strict=True):
            p.grad = None if g is None else (g if row is None else g[row]).clone()
        optimizer.step()
    return params


def solo_kwargs(kwargs: dict, row: int) -> dict:
    """The r-th values of every vector as Python numbers."""

    def pick(value):
        return float(value[row]) if isinstance(value, torch.Tensor) else value

    return {k: tuple(map(pick, v)) if k == "betas" else pick(v) for k, v in kwargs.items()}


def check_rows(kwargs: dict, backend=None, device="cpu", schedule=None, tolerance=None, **flags) -> None:
    """Train the ensemble at once and each row alone with torch; parameters and state must agree."""
    tolerance = tolerance or {"rtol": 1e-5, "atol": 1e-6}
    params = [nn.Parameter(p) for p in stacked(device)]
    kwargs = {k: tuple(x.to(device) for x in v) if k == "betas" else v.to(device) for k, v in kwargs.items()}
    mine = AdamW(params, backend=backend, **{"weight_decay": 0.0, **kwargs}, **flags)
    run(mine, params, gradients(device=device), schedule=schedule and (lambda o, t: schedule(o, t, None)))
    for r in range(R):
        alone = [nn.Parameter(p[r].clone()) for p in stacked(device)]
        solo = {"weight_decay": 0.0} | solo_kwargs(kwargs, r)
        if "l2" in solo:  # torch's Adam calls the penalty weight_decay, and knows no other decay
            assert solo.pop("weight_decay") == 0
            theirs = torch.optim.Adam(alone, weight_decay=solo.pop("l2"), **solo, **flags)
        else:
            theirs = torch.optim.AdamW(alone, **solo, **flags)
        run(theirs, alone, gradients(device=device), row=r, schedule=schedule and (lambda o, t, r=r: schedule(o, t, r)))
        for i, (p, q) in enumerate(zip(params, alone, strict=True)):
            torch.testing.assert_close(p[r], q, **tolerance, msg=lambda m, r=r, i=i: f"replica {r}, parameter {i}: {m}")
            for name in ("exp_avg", "exp_avg_sq"):
                torch.testing.assert_close(
                    mine.state[p][name][r],
                    theirs.state[q][name],
                    **tolerance,
                    msg=lambda m, r=r, n=name: f"replica {r}, {n}: {m}",
                )


@pytest.mark.parametrize("flags", [{}, {"amsgrad": True}, {"maximize": True}], ids=str)
@pytest.mark.parametrize(
    "names",
    [
        ["lr"],
        ["weight_decay"],
        ["l2"],
        ["betas"],
        ["lr", "weight_decay"],
        ["lr", "l2"],
        ["lr", "weight_decay", "betas"],
        ["lr", "l2", "betas"],
    ],
    ids="+".join,
)
@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("device", DEVICES)
def test_rows_equal_solo_runs(names, flags, backend, device):
    check_rows({name: VECTORS[name] for name in names}, backend=backend, device=device, **flags)


def test_arms_side_by_side():
    """AdamW, Adam + L2 and Adam in one ensemble, each row against the torch optimizer of its arm."""
    arms = [
        ("AdamW", 0.1, 0.0),
        ("AdamW", 1.0, 0.0),
        ("Adam + L2", 0.0, 0.1),
        ("Adam + L2", 0.0, 1.0),
        ("Adam", 0.0, 0.0),
        ("Adam", 0.0, 0.0),
    ]
    lr = torch.tensor([1e-3, 1e-2, 1e-3, 1e-2, 1e-3, 1e-2])
    params = [nn.Parameter(p) for p in stacked()]
    decay, penalty = (torch.tensor([arm[i] for arm in arms]) for i in (1, 2))
    run(AdamW(params, lr=lr, weight_decay=decay, l2=penalty), params, gradients())
    for r, (arm, weight_decay, l2) in enumerate(arms):
        alone = [nn.Parameter(p[r].clone()) for p in stacked()]
        if arm == "AdamW":
            theirs = torch.optim.AdamW(alone, lr=float(lr[r]), weight_decay=weight_decay)
        else:
            theirs = torch.optim.Adam(alone, lr=float(lr[r]), weight_decay=l2)
        run(theirs, alone, gradients(), row=r)
        for p, q in zip(params, alone, strict=True):
            torch.testing.assert_close(p[r], q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_a_schedule_of_vectors(how, backend):
    def schedule(optimizer, t, row):
        group = optimizer.param_groups[0]
        lr = VECTORS["lr"] * (1 - t / 10)
        if row is not None:
            group["lr"] = float(lr[row])
        elif how == "in place":
            group["lr"].copy_(lr)
        else:
            group["lr"] = lr

    check_rows(
        {"lr": VECTORS["lr"].clone(), "weight_decay": VECTORS["weight_decay"]}, backend=backend, schedule=schedule
    )


def test_groups_with_and_without_vectors():
    """A group of biases that no decay acts on keeps the ensemble's lr; a group of numbers is an ordinary one."""
    weights, biases, other = stacked()[0], stacked()[1], torch.ones(3, 2)
    params = [nn.Parameter(x) for x in (weights, biases, other)]
    optimizer = AdamW(
        [
            {"params": params[:1]},
            {"params": params[1:2], "weight_decay": 0.0},
            {"params": params[2:], "lr": 0.1, "weight_decay": 0.5},
        ],
        lr=VECTORS["lr"],
        weight_decay=VECTORS["weight_decay"],
    )
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    shape = lambda v, p: v.view(-1, *[1] * (p.dim() - 1))  # noqa: E731
    torch.testing.assert_close(
        params[0].detach(),
        (1 - shape(VECTORS["lr"] * VECTORS["weight_decay"], weights)) * stacked()[0] - shape(VECTORS["lr"], weights),
    )
    torch.testing.assert_close(params[1].detach(), stacked()[1] - shape(VECTORS["lr"], biases))
    torch.testing.assert_close(params[2].detach(), torch.full((3, 2), 0.95 - 0.1))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"lr": torch.ones(4)},
            r"Tensor lr must be 1-element, or hold one value .* got 4 values and a parameter of shape \(6, 4, 3\)",
        ),
        (
            {"weight_decay": torch.ones(6, 2)},
            r"Tensor weight_decay must be 1-element, or of shape \(R,\) .* got shape \(6, 2\)",
        ),
        ({"lr": torch.ones(6), "l2": torch.ones(5)}, "l2 holds 5 replicas, lr holds 6"),
        (
            {"lr": torch.tensor([0.1, -0.1, 0.1, 0, 0, 0])},
            r"Invalid learning rate: lr\[1\] is -0.1; each replica's value must be 0 or more",
        ),
        ({"l2": torch.tensor([0.1, 0.1, float("nan"), 0, 0, 0])}, r"Invalid l2 value: l2\[2\] is nan"),
        ({"l2": -1.0}, "Invalid l2 value: -1.0"),
        (
            {"betas": (0.9, torch.tensor([0.9, 1.0, 0, 0, 0, 0]))},
            r"index 1: betas\[1\]\[1\] is 1; each replica's value must be in \[0, 1\)",
        ),
        (
            {"lr": torch.ones(6), "foreach": True},
            "lr as a Tensor is not supported for capturable=False and foreach=True",
        ),
        ({"backend": "cuda"}, "backend: 'cuda' is unknown; choose from 'triton', 'torch', 'reference' or None"),
        (
            {"backend": "torch", "betas": VECTORS["betas"]},
            "backend: 'torch' does not support a vector as beta; backend=None chooses",
        ),
        ({"backend": "triton"}, "backend: 'triton' needs parameters on a CUDA device, got cpu"),
    ],
)
def test_unfit_arguments(kwargs, message):
    if "triton" in str(kwargs):
        pytest.importorskip("triton", reason="Triton is not available for this platform")
    with pytest.raises(ValueError, match=message):
        AdamW([nn.Parameter(p) for p in stacked()[:1]], **kwargs)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "lr",
            [0.1, 0.2],
            r"lr: \[0.1, 0.2\]; a number, or a tensor of shape \(R,\) with one value a replica, is needed",
        ),
        ("lr", "1e-3", "lr: '1e-3'; a number, or a tensor"),
        ("weight_decay", None, "weight_decay: None; a number, or a tensor"),
        ("betas", (0.9, [0.99]), r"betas\[1\]: \[0.99\]; a number, or a tensor"),
        ("betas", (0.9, 0.99, 0.999), r"betas: \(0.9, 0.99, 0.999\); a pair \(β₁, β₂\) is needed"),
        ("betas", 0.9, r"betas: 0.9; a pair"),
        ("eps", torch.full((R,), 1e-8), r"eps: tensor\(.*; a number, one for all replicas, is needed"),
        ("max_norm", torch.ones(R), r"Invalid max_norm value: tensor\(.*; a number above 0, or None"),
        ("max_norm", [1.0], r"Invalid max_norm value: \[1.0\]; a number above 0"),
    ],
)
def test_what_is_no_coefficient_is_named(name, value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        AdamW([nn.Parameter(p) for p in stacked()[:1]], **{name: value})


def test_vectors_of_a_group_have_the_constructors_ranges():
    optimizer = AdamW([nn.Parameter(stacked()[0])], lr=VECTORS["lr"])
    wrong = {"lr": VECTORS["lr"].clone().fill_(float("nan"))}, {"weight_decay": -torch.ones(R)}, {"l2": -torch.ones(R)}
    for group in wrong:
        with pytest.raises(ValueError, match=f"{next(iter(group))}.0. is .*; each replica's value must be 0 or more"):
            optimizer.add_param_group({"params": [nn.Parameter(stacked()[1])]} | group)
    assert len(optimizer.param_groups) == 1


def test_what_is_no_coefficient_between_steps_changes_nothing():
    params = [nn.Parameter(p) for p in stacked()]
    optimizer = AdamW([{"params": params[:1]}, {"params": params[1:]}], lr=VECTORS["lr"])
    run(optimizer, params, gradients(1))
    before = [p.detach().clone() for p in params]
    optimizer.param_groups[1]["lr"] = VECTORS["lr"].tolist()
    with pytest.raises(TypeError, match=r"lr: \[.*; a number, or a tensor of shape \(R,\)"):
        optimizer.step()
    assert all(map(torch.equal, before, params)) and {int(s["step"]) for s in optimizer.state.values()} == {1}


def test_a_schedule_by_hand_starts_from_where_it_said():
    """The refusal's own advice, on groups that share the vector they were made with."""
    base, params = torch.linspace(0.1, 0.6, R), [nn.Parameter(torch.zeros(R, 2)) for _ in range(2)]
    optimizer = AdamW([{"params": [p]} for p in params], lr=base, weight_decay=0.0)
    with pytest.raises(ValueError, match=r"param_group\['lr'\] = factor \* base_lr"):
        torch.optim.lr_scheduler.ConstantLR(optimizer)
    for factor in (1.0, 0.5, 0.5):
        for group in optimizer.param_groups:
            group["lr"] = factor * base
    run(optimizer, params, [[torch.ones(R, 2)] * 2])
    for p in params:  # the first step is as long as the rate
        torch.testing.assert_close(p.detach(), -torch.linspace(0.05, 0.3, R)[:, None].expand(R, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cautious_decay_is_as_fine_as_the_parameter(dtype):
    """Whatever torch's default dtype is: 1 − ηλ is not to be rounded to it."""
    default, decay = torch.get_default_dtype(), 2.0**-20
    try:
        torch.set_default_dtype(torch.bfloat16)
        p = nn.Parameter(torch.ones(2, dtype=dtype))
        optimizer = AdamW([p], lr=decay, weight_decay=1.0, cautious=True)
        p.grad = torch.zeros_like(p)
        optimizer.step()
    finally:
        torch.set_default_dtype(default)
    assert p.tolist() == [1 - decay] * 2


def test_a_scalar_parameter_has_no_replicas():
    with pytest.raises(ValueError, match=r"a parameter of shape \(\)"):
        AdamW(parameters()[-1:], lr=torch.ones(3))


def test_a_group_that_does_not_fit_is_not_added():
    optimizer = AdamW([nn.Parameter(p) for p in stacked()], lr=VECTORS["lr"])
    with pytest.raises(ValueError, match="got 6 values and a parameter of shape"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))]})
    with pytest.raises(TypeError):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(R))], "betas": 0.9})
    assert len(optimizer.param_groups) == 1


def test_a_vector_of_another_length_is_refused_at_the_step():
    params = [nn.Parameter(p) for p in stacked()]
    optimizer = AdamW(params, lr=VECTORS["lr"])
    run(optimizer, params, gradients(1))
    optimizer.param_groups[0]["lr"] = torch.ones(R - 1)
    with pytest.raises(ValueError, match="got 5 values and a parameter of shape"):
        run(optimizer, params, gradients(1))


def test_state_dict_with_vectors_round_trips():
    params = [nn.Parameter(p) for p in stacked()]
    optimizer = AdamW(params, lr=VECTORS["lr"], l2=VECTORS["l2"])
    run(optimizer, params, gradients())
    again = [nn.Parameter(p.detach().clone()) for p in params]
    resumed = AdamW(again, lr=0.5)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(optimizer, params, gradients(3))
    run(resumed, again, gradients(3))
    for p, q in zip(params, again, strict=True):
        assert torch.equal(p, q)


def test_backends_are_named():
    params = [nn.Parameter(p) for p in stacked()]
    assert AdamW(params).backend == "torch"
    assert AdamW(params, backend="reference").backend == "reference"
    assert AdamW(params, betas=VECTORS["betas"]).backend == "reference"
    mixed = AdamW([{"params": params[:1]}, {"params": params[1:], "betas": VECTORS["betas"]}])
    assert mixed.backend == "torch + reference"
