"""The full protocol: tuned comparisons, decay as a dose, longer training; the effects that the claims ask for."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from adamw_book.ensemble import train
from adamw_book.evidence import CONFIGURATION, EdgeWarning, Effect, grid, paired, retrain, select, three_arms
from adamw_book.ledger import Study, probe_rows
from adamw_book.untrained import untrained

from .settings import CONDITIONS, KEPT, MINORITY, SETTINGS, THRESHOLD, TUNING_METRICS, WEIGHTS
from .tasks import BIASES, COUNTS, LOSSES, MODELS, judge_on_test, prior, task

JUDGED_DOSE = SETTINGS["long"]["weight_decay"][-1]  # the λ of the fixed recipes that the claims are about


def arms(values: Mapping[str, list[float]]) -> dict[str, dict[str, list[float]]]:
    """The three arms of one condition, from its entry in ``SETTINGS["grids"]``; equal numbers of configurations."""
    return three_arms(values, values["lr_adam"])


def condition(name: str) -> tuple[str, str, str, Callable[[str], bool]]:
    """Data set, model, loss and ``decays`` of a name such as "digit 8 · MLP · class-weighted", which may end in
    " · decayed bias"."""
    parts = name.removesuffix(" · decayed bias").split(" · ")
    if len(parts) != 3 or any(part not in known for part, known in zip(parts, (COUNTS, MODELS, LOSSES), strict=True)):
        raise ValueError(f"name: {name!r} is no condition; choose from {', '.join(map(repr, CONDITIONS))}")
    return *parts, BIASES["decayed bias" if name.endswith(" · decayed bias") else "undecayed bias"]


def tune(name: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Every configuration of one condition (a name in ``CONDITIONS``) on the tuning seeds: a tidy table of the
    validation metrics."""
    data, model, loss, decays = condition(name)
    if name not in CONDITIONS:
        raise ValueError(f"name: {name!r} has no grid; choose from {', '.join(map(repr, CONDITIONS))}")
    runs = grid(arms(SETTINGS["grids"][name.removesuffix(" · decayed bias")]), seeds)
    runs = runs.assign(schedule=SETTINGS["schedule"])
    table = train(
        task(data, model, loss), runs, steps=SETTINGS["steps"], batch_size=SETTINGS["batch_size"],
        evaluate=("validation",), decays=decays,
    ).table  # fmt: skip
    table["metric"] = table["metric"].str.removeprefix("validation ")
    return table[table["metric"].isin(TUNING_METRICS)].drop(columns="schedule").assign(condition=name)


def winners_of(tuning: pd.DataFrame) -> pd.DataFrame:
    """The winners of each condition for each tuning metric: the columns of ``select``, condition and ``tuned_for``.

    Edges are recorded in the column ``edge`` for every tuning metric, and warned of for those on which a claim rests.
    """
    chosen = []
    for metric in TUNING_METRICS:
        with warnings.catch_warnings():
            if metric not in TUNING_METRICS[:2]:
                warnings.simplefilter("ignore", EdgeWarning)
            chosen.append(select(tuning, metric, by="condition").assign(tuned_for=metric))
    return pd.concat(chosen, ignore_index=True)


def evaluate(name: str, runs: pd.DataFrame, steps: int | None = None, device: str | None = None) -> pd.DataFrame:
    """Train ``runs`` under one condition and judge them on test data: a tidy table of the metrics in ``KEPT``.

    Configurations that several rows share (chosen by several tuning metrics) are trained once.
    """
    data, model, loss, decays = condition(name)
    keys = ["arm", *CONFIGURATION, "seed"]
    once = runs[keys].drop_duplicates(ignore_index=True).assign(schedule=SETTINGS["schedule"])
    found = task(data, model, loss)
    result = train(
        found, once, steps=SETTINGS["steps"] if steps is None else steps, batch_size=SETTINGS["batch_size"],
        evaluate=(), decays=decays, keep_parameters=True, device=device,
    )  # fmt: skip
    table = judge_on_test(found, result, prior(data))
    table = table[table["metric"].str.removeprefix("test ").isin(KEPT)].drop(columns="schedule")
    return runs.merge(table, on=keys).assign(condition=name)


def retrained(
    name: str,
    winners: pd.DataFrame,
    seeds: Sequence[int],
    tuned_for: Sequence[str] = TUNING_METRICS,
    only: Sequence[str] | None = None,
) -> pd.DataFrame:
    """One condition's winners on fresh seeds, for the given tuning metrics and arms (by default all of them)."""
    own = winners[(winners["condition"] == name) & winners["tuned_for"].isin(tuned_for)]
    own = own if only is None else own[own["arm"].isin(only)]
    runs = retrain(own.drop(columns="condition"), seeds, used=SETTINGS["tuning_seeds"])
    return evaluate(name, runs)


def doses(data: str, model: str, seeds: Sequence[int]) -> pd.DataFrame:
    """AdamW at one learning rate, decay as a dose, in three ways: without class weights, with and without a decayed
    bias, and with them. The column ``training`` says which; otherwise as :func:`evaluate`."""
    dose = SETTINGS["dose"]
    runs = grid({"AdamW": {"lr": [dose["lr"]], "weight_decay": dose["weight_decay"]}}, seeds)
    ways = {
        "no class weights": ("unweighted", ""),
        "no class weights, decayed bias": ("unweighted", " · decayed bias"),
        "class weights": ("class-weighted", ""),
    }
    tables = []
    for way, (loss, bias) in ways.items():
        name = f"{data} · {model} · {loss}"
        tables.append(evaluate(name + bias, runs, dose["steps"]).assign(training=way, data=data))
    return pd.concat(tables, ignore_index=True)


def fixed_recipe(
    name: str, seeds: Sequence[int], *, lr: float, weight_decay: Sequence[float], steps: int
) -> pd.DataFrame:
    """One learning rate, no tuning: AdamW with each decay, the arm "Adam" where it is 0. As :func:`evaluate`."""
    runs = grid({"AdamW": {"lr": [lr], "weight_decay": weight_decay}}, seeds)
    runs["arm"] = np.where(runs["weight_decay"] == 0, "Adam", "AdamW")
    return evaluate(name, runs, steps)


def run() -> dict[str, pd.DataFrame]:
    """The full protocol: every condition tuned and its winners judged on fresh seeds; doses; long training."""
    seeds = SETTINGS["evaluation_seeds"]
    tuning = pd.concat([tune(name, SETTINGS["tuning_seeds"]) for name in CONDITIONS], ignore_index=True)
    winners = winners_of(tuning)
    # every tuning metric for the usual treatment of the bias, the two that the claims need for the other
    chosen_for = {name: TUNING_METRICS if name.endswith(LOSSES) else TUNING_METRICS[:2] for name in CONDITIONS}
    evaluation = [retrained(name, winners, seeds, chosen_for[name]) for name in CONDITIONS]
    dose = [doses(data, "MLP", seeds[: SETTINGS["dose"]["seeds"]]) for data in COUNTS]
    names = [f"{data} · MLP · {loss}" for data in COUNTS for loss in LOSSES]
    long = [fixed_recipe(name, seeds, **SETTINGS["long"]) for name in names]
    keys = ["condition", "arm", *CONFIGURATION, "metric"]
    return {
        # means over the tuning seeds: what the choice was made on
        "tuning": tuning.groupby(keys, sort=False)["value"].mean().reset_index(),
        "winners": winners,
        "evaluation": pd.concat(evaluation, ignore_index=True),
        "dose": pd.concat(dose, ignore_index=True),
        "long": pd.concat(long, ignore_index=True),
    }


def _tuned(evaluation: pd.DataFrame, name: str, tuned_for: str = SETTINGS["tuning_metric"]) -> pd.DataFrame:
    return evaluation[(evaluation["condition"] == name) & (evaluation["tuned_for"] == tuned_for)]


def against_moved_threshold(evaluation: pd.DataFrame, key: str) -> Effect:
    """AdamW with class weights, tuned by the chapter's rule, minus Adam without weights, tuned for and judged at a
    moved threshold. ``key``: data set and model, such as "digit 8 · MLP"."""
    metric = THRESHOLD.metric
    weighted = _tuned(evaluation, f"{key} · class-weighted")
    moved = _tuned(evaluation, f"{key} · unweighted", "best balanced accuracy")
    weighted = weighted[(weighted["arm"] == "AdamW") & (weighted["metric"] == metric)]
    moved = moved[(moved["arm"] == "Adam") & (moved["metric"] == f"{metric}, threshold moved")]
    differences = weighted.set_index("seed")["value"] - moved.set_index("seed")["value"]
    return Effect.of(differences, "AdamW with class weights", "Adam with a moved threshold", metric)


def _label(name: str) -> str:
    """A condition's name without what all regimes of a claim have in common."""
    return ", ".join(part for part in name.split(" · ") if part not in (*LOSSES, "MLP"))


def effects(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Effect]]:
    """The claims' effects, from the tables of :func:`run` or of :func:`headline`: the regimes that they hold."""
    evaluation, dose, long = (tables[name] for name in ("evaluation", "dose", "long"))
    found = {claim.id: {} for claim in (MINORITY, WEIGHTS, THRESHOLD)}
    have = set(evaluation["condition"])
    for name in CONDITIONS:
        if name in have and "unweighted" in name:
            part = _tuned(evaluation, name)
            found[MINORITY.id][f"{_label(name)}, tuned"] = paired(part, "AdamW", "Adam", MINORITY.metric)
        if name in have and "class-weighted" in name:
            for control in ("Adam", "Adam + L2"):
                part = _tuned(evaluation, name)
                if control in set(part["arm"]):
                    regime = f"{_label(name)}, tuned, against {control}"
                    found[WEIGHTS.id][regime] = paired(part, "AdamW", control, WEIGHTS.metric)
    short = dose[(dose["training"] == "no class weights") & dose["weight_decay"].isin([0.0, JUDGED_DOSE])]
    short = short.assign(arm=np.where(short["weight_decay"] == 0, "Adam", "AdamW"))
    for name, part in short.groupby("condition", sort=False):
        regime = f"{_label(name)}, λ = {JUDGED_DOSE:g}, {SETTINGS['dose']['steps']} steps"
        found[MINORITY.id][regime] = paired(part, "AdamW", "Adam", MINORITY.metric)
    for name, part in long.groupby("condition", sort=False):
        claim = MINORITY if "unweighted" in name else WEIGHTS
        regime = f"{_label(name)}, λ = {JUDGED_DOSE:g}, {SETTINGS['long']['steps']} steps"
        found[claim.id][regime] = paired(part, "AdamW", "Adam", claim.metric)
    for key in (f"{data} · MLP" for data in COUNTS):
        if {f"{key} · {loss}" for loss in LOSSES} <= have:
            found[THRESHOLD.id][_label(key)] = against_moved_threshold(evaluation, key)
    return found


def headline(tables: Mapping[str, pd.DataFrame], seeds: Sequence[int]) -> dict[str, dict[str, Effect]]:
    """The headline regimes on fresh seeds: the recorded winners with undecayed biases, and the fixed recipes of
    ordinary length, trained again."""
    winners, evaluation = tables["winners"], []
    for data in COUNTS:
        rules = (SETTINGS["tuning_metric"], "best balanced accuracy")  # the second for the moved threshold
        name = f"{data} · MLP · unweighted"
        evaluation.append(retrained(name, winners, seeds, rules, ("AdamW", "Adam")))
        evaluation.append(retrained(f"{data} · MLP · class-weighted", winners, seeds, rules[:1]))
    dose = {"lr": SETTINGS["dose"]["lr"], "weight_decay": [0.0, JUDGED_DOSE], "steps": SETTINGS["dose"]["steps"]}
    short = [fixed_recipe(f"{data} · MLP · unweighted", seeds, **dose) for data in COUNTS]
    return effects(
        {
            "evaluation": pd.concat(evaluation, ignore_index=True),
            "dose": pd.concat(short, ignore_index=True).assign(training="no class weights"),
            "long": pd.DataFrame(columns=["condition"]),  # too long to be run live
        }
    )


def probe() -> pd.DataFrame:
    """One run of each arm on both data sets, with and without class weights, and every task untrained, on the CPU."""
    runs = grid(
        {
            "AdamW": {"lr": [0.01], "weight_decay": [0.3]},
            "Adam + L2": {"lr": [0.01], "l2": [0.003]},
            "Adam": {"lr": [0.01]},
        },
        [0],
    ).assign(schedule=SETTINGS["schedule"])
    tables = []
    for name in ("digit 8 · MLP · unweighted", "breast cancer · MLP · class-weighted"):
        data, model, loss, decays = condition(name)
        table = train(
            task(data, model, loss), runs, steps=200, batch_size=SETTINGS["batch_size"], record=(1, 20, 200),
            evaluate=("train", "validation"), decays=decays, device="cpu",
        ).table  # fmt: skip
        tables.append(table.assign(condition=name))
    rows = probe_rows(pd.concat(tables, ignore_index=True))
    # shares of a few positives move in jumps: held as loosely as an accuracy is
    jumps = rows["metric"].str.contains("recall|calibration|AUC")
    rows["atol"] = rows["atol"].where(~jumps, np.where(rows["step"] <= 20, 0.05, 0.15))
    parts = {name: condition(name) for name in CONDITIONS}
    tasks = {name: task(data, model, loss) for name, (data, model, loss, _) in parts.items()}
    return pd.concat([rows, untrained(tasks, {name: part[3] for name, part in parts.items()})], ignore_index=True)


STUDY = Study(
    "robustness/class_imbalance",
    (MINORITY, WEIGHTS, THRESHOLD),
    SETTINGS,
    run,
    effects,
    probe,
    headline,
)
