"""torchao: weights replaced by quantised tensors, in place; torch goes on as before."""

import copy
import logging
import warnings
from pathlib import Path

import torch
from torch import nn

from .network import Deployed


def deploy(network: nn.Sequential, folder: Path) -> dict[str, Deployed]:
    """The network in each of torchao's ways that run on any CPU, by name.

    Its 4-bit weights are held in int8 there: packed kernels need a GPU, an Arm processor or a prototype, so the
    answers are those of 4 bits and the size is that of 8.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torchao").setLevel(logging.ERROR)  # it looks for kernels of other devices
        from torchao.quantization import (
            Int8DynamicActivationInt8WeightConfig,
            Int8WeightOnlyConfig,
            IntxWeightOnlyConfig,
            quantize_,
        )
        from torchao.quantization.granularity import PerAxis
    ways = {
        "torchao, int8 weights": (Int8WeightOnlyConfig(), 8),
        "torchao, int8 weights and activations": (Int8DynamicActivationInt8WeightConfig(), 8),
        "torchao, 4-bit weights held in int8": (
            IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerAxis(0)),
            4,
        ),
    }
    found = {}
    for name, (way, bits) in ways.items():
        own = copy.deepcopy(network)
        quantize_(own, way)
        found[name] = Deployed.of(own, folder / "torchao.pt", bits, "channel")
    return found
