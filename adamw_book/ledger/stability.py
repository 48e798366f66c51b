"""Whether verdicts hang on the seeds: a study's primary comparisons again, tuning included, on others; and what came
of it, which `stability.csv` keeps beside the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from ..evidence import decide
from .files import find_root, from_csv, replace_files, to_csv
from .records import Record, read, read_all
from .study import Study, remedy
from .writing import device

MASTERS = (1, 2, 3)
TUNING_SEEDS, SEEDS = 6, 12
COLUMNS = ["claim", "regime", "master", "effect", "verdict"]
KEPT = [*COLUMNS, "fingerprint", "device", "date"]


def master_seeds(master: int, count: int = SEEDS) -> list[int]:
    """The ``count`` seeds of one master seed: no other master's, and none that a protocol has used."""
    if not isinstance(master, int) or master < 1:
        raise ValueError(f"master is {master!r}; expected a whole number from 1")
    if not isinstance(count, int) or not 1 <= count <= 10_000:
        raise ValueError(f"count is {count!r}; expected a whole number from 1 to 10000")
    return [10_000 * master + i for i in range(count)]


def recorded(study: Study, root: Path | str | None = None) -> dict[str, Record]:
    """The records that a study's primary comparisons are held against, by claim. Raises FileNotFoundError and
    ValueError as `read` does, and ValueError for a record without the primary comparison."""
    found = {}
    for claim in study.claims:
        record = found[claim.id] = read(claim.id, root)
        if claim.primary not in record.effects:
            raise ValueError(
                f"the record of {claim.id} has no effect under {claim.primary!r}, its primary regime; "
                f"{remedy(study.chapter)} to make it anew"
            )
    return found


def stability(study: Study, masters: Sequence[int] = MASTERS, root: Path | str | None = None) -> pd.DataFrame:
    """The primary comparisons of a study under several master seeds, each tuned again on 6 seeds and evaluated on 12.

    One row a claim and master seed: claim, regime, master ("recorded", then the master seeds as text), effect (as
    text), verdict. Raises ValueError for no master seed, and where a claim or its primary comparison is missing; what
    the records lack (`recorded`) is told before anything is run.
    """
    if not masters:
        raise ValueError("masters is empty; expected at least one whole number from 1")
    records, found = recorded(study, root), {}
    for master in masters:
        seeds = master_seeds(master, SEEDS + TUNING_SEEDS)
        found[str(master)] = study.retuned(seeds[SEEDS:], seeds[:SEEDS])
    return _beside(records, study, found)


def again(study: Study, root: Path | str | None = None) -> pd.DataFrame:
    """The primary comparisons of a study on this machine, with the record's own seeds: rows as those of `stability`, of
    "recorded" and "here"."""
    records = recorded(study, root)
    return _beside(records, study, {"here": study.retuned()})


def _beside(records: Mapping[str, Record], study: Study, found: Mapping[str, Mapping]) -> pd.DataFrame:
    rows = []
    for claim in study.claims:
        record, regime = records[claim.id], claim.primary
        effects = {"recorded": record.effects[regime]}
        for run, claims in found.items():
            if regime not in claims.get(claim.id, {}):
                raise ValueError(f"retuned of {study.chapter} lacks {regime!r}, the primary regime of {claim.id}")
            effects[run] = claims[claim.id][regime]
        rows += [(claim.id, regime, run, e.text(), decide(e, record.claim)) for run, e in effects.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def kept(table: pd.DataFrame) -> dict[str, bool]:
    """For each claim of `stability`'s table whether every master seed gave the recorded verdict, or left it undecided:
    a smaller design may be too small to decide, but must not decide otherwise. Of `again`'s, whether it is the same."""
    found = {}
    for claim_id, rows in table.groupby("claim"):
        recorded = rows.loc[rows["master"] == "recorded", "verdict"].iloc[0]
        allowed = [recorded] if "here" in set(rows["master"]) else [recorded, "undecided"]
        found[claim_id] = bool(rows["verdict"].isin(allowed).all())
    return found


def write_stability(table: pd.DataFrame, root: Path | str | None = None) -> Path:
    """Keep what `stability` found, in the place of what was found about the same claims before; return the file."""
    path = (find_root() if root is None else Path(root)) / "stability.csv"
    prints = {claim: read(claim, root).fingerprint for claim in table["claim"].unique()}
    rows = table[table["master"] != "recorded"]
    rows = rows.assign(fingerprint=rows["claim"].map(prints), device=device(), date=f"{datetime.now(UTC).date()}")
    before = _stored(path)
    rows = pd.concat([before[~before["claim"].isin(prints)], rows[KEPT]])
    replace_files({path: to_csv(rows.sort_values(["claim", "master"]))})
    return path


def read_stability(root: Path | str | None = None) -> pd.DataFrame:
    """What `stability` found about the records as they are now, rows as its own; none where a protocol has changed."""
    stored, found = _stored((find_root() if root is None else Path(root)) / "stability.csv"), []
    for record in read_all(root):
        rows = stored[(stored["claim"] == record.claim.id) & (stored["fingerprint"] == record.fingerprint)]
        if len(rows):
            regime, effect = record.claim.primary, record.effects[record.claim.primary]
            found.append((record.claim.id, regime, "recorded", effect.text(), record.verdict))
            found += rows[COLUMNS].itertuples(index=False, name=None)
    return pd.DataFrame(found, columns=COLUMNS)


def _stored(path: Path) -> pd.DataFrame:
    return from_csv(path.read_bytes(), dict.fromkeys(KEPT, "str")) if path.exists() else pd.DataFrame(columns=KEPT)
