"""What is asked of the optimizer, and what a run of the benchmark measured of it."""

from collections.abc import Callable
from typing import NamedTuple


class Asked(NamedTuple):
    """One line: ``measure(results)`` returns the figure, or raises KeyError where it was not measured."""

    what: str
    device: str  # "GPU" or "CPU"
    least: bool  # whether ``bound`` is the least or the most that will do
    bound: float
    measure: Callable[[dict], float]

    def row(self, results: dict, device: str) -> dict:
        """The line with its figure, None where a run on ``device`` has not measured it."""
        try:
            figure = self.measure(results) if device == self.device else None
        except KeyError:
            figure = None
        met = None if figure is None else figure >= self.bound if self.least else figure <= self.bound
        asked = f"{'≥' if self.least else '≤'} {self.bound:g}"
        return {"what": self.what, "device": self.device, "asked": asked, "measured": figure, "met": met}


def ratio(scenario: str, above: str, below: str, time: str = "whole") -> Callable[[dict], float]:
    """Time of ``above`` over time of ``below``."""

    def measure(results):
        rows = results["scenarios"][scenario]["contenders"]
        return rows[above][time] / rows[below][time]

    return measure


def against_the_best(scenario: str) -> Callable[[dict], float]:
    """Our time over that of torch's fastest implementation."""

    def measure(results):
        rows = results["scenarios"][scenario]["contenders"]
        return rows["adamw_book"]["whole"] / min(row["whole"] for name, row in rows.items() if name.startswith("torch"))

    return measure


def billion(measure: Callable[[dict], float]) -> Callable[[dict], float]:
    """The figure where the scenario's tensor really had so many numbers: a GPU with little memory takes fewer."""

    def checked(results):
        if any(results["scenarios"][name].get("numbers", 10**9) < 10**9 for name in (ONE, BF16)):
            raise KeyError("1 billion numbers")
        return measure(results)

    return checked


def figure(scenario: str, contender: str, name: str) -> Callable[[dict], float]:
    return lambda results: results["scenarios"][scenario]["contenders"][contender][name]


def busy(scenario: str) -> str:
    """The same race beside a busy loop on each core."""
    return f"{scenario}, busy cores"


def check(name: str) -> Callable[[dict], float]:
    return lambda results: results["checks"][name]


ONE, BF16, SMALL = "one tensor, float32", "one tensor, bfloat16", "1,000 tensors of 1,000"
ENSEMBLE, CLIP, VARIANTS = "ensemble of 1,000 with their own lr", "gpt2 124M, clip and step", "gpt2 124M, variants"
FUSED, GROUPS, OURS = "torch fused", "torch fused, 1,000 groups", "adamw_book"
AT_LEAST, AT_MOST = True, False
ASKED = [
    Asked(what, "GPU", least, bound, measure)
    for what, least, bound, measure in (
        (
            "1 billion numbers in float32: share of the triad's bandwidth",
            AT_LEAST,
            0.98,
            billion(figure(ONE, OURS, "share")),
        ),
        (
            "1 billion numbers in float32: torch fused ÷ this one",
            AT_LEAST,
            1.0,
            billion(ratio(ONE, FUSED, OURS, "device")),
        ),
        (
            "1 billion numbers in bfloat16: torch fused ÷ this one",
            AT_LEAST,
            1.1,
            billion(ratio(BF16, FUSED, OURS, "device")),
        ),
        ("1,000 small tensors: launches", AT_MOST, 1, figure(SMALL, OURS, "launches")),
        (
            "1,000 small tensors, time on the host: this one ÷ torch fused",
            AT_MOST,
            0.2,
            ratio(SMALL, OURS, FUSED, "host"),
        ),
        ("ResNet-50, whole step: torch fused ÷ this one", AT_LEAST, 1.3, ratio("resnet50", FUSED, OURS)),
        ("GPT-2 124M, whole step: torch fused ÷ this one", AT_LEAST, 1.3, ratio("gpt2 124M", FUSED, OURS)),
        ("1,000 replicas: torch fused with a group each ÷ this one", AT_LEAST, 100, ratio(ENSEMBLE, GROUPS, OURS)),
        ("1,000 replicas: largest difference from solo runs", AT_MOST, 1e-6, check("rows")),
        ("clip and step: torch's ÷ this one", AT_LEAST, 1.2, ratio(CLIP, "torch clip + fused", OURS)),
        ("plain ÷ cautious", AT_LEAST, 0.97, ratio(VARIANTS, "plain", "cautious", "device")),
        ("plain ÷ lr-independent", AT_LEAST, 0.97, ratio(VARIANTS, "plain", "lr_independent", "device")),
        ("plain ÷ with l2", AT_LEAST, 0.97, ratio(VARIANTS, "plain", "l2", "device")),
        ("plain ÷ with the explanation", AT_LEAST, 0.97, ratio(VARIANTS, "plain", "explain", "device")),
        ("failures of torch's CUDA configurations, CUDA graphs, kernel cases", AT_MOST, 0, check("failures")),
        ("errors that compute-sanitizer finds", AT_MOST, 0, check("sanitizer")),
    )
]
for title, scenario in (
    ("MLP 64-32-32-10", "mlp 64-32-32-10"),
    ("1,000 small tensors", SMALL),
    ("ResNet-50", "resnet50"),
    ("GPT-2 124M", "gpt2 124M"),
):
    what = "this one ÷ torch's fastest"
    ASKED += [
        Asked(f"{title}: {what}", "CPU", AT_MOST, 1.1, against_the_best(scenario)),
        Asked(f"{title} beside busy loops: {what}", "CPU", AT_MOST, 1.5, against_the_best(busy(scenario))),
    ]
ASKED.append(
    Asked(
        "1,000 small tensors, processor's time without the update: this one ÷ torch fused",
        "CPU",
        AT_MOST,
        0.2,
        lambda results: results["host"]["steady"][OURS]["cpu"] / results["host"]["steady"][FUSED]["cpu"],
    )
)


def rows(results: dict, device: str) -> list[dict]:
    """All lines, with what a run on "GPU" or "CPU" has measured."""
    return [asked.row(results, device) for asked in ASKED]


def text(row: dict) -> str:
    if row["measured"] is None:
        return f"  {row['what']:80s} {row['asked']:>8s}   not yet measured"
    return f"  {row['what']:80s} {row['asked']:>8s}   {row['measured']:8.4g}   {'met' if row['met'] else 'MISSED'}"
