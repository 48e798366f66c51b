"""What the Triton kernel is tried on, each case against the reference in float64.

On a GPU test_kernel.py runs these cases as they are. Without one they run in Triton's interpreter, which must be asked
for before the kernel is imported and would spoil the tests that compile it: ``TRITON_INTERPRET=1 python
kernel_cases.py`` runs all cases in a process of their own and prints one JSON line for each: its name and what went
wrong, or null.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from option_checks import CHECKS
from seven_steps import assert_same_training, parameters
from torch import Tensor
from torch.testing._internal.common_optimizers import optim_inputs_func_adamw

from adamw_book import optim
from adamw_book.optim import AdamW, reference, work_table

F32, BF16, F16, F64 = torch.float32, torch.bfloat16, torch.float16, torch.float64
# Relative and absolute error of one step. The interpreter rounds float32 → bfloat16 towards zero: one unit in the last
# place.
TOLERANCES = {F32: (5e-7, 1e-7), F64: (1e-12, 1e-14), BF16: (2**-7, 1e-6), F16: (2**-10, 1e-6)}
# Around the width of a block (1,024), of a vector (8), empty and 0-dimensional; rows of an ensemble start at any
# offset.
SHAPES = [(), (0,), (1,), (7,), (33, 31), (1024,), (1025,), (2, 1536), (2055,)]
ROWS = [(1,), (10,), (33,), (1024,), (1031,), (2051,), (0,)]
R = 3
LR, DECAY, L2 = torch.tensor([0.1, 0.0, 0.01]), torch.tensor([0.5, 1.0, 0.0]), torch.tensor([0.0, 0.3, 1.0])
PLAIN = {"weight_decay": 0.01, "l2": 0.0, "betas": (0.9, 0.999), "eps": 1e-8, "maximize": False}
BETA1, BETA2 = torch.tensor([0.9, 0.0, 0.5]), torch.tensor([0.999, 0.9, 0.0])


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
    optimizer = AdamW(params, backend="triton", **kwargs)
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
        expected = []
        for i, p in enumerate(params):
            p.grad = None if (step, i) in missing else values(tuple(p.shape), generator, grad_dtype, device, offset)
            if p.grad is None:
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
            before = [p.double(), p.grad.double() / (grad_scale or 1), *(state[n].double() for n in names)]
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
                where = f"step {step}, tensor {i} of shape {tuple(p.shape)}, {name}"
                torch.testing.assert_close(new.double(), want, rtol=rtol, atol=atol, msg=lambda m, w=where: f"{w}: {m}")


def coefficients(group: dict, p: Tensor) -> dict:
    """A group's coefficients in float64, vectors on the leading axis of p."""

    def shaped(value):
        value = torch.as_tensor(value, dtype=F64).to(p.device)
        return value.view(-1, *[1] * (p.dim() - 1)) if value.numel() > 1 else value.reshape(())

    numbers = {name: shaped(group[name]) for name in ("lr", "weight_decay", "l2")}
    return numbers | {
        "beta1": shaped(group["betas"][0]),
        "beta2": shaped(group["betas"][1]),
        "eps": group["eps"],
        "maximize": group["maximize"],
    }


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
    """found_inf = 1 leaves parameters, state and step counts as they were."""
    p = torch.ones(1030, device=device)
    p.grad = torch.ones_like(p)
    optimizer = AdamW([p], fused=True, backend="triton", lr=0.1)
    optimizer.step()
    before = [t.clone() for t in (p, *optimizer.state[p].values())]
    optimizer.grad_scale, optimizer.found_inf = torch.ones(1, device=device), torch.ones(1, device=device)
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
    """The table is built once; moved gradients, a changed number or vector do not rebuild it, a new gradient or
    state does.
    """
    params = [torch.ones(5, device=device), torch.ones(3, 4, device=device)]
    optimizer = AdamW(params, lr=0.1, backend="triton")

    def table(missing=()):
        for i, p in enumerate(params):
            p.grad = None if i in missing else torch.ones_like(p) + i
        optimizer.step()
        return optimizer._plan.bundles[0]

    first = table()
    kept = [torch.ones(1000, device=device)]  # keeps the allocator from handing out the same addresses
    assert table() is first
    optimizer.param_groups[0]["lr"] = 0.2
    assert table() is first
    kept.append(optimizer.param_groups[0].update(weight_decay=torch.tensor(0.3, device=device)))
    assert table() is first
    second = table(missing=(1,))
    assert second is not first
    third = table()
    assert third is not second
    optimizer.load_state_dict(optimizer.state_dict())
    assert table() is not third


def check_capture(device: str) -> None:
    """A step recorded into a graph keeps its table; what comes after takes another, and the same step counts.

    The recording is pretended, so that this runs in the interpreter; test_cuda_graphs.py has the real one.
    """
    original, recording = work_table.capturing, [False]
    work_table.capturing = lambda device: recording[0]
    try:
        params = [torch.ones(5, device=device), torch.ones(3, 4, device=device)]
        optimizer = AdamW(params, lr=torch.tensor(0.1, device=device), capturable=True, backend="triton")

        def step(grads):
            for p, g in zip(params, grads, strict=True):
                p.grad = g
            optimizer.step()
            return optimizer._plan

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
        assert eager in optimizer._captured
        assert optimizer.state[params[0]]["step"].data_ptr() == counts.data_ptr()
    finally:
        work_table.capturing = original


def check_gradients_are_let_go(device: str) -> None:
    """zero_grad(set_to_none=True) frees the gradients, in the layout of their parameter or not."""
    p, q = torch.ones(5, device=device), torch.ones(4, 4, device=device)
    p.grad, q.grad = torch.ones_like(p), torch.ones_like(q).t()
    alive = [weakref.ref(t.grad) for t in (p, q)]
    optimizer = AdamW([p, q], max_norm=1.0, backend="triton")
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


def cases() -> Iterator[tuple[str, Callable[[str], None]]]:
    """(name, check taking the device) of every case."""

    def steps(name, shapes, **kwargs):
        return name, lambda device: check_steps(device, shapes, **kwargs)

    rows = [(R, *s) for s in ROWS]
    dtypes = {
        "f32": (F32, F32, F32),
        "bf16": (BF16, BF16, BF16),
        "f16": (F16, F16, F16),
        "f64": (F64, F64, F64),
        "bf16, f32 state": (BF16, BF16, F32),
        "f16, f32 state": (F16, F16, F32),
        "f32, bf16 gradients": (F32, BF16, F32),
    }
    flags = {
        "plain": {},
        "amsgrad": {"amsgrad": True},
        "maximize": {"maximize": True},
        "l2": {"l2": 0.3},
        "no decay": {"weight_decay": 0.0},
        "large eps": {"eps": 0.1},
        "capturable": {"capturable": True},
        "fused": {"fused": True},
        "scaled": {"fused": True, "grad_scale": 256.0},
        "all": {"amsgrad": True, "maximize": True, "l2": 0.3, "fused": True, "grad_scale": 256.0},
    }
    for dtype_name, triple in dtypes.items():
        common = {"dtypes": triple, "eps": 1e-3 if triple[2] == F16 else 1e-8, "lr": 0.1, "betas": (0.9, 0.99)}
        common |= {"steps": 1, "earlier": 3}
        for flag_name, kwargs in flags.items():
            yield steps(f"tensors, {dtype_name}, {flag_name}", SHAPES, **common | {"weight_decay": 0.5} | kwargs)
            if flag_name in ("plain", "amsgrad", "all"):
                vectors = {"lr": LR, "weight_decay": DECAY, "l2": L2}
                yield steps(f"replicas, {dtype_name}, {flag_name}", rows, **common | kwargs | vectors)
    for name, kwargs in {
        "lr": {"lr": LR},
        "weight_decay": {"weight_decay": DECAY, "lr": 0.1},
        "l2": {"l2": L2},
        "one beta": {"betas": (0.9, BETA2)},
        "betas": {"betas": (BETA1, BETA2)},
        "float64 vectors": {"lr": LR.double(), "betas": (BETA1.double(), 0.99)},
        "every second element": {"lr": LR.repeat_interleave(2)[::2], "weight_decay": DECAY.repeat_interleave(2)[::2]},
    }.items():
        yield steps(f"vectors: {name}", rows, **kwargs)
    bf16 = dtypes["bf16"]
    for offset in range(1, 16):
        once = {"offset": offset, "lr": 0.1, "steps": 1}
        yield steps(f"starts {offset} elements into a buffer", [(5,), (1100,), (2060,)], **once)
        yield steps(f"bf16 starts {offset} elements into a buffer", [(1100,)], **once, dtypes=bf16)
        yield steps(f"rows start {offset} elements into a buffer", [(R, 1040), (R, 2065)], **once | {"lr": LR})
    yield steps(
        "gradients missing at times", [(5,), (3, 4), (1030,)], steps=6, missing=((1, 0), (2, 2), (3, 2), (4, 1)), lr=0.1
    )
    yield steps(
        "a schedule of numbers", [(5,), (1030,)], change=lambda g, t: g.update(lr=0.1 / (1 + t), weight_decay=0.1 * t)
    )
    yield steps("a schedule in place", [(R, 5), (R, 1030)], lr=LR.clone(), change=lambda g, t: g["lr"].mul_(0.5))
    yield steps("a schedule of new vectors", [(R, 5), (R, 1030)], lr=LR, change=lambda g, t: g.update(lr=LR / (1 + t)))
    yield steps(
        "lr becomes a tensor", [(5,)], lr=0.1, change=lambda g, t: g.update(lr=torch.tensor(0.2)) if t == 1 else None
    )
    yield steps("many steps", [(40,)], steps=30, lr=0.01)
    yield steps("many tensors", [(i % 7 + 1,) for i in range(60)], steps=2, lr=0.1)
    for config in optim_inputs_func_adamw("cuda"):
        yield (
            f"torch's configuration: {config.desc}",
            lambda device, kwargs=config.kwargs: check_torch_configuration(device, kwargs),
        )
    for config in optim_inputs_func_adamw("cpu"):
        yield (
            f"torch's configuration, complex: {config.desc}",
            lambda device, kwargs=config.kwargs: check_torch_configuration(device, kwargs, torch.complex64),
        )
    for name, check in CHECKS.items():
        yield f"option: {name}", lambda device, check=check: check(device, "triton")
    for check in (
        check_neighbours,
        check_layouts,
        check_overflow_skips,
        check_scaled_gradients_return_unscaled,
        check_table_is_kept,
        check_capture,
        check_gradients_are_let_go,
        check_user_sets_the_count,
    ):
        yield check.__name__.removeprefix("check_").replace("_", " "), check


WATCHFUL = [f"tensors, f32, {flags}" for flags in ("plain", "large eps", "l2", "amsgrad", "maximize")]
WATCHFUL += ["replicas, f32, plain"]
WATCHFUL += [f"option: {name}" for name in ("cautious", "max norm", "max norm of scaled gradients", "explanation")]
WATCHFUL += ["option: stochastic rounding as the reference"]


def run_interpreted(*arguments: str) -> dict[str, str | None]:
    """{name: what went wrong, or None}, from this file in two processes of its own with Triton's interpreter."""
    here = Path(__file__)
    path = os.pathsep.join([str(here.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": path}
    commands = [[sys.executable, here, "--half", str(half), *arguments] for half in (0, 1)]
    runs = [
        subprocess.Popen(c, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for c in commands
    ]
    found = {}
    for run in runs:
        out, error = run.communicate(timeout=900)
        assert run.returncode == 0, error
        found |= dict(map(json.loads, out.splitlines()))
    return found


def failure_of(check: Callable[[str], None]) -> str | None:
    try:
        check("cpu")
    except Exception:
        return traceback.format_exc(limit=-3)


def main(half: int, kernels: str | None) -> None:
    """Every second case with the package's kernel, or the watchful ones with every second kernel of a folder."""
    checks = dict(cases())
    if kernels is None:
        for name in list(checks)[half::2]:
            print(json.dumps([name, failure_of(checks[name])]), flush=True)
        return
    for path in sorted(Path(kernels).glob("*.py"))[half::2]:
        spec = importlib.util.spec_from_file_location("adamw_book.optim.triton_kernel", path)
        optim.triton_kernel = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(optim.triton_kernel)
        failures = (failure_of(checks[name]) for name in WATCHFUL)
        print(json.dumps([path.stem, next(filter(None, failures), None)]), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--half", type=int, required=True)
    parser.add_argument("--kernels")
    main(**vars(parser.parse_args()))
