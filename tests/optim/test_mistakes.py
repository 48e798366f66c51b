"""Deliberate mistakes in the update, in each backend: the suite's own checks must notice every one."""

import importlib.util
from contextlib import nullcontext
from pathlib import Path

import kernel_cases
import pytest
import test_drop_in
import test_replicas
from option_checks import CHECKS

from adamw_book import optim
from adamw_book.optim import torch_bundles

OPTIM = Path(optim.__file__).parent
# mistake → the replacements in a backend's source that make it
REFERENCE_MISTAKES = {
    "decay after the step": {"(1 - decay) * param - gradient_step": "(1 - decay) * (param - gradient_step)"},
    "eps inside the root": {
        "(second_moment / (1 - beta2**step)).sqrt() + eps": "(second_moment / (1 - beta2**step) + eps).sqrt()"
    },
    "first moment not corrected": {"lr / (1 - beta1**step)": "lr"},
    "second moment not corrected": {"(second_moment / (1 - beta2**step))": "second_moment"},
    "l2 after the moments": {
        "(-grad if maximize else grad) + _times(l2, param)": "-grad if maximize else grad",
        "exp_avg / denominator": "(exp_avg + l2 * param) / denominator",
    },
    "no square root": {"(second_moment / (1 - beta2**step)).sqrt()": "(second_moment / (1 - beta2**step))"},
    "beta of the other moment": {"beta2 * exp_avg_sq + (1 - beta2)": "beta1 * exp_avg_sq + (1 - beta1)"},
    "decay without the learning rate": {"(lr if decay_rate is None else decay_rate)": "1"},
    "maximize ignored": {"(-grad if maximize else grad)": "grad"},
    "AMSGrad without its maximum": {"torch.maximum(max_exp_avg_sq, exp_avg_sq)": "exp_avg_sq"},
    "cautious the wrong way round": {"exp_avg * param >= 0": "exp_avg * param < 0"},
    "rounded always up": {"(bits.view(x.shape) & 0xFFFF)": "0xFFFF"},
    "every replica rounded differently": {"% max(row_length, 1) & mask": "& mask"},
}
KERNEL_SOURCES = ("device_coefficients.py", "layout.py", "triton_rule.py", "triton_kernel.py", "triton_bundle.py")
KERNEL_MISTAKES = {
    "decay after the step": {"decay * finite(param)": "decay * finite(param - gradient_step)"},
    "eps inside the root": {
        "tl.fma(root(largest), inverse_root, eps)": "root(largest * inverse_root * inverse_root + eps)"
    },
    "first moment not corrected": {"divide(lr, one_minus_exp(step * tl.load(moments + 2)))": "lr"},
    "second moment not corrected": {"divide(one, root(one_minus_exp(step * tl.load(moments + 3))))": "one"},
    "l2 after the moments": {
        "grad = tl.where(l2 != 0, tl.fma(param, l2, grad), grad)": "grad += 0 * l2",
        "divide(exp_avg, denominator)": "divide(tl.fma(param, l2, exp_avg), denominator)",
    },
    "no square root": {"tl.fma(root(largest), inverse_root, eps)": "largest * inverse_root * inverse_root + eps"},
    "beta of the other moment": {
        "grad * new2, grad, exp_avg_sq * (1 - new2)": "grad * new1, grad, exp_avg_sq * (1 - new1)"
    },
    "decay without the learning rate": {"decay *= coefficient(entry, tensors, row, DECAY_RATE, COMPUTE)": "decay *= 1"},
    "maximize ignored": {"grad = -grad": "grad = grad"},
    "AMSGrad without its maximum": {"tl.maximum(largest, exp_avg_sq, propagate_nan=tl.PropagateNan.ALL)": "exp_avg_sq"},
    "cautious the wrong way round": {"exp_avg * param >= 0": "exp_avg * param < 0"},
    "clipped by the scaled norm": {
        "norm = divide(root(tl.load(squares_ptr + row).to(COMPUTE)), grad_scale)": (
            "norm = root(tl.load(squares_ptr + row).to(COMPUTE))"
        )
    },
    "norm without the ends of rows": {"tl.sum(total) + tl.sum(ends)": "tl.sum(total)"},
    "norm of the first part only": {"tl.sum(parts))": "tl.load(partial_ptr + row * programs))"},
    "rounded always up": {"(bits & 0xFFFF)": "0xFFFF"},
    "explained without the ends of rows": {
        "products += tl.where(mask, decay_step * gradient_step, 0.0)": "products += 0"
    },
    "explained after the step": {"tl.sum(param * param)": "tl.sum((param - decay_step) * (param - decay_step))"},
    "one block too few where a row starts off the grid": {"else VECTOR - 1": "else 0"},
    "coefficients of the first group": {"values[self.group_of]": "values[self.group_of * 0]"},
    "a beta of 0 taken for 1": {"if b > 0 else -math.inf": "if b > 0 else 0.0"},
    "counted without a gradient": {'self.steps.add_(torch.tensor(self.present, device="cpu"))': "self.steps.add_(1)"},
    "coefficients of the first replica": {"address + row * tl.load(entry + (column + 1) * tensors)": "address"},
}
FUSED_MISTAKES = {
    "no decay": {"if decayed:": "if False:"},
    "decay without the learning rate": {"decay = decay_rate * weight_decay": "decay = weight_decay"},
    "step taken before the decay": {
        "        if decayed:": (
            "        torch._foreach_addcmul_(params, scratch, _columns(lr, params))\n        if decayed:"
        ),
        "        torch._foreach_addcmul_(params, scratch, _columns(lr, params))\n    elif": "    elif",
    },
    "penalty without the gradient's sign": {"_foreach_sub_ if maximize else torch._foreach_add_": "_foreach_add_"},
    "directions of the last step kept": {"        torch._foreach_zero_(scratch)\n": ""},
    "penalty ignored": {"if penalized and (": "if False and ("},
}


def mistaken(source: str, replacements: dict[str, str]) -> str:
    for right, wrong in replacements.items():
        assert right in source, f"the source no longer contains {right!r}"
        source = source.replace(right, wrong)
    return source


def load(source: str, path: Path):
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(f"adamw_book.optim.{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def checks(backend: str | None) -> None:
    """The comparisons with torch that test_drop_in and test_replicas make."""
    for config in test_drop_in.INPUTS[:5]:
        test_drop_in.test_torch_configuration(config, test_drop_in.torch.float32, backend, "cpu", {})
    for maximize in (False, True):
        test_drop_in.test_l2_is_adams_weight_decay(0.3, backend, maximize)
    for names in (["lr", "weight_decay"], ["lr", "l2"]):
        test_replicas.check_rows({n: test_replicas.VECTORS[n] for n in names}, backend=backend)
    for option in ("lr independent", "max norm", "max norm replicas"):
        CHECKS[option]("cpu", backend)
    if backend == "reference":
        for option in ("cautious", "stochastic rounding", "stochastic rounding of one replica", "explanation"):
            CHECKS[option]("cpu", backend)


@pytest.mark.parametrize("mistake", ["none", *REFERENCE_MISTAKES])
def test_reference(mistake, tmp_path, monkeypatch):
    source = mistaken((OPTIM / "reference.py").read_text(), REFERENCE_MISTAKES.get(mistake, {}))
    monkeypatch.setattr(torch_bundles, "reference", load(source, tmp_path / "reference.py"))
    with nullcontext() if mistake == "none" else pytest.raises(AssertionError):
        checks("reference")


@pytest.mark.parametrize("mistake", ["none", *FUSED_MISTAKES])
def test_fused_cpu(mistake, tmp_path, monkeypatch):
    source = mistaken((OPTIM / "fused_cpu.py").read_text(), FUSED_MISTAKES.get(mistake, {}))
    monkeypatch.setattr(torch_bundles, "fused_cpu", load(source, tmp_path / "fused_cpu.py"))
    with nullcontext() if mistake == "none" else pytest.raises(AssertionError):
        checks("torch")


@pytest.fixture(scope="module")
def noticed(tmp_path_factory) -> dict[str, str | None]:
    """What the kernel's cases say of each mistaken kernel; None where they say nothing. In the interpreter, in one
    process.
    """
    pytest.importorskip("triton", reason="Triton is not available for this platform")
    folder = tmp_path_factory.mktemp("kernels")
    sources = {name: (OPTIM / name).read_text() for name in KERNEL_SOURCES}
    for mistake, replacements in {"none": {}, **KERNEL_MISTAKES}.items():
        (folder / mistake).mkdir()
        for right in replacements:
            assert any(right in source for source in sources.values()), f"no source contains {right!r}"
        for name, source in sources.items():
            here = {right: wrong for right, wrong in replacements.items() if right in source}
            (folder / mistake / name).write_text(mistaken(source, here))
    return kernel_cases.run_interpreted("--kernels", str(folder))


@pytest.mark.parametrize("mistake", KERNEL_MISTAKES)
def test_kernel(mistake, noticed):
    assert noticed["none"] is None
    assert noticed[mistake] is not None and "AssertionError" in noticed[mistake]
