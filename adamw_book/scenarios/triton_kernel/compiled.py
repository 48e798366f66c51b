"""What Triton's compiler makes of the kernel for a GPU that need not be here: registers, spills, widths of accesses.

Triton compiles for any target on any machine; the disassembler in its wheel says what the machine code needs. The
interpreter (``TRITON_INTERPRET=1``) hides the compiler from a process, so :func:`compile_table` and
:func:`compile_sources` work in a process of their own.
"""

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pandas as pd
import torch

from ...optim.layout import block_size

GPUS = {75: "T4", 80: "A100", 89: "L4, RTX 40", 90: "H100, H200", 100: "B200", 120: "RTX 50"}
DTYPES = {  # parameters, gradients, state
    "f32": ("fp32", "fp32", "fp32"),
    "bf16": ("bf16", "bf16", "bf16"),
    "f16": ("fp16", "fp16", "fp16"),
    "bf16, f32 state": ("bf16", "bf16", "fp32"),
    "f16, f32 state": ("fp16", "fp16", "fp32"),
    "f32, bf16 gradients": ("fp32", "bf16", "fp32"),
    "f64": ("fp64", "fp64", "fp64"),
}
SIZES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp64": 8}
SWITCHES = ("AMSGRAD", "MAXIMIZE", "CAUTIOUS", "STOCHASTIC", "SCALED", "SKIPPABLE", "CLIPPED", "EXPLAIN")
FLAGS = {  # name → the kernel's switches
    "plain": (),
    "clipped": ("CLIPPED",),
    "cautious": ("CAUTIOUS",),
    "scaled": ("SCALED", "SKIPPABLE"),
    "explain": ("EXPLAIN",),
    "amsgrad": ("AMSGRAD",),
    "stochastic": ("STOCHASTIC",),
    "all": tuple(s for s in SWITCHES if s != "STOCHASTIC"),
}


def block(dtype: str) -> int:
    """Elements of a program for parameters of ``dtype``."""
    return block_size(torch.float64 if dtype == "fp64" else torch.float32)


def installed() -> bool:
    """Whether Triton is here; it exists for Linux only."""
    return importlib.util.find_spec("triton") is not None


def compile_step(architecture: int, dtypes: str, flags: str = "plain"):
    """The step's kernel as it is launched, compiled for compute capability ``architecture`` (75 is sm_75)."""
    import triton.language as tl

    from ...optim.triton_kernel import PIECE, adamw_kernel

    switches = FLAGS[flags]
    names = ("PARAM_DTYPE", "GRAD_DTYPE", "STATE_DTYPE")
    constants = {name: tl.dtype(d) for name, d in zip(names, DTYPES[dtypes], strict=True)}
    compute = "fp64" if "fp64" in DTYPES[dtypes] else "fp32"
    constants |= {"STEP_DTYPE": tl.float32, "COMPUTE": tl.dtype(compute), "BLOCK": block(compute), "PIECE": PIECE}
    constants |= {switch: switch in switches for switch in SWITCHES}
    pointers = {"ticks": "fp32", "max_norm": "fp32", "sums_ptr": f"*{compute}"}
    pointers["grad_scale_ptr"] = "*fp32" if "SCALED" in switches else None
    pointers["found_inf_ptr"] = "*fp32" if "SKIPPABLE" in switches else None
    pointers["squares_ptr"] = f"*{compute}" if "CLIPPED" in switches else None
    return _compile(adamw_kernel, architecture, _TABLE | pointers, constants)


def compile_norm(architecture: int, dtype: str):
    """The kernel that sums the squared gradients, for clipping."""
    import triton.language as tl

    from ...optim.triton_kernel import PIECE, squares_kernel

    compute = "fp64" if dtype == "fp64" else "fp32"
    constants = {"GRAD_DTYPE": tl.dtype(dtype), "COMPUTE": tl.dtype(compute), "BLOCK": block(compute), "PIECE": PIECE}
    constants["MOST"] = 1024
    pointers = {"programs": "i32", "partial_ptr": f"*{compute}", "arrived_ptr": "*i32", "squares_ptr": f"*{compute}"}
    return _compile(squares_kernel, architecture, _TABLE | pointers, constants)


_TABLE = {"table": "*i64", "tensor_of_block": "*i32", "tensors": "i32", "blocks_a_row": "i32"}


def _compile(kernel, architecture: int, types: dict[str, str | None], constants: dict):
    """A kernel compiled as at a launch: a pointer of None is one that is not passed."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ...optim.triton_kernel import OPTIONS

    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError("TRITON_INTERPRET=1 hides Triton's compiler; unset it, or call compile_table")
    constants = constants | {name: None for name, kind in types.items() if kind is None}
    types = types | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, {name: types[name] for name in kernel.arg_names}, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=dict(OPTIONS))


def disassembled(option: str, kernel) -> str:
    """What the cuobjdump of Triton's wheel says of a compiled kernel: ``-res-usage`` or ``-sass``."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(kernel.asm["cubin"])
        return subprocess.run([tool, option, file], capture_output=True, text=True, check=True).stdout


def figures(kernel) -> dict[str, int]:
    """Of a compiled kernel: registers a thread, bytes of spills, and its accesses to global memory, as written in PTX:
    the number that are 128 bits wide, loads and stores, and of those that are not."""
    usage = disassembled("-res-usage", kernel)
    registers, stack = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK"))
    code = kernel.asm["ptx"]
    loads, stores = (len(re.findall(rf"\b{op}\.global[.\w]*\.(?:v4\.b32|v2\.b64)", code)) for op in ("ld", "st"))
    every = len(re.findall(r"\b(?:ld|st)\.global", code))
    return {"registers": registers, "spills": stack, "wide loads": loads, "wide stores": stores,
            "narrower": every - loads - stores}  # fmt: skip


def expected_wide(dtypes: str, flags: str = "plain") -> tuple[int, int]:
    """128-bit loads and stores of a thread when every tensor is read and written once, 16 bytes at a time."""
    from ...optim.triton_kernel import OPTIONS

    per_thread = block(DTYPES[dtypes][0]) // (32 * OPTIONS["num_warps"])
    param, grad, state = (SIZES[d] * per_thread // 16 for d in DTYPES[dtypes])
    states = 3 if "AMSGRAD" in FLAGS[flags] else 2
    return param + grad + states * state, param + states * state + (grad if "SCALED" in FLAGS[flags] else 0)


def compile_table(architectures=tuple(GPUS), dtypes=("f32", "bf16"), flags=("plain",)) -> pd.DataFrame:
    """:func:`figures` of the step's kernel for every combination, beside columns ``gpu``, ``dtypes`` and ``flags``."""
    combinations = [[a, d, f] for a in architectures for d in dtypes for f in flags]
    rows = _elsewhere("steps", combinations)
    heads = [{"gpu": f"sm_{a} ({GPUS[a]})", "dtypes": d, "flags": f} for a, d, f in combinations]
    return pd.DataFrame([head | row for head, row in zip(heads, rows, strict=True)])


def compile_sources(kernels: dict[str, tuple], architecture: int = 90) -> dict[str, dict]:
    """Name → :func:`figures` and ``ptx`` of kernels that were defined elsewhere, in a notebook for instance.

    kernels: name → (kernel, types, constants). The kernel's source must need nothing but ``tl``. types: argument →
    Triton's name for its type; ``"*fp32:16"`` or ``"i32:16"`` is a multiple of 16, as Triton finds out of the arguments
    of a launch.
    """
    given = [
        [
            textwrap.dedent(inspect.getsource(getattr(kernel, "fn", kernel))),
            kernel.__name__,
            types,
            constants,
            architecture,
        ]
        for kernel, types, constants in kernels.values()
    ]
    return dict(zip(kernels, _elsewhere("sources", given), strict=True))


def _elsewhere(task: str, given: list):
    """Compile in a process that does not interpret."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    root = str(Path(__file__).parents[3])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "adamw_book.scenarios.triton_kernel.compiled", task],
        input=json.dumps(given),
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the compilation failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _from_source(source: str, name: str, types: dict[str, str], constants: dict, architecture: int) -> dict:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel_of_a_page.py"
        file.write_text("import triton\nimport triton.language as tl\n\n" + source)
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        kernel = getattr(module, name)
        attributes = {
            (kernel.arg_names.index(arg),): [["tt.divisibility", 16]] for arg, kind in types.items() if ":" in kind
        }
        types = {arg: kind.split(":")[0] for arg, kind in types.items()} | dict.fromkeys(constants, "constexpr")
        ast = ASTSource(kernel, {arg: types[arg] for arg in kernel.arg_names}, constexprs=constants, attrs=attributes)
        compiled = triton.compile(ast, target=GPUTarget("cuda", architecture, 32), options={"num_warps": 4})
        return figures(compiled) | {"ptx": compiled.asm["ptx"]}


if __name__ == "__main__":
    received = json.load(sys.stdin)
    if sys.argv[1] == "steps":
        print(json.dumps([figures(compile_step(*combination)) for combination in received]))
    else:
        print(json.dumps([_from_source(*one) for one in received]))
