"""Is this optimizer AdamW, and what will its weight decay do in this run? Needs torch, numpy and pandas only."""

from .auditing import RECIPES, SOURCES, Audit, DecayRecorder, Finding, audit, audit_numbers
from .black_box import Conformance, CouldNotRun, Difference, conformance, require

__all__ = [
    "RECIPES",
    "SOURCES",
    "Audit",
    "Conformance",
    "CouldNotRun",
    "DecayRecorder",
    "Difference",
    "Finding",
    "audit",
    "audit_numbers",
    "conformance",
    "require",
]
