"""What several modules ask of an argument, and the words in which they refuse another."""

import math
import operator


def whole(name: str, value, least: int = 1, most: float = math.inf, needed: str = "a positive whole number") -> int:
    """``value`` as an int; numpy's whole numbers are as good as python's. Raises ``ValueError``, which names it and
    what is ``needed``, for anything else and for a number that does not lie in ``least`` … ``most``."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        raise ValueError(f"{name}: {value!r}; {needed} is needed")
    return number
