"""What several modules ask of an argument, and the words in which they refuse another."""

import math
import operator
from collections.abc import Iterable
from numbers import Real

import numpy as np


def whole(name: str, value, least: int = 1, most: float = math.inf, needed: str = "a positive whole number") -> int:
    """``value`` as an int; numpy's whole numbers are as good as python's. Raises ``ValueError``, which names it and
    what is ``needed``, for anything else and for a number that does not lie in ``least`` … ``most``."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        as_text = isinstance(value, str) and value.isdecimal()  # "20" would read as a number that would do
        raise ValueError(f"{name}: {repr(value) if as_text else value}; {needed} is needed")
    return number


def shown(value) -> str:
    """``value`` as a message names it: "1" in quotes, which tell it from 1."""
    return repr(value) if isinstance(value, str) else f"{value}"


def real(values: Iterable) -> np.ndarray:
    """``values`` in float64, with NaN for what is no real number: "0.1" is none."""
    return np.array([value if isinstance(value, Real) else math.nan for value in values], float)
