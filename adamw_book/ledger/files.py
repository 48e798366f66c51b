"""Where the records lie, and their tables as compressed CSV files."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd


def find_root() -> Path:
    """The folder of the records: ADAMW_BOOK_LEDGER where it is set, else `ledger/` beside `adamw_book/`, looked for
    from the current directory upward (a chapter runs in chapters/…) and then where the package lies."""
    if os.environ.get("ADAMW_BOOK_LEDGER"):
        return Path(os.environ["ADAMW_BOOK_LEDGER"])
    here, package = Path.cwd(), Path(__file__).resolve().parents[2]
    clones = (folder for folder in (here, *here.parents) if (folder / "adamw_book" / "__init__.py").is_file())
    return next(clones, package) / "ledger"


class Tables(Mapping):
    """A record's tables by name, each read from its file when it is first asked for."""

    def __init__(self, root: Path, files: dict[str, dict]) -> None:
        self._root, self._files, self._loaded = root, files, {}

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self._files:
            raise KeyError(f"the record has no table {name!r}; it has {', '.join(self._files)}")
        if name not in self._loaded:
            entry = self._files[name]
            self._loaded[name] = from_csv(gzip.decompress((self._root / entry["file"]).read_bytes()), entry["columns"])
        return self._loaded[name].copy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def column_kind(column: pd.Series, table: str) -> str:
    """What a column holds: "int", "float", "bool" or "str"; a CSV file does not say."""
    types = pd.api.types
    if types.is_bool_dtype(column):
        return "bool"
    if types.is_numeric_dtype(column):
        return "int" if types.is_integer_dtype(column) else "float"
    if not all(isinstance(value, str) for value in column):
        raise ValueError(f"column {column.name!r} of table {table!r} mixes texts with other values; expected one kind")
    return "str"


def to_csv(table: pd.DataFrame) -> bytes:
    """A table as CSV, floats at six significant digits."""
    return table.to_csv(index=False, float_format="%.6g", na_rep="nan", lineterminator="\n").encode()


def from_csv(text: bytes, kinds: dict[str, str]) -> pd.DataFrame:
    """The table that `to_csv` wrote, its columns of the given `column_kind`."""
    missing = {name: ["nan"] for name, kind in kinds.items() if kind == "float"}
    return pd.read_csv(io.BytesIO(text), dtype=kinds, keep_default_na=False, na_values=missing)


def rows_of(table: pd.DataFrame) -> list[dict]:
    """The rows as JSON holds them: None for a missing number."""
    return [{key: None if value != value else value for key, value in row.items()} for row in table.to_dict("records")]
