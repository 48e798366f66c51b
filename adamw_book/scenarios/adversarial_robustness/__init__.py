"""Robustness · adversarial robustness (tag 3096527): what decay does to margins, and what an attack finds.

`attack` holds projected gradient descent and the radius that it leaves, `closed_form` the exact answers that it is
checked against, `conditions` the trained networks, `plane` the picture in two dimensions. Attacks and closed forms take
any model and any data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch

from adamw_book.evidence import Claim, Effect, grid, paired
from adamw_book.ledger import Study, probe_rows
from adamw_book.untrained import untrained

from .attack import attack_radius, cross_entropy_loss, margin, margin_loss, pgd, robust, zero_gradients
from .closed_form import linear_margin, linear_radius, relu_margin
from .conditions import (
    CONDITIONS,
    DOSE,
    EPSILON,
    INK,
    MODELS,
    PIXELS,
    SETTINGS,
    adversarial,
    arms,
    choose,
    condition_task,
    each,
    evaluate,
    headline_winners,
    mean_radius,
    measure,
    stacked,
    task,
    tune,
    weights_by_ink,
)

__all__ = [
    "CONDITIONS",
    "DOSE",
    "EPSILON",
    "INK",
    "MODELS",
    "PIXELS",
    "SETTINGS",
    "STUDY",
    "adversarial",
    "arms",
    "attack_radius",
    "choose",
    "condition_task",
    "cross_entropy_loss",
    "dose",
    "each",
    "evaluate",
    "headline_winners",
    "linear_margin",
    "linear_radius",
    "margin",
    "margin_loss",
    "mean_radius",
    "measure",
    "pgd",
    "relu_margin",
    "rescaled",
    "robust",
    "stacked",
    "task",
    "tune",
    "weights_by_ink",
    "zero_gradients",
]

MARGIN = Claim(
    id="adversarial_robustness.margin",
    tag="3096527",
    statement="Shrinking the weights widens the distance from a test image to the decision boundary.",
    source="The geometric margin is inversely proportional to the norm of the weights, so AdamW's steady shrinkage "
    "widens the margin.",
    criterion="The mean L∞ radius over test images (the smallest change of all pixels that turns the prediction; 0 "
    "where it is wrong anyway) grows by at least 0.005 of the pixel range, with the 95% interval above zero, compared "
    "with the same run without shrinkage.",
    metric="mean L∞ radius",
    smallest_effect=0.005,
)
WITHSTANDS = Claim(
    id="adversarial_robustness.withstands",
    tag="3096527",
    statement="A network tuned with AdamW keeps more of its accuracy under projected gradient descent than one tuned "
    "with the same budget under Adam, or Adam + L2.",
    source="With the wider margin the model withstands attacks such as PGD better.",
    criterion="Robust accuracy on test data (L∞, ε = 0.1, margin loss, restarts) at least one percentage point higher, "
    "with the 95% interval above zero. Networks are tuned on clean validation accuracy; with adversarial training on "
    "robust validation accuracy.",
    metric="test robust accuracy",
    smallest_effect=0.01,
)


def rescaled(parameters: Mapping[str, torch.Tensor], factor: float) -> dict[str, torch.Tensor]:
    """Every layer's weights times ``factor``, and its biases so that the network stays the same function up to a
    constant: with ReLU, layer l's bias times factor^l, and the logits times factor^depth.

    parameters: weights and biases in the order of the layers, of one model or a stack. Raises ``ValueError`` for a
    factor that is not above 0, which would be another function.
    """
    if not 0 < factor < float("inf"):
        raise ValueError(f"factor: {factor}; a finite number above 0 is needed")
    depth, out = 0, {}
    for name, value in parameters.items():
        depth += name.endswith("weight")
        out[name] = value * factor ** (1 if name.endswith("weight") else depth)
    return out


def dose(
    seeds: Sequence[int],
    weight_decay: Sequence[float],
    *,
    lr: float = DOSE["lr"],
    models: Sequence[str] = tuple(MODELS),
    pixels: Sequence[str] = tuple(PIXELS),
    attack: Mapping | None = SETTINGS["tuning_attack"],
) -> pd.DataFrame:
    """AdamW with each λ at one learning rate, for each of ``models`` and ``pixels``: accuracy, mean L∞ radius and, with
    an ``attack`` (its steps and restarts), robust accuracy on test data, and the weight norm."""
    runs, tables = grid({"AdamW": {"lr": [lr], "weight_decay": weight_decay}}, seeds), []
    for model in models:
        for seen in pixels:
            table, _ = measure(task(seen, model), runs, "test", attack, radius=True)
            tables.append(table.assign(model=model, pixels=seen))
    table = pd.concat(tables, ignore_index=True)
    return table[~table["metric"].str.contains("loss")]


def shrunk(seeds: Sequence[int]) -> pd.DataFrame:
    """Linear models trained without decay, as they are and with all weights times ``DOSE["shrink"]``: radius, norm."""
    learned, seeds = task(model="linear"), list(seeds)
    runs = grid({"Adam": {"lr": [DOSE["lr"]]}}, seeds)
    _, result = measure(learned, runs, "test", None)
    rows = []
    for arm, factor in (("as trained", 1.0), ("shrunk", DOSE["shrink"])):
        p = rescaled(result.parameters, factor)
        values = {
            MARGIN.metric: mean_radius(learned, replace(result, parameters=p), "test"),
            "weight norm": sum(t.flatten(1).square().sum(1) for t in p.values()).sqrt(),
        }
        rows += [pd.DataFrame({"arm": arm, "seed": seeds, "step": SETTINGS["steps"], "metric": m, "value": v.numpy()})
                 for m, v in values.items()]  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def _low_lr(seeds: Sequence[int]) -> pd.DataFrame:
    lambdas, only = [0.0, DOSE["mild"]], {"models": ["linear"], "pixels": ["all pixels"]}
    return dose(seeds, lambdas, lr=DOSE["low_lr"], **only)


def run() -> dict[str, pd.DataFrame]:
    """The full protocol: each condition tuned and its winners attacked on fresh seeds; the doses; the rescaling."""
    tuning = pd.concat([tune(condition) for condition in CONDITIONS], ignore_index=True)
    winners = choose(tuning)
    seeds = SETTINGS["evaluation_seeds"]
    return {
        "tuning": tuning,
        "winners": winners,
        "evaluation": evaluate(winners, seeds),
        "dose": dose(seeds, DOSE["weight_decay"]),
        "low_lr": _low_lr(seeds),
        "shrunk": shrunk(seeds),
    }


def _with_against_without(table: pd.DataFrame, weight_decay: float) -> Effect:
    """One λ against none at the same learning rate, from :func:`dose`'s table of one model."""
    two = table[table["weight_decay"].isin([0.0, weight_decay])]
    arm = two["weight_decay"].map({0.0: "Adam", weight_decay: "AdamW"})
    return paired(two.assign(arm=arm), "AdamW", "Adam", MARGIN.metric)


def margin_effects(doses: pd.DataFrame, low_lr: pd.DataFrame, shrunk: pd.DataFrame) -> dict[str, Effect]:
    """The first claim's regimes: rescaled weights, decay at work, a milder decay, and decay with no time to work."""
    strong, mild = DOSE["strong"], DOSE["mild"]
    found = {"the same weights, times 1/8": paired(shrunk, "shrunk", "as trained", MARGIN.metric)}
    tables = {f"{model}, {pixels}": t for (model, pixels), t in doses.groupby(["model", "pixels"], sort=False)}
    for name, table in tables.items():
        found[f"{name}, λ = {strong:g}"] = _with_against_without(table, strong)
    found[f"MLP, all pixels, λ = {mild:g}"] = _with_against_without(tables["MLP, all pixels"], mild)
    return found | {f"linear, all pixels, λ = {mild:g}, η eight times lower": _with_against_without(low_lr, mild)}


def robust_effects(evaluation: pd.DataFrame) -> dict[str, Effect]:
    """The second claim's regimes, from :func:`evaluate`'s table: each condition against Adam and against Adam + L2."""
    found = {}
    for condition, table in headline_winners(evaluation).groupby("condition", sort=False):
        for control in ("Adam", "Adam + L2"):
            found[f"{condition} (against {control})"] = paired(table, "AdamW", control, WITHSTANDS.metric)
    return found


def effects(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Effect]]:
    """The claims' effects, from the tables of :func:`run` alone."""
    return {
        MARGIN.id: margin_effects(tables["dose"], tables["low_lr"], tables["shrunk"]),
        WITHSTANDS.id: robust_effects(tables["evaluation"]),
    }


def headline(tables: Mapping[str, pd.DataFrame], seeds: Sequence[int]):
    """Both claims in all their regimes on other seeds: the recorded winners retrained and attacked, the doses again."""
    doses = dose(seeds, [0.0, DOSE["mild"], DOSE["strong"]], attack=None)
    return {
        MARGIN.id: margin_effects(doses, _low_lr(seeds), shrunk(seeds)),
        WITHSTANDS.id: robust_effects(evaluate(headline_winners(tables["winners"]), seeds)),
    }


def probe() -> pd.DataFrame:
    """One run of each arm under each condition, on the CPU, what a short attack leaves of it, and every task
    untrained."""
    runs = grid(
        {
            "AdamW": {"lr": [0.015], "weight_decay": [0.4]},
            "Adam + L2": {"lr": [0.015], "l2": [0.003]},
            "Adam": {"lr": [0.015]},
        },
        [0],
    )
    tables = []
    for condition in CONDITIONS:
        table, _ = measure(
            condition_task(condition), runs, "validation", {"steps": 5, "restarts": 2},
            radius=condition == "all pixels", evaluate=("train", "validation"), record=(1, 20, 100), steps=100,
            device="cpu",
        )  # fmt: skip
        tables.append(table.assign(condition=condition))
    tasks = {condition: condition_task(condition) for condition in CONDITIONS}
    tasks |= {f"{model}, {seen}, doses": task(seen, model) for model in MODELS for seen in PIXELS}
    return pd.concat([probe_rows(pd.concat(tables, ignore_index=True)), untrained(tasks)], ignore_index=True)


STUDY = Study(
    "robustness/adversarial_robustness",
    (MARGIN, WITHSTANDS),
    {**SETTINGS, "dose": DOSE},
    run,
    effects,
    probe,
    headline,
)
