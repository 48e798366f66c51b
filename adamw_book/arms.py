"""The arms of every comparison: one optimizer whose two coefficients say which kind of decay it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Arm:
    """One kind of decay: its name, the coefficient that it tunes (None: it has none) and its look in the figures.

    The other coefficients are what it must not have: with them it would be another arm.
    """

    name: str
    decay: str | None
    style: Mapping[str, str] = field(repr=False, hash=False)

    @property
    def absent(self) -> tuple[str, ...]:
        """The coefficients that are 0 in this arm."""
        return tuple(name for name in ("weight_decay", "l2") if name != self.decay)

    def coefficients(self, value: float) -> dict[str, float]:
        """Both coefficients, this arm's own being ``value``."""
        return {name: value if name == self.decay else 0.0 for name in ("weight_decay", "l2")}


ADAMW = Arm("AdamW", "weight_decay", {"color": "#005F9E", "marker": "o", "linestyle": "-"})
ADAM_L2 = Arm("Adam + L2", "l2", {"color": "#D25A00", "marker": "s", "linestyle": "--"})
ADAM = Arm("Adam", None, {"color": "#222222", "marker": "^", "linestyle": ":"})
INDEPENDENT = Arm(
    "AdamW, lr-independent", "weight_decay", {"color": "#CC79A7", "marker": "D", "linestyle": "-."}
)  # fmt: skip
ARMS = {arm.name: arm for arm in (ADAMW, ADAM_L2, ADAM, INDEPENDENT)}
# Toward the weights that fine-tuning begins with. No fifth colour stands apart from four on white, on dark, in grey and
# to every eye (tests/test_plots.py): it has the look of AdamW, and is never drawn beside it in one panel.
TO_START = Arm("AdamW to the start", "weight_decay", ADAMW.style)
THREE = (ADAMW, ADAM_L2, ADAM)
