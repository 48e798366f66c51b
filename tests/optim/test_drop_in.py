"""torch.optim.AdamW's own configurations, error inputs, state and surroundings, taken over unchanged."""

import copy
import io
import pickle
import weakref

import pytest
import torch
from kernel_checks import check_any_default_device, check_changes_between_steps, check_states_from_elsewhere
from seven_steps import assert_same_training, parameters, train
from torch import nn
from torch.testing._internal.common_optimizers import optim_error_inputs_func_adamw, optim_inputs_func_adamw

from adamw_book.optim import AdamW

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
# torch hands out its capturable configurations for GPUs only; here they run everywhere.
INPUTS = optim_inputs_func_adamw("cuda")
EXACT = {"rtol": 1e-5, "atol": 1e-6}


def on_torch(kwargs: dict, device: str) -> dict:
    """The arguments under which torch takes the same steps on this device: its capturable steps exist on GPUs only."""
    if device != "cpu":
        return kwargs
    numbers = {
        k: v.item() if isinstance(v, torch.Tensor) else v for k, v in kwargs.items() if k not in ("capturable", "betas")
    }
    return numbers | ({"betas": tuple(float(b) for b in kwargs["betas"])} if "betas" in kwargs else {})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.complex64, torch.bfloat16, torch.float16], ids=str
)
@pytest.mark.parametrize("config", INPUTS, ids=lambda c: c.desc)
@pytest.mark.parametrize(
    "implementation", [{}, {"foreach": True}, {"fused": True}, {"foreach": False, "fused": False}], ids=str
)
def test_torch_configuration(config, dtype, backend, device, implementation):
    kwargs = dict(config.kwargs)
    if dtype == torch.float16:
        kwargs["eps"] = 1e-3  # as in torch's suite: 1e-8 is 0 in float16
    tolerance = {"rtol": 5e-3, "atol": 5e-3} if dtype in (torch.bfloat16, torch.float16) else EXACT
    params, other = parameters(dtype, device), parameters(dtype, device)
    mine = AdamW(params, backend=backend, **kwargs, **implementation)
    theirs = torch.optim.AdamW(other, **on_torch(kwargs, device))
    assert_same_training(mine, theirs, params, other, **tolerance)


@pytest.mark.parametrize(
    "case", optim_error_inputs_func_adamw("cpu", torch.float32), ids=lambda c: c.optimizer_error_input.desc
)
def test_torch_error_input(case):
    given = case.optimizer_error_input
    check = pytest.warns if issubclass(case.error_type, Warning) else pytest.raises
    with check(case.error_type, match=case.error_regex):
        AdamW(given.params, **given.kwargs)


def test_error_inputs_cover_what_torch_covers():
    """Each error input does fail in torch itself, so that the test above compares with something."""
    for case in optim_error_inputs_func_adamw("cpu", torch.float32):
        given = case.optimizer_error_input
        check = pytest.warns if issubclass(case.error_type, Warning) else pytest.raises
        with check(case.error_type, match=case.error_regex):
            torch.optim.AdamW(given.params, **given.kwargs)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"lr": -1.0},
        {"eps": -1.0},
        {"betas": (0.9, 1.0)},
        {"betas": (-0.1, 0.9)},
        {"lr": float("nan")},
        {"betas": (0, 0.9)},
        {"fused": True, "foreach": True},
        {"fused": True, "differentiable": True},
    ],
    ids=str,
)
def test_same_message_as_torch(kwargs):
    with pytest.raises((ValueError, RuntimeError)) as expected:
        torch.optim.AdamW(parameters(), **kwargs)
    with pytest.raises(expected.type) as received:
        AdamW(parameters(), **kwargs)
    assert str(received.value) == str(expected.value)


def test_sparse_gradient_is_refused_as_in_torch():
    weight = nn.Parameter(torch.ones(4, 2))
    weight.grad = torch.sparse_coo_tensor([[1]], torch.ones(1, 2), (4, 2), check_invariants=True)
    messages = []
    for cls in (AdamW, torch.optim.AdamW):
        with pytest.raises(RuntimeError) as error:
            cls([weight]).step()
        messages.append(str(error.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("names", [False, True])
@pytest.mark.parametrize(
    "direction", [(AdamW, torch.optim.AdamW), (torch.optim.AdamW, AdamW)], ids=["to torch", "from torch"]
)
def test_state_dict_moves_between_the_two(direction, names, amsgrad):
    """Seven steps, the state handed over, seven more: the same as fourteen of torch's. Through
    torch.save(weights_only=True).
    """
    source_class, target_class = direction

    def make(cls):
        params = parameters()
        return params, cls(
            [(f"p{i}", p) for i, p in enumerate(params)] if names else params,
            lr=3e-3,
            weight_decay=0.2,
            amsgrad=amsgrad,
        )

    params, source = make(source_class)
    train(source, params)
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    moved, target = make(target_class)
    target.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        for p, q in zip(moved, params, strict=True):
            p.copy_(q)
    train(target, moved)
    expected, control = make(torch.optim.AdamW)
    train(control, expected)
    train(control, expected)
    for p, q in zip(moved, expected, strict=True):
        torch.testing.assert_close(p, q, **EXACT)
    assert all(group["decoupled_weight_decay"] for group in target.param_groups if "decoupled_weight_decay" in group)
    assert ("param_names" in target.param_groups[0]) == names


def test_groups_hold_torchs_options_and_those_of_our_own_that_are_used():
    theirs = set(torch.optim.AdamW(parameters()).param_groups[0])
    assert set(AdamW(parameters()).param_groups[0]) == theirs
    own = {"l2": 0.1, "lr_independent": True, "cautious": True, "stochastic_rounding": True}
    own |= {"state_dtype": torch.float64, "max_norm": 1.0, "explain": True}
    group = AdamW(parameters(), **own).param_groups[0]
    assert set(group) - theirs == set(own) and all(group[name] == value for name, value in own.items())


@pytest.mark.parametrize("options", [{}, {"fused": True}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_count_has_the_dtype_of_torchs(dtype, options):
    """That of torch's default dtype, and float32 whatever that is where the step is fused."""
    counts, before = [], torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        for cls in (AdamW, torch.optim.AdamW):
            p = nn.Parameter(torch.ones(3))
            p.grad = torch.ones(3)
            optimizer = cls([p], **options)
            optimizer.step()
            counts.append(optimizer.state[p]["step"])
    finally:
        torch.set_default_dtype(before)
    torch.testing.assert_close(*counts, rtol=0, atol=0)


def test_state_of_an_older_torch_loads():
    """A step count that is a Python number and groups without the newer flags, as torch wrote them before 1.12."""
    params = parameters()
    optimizer = AdamW(params)
    train(optimizer, params)
    old = copy.deepcopy(optimizer.state_dict())
    for state in old["state"].values():
        state["step"] = int(state["step"])
    for group in old["param_groups"]:
        for key in ("maximize", "foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay"):
            del group[key]
    again = parameters()
    resumed = AdamW(again)
    resumed.load_state_dict(old)
    with torch.no_grad():
        for p, q in zip(again, params, strict=True):
            p.copy_(q)
    for a, b in zip(train(resumed, again)[-1], train(optimizer, params)[-1], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize("lr", [1e-2, torch.tensor(1e-2)], ids=["number", "tensor"])
def test_a_copy_goes_on_alike(duplicate, lr):
    params = parameters()
    optimizer = AdamW(params, lr=lr, backend="reference")
    train(optimizer, params)
    twin = duplicate(optimizer)
    assert twin.backend == "reference"
    twin_params = [p for group in twin.param_groups for p in group["params"]]
    for a, b in zip(train(twin, twin_params)[-1], train(optimizer, params)[-1], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 7),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=9),
    ],
    ids=["cosine", "lambda", "one cycle"],
)
@pytest.mark.parametrize("lr", [1e-2, torch.tensor(1e-2)], ids=["number", "tensor"])
def test_schedulers(schedule, lr):
    results = []
    for cls in (AdamW, torch.optim.AdamW):
        params = parameters()
        optimizer = cls(params, lr=lr.clone() if isinstance(lr, torch.Tensor) else lr)
        scheduler = schedule(optimizer)
        optimizer.register_step_post_hook(lambda *_, s=scheduler: s.step())
        results.append(train(optimizer, params)[-1])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_closure_and_hooks():
    params, calls = parameters(), []
    optimizer = AdamW(params)
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))

    def closure():
        assert torch.is_grad_enabled()
        calls.append("closure")
        optimizer.zero_grad()
        loss = sum(p.square().sum() for p in params)
        loss.backward()
        return loss

    first = optimizer.step(closure)
    assert optimizer.step(closure) < first
    assert calls == ["before", "closure", "after"] * 2


def test_groups_of_their_own_and_a_later_one():
    """Every option of a group, and a group that joins after three steps."""
    results = []
    for cls in (AdamW, torch.optim.AdamW):
        a, b, c = ([nn.Parameter(p.detach().clone()) for p in parameters()] for _ in range(3))
        optimizer = cls(
            [
                {"params": a, "lr": 0.1, "amsgrad": True},
                {"params": b, "weight_decay": 0.5, "maximize": True, "betas": (0.5, 0.6)},
            ]
        )
        train(optimizer, a + b)
        optimizer.add_param_group({"params": c, "eps": 0.1})
        train(optimizer, a + b + c)
        results.append(a + b + c)
    for p, q in zip(*results, strict=True):
        torch.testing.assert_close(p, q, **EXACT)


def test_no_gradient_no_decay_zero_gradient_decay():
    idle, zero = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    zero.grad = torch.zeros(3)
    optimizer = AdamW([idle, zero], lr=0.1, weight_decay=0.1)
    optimizer.step()
    assert torch.equal(idle, torch.ones(3)) and idle not in optimizer.state
    torch.testing.assert_close(zero.detach(), torch.full((3,), 0.99))


@pytest.mark.parametrize("layout", ["channels last", "transposed", "sliced", "gradient transposed"])
@pytest.mark.parametrize("device", DEVICES)
def test_memory_layouts(layout, device):
    """Any strides, of the parameter and of its gradient, which need not be the same."""
    start, grads = torch.randn(4, 6, 5, 5, device=device), torch.randn(3, 4, 6, 5, 5, device=device)

    def laid_out(x):
        if layout == "channels last":
            return x.contiguous(memory_format=torch.channels_last)
        if layout == "transposed":
            return x.transpose(0, 3).contiguous().transpose(0, 3)
        if layout == "sliced":
            return torch.cat([x, x], 1)[:, :6]
        return x

    results = []
    for cls, arrange in ((AdamW, laid_out), (torch.optim.AdamW, lambda x: x.clone())):
        p = arrange(start.clone()).requires_grad_()
        optimizer = cls([p], lr=0.01, weight_decay=0.1)
        for g in grads:
            p.grad = g if layout != "gradient transposed" else g.transpose(1, 2).contiguous().transpose(1, 2)
            optimizer.step()
        results.append(p.detach())
    torch.testing.assert_close(*results, **EXACT)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize(
    "check",
    [check_changes_between_steps, check_states_from_elsewhere, check_any_default_device],
    ids=lambda check: check.__name__.removeprefix("check_"),
)
def test_surroundings(check, backend, device):
    check(device, backend)


def test_a_state_dict_that_a_hook_adapts():
    """As torch's documentation has it for mapping by names: the hook's state counts, and hooks that look afterwards
    see it whole."""
    p, q = nn.Parameter(torch.ones(3)), nn.Parameter(torch.full((2,), 2.0))
    first = AdamW([{"params": [p]}, {"params": [q], "l2": 0.5}], state_dtype=torch.float64)
    for each in (p, q):
        each.grad = torch.full_like(each, 1 / 3)
    first.step()
    saved = first.state_dict()

    seen = []

    def only_the_second(optimizer, state_dict):
        return {"state": {0: state_dict["state"][1]}, "param_groups": [state_dict["param_groups"][1] | {"params": [0]}]}

    def look(optimizer):
        seen.append((optimizer.param_groups[0]["l2"], optimizer.state[q]["exp_avg"].dtype))

    second = AdamW([q])
    second.register_load_state_dict_pre_hook(only_the_second)
    second.register_load_state_dict_post_hook(look)
    second.load_state_dict(saved)
    assert seen == [(0.5, torch.float64)]
    assert torch.equal(second.state[q]["exp_avg"], first.state[q]["exp_avg"])
    second.load_state_dict(saved)  # the hooks of the first time are the only ones left
    assert len(second._optimizer_load_state_dict_pre_hooks) == len(second._optimizer_load_state_dict_post_hooks) == 1


def test_a_compiled_training_step_is_the_same():
    """torch.compile may trace around the step: what it makes of it is the eager run."""
    ends = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        optimizer = AdamW(model.parameters(), lr=0.1)

        def train_step(x, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

        run = torch.compile(train_step, backend="eager") if compiled else train_step
        for step in range(4):
            (train_step if step == 1 else run)(torch.ones(2, 4) * (step + 1))
        assert not optimizer.param_groups[0]["capturable"]
        ends.append([p.detach() for p in model.parameters()])
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("device", DEVICES)
def test_state_of_another_memory_format_loads(device):
    """A checkpoint of a contiguous model goes on in a model in channels_last, and the other way round."""
    start, grads = torch.randn(4, 6, 5, 5, device=device), torch.randn(2, 4, 6, 5, 5, device=device)
    formats = torch.contiguous_format, torch.channels_last
    for before, after in (formats, formats[::-1]):
        results = []
        for cls in (AdamW, torch.optim.AdamW):
            p = nn.Parameter(start.clone(memory_format=before if cls is AdamW else torch.contiguous_format))
            p.grad = grads[0].clone()
            first = cls([p], lr=0.01)
            first.step()
            q = nn.Parameter(p.detach().clone(memory_format=after if cls is AdamW else torch.contiguous_format))
            q.grad = grads[1].clone()
            second = cls([q], lr=0.01)
            second.load_state_dict(first.state_dict())
            second.step()
            results.append(q.detach())
        torch.testing.assert_close(*results, **EXACT)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("decay", [0.0, 0.3], ids=["l2 alone", "l2 beside a decay"])
def test_l2_is_adams_weight_decay(decay, backend, maximize):
    """torch.optim.Adam(weight_decay=l2); a decay beside it takes lr·λ times the parameter from before the step."""
    params, other = parameters(), parameters()
    mine = AdamW(params, lr=0.01, weight_decay=decay, l2=0.2, maximize=maximize, backend=backend)
    theirs = torch.optim.Adam(other, lr=0.01, weight_decay=0.2, maximize=maximize)
    before = {}

    def remember(*_):
        before.update({p: p.detach().clone() for p in other})

    def shrink(*_):
        with torch.no_grad():
            for p in other:
                if p.grad is not None:
                    p.sub_(0.01 * decay * before[p])

    theirs.register_step_pre_hook(remember)
    theirs.register_step_post_hook(shrink)
    assert_same_training(mine, theirs, params, other, **EXACT)


def test_differentiable():
    """The gradient through three steps, with respect to start, gradient and coefficients, against finite
    differences.
    """
    grads = [torch.randn(4, dtype=torch.float64) for _ in range(3)]

    def run(start, scale, lr, weight_decay, beta2):
        p = start.clone()
        optimizer = AdamW(
            [p],
            lr=lr,
            weight_decay=weight_decay,
            betas=(torch.tensor(0.9, dtype=torch.float64), beta2),
            differentiable=True,
        )
        for g in grads:
            p.grad = scale * g
            optimizer.step()
        return p

    inputs = [
        torch.randn(4, dtype=torch.float64),
        torch.tensor(1.5, dtype=torch.float64),
        torch.tensor(0.1, dtype=torch.float64),
        torch.tensor(0.2, dtype=torch.float64),
        torch.tensor(0.99, dtype=torch.float64),
    ]
    assert torch.autograd.gradcheck(run, [x.requires_grad_() for x in inputs])


def test_gradient_scaler_in_the_step():
    """fused=True: the scaler hands scale and overflow to the step, as with torch's fused AdamW."""
    results = []
    for cls in (AdamW, torch.optim.AdamW):
        params = parameters()
        optimizer = cls(params, lr=0.01, fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
        for step in range(6):
            optimizer.zero_grad()
            loss = sum((p * (i + 1)).square().sum() for i, p in enumerate(params))
            scaler.scale(loss).backward()
            if step == 3:
                params[0].grad[0, 0] = float("inf")
            scaler.step(optimizer)
            scaler.update()
        results.append(
            [*params, *(optimizer.state[p]["step"] for p in params), torch.tensor(scaler.get_scale()), params[1].grad]
        )
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("backend", [None, "reference"])
def test_gradients_are_let_go(backend):
    """zero_grad(set_to_none=True) frees them: no backend keeps one from step to step."""
    params = parameters()
    optimizer = AdamW(params, backend=backend)
    for p in params:
        p.grad = torch.ones_like(p)
    alive = [weakref.ref(p.grad) for p in params]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    assert all(ref() is None for ref in alive)
