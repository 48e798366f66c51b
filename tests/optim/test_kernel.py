"""The Triton kernel: in the interpreter on the CPU, as it is on a GPU, against the reference in float64."""

import pytest
import torch
from kernel_cases import cases, run_interpreted

pytest.importorskip("triton", reason="Triton is not available for this platform")
CASES = dict(cases())


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str | None]:
    return run_interpreted()


@pytest.mark.parametrize("name", CASES)
def test_in_the_interpreter(name, interpreted):
    assert interpreted[name] is None, interpreted[name]


@pytest.mark.parametrize("name", CASES if torch.cuda.is_available() else [])
def test_on_the_gpu(name):
    CASES[name]("cuda")
