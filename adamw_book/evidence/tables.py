"""Tables of runs: which columns they need, and the rows of one metric at one step."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence

import pandas as pd

CONFIGURATION = ("lr", "weight_decay", "l2")


def need(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise ValueError for a column that the table lacks."""
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"the table lacks the column {missing[0]!r}; it has {some(table.columns)}")


def filled(rows: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise ValueError for a row without a value in one of the columns: it would be left out, or paired, in silence."""
    for name in columns:
        if missing := int(rows[name].isna().sum()):
            raise ValueError(f"{missing} of {len(rows)} rows have no {name!r}; every run needs one")


def rows_at(table: pd.DataFrame, metric: str, step: int | None, columns: Sequence[str]) -> pd.DataFrame:
    """The rows of one metric at one step (None: the last one recorded for it). Raises ValueError where there are none,
    and for a row that does not say its step, arm, configuration or seed."""
    need(table, [*columns, "step", "metric", "value"])
    rows = table[table["metric"] == metric]
    if rows.empty:
        raise ValueError(f"the table has no metric {metric!r}; it has {some(table['metric'].unique())}")
    filled(rows, [name for name in ("step", "arm", *CONFIGURATION, "seed") if name in ("step", *columns)])
    steps = rows["step"].unique()
    step = steps.max() if step is None else step
    if step not in steps:
        raise ValueError(f"step is {step}; {metric!r} was recorded at {some(sorted(steps))}")
    return rows[rows["step"] == step]


def some(values: Iterable, limit: int = 8) -> str:
    """The first few values, for a message, and how many there are."""
    values = [value.item() if hasattr(value, "item") else value for value in values]
    more = f", ... ({len(values)} in all)" if len(values) > limit else ""
    return ", ".join(map(repr, values[:limit])) + more


def whole_seeds(seeds: Iterable[int]) -> list[int]:
    """The seeds as a list. Raises ValueError for none, a repeated one and one that is no whole number."""
    seeds = [whole_seed(seed) for seed in seeds]
    if not seeds:
        raise ValueError("seeds is empty; expected at least one seed")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds repeat a value: {seeds}; expected distinct seeds")
    return seeds


def whole_seed(seed: int) -> int:
    """A seed as an int; ValueError where it is no whole number."""
    try:
        return operator.index(seed)
    except TypeError:
        raise ValueError(f"seeds hold {seed!r}; expected whole numbers") from None
