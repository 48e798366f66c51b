"""What weight decay will do in a training run: before it runs, and while it does."""

from .audit import Audit, audit
from .finding import Finding
from .numbers import audit_numbers
from .recipes import RECIPES, SOURCES
from .recorder import DecayRecorder

__all__ = ["RECIPES", "SOURCES", "Audit", "DecayRecorder", "Finding", "audit", "audit_numbers"]
