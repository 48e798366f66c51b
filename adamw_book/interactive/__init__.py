"""Pictures that a reader moves, each one call in a cell: closed forms, records, and the audit of a run."""

from .calculator import calculator
from .records import by_dose
from .weights import three_weights

__all__ = ["by_dose", "calculator", "three_weights"]
