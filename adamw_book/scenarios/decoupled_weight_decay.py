"""Foundations · decoupled weight decay: the learning-rate × decay map on real digits.

Three ways to write decay, every learning rate against every decay, and one question put to the map: what does it
cost to keep a decay that was tuned at another learning rate?
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from adamw_book.arms import ADAM_L2, ADAMW, INDEPENDENT
from adamw_book.data import digits_splits
from adamw_book.dynamics import drive, silent
from adamw_book.ensemble import Snapshot, Task, train
from adamw_book.evidence import (
    Claim,
    Effect,
    Side,
    choose,
    grid,
    paired,
    picks,
    resampled_counts,
    retrain,
    scores_of,
    smoothed,
)
from adamw_book.models import MLP
from adamw_book.protocol import Condition, Measurement, Protocol


def decades(low: float, high: float, a_decade: int = 4) -> list[float]:
    """Values from 10**low to 10**high, ``a_decade`` of them for each factor of ten, rounded to three digits."""
    if not (-np.inf < low < high < np.inf and a_decade > 0):
        raise ValueError(f"low, high, a_decade: {low}, {high}, {a_decade}; low < high and a number above 0 are needed")
    return [float(f"{10**e:.3g}") for e in np.linspace(low, high, round((high - low) * a_decade) + 1)]


MODELS = {"MLP": MLP, "MLP, LayerNorm": lambda: MLP(norm=True)}
ARMS = (ADAMW, ADAM_L2, INDEPENDENT)
LR = {"MLP": decades(-3, -1.5), "MLP, LayerNorm": decades(-3.5, -2)}
DECAYS = {  # of each network, settled on validation data: the best of each learning rate lies inside
    "MLP": {"AdamW": decades(-2, 0.75), "Adam + L2": decades(-3.75, -1), INDEPENDENT.name: decades(-3.75, -1)},
    "MLP, LayerNorm": {
        "AdamW": decades(-0.5, 2.25), "Adam + L2": decades(-2, 0.75), INDEPENDENT.name: decades(-3, -0.25),
    },
}  # fmt: skip
NULL = {"coefficients": [0.1, 0.3, 1.0], "steps": 50, "start": [0.1, 1.0], "log10_lr": [-3.5, -3.0]}
TUNING_SEEDS, EVALUATION_SEEDS = range(10), range(2000, 2024)

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
    primary="null coordinate",
    arithmetic=True,
)
SEPARABILITY = Claim(
    id="decoupled_weight_decay.separability",
    tag=None,
    statement="Decoupling lowers the price of keeping a decay that was tuned at another learning rate, compared with "
    "Adam + L2.",
    source="The paper behind the chapter (Loshchilov and Hutter, 2019) shows maps of test error in which the best "
    "decay hardly depends on "
    "the learning rate once the decay is decoupled, while for Adam + L2 the two must be tuned together.",
    criterion="Supported: the accuracy change under transfer (test accuracy at one learning rate with the decay that "
    "was best at another, minus that with the decay that was best there, averaged over all pairs) lies above that of "
    "Adam + L2 by half a percentage point or more, with the 95% interval above zero.",
    metric="accuracy change under transfer",
    smallest_effect=0.005,
    primary="MLP, as torch writes it: ηλ a step",
    dividing="the way to write the decay and on whether the network is normalised",
)


def data(seed: int):
    """300 digits of which one in five carries a wrong label, and 597 test images that no seed tunes on."""
    return digits_splits(seed, train=300, label_noise=0.2, fixed_test=True)


def condition(model: str) -> Condition:
    """A network (a name in ``MODELS``) and the ranges of its map."""
    own = DECAYS[model]
    ranges = {
        "lr": (LR[model][0], LR[model][-1]),
        "weight_decay": (own["AdamW"][0], own["AdamW"][-1]),
        "l2": (own["Adam + L2"][0], own["Adam + L2"][-1]),
        "count": len(LR[model]) * len(own["AdamW"]),
    }
    return Condition(Task(model, MODELS[model], data), ranges, steps=600, batch_size=50, arms=ARMS)


CONDITIONS = {model: condition(model) for model in MODELS}


def map_runs(model: str, seeds: Sequence[int]) -> pd.DataFrame:
    """The runs of a network's map: every learning rate × every decay, in three parametrisations, for each seed.

    Column ``decay`` is the number that the arm's user would tune: λ of torch's AdamW (the weights lose the share ηλ
    a step), ℓ of Adam + L2, and for the arm "AdamW, lr-independent" the share λ′ that the weights lose a step
    whatever η, as in Loshchilov & Hutter's equation; that arm is run as weight_decay = λ′/η.
    """
    decays = DECAYS[model]
    runs = grid({arm.name: {"lr": LR[model], arm.decay: decays[arm.name]} for arm in ARMS}, seeds)
    runs["decay"] = runs["weight_decay"] + runs["l2"]
    independent = runs["arm"] == INDEPENDENT.name
    runs.loc[independent, "weight_decay"] = runs["decay"][independent] / runs["lr"][independent]
    return runs


def train_map(model: str, seeds: Sequence[int], split: str) -> pd.DataFrame:
    """A network's map: the accuracy on ``split`` of each of :func:`map_runs` at the end, column ``condition`` its
    name."""
    table = CONDITIONS[model].train(map_runs(model, seeds), (split,))
    return table[table["metric"] == f"{split} accuracy"].assign(condition=model)


def maps(seeds: Sequence[int], split: str = "validation") -> pd.DataFrame:
    """:func:`train_map` of every network."""
    return pd.concat([train_map(model, seeds, split) for model in MODELS], ignore_index=True)


def best_decay(table: pd.DataFrame) -> pd.DataFrame:
    """For each arm and learning rate of one network's map the decay with the best mean validation accuracy:
    :func:`adamw_book.evidence.choose`'s winners, with the column ``decay``."""
    best = choose(table.assign(rate=table["lr"]), "validation accuracy", by=["rate"])
    best = best[best["winner"]]
    share = np.where(best["arm"] == INDEPENDENT.name, best["lr"], 1.0)
    return best.assign(decay=best["weight_decay"] * share + best["l2"]).reset_index(drop=True)


def slopes(best: pd.DataFrame) -> pd.Series:
    """Slope of log(best decay) against log(lr) for each arm, by least squares: 0 would be a best decay that ignores
    lr. Raises ValueError for a decay of 0, which has no logarithm, and for an arm with one learning rate."""
    rates = best.groupby("arm")["lr"].nunique()
    if not len(best) or rates.min() < 2 or not best["decay"].min() > 0:
        raise ValueError(
            f"best: {rates.to_dict()} learning rates, the smallest decay {best['decay'].min()}; at least two for each "
            "arm, and decays above 0, are needed"
        )
    return best.groupby("arm").apply(
        lambda b: np.polyfit(np.log(b["lr"]), np.log(b["decay"]), 1)[0], include_groups=False
    )


def transfer(table: pd.DataFrame, arm: str) -> Side:
    """What happens to an arm's test accuracy at one learning rate with the decay that was best at another: the mean
    over all ordered pairs η ≠ η′ of acc(η, decay*(η′)) − acc(η, decay*(η)), minus the *transfer regret*.

    table: one network's map, validation accuracy on the tuning seeds and test accuracy on others. A configuration of
    the side returned is a *way to tune*, a decay for each learning rate, and its score the mean validation accuracy
    over these: so :func:`adamw_book.evidence.smoothed` tunes every learning rate again in each resample. Raises
    ValueError for fewer than two learning rates.
    """
    own = table[table["arm"] == arm]
    rates = np.unique(own["lr"])
    if len(rates) < 2:
        raise ValueError(f"table: {len(rates)} learning rates of {arm!r}; at least two are needed")
    tuned, tested = (
        [scores_of(own[own["lr"] == lr], f"{split} accuracy") for lr in rates] for split in ("validation", "test")
    )
    counts = resampled_counts(len(tuned[0]))
    ways = np.unique([picks(scores, counts) for scores in tuned], axis=1).T  # (ways, rates): the decay's place
    scores = np.mean([s.to_numpy()[:, ways[:, i]] for i, s in enumerate(tuned)], axis=0)
    accuracy = np.stack([s.to_numpy() for s in tested], axis=1)  # (seeds, rates, decays)
    kept = accuracy[:, :, ways].transpose(0, 2, 1, 3)  # (seeds, ways, η, η′): at η with the decay of η′
    n = len(rates)
    change = (kept.sum((2, 3)) - n * np.trace(kept, axis1=2, axis2=3)) / (n * (n - 1))
    frames = (pd.DataFrame(x, index=t[0].index) for x, t in ((scores, tuned), (change, tested)))
    return Side(arm, *frames, decayed=False)


def regret(side: Side) -> pd.Series:
    """The transfer regret of each evaluation seed, every way to tune counted by its share of the resamples."""
    picked = side.picked(resampled_counts(len(side.scores)))
    return -(side.values @ (np.bincount(picked, minlength=side.values.shape[1]) / len(picked)))


def box(betas2: Sequence[float], decays: Sequence[float], steps: Sequence[int], lr: float = 1e-2) -> pd.DataFrame:
    """How far AdamW goes to the walls of the box ‖θ‖∞ ≤ 1/λ (Xie & Li, 2024), on a linear classifier of the task's
    digits, the whole training set at every step: λ·max|θ| for each λ (rows), β₂ and number of steps (columns)."""

    def largest(snapshot: Snapshot) -> dict[str, torch.Tensor]:
        weights = [p.abs().flatten(1).amax(1) for p in snapshot.parameters.values()]
        return {"largest weight": torch.stack(weights).amax(0)}

    steps = list(steps)
    linear = Task("digits, linear", lambda: torch.nn.Linear(64, 10), data)
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


def exempting(tables: Mapping[str, pd.DataFrame], model: str = "MLP, LayerNorm") -> dict[str, Effect]:
    """What it is worth to exempt gains and biases: test accuracy of AdamW whose decay spares them minus that of AdamW
    whose decay takes every parameter, as torch's does unless told otherwise.

    Both train at the learning rate that was best in a network's map. The side that spares them is in the record's
    ``tables`` (:func:`maps`); the other is trained now, on the same seeds. "each λ tuned" is the comparison that was
    named first: each side tunes λ over the map's range, and half a percentage point would matter. "λ kept": both take
    the λ that is best where gains and biases are exempt.
    """
    spared = pd.concat([tables["map"], tables["transfer"]])
    spared = spared[(spared["condition"] == model) & (spared["arm"] == ADAMW.name)]
    lr, kept = choose(spared, "validation accuracy").loc[0, ["lr", "weight_decay"]]
    spared = spared[spared["lr"] == lr]
    runs = grid({ADAMW.name: {"lr": [lr], "weight_decay": DECAYS[model][ADAMW.name]}}, TUNING_SEEDS)
    tuning = CONDITIONS[model].train(runs, ("validation",), decays=lambda name: True)
    chosen = choose(tuning, "validation accuracy")[["arm", "lr", "weight_decay", "l2"]]
    chosen = pd.concat([chosen, chosen[:1].assign(weight_decay=kept)]).drop_duplicates()
    runs = retrain(chosen, EVALUATION_SEEDS, used=TUNING_SEEDS)
    taken = CONDITIONS[model].train(runs, ("test",), decays=lambda name: True)
    names, rule, metric = ("exempt", "all decay"), "validation accuracy", "test accuracy"
    sides = [Side.of(a, b, rule, metric) for a, b in ((spared[spared["metric"] == rule], spared), (tuning, taken))]
    sides = [replace(side, arm=name) for side, name in zip(sides, names, strict=True)]
    at = [side[side["weight_decay"] == kept].assign(arm=n) for side, n in zip((spared, taken), names, strict=True)]
    return {"each λ tuned": smoothed(*sides, metric), "λ kept": paired(pd.concat(at), *names, metric)}


def null_coordinate_response(seeds: Sequence[int], settings: Mapping = NULL) -> pd.DataFrame:
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


def separability_effects(table: pd.DataFrame) -> dict[str, Effect]:
    """Regret of Adam + L2 minus that of each form of AdamW, for each network, from the tables of :func:`maps` on tuning
    seeds and, test accuracy, on others."""
    forms = {"as torch writes it: ηλ a step": ADAMW, "as the paper writes it: λ′ a step": INDEPENDENT}
    found = {}
    for model, own in table.groupby("condition", sort=False):
        control = transfer(own, ADAM_L2.name)
        for form, arm in forms.items():
            found[f"{model}, {form}"] = smoothed(transfer(own, arm.name), control, SEPARABILITY.metric)
    return found


def unconditional_effects(response: pd.DataFrame) -> dict[str, Effect]:
    """AdamW's response minus that of Adam + L2, from :func:`null_coordinate_response`'s table."""
    return {"null coordinate": paired(response, "AdamW", "Adam + L2", UNCONDITIONAL.metric)}


PROTOCOL = Protocol(
    chapter="foundations/decoupled_weight_decay",
    conditions={},
    claims={
        UNCONDITIONAL: lambda tables: unconditional_effects(tables["null_coordinate"]),
        SEPARABILITY: lambda tables: separability_effects(pd.concat([tables["map"], tables["transfer"]])),
    },
    tuning_seeds=TUNING_SEEDS,
    evaluation_seeds=EVALUATION_SEEDS,
    measurements=[
        Measurement("map", maps, list(TUNING_SEEDS), tunes=True),
        Measurement("transfer", lambda seeds: maps(seeds, "test"), list(EVALUATION_SEEDS)),
        Measurement("null_coordinate", null_coordinate_response, list(EVALUATION_SEEDS)[:12], lambda table: table),
    ],
    measured=CONDITIONS,
    probed=list(MODELS),
    settings={"map": {"lr": LR, "decays": DECAYS}, "null_coordinate": NULL},
)
STUDY = PROTOCOL.study
