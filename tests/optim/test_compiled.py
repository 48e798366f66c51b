"""The kernel compiled for GPUs that are not here: registers, spills and the width of its memory accesses, printed as a
table.
"""

import os
import re
import subprocess
from itertools import product
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="Triton is not available for this platform")

import triton.language as tl  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from adamw_book.optim import triton_kernel  # noqa: E402

ARCHITECTURES = [75, 80, 90, 100]
SIZES = {tl.float32: 4, tl.bfloat16: 2, tl.float16: 2}
DTYPES = {  # parameters, gradients, state
    "f32": (tl.float32, tl.float32, tl.float32),
    "bf16": (tl.bfloat16, tl.bfloat16, tl.bfloat16),
    "f16": (tl.float16, tl.float16, tl.float16),
    "bf16, f32 state": (tl.bfloat16, tl.bfloat16, tl.float32),
    "f32, bf16 gradients": (tl.float32, tl.bfloat16, tl.float32),
}
FLAGS = {
    "plain": {},
    "amsgrad": {"AMSGRAD": True},
    "all": {"AMSGRAD": True, "MAXIMIZE": True, "SCALED": True, "SKIPPABLE": True},
}
ROWS: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def table(request):
    """Print what was found when the module is done."""
    yield
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    reporter.ensure_newline()
    reporter.write_line(
        "The AdamW kernel, compiled: GPU, dtypes, flags → registers, spilled bytes, 128-bit loads and stores a thread"
    )
    for row in ROWS:
        reporter.write_line("  " + row)


def compiled(architecture: int, dtypes: tuple, flags: dict) -> triton.compiler.CompiledKernel:
    assert os.environ.get("TRITON_INTERPRET") != "1", "TRITON_INTERPRET=1 hides the compiler from this test; unset it"
    constants = dict(zip(("PARAM_DTYPE", "GRAD_DTYPE", "STATE_DTYPE"), dtypes, strict=True))
    constants |= {"STEP_DTYPE": tl.float32, "COMPUTE": tl.float32}
    constants |= {"AMSGRAD": False, "MAXIMIZE": False, "SCALED": False, "SKIPPABLE": False} | flags
    arguments = {"table": "*i64", "tensor_of_block": "*i32", "tensors": "i32", "ticks": "fp32"}
    arguments |= {"grad_scale_ptr": "*fp32", "found_inf_ptr": "*fp32"} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(triton_kernel.adamw_kernel, arguments, constexprs=constants)
    return triton.compile(
        source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": triton_kernel.WARPS}
    )


def disassembled(option: str, kernel, folder: Path) -> str:
    """What the cuobjdump of Triton's wheel says of the machine code."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    file = folder / "kernel.cubin"
    file.write_bytes(kernel.asm["cubin"])
    return subprocess.run([tool, option, file], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("architecture", "dtypes", "flags"), list(product(ARCHITECTURES, DTYPES, FLAGS)))
def test_compiles_to_wide_accesses_without_spills(architecture, dtypes, flags, tmp_path):
    kernel = compiled(architecture, DTYPES[dtypes], FLAGS[flags])
    usage = disassembled("-res-usage", kernel, tmp_path)
    registers, stack, spilled = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK", "LOCAL"))
    code = disassembled("-sass", kernel, tmp_path)
    loads, stores = (len(re.findall(rf"\b{op}\.E(?:\.\w+)*?\.128", code)) for op in ("LDG", "STG"))
    ROWS.append(f"sm_{architecture:<4} {dtypes:20} {flags:8} {registers:4} {stack + spilled:3} {loads:3} {stores:3}")

    # Eight elements a thread; the path for full blocks reads and writes every tensor once, in pieces of 16 bytes.
    param, grad, state = (SIZES[d] * triton_kernel.BLOCK // (32 * triton_kernel.WARPS) // 16 for d in DTYPES[dtypes])
    states = 3 if FLAGS[flags].get("AMSGRAD") else 2
    assert loads == param + grad + states * state
    assert stores == param + states * state + (grad if FLAGS[flags].get("SCALED") else 0)
    assert stack == spilled == 0
