"""Places and tick labels on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def log_places(values: Sequence[float]) -> np.ndarray:
    """Places on a logarithmic axis: the values; 0 goes as far below the smallest as that is below the next."""
    values = np.asarray(values, float)
    positive = values[values > 0]
    if (values < 0).any() or not len(positive):
        raise ValueError(
            f"a logarithmic axis cannot show {values.tolist()}; expected values above 0, and at most one 0"
        )
    ratio = positive[1] / positive[0] if len(positive) > 1 else 10.0
    return np.where(values > 0, values, positive[0] / ratio)


def tick_label(value: float) -> str:
    """A short tick label: 0.001 and above as it stands, smaller values as 3e−4."""
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:g}".replace("-", "−")
    digits, power = f"{value:e}".split("e")
    return f"{float(digits):g}e−{abs(int(power))}"


def tick_labels(values: Sequence[float], room: int = 6) -> list[str]:
    """A label for each place of a grid on a logarithmic axis, some of them empty where there is no room for all: then
    the powers of ten keep theirs, or every second value where the grid holds fewer than two of them.
    """
    if len(values) <= room:
        return [tick_label(value) for value in values]
    powers = [np.log10(value) if value > 0 else np.nan for value in values]
    whole = np.isclose(powers, np.round(powers), atol=0.01)
    if whole.sum() < 2:
        return [tick_label(value) if i % 2 == 0 else "" for i, value in enumerate(values)]
    shown = zip(values, powers, whole, strict=True)
    return [f"$10^{{{round(power)}}}$" if at else "0" if value == 0 else "" for value, power, at in shown]
