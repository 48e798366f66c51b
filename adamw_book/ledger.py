"""The records of the full protocols: what was run, what came out, and whether both still hold.

`ledger/<claim id>.json` holds one claim with its protocol, effects and verdict; `ledger/<chapter>/<table>.csv.gz` the
tables they come from. `write` makes them, `read` serves them to chapters, and `check` lists what is stale or
contradicted: texts and settings against the chapter's study, effects and verdicts against the tables, and a *probe* (a
few runs of the protocol, recomputed in seconds) against the code as it is now. This module knows tables and JSON, not
models.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

from .evidence import Claim, Effect, judge, verdict

PROBE = ["run", "step", "metric", "value", "atol", "rtol"]


@dataclass(frozen=True)
class Study:
    """A chapter's full protocol.

    chapter: folder and name, for instance "generalization/overfitting". claims: what is tested. settings: everything
    that defines the protocol (grids, seeds, steps, sizes), as JSON would hold it. run(progress) runs it and returns
    named tables; the table "winners", where there is one, holds the chosen configurations. effects(tables) returns for
    each claim's id {regime: Effect}. probe() recomputes a few of the protocol's runs on a CPU: a table with the columns
    run, step, metric, value, atol, rtol.
    """

    chapter: str
    claims: tuple[Claim, ...]
    settings: dict
    run: Callable[[bool], dict[str, pd.DataFrame]]
    effects: Callable[[Mapping[str, pd.DataFrame]], dict[str, dict[str, Effect]]]
    probe: Callable[[], pd.DataFrame]

    @property
    def name(self) -> str:
        """The last part of the chapter's name: what `make evidence CHAPTER=…` takes."""
        return self.chapter.rsplit("/", 1)[-1]


@dataclass(frozen=True, eq=False)
class Record:
    """One claim's record as it is stored. `tables["name"]` is read from its file when it is first asked for."""

    claim: Claim
    chapter: str
    settings: dict
    fingerprint: str
    effects: dict[str, Effect]
    verdicts: dict[str, str]
    verdict: str
    winners: pd.DataFrame
    probe: pd.DataFrame
    files: dict[str, dict]
    device: str
    versions: dict[str, str | None]
    date: str
    seconds: float | None
    root: Path

    @cached_property
    def tables(self) -> Mapping[str, pd.DataFrame]:
        return _Tables(self.root, self.files)


class _Tables(Mapping):
    def __init__(self, root: Path, files: dict[str, dict]) -> None:
        self._root, self._files, self._loaded = root, files, {}

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self._files:
            raise KeyError(f"the record has no table {name!r}; it has {', '.join(self._files)}")
        if name not in self._loaded:
            entry = self._files[name]
            self._loaded[name] = _from_csv(gzip.decompress((self._root / entry["file"]).read_bytes()), entry["columns"])
        return self._loaded[name].copy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


# ---- places


def find_root() -> Path:
    """The folder of the records: ADAMW_BOOK_LEDGER where it is set, else `ledger/` beside `adamw_book/`, looked for
    from the current directory upward (a chapter runs in chapters/…) and then where the package lies."""
    if os.environ.get("ADAMW_BOOK_LEDGER"):
        return Path(os.environ["ADAMW_BOOK_LEDGER"])
    here, package = Path.cwd(), Path(__file__).resolve().parents[1]
    clones = (folder for folder in (here, *here.parents) if (folder / "adamw_book" / "ledger.py").is_file())
    return next(clones, package) / "ledger"


def fingerprint(settings: dict) -> str:
    """Sixteen hexadecimal digits that change whenever the settings of a protocol do."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


def _remedy(chapter: str) -> str:
    return f"run `make evidence CHAPTER={chapter.rsplit('/', 1)[-1]}`"


def _plain(settings: dict, chapter: str) -> dict:
    try:
        return json.loads(json.dumps(settings, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"settings of {chapter} are not JSON ({error}); expected numbers, texts, lists and dicts"
        ) from error


# ---- writing


def write(
    study: Study, tables: Mapping[str, pd.DataFrame], root: Path | str | None = None, seconds: float | None = None
) -> list[Path]:
    """Write the study's tables and one record a claim; return the records' paths.

    Effects are computed from the tables as they are stored (six significant digits), so that they can be recomputed.
    Tables and records of the same chapter that are no longer made are removed. seconds: what the protocol took.

    Raises ValueError for settings that are not JSON, a column that mixes texts with other values, and effects that miss
    a claim.
    """
    root = find_root() if root is None else Path(root)
    settings = _plain(study.settings, study.chapter)
    kinds = {name: {column: _kind(table[column], name) for column in table.columns} for name, table in tables.items()}
    texts = {name: _to_csv(table) for name, table in tables.items()}
    stored = {name: _from_csv(text, kinds[name]) for name, text in texts.items()}
    effects = _effects(study, stored)
    folder = root / study.name
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.csv.gz"), *_orphans(study, root)]:
        old.unlink()
    files = {}
    for name, text in texts.items():
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text, mtime=0))
        sha256 = hashlib.sha256(text).hexdigest()
        files[name] = {"file": f"{study.name}/{name}.csv.gz", "sha256": sha256, "columns": kinds[name]}
    protocol = {
        "chapter": study.chapter,
        "settings": settings,
        "fingerprint": fingerprint(settings),
        "tables": files,
        "winners": _records(stored.get("winners", pd.DataFrame())),
        "probe": _records(_probe(study)),
        "device": _device(),
        "versions": _versions(),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": None if seconds is None else round(seconds, 1),
    }
    paths = []
    for claim in study.claims:
        found = effects[claim.id]
        outcome = {
            "claim": asdict(claim),
            "verdict": verdict(claim, found),
            "verdicts": {regime: judge(effect, claim.smallest_effect) for regime, effect in found.items()},
            "effects": {regime: _effect_to_json(effect) for regime, effect in found.items()},
        }
        paths.append(root / f"{claim.id}.json")
        # the order is fixed and not alphabetical: regimes (depth 1, 4, 16) are shown in the study's own order
        text = json.dumps(outcome | protocol, indent=1, ensure_ascii=False, allow_nan=False)
        paths[-1].write_text(text + "\n", encoding="utf-8")
    return paths


def _orphans(study: Study, root: Path) -> list[Path]:
    """Records that say they are of this chapter, without a claim in it."""
    ours = {claim.id for claim in study.claims}
    others = (path for path in sorted(root.glob("*.json")) if path.stem not in ours)
    return [path for path in others if f'"chapter": {json.dumps(study.chapter)}' in path.read_text(encoding="utf-8")]


def _kind(column: pd.Series, table: str) -> str:
    """What a column holds: "int", "float", "bool" or "str"; a CSV file does not say."""
    types = pd.api.types
    if types.is_bool_dtype(column):
        return "bool"
    if types.is_numeric_dtype(column):
        return "int" if types.is_integer_dtype(column) else "float"
    if not all(isinstance(value, str) for value in column):
        raise ValueError(f"column {column.name!r} of table {table!r} mixes texts with other values; expected one kind")
    return "str"


def _to_csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, float_format="%.6g", na_rep="nan", lineterminator="\n").encode()


def _from_csv(text: bytes, kinds: dict[str, str]) -> pd.DataFrame:
    missing = {name: ["nan"] for name, kind in kinds.items() if kind == "float"}
    return pd.read_csv(io.BytesIO(text), dtype=kinds, keep_default_na=False, na_values=missing)


def _effects(study: Study, tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Effect]]:
    effects = study.effects(tables)
    missing = [claim.id for claim in study.claims if not effects.get(claim.id)]
    if missing:
        raise ValueError(
            f"effects of {study.chapter} lack the claim {missing[0]!r}; they have {', '.join(effects) or 'none'}"
        )
    return effects


def _probe(study: Study) -> pd.DataFrame:
    probe = study.probe()
    if list(probe.columns) != PROBE:
        raise ValueError(f"probe of {study.chapter} has the columns {list(probe.columns)}; expected {PROBE}")
    if probe.empty or probe.duplicated(["run", "step", "metric"]).any():
        raise ValueError(f"probe of {study.chapter} is empty or repeats a row; expected distinct (run, step, metric)")
    if not np.isfinite(probe[["value", "atol", "rtol"]].to_numpy(float)).all():
        raise ValueError(f"probe of {study.chapter} holds a value or tolerance that is not finite")
    # eight digits are finer than any tolerance in use, and keep the last bits of a machine out of the record
    return probe.assign(value=[float(f"{x:.8g}") for x in probe["value"]], run=probe["run"].astype(str))


def probe_rows(table: pd.DataFrame) -> pd.DataFrame:
    """A probe out of an ensemble's tidy table: one row a run, step and metric, with tolerances.

    The first 20 steps are held tightly: they change with the data, the weights, the batches and the update. What
    comes later is held loosely, because another processor's rounding grows along the way.
    """
    early = table["step"] <= 20
    accuracy = table["metric"].str.contains("accuracy")
    condition = ", " + table["condition"].astype(str) if "condition" in table else ""
    rows = table[["step", "metric", "value"]].assign(
        run=table["arm"] + condition + ", seed " + table["seed"].astype(str),
        atol=np.where(accuracy, np.where(early, 0.005, 0.03), 1e-4),
        rtol=np.where(early, 1e-3, 0.1),
    )
    return rows[PROBE]


def _records(table: pd.DataFrame) -> list[dict]:
    return [{key: None if value != value else value for key, value in row.items()} for row in table.to_dict("records")]


def _effect_to_json(effect: Effect) -> dict:
    fields = {
        name: getattr(effect, name)
        for name in ("treatment", "control", "metric", "mean", "low", "high", "confidence", "n")
    }
    return fields | {"differences": {str(int(seed)): float(value) for seed, value in effect.differences.items()}}


def _effect_from_json(stored: dict) -> Effect:
    seeds = {int(seed): value for seed, value in stored["differences"].items()}
    return Effect(**{**stored, "differences": pd.Series(seeds, name="value", dtype=float).sort_index()})


def _device() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    threads = f", {torch.get_num_threads()} threads" if torch is not None else ""
    return f"CPU: {names[0] if names else platform.machine()}{threads}"


def _versions() -> dict[str, str | None]:
    versions = {"python": platform.python_version()}
    for name in ("torch", "triton", "numpy", "scipy", "pandas", "adamw-book"):
        try:
            versions[name.replace("-", "_")] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name.replace("-", "_")] = None
    return versions


# ---- reading


def read(claim_id: str, root: Path | str | None = None) -> Record:
    """The record of a claim. Raises FileNotFoundError where there is none, and says how to make it."""
    root = find_root() if root is None else Path(root)
    path = root / f"{claim_id}.json"
    if not path.exists():
        raise FileNotFoundError(
            f"no record of claim {claim_id!r} in {root}; {_remedy(claim_id.split('.')[0])} to make it"
        )
    stored = json.loads(path.read_text(encoding="utf-8"))
    return Record(
        claim=Claim(**stored["claim"]),
        effects={regime: _effect_from_json(effect) for regime, effect in stored["effects"].items()},
        winners=pd.DataFrame(stored["winners"]),
        probe=pd.DataFrame(stored["probe"], columns=PROBE),
        files=stored["tables"],
        root=root,
        **{
            key: stored[key]
            for key in (
                "chapter",
                "settings",
                "fingerprint",
                "verdicts",
                "verdict",
                "device",
                "versions",
                "date",
                "seconds",
            )
        },
    )


def read_all(root: Path | str | None = None) -> list[Record]:
    """Every record of the ledger, sorted by claim."""
    root = find_root() if root is None else Path(root)
    return [read(path.stem, root) for path in sorted(root.glob("*.json"))]


def leaves(recorded: Effect, live: Effect) -> str:
    """One sentence: does the mean of a live run lie in the recorded interval?"""
    mean, _ = live.parts()
    _, interval = recorded.parts()
    where = "lies in" if recorded.low <= live.mean <= recorded.high else "leaves"
    interval = f"{100 * recorded.confidence:g}% interval, {interval} over {recorded.n} seeds"
    return f"The live mean, {mean} over {live.n} seeds, {where} the recorded {interval}."


# ---- checking


def check(study: Study, root: Path | str | None = None) -> list[str]:
    """What is wrong with the records of a study: one sentence a problem, with the command that mends it; none is []."""
    root = find_root() if root is None else Path(root)
    settings = _plain(study.settings, study.chapter)
    records, found = {}, {}
    for claim in study.claims:
        try:
            records[claim.id] = read(claim.id, root)
        except FileNotFoundError:
            found[claim.id] = ["there is no record"]
        except (ValueError, KeyError, TypeError) as error:
            found[claim.id] = [f"the record cannot be read ({type(error).__name__}: {error})"]
    for path in _orphans(study, root):
        found[path.stem] = ["the chapter no longer makes it, but has its record"]
    probe = _probe(study) if records else None
    for claim in study.claims:
        if claim.id in records:
            record = records[claim.id]
            parts = (
                _stale(study, claim, settings, record),
                _contradicted(study, claim, record),
                _drifted(probe, record.probe),
            )
            found[claim.id] = [what for part in parts for what in part]
    problems: dict[str, list[str]] = {}
    for claim_id, whats in found.items():
        for what in whats:
            problems.setdefault(what, []).append(claim_id)
    remedy = _remedy(study.chapter)
    return [f"claim{'s' * (len(ids) > 1)} {', '.join(ids)}: {what}; {remedy}" for what, ids in problems.items()]


def _stale(study: Study, claim: Claim, settings: dict, record: Record) -> Iterator[str]:
    for field, now in asdict(claim).items():
        was = getattr(record.claim, field)
        if now != was:
            yield f"{field} is {now!r} in the chapter and {was!r} in the record"
    if record.chapter != study.chapter:
        yield f"the chapter is {study.chapter!r} and {record.chapter!r} in the record"
    if record.fingerprint != fingerprint(record.settings):
        yield "the record's settings were edited: they do not have the fingerprint that it states"
    if record.settings != settings:
        changed = [
            key for key in sorted(settings.keys() | record.settings) if settings.get(key) != record.settings.get(key)
        ]
        yield f"the protocol changed since the record was made (settings: {', '.join(changed)})"


def _contradicted(study: Study, claim: Claim, record: Record) -> Iterator[str]:
    for regime, effect in record.effects.items():
        was = record.verdicts.get(regime)
        if was != judge(effect, claim.smallest_effect):
            yield f"the verdict {was!r} under {regime!r} does not follow from the recorded effect {effect}"
    intact = True
    for name, entry in record.files.items():
        path = record.root / entry["file"]
        try:
            text = gzip.decompress(path.read_bytes())
        except (OSError, EOFError) as error:
            intact = False
            yield f"table {name!r} cannot be read ({type(error).__name__}: {entry['file']})"
            continue
        if hashlib.sha256(text).hexdigest() != entry["sha256"]:
            intact = False
            yield f"table {name!r} ({entry['file']}) was edited: its sha256 differs from the recorded one"
    if not intact:
        return
    if _records(record.tables["winners"] if "winners" in record.tables else pd.DataFrame()) != _records(record.winners):
        yield "the recorded winners are not those of the table 'winners'"
    effects = _effects(study, record.tables)[claim.id]
    if effects.keys() != record.effects.keys():
        yield f"the tables give the regimes {', '.join(effects)}; the record has {', '.join(record.effects)}"
        return
    for regime, effect in effects.items():
        if what := _unlike(effect, record.effects[regime]):
            was = record.effects[regime]
            yield f"under {regime!r} the tables give {effect} and the record {was} (different {what})"
    if (now := verdict(claim, effects)) != record.verdict:
        yield f"the tables give the verdict {now!r} and the record {record.verdict!r}"


def _unlike(new: Effect, old: Effect) -> str:
    """The first field in which two effects differ, or "". Bounds may move by 5% of the interval's width: the resamples
    of another version of numpy or scipy are as good as these."""
    for field in ("treatment", "control", "metric", "confidence", "n"):
        if getattr(new, field) != getattr(old, field):
            return field
    size = 1e-6 * new.differences.abs().max() + 1e-12
    if not new.differences.index.equals(old.differences.index) or not np.allclose(
        new.differences, old.differences, rtol=0, atol=size
    ):
        return "differences"
    if not math.isclose(new.mean, old.mean, rel_tol=0, abs_tol=size):
        return "mean"
    slack = 0.05 * (new.high - new.low) + size
    return "interval" if max(abs(new.low - old.low), abs(new.high - old.high)) > slack else ""


def _drifted(now: pd.DataFrame, was: pd.DataFrame) -> Iterator[str]:
    both = was.merge(now, on=["run", "step", "metric"], how="outer", suffixes=("", "_now"), indicator="side")
    for row in both.itertuples():
        where = f"the probe's run {row.run!r} at step {row.step}, {row.metric!r},"
        if row.side != "both":
            yield f"{where} is only in the {'record' if row.side == 'left_only' else 'chapter'}"
        elif (row.atol, row.rtol) != (row.atol_now, row.rtol_now):
            changed = f"atol {row.atol_now:g} and rtol {row.rtol_now:g}"
            yield f"{where} has {changed}, and atol {row.atol:g} and rtol {row.rtol:g} in the record"
        elif not abs(row.value_now - row.value) <= row.atol + row.rtol * abs(row.value):
            allowed = f"{row.atol + row.rtol * abs(row.value):.2g}"
            yield f"{where} gives {row.value_now:.8g}, and {row.value:.8g} in the record (allowed: ±{allowed})"
