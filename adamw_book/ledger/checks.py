"""Whether a study's records still hold, and what to run where they do not."""

from __future__ import annotations

import csv
import gzip
import hashlib
import math
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from ..evidence import Claim, Effect, judgements, verdict
from .files import find_root, rows_of
from .records import Record, others, read
from .study import Study, checked_effects, checked_probe, fingerprint, plain_settings, remedy


def check(study: Study, root: Path | str | None = None) -> list[str]:
    """What is wrong with the records of a study: one sentence a problem, with the command that mends it; none is []."""
    root = find_root() if root is None else Path(root)
    settings = plain_settings(study.settings, study.chapter)
    records, found = {}, {}
    for claim in study.claims:
        try:
            records[claim.id] = read(claim.id, root)
        except FileNotFoundError:
            found[claim.id] = ["there is no record"]
        except ValueError as error:
            found[claim.id] = [f"{claim.id}.json cannot be read ({type(error.__cause__).__name__}: {error.__cause__})"]
    strangers = others(study, root)
    for path, chapter in strangers.items():
        if chapter == study.chapter:
            found[path.stem] = ["the chapter no longer makes it, but has its record"]
    probe, failed = None, []
    if records:
        try:
            probe = checked_probe(study)
        except Exception as error:  # whatever a chapter's code may raise: it is the finding
            failed = [f"the probe fails ({type(error).__name__}: {error})"]
    for claim in study.claims:
        if claim.id in records:
            record = records[claim.id]
            parts = (
                _stale(study, claim, settings, record),
                _contradicted(study, claim, record),
                failed if probe is None else _drifted(probe, record.probe),
            )
            found[claim.id] = [what for part in parts for what in part]
    problems: dict[str, list[str]] = {}
    for claim_id, whats in found.items():
        for what in whats:
            problems.setdefault(what, []).append(claim_id)
    command = remedy(study.chapter)
    lines = [f"claim{'s' * (len(ids) > 1)} {', '.join(ids)}: {what}; {command}" for what, ids in problems.items()]
    unknown = [path.name for path, chapter in strangers.items() if chapter is None]
    return lines + [f"{name} is no record of any chapter; remove it, or make it anew" for name in unknown]


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
    judged = judgements(claim, record.effects)
    for regime, effect in record.effects.items():
        was = record.verdicts.get(regime)
        if was != judged[regime]:
            yield f"the verdict {was!r} under {regime!r} does not follow from the recorded effect {effect}"
    intact = True
    for name, entry in record.files.items():
        path = record.root / entry["file"]
        try:
            text = gzip.decompress(path.read_bytes())
        except (OSError, EOFError, ValueError, zlib.error) as error:
            intact = False
            yield f"table {name!r} cannot be read ({type(error).__name__}: {entry['file']})"
            continue
        if hashlib.sha256(text).hexdigest() != entry["sha256"]:
            intact = False
            yield f"table {name!r} ({entry['file']}) was edited or is another run's: its sha256 is not the recorded one"
        elif (columns := next(csv.reader([text.split(b"\n", 1)[0].decode()]), [])) != list(entry["columns"]):
            yield f"table {name!r} has the columns {', '.join(columns)}; the record has {', '.join(entry['columns'])}"
    if not intact:
        return
    try:
        winners = record.tables["winners"] if "winners" in record.tables else pd.DataFrame()
        if rows_of(winners) != rows_of(record.winners):
            yield "the recorded winners are not those of the table 'winners'"
        effects = checked_effects(study, record.tables)[claim.id]
    except Exception as error:  # tables of an older protocol may lack anything
        yield f"the effects cannot be computed from the recorded tables ({type(error).__name__}: {error})"
        return
    if not effects.keys() == record.effects.keys() == record.verdicts.keys():
        has = f"{', '.join(record.effects)} and verdicts under {', '.join(record.verdicts)}"
        yield f"the tables give the regimes {', '.join(effects)}; the record has {has}"
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
    for field in ("treatment", "control", "metric", "confidence", "n", "freedom", "undecayed"):
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
    for part in ("by_seeds", "by_tuning"):
        ours, theirs = ([*(getattr(effect, part) or ()), effect.low, effect.high] for effect in (new, old))
        if len(ours) != len(theirs) or not np.allclose(ours, theirs, rtol=0, atol=slack):
            return "interval"
    return ""


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
