"""Recorded runs, dose by dose: a slider over every decay that a record holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt
from scipy.stats import t as student

from adamw_book import plots
from adamw_book.arms import ADAM_L2, ADAMW
from adamw_book.display import Shown
from adamw_book.plots.tables import need
from adamw_book.plots.theme import styled

from .page import assembled, choice, mark, slider

ARMS = {ADAMW.name: ("weight_decay", "λ"), ADAM_L2.name: ("l2", "ℓ")}
LOOKS = ({"color": "#005F9E", "marker": "o"}, {"color": "#D25A00", "marker": "s"})


def doses(table: pd.DataFrame, metrics: Sequence[str], conditions: Sequence[str]) -> dict[str, dict[str, list[dict]]]:
    """{condition: {arm: configurations}}, an arm's configurations by growing coefficient, then rate: ``dose`` (λ or ℓ),
    ``lr``, ``n`` (seeds) and ``values``, for each metric the mean over the seeds and half of its 95% interval
    (Student's t), rounded to four decimals.

    table: tidy, with the columns of a record's tables. Raises ``ValueError`` for a condition or metric that it lacks,
    and for a configuration of a single seed.
    """
    need(table, ["condition", "arm", "lr", "weight_decay", "l2", "metric", "value"], "the table")
    found: dict[str, dict[str, list[dict]]] = {}
    for condition in conditions:
        own = table[table["condition"] == condition]
        for arm, (coefficient, _) in ARMS.items():
            runs = own[(own["arm"] == arm) & own["metric"].isin(metrics)]
            if missing := [metric for metric in metrics if metric not in set(runs["metric"])]:
                raise ValueError(f"the table has no {missing[0]!r} of {arm}, {condition}; choose from its metrics")
            summary = runs.groupby([coefficient, "lr", "metric"])["value"].agg(["mean", "std", "count"])
            if summary["count"].min() < 2:
                raise ValueError(f"{arm}, {condition}: one seed for a configuration; an interval needs two or more")
            half = student.ppf(0.975, summary["count"] - 1) * summary["std"] / summary["count"] ** 0.5
            summary = summary.assign(half=half).round({"mean": 4, "half": 4})
            found.setdefault(condition, {})[arm] = [
                {
                    "dose": dose,
                    "lr": lr,
                    "n": int(rows["count"].min()),
                    "values": rows.loc[[(dose, lr, m) for m in metrics], ["mean", "half"]].to_numpy().tolist(),
                }
                for (dose, lr), rows in summary.groupby(level=[0, 1])
            ]
    return found


def _still(found: dict[str, list[dict]], labels: Sequence[str], title: str) -> mpl.figure.Figure:
    fig, panels = plt.subplots(1, 2, figsize=(1.35 * plots.WIDTH, 2.7), sharey=True)
    for ax, (arm, points) in zip(panels, found.items(), strict=True):
        line = {"linestyle": "-" if len({point["lr"] for point in points}) == 1 else "none"}
        for i, label in enumerate(labels):
            means = [point["values"][i][0] for point in points]
            ax.plot([p["dose"] for p in points], means, label=label, markersize=4, **LOOKS[i], **line)
        smallest = min(point["dose"] for point in points if point["dose"])
        ax.set_xscale("symlog", linthresh=smallest)
        ax.minorticks_off()
        ax.set(xlabel=f"{ARMS[arm][1]} of {arm}")
    panels[0].set(ylabel="accuracy (fraction)", title=title)
    fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


@styled
def by_dose(table: pd.DataFrame, metrics: Mapping[str, str], conditions: Sequence[str], source: str) -> Shown:
    """A slider over all decays with which a record's runs were trained, for AdamW and for Adam + L2.

    metrics: {metric of the table: what it is called}, two fractions; ★ stands at the best mean of the first.
    conditions: those to choose from, the first one shown first. source: where the runs come from, said below. Raises
    as :func:`doses` does, and for another number of metrics.
    """
    if len(metrics) != 2:
        raise ValueError(f"metrics: {list(metrics)}; two are needed")
    found, labels = doses(table, list(metrics), conditions), list(metrics.values())
    most = max(len(points) for arms in found.values() for points in arms.values())
    head = "".join(f'<th scope="col">{text}</th>' for text in ("accuracy of", "mean", "95% interval"))
    rows = "".join(
        f'<tr data-metric="{i}"><th scope="row">{mark(i)} {escape(label)}</th><td></td><td></td></tr>'
        for i, label in enumerate(labels)
    )
    live = (
        f'<div class="controls">{choice("condition", "network", list(found))}'
        f"{choice('arm', 'kind of decay', list(ARMS))}{slider('dose', 'decay', most, 0)}</div>"
        '<div class="beside"><svg class="panel" role="img"></svg><div><table><caption></caption><thead><tr>'
        f'{head}</tr></thead><tbody>{rows}</tbody></table><p class="remark"></p></div></div>'
    )
    symbols = {arm: symbol for arm, (_, symbol) in ARMS.items()}
    data = {"found": found, "labels": labels, "symbols": symbols, "source": source[:1].upper() + source[1:]}
    first = conditions[0]
    alt = (
        f"Accuracy of {labels[0]} and of {labels[1]} against the decay of AdamW (left) and of Adam + L2 (right), "
        f"{first}, {source}."
    ).replace("/", " by ")
    return assembled("records", "Recorded runs, decay by decay", live, data, _still(found[first], labels, first), alt)
