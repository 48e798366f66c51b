"""One claim's record, as it is read from its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

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
    """One sentence: does the mean of a live run lie in the recorded interval?"""
    mean, _ = live.parts()
    _, interval = recorded.parts()
    where = "lies in" if recorded.low <= live.mean <= recorded.high else "leaves"
    interval = f"{100 * recorded.confidence:g}% interval, {interval} over {recorded.n} seeds"
    return f"The live mean, {mean} over {live.n} seeds, {where} the recorded {interval}."
