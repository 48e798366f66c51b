"""What the Triton kernel and its work table are held to, one function a check; kernel_cases.py lists the cases."""

import copy
import weakref
from collections import defaultdict
from collections.abc import Callable

import pytest
import torch
from seven_steps import assert_same_training, parameters
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor

from adamw_book.optim import AdamW, Explanation, reference, triton_bundle
from adamw_book.optim.coefficients import replicas_of
from adamw_book.optim.device_coefficients import DeviceCoefficients
from adamw_book.optim.explanation import sums_of
from adamw_book.optim.layout import Column

F32, BF16, F16, F64 = torch.float32, torch.bfloat16, torch.float16, torch.float64
# Relative and absolute error of one step. The interpreter rounds float32 → bfloat16 towards zero: one unit in the last
# place.
TOLERANCES = {F32: (5e-7, 1e-7), F64: (1e-12, 1e-14), BF16: (2**-7, 1e-6), F16: (2**-10, 1e-6)}
PLAIN = {"weight_decay": 0.01, "l2": 0.0, "betas": (0.9, 0.999), "eps": 1e-8, "maximize": False}


def values(
    shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype, device: str, offset: int = 0
) -> Tensor:
    """Random numbers, starting ``offset`` elements into their buffer."""
    count = torch.Size(shape).numel()
    buffer = torch.randn(count + offset, generator=generator, dtype=F64).to(device, dtype)
    return buffer[offset:].view(shape)


def check_steps(
    device: str,
    shapes: list[tuple[int, ...]],
    *,
    dtypes: tuple[torch.dtype, torch.dtype, torch.dtype] = (F32, F32, F32),
    offset: int = 0,
    steps: int = 3,
    earlier: int = 0,
    missing: tuple[tuple[int, int], ...] = (),
    change: Callable[[dict, int], None] | None = None,
    grad_scale: float | None = None,
    **kwargs,
) -> None:
    """Take steps with the kernel; from the values before each of them the reference, in float64, must arrive where the
    kernel did.

    dtypes: of parameters, gradients and state. offset: elements by which every tensor starts off its buffer.
    earlier: steps that the state, filled at random, stands for. missing: (step, tensor) pairs without a gradient.
    change: called with the group before each step, as a schedule.
    """
    generator = torch.Generator().manual_seed(0)
    param_dtype, grad_dtype, state_dtype = dtypes
    kwargs = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in kwargs.items()}
    params = [values(s, generator, param_dtype, device, offset) for s in shapes]
    for p in params:
        p.grad_dtype = None
    kept = {} if state_dtype == param_dtype else {"state_dtype": state_dtype}
    optimizer = AdamW(params, backend="triton", **kwargs, **kept)
    if grad_scale is not None:
        optimizer.grad_scale = torch.tensor([grad_scale], device=device)
        optimizer.found_inf = torch.zeros(1, device=device)
    names = ["exp_avg", "exp_avg_sq"] + (["max_exp_avg_sq"] if kwargs.get("amsgrad") else [])
    on_device = kwargs.get("capturable") or kwargs.get("fused")
    counts = [earlier] * len(params)
    for step in range(steps):
        if change is not None:
            change(optimizer.param_groups[0], step)
        group = optimizer.param_groups[0]
        for i, p in enumerate(params):
            p.grad = None if (step, i) in missing else values(tuple(p.shape), generator, grad_dtype, device, offset)
        grads = [None if p.grad is None else p.grad.double() / (grad_scale or 1) for p in params]
        clips = clip_factors(grads, kwargs.get("max_norm"), replicas_of(group))
        expected = []
        for i, (p, grad) in enumerate(zip(params, grads, strict=True)):
            if grad is None:
                expected.append(None)
                continue
            state = optimizer.state[p]
            if not state:
                state["step"] = torch.tensor(float(earlier), device=device if on_device else "cpu")
                state |= {n: values(tuple(p.shape), generator, state_dtype, device, offset) for n in names}
                for name in names:  # a second moment is never below the square of the first
                    state[name].mul_(bool(earlier) * (1 if name == "exp_avg" else state[name]))
                for name in names[1:]:
                    state[name].add_(state["exp_avg"].square())
            counts[i] += 1
            before = [p.double(), clips(p) * grad, *(state[n].double() for n in names)]
            expected.append(reference.adamw(*before, **coefficients(group, p), step=counts[i]))
        unchanged = [p.clone() for p in params]
        optimizer.step()
        for i, p in enumerate(params):
            if expected[i] is None:
                assert torch.equal(p, unchanged[i]), f"step {step}, tensor {i}: changed without a gradient"
                continue
            state = optimizer.state[p]
            assert state["step"].item() == counts[i], (
                f"step {step}, tensor {i}: counted {state['step'].item()} of {counts[i]}"
            )
            for name, new, want in zip(("param", *names), (p, *(state[n] for n in names)), expected[i], strict=False):
                rtol, atol = TOLERANCES[new.dtype]
                rtol = 4 * rtol if "max_norm" in kwargs else rtol  # the norm is a float32 sum
                where = f"step {step}, tensor {i} of shape {tuple(p.shape)}, {name}"
                torch.testing.assert_close(new.double(), want, rtol=rtol, atol=atol, msg=lambda m, w=where: f"{w}: {m}")
            if kwargs.get("explain"):
                decay, gradient = expected[i].decay_step, expected[i].gradient_step
                sums = sums_of(unchanged[i], decay, gradient, replicas_of(group) or 1)
                want = Explanation.of(sums if replicas_of(group) else sums[0])
                for found, figure in zip(optimizer.explanation()[p], want, strict=True):
                    torch.testing.assert_close(found.double(), figure, rtol=1e-5, atol=1e-6, equal_nan=True)


def clip_factors(
    grads: list[Tensor | None], max_norm: float | None, replicas: int | None
) -> Callable[[Tensor], Tensor | float]:
    """Parameter → what clipping multiplies its gradient with, in float64, replicas on the leading axis."""
    if max_norm is None:
        return lambda p: 1.0
    rows = [g.reshape(replicas or 1, g.numel() // (replicas or 1)) for g in grads if g is not None]
    clip = (max_norm / (torch.cat(rows, 1).norm(dim=1) + 1e-6)).clamp(max=1.0)
    return lambda p: clip.view(-1, *[1] * (p.dim() - 1)) if replicas else clip[0]


def coefficients(group: dict, p: Tensor) -> dict:
    """A group's coefficients in float64, vectors on the leading axis of p."""

    def shaped(value):
        value = torch.as_tensor(value, dtype=F64).to(p.device)
        return value.view(-1, *[1] * (p.dim() - 1)) if value.numel() > 1 else value.reshape(())

    numbers = {name: shaped(group.get(name, 0.0)) for name in ("lr", "weight_decay", "l2")}
    return numbers | {
        "beta1": shaped(group["betas"][0]),
        "beta2": shaped(group["betas"][1]),
        "eps": group["eps"],
        "maximize": group["maximize"],
        "cautious": group.get("cautious", False),
        "decay_rate": (numbers["lr"] != 0).to(F64) if group.get("lr_independent") else None,
    }


def check_two_groups(device: str) -> None:
    """Each in one launch with coefficients of its own, numbers and vectors."""
    for vectors in (False, True):
        generator = torch.Generator().manual_seed(0)
        params = [values((3, n), generator, F32, device) for n in (5, 1030, 7, 9)]
        own = [{"lr": 0.1, "weight_decay": 0.5, "l2": 0.3}, {"lr": 0.01, "betas": (0.5, 0.9), "eps": 0.1}]
        if vectors:
            own[0]["lr"], own[1]["weight_decay"] = (torch.tensor([0.1, 0.2, 0.3], device=device) for _ in range(2))
        groups = [{"params": params[:2], **own[0]}, {"params": params[2:], **own[1]}]
        optimizer = AdamW(groups, backend="triton")
        for p in params:
            p.grad = values(tuple(p.shape), generator, F32, device)
        before = [p.double() for p in params]
        optimizer.step()
        assert len(optimizer._now.plan.bundles) == 1
        for i, (p, start) in enumerate(zip(params, before, strict=True)):
            group = optimizer.param_groups[i // 2]
            moments = [torch.zeros_like(start)] * 2
            want = reference.adamw(start, p.grad.double(), *moments, step=1, **coefficients(group, p))
            torch.testing.assert_close(p.double(), want.param, rtol=5e-7, atol=1e-7)


def check_refuses_what_has_no_memory(device: str) -> None:
    """Wrappers of tensors, fake tensors and conjugated parameters are never read by address."""
    wrapped = torch.nn.Parameter(TwoTensor(torch.ones(3, device=device), torch.ones(3, device=device)))
    with FakeTensorMode():
        fake = torch.nn.Parameter(torch.ones(3, device=device))
    for p in (wrapped, fake, torch.ones(3, dtype=torch.cfloat, device=device).conj()):
        with pytest.raises(ValueError, match="backend: 'triton' needs parameters that are their memory, got"):
            AdamW([p], backend="triton")
        assert AdamW([p]).backend == "reference"
    p = torch.nn.Parameter(torch.ones(3, device=device))
    optimizer = AdamW([p], backend="triton")
    p.grad = TwoTensor(torch.ones(3, device=device), torch.ones(3, device=device))
    with pytest.raises(ValueError, match="backend: 'triton' needs gradients that are their memory, got TwoTensor"):
        optimizer.step()


def check_neighbours(device: str) -> None:
    """Nothing outside the tensors is written: each lies in a buffer of sentinels."""
    buffers = [torch.full((n + 20,), 7.0, device=device) for n in (1, 9, 1024, 1030)]
    params = [b[i + 1 : -(19 - i)].clone().copy_(b[i + 1 : -(19 - i)]) for i, b in enumerate(buffers)]
    params = [b[i + 1 : i + 1 + p.numel()] for i, (b, p) in enumerate(zip(buffers, params, strict=True))]
    for p in params:
        p.grad = torch.ones_like(p)
    AdamW(params, lr=1.0, backend="triton").step()
    for i, (b, p) in enumerate(zip(buffers, params, strict=True)):
        assert (b[: i + 1] == 7).all() and (b[i + 1 + p.numel() :] == 7).all() and (p < 6.99).all()


def check_torch_configuration(device: str, kwargs: dict, dtype: torch.dtype = F32) -> None:
    """torch's own configuration through torch's seven steps."""
    params, other = parameters(dtype, device), parameters(dtype, device)
    numbers = {
        k: v.item() if isinstance(v, Tensor) else v for k, v in kwargs.items() if k not in ("capturable", "betas")
    }
    if "betas" in kwargs:
        numbers["betas"] = tuple(float(b) for b in kwargs["betas"])
    assert_same_training(
        AdamW(params, backend="triton", **kwargs),
        torch.optim.AdamW(other, **numbers),
        params,
        other,
        rtol=1e-5,
        atol=1e-6,
    )


def check_layouts(device: str) -> None:
    """Dense parameters of any order of axes, and gradients of another order."""
    generator = torch.Generator().manual_seed(0)
    for arrange in (lambda x: x.contiguous(memory_format=torch.channels_last), lambda x: x.transpose(1, 3)):
        start, grad = (values((3, 4, 5, 4), generator, F32, device) for _ in range(2))
        for lr in (0.1, torch.tensor([0.1, 0.2, 0.3], device=device)):
            p = arrange(start.clone())
            p.grad = grad
            want = coefficients({"lr": lr} | PLAIN, p)
            moments = [torch.zeros_like(p, dtype=F64)] * 2
            expected = reference.adamw(p.double(), grad.double(), *moments, step=1, **want)
            AdamW([p], lr=lr, backend="triton").step()
            torch.testing.assert_close(p.double(), expected[0])


def check_overflow_skips(device: str) -> None:
    """found_inf = 1, or 2 where two devices found one, leaves parameters, state and step counts as they were."""
    p = torch.ones(1030, device=device)
    p.grad = torch.ones_like(p)
    optimizer = AdamW([p], fused=True, backend="triton", lr=0.1)
    optimizer.step()
    before = [t.clone() for t in (p, *optimizer.state[p].values())]
    for found in (1.0, 2.0):
        optimizer.grad_scale, optimizer.found_inf = (torch.full((1,), x, device=device) for x in (1.0, found))
        optimizer.step()
        for old, new in zip(before, (p, *optimizer.state[p].values()), strict=True):
            assert torch.equal(old, new)


def check_scaled_gradients_return_unscaled(device: str) -> None:
    """As with torch's fused step, the gradients of a scaled step are unscaled in place."""
    p = torch.ones(40, device=device)
    p.grad = torch.full_like(p, 64.0)
    optimizer = AdamW([p], fused=True, backend="triton")
    optimizer.grad_scale, optimizer.found_inf = torch.full((1,), 64.0, device=device), torch.zeros(1, device=device)
    optimizer.step()
    assert torch.equal(p.grad, torch.ones_like(p))


def check_table_is_kept(device: str) -> None:
    """The table is built once; moved and missing gradients, a changed number or vector do not rebuild it, a new state
    does.
    """
    params = [torch.ones(5, device=device), torch.ones(3, 4, device=device)]
    optimizer = AdamW(params, lr=0.1, backend="triton")

    def table(missing=()):
        for i, p in enumerate(params):
            p.grad = None if i in missing else torch.ones_like(p) + i
        optimizer.step()
        return optimizer._now.plan.bundles[0]

    first = table()
    kept = [torch.ones(1000, device=device)]  # keeps the allocator from handing out the same addresses
    assert table() is first
    optimizer.param_groups[0]["lr"] = 0.2
    assert table() is first
    kept.append(optimizer.param_groups[0].update(weight_decay=torch.tensor(0.3, device=device)))
    assert table() is first
    assert table(missing=(1,)) is first
    assert table() is first
    optimizer.load_state_dict(optimizer.state_dict())
    assert table() is not first


def check_tensors_are_read_where_they_lie(device: str) -> None:
    """A number or vector on the device costs no upload when it changes; one of another dtype is copied there again."""
    number, vector = torch.tensor(0.1, device=device), torch.full((3,), 0.2, device=device)
    other, betas = vector.double(), (torch.tensor(0.9, device=device), torch.tensor(0.99, device=device))
    optimizer = AdamW([torch.zeros(3, device=device)], lr=number, weight_decay=vector, l2=other, betas=betas)
    coefficients, sent = DeviceCoefficients(optimizer.param_groups, number.device, F32), []
    places = coefficients.places(lambda target, values: sent.append(values.tolist()))
    there, copied = number.data_ptr(), coefficients.copies[0, "l2"]
    assert places[0, :6].tolist() == [there, 0, vector.data_ptr(), 1, there, 0]
    assert places[0, 6:].tolist() == [copied.data_ptr(), 1, coefficients.copies[0, "betas"].data_ptr(), 0]
    assert sent == [[[0.0] * 9]]
    number.fill_(0.5)
    other.fill_(0.6)
    betas[0].fill_(0.75)
    assert coefficients.places(lambda target, values: sent.append(values.tolist())) is places and len(sent) == 1
    assert copied.tolist() == torch.full((3,), 0.6).tolist()
    assert coefficients.copies[0, "betas"][0, 0] == 0.25


def check_capture(device: str) -> None:
    """A step recorded into a graph keeps its table; what comes after takes another, and the same step counts.

    The recording is pretended, so that this runs in the interpreter; test_cuda_graphs.py has the real one.
    """
    original, recording = triton_bundle.capturing, [False]
    triton_bundle.capturing = lambda device: recording[0]
    try:
        params = [torch.ones(5, device=device), torch.ones(3, 4, device=device)]
        optimizer = AdamW(params, lr=torch.tensor(0.1, device=device), capturable=True, backend="triton")

        def step(grads):
            for p, g in zip(params, grads, strict=True):
                p.grad = g
            optimizer.step()
            return optimizer._now.plan

        grads = [[torch.ones_like(p) for p in params] for _ in range(4)]
        recording[0] = True
        try:
            step(grads[0])
            raise RuntimeWarning("a first step under capture was taken")
        except RuntimeError as error:
            assert "take one with the same parameters first" in str(error)
        recording[0] = False
        eager = step(grads[0])
        counts = optimizer.state[params[0]]["step"]
        recording[0] = True
        assert step(grads[1]) is eager, "the table must not be built anew while a graph is recorded"
        assert step(grads[1]) is eager
        try:
            step(grads[2])
            raise RuntimeWarning("gradients moved within a graph")
        except RuntimeError as error:
            assert "a second time" in str(error)
        recording[0] = False
        assert step(grads[3]) is not eager
        assert eager in optimizer._now.captured
        assert optimizer.state[params[0]]["step"].data_ptr() == counts.data_ptr()
    finally:
        triton_bundle.capturing = original


def check_gradients_are_let_go(device: str) -> None:
    """zero_grad(set_to_none=True) frees the gradients, in the layout of their parameter or not."""
    p, q = torch.ones(5, device=device), torch.ones(4, 4, device=device)
    p.grad, q.grad = torch.ones_like(p), torch.ones_like(q).t()
    alive = [weakref.ref(t.grad) for t in (p, q)]
    optimizer = AdamW([p, q], max_norm=1.0, backend="triton")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    assert all(ref() is None for ref in alive)
    p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
    optimizer.step()
    alive = [weakref.ref(t.grad) for t in (p, q)]
    optimizer.max_norm, optimizer.found_inf = None, torch.ones(1, device=device)  # a step that is skipped
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    assert all(ref() is None for ref in alive)


def check_user_sets_the_count(device: str) -> None:
    """A step count that is set in place or replaced is believed."""
    for set_count in (lambda s: s["step"].fill_(100), lambda s: s.update(step=torch.tensor(100.0))):
        p = torch.ones(3, device=device)
        p.grad = torch.ones_like(p)
        optimizer = AdamW([p], lr=0.1, weight_decay=0, backend="triton")
        optimizer.step()
        set_count(optimizer.state[p])
        moments = [optimizer.state[p][n].double() for n in ("exp_avg", "exp_avg_sq")]
        want = reference.adamw(
            p.double(), p.grad.double(), *moments, **coefficients(optimizer.param_groups[0], p), step=101
        )
        optimizer.step()
        assert optimizer.state[p]["step"] == 101
        torch.testing.assert_close(p.double(), want[0])


def check_changes_between_steps(device: str, backend: str | None = "triton") -> None:
    """What is replaced, moved or laid out anew between two steps is noticed: both steps are torch's."""

    def transpose(optimizer, p):
        p.data = p.data.t()
        p.grad = None

    def set_states(optimizer, p):
        for q in optimizer.param_groups[0]["params"]:
            for name in ("exp_avg", "exp_avg_sq"):
                optimizer.state[q][name].data = optimizer.state[q][name] * 2

    def set_data(name, new):
        def change(optimizer, p):
            optimizer.state[p][name].data = new(optimizer.state[p][name])

        return change

    changes = {
        "nothing": lambda optimizer, p: None,
        "a parameter moves": lambda optimizer, p: setattr(p, "data", p.data.clone()),
        "a parameter is transposed": transpose,
        "a moment is replaced": lambda optimizer, p: optimizer.state[p].update(exp_avg=torch.ones_like(p)),
        "a moment is written": lambda optimizer, p: optimizer.state[p]["exp_avg"].mul_(2),
        "the moments' memory changes": set_states,
        "one moment's memory changes": set_data("exp_avg", lambda t: t * 2),
        "a count's memory changes": set_data("step", lambda t: t + 4),
        "a count's memory is cleared": set_data("step", torch.zeros_like),
        "a count is replaced": lambda optimizer, p: optimizer.state[p].update(step=optimizer.state[p]["step"] + 10),
        "the state is cleared": lambda optimizer, p: optimizer.state.clear(),
        "the state is replaced": lambda optimizer, p: setattr(optimizer, "state", defaultdict(dict)),
        "a parameter's state is deleted": lambda optimizer, p: optimizer.state.pop(p),
        "a parameter's state is replaced": lambda optimizer, p: optimizer.state.update(
            {p: {name: value + 1 for name, value in optimizer.state[p].items()}}
        ),
        "a state is loaded": lambda optimizer, p: optimizer.load_state_dict(optimizer.state_dict()),
        "a group joins": lambda optimizer, p: optimizer.add_param_group(
            {"params": [torch.nn.Parameter(torch.ones(3, device=device))], "lr": 0.3}
        ),
        "a group loses a parameter": lambda optimizer, p: optimizer.param_groups[0]["params"].pop(0),
        "a flag changes": lambda optimizer, p: optimizer.param_groups[0].update(maximize=True),
    }
    for name, change in changes.items():
        results = []
        for make in (lambda p: AdamW(p, lr=0.1, backend=backend), lambda p: torch.optim.AdamW(p, lr=0.1)):
            generator = torch.Generator().manual_seed(0)
            params = [torch.nn.Parameter(values((4, 4), generator, F32, device)) for _ in range(17)]
            optimizer = make(params)
            for step in range(4):
                if step == 2:
                    with torch.no_grad():
                        change(optimizer, params[1])
                for i, p in enumerate(q for group in optimizer.param_groups for q in group["params"]):
                    grad = values(tuple(p.shape), generator, F32, device)
                    p.grad = None if i == 3 == step else grad.t() if i == 5 and p.dim() == 2 else grad
                optimizer.step()
            results.append(params)
        for i, (p, q) in enumerate(zip(*results, strict=True)):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6, msg=lambda m, w=f"{name}, {i}": f"{w}: {m}")


def check_states_from_elsewhere(device: str, backend: str | None = "triton") -> None:
    """A state that is not the parameter's is refused before anything is written; a count of another dtype or device is
    brought into place."""

    def one(**options) -> tuple[torch.nn.Parameter, AdamW]:
        p = torch.nn.Parameter(torch.ones(6, 5, device=device))
        p.grad = torch.ones_like(p)
        return p, AdamW([torch.nn.Parameter(torch.ones(2, device=device)), p], lr=0.1, backend=backend, **options)

    small = torch.zeros(3, 5, device=device)  # the strides are the parameter's
    for name, moment in (("exp_avg", small), ("exp_avg_sq", small[0]), ("exp_avg_sq", torch.zeros(6, 5).bfloat16())):
        p, optimizer = one()
        zeros = {"step": torch.tensor(1.0), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        optimizer.state[p] |= zeros | {name: moment.to(device)}
        with pytest.raises(ValueError, match=rf"state of parameter 1: {name} has shape \(.*\), torch\..* needed"):
            optimizer.step()
        assert torch.equal(p, torch.ones_like(p)) and optimizer.state[p]["step"] == 1

    p, optimizer = one()  # the parameter shrinks after a step
    optimizer.step()
    p.data, p.grad = p.data[:3], None
    p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match=r"state of parameter 1: exp_avg has shape \(6, 5\)"):
        optimizer.step()

    ends = []
    counts = torch.tensor(4.0), torch.tensor(4), torch.tensor(4.0, device=device), torch.tensor(4.0).double(), 4, 4.0
    for count in counts:
        for options in ({}, {"capturable": True}):
            p, optimizer = one(**options)
            optimizer.state[p] |= {
                "step": copy.copy(count), "exp_avg": torch.ones_like(p), "exp_avg_sq": torch.ones_like(p)
            }  # fmt: skip
            optimizer.step()
            assert optimizer.state[p]["step"] == 5 and optimizer.state[p]["step"].is_floating_point()
            ends.append(p.detach())
    for end in ends:
        torch.testing.assert_close(end, ends[0])


def check_any_default_device(device: str, backend: str | None = "triton") -> None:
    """torch.set_default_device changes nothing: here it is one on which no value can be stored."""
    ends = []
    for elsewhere in (False, True):
        p = torch.nn.Parameter(torch.ones(6, 5, device=device))
        lr = torch.linspace(0.1, 0.2, 6, device=device)
        optimizer = AdamW([p], lr=lr, weight_decay=0.1, backend=backend, max_norm=1.0)
        p.grad = torch.ones_like(p)
        with torch.device("meta" if elsewhere else device):
            for step in range(3):
                optimizer.param_groups[0]["weight_decay"] = 0.1 * step
                optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(*ends, rtol=0, atol=0)


def check_beyond_2_31_elements(device: str) -> None:
    """Places that 32 bits do not hold, in a long tensor and in rows of an ensemble. Without a GPU the tensors are
    memory that is hardly touched: of each row only the last three blocks are run.
    """
    end, block = 2500, 1024
    for shape, lr in (((2**31 + 5000,), 0.1), ((3, 2**30 + 1001), torch.tensor([0.1, 0.0, 0.01], device=device))):
        rows, length = shape[0] if len(shape) > 1 else 1, shape[-1]
        needed = 4 * 2 * rows * length
        if device == "cuda" and torch.cuda.mem_get_info()[0] < 1.1 * needed:
            continue
        generator = torch.Generator().manual_seed(0)
        p, grad, exp_avg, exp_avg_sq = (torch.empty(shape, dtype=BF16, device=device) for _ in range(4))
        ends = [t.view(rows, length)[:, -end:] for t in (p, grad, exp_avg, exp_avg_sq)]
        for t in ends:
            t.copy_(values((rows, end), generator, BF16, device).abs())
        p.grad = grad
        optimizer = AdamW([p], lr=lr, weight_decay=0.5, backend="triton")
        optimizer.state[p] |= {"step": torch.tensor(0.0), "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
        optimizer._now.plan = optimizer._sort()
        if device == "cpu":
            bundle = optimizer._now.plan.bundles[0]
            bundle.host[Column.FIRST_BLOCK] = 3 - bundle.work.blocks_a_row
            bundle.table.copy_(torch.from_numpy(bundle.host))
            bundle.work = bundle.work._replace(blocks_a_row=3, tensor_of_block=torch.zeros(3, dtype=torch.int32))
        last = [t[:, -block:].double() for t in ends]
        optimizer.step()
        want = reference.adamw(*last, step=1, **coefficients(optimizer.param_groups[0], last[0]))
        rtol, atol = TOLERANCES[BF16]
        torch.testing.assert_close(ends[0][:, -block:].double(), want.param, rtol=rtol, atol=atol)
