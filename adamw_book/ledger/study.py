"""A chapter's full protocol, and what it hands over: settings, effects and probe, checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..evidence import Claim, Effect

PROBE = ["run", "step", "metric", "value", "atol", "rtol"]


class Unavailable(RuntimeError):
    """What a study needs and this machine lacks, such as a GPU; the message says what would do."""


@dataclass(frozen=True)
class Study:
    """A chapter's full protocol.

    chapter: folder and name, for instance "generalization/overfitting", and a third part for another study of the same
    chapter. claims: what is tested. settings: everything that defines the protocol (ranges, seeds, steps, sizes), as
    JSON would hold it. run() runs it and returns named tables; the table "winners", where there is one, holds the
    chosen configurations. effects(tables) returns for each claim's id {regime: Effect}. probe() recomputes a few of the
    protocol's runs on a CPU: a table with the columns run, step, metric, value, atol, rtol.

    run takes ``part``, which keeps what each of its parts has found (`Unfinished`). retuned(tuning seeds, evaluation
    seeds) makes the claims' primary comparisons again from the start, tuning included, by default on the record's own
    seeds, and returns {claim's id: {its primary regime: Effect}}.
    """

    chapter: str
    claims: tuple[Claim, ...]
    settings: dict
    run: Callable[..., dict[str, pd.DataFrame]]
    effects: Callable[[Mapping[str, pd.DataFrame]], dict[str, dict[str, Effect]]]
    probe: Callable[[], pd.DataFrame]
    retuned: Callable[..., dict[str, dict[str, Effect]]]

    @property
    def name(self) -> str:
        """The last part of the chapter's name: what `make evidence CHAPTER=…` takes."""
        return self.chapter.rsplit("/", 1)[-1]


def probe_rows(table: pd.DataFrame, atol: float | None = None, rtol: float = 0.0) -> pd.DataFrame:
    """A probe out of a tidy table (arm, seed, step, metric, value, and condition where there is one): one row a run,
    step and metric, with tolerances.

    By default those that suit an ensemble: the first 20 steps are held tightly, for they change with the data, the
    weights, the batches and the update. What comes later is held loosely, because another processor's rounding grows
    along the way. For anything else give atol, and rtol.
    """
    early = table["step"] <= 20
    accuracy = table["metric"].str.contains("accuracy")
    condition = ", " + table["condition"].astype(str) if "condition" in table else ""
    rows = table[["step", "metric", "value"]].assign(
        run=table["arm"] + condition + ", seed " + table["seed"].astype(str),
        atol=np.where(accuracy, np.where(early, 0.005, 0.03), 1e-4) if atol is None else atol,
        rtol=np.where(early, 1e-3, 0.1) if atol is None else rtol,
    )
    return rows[PROBE]


def fingerprint(settings: dict) -> str:
    """Sixteen hexadecimal digits that change whenever the settings of a protocol do."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


def plain_settings(settings: dict, chapter: str) -> dict:
    """The settings as they come back from JSON. Raises ValueError where JSON cannot hold them."""
    try:
        return json.loads(json.dumps(settings, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"settings of {chapter} are not JSON ({error}); expected numbers, texts, lists and dicts"
        ) from error


def checked_effects(study: Study, tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Effect]]:
    """The study's effects. Raises ValueError where a claim has none."""
    effects = study.effects(tables)
    missing = [claim.id for claim in study.claims if not effects.get(claim.id)]
    if missing:
        raise ValueError(
            f"effects of {study.chapter} lack the claim {missing[0]!r}; they have {', '.join(effects) or 'none'}"
        )
    return effects


def checked_probe(study: Study) -> pd.DataFrame:
    """The study's probe, recomputed now. Raises ValueError for other columns, repeated rows and values not finite."""
    probe = study.probe()
    if list(probe.columns) != PROBE:
        raise ValueError(f"probe of {study.chapter} has the columns {list(probe.columns)}; expected {PROBE}")
    if probe.empty or probe.duplicated(["run", "step", "metric"]).any():
        raise ValueError(f"probe of {study.chapter} is empty or repeats a row; expected distinct (run, step, metric)")
    if not np.isfinite(probe[["value", "atol", "rtol"]].to_numpy(float)).all():
        raise ValueError(f"probe of {study.chapter} holds a value or tolerance that is not finite")
    # eight digits are finer than any tolerance in use, and keep the last bits of a machine out of the record
    return probe.assign(value=[float(f"{x:.8g}") for x in probe["value"]], run=probe["run"].astype(str))


def remedy(chapter: str) -> str:
    """What to run to make the chapter's records."""
    return f"run `make evidence CHAPTER={chapter.rsplit('/', 1)[-1]}`"
