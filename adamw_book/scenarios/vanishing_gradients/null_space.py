"""What an optimizer does to the weights in a subspace that gets no gradient: along pixels, across them, in dead units,
and along coordinates that get nothing but noise."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from adamw_book.data import digits_splits, generator
from adamw_book.dynamics import drive
from adamw_book.ensemble import Snapshot, Task, initial_parameters, train
from adamw_book.evidence import Claim, Effect, paired
from adamw_book.models import MLP

from .silent_inputs import CONTROLS, SILENT_NORM, against

ARMS = {"AdamW": "weight_decay", "Adam + L2": "l2", "Adam": None}
MOST_HALVINGS = 20.0  # a millionth of the start; what is smaller counts as this
NULL_NORM = "norm in the null space"

SHRINKAGE = Claim(
    id="vanishing_gradients.shrinkage",
    tag="3096558",
    statement="Weights in a subspace where the gradient vanishes are shrunk more, or grow less, under AdamW than under "
    "Adam, and than under Adam + L2.",
    source="For weak or zero gradients the adaptive denominator of Adam + L2 cancels the regularisation; AdamW's decay "
    "is unconditional and keeps shrinking parameters where gradients vanish.",
    criterion="From start to end of training the norm in the null space is halved at least half a time more often "
    "under AdamW, with the 95% interval above zero, for null coordinates and for null directions across coordinates.",
    metric="halvings of the null weights",
    smallest_effect=0.5,
)
DRIFT = Claim(
    id="vanishing_gradients.drift",
    tag="3096558",
    statement="Weights whose gradients are nothing but noise are held tighter by AdamW than by Adam + L2.",
    source="Without decay, parameters that no data guides drift freely to needlessly large values; AdamW prevents it "
    "where Adam + L2 does not.",
    criterion="The root mean square that noise gradients drive the weights to is smaller under AdamW by at least a "
    "factor of 1.25 (0.32 halvings), with the 95% interval above zero.",
    metric="halvings of the drift",
    smallest_effect=0.32,
)


def arm_runs(settings: Mapping, seeds: Sequence[int]) -> pd.DataFrame:
    """One run an arm and seed, with the ``lr``, ``weight_decay`` and ``l2`` of the settings."""
    rows = [
        {"arm": arm, "lr": settings["lr"], "weight_decay": 0.0, "l2": 0.0} | ({name: settings[name]} if name else {})
        for arm, name in ARMS.items()
    ]
    return pd.DataFrame(rows).merge(pd.DataFrame({"seed": list(seeds)}), how="cross")


def halvings(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """How often each run of a tidy table halved a norm between its first and its last recorded step, as a tidy table.

    Negative where the norm grew; never above ``MOST_HALVINGS``, since an optimizer may reach zero; NaN for a run that
    diverged. Raises ``ValueError`` for a norm that starts at 0, fewer than two steps, and runs that are told apart by
    more than arm and seed.
    """
    rows = table[table["metric"] == metric]
    if rows["step"].nunique() < 2 or rows.duplicated(["arm", "seed", "step"]).any():
        raise ValueError(
            f"table: {len(rows)} rows of {metric!r} at the steps {rows['step'].unique().tolist()}; for each arm and "
            "seed one at each of at least two steps is needed"
        )
    ends = rows.pivot(index=["arm", "seed"], columns="step", values="value").sort_index(axis=1)
    first, last = ends.iloc[:, 0], ends.iloc[:, -1]
    if not (first > 0).all():
        raise ValueError(f"metric {metric!r} starts at {first.min()} in some run; a norm above 0 is needed")
    value = -np.log2((last / first).clip(lower=2.0**-MOST_HALVINGS))
    return value.rename("value").reset_index().assign(step=rows["step"].max(), metric=SHRINKAGE.metric)


# ---------------------------------------------------------------- null directions across coordinates

ACROSS = {
    "images": 40,
    "steps": 1000,
    "lr": 0.01,
    "weight_decay": 1.0,
    "l2": 0.01,
    "record": list(range(0, 1001, 50)),
    "seeds": list(range(100, 124)),
}


def null_projector(x: Tensor, tolerance: float = 1e-9) -> Tensor:
    """The projection (D, D) on the directions of input space that no example of x (N, D) has a part in.

    The gradient of a linear layer's weights (out, D) is a sum of outer products with the examples, so its rows never
    leave the examples' span: times this matrix it is zero. Raises ``ValueError`` where the examples span everything,
    and where x is no matrix of finite floating-point numbers with at least one example.
    """
    if x.ndim != 2 or not x.numel() or not x.is_floating_point() or not x.isfinite().all():
        raise ValueError(
            f"x: {x.dtype} of shape {tuple(x.shape)}; finite floats (N, D), of at least one example, are needed"
        )
    _, values, directions = torch.linalg.svd(x.double(), full_matrices=True)
    rank = int((values > tolerance * values[0]).sum())
    if rank == x.shape[1]:
        raise ValueError(f"x: its {len(x)} examples span all {rank} input dimensions; there is no null space")
    return (directions[rank:].T @ directions[rank:]).to(x.dtype)


def across_task(settings: Mapping = ACROSS) -> Task:
    """A linear classifier of digits, to be trained on fewer images than pixels."""
    return Task("digits, linear", lambda: nn.Linear(64, 10), lambda seed: digits_splits(seed, train=settings["images"]))


def train_across(seeds: Sequence[int], settings: Mapping = ACROSS, device: str | None = None) -> pd.DataFrame:
    """:func:`across_task`, the whole training set at every step, one run an arm and seed.

    Returns the ensemble's table with the metric ``NULL_NORM``, the norm of the weights' part in the null space, and
    "share in the null space", its ratio to the norm of all weights: the cosine of the angle between the two.
    """
    seeds, task = list(seeds), across_task(settings)
    projectors = {int(seed): null_projector(task.data(int(seed))["train"][0]) for seed in seeds}

    def measure(snapshot: Snapshot) -> dict[str, Tensor]:
        weight = snapshot.parameters["weight"]
        null = weight @ torch.stack([projectors[int(s)] for s in snapshot.runs["seed"]]).to(weight.device)
        norm = null.flatten(1).norm(dim=1)
        return {NULL_NORM: norm, "share in the null space": norm / weight.flatten(1).norm(dim=1)}

    return train(
        task, arm_runs(settings, seeds), steps=settings["steps"], record=settings["record"], evaluate=("validation",),
        measure=measure, device=device,
    ).table  # fmt: skip


def shrinkage_effects(evaluation: pd.DataFrame, across: pd.DataFrame, conditions: Sequence[str]) -> dict[str, Effect]:
    """AdamW against Adam and against Adam + L2, on silent pixels in each of the conditions and across pixels."""
    parts = {
        f"silent pixels, {name}": halvings(evaluation[evaluation["condition"] == name], SILENT_NORM)
        for name in conditions
    }
    parts["across pixels, linear"] = halvings(across, NULL_NORM)
    return {
        against(name, control): paired(table, "AdamW", control, SHRINKAGE.metric)
        for control in CONTROLS
        for name, table in parts.items()
    }


# ---------------------------------------------------------------- dead parts of a deep network

DEEP = {
    "depth": 8,
    "train": 300,
    "steps": 400,
    "batch_size": 50,
    "lr": 0.005,
    "weight_decay": 1.0,
    "l2": 0.005,
    "seeds": list(range(100, 124)),
}


def _crossing(settings: Mapping) -> float:
    """ℓ/λ, the √v̂ at which both decays are equally strong. Raises ``ValueError`` where one of them is not above 0."""
    decay, l2 = settings["weight_decay"], settings["l2"]
    if not (decay > 0 and l2 > 0):
        raise ValueError(f"settings: weight_decay {decay}, l2 {l2}; numbers above 0 are needed")
    return l2 / decay


def deep_task(settings: Mapping = DEEP) -> Task:
    """Digits for a deep ReLU network without normalisation."""
    return Task(
        "digits, deep",
        lambda: MLP(depth=settings["depth"]),
        lambda seed: digits_splits(seed, train=settings["train"]),
    )


def dead_parts(seeds: Sequence[int], settings: Mapping = DEEP) -> pd.DataFrame:
    """What is silent in a deep ReLU network trained on digits, as shares of its hidden layers.

    Returns a tidy table, one row a run and metric:

    "second moment zero": weights between hidden layers whose ``exp_avg_sq`` is exactly 0 (so that no gradient, and no
    penalty, ever reached them). "no gradient": those whose gradient on the whole training set is exactly 0. "dead
    units": hidden units that are 0 for every training image. "left of the silent": rms of the weights whose second
    moment is zero, relative to where they started (absent where there are none). "below the crossing": weights with a
    nonzero √v̂ below ℓ/λ, where the coupled penalty is the stronger one.
    """
    depth, crossing, seeds = settings["depth"], _crossing(settings), list(seeds)
    if depth < 2:
        raise ValueError(f"settings: depth {depth}; at least two hidden layers are needed, for weights between them")
    task = deep_task(settings)
    names = [f"layers.{i}.weight" for i in range(1, depth)]
    moments: dict[tuple[str, int], Tensor] = {}

    def measure(snapshot: Snapshot) -> dict[str, Tensor]:
        v = torch.cat([snapshot.exp_avg_sq[name].flatten(1) for name in names], 1).cpu()
        moments.update(zip(zip(snapshot.runs["arm"], snapshot.runs["seed"], strict=True), v, strict=True))
        return {}

    runs = arm_runs(settings, seeds).assign(schedule="cosine")
    steps = settings["steps"]
    result = train(task, runs, steps=steps, batch_size=settings["batch_size"], evaluate=(), measure=measure,
                   keep_parameters=True)  # fmt: skip
    initial = initial_parameters(task.model, list(seeds))
    start = dict(zip(seeds, torch.cat([initial[name].flatten(1) for name in names], 1), strict=True))
    rows = []
    for i, run in enumerate(result.runs.itertuples()):
        own = {name: p[i].requires_grad_() for name, p in result.parameters.items()}
        x, y = task.data(int(run.seed))["train"]
        gradient, dead = silent_now(own, x, y, names)
        v, w = moments[run.arm, run.seed], torch.cat([own[name].detach().flatten() for name in names])
        v_hat = v / (1 - 0.999**steps)
        found = {
            "second moment zero": (v == 0).float().mean(),
            "no gradient": (gradient == 0).float().mean(),
            "dead units": dead,
            "below the crossing": ((v > 0) & (v_hat.sqrt() < crossing)).float().mean(),
        }
        if (v == 0).any():
            found["left of the silent"] = w[v == 0].norm() / start[run.seed][v == 0].norm()
        rows += [
            {"arm": run.arm, "seed": run.seed, "step": steps, "metric": m, "value": float(f)} for m, f in found.items()
        ]
    return pd.DataFrame(rows)


def silent_now(parameters: Mapping[str, Tensor], x: Tensor, y: Tensor, names: Sequence[str]) -> tuple[Tensor, float]:
    """One MLP on its training set: the gradient of the parameters ``names``, flat, and the share of dead hidden
    units."""
    h, dead = x.T, []
    depth = sum(name.endswith("weight") for name in parameters)
    for i in range(depth):
        h = parameters[f"layers.{i}.weight"] @ h + parameters[f"layers.{i}.bias"][:, None]
        if i < depth - 1:
            h = h.relu()
            dead.append((h == 0).all(1))
    gradients = torch.autograd.grad(functional.cross_entropy(h.T, y), [parameters[name] for name in names])
    return torch.cat([g.flatten() for g in gradients]), float(torch.cat(dead).float().mean())


# ---------------------------------------------------------------- nothing but noise

NOISE = {
    "steps": 6000,
    "lr": 0.01,
    "weight_decay": 0.4,
    "l2": 0.005,
    "coordinates": 200,
    "weak": 0.1,
    "strong": 10.0,
    "seeds": list(range(100, 124)),
}


def noise_regimes(settings: Mapping = NOISE) -> dict[str, float]:
    """{regime: standard deviation of the noise gradients}: weak and strong relative to ℓ/λ, where both decays hold a
    weight equally tight."""
    crossing = _crossing(settings)
    if not 0 < settings["weak"] < settings["strong"]:
        raise ValueError(f"settings: weak {settings['weak']}, strong {settings['strong']}; 0 < weak < strong is needed")
    return {f"{kind} noise, {settings[kind]:g} × ℓ/λ": settings[kind] * crossing for kind in ("weak", "strong")}


def drift(seeds: Sequence[int], settings: Mapping = NOISE) -> pd.DataFrame:
    """Where noise gradients drive weights that start at zero: a tidy table (regime, arm, seed, step, metric, value).

    "rms" is the root mean square over the coordinates, averaged over the last third of the steps; ``DRIFT.metric``
    is −log₂ of it, so that tighter is larger.
    """
    if settings["steps"] < 3 or settings["coordinates"] < 1:
        raise ValueError(
            f"settings: steps {settings['steps']}, coordinates {settings['coordinates']}; at least 3 and 1 are needed"
        )
    regimes, steps, seeds = noise_regimes(settings), settings["steps"], list(seeds)
    if not seeds:
        raise ValueError("seeds: there are none; at least one is needed")
    sd = torch.tensor(list(regimes.values()))[:, None, None]
    shape, tables = (len(regimes), len(seeds), settings["coordinates"]), []
    for arm, name in ARMS.items():
        draws = [generator(int(seed), "noise") for seed in seeds]

        def gradient(step: int, w: Tensor, draws=draws) -> Tensor:
            unit = torch.stack([torch.randn(settings["coordinates"], generator=rng) for rng in draws])
            return (unit * sd).flatten(0, 1)

        path = drive(gradient, torch.zeros(shape).flatten(0, 1), steps, lr=settings["lr"],
                     **({name: settings[name]} if name else {}))  # fmt: skip
        rms = path[-(steps // 3) :].square().mean((0, 2)).sqrt().unflatten(0, shape[:2])
        for regime, values in zip(regimes, rms.tolist(), strict=True):
            both = {"rms": values, DRIFT.metric: (-np.log2(values)).tolist()}
            for metric, found in both.items():
                tables.append(
                    pd.DataFrame({"seed": list(seeds), "value": found}).assign(
                        regime=regime, arm=arm, step=steps, metric=metric
                    )
                )
    return pd.concat(tables, ignore_index=True)


def drift_effects(table: pd.DataFrame) -> dict[str, Effect]:
    """AdamW against Adam + L2 under each of the noise regimes."""
    return {
        regime: paired(part, "AdamW", "Adam + L2", DRIFT.metric) for regime, part in table.groupby("regime", sort=False)
    }
