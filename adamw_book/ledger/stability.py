"""Whether verdicts hang on the seeds: a study's primary comparisons again, tuning included, on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..evidence import decide
from .records import Record, read
from .study import Study, remedy

MASTERS = (1, 2, 3)
TUNING_SEEDS, SEEDS = 6, 12


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
    return pd.DataFrame(rows, columns=["claim", "regime", "master", "effect", "verdict"])


def kept(table: pd.DataFrame) -> dict[str, bool]:
    """For each claim of `stability`'s table whether every master seed gave the recorded verdict, or left it undecided:
    a smaller design may be too small to decide, but must not decide otherwise. Of `again`'s, whether it is the same."""
    found = {}
    for claim_id, rows in table.groupby("claim"):
        recorded = rows.loc[rows["master"] == "recorded", "verdict"].iloc[0]
        allowed = [recorded] if "here" in set(rows["master"]) else [recorded, "undecided"]
        found[claim_id] = bool(rows["verdict"].isin(allowed).all())
    return found
