"""ONNX: the network exported, quantised by ONNX Runtime's tools, and run by ONNX Runtime."""

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from .network import Answer, Deployed


def export(network: nn.Sequential, features: int, path: Path) -> None:
    """Write the network as an ONNX file whose batch size is free, weights inside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, features),),
            path,
            input_names=["x"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )


class Product(nn.Module):
    """A linear layer written as a product and a sum: the tool for 4 bits looks for MatMul, where the exporter makes a
    Gemm of nn.Linear."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight, self.bias = nn.Parameter(linear.weight.detach().T.contiguous()), linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def session(path: Path, threads: int = 1) -> Answer:
    """An ONNX file as an answer, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    run = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run
    return lambda x: torch.from_numpy(run(None, {"x": x.numpy()})[0])


def deploy(network: nn.Sequential, calibration: Tensor, folder: Path) -> dict[str, Deployed]:
    """The network exported, and in each of ONNX Runtime's ways of quantising it, by name. ``calibration`` (N, D) are
    the inputs from which the ranges of activations are taken once and for all, where they are."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.getLogger().setLevel(logging.ERROR)
    plain, ready = folder / "plain.onnx", folder / "ready.onnx"
    export(network, calibration.shape[1], plain)
    quant_pre_process(plain, ready)
    ways = {"ONNX Runtime, float32": (plain, 32, "")}

    for grid in ("tensor", "channel"):
        path = folder / f"dynamic_{grid}.onnx"
        quantization.quantize_dynamic(
            ready, path, weight_type=quantization.QuantType.QInt8, per_channel=grid == "channel"
        )
        ways[f"ONNX Runtime, int8, activations as they come, a range each {grid}"] = (path, 8, grid)

    class Once(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([{"x": calibration.numpy()}])

        def get_next(self):
            return next(self.left, None)

    path = folder / "static.onnx"
    quantization.quantize_static(ready, path, Once(), per_channel=True)
    ways["ONNX Runtime, int8, activations calibrated, a range each channel"] = (path, 8, "channel")

    products, path = folder / "products.onnx", folder / "four.onnx"
    layers = [Product(layer) if isinstance(layer, nn.Linear) else layer for layer in network]
    export(nn.Sequential(*layers).eval(), calibration.shape[1], products)
    four = MatMulNBitsQuantizer(onnx.load(products), block_size=32, is_symmetric=True)
    four.process()
    four.model.save_model_to_file(str(path))
    ways["ONNX Runtime, 4-bit weights, a range each 32"] = (path, 4, "channel")
    return {name: Deployed(session(path), path.stat().st_size, bits, grid) for name, (path, bits, grid) in ways.items()}
