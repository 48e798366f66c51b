"""Whether verdicts hang on the seeds: a study's primary comparisons again, tuning included, on others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..evidence import judgements, verdict
from .records import read
from .study import Study

MASTERS = (1, 2, 3)
TUNING_SEEDS, SEEDS = 6, 12


def master_seeds(master: int, count: int = SEEDS) -> list[int]:
    """The ``count`` seeds of one master seed: no other master's, and none that a protocol has used."""
    if not isinstance(master, int) or master < 1:
        raise ValueError(f"master is {master!r}; expected a whole number from 1")
    if not isinstance(count, int) or not 1 <= count <= 10_000:
        raise ValueError(f"count is {count!r}; expected a whole number from 1 to 10000")
    return [10_000 * master + i for i in range(count)]


def stability(study: Study, masters: Sequence[int] = MASTERS, root: Path | str | None = None) -> pd.DataFrame:
    """The primary comparisons of a study under several master seeds: one row a claim, regime and master seed.

    Each is tuned again on 6 seeds and evaluated on 12 (`Study.retuned`), or only evaluated again where the study offers
    no more (`Study.headline`). Columns claim, regime, master ("recorded", then the master seeds as text), effect (as
    text), verdict (of the regime), overall (of the claim, over these regimes). The recorded rows are of the same
    regimes.

    Raises ValueError for no master seed, and where a claim is missing, or a regime that the record does not have.
    """
    if not masters:
        raise ValueError("masters is empty; expected at least one whole number from 1")
    records = {claim.id: read(claim.id, root) for claim in study.claims}
    found = {}
    for master in masters:
        seeds = master_seeds(master, SEEDS + TUNING_SEEDS)
        if study.retuned is not None:
            found[str(master)] = study.retuned(seeds[SEEDS:], seeds[:SEEDS])
        else:
            found[str(master)] = study.headline(next(iter(records.values())).tables, seeds[:SEEDS])
    rows = []
    for claim_id, record in records.items():
        regimes = list(next(iter(found.values())).get(claim_id, {}))
        unknown = [regime for regime in regimes if regime not in record.effects]
        if unknown or not regimes:
            what = f"the regime {unknown[0]!r}, which the record does not have" if unknown else "no regime"
            raise ValueError(f"headline of {study.chapter} has {what} of {claim_id}; expected {list(record.effects)}")
        recorded = {regime: record.effects[regime] for regime in regimes}
        for master, effects in {"recorded": recorded, **{m: f[claim_id] for m, f in found.items()}}.items():
            verdicts = judgements(record.claim, effects)
            overall = verdict(record.claim, effects)
            rows += [(claim_id, r, master, e.text(), verdicts[r], overall) for r, e in effects.items()]
    return pd.DataFrame(rows, columns=["claim", "regime", "master", "effect", "verdict", "overall"])


def kept(table: pd.DataFrame) -> dict[str, bool]:
    """For each claim of `stability`'s table whether every master seed gave the recorded overall verdict, or left it
    undecided: a smaller design may be too small to decide, but must not decide otherwise."""
    found = {}
    for claim_id, rows in table.groupby("claim", sort=False):
        recorded = rows.loc[rows["master"] == "recorded", "overall"].iloc[0]
        found[claim_id] = bool(rows["overall"].isin([recorded, "undecided"]).all())
    return found
