"""What a picture needs of a table: its columns, and the rows of one metric."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


def need(table: pd.DataFrame, columns: Sequence[str], where: str) -> None:
    """Raise ValueError for a column that the table lacks, or an empty table; `where` names it."""
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"{where} lacks the column {missing[0]!r}; it has {', '.join(map(repr, table.columns))}")
    if table.empty:
        raise ValueError(f"{where} is empty; expected at least one row")


def rows_at(table: pd.DataFrame, metric: str, step: int | None, columns: Sequence[str], where: str) -> pd.DataFrame:
    """The rows of one metric at one step (None: the last one recorded for it)."""
    need(table, ["metric", "step", *columns], where)
    rows = table[table["metric"] == metric]
    if rows.empty:
        known = ", ".join(map(repr, table["metric"].unique()))
        raise ValueError(f"{where} has no metric {metric!r}; it has {known}")
    step = rows["step"].max() if step is None else step
    if not (rows["step"] == step).any():
        raise ValueError(f"step is {step}; {metric!r} was recorded at {sorted(rows['step'].unique().tolist())}")
    return rows[rows["step"] == step]


def one_metric(table: pd.DataFrame, metric: str | None, columns: Sequence[str]) -> pd.DataFrame:
    """The rows of one metric at all steps; None will do where the table holds only one, or does not name it."""
    need(table, columns, "the table")
    if "metric" not in table.columns:
        return table.assign(metric=metric or "value")
    rows = table if metric is None else table[table["metric"] == metric]
    found = rows["metric"].unique().tolist()
    if len(found) != 1:
        known = table["metric"].unique().tolist()
        raise ValueError(f"metric is {metric!r} and the table has {known}; expected the name of one of them")
    return rows
