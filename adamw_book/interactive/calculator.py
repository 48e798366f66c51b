"""The audit of a run's numbers as a form: what `adamw-book audit` prints, computed on the page."""

from __future__ import annotations

from html import escape

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from adamw_book import plots
from adamw_book.diagnose import audit_numbers
from adamw_book.diagnose.auditing.command import text
from adamw_book.diagnose.auditing.course import FALLING, MOST_STEPS, named_factors
from adamw_book.diagnose.auditing.finding import FORGOTTEN, IDLE, SEVERITIES, TEMPLATES
from adamw_book.display import Shown
from adamw_book.plots.theme import styled
from adamw_book.schedules import SCHEDULES

from .page import assembled

FIELDS = {  # argument of `audit_numbers`: its label, the keyboard on a phone
    "lr": ("peak learning rate η", "decimal"),
    "weight_decay": ("weight decay λ", "decimal"),
    "steps": ("steps", "numeric"),
    "schedule": ("schedule", ""),
    "warmup": ("warm-up steps", "numeric"),
    "final": ("share of η at the end", "decimal"),
    "batch_size": ("batch size", "numeric"),
    "dataset_size": ("data set size", "numeric"),
}
OUTPUTS = {  # key of the audit: its label, what follows the number
    "remaining": ("left of the initial weights", ""),
    "timescale_steps": ("timescale 1/(ηλ)", " steps"),
    "timescale_epochs": ("timescale in epochs", " epochs"),
    "timescales_in_run": ("timescales in the run", ""),
    "half_life_steps": ("half-life at the peak rate", " steps"),
    "half_left_after": ("half is left after", " steps"),
    "warmup_share": ("decay before the peak rate", " of it"),
    "noise_floor": ("noise floor √(η/2λ)", ""),
    "rotation_per_step": ("rotation a step", " rad"),
}
BETA1 = 0.9
POINTS = 200  # of the course that is drawn


def course_left(lr: float, weight_decay: float, steps: int, schedule: str, warmup: int, final: float) -> tuple:
    """The steps at which the course is drawn, 0 and the last among them, and what is left of a weight there."""
    at = np.unique(np.linspace(0, steps, min(steps, POINTS) + 1).round().astype(int))
    left = np.cumprod(1 - lr * named_factors(schedule, steps, warmup, final) * weight_decay)
    return at, np.concatenate([[1.0], left])[at]


def _still(found: dict) -> mpl.figure.Figure:
    names = ("lr", "weight_decay", "steps", "schedule", "warmup", "final")
    fig, ax = plt.subplots(figsize=(plots.WIDTH, 2.5))
    ax.plot(*course_left(*(found[name] for name in names)), color="#005F9E")
    ax.set(xlabel="step", ylabel="left by decay alone", ylim=(0, 1.03), xlim=(0, found["steps"]))
    ax.set_title(f"lr = {found['lr']:g}, λ = {found['weight_decay']:g}, {found['schedule']}", fontsize=11)
    return fig


def _field(name: str, label: str, keyboard: str, value: object) -> str:
    shown = "" if value is None or name == "schedule" else escape(f"{value:.15g}", quote=True)
    described = f'id="ID-{name}" name="{name}" aria-describedby="ID-{name}-wrong"'
    if name == "schedule":
        options = "".join(f"<option{' selected' if known == value else ''}>{known}</option>" for known in SCHEDULES)
        control = f"<select {described}>{options}</select>"
    else:
        control = f'<input type="text" inputmode="{keyboard}" autocomplete="off" {described} value="{shown}">'
    return (
        f'<div class="field"><label for="ID-{name}">{label}</label>{control}'
        f'<p class="wrong" id="ID-{name}-wrong"></p></div>'
    )


@styled
def calculator(
    *,
    lr: float = 3e-4,
    weight_decay: float = 0.1,
    steps: int = 100_000,
    schedule: str = "cosine",
    warmup: int = 2000,
    final: float = 0.0,
    batch_size: int | None = None,
    dataset_size: int | None = None,
) -> Shown:
    """A form that says of a run what :func:`adamw_book.diagnose.audit_numbers` says, with β₁ = 0.9, as it is filled in.

    The arguments, those of ``audit_numbers``, are what it holds at first; what that gives is shown without scripts and
    in print. Raises as ``audit_numbers`` does.
    """
    values = {"lr": lr, "weight_decay": weight_decay, "steps": steps, "schedule": schedule, "warmup": warmup}
    values |= {"final": final, "batch_size": batch_size, "dataset_size": dataset_size}
    found = audit_numbers(**values, beta1=BETA1)
    fields = "".join(_field(name, *FIELDS[name], value) for name, value in values.items())
    rows = "".join(
        f'<tr data-key="{key}"><th scope="row">{label}</th><td></td></tr>' for key, (label, _) in OUTPUTS.items()
    )
    live = (
        f'<form class="fields" novalidate>{fields}</form><div class="beside"><svg class="panel" role="img"></svg>'
        '<table><caption>What decay does in this run</caption><thead><tr><th scope="col">quantity</th>'
        f'<th scope="col">value</th></tr></thead><tbody>{rows}</tbody></table></div><ul class="findings"></ul>'
    )
    data = {
        "falling": FALLING,
        "most": MOST_STEPS,
        "idle": IDLE,
        "forgotten": FORGOTTEN,
        "severities": SEVERITIES,
        "templates": TEMPLATES,
        "units": {key: unit for key, (_, unit) in OUTPUTS.items()},
        "beta1": BETA1,
        "points": POINTS,
    }
    alt = (
        f"What decay alone leaves of an initial weight, against the step, from 1 to {found['remaining']:.3g}; peak "
        f"rate {lr:g}, decay {weight_decay:g}, {steps:,} steps, schedule {schedule}. The text below holds the audit."
    )
    return assembled(
        "calculator", "An audit of your run", live, data, _still(found), alt, f"<pre>{escape(text(found))}</pre>"
    )
