"""One thing to know about a run before it starts, and what a course of decay alone already says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

SEVERITIES = ("error", "warning", "note")
IDLE, FORGOTTEN = 0.95, 0.01  # shares of the initial weights: more is left / less is left


@dataclass(frozen=True)
class Finding:
    """What was found: a code for machines, how bad it is (one of ``SEVERITIES``), plain words, and the line of code
    that mends it ("" where nothing needs to be mended)."""

    code: str
    severity: str
    text: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def sort(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; those of one severity stay in their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def grave(findings: Iterable[Finding]) -> bool:
    """Whether one of them is more than a note."""
    return any(finding.severity != "note" for finding in findings)


def of_course(course: dict, weight_decay: float, share: float, beta1: float, where: str = "") -> list[Finding]:
    """The findings that the numbers of a course (:func:`.course.course`) are enough for.

    share: the largest η_tλ. where: " in group 0", or nothing. The decay that a fix suggests, λ/Σ_tη_tλ, leaves about
    1/e of the initial weights: a place to start a search from, not an optimum.
    """
    if share == 0:
        return [
            Finding(
                "no_decay",
                "warning",
                f"weight_decay is 0{where}: nothing decays. Adam's default is 0, and so is that of Hugging Face's "
                "TrainingArguments.",
                "weight_decay=0.1",
            )
        ]
    found, remaining = [], course["remaining"]
    start = weight_decay / course["timescales_in_run"]
    if share >= 1:
        found.append(
            Finding(
                "share_above_one",
                "error",
                f"lr · weight_decay reaches {share:.3g}{where}: a step takes the whole weight away, and turns its sign "
                "where it is above 1; above 2 the weights grow without bound.",
                f"weight_decay={start:.2g}",
            )
        )
    elif share > 1 - beta1:
        found.append(
            Finding(
                "share_above_momentum",
                "warning",
                f"lr · weight_decay reaches {share:.3g}{where}: a weight is forgotten within {1 / share:.3g} steps, "
                f"sooner than the momentum forgets a gradient ({1 / (1 - beta1):.3g} steps).",
                f"weight_decay={start:.2g}",
            )
        )
    if share < 1 and remaining > IDLE:
        found.append(
            Finding(
                "decay_idle",
                "warning",
                f"The run is too short for this decay{where}: {100 * remaining:.4g}% of the initial weights would be "
                f"left by decay alone, and every gradient step keeps at least that share.",
                f"weight_decay={start:.2g}  # about 37% left; a place to start a search from",
            )
        )
    if course["warmup_share"] > 0.5:
        found.append(
            Finding(
                "decay_in_warmup",
                "note",
                f"{100 * course['warmup_share']:.3g}% of the decay{where} falls before the rate reaches its peak.",
                f"warmup={max(1, course['warmup_steps'] // 10)}  # a shorter climb",
            )
        )
    if share < 1 and remaining < FORGOTTEN:
        found.append(
            Finding(
                "initial_forgotten",
                "note",
                f"Decay alone would leave {remaining:.2g} of the initial weights{where}. From scratch that is usual; "
                "in fine-tuning, what was pre-trained stays only where gradients hold it.",
                f"weight_decay={start:.2g}  # about 37% left, for fine-tuning",
            )
        )
    return found
