"""What weight decay will do in a run, from the run's own optimizer, model and schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.optim import Optimizer

from .course import at_peak, course, sizes
from .decay import Decay, decay_of
from .finding import Finding, grave, of_course, sort
from .groups import of_parameters
from .parameters import KINDS, Parameter, parameters_of, torch_optimizer
from .rates import made_for, rates, unwrapped, value_of
from .training_arguments import is_training_arguments, run_of

SHOWN = ["group", "kind", "share", "lr", "weight_decay", "decay", "timescale_steps", "remaining"]
WELL = "nothing found that would need to be mended"


@dataclass(frozen=True, repr=False)
class Audit:
    """``table``: one row a group and kind of parameter; ``findings``: the worst first. Printed, it is a report."""

    table: pd.DataFrame
    findings: list[Finding]

    def as_dict(self) -> dict:
        """As JSON holds it: {"groups": rows of the table, "findings": …}, None for what has no meaning."""
        rows = [
            {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in row.items()
            }
            for row in self.table.to_dict("records")
        ]
        return {"groups": rows, "findings": [finding.as_dict() for finding in self.findings]}

    def __repr__(self) -> str:
        lines = [self.table[SHOWN].to_string(index=False, float_format="{:.4g}".format)]
        for finding in self.findings:
            fix = finding.fix.replace("\n", "\n    ")
            lines += ["", f"{finding.severity}: {finding.text}"] + ([f"    {fix}"] if fix else [])
        return "\n".join(lines if grave(self.findings) else [*lines, "", WELL])

    def _repr_html_(self) -> str:
        """For a notebook: the same table and findings, in the page's own colours."""
        short = {"weight_decay": "weight decay", "timescale_steps": "1/(ηλ)", "remaining": "left"}
        table = self.table[SHOWN].rename(columns=short)
        lines = [table.to_html(index=False, border=0, justify="left", float_format="{:.3g}".format)]
        for finding in self.findings:
            fix = f"<pre>{escape(finding.fix)}</pre>" if finding.fix else ""
            lines.append(f"<div><strong>{finding.severity}</strong>: {escape(finding.text)}{fix}</div>")
        return "\n".join(lines if grave(self.findings) else [*lines, f"<div>{WELL}</div>"])


def audit(
    optimizer,
    model: nn.Module | None = None,
    steps: int | None = None,
    schedule=None,
    batch_size: int | None = None,
    dataset_size: int | None = None,
    *,
    warmup: int = 0,
    final: float = 0.0,
    schedule_interval: int = 1,
) -> Audit:
    """Audit the ``steps`` optimizer steps that lie ahead. Nothing that is passed in is changed.

    Args:
        optimizer: any torch optimizer, or Hugging Face's ``TrainingArguments`` (steps and schedule are then its own).
        model: tells kinds of parameters, ties, and parameters that no group holds. Where several optimizers share a
            model, the part that this one trains.
        steps: optimizer steps from now on.
        schedule: a torch scheduler (a copy is stepped, every ``schedule_interval`` optimizer steps), a name in
            :data:`adamw_book.schedules.SCHEDULES` (with ``warmup`` steps and a ``final`` share of the rate), a function
            of the step or a sequence of ``steps`` factors of the groups' rates. None: the rates stay.
        batch_size, dataset_size: examples a step and in the data set, for timescales in epochs.

    The columns of the table are the keys of :func:`adamw_book.diagnose.audit_numbers`, at the largest η_tλ_t, and
    ``decay``: "decoupled", "coupled", "coupled, adaptive" (as Adam's), "ignored", "none" or "other", as steps of a copy
    show it. Of a coupled decay only ``comparable_l2`` (its own coefficient) and ``comparable_decay`` are known, the
    latter where the optimizer holds √v̂.

    Raises ValueError for groups without parameters, coefficients that cannot be, a schedule that does not fit, and an
    optimizer of which no copy can be stepped; TypeError for what is no optimizer.
    """
    described = is_training_arguments(optimizer)
    epochs_per_step = None if described else sizes(batch_size, dataset_size)
    if described:
        run = run_of(optimizer, model, steps, batch_size, dataset_size, schedule is None)
        optimizer, steps, epochs_per_step = run.optimizer, run.steps, run.epochs_per_step
        schedule, warmup = (run.schedule, run.warmup) if schedule is None else (schedule, warmup)
    optimizer = torch_optimizer(optimizer)
    if not described:  # else the groups are a stand-in, and a scheduler is the Trainer's
        made_for(optimizer, schedule)
    lrs, decays = rates(optimizer, steps, schedule, warmup, final, schedule_interval)
    parameters = parameters_of(optimizer, model)
    # The coupled penalties beside weight_decay, as adamw_book.AdamW takes them
    penalties = [
        0.0 if group.get("l2") is None else value_of(group, "l2", f"in group {i}")
        for i, group in enumerate(optimizer.param_groups)
    ]
    how = _how(optimizer, lrs, decays, penalties)
    total = sum(p.tensor.numel() for p in parameters)
    rows, findings = [], []
    for i, group in enumerate(optimizer.param_groups):
        beta1 = _beta1(group)
        kinds = sorted({p.kind for p in parameters if i in p.groups}, key=KINDS.index)
        for kind in kinds:
            those = [p for p in parameters if i in p.groups and p.kind == kind]
            row = _row(those, lrs[i], decays[i], how[i], beta1, epochs_per_step)
            coefficient = decays[i].max() or penalties[i]
            row["comparable_l2"], row["comparable_decay"] = _comparable(optimizer, group, those, coefficient, how[i])
            rows.append({"group": i, "kind": kind, "tensors": len(those), **_count(those, total), **row})
        if lrs[i].max() == 0:
            findings.append(
                Finding(
                    "no_rate",
                    "error",
                    f"lr is 0 at every step in group {i}: nothing moves or decays.",
                    f'optimizer.param_groups[{i}]["lr"] = 1e-3  # or a schedule that begins above 0',
                )
            )
            continue
        # Who is exempt from decay stands in a group of its own, as it should.
        if how[i].how == "decoupled" and decays[i].max() > 0:
            shares = _shares(lrs[i], decays[i], how[i])
            findings += of_course(
                course(lrs[i], shares), float(decays[i].max()), float(shares.max()), beta1, f" in group {i}"
            )
        findings += _of_decay(optimizer, i, how[i], lrs[i], decays[i], penalties[i], rows)
    findings += _of_schedule(optimizer, lrs, schedule, schedule_interval)
    largest = [float(d.max()) for d in decays]
    matrices = [p for p in parameters if p.groups and p.kind in ("matrix", "flat") and p.tensor.requires_grad]
    if not any(largest[i] or penalties[i] for p in matrices or parameters for i in p.groups):
        findings += of_course({}, 0.0, 0.0, 0.9, " for every matrix" if matrices and any(largest) else "")
    rounded = [_rounded(*those) for those in zip(optimizer.param_groups, lrs, decays, how, strict=True)]
    at_random = [bool(group.get("stochastic_rounding")) for group in optimizer.param_groups]

    def share(p: Parameter) -> float:
        return max(math.inf if at_random[i] and p.tensor.dtype == torch.bfloat16 else rounded[i] for i in p.groups)

    peaks = {f"{lr.max():g}" for lr in lrs}
    lr = peaks.pop() if len(peaks) == 1 else "…"
    findings += of_parameters(parameters, lambda p: max(largest[i] for i in p.groups), share, lr, model is not None)
    return Audit(pd.DataFrame(rows), sort(findings))


def _beta1(group: dict) -> float:
    return float(group["betas"][0]) if "betas" in group else float(group.get("momentum", 0.0))


def _how(optimizer: Optimizer, lrs: np.ndarray, decays: np.ndarray, penalties: list[float]) -> list[Decay]:
    """How each group's decay acts; groups that differ in nothing but the size of their coefficients are tried once."""
    tried, found = {}, []
    for i, group in enumerate(optimizer.param_groups):
        axes = max(p.ndim for p in group["params"])
        rest = {key: str(value) for key, value in group.items() if key not in ("params", "param_names", "weight_decay")}
        key = (axes, lrs[i].max(), *sorted(rest.items()))
        if decays[i].max() == 0 or lrs[i].max() == 0:
            found.append(Decay("coupled, adaptive" if penalties[i] and lrs[i].max() else "none"))
            continue
        if key not in tried:
            tried[key] = decay_of(optimizer, group, float(lrs[i].max()), axes)
        found.append(tried[key])
    return found


def _shares(lr: np.ndarray, weight_decay: np.ndarray, how: Decay) -> np.ndarray:
    shares = how.factor * weight_decay
    with np.errstate(over="ignore"):
        return np.where(lr > 0, shares, 0.0) if how.lr_independent else shares * lr


def _rounded(group: dict, lr: np.ndarray, weight_decay: np.ndarray, how: Decay) -> float:
    """The largest share of a weight that a group's decay takes in a step; inf where it takes no share of its own."""
    if how.how not in ("decoupled", "coupled"):
        return math.inf
    share = float(_shares(lr, weight_decay, how).max())
    if how.how == "decoupled":
        return share
    return share / (1 - _beta1(group)) if _beta1(group) < 1 else math.inf  # a momentum gathers it


def _count(those: list[Parameter], total: int) -> dict:
    number = sum(p.tensor.numel() for p in those)
    return {"parameters": number, "share": number / total if total else 0.0}


def _row(those, lr: np.ndarray, weight_decay: np.ndarray, how: Decay, beta1: float, epochs_per_step) -> dict:
    """What decay does to one group's parameters of a kind; nan for a decay that acts through the gradient."""
    row = {"lr": float(lr.max()), "weight_decay": float(weight_decay.max()), "decay": how.how}
    shares = np.zeros_like(lr) if how.how in ("none", "ignored") else _shares(lr, weight_decay, how)
    found = course(lr, shares, epochs_per_step) | at_peak(
        float(lr[shares.argmax()]), float(shares.max()), beta1, epochs_per_step
    )
    if how.how not in ("decoupled", "ignored", "none"):
        found = {key: value if key in ("epochs", "warmup_steps") else None for key, value in found.items()}
    return row | {key: math.nan if value is None else value for key, value in found.items()}


def _comparable(optimizer: Optimizer, group: dict, those: list[Parameter], weight_decay: float, how: Decay):
    """The coupled penalty and the decoupled decay that pull as hard, at the median √v̂ that the optimizer holds."""
    if how.how in ("none", "ignored", "other"):
        return math.nan, math.nan
    state, roots = optimizer.__dict__["state"], []  # not through a property that takes a look for a change
    beta2 = float(group["betas"][1]) if "betas" in group else math.nan
    for p in those:
        own = state.get(p.tensor, {})
        if isinstance(own.get("exp_avg_sq"), torch.Tensor) and float(own.get("step", 0)) > 0:
            corrected = own["exp_avg_sq"].detach().float() / (1 - beta2 ** float(own["step"]))
            roots.append(corrected.sqrt().flatten().cpu())
    root = float(torch.cat(roots).median()) + float(group.get("eps", 0.0)) if roots else math.nan
    if how.how == "decoupled":
        return weight_decay * root, weight_decay
    return weight_decay, weight_decay / root if root else math.nan


def _of_decay(
    optimizer: Optimizer, i: int, how: Decay, lr: np.ndarray, weight_decay: np.ndarray, penalty: float, rows
) -> list[Finding]:
    """What is to be said of a decay that is not AdamW's, or not alone."""
    name, peak = type(optimizer).__name__, float(weight_decay.max())
    if how.how == "coupled, adaptive":
        which = "weight_decay" if peak else "l2"
        comparable = next((r["comparable_decay"] for r in rows if r["group"] == i), math.nan)
        value = f"{comparable:.2g}" if comparable == comparable else "0.1"
        return [
            Finding(
                "coupled",
                "warning" if peak else "note",
                f"{name}'s {which} in group {i} is an L2 penalty on the loss, not AdamW's decay: it is divided by "
                "the running size of the gradient, so that it pulls hardest where gradients are small.",
                f"optimizer = torch.optim.AdamW(params, lr={lr.max():g}, weight_decay={value})",
            )
        ]
    if how.how == "other":
        return [Finding("neither", "note", f"{name}'s weight_decay in group {i} takes no share of the weights that "
                        "grows with it, nor does it go through the gradient: what it does is not told.")]  # fmt: skip
    if how.how == "ignored":
        return [Finding("ignored", "warning", f"{name} takes weight_decay={peak:g} in group {i} and does not decay.",
                        f"optimizer = torch.optim.AdamW(params, lr={lr.max():g}, weight_decay={peak:g})")]  # fmt: skip
    found = []
    if how.lr_independent:
        found.append(Finding("lr_independent", "note", f"The decay in group {i} does not follow lr: a step takes the "
                             f"share {how.factor * peak:.3g} itself, which torch's AdamW would take with weight_decay="
                             f"{how.factor * peak / lr.max():.3g}."))  # fmt: skip
    if how.cautious:
        found.append(Finding("cautious", "note", f"{name}'s decay in group {i} is cautious: it takes nothing of a "
                             "weight that the gradient step leads away from 0. What is told here of decay alone is the "
                             "most that it does."))  # fmt: skip
    if penalty and how.how == "decoupled":
        found.append(Finding("penalty_beside", "note", f"{name} takes l2={penalty:g} in group {i} beside its "
                             "weight_decay: an L2 penalty on the loss, which pulls through the gradient. What is told "
                             "here is of weight_decay alone."))  # fmt: skip
    return found


def _of_schedule(optimizer: Optimizer, lrs: np.ndarray, schedule, interval: int) -> list[Finding]:
    """A rate that is still high where it should have come down, or comes up again at the end."""
    if schedule is None or lrs.shape[1] <= interval or lrs.max() == 0:
        return []
    group = lrs.max(1).argmax()
    rate, (scheduler, times) = lrs[group], unwrapped(schedule)
    low, end = rate[rate.argmax() :].min(), 100 * rate[-1] / rate.max()
    # The steps of the scheduler: those that it has taken, and those of the run.
    length = getattr(scheduler, "last_epoch", 0) + -(-len(rate) // interval) * (times or 1)
    if (
        rate[-1] < rate[-1 - interval]
        and rate[-1] > 0.5 * rate.max()
        and _falls_on(optimizer, group, len(rate), schedule, interval)
    ):
        known = _has_length(scheduler)
        severity, where = ("warning", "") if known else ("note", "if it is meant to end near 0, ")
        text = (
            f"The run ends at {end:.3g}% of the peak rate while it falls: {where}its schedule is longer than the run."
        )
        fix = f"total_steps={length}  # steps of the scheduler"
        return [Finding("schedule_unfinished", severity, text, fix)]
    if rate[-1] > low + 0.1 * rate.max():
        text = (
            f"The rate falls to {100 * low / rate.max():.3g}% of its peak and is at {end:.3g}% at the end. Restarts do "
            "that, and a cosine that is stepped beyond its length."
        )
        return [Finding("rate_rises_again", "note", text, f"T_max={length}")]
    return []


def _falls_on(optimizer: Optimizer, group: int, steps: int, schedule, interval: int) -> bool:
    """Whether a group's rate still falls after the run. A name and a list of factors end with it."""
    if isinstance(schedule, str):
        return False
    try:
        rate = rates(optimizer, steps + 2 * interval, schedule, interval=interval)[0][group]
    except ValueError:  # it is over
        return False
    return rate[-1] < rate[-1 - interval]


def _has_length(scheduler) -> bool:
    """Whether a torch scheduler says how long it is, or each does of those that it is made of."""
    parts = getattr(scheduler, "_schedulers", [])
    if parts:
        return all(map(_has_length, parts))
    told = [getattr(function, "keywords", {}) for function in getattr(scheduler, "lr_lambdas", [])]  # transformers'
    return any(hasattr(scheduler, name) for name in ("T_max", "total_iters", "total_steps")) or any(
        "num_training_steps" in keywords for keywords in told
    )
