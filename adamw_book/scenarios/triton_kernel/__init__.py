"""What the chapter on the Triton kernel measures and compiles. It has no claims of the source to test, and no study."""

from .compiled import compile_sources, compile_table
from .measured import (
    asked_table,
    bytes_moved,
    host_seconds,
    parameters,
    race,
    race_table,
    records,
    stand_in,
)

__all__ = [
    "asked_table",
    "bytes_moved",
    "compile_sources",
    "compile_table",
    "host_seconds",
    "parameters",
    "race",
    "race_table",
    "records",
    "stand_in",
]
