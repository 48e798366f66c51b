"""One claim's record, as it is read from its file, and the shape that it must have."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from reprlib import repr as short
from typing import Any

import pandas as pd
from scipy import stats

from ..evidence import Claim, Effect
from .files import Tables, find_root
from .study import PROBE, Study, remedy

_NUMBER = int | float
# What JSON holds in a record: a type, {name: …} (... for any name), [… for each], or {the texts that may stand there}.
_SHAPE = {
    "claim": {
        "id": str,
        "tag": str | None,
        "statement": str,
        "source": str,
        "criterion": str,
        "metric": str,
        "smallest_effect": _NUMBER,
        "primary": str,
        "dividing": str,
        "arithmetic": bool,
    },
    "verdict": str,
    "verdicts": {...: str},
    "effects": {
        ...: {
            "treatment": str,
            "control": str,
            "metric": str,
            "mean": _NUMBER,
            "low": _NUMBER,
            "high": _NUMBER,
            "confidence": _NUMBER,
            "n": int,
            "freedom": int | None,
            "by_seeds": [_NUMBER],
            "by_tuning": [_NUMBER],
            "undecayed": [str],
            "differences": {...: _NUMBER},
        }
    },
    "chapter": str,
    "settings": dict,
    "fingerprint": str,
    "tables": {...: {"file": str, "sha256": str, "columns": {...: {"int", "float", "bool", "str"}}}},
    "winners": [dict],
    "probe": [{"run": str, "step": int, "metric": str, "value": _NUMBER, "atol": _NUMBER, "rtol": _NUMBER}],
    "device": str,
    "versions": dict.fromkeys(("python", "torch", "triton", "numpy", "scipy", "pandas", "adamw_book"), str | None),
    "date": str,
    "seconds": _NUMBER | None,
}


def _fits(value: Any, shape: Any, where: str) -> None:
    """Raise ValueError where a value from JSON lacks the shape, an entry of ``_SHAPE``."""
    if isinstance(shape, dict | list):
        if not isinstance(value, type(shape)):
            raise ValueError(f"{where} is {short(value)}; expected a {type(shape).__name__}")
        if isinstance(shape, list):
            shapes = dict.fromkeys(range(len(value)), shape[0])
        else:
            shapes = dict.fromkeys(value, shape[...]) if ... in shape else shape
        if isinstance(value, dict) and (wrong := sorted(value.keys() ^ shapes.keys())):
            found = "lacks" if wrong[0] in shapes else "has the unknown"
            raise ValueError(f"{where} {found} {wrong[0]!r}; expected {', '.join(shapes)}")
        for name, own in shapes.items():
            _fits(value[name], own, f"{where}[{name!r}]")
    elif isinstance(shape, set):
        if value not in sorted(shape):
            raise ValueError(f"{where} is {short(value)}; expected one of {', '.join(sorted(shape))}")
    elif (
        not isinstance(value, shape)
        or isinstance(value, bool) != (shape is bool)
        or isinstance(value, int)
        and abs(value) >= 2**63
    ):
        raise ValueError(f"{where} is {short(value)}; expected {getattr(shape, '__name__', shape)}")


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

    @property
    def page(self) -> str:
        """The page that tells of it: the chapter without the name of a study within it."""
        return "/".join(self.chapter.split("/")[:2])

    @cached_property
    def tables(self) -> Mapping[str, pd.DataFrame]:
        return Tables(self.root, self.files)


def read(claim_id: str, root: Path | str | None = None) -> Record:
    """The record of a claim. Raises FileNotFoundError where there is none, ValueError where its file is no record, and
    says how to make it."""
    root = find_root() if root is None else Path(root)
    path, make = root / f"{claim_id}.json", f"{remedy(claim_id.split('.')[0])} to make it"
    if not path.exists():
        raise FileNotFoundError(f"no record of claim {claim_id!r} in {root}; {make}")
    try:
        return _from_json(json.loads(path.read_bytes()), root)
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path.name} is no record ({type(error).__name__}: {error}); {make}") from error


def _from_json(stored: Any, root: Path) -> Record:
    _fits(stored, _SHAPE, "record")
    json.dumps(stored, allow_nan=False)  # a number that is not finite stands nowhere in a record
    date.fromisoformat(stored["date"])
    own = ("chapter", "settings", "fingerprint", "verdicts", "verdict", "device", "versions", "date", "seconds")
    return Record(
        claim=Claim(**stored["claim"]),
        effects={regime: _effect_from_json(effect) for regime, effect in stored["effects"].items()},
        winners=pd.DataFrame(stored["winners"]),
        probe=pd.DataFrame(stored["probe"], columns=PROBE),
        files=stored["tables"],
        root=root,
        **{key: stored[key] for key in own},
    )


def effect_to_json(effect: Effect) -> dict:
    """An effect as JSON holds it, its differences by seed."""
    fields = {
        name: getattr(effect, name)
        for name in ("treatment", "control", "metric", "mean", "low", "high", "confidence", "n", "freedom")
    }
    fields |= {part: list(getattr(effect, part) or ()) for part in ("by_seeds", "by_tuning", "undecayed")}
    return fields | {"differences": {str(int(seed)): float(value) for seed, value in effect.differences.items()}}


def _effect_from_json(stored: dict) -> Effect:
    seeds = {int(seed): value for seed, value in stored["differences"].items()}
    parts = {part: tuple(stored[part]) or None for part in ("by_seeds", "by_tuning")}
    differences = pd.Series(seeds, name="value", dtype=float).sort_index()
    return Effect(**stored | parts | {"undecayed": tuple(stored["undecayed"]), "differences": differences})


def read_all(root: Path | str | None = None) -> list[Record]:
    """Every record of the ledger, sorted by claim."""
    root = find_root() if root is None else Path(root)
    return [read(path.stem, root) for path in sorted(root.glob("*.json"))]


def chapter_of(path: Path) -> str | None:
    """The chapter that a file says it is the record of; None where it says nothing of the kind."""
    try:
        stored = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    chapter = stored.get("chapter") if isinstance(stored, dict) else None
    return chapter if isinstance(chapter, str) else None


def others(study: Study, root: Path) -> dict[Path, str | None]:
    """The files beside the study's records, each with its `chapter_of`."""
    ours = {claim.id for claim in study.claims}
    return {path: chapter_of(path) for path in sorted(root.glob("*.json")) if path.stem not in ours}


def leaves(recorded: Effect, live: Effect) -> str:
    """Does the mean of a live run lie in the recorded interval? And if it does not, how often would other seeds alone
    do that, with which both means vary?

    Not so with tuning: where the recorded winners are trained again, what it adds to the interval does not move. Then
    the sentence says whose mean it is, which is not that of all that tuning might have chosen.
    """
    mean, _ = live.parts()
    _, interval = recorded.parts()
    interval = f"{100 * recorded.confidence:g}% interval, {interval} over {recorded.n} seeds"
    winners = recorded.by_seeds is not None and live.by_seeds is None
    said = f"The live mean{' of the winners' * winners}, {mean} over {live.n} seeds,"
    if recorded.low <= live.mean <= recorded.high:
        return f"{said} lies in the recorded {interval}."
    chance = _by_seeds_alone(recorded, live.n)
    often = f"about {100 * chance:.0f}%" if chance >= 0.01 else "fewer than 1%"
    whose = ", of all that tuning might choose" * winners
    return f"{said} leaves the recorded {interval}{whose} (other seeds alone do that to {often} of such means)."


def _by_seeds_alone(recorded: Effect, live: int) -> float:
    """How often a mean over so many other seeds leaves the recorded interval, if the true mean is the same."""
    n = recorded.n
    low, high = recorded.by_seeds or (recorded.low, recorded.high)
    quantile = stats.t.ppf((1 + recorded.confidence) / 2, n - 1)
    error = (high - low) / 2 / quantile * math.sqrt(1 + n / live)
    if error == 0:
        return 0.0
    return float(sum(stats.t.sf(abs(bound - recorded.mean) / error, n - 1) for bound in (recorded.low, recorded.high)))
