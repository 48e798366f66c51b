"""A finding about an optimizer, and the size of its effect in words."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

from ..auditing.finding import Finding
from . import effects
from .words import WORDS

STOPS = ("raises", "checkpoint_raises")


@dataclass(frozen=True)
class Difference(Finding):
    """A finding with ``effect``: {steps: root mean square difference of the weights from AdamW's, in units of theirs},
    inf where they have left all bounds, without the steps that would have taken too long, {} where there can be none;
    ``where``: the situation that it is meant for."""

    effect: dict[int, float] = field(default_factory=dict)
    where: str = ""

    def as_dict(self) -> dict:
        sizes = {str(steps): size if math.isfinite(size) else None for steps, size in self.effect.items()}
        return asdict(self) | {"effect": sizes}

    def size(self) -> str:
        """The effect in words, and where it has none why; "" for a note that changes no weights."""
        if self.code in STOPS:
            return "It stops there: no weights come of it that could be compared."
        if not self.effect:
            return "" if self.severity == "note" else "What that does to the weights could not be measured."
        left = [steps for steps in effects.STEPS if steps not in self.effect]
        sizes = [f"{percent(size)} after {steps:,} steps" for steps, size in self.effect.items()]
        found = f"The weights then differ from AdamW's by {' and by '.join(sizes)}{self.where}."
        return found + (f" {left[0]:,} steps could not be waited for." if left else "")


def difference(code: str, effect: dict | None = None, situation: str = "plain", **values) -> Difference:
    """The finding of a code in ``WORDS``, with the values that its words name."""
    severity, text, fix = WORDS[code]
    return Difference(code, severity, text.format(**values), fix, effect or {}, effects.SITUATIONS[situation])


def percent(share: float) -> str:
    """A share as a reader sees it."""
    if not share < 1e6:
        return "more than a million times their size"
    if share > 10:
        return f"{share:.3g} times their size"
    return f"{100 * share:.0f}%" if share >= 0.1 else f"{100 * share:.2g}%" if share > 1e-6 else "less than 0.0001%"
