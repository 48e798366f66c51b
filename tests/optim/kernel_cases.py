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
from collections.abc import Callable, Iterator
from pathlib import Path

import kernel_checks
import torch
from kernel_checks import BF16, F16, F32, F64, check_steps, check_torch_configuration
from loop_checks import CHECKS as LOOPS
from option_checks import CHECKS
from torch.testing._internal.common_optimizers import optim_inputs_func_adamw

from adamw_book import optim

# Around the width of a block (1,024), of a vector (8), empty and 0-dimensional; rows of an ensemble start at any
# offset.
SHAPES = [(), (0,), (1,), (7,), (33, 31), (1024,), (1025,), (2, 1536), (2055,)]
ROWS = [(1,), (10,), (33,), (1023,), (1024,), (1031,), (2051,), (0,)]
R = 3
LR, DECAY, L2 = torch.tensor([0.1, 0.0, 0.01]), torch.tensor([0.5, 1.0, 0.0]), torch.tensor([0.0, 0.3, 1.0])
BETA1, BETA2 = torch.tensor([0.9, 0.0, 0.5]), torch.tensor([0.999, 0.9, 0.0])


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
        "lr-independent": {"lr_independent": True},
        "cautious": {"cautious": True},
        "clipped": {"max_norm": 1.0},
        "explain": {"explain": True},
    }
    flags["all"] = {"amsgrad": True, "maximize": True, "l2": 0.3, "fused": True, "grad_scale": 256.0}
    flags["all"] |= {"lr_independent": True, "cautious": True, "max_norm": 1.0, "explain": True}
    for dtype_name, triple in dtypes.items():
        common = {"dtypes": triple, "eps": 1e-3 if triple[2] == F16 else 1e-8, "lr": 0.1, "betas": (0.9, 0.99)}
        common |= {"steps": 1, "earlier": 3}
        for flag_name, kwargs in flags.items():
            yield steps(f"tensors, {dtype_name}, {flag_name}", SHAPES, **common | {"weight_decay": 0.5} | kwargs)
            if flag_name in ("plain", "amsgrad", "clipped", "explain", "all"):
                vectors = {"lr": LR, "weight_decay": DECAY, "l2": L2}
                yield steps(f"replicas, {dtype_name}, {flag_name}", rows, **common | kwargs | vectors)
    for name, kwargs in {
        "lr": {"lr": LR},
        "weight_decay": {"weight_decay": DECAY, "lr": 0.1},
        "l2": {"l2": L2},
        "one beta": {"betas": (0.9, BETA2)},
        "betas": {"betas": (BETA1, BETA2)},
        "numbers of 0 as betas": {"betas": (0.0, 0.0), "lr": LR},
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
    yield steps("a schedule of eps", [(5,), (1030,)], change=lambda g, t: g.update(eps=1.0 / (1 + t)))
    yield steps("a schedule in place", [(R, 5), (R, 1030)], lr=LR.clone(), change=lambda g, t: g["lr"].mul_(0.5))
    yield steps("a schedule of new vectors", [(R, 5), (R, 1030)], lr=LR, change=lambda g, t: g.update(lr=LR / (1 + t)))
    yield steps(
        "lr becomes a tensor", [(5,)], lr=0.1, change=lambda g, t: g.update(lr=torch.tensor(0.2)) if t == 1 else None
    )
    yield steps("many steps", [(40,)], steps=30, lr=0.01)
    # 1 − βᵗ from its series to where it needs none; lr is large, so that its last digits show in the parameters
    yield steps("the first steps in float64", [(5,)], steps=8, dtypes=dtypes["f64"], betas=(0.95, 0.97), lr=10.0)
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
    for name, check in LOOPS.items():
        yield f"loop: {name}", lambda device, check=check: check(device, "triton")
    for check in (
        kernel_checks.check_refuses_what_has_no_memory,
        kernel_checks.check_two_groups,
        kernel_checks.check_neighbours,
        kernel_checks.check_layouts,
        kernel_checks.check_overflow_skips,
        kernel_checks.check_scaled_gradients_return_unscaled,
        kernel_checks.check_table_is_kept,
        kernel_checks.check_tensors_are_read_where_they_lie,
        kernel_checks.check_capture,
        kernel_checks.check_gradients_are_let_go,
        kernel_checks.check_user_sets_the_count,
        kernel_checks.check_changes_between_steps,
        kernel_checks.check_states_from_elsewhere,
        kernel_checks.check_any_default_device,
        kernel_checks.check_beyond_2_31_elements,
    ):
        yield check.__name__.removeprefix("check_").replace("_", " "), check


WATCHFUL = [f"tensors, f32, {flags}" for flags in ("plain", "large eps", "l2", "amsgrad", "maximize")]
WATCHFUL += ["replicas, f32, plain", "two groups", "vectors: numbers of 0 as betas", "loop: sets of gradients"]
WATCHFUL += [f"option: {name}" for name in ("cautious", "max norm", "max norm of scaled gradients", "explanation")]
WATCHFUL += ["option: stochastic rounding as the reference"]


def run_interpreted(*arguments: str) -> dict[str, str | None]:
    """{name: what went wrong, or None}, from this file in two processes of its own with Triton's interpreter."""
    here = Path(__file__)
    path = os.pathsep.join([str(here.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": path}
    commands = [[sys.executable, here, "--part", part, *arguments] for part in ("0/2", "1/2")]
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


def failure_of(check: Callable[[str], None], device: str = "cpu") -> str | None:
    try:
        check(device)
    except Exception:
        return traceback.format_exc(limit=-3)


def main(part: str, kernels: str | None, device: str, brief: bool, only: list[str]) -> None:
    """A part of the cases with the package's kernel, or the watchful ones with a part of the sets of sources among the
    folders of one. Part "1/4" is every fourth from the second on."""
    first, parts = map(int, part.split("/"))
    checks = dict(cases())
    if kernels is None:
        names = [n for n in checks if not only or any(w in n for w in only)]
        names = [n for n in names if not (brief and ("2 31" in n or "let go" in n))]
        for name in names[first::parts]:
            print(json.dumps([name, failure_of(checks[name], device)]), flush=True)
        return
    for folder in sorted(Path(kernels).iterdir())[first::parts]:
        for name in ("device_coefficients", "layout", "triton_rule", "triton_kernel", "triton_bundle"):
            spec = importlib.util.spec_from_file_location(f"adamw_book.optim.{name}", folder / f"{name}.py")
            sys.modules[spec.name] = importlib.util.module_from_spec(spec)
            setattr(optim, name, sys.modules[spec.name])
            spec.loader.exec_module(sys.modules[spec.name])
        failures = (failure_of(checks[name]) for name in WATCHFUL)
        print(json.dumps([folder.name, next(filter(None, failures), None)]), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", default="0/1", help="0/2 is every second case from the first on")
    parser.add_argument("--kernels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--brief", action="store_true", help="without tensors that fill a GPU, or counts of holders")
    parser.add_argument("--only", nargs="*", default=[], help="cases whose name contains one of these")
    main(**vars(parser.parse_args()))
