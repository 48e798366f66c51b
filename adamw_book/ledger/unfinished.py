"""What a run that is not finished has already found, so that a stop loses one part of it and not all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from .files import column_kind, find_root, from_csv, replace_files, to_csv
from .study import Study, fingerprint, plain_settings


class Unfinished:
    """The parts of a study's run, kept beside the ledger until its records are written.

    ``part(name, function)`` returns what ``function()`` found, or finds now: as a record's tables come back, at six
    significant digits, so that a run that was resumed and one that was not give the same. Parts that other settings or
    another state of the package's code made are not taken.
    """

    def __init__(self, study: Study, root: Path | str | None = None) -> None:
        root = find_root() if root is None else Path(root)
        self.folder = root / ".unfinished" / study.name
        self._key = f"{fingerprint(plain_settings(study.settings, study.chapter))} {_sources()}"

    def part(self, name: str, function: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """What a part of the run found, kept from an earlier run or found now."""
        stem = hashlib.sha256(name.encode()).hexdigest()[:16]
        path, about = self.folder / f"{stem}.csv", self.folder / f"{stem}.json"
        if path.exists() and about.exists():
            stored = json.loads(about.read_bytes())
            if stored["key"] == self._key and stored["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest():
                return from_csv(path.read_bytes(), stored["columns"])
        table = function()
        kinds = {column: column_kind(table[column], name) for column in table.columns}
        text = to_csv(table)
        found = {"part": name, "key": self._key, "sha256": hashlib.sha256(text).hexdigest(), "columns": kinds}
        replace_files({path: text, about: json.dumps(found).encode()})
        return from_csv(text, kinds)

    def forget(self) -> None:
        """Remove all parts: the records are written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _sources() -> str:
    """Changes with every line of the package's code."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
