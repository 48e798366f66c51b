"""Where the records lie, and their tables as compressed CSV files."""

from __future__ import annotations

import gzip
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
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


def replace_files(new: Mapping[Path, bytes], gone: Iterable[Path] = ()) -> None:
    """Give every file of ``new`` its content and remove those of ``gone``: all of it, or nothing where anything fails.

    New contents, and copies of the old, are written beside the files before the first is touched, so that a full disk
    is met while everything old still stands. Each file is then replaced in one move; what interrupts that (Ctrl-C)
    moves the old ones back. Only a killed process can leave new files beside old ones, and then the copies too.
    """
    gone = [path for path in gone if path not in new]
    made = {path: path.with_name(f".{path.name}.new") for path in new}
    kept = {path: path.with_name(f".{path.name}.old") for path in (*new, *gone) if path.exists()}
    try:
        for path, beside in made.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(new[path])
        for path, beside in kept.items():
            shutil.copyfile(path, beside)
        try:
            for path, beside in made.items():
                beside.replace(path)
            for path in gone:
                path.unlink()
        except BaseException:
            for path, beside in kept.items():
                beside.replace(path)
            for path in made.keys() - kept.keys():
                path.unlink(missing_ok=True)
            raise
    finally:
        for beside in (*made.values(), *kept.values()):
            beside.unlink(missing_ok=True)
