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


# What a course of decay alone may say: code → severity, text, fix, both of them for `str.format`. ``start`` is
# λ/Σ_tη_tλ, which leaves about 1/e of the initial weights: a place to start a search from, not an optimum.
TEMPLATES = {
    "no_decay": (
        "warning",
        "weight_decay is 0{where}: nothing decays. Adam's default is 0, and so is that of Hugging Face's "
        "TrainingArguments.",
        "weight_decay=0.1",
    ),
    "share_above_one": (
        "error",
        "lr · weight_decay reaches {share:.3g}{where}: a step takes the whole weight away, and turns its sign "
        "where it is above 1; above 2 the weights grow without bound.",
        "weight_decay={start:.2g}",
    ),
    "share_above_momentum": (
        "warning",
        "lr · weight_decay reaches {share:.3g}{where}: a weight is forgotten within {forgotten:.3g} steps, "
        "sooner than the momentum forgets a gradient ({momentum:.3g} steps).",
        "weight_decay={start:.2g}",
    ),
    "decay_idle": (
        "warning",
        "The run is too short for this decay{where}: {percent_left:.4g}% of the initial weights would be left by decay "
        "alone, and every gradient step keeps at least that share.",
        "weight_decay={start:.2g}  # about 37% left; a place to start a search from",
    ),
    "decay_in_warmup": (
        "note",
        "{percent_early:.3g}% of the decay{where} falls before the rate reaches its peak.",
        "warmup={shorter}  # a shorter climb",
    ),
    "initial_forgotten": (
        "note",
        "Decay alone would leave {remaining:.2g} of the initial weights{where}. From scratch that is usual; "
        "in fine-tuning, what was pre-trained stays only where gradients hold it.",
        "weight_decay={start:.2g}  # about 37% left, for fine-tuning",
    ),
}


def of_course(course: dict, weight_decay: float, share: float, beta1: float, where: str = "") -> list[Finding]:
    """The findings that the numbers of a course (:func:`.course.course`) are enough for, as ``TEMPLATES`` words them.

    share: the largest η_tλ. where: " in group 0", or nothing.
    """
    if share == 0:
        return [_worded("no_decay", where=where)]
    remaining, early = course["remaining"], course["warmup_share"]
    codes = {
        "share_above_one": share >= 1,
        "share_above_momentum": 1 - beta1 < share < 1,
        "decay_idle": share < 1 and remaining > IDLE,
        "decay_in_warmup": early > 0.5,
        "initial_forgotten": share < 1 and remaining < FORGOTTEN,
    }
    values = {
        "where": where,
        "share": share,
        "start": weight_decay / course["timescales_in_run"],
        "forgotten": 1 / share,
        "momentum": 1 / (1 - beta1),
        "remaining": remaining,
        "percent_left": None if remaining is None else 100 * remaining,
        "percent_early": 100 * early,
        "shorter": max(1, course["warmup_steps"] // 10),
    }
    return [_worded(code, **values) for code, holds in codes.items() if holds]


def _worded(code: str, **values) -> Finding:
    severity, text, fix = TEMPLATES[code]
    return Finding(code, severity, text.format(**values), fix.format(**values))
