"""Foundations · decoupled weight decay: the learning-rate × decay map on real digits.

Three ways to write decay, every learning rate against every decay, and one question put to the map: what does it
cost to keep a decay that was tuned at another learning rate?
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from adamw_book.data import digits_splits
from adamw_book.dynamics import drive, silent
from adamw_book.ensemble import Snapshot, Task, train
from adamw_book.evidence import Claim, Effect, grid, paired, retrain
from adamw_book.ledger import Study, probe_rows
from adamw_book.models import MLP
from adamw_book.untrained import untrained

INDEPENDENT = "AdamW, lr-independent"


def decades(low: float, high: float, a_decade: int = 4) -> list[float]:
    """Values from 10**low to 10**high, ``a_decade`` of them for each factor of ten, rounded to three digits."""
    if not (-np.inf < low < high < np.inf and a_decade > 0):
        raise ValueError(f"low, high, a_decade: {low}, {high}, {a_decade}; low < high and a number above 0 are needed")
    return [float(f"{10**e:.3g}") for e in np.linspace(low, high, round((high - low) * a_decade) + 1)]


SETTINGS = {
    "task": "digits, MLP 64-32-10",
    "train": 300,
    "label_noise": 0.2,
    "steps": 600,
    "batch_size": 50,
    "lr": decades(-3, -1.5),
    "weight_decay": decades(-2, 0.75),
    "l2": decades(-4, -1.25),
    "decay_per_step": decades(-4.25, -1.5),
    "null_coordinate": {"coefficients": [0.1, 0.3, 1.0], "steps": 50, "start": [0.1, 1.0], "log10_lr": [-3.5, -3.0]},
    "tuning_seeds": list(range(10)),
    "evaluation_seeds": list(range(100, 112)),
}

UNCONDITIONAL = Claim(
    id="decoupled_weight_decay.unconditional",
    tag=None,
    statement="On a coordinate that gets no gradient, λ sets how fast AdamW shrinks it; under Adam + L2 the "
    "coefficient ℓ has no say.",
    source="Adam + L2 sends the penalty through the adaptive denominator; AdamW takes the decay out of the gradient "
    "path, so that it "
    "acts at a fixed rate.",
    criterion="How strongly the logarithmic shrinkage of a null coordinate responds to the coefficient (the slope "
    "on doubly logarithmic "
    "axes: 1 is proportional, 0 is no response) is larger under AdamW by at least 0.5, with the 95% interval above "
    "zero.",
    metric="response of the shrinkage to the coefficient",
    smallest_effect=0.5,
)
SEPARABILITY = Claim(
    id="decoupled_weight_decay.separability",
    tag=None,
    statement="Decoupling lowers the price of keeping a decay that was tuned at another learning rate, compared with "
    "Adam + L2.",
    source="The paper behind the chapter (Loshchilov and Hutter, 2019) shows maps of test error in which the best "
    "decay hardly depends on "
    "the learning rate once the decay is decoupled, while for Adam + L2 the two must be tuned together.",
    criterion="The accuracy change under transfer (test accuracy at one learning rate with the decay that was best at "
    "another, minus that with the decay that was best there, averaged over all pairs) lies above that of Adam + L2 "
    "by at "
    "least half a percentage point, with the 95% interval above zero.",
    metric="accuracy change under transfer",
    smallest_effect=0.005,
)

TASK = Task(
    "digits, 20% label noise",
    MLP,
    lambda seed: digits_splits(seed, train=SETTINGS["train"], label_noise=SETTINGS["label_noise"]),
)


def map_runs(seeds, settings: dict = SETTINGS) -> pd.DataFrame:
    """The runs of the map: every learning rate × every decay, in three parametrisations, for each seed.

    Column ``decay`` is the number that the arm's user would tune: λ of torch's AdamW (the weights lose the share ηλ
    a step), ℓ of Adam + L2, and for the arm "AdamW, lr-independent" the share λ′ that the weights lose a step
    whatever η, as in Loshchilov & Hutter's equation; that arm is run as weight_decay = λ′/η.
    """
    arms = {
        "AdamW": {"lr": settings["lr"], "weight_decay": settings["weight_decay"]},
        "Adam + L2": {"lr": settings["lr"], "l2": settings["l2"]},
        INDEPENDENT: {"lr": settings["lr"], "weight_decay": settings["decay_per_step"]},
    }
    runs = grid(arms, seeds)
    runs["decay"] = runs["weight_decay"] + runs["l2"]
    independent = runs["arm"] == INDEPENDENT
    runs.loc[independent, "weight_decay"] = runs["decay"][independent] / runs["lr"][independent]
    return runs


def train_map(runs: pd.DataFrame, evaluate=("validation",), steps: int = SETTINGS["steps"]) -> pd.DataFrame:
    """Train the map's runs; returns the table of :func:`adamw_book.ensemble.train`, metric "<split> accuracy" and
    "<split> loss"."""
    return train(TASK, runs, steps=steps, batch_size=SETTINGS["batch_size"], evaluate=evaluate).table


def _last(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of a metric at its last step, one a run."""
    rows = table[table["metric"] == metric]
    rows = rows[rows["step"] == rows["step"].max()]
    if rows.empty or rows.duplicated(["arm", "lr", "decay", "seed"]).any():
        raise ValueError(f"table: {len(rows)} rows of {metric!r} at the last step; one for each run is needed")
    return rows


def best_decay(table: pd.DataFrame) -> pd.DataFrame:
    """For each arm and learning rate the decay with the best mean validation accuracy over seeds at the last step:
    columns arm, lr, decay, score, edge (bool). A decay that diverged in any seed is never chosen.

    Raises ValueError where there is no such accuracy, the decays of an arm were not tried on equally many seeds, or
    every decay of a learning rate diverged.
    """
    rows = _last(table, "validation accuracy")
    counts = rows.groupby(["arm", "lr", "decay"])["seed"].nunique()
    if (counts.groupby("arm").nunique() > 1).any():
        raise ValueError(f"table: from {counts.min()} to {counts.max()} seeds a decay; equally many are needed")
    means = rows.groupby(["arm", "lr", "decay"])["value"].agg(lambda v: v.mean(skipna=False)).reset_index()
    means["value"] = means["value"].where(np.isfinite(means["value"]))
    if lost := list(means.groupby(["arm", "lr"]).filter(lambda m: m["value"].isna().all())["arm"]):
        raise ValueError(
            f"table: every decay of {lost[0]!r} has a value that is not finite at some lr; none can be chosen"
        )
    best = means.loc[means.groupby(["arm", "lr"])["value"].idxmax()].rename(columns={"value": "score"})
    limits = means.groupby("arm")["decay"].agg(["min", "max"])
    best["edge"] = [row.decay in tuple(limits.loc[row.arm]) for row in best.itertuples()]
    return best.reset_index(drop=True)


def _rates(best: pd.DataFrame) -> None:
    counts = best.groupby("arm")["lr"].nunique()
    if not len(counts) or (counts < 2).any():
        raise ValueError(f"best: {counts.to_dict()} learning rates; at least two for each arm are needed")


def slopes(best: pd.DataFrame) -> pd.Series:
    """Slope of log(best decay) against log(lr) for each arm, by least squares: 0 would be a best decay that ignores
    lr. Raises ValueError for a decay of 0, which has no logarithm, and for an arm with one learning rate."""
    _rates(best)
    if not (best["decay"] > 0).all():
        raise ValueError(f"best: the decay {best['decay'].min()}; decays above 0 are needed")
    return best.groupby("arm").apply(
        lambda b: np.polyfit(np.log(b["lr"]), np.log(b["decay"]), 1)[0], include_groups=False
    )


def transfer_change(table: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """What happens to test accuracy at one learning rate with the decay that was best at another, by arm and seed.

    Mean over all ordered pairs η ≠ η′ of acc(η, decay*(η′)) − acc(η, decay*(η)): minus the *transfer regret*. ``best``
    comes from validation data of other seeds (:func:`best_decay`). Returns a tidy table: arm, seed, step, metric,
    value.
    """
    _rates(best)
    rows, last = [], _last(table, "test accuracy")
    values = last.set_index(["arm", "seed", "lr", "decay"])["value"]
    step = int(last["step"].max())
    for arm, chosen in best.groupby("arm"):
        decay = dict(zip(chosen["lr"], chosen["decay"], strict=True))
        for seed, own in values.loc[arm].groupby(level="seed"):
            own = own.droplevel("seed")
            gaps = [own[eta, decay[other]] - own[eta, decay[eta]] for eta in decay for other in decay if other != eta]
            rows.append(
                {"arm": arm, "seed": seed, "step": step, "metric": SEPARABILITY.metric, "value": float(np.mean(gaps))}
            )
    return pd.DataFrame(rows)


def transfer_runs(best: pd.DataFrame, seeds) -> pd.DataFrame:
    """The runs that :func:`transfer_change` needs: each arm's best decays, each at every learning rate, on fresh
    seeds."""
    _rates(best)
    runs, seeds = [], list(seeds)
    for arm, chosen in best.groupby("arm"):
        decays = sorted(chosen["decay"].unique())
        part = pd.MultiIndex.from_product([chosen["lr"], decays], names=["lr", "decay"]).to_frame(index=False)
        part["arm"] = arm
        part["l2"] = part["decay"] if arm == "Adam + L2" else 0.0
        part["weight_decay"] = (
            0.0 if arm == "Adam + L2" else part["decay"] / (part["lr"] if arm == INDEPENDENT else 1.0)
        )
        runs.append(retrain(part, seeds, used=SETTINGS["tuning_seeds"]))
    return pd.concat(runs, ignore_index=True)[["lr", "decay", "seed", "arm", "l2", "weight_decay"]]


def box(betas2: Sequence[float], decays: Sequence[float], steps: Sequence[int], lr: float = 1e-2) -> pd.DataFrame:
    """How far AdamW goes to the walls of the box ‖θ‖∞ ≤ 1/λ (Xie & Li, 2024), on a linear classifier of the task's
    digits, the whole training set at every step: λ·max|θ| for each λ (rows), β₂ and number of steps (columns)."""

    def largest(snapshot: Snapshot) -> dict[str, torch.Tensor]:
        weights = [p.abs().flatten(1).amax(1) for p in snapshot.parameters.values()]
        return {"largest weight": torch.stack(weights).amax(0)}

    steps = list(steps)
    linear = Task("digits, linear", lambda: torch.nn.Linear(64, 10), TASK.data)
    runs = grid({"AdamW": {"lr": [lr], "weight_decay": list(decays)}}, [0])
    columns = {}
    for beta2 in betas2:
        table = train(
            linear, runs, steps=max(steps), record=steps, betas=(0.9, beta2), evaluate=(), measure=largest
        ).table
        table = table[table["metric"] == "largest weight"].set_index(["weight_decay", "step"])["value"].unstack("step")
        for step in table:
            columns[f"β₂ = {beta2}", f"{step} steps"] = table[step] * table.index
    return pd.DataFrame(columns).rename_axis("λ")


# ---------------------------------------------------------------- the full protocol


def null_coordinate_response(seeds: Sequence[int], settings: Mapping = SETTINGS["null_coordinate"]) -> pd.DataFrame:
    """How the shrinkage of a null coordinate responds to the coefficient: slope of log(−log(w_T / w_0)) against
    log(coefficient).

    Each seed draws a start between 0.1 and 1 (both signs) and a learning rate between 3e-4 and 1e-3, small enough
    for no arm to reach zero within the steps. Returns a tidy table: arm, seed, step, metric, value. Raises ValueError
    for fewer than two coefficients above 0, without which there is no slope, and for no step.
    """
    coefficients, steps, rows = settings["coefficients"], settings["steps"], []
    if len(set(coefficients)) < 2 or not min(coefficients) > 0 or steps < 1:
        raise ValueError(
            f"settings: coefficients {coefficients}, steps {steps}; at least two different ones above 0, and one step, "
            "are needed"
        )
    for seed in seeds:
        rng = np.random.default_rng([seed, 7])
        w0, lr = rng.choice([-1, 1]) * rng.uniform(*settings["start"]), 10 ** rng.uniform(*settings["log10_lr"])
        for arm, name in (("AdamW", "weight_decay"), ("Adam + L2", "l2")):
            start = torch.full((len(coefficients), 1), w0, dtype=torch.float64)
            path = drive(silent, start, steps, lr=lr, **{name: torch.tensor(coefficients, dtype=torch.float64)})
            shrinkage = -np.log((path[-1, :, 0] / w0).numpy())
            slope = np.polyfit(np.log(coefficients), np.log(shrinkage), 1)[0]
            rows.append({"arm": arm, "seed": seed, "step": steps, "metric": UNCONDITIONAL.metric, "value": slope})
    return pd.DataFrame(rows)


def run() -> dict[str, pd.DataFrame]:
    """The full protocol: the map on the tuning seeds, the runs for the transfer regret on fresh ones, the null
    coordinates."""
    tuning = train_map(map_runs(SETTINGS["tuning_seeds"]))
    tuning = tuning[tuning["metric"] == "validation accuracy"]
    best = best_decay(tuning)
    transfer = train_map(transfer_runs(best, SETTINGS["evaluation_seeds"]), evaluate=("test",))
    transfer = transfer[transfer["metric"] == "test accuracy"]
    return {
        "map": tuning,
        "winners": best,
        "transfer": transfer,
        "null_coordinate": null_coordinate_response(SETTINGS["evaluation_seeds"]),
    }


def separability_effects(change: pd.DataFrame) -> dict[str, Effect]:
    """Regret of Adam + L2 minus that of each form of AdamW, paired over seeds, from :func:`transfer_change`'s
    table."""
    regimes = {"as torch writes it, ηλ a step": "AdamW", "as the paper writes it, λ′ a step": INDEPENDENT}
    return {regime: paired(change, arm, "Adam + L2", SEPARABILITY.metric) for regime, arm in regimes.items()}


def unconditional_effects(response: pd.DataFrame) -> dict[str, Effect]:
    """AdamW's response minus that of Adam + L2, from :func:`null_coordinate_response`'s table."""
    return {"null coordinate": paired(response, "AdamW", "Adam + L2", UNCONDITIONAL.metric)}


def effects(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Effect]]:
    """The claims' effects, from the tables of :func:`run` alone."""
    change = transfer_change(tables["transfer"], best_decay(tables["map"]))
    return {
        UNCONDITIONAL.id: unconditional_effects(tables["null_coordinate"]),
        SEPARABILITY.id: separability_effects(change),
    }


def headline(tables: Mapping[str, pd.DataFrame], seeds: Sequence[int]):
    """Both claims on other seeds: the null coordinates, and the transfer of the recorded best decays."""
    best = best_decay(tables["map"])
    table = train_map(transfer_runs(best, seeds), evaluate=("test",))
    return {
        UNCONDITIONAL.id: unconditional_effects(null_coordinate_response(seeds)),
        SEPARABILITY.id: separability_effects(transfer_change(table, best)),
    }


def probe() -> pd.DataFrame:
    """One run of each arm from the middle of the map, the null coordinate of one seed, and the task untrained, on the
    CPU."""
    runs = map_runs([0])
    middle = {name: SETTINGS[name][len(SETTINGS[name]) // 2] for name in ("lr", "weight_decay", "l2", "decay_per_step")}
    chosen = runs[(runs["lr"] == middle["lr"]) & runs["decay"].isin(middle.values())].drop_duplicates("arm")
    result = train(
        TASK, chosen, steps=SETTINGS["steps"], batch_size=SETTINGS["batch_size"], record=(1, 20, SETTINGS["steps"]),
        evaluate=("train", "validation"), device="cpu",
    )  # fmt: skip
    response = null_coordinate_response(SETTINGS["evaluation_seeds"][:1])
    rows = [probe_rows(result.table), probe_rows(response, atol=1e-3), untrained({TASK.name: TASK})]
    return pd.concat(rows, ignore_index=True)


STUDY = Study(
    "foundations/decoupled_weight_decay", (UNCONDITIONAL, SEPARABILITY), SETTINGS, run, effects, probe, headline
)
