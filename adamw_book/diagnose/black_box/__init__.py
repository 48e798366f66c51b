"""Is an optimizer AdamW? It is driven as a black box, and what it does is compared with the closed forms."""

from .box import CouldNotRun
from .conformance import conformance, require
from .difference import Difference
from .report import Conformance

__all__ = ["Conformance", "CouldNotRun", "Difference", "conformance", "require"]
