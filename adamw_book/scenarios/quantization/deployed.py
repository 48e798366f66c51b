"""What `python benchmarks/quantization.py --record` has measured of quantised networks in real engines."""

import json
import statistics
from pathlib import Path

import pandas as pd

FLOAT = "torch, float32"  # what the others are compared with


def records(folder: Path | None = None) -> list[dict]:
    """The records, one a device; by default those of the clone's ``benchmarks/results``."""
    folder = folder or Path(__file__).resolve().parents[3] / "benchmarks" / "results"
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("quantization_*.json"))]


def tables(record: dict) -> dict[str, pd.DataFrame]:
    """{network: a row a deployment}: bits of a weight, kB on disk, the time of an answer for 1 and for 64 images over
    that of float32 in torch (median over the rounds, and range), accuracy on the test images, and the share of them
    answered as by the chapter's own quantiser and as by float32."""
    found = {}
    for network, measured in record["networks"].items():
        deployments, rows = measured["deployments"], {}
        for name, one in deployments.items():
            rows[name] = {"bits": one["bits"], "kB": one["bytes"] / 1000}
            for batch in ("1", "64"):
                pairs = zip(one["seconds"][batch], deployments[FLOAT]["seconds"][batch], strict=True)
                ratios = [own / other for own, other in pairs]
                low, high = min(ratios), max(ratios)
                spread = "" if name == FLOAT else f" ({low:.2f}–{high:.2f})"
                rows[name][f"time, {batch} image{'s' * (batch != '1')}"] = f"{statistics.median(ratios):.2f}{spread}"
            rows[name] |= {key: one[key] for key in ("accuracy", "as the chapter", "as float32")}
        found[network] = pd.DataFrame(rows).T.infer_objects()
        numbers = ["bits", "kB", "accuracy", "as the chapter", "as float32"]
        found[network][numbers] = found[network][numbers].astype(float)
    return found
