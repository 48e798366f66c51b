"""The kernel compiled for GPUs that are not here: registers, spills and the width of its memory accesses, printed as a
table; and that nothing which changes during training compiles it again.
"""

import re

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton is not available for this platform")

from adamw_book.optim import AdamW, adamw, triton_kernel  # noqa: E402
from adamw_book.scenarios.triton_kernel import compiled as compiled_kernel  # noqa: E402
from adamw_book.scenarios.triton_kernel.compiled import DTYPES, FLAGS, GPUS, SIZES, block  # noqa: E402

# A GPU hands them out by eights: up to 72, as many programs run at once as with 65.
MOST_REGISTERS = {"plain": 64, "clipped": 64, "cautious": 64, "scaled": 66, "explain": 72, "stochastic": 72}
MOST_REGISTERS |= {"amsgrad": 80, "all": 86}


def check(architecture: int, dtypes: str, flags: str, note) -> None:
    """Compile, note registers, spills and 128-bit accesses for the table (tests/conftest.py), and hold them to what
    they must be.
    """
    kernel = compiled_kernel.compile_step(architecture, dtypes, flags)
    found = compiled_kernel.figures(kernel)
    registers, spills, loads, stores, _ = found.values()
    note("compiled kernel", [architecture, dtypes, flags, registers, spills, loads, stores])
    # The path for full blocks reads and writes every tensor once, in pieces of 16 bytes.
    assert (loads, stores) == compiled_kernel.expected_wide(dtypes, flags)
    assert spills <= (0 if triton.__version__ == "3.7.1" else 16)  # two values under 3.6 for sm_89
    assert registers <= (128 if dtypes == "f64" else MOST_REGISTERS[flags])
    code = kernel.asm["ptx"]
    assert not re.search(r"\b(?:div|sqrt)\.(?:full|approx)", code), "an inexact division or root"
    if flags == "plain":  # the machine code, too
        code = compiled_kernel.disassembled("-sass", kernel)
        assert len(re.findall(r"\bLDG\.E(?:\.\w+)*?\.128", code)) == loads
        assert len(re.findall(r"\bSTG\.E(?:\.\w+)*?\.128", code)) == stores
        assert spills or not re.search(r"\b(?:LDL|STL)\b", code)


@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize("architecture", GPUS)
def test_every_gpu(architecture, dtypes, record_property):
    check(architecture, dtypes, "plain", record_property)


@pytest.mark.parametrize(
    ("dtypes", "flags"),
    # Only bfloat16 parameters are rounded at random.
    [(d, f) for d in DTYPES for f in FLAGS if f != "plain" and (f != "stochastic" or d.startswith("bf16"))],
)
def test_every_flag(dtypes, flags, record_property):
    check(90, dtypes, flags, record_property)


@pytest.mark.parametrize("architecture", [75, 120])
def test_all_flags_on_the_oldest_and_the_newest(architecture, record_property):
    check(architecture, "f32", "all", record_property)


@pytest.mark.parametrize("dtype", SIZES)
def test_sum_of_squares(dtype, record_property):
    """The gradients are read in pieces of 16 bytes; who arrives last sees what the others wrote."""
    kernel = compiled_kernel.compile_norm(90, dtype)
    found = compiled_kernel.figures(kernel)
    row = [90, dtype, "squares", found["registers"], found["spills"], found["wide loads"], found["wide stores"]]
    record_property("compiled kernel", row)
    assert found["wide loads"] == SIZES[dtype] * block(dtype) // (32 * triton_kernel.OPTIONS["num_warps"]) // 16
    assert found["spills"] == 0
    assert found["registers"] <= 64
    assert "atom.global.gpu.acq_rel.add" in kernel.asm["ptx"]


class Elsewhere:
    """What Triton's runtime asks of a driver, for a GPU that is not here."""

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0


@pytest.fixture
def compilations(monkeypatch) -> list:
    """Keys of the kernels that launches ask for; those of a training run on the CPU, whose launches stop there."""
    from triton.runtime import driver

    asked = []

    class Recorder:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            def launch(*args, **kwargs):
                *_, binder = self.kernel.create_binder()
                _, specialization, options = binder(*args, debug=False, **kwargs)
                asked.append((self.kernel.__name__, str(specialization), str(options)))

            return launch

    monkeypatch.setattr(adamw, "why_not_triton", lambda *_: None)
    for name in ("adamw_kernel", "squares_kernel"):
        monkeypatch.setattr(triton_kernel, name, Recorder(getattr(triton_kernel, name)))
    monkeypatch.setattr(driver, "_active", Elsewhere())
    return asked


def train(params: list[torch.Tensor], steps: int = 3, **options) -> None:
    optimizer = AdamW(params, backend="triton", **options)
    group = optimizer.param_groups[0]
    for step in range(steps):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
        for name in ("lr", "weight_decay", "l2"):
            group[name] = group.get(name, 0.0) * 0.5 + step
        group["betas"] = (0.5 / (1 + step), 0.999)


def test_nothing_that_changes_in_training_compiles_again(compilations):
    """Steps, numbers of one or a multiple of 16 among them, tensors, elements, replicas and their vectors."""
    train([torch.ones(5)], steps=20, lr=1.0, weight_decay=16)
    train([torch.ones(1024, 16)] * 1, lr=16.0, weight_decay=0)
    train([torch.ones(n + 1) for n in range(16)], lr=0.1)
    train([torch.ones(3, 40), torch.ones(3, 7)], lr=torch.tensor([0.1, 0.2, 0.3]), l2=torch.tensor([0.1, 0.2, 0.3]))
    train([torch.ones(3, 40)], betas=(0.9, torch.tensor([0.9, 0.99, 0.999])), steps=1)
    assert len(compilations) == 30
    assert len(set(compilations)) == 1


def test_clipping_compiles_once(compilations):
    """Whatever the norm, a whole number or not."""
    for max_norm in (1, 16, 0.5, 2.0):
        train([torch.ones(5), torch.ones(3000)], max_norm=max_norm)
    assert len(compilations) == 4 * 3 * 2
    assert len(set(compilations)) == 2


def test_a_dtype_and_a_flag_compile_another(compilations):
    """The keys do tell kernels apart."""
    train([torch.ones(5)])
    train([torch.ones(5, dtype=torch.bfloat16)])
    train([torch.ones(5)], amsgrad=True)
    assert len(set(compilations)) == 3
