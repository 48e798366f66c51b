"""One claim's record, as it is read from its file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from scipy import stats

from ..evidence import Claim, Effect
from .files import Tables, find_root
from .study import PROBE, Study, remedy


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
        return Tables(self.root, self.files)


def read(claim_id: str, root: Path | str | None = None) -> Record:
    """The record of a claim. Raises FileNotFoundError where there is none, and says how to make it."""
    root = find_root() if root is None else Path(root)
    path = root / f"{claim_id}.json"
    if not path.exists():
        raise FileNotFoundError(
            f"no record of claim {claim_id!r} in {root}; {remedy(claim_id.split('.')[0])} to make it"
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


def effect_to_json(effect: Effect) -> dict:
    """An effect as JSON holds it, its differences by seed."""
    fields = {
        name: getattr(effect, name)
        for name in ("treatment", "control", "metric", "mean", "low", "high", "confidence", "n")
    }
    return fields | {"differences": {str(int(seed)): float(value) for seed, value in effect.differences.items()}}


def _effect_from_json(stored: dict) -> Effect:
    seeds = {int(seed): value for seed, value in stored["differences"].items()}
    return Effect(**{**stored, "differences": pd.Series(seeds, name="value", dtype=float).sort_index()})


def read_all(root: Path | str | None = None) -> list[Record]:
    """Every record of the ledger, sorted by claim."""
    root = find_root() if root is None else Path(root)
    return [read(path.stem, root) for path in sorted(root.glob("*.json"))]


def orphans(study: Study, root: Path) -> list[Path]:
    """Records that say they are of this chapter, without a claim in it."""
    ours = {claim.id for claim in study.claims}
    others = (path for path in sorted(root.glob("*.json")) if path.stem not in ours)
    return [path for path in others if f'"chapter": {json.dumps(study.chapter)}' in path.read_text(encoding="utf-8")]


def leaves(recorded: Effect, live: Effect) -> str:
    """Does the mean of a live run lie in the recorded interval? And if it does not, how often would chance alone do
    that: for normal means, P(|z| > 1.96 / √(1 + n_recorded / n_live)), since both means vary."""
    mean, _ = live.parts()
    _, interval = recorded.parts()
    interval = f"{100 * recorded.confidence:g}% interval, {interval} over {recorded.n} seeds"
    if recorded.low <= live.mean <= recorded.high:
        return f"The live mean, {mean} over {live.n} seeds, lies in the recorded {interval}."
    quantile = stats.norm.ppf((1 + recorded.confidence) / 2)
    chance = 2 * stats.norm.sf(quantile / math.sqrt(1 + recorded.n / live.n))
    often = f"chance alone does that to about {100 * chance:.0f}% of such means"
    return f"The live mean, {mean} over {live.n} seeds, leaves the recorded {interval} ({often})."
