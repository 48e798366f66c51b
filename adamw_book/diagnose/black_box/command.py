"""``conformance`` on the command line: an optimizer's import path in, where it differs from AdamW out."""

from __future__ import annotations

import argparse
import json
import sys

import torch

from .box import CouldNotRun
from .conformance import conformance
from .target import device_of, find, keyword

DESCRIPTION = (
    "Is this optimizer AdamW, and where does it differ? It is imported, made, and driven with prescribed gradients. "
    "The exit status is 0 where it is AdamW, 1 where it differs, 2 where it could not be found, made or stepped."
)
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.description = DESCRIPTION
    add = parser.add_argument
    add("target", metavar="TARGET", help="torch.optim.AdamW, timm.optim:AdamW or path/to/file.py:Class")
    add("keywords", metavar="NAME=VALUE", nargs="*", help="its keyword arguments, as weight_decay=0.1 or fused=True")
    add("--dtype", choices=DTYPES, help="of the weights (default: float64 where it can be stepped, else float32, …)")
    add("--device", default="cpu", help="of the weights (default: cpu)")
    add("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Ask, print, and return the exit status."""
    try:
        keywords = dict(map(keyword, options.keywords))
        device = device_of(options.device)
        made = find(options.target)
        found = conformance(made, DTYPES.get(options.dtype), device, name=options.target, **keywords)
    except (CouldNotRun, ValueError, TypeError, RuntimeError) as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) if options.json else found)
    return int(not found.is_adamw)
