"""The options that torch does not have, on every backend that takes them."""

import copy
import io
import pickle

import pytest
import torch
from option_checks import CHECKS, tensors
from torch import nn

from adamw_book.optim import AdamW

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("name", CHECKS)
def test_option(name, backend, device):
    CHECKS[name](device, backend)


def test_backends_of_the_options():
    """torch's kernel takes what it can, the reference the rest."""
    params = tensors([(3,)])
    half = tensors([(3,)], dtype=torch.bfloat16)
    assert AdamW(params, lr_independent=True, max_norm=1.0).backend == "torch"
    assert AdamW(params, cautious=True).backend == "reference"
    assert AdamW(params, explain=True).backend == "reference"
    assert AdamW(params, stochastic_rounding=True).backend == "torch"
    assert AdamW(half, stochastic_rounding=True).backend == "reference"
    assert AdamW(half, state_dtype=torch.float32).backend == "reference"
    with pytest.raises(ValueError, match="backend: 'torch' does not support cautious, state_dtype=torch.float64;"):
        AdamW(params, cautious=True, state_dtype=torch.float64, backend="torch")
    with pytest.raises(ValueError, match="backend: 'torch' covers .*; got torch.float32 on cpu, not contiguous;"):
        AdamW([tensors([(3, 4)])[0].t()], backend="torch")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"max_norm": 0.0}, "Invalid max_norm value: 0.0; a number above 0, or None"),
        ({"max_norm": -1.0}, "Invalid max_norm value: -1.0"),
        ({"state_dtype": torch.int32}, "Invalid state_dtype: torch.int32; one of torch.float32, .*, or None"),
        ({"state_dtype": torch.float8_e4m3fn}, "Invalid state_dtype: torch.float8_e4m3fn; one of torch.float32"),
    ],
)
def test_unfit_options(kwargs, message):
    with pytest.raises(ValueError, match=message):
        AdamW(tensors([(3,)]), **kwargs)


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.float8_e4m3fn, "float32"], ids=str)
def test_an_unfit_state_dtype_is_refused_wherever_it_is_said(dtype, backend):
    """In the group that brings it, of complex and lazy parameters too, and between steps, where nothing moves."""
    p, message = nn.Parameter(torch.ones(3)), "Invalid state_dtype: .*; one of torch.float32, .*, or None"
    for odd in (p, nn.Parameter(torch.ones(3, dtype=torch.cfloat)), nn.UninitializedParameter()):
        with pytest.raises(ValueError, match=message):
            AdamW([{"params": [odd], "state_dtype": dtype}], backend=backend)
    optimizer = AdamW([p], backend=backend)
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "state_dtype": dtype})
    assert len(optimizer.param_groups) == 1
    for _ in range(2):
        p.grad = torch.ones(3)
        optimizer.step()
        optimizer.param_groups[0]["state_dtype"], before = dtype, p.detach().clone()
        with pytest.raises(ValueError, match=message):
            optimizer.step()
        assert torch.equal(p, before)
        optimizer.param_groups[0]["state_dtype"] = None
    assert optimizer.state[p]["step"] == 2


def test_options_given_in_a_group_stay():
    """Clipping and the explanation, too, whose arguments are None and False; the optimizer whose groups are handed on
    keeps them as well. An argument that says otherwise is refused."""
    p, q = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    old = AdamW([{"params": [p]}, {"params": [q], "max_norm": 1.0, "explain": True}])
    new = AdamW(old.param_groups, lr=0.1, backend="reference")
    assert [(o.max_norm, o.explain) for o in (old, new)] == [(1.0, True)] * 2
    with pytest.raises(ValueError, match=r"Invalid max_norm value: .*2\.0.*; .* the same for all groups"):
        AdamW([{"params": [p], "max_norm": 1.0}], max_norm=2.0)
    same = AdamW([{"params": [p], "max_norm": 1.0}, {"params": [q]}], max_norm=1.0)
    assert same.max_norm == 1.0 and not same.explain


def test_explanation_must_be_asked_for_before():
    params = tensors([(3,)])
    optimizer = AdamW(params)
    params[0].grad = torch.ones(3)
    optimizer.step()
    with pytest.raises(RuntimeError, match="set optimizer.explain = True before the step"):
        optimizer.explanation()


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"]
)
def test_copies_keep_the_options(duplicate):
    options = {"l2": 0.1, "lr_independent": True, "cautious": True, "stochastic_rounding": True}
    optimizer = AdamW([nn.Parameter(torch.ones(3))], max_norm=2.0, explain=True, state_dtype=torch.float64, **options)
    twin = duplicate(optimizer)
    assert (twin.max_norm, twin.explain, twin.param_groups[0]["state_dtype"]) == (2.0, True, torch.float64)
    assert all(twin.param_groups[0][name] == value for name, value in options.items())


def test_options_and_vectors_travel_as_weights_only():
    """Through torch.save(weights_only=True) and back: both go on alike."""
    options = {"l2": 0.1, "lr_independent": True, "cautious": True, "stochastic_rounding": True, "amsgrad": True}
    params = tensors([(3, 4)])
    optimizer = AdamW(params, lr=torch.tensor([0.1, 0.2, 0.3]), state_dtype=torch.float64, **options)
    params[0].grad = torch.ones(3, 4)
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again = [params[0].clone()]
    again[0].grad = torch.ones(3, 4)
    resumed = AdamW(again)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    optimizer.step()
    resumed.step()
    assert torch.equal(params[0], again[0])
    assert resumed.state[again[0]]["exp_avg"].dtype == torch.float64


def test_a_state_dict_of_torch_leaves_the_options_alone():
    theirs = torch.optim.AdamW([nn.Parameter(torch.ones(3))], lr=0.5)
    mine = AdamW([{"params": [nn.Parameter(torch.ones(3))], "l2": 0.25}], cautious=True)
    mine.load_state_dict(theirs.state_dict())
    group = mine.param_groups[0]
    assert (group["lr"], group["l2"], group["cautious"]) == (0.5, 0.25, True)
