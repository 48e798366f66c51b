"""From a study's tables to its records, with the device and the versions that made them."""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pandas as pd

from ..evidence import judgements, verdict
from .files import column_kind, find_root, from_csv, replace_files, rows_of, to_csv
from .records import effect_to_json, others
from .study import Study, checked_effects, checked_probe, fingerprint, plain_settings


def write(
    study: Study, tables: Mapping[str, pd.DataFrame], root: Path | str | None = None, seconds: float | None = None
) -> list[Path]:
    """Write the study's tables and one record a claim; return the records' paths.

    Effects are computed from the tables as they are stored (six significant digits), so that they can be recomputed.
    Tables and records of the same chapter that are no longer made are removed. seconds: what the protocol took.

    Raises ValueError for settings that are not JSON, a column that mixes texts with other values, effects that miss a
    claim, and a probe that is malformed. Then, as when the probe itself fails, the disk is full or Ctrl-C is pressed,
    the ledger is as it was before.
    """
    root = find_root() if root is None else Path(root)
    settings = plain_settings(study.settings, study.chapter)
    kinds = {
        name: {column: column_kind(table[column], name) for column in table.columns} for name, table in tables.items()
    }
    texts = {name: to_csv(table) for name, table in tables.items()}
    stored = {name: from_csv(text, kinds[name]) for name, text in texts.items()}
    effects = checked_effects(study, stored)
    packed = {f"{study.name}/{name}.csv.gz": gzip.compress(text, mtime=0) for name, text in texts.items()}
    files = {
        name: {"file": file, "sha256": hashlib.sha256(texts[name]).hexdigest(), "columns": kinds[name]}
        for name, file in zip(texts, packed, strict=True)
    }
    protocol = {
        "chapter": study.chapter,
        "settings": settings,
        "fingerprint": fingerprint(settings),
        "tables": files,
        "winners": rows_of(stored.get("winners", pd.DataFrame())),
        "probe": rows_of(checked_probe(study)),
        "device": device(),
        "versions": versions(),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": None if seconds is None else round(seconds, 1),
    }
    records = {}
    for claim in study.claims:
        found = effects[claim.id]
        outcome = {
            "claim": asdict(claim),
            "verdict": verdict(claim, found),
            "verdicts": judgements(claim, found),
            "effects": {regime: effect_to_json(effect) for regime, effect in found.items()},
        }
        # the order is fixed and not alphabetical: regimes (depth 1, 4, 16) are shown in the study's own order
        records[root / f"{claim.id}.json"] = json.dumps(
            outcome | protocol, indent=1, ensure_ascii=False, allow_nan=False
        )
    # tables before the records that point at them
    new = {root / file: content for file, content in packed.items()}
    new |= {path: f"{text}\n".encode() for path, text in records.items()}
    orphans = [path for path, chapter in others(study, root).items() if chapter == study.chapter]
    replace_files(new, [*(root / study.name).glob("*.csv.gz"), *orphans])
    return list(records)


def device() -> str:
    """The GPU, where torch finds one, or else the CPU and how many threads torch has."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    count = 0 if torch is None else torch.get_num_threads()
    threads = f", {count} thread{'s' * (count > 1)}" if count else ""
    return f"CPU: {names[0] if names else platform.machine()}{threads}"


def versions(*more: str) -> dict[str, str | None]:
    """The versions that a record keeps, and those of ``more`` packages; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("torch", "triton", "numpy", "scipy", "pandas", "adamw-book", *more):
        try:
            found[name.replace("-", "_")] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name.replace("-", "_")] = None
    return found
