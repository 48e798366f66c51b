"""The kernel compiled for GPUs that are not here: registers, spills and the width of its memory accesses, printed as a
table.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="Triton is not available for this platform")

import triton.language as tl  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from adamw_book.optim import triton_kernel  # noqa: E402

ARCHITECTURES = [75, 80, 89, 90, 100, 120]
SIZES = {tl.float32: 4, tl.bfloat16: 2, tl.float16: 2}
DTYPES = {  # parameters, gradients, state
    "f32": (tl.float32, tl.float32, tl.float32),
    "bf16": (tl.bfloat16, tl.bfloat16, tl.bfloat16),
    "f16": (tl.float16, tl.float16, tl.float16),
    "bf16, f32 state": (tl.bfloat16, tl.bfloat16, tl.float32),
    "f16, f32 state": (tl.float16, tl.float16, tl.float32),
    "f32, bf16 gradients": (tl.float32, tl.bfloat16, tl.float32),
}
SWITCHES = ("AMSGRAD", "MAXIMIZE", "CAUTIOUS", "STOCHASTIC", "SCALED", "SKIPPABLE", "CLIPPED", "EXPLAIN")
FLAGS = {
    "plain": (),
    "clipped": ("CLIPPED",),
    "cautious": ("CAUTIOUS",),
    "scaled": ("SCALED", "SKIPPABLE"),
    "explain": ("EXPLAIN",),
    "amsgrad": ("AMSGRAD",),
    "stochastic": ("STOCHASTIC",),
    "all": tuple(s for s in SWITCHES if s != "STOCHASTIC"),
}
MOST_REGISTERS = {
    "plain": 64,
    "clipped": 64,
    "cautious": 66,
    "scaled": 66,
    "explain": 72,
    "stochastic": 72,
    "amsgrad": 80,
    "all": 96,
}
COLUMNS = "{:6} {:20} {:10} {:>9} {:>6} {:>5} {:>6}"  # loads and stores of 128 bits in a thread
ROWS: list[str] = []
BLOCK = 1024


@pytest.fixture(scope="module", autouse=True)
def table(request):
    """Print what was found when the module is done."""
    yield
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print(
            "\nThe AdamW kernel, compiled\n"
            + COLUMNS.format("GPU", "dtypes", "flags", "registers", "spills", "loads", "stores")
        )
        print(*ROWS, sep="\n")


def compiled(kernel, architecture: int, pointers: dict[str, str | None], constants: dict):
    """A kernel compiled as at a launch: a pointer of None is one that is not passed."""
    assert os.environ.get("TRITON_INTERPRET") != "1", "TRITON_INTERPRET=1 hides the compiler from this test; unset it"
    types = {"table": "*i64", "tensor_of_block": "*i32", "tensors": "i32", "blocks_a_row": "i32", **pointers}
    constants = constants | {name: None for name, kind in pointers.items() if kind is None}
    types |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, {name: types[name] for name in kernel.arg_names}, constexprs=constants)
    target = GPUTarget("cuda", architecture, 32)
    return triton.compile(source, target=target, options={"num_warps": triton_kernel.WARPS})


def compiled_step(architecture: int, dtypes: tuple, switches: tuple[str, ...]):
    constants = dict(zip(("PARAM_DTYPE", "GRAD_DTYPE", "STATE_DTYPE"), dtypes, strict=True))
    constants |= {"STEP_DTYPE": tl.float32, "COMPUTE": tl.float32, "BLOCK": BLOCK, "PIECE": triton_kernel.PIECE}
    constants |= {switch: switch in switches for switch in SWITCHES}
    pointers = {"ticks": "fp32", "max_norm": "fp32", "sums_ptr": "*fp32"}
    pointers["grad_scale_ptr"] = "*fp32" if "SCALED" in switches else None
    pointers["found_inf_ptr"] = "*fp32" if "SKIPPABLE" in switches else None
    pointers["squares_ptr"] = "*fp32" if "CLIPPED" in switches else None
    return compiled(triton_kernel.adamw_kernel, architecture, pointers, constants)


def disassembled(option: str, kernel, folder: Path) -> str:
    """What the cuobjdump of Triton's wheel says of the machine code."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    file = folder / "kernel.cubin"
    file.write_bytes(kernel.asm["cubin"])
    return subprocess.run([tool, option, file], capture_output=True, text=True, check=True).stdout


def figures(architecture: int, dtypes: str, flags: str, folder: Path) -> None:
    """Compile, print registers, spills and 128-bit accesses, and hold them to what they must be."""
    switches = FLAGS[flags]
    kernel = compiled_step(architecture, DTYPES[dtypes], switches)
    usage = disassembled("-res-usage", kernel, folder)
    registers, stack = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK"))
    code = kernel.asm["ptx"]
    loads, stores = (len(re.findall(rf"\b{op}\.global[.\w]*\.v4\.b32", code)) for op in ("ld", "st"))
    ROWS.append(COLUMNS.format(f"sm_{architecture}", dtypes, flags, registers, stack, loads, stores))

    # The path for full blocks reads and writes every tensor once, in pieces of 16 bytes.
    per_thread = BLOCK // (32 * triton_kernel.WARPS)
    param, grad, state = (SIZES[d] * per_thread // 16 for d in DTYPES[dtypes])
    states = 3 if "AMSGRAD" in switches else 2
    assert loads == param + grad + states * state
    assert stores == param + states * state + (grad if "SCALED" in switches else 0)
    assert stack == 0
    assert registers <= MOST_REGISTERS[flags]
    if flags == "plain":  # the machine code, too
        code = disassembled("-sass", kernel, folder)
        assert len(re.findall(r"\bLDG\.E(?:\.\w+)*?\.128", code)) == loads
        assert len(re.findall(r"\bSTG\.E(?:\.\w+)*?\.128", code)) == stores
        assert not re.search(r"\b(?:LDL|STL)\b", code)


@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_gpu(architecture, dtypes, tmp_path):
    figures(architecture, dtypes, "plain", tmp_path)


@pytest.mark.parametrize(
    ("dtypes", "flags"),
    # Only bfloat16 parameters are rounded at random.
    [(d, f) for d in DTYPES for f in FLAGS if f != "plain" and (f != "stochastic" or d.startswith("bf16"))],
)
def test_every_flag(dtypes, flags, tmp_path):
    figures(90, dtypes, flags, tmp_path)


@pytest.mark.parametrize("dtype", SIZES, ids=str)
def test_sum_of_squares(dtype, tmp_path):
    """The gradients are read in pieces of 16 bytes; who arrives last sees what the others wrote."""
    constants = {"GRAD_DTYPE": dtype, "COMPUTE": tl.float32, "BLOCK": BLOCK, "PIECE": triton_kernel.PIECE, "MOST": 1024}
    pointers = {"programs": "i32", "partial_ptr": "*fp32", "arrived_ptr": "*i32", "squares_ptr": "*fp32"}
    kernel = compiled(triton_kernel.squares_kernel, 90, pointers, constants)
    usage = disassembled("-res-usage", kernel, tmp_path)
    registers, stack = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK"))
    loads = len(re.findall(r"\bld\.global[.\w]*\.v4\.b32", kernel.asm["ptx"]))
    ROWS.append(COLUMNS.format("sm_90", str(dtype), "squares", registers, stack, loads, 0))
    assert loads == SIZES[dtype] * BLOCK // (32 * triton_kernel.WARPS) // 16
    assert stack == 0
    assert registers <= 64
    assert "atom.global.gpu.acq_rel.add" in kernel.asm["ptx"]
