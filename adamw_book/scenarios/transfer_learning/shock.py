"""The *early shock*: what fine-tuning does in its first steps, how decay changes it, and a body that is shrunk before.

F16: a warm-up of T steps along a straight line takes η·λ·T/2 in the exponent from a weight that gets no gradient.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adamw_book.ensemble import Snapshot, train
from adamw_book.evidence import Claim, Effect, paired
from adamw_book.models import matrices
from adamw_book.protocol import Condition
from adamw_book.schedules import learning_rate_factors

from .sources import MODELS, SOURCES, body
from .tasks import STEPS, TO_START, WARMUP, condition

RISE = "rise of the training loss"
EARLY_SHOCK = Claim(
    id="transfer_learning.early_shock",
    tag="3096511",
    statement="In the warm-up of fine-tuning, a decay that shrinks the pre-trained weights makes the early shock "
    "smaller than it is without decay.",
    source="Pre-trained weights may be too large or out of date for the new task, and fine-tuning may begin with "
    "violent swings; during the warm-up AdamW's decay shrinks them gently into a sensible range, which avoids early "
    "shocks.",
    criterion="The shock is the sum of all steps, of the first 40, by which the loss on the training set rises. Both "
    "sides have the same learning rate and a warm-up of 20 steps; λ is such that the warm-up alone would leave 70% of "
    "a weight. Supported: smaller by 0.1 nats or more, with the 95% interval above zero.",
    metric=RISE,
    smallest_effect=0.1,
    primary="MLP, LayerNorm · useful source · η = 0.03",
    dividing="the learning rate, and where that is too large on whether the network is normalised",
)
START = "loss at the start"
UPDATE = "update over weight"
LEFT = "body left after the warm-up"
GRADIENT = "largest gradient norm"
FIRST = 40  # steps that count as early, twice the usual warm-up
SHOCK = {
    "lr": [0.01, 0.03, 0.1],
    "left": [1.0, 0.9, 0.7, 0.5],
    "warmup": [0.0, WARMUP, 0.3],
    "first": FIRST,
    "shrunk": [1.0, 0.9, 0.7, 0.5, 0.3],
    "shrunk_lr": 0.03,
    "compared": 0.7,  # the share that the claim compares with no decay
    "seeds": list(range(2100, 2124)),
}
PARTS: Mapping[str, Callable[[str], bool]] = {
    "body and head": matrices,
    "body only": lambda name: matrices(name) and body(name),
    "head only": lambda name: matrices(name) and not body(name),
}
SPLIT = {
    "lr": 0.01,
    "weight_decay": [0.0, 0.3, 1.0, 3.0, 10.0],
    "conditions": ["MLP, LayerNorm · useful source", "MLP, LayerNorm · mismatched source"],
}


def warmup_share(lr: float, weight_decay: float, steps: int = STEPS, warmup: float = WARMUP) -> float:
    """What a warm-up leaves of a weight that gets no gradient, exactly: the product of 1 − η_t·λ over its steps."""
    factors = learning_rate_factors("cosine", steps, warmup)[: round(steps * warmup)]
    return float(np.prod(1 - lr * weight_decay * factors))


def shrink_formula(lr: float, weight_decay: float, warmup_steps: float) -> float:
    """What it leaves, to first order in η·λ: exp(−η·λ·T/2)."""
    return float(np.exp(-lr * weight_decay * warmup_steps / 2))


def decay_for(left: float, lr: float, warmup_steps: float = STEPS * WARMUP) -> float:
    """The decay λ with which a warm-up leaves that share of the weights, by :func:`shrink_formula`. Raises
    ``ValueError`` for a share outside 0 < left ≤ 1."""
    if not 0 < left <= 1:
        raise ValueError(f"left: {left}; a share above 0 and at most 1 is needed")
    return float(-2 * np.log(left) / (lr * warmup_steps)) + 0.0


class FirstSteps:
    """A ``measure`` of :func:`adamw_book.ensemble.train` for the early steps, which must all be recorded, in one chunk:
    "update over weight", the norm of a step's change of the body's matrices over their norm before it; "body norm",
    theirs, over that at the start; "gradient norm", of all parameters on the step's batch."""

    def __init__(self) -> None:
        self.start: Tensor | None = None
        self.before: Tensor | None = None

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        named = [p for name, p in snapshot.parameters.items() if matrices(name) and body(name)]
        now = torch.cat([p.flatten(1) for p in named], 1).clone()
        if snapshot.step == 0:
            self.start = self.before = now
        update = (now - self.before).norm(dim=1) / self.before.norm(dim=1)
        self.before = now
        gradient = torch.cat([g.flatten(1) for g in snapshot.gradients.values()], 1).norm(dim=1)
        return {UPDATE: update, "body norm": now.norm(dim=1) / self.start.norm(dim=1), "gradient norm": gradient}


def trajectories(found: Condition, runs: pd.DataFrame, first: int = FIRST) -> pd.DataFrame:
    """The table of these runs over the first steps, all of them recorded, and at the end; of the test accuracy only
    the end is of use."""
    steps = [*range(first + 1), found.steps]
    return train(
        found.task, runs, steps=found.steps, batch_size=found.batch_size, schedule="cosine", decays=found.decays,
        record=steps, evaluate=("train", "test"), measure=FirstSteps(), device="cpu", chunk_size=len(runs),
    ).table  # fmt: skip


def summary(table: pd.DataFrame, first: int = FIRST) -> pd.DataFrame:
    """One value a run and measure of :func:`trajectories`, a tidy table: RISE, the sum of all steps by which the loss
    on the training set went up (nats; 0 where it only falls); START, the loss there; UPDATE, the mean over the first
    steps; GRADIENT; LEFT, the body's norm at the end of the run's warm-up (of ``WARMUP`` where it has none; at the last
    of the first steps where it is longer), over that at the start; "test accuracy" at the end of training."""
    own = ["arm", "lr", "weight_decay", "l2", "warmup", "seed"]

    def values(metric: str) -> pd.DataFrame:
        wide = table[(table["metric"] == metric) & (table["step"] <= first)].pivot(index=own, columns="step")["value"]
        return wide.sort_index(axis=1)

    loss, left, last = values("train loss"), values("body norm"), table["step"].max()
    warm = [round(STEPS * (warmup or WARMUP)) for warmup in loss.index.get_level_values("warmup")]
    tested = table[(table["metric"] == "test accuracy") & (table["step"] == last)].set_index(own)["value"]
    found = {
        RISE: loss.diff(axis=1).clip(lower=0).sum(axis=1),
        START: loss[0],
        UPDATE: values(UPDATE).drop(columns=0).mean(axis=1),
        GRADIENT: values("gradient norm").max(axis=1),
        LEFT: pd.Series(
            [row[min(step, first)] for row, step in zip(left.to_dict("records"), warm, strict=True)], left.index
        ),
        "test accuracy": tested,
    }
    frames = [series.rename("value").reset_index().assign(metric=metric) for metric, series in found.items()]
    return pd.concat(frames, ignore_index=True).assign(step=last)


def _runs(combinations: Sequence[Mapping], seeds: Sequence[int]) -> pd.DataFrame:
    runs = pd.DataFrame(list(combinations)).merge(pd.DataFrame({"seed": list(seeds)}), how="cross").assign(l2=0.0)
    return runs.assign(arm=np.where(runs["weight_decay"] > 0, "AdamW", "Adam"))


def early_shock(
    seeds: Sequence[int], conditions: Sequence[str] | None = None, settings: Mapping = SHOCK
) -> pd.DataFrame:
    """:func:`summary` under each condition (by default the MLPs from each source): every learning rate and decay with
    the usual warm-up, and every warm-up at the middle learning rate. ``left`` names the decay: what the usual warm-up
    would leave of a weight without a gradient."""
    tables = []
    for name in conditions or [f"{model} · {source}" for model in MODELS if "CNN" not in model for source in SOURCES]:
        middle = settings["lr"][len(settings["lr"]) // 2]
        pairs = [(lr, WARMUP) for lr in settings["lr"]] + [(middle, w) for w in settings["warmup"] if w != WARMUP]
        combinations = [
            {"lr": lr, "warmup": warmup, "weight_decay": decay_for(left, lr), "left": left}
            for lr, warmup in pairs
            for left in settings["left"]
        ]
        runs = _runs(combinations, seeds)
        table = summary(trajectories(condition(*name.split(" · ")), runs.drop(columns="left"), settings["first"]))
        doses = runs[["lr", "weight_decay", "left"]].drop_duplicates()
        tables.append(table.merge(doses, on=["lr", "weight_decay"]).assign(condition=name))
    return pd.concat(tables, ignore_index=True)


def shrunk(start: Callable[[Sequence[int]], Mapping[str, Tensor]], share: float) -> Callable[[Sequence[int]], dict]:
    """A task's ``start`` whose matrices are multiplied by ``share``; gains and biases are left as they are."""
    return lambda seeds: {n: p * share if matrices(n) else p for n, p in start(seeds).items()}


def shrunk_before(
    seeds: Sequence[int], conditions: Sequence[str] | None = None, settings: Mapping = SHOCK
) -> pd.DataFrame:
    """The source's picture taken at its word: the body is shrunk to a share (column ``left``) before anything is
    learned, then fine-tuned without decay. :func:`summary` under each condition."""
    tables = []
    for name in conditions or [f"{model} · {source}" for model in MODELS if "CNN" not in model for source in SOURCES]:
        for share in settings["shrunk"]:
            found = condition(*name.split(" · "))
            found = replace(found, task=replace(found.task, start=shrunk(found.task.start, share)))
            runs = _runs([{"lr": settings["shrunk_lr"], "weight_decay": 0.0, "warmup": WARMUP}], seeds)
            tables.append(summary(trajectories(found, runs, settings["first"])).assign(condition=name, left=share))
    return pd.concat(tables, ignore_index=True)


def discriminative(seeds: Sequence[int], settings: Mapping = SPLIT) -> pd.DataFrame:
    """Test accuracy by what decay acts on (column ``part``, a name in ``PARTS``) and where it pulls to, at one learning
    rate: a tidy table."""
    tables = []
    for name in settings["conditions"]:
        for part, decays in PARTS.items():
            found = replace(condition(*name.split(" · ")), decays=decays)
            runs = _runs([{"lr": settings["lr"], "weight_decay": d} for d in settings["weight_decay"]], seeds)
            both = [runs.assign(toward="zero"), runs.assign(toward="start", arm=TO_START.name)]
            table = found.train(pd.concat(both, ignore_index=True), ("test",))
            tables.append(table[table["metric"] == "test accuracy"].assign(condition=name, part=part))
    return pd.concat(tables, ignore_index=True)


def shock_effects(tables: Mapping[str, pd.DataFrame]) -> dict[str, Effect]:
    """How much smaller the shock is with decay than without, at the usual warm-up, by condition and learning rate; and
    with a body that was shrunk before."""
    found, share = {}, SHOCK["compared"]
    rises = tables["shock"][(tables["shock"]["metric"] == RISE) & (tables["shock"]["warmup"] == WARMUP)]
    rises = rises[rises["left"].isin([1.0, share])]
    for (name, lr), table in rises.groupby(["condition", "lr"], sort=False):
        found[f"{name} · η = {lr:g}"] = paired(table, "AdamW", "Adam", RISE, higher_is_better=False)
    before = tables["shrunk"][(tables["shrunk"]["metric"] == RISE) & tables["shrunk"]["left"].isin([1.0, share])]
    for name, table in before.groupby("condition", sort=False):
        named = table.assign(arm=np.where(table["left"] < 1, "shrunk before", "as it was"))
        key = f"{name} · η = {SHOCK['shrunk_lr']:g}, shrunk before"
        found[key] = paired(named, "shrunk before", "as it was", RISE, higher_is_better=False)
    return found
