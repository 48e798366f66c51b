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
