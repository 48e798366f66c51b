"""Quantised networks in torchao and in ONNX Runtime against the chapter's own quantiser; the benchmark's record."""

import importlib
import json
import logging
from pathlib import Path

import pytest
import torch

from adamw_book.models import MLP
from adamw_book.replicas import made
from adamw_book.scenarios.quantization import deployed
from adamw_book.scenarios.quantization.quantisers import Scheme

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)  # ONNX Runtime's tools are told to be quiet


def network(**shape) -> torch.nn.Sequential:
    of_layers = importlib.import_module("deployments.network").of_layers
    return of_layers(made(lambda: MLP(**shape)).requires_grad_(False))


X = torch.rand(200, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [{}, {"width": 40, "depth": 3, "norm": True}])
def test_engines_get_the_same_function(shape):
    torch.testing.assert_close(network(**shape)(X), made(lambda: MLP(**shape))(X))


def off(answer: torch.Tensor, expected: torch.Tensor) -> float:
    """Typical difference of the logits against their spread."""
    return ((answer - expected).square().mean().sqrt() / expected.std()).item()


def rounded(own: torch.nn.Sequential, scheme) -> torch.Tensor:
    """The logits with every weight matrix, as a stack of one, on the grid of ``scheme``."""
    weights = {n: scheme(p[None])[0] if p.ndim > 1 else p for n, p in own.named_parameters()}
    return torch.func.functional_call(own, weights, (X,))


def sixteen(w: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """On the grid that engines give 4 bits: one level more below zero than above."""
    return step * (w / step).round().clamp(-8, 7)


def torchaos(w: torch.Tensor) -> torch.Tensor:
    return sixteen(w, w.abs().amax(-1, keepdim=True) / 7.5)


def onnx_runtimes(w: torch.Tensor) -> torch.Tensor:
    """The largest of each 32 weights, with its sign, is at the end that has one level more."""
    blocks = w.unflatten(-1, (-1, 32))
    largest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    return sixteen(blocks, largest / -8).flatten(-2)


def test_torchao_rounds_as_the_chapter_does(tmp_path):
    pytest.importorskip("torchao", reason="torchao is not installed (make engines)")
    own = network(width=128, depth=2, norm=True)
    before = {n: p.clone() for n, p in own.named_parameters()}
    found = importlib.import_module("deployments.torch_ao").deploy(own, tmp_path)
    assert all(torch.equal(p, before[n]) for n, p in own.named_parameters())  # what is quantised are copies
    size = sum(p.numel() for p in own.parameters())
    for name, one in found.items():
        assert one.answer(X[:1]).shape == (1, 10) and size < one.size < 2 * size
        expected = rounded(own, torchaos if one.bits == 4 else Scheme(8, per_channel=True))
        assert off(one.answer(X), expected) < (0.02 if one.bits == 8 else 0.05), name  # a row's largest is a tie
        assert off(one.answer(X), own(X)) > 0.005, name
    assert sorted(one.bits for one in found.values()) == [4, 8, 8]


def test_onnx_runtime_rounds_as_the_chapter_does(tmp_path):
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed, reason=f"{needed} is not installed (make engines)")
    own = network(width=128, depth=2, norm=True)
    found = importlib.import_module("deployments.onnx_runtime").deploy(own, X, tmp_path)
    plain = found.pop("ONNX Runtime, float32")
    assert off(plain.answer(X), own(X)) < 1e-4
    for name, one in found.items():
        assert one.answer(X[:1]).shape == (1, 10) and one.size < 0.4 * plain.size
        expected = rounded(own, onnx_runtimes if one.bits == 4 else Scheme(8, per_channel=one.grid == "channel"))
        assert off(one.answer(X), expected) < 0.02, name  # of 8 bits the activations are rounded as well
        assert off(one.answer(X), own(X)) > 0.005, name
    assert sorted(one.bits for one in found.values()) == [4, 8, 8, 8]


def test_the_chapters_table_is_what_was_measured():
    records = deployed.records()
    assert records
    for record in records:
        assert {"date", "device", "versions", "threads", "networks"} <= record.keys()
        for table in deployed.tables(record).values():
            assert table["time, 1 image"].loc[deployed.FLOAT] == "1.00" and (table["bits"] <= 32).all()
            assert table["accuracy"].between(0, 1).all() and table["as the chapter"].between(0, 1).all()


def test_ratios_are_taken_round_by_round(tmp_path):
    def of(*seconds: float) -> dict:
        return {"bytes": 400, "bits": 8, "accuracy": 0.9, "as the chapter": 1.0, "as float32": 1.0,
                "seconds": {"1": list(seconds), "64": list(seconds)}}  # fmt: skip

    networks = {
        "n": {"parameters": 100, "deployments": {deployed.FLOAT: of(1.0, 10.0, 2.0), "half": of(0.5, 5.0, 4.0)}}
    }
    (tmp_path / "quantization_x.json").write_text(json.dumps({"device": "x", "networks": networks}))
    table = deployed.tables(deployed.records(tmp_path)[0])["n"]
    assert table["time, 1 image"].to_dict() == {deployed.FLOAT: "1.00", "half": "0.50 (0.50–2.00)"}
    assert table["kB"].to_dict() == {deployed.FLOAT: 0.4, "half": 0.4}
