"""The *pull*: the gradients of a real training run are recorded and played to each optimizer, so that whatever differs
is the doing of the penalty."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adamw_book.dynamics import drive
from adamw_book.ensemble import Snapshot, Task, train
from adamw_book.evidence import Claim, Effect, paired

from .conditions import condition, task

WEAK_GRADIENTS = Claim(
    id="overfitting.weak_gradients",
    tag="3096487",
    statement="Where gradients are weak, Adam + L2 regularises less than it does where they are strong; AdamW does "
    "not make this difference.",
    source="Not every parameter gets a strong gradient at every step; for weak or zero gradients the adaptive "
    "denominator of Adam + L2 "
    "reduces or even cancels the regularisation, while AdamW's decay acts on all of them.",
    criterion="The pull on the weights with the weakest gradients, divided by the pull on those with the strongest, "
    "is larger under "
    "AdamW than under Adam + L2, by at least a factor of 1.25 (0.32 on a log2 scale), with the 95% interval above "
    "zero.",
    metric="log2 of weak over strong pull",
    smallest_effect=0.32,
)


def record_gradients(
    task: Task, seeds: Sequence[int], steps: int, lr: float, batch_size: int = 50
) -> tuple[dict, dict]:
    """The gradients that real training runs with plain Adam met: ({name: start (R, …)}, {name: gradients (steps, R,
    …)})."""
    runs = pd.DataFrame({"arm": "Adam", "lr": lr, "weight_decay": 0.0, "l2": 0.0, "seed": list(seeds)})
    start: dict[str, Tensor] = {}
    history: dict[str, list[Tensor]] = {}

    def measure(snapshot: Snapshot) -> dict[str, Tensor]:
        for name, value in snapshot.parameters.items():
            if snapshot.step == 0:
                start[name] = value.clone()
            else:
                history.setdefault(name, []).append(snapshot.gradients[name].clone())
        return {}

    train(task, runs, steps=steps, batch_size=batch_size, record=range(steps + 1), evaluate=(), measure=measure,
          device="cpu", chunk_size=len(runs), progress=False)  # fmt: skip
    return start, {name: torch.stack(gradients) for name, gradients in history.items()}


PULL = {
    "steps": 400,
    "lr": 0.001,
    "weight_decay": 0.3,
    "l2": 0.001,
    "models": ["MLP, 4 hidden layers", "CNN", "RNN over image rows"],
    "seeds": list(range(200, 212)),
}


def _pull(plain: Tensor, pulled: Tensor) -> Tensor:
    """The share of its size that the penalty took from a group of coordinates: slope of (plain − pulled) on plain,
    last axis."""
    return ((plain - pulled) * plain).sum(-1) / plain.square().sum(-1)


def pull_by_gradient(
    start: dict, gradients: dict, *, lr: float, weight_decay: float, l2: float, bins: int = 12
) -> pd.DataFrame:
    """Play recorded gradients to AdamW, to Adam + L2 and to Adam, and return what the penalty alone did to each
    coordinate.

    The gradients stay the same, so the difference to Adam is the penalty's doing. Coordinates (weights, not biases)
    are sorted by their root-mean-square gradient into ``bins`` groups of equal size, for each replica; the *pull* of
    a group is the share of its
    size that the penalty took: the least-squares slope of (w_Adam − w_arm) on w_Adam. Returns arm, seed (the replica's
    index), bin, gradient (mean rms gradient of the group), pull.
    """
    names = [n for n in start if start[n].ndim > 2]
    w0 = torch.cat([start[n].flatten(1) for n in names], 1)
    g = torch.cat([gradients[n].flatten(2) for n in names], 2)
    final = {
        arm: drive(lambda step, w: g[step], w0, len(g), lr=lr, **hyper)[-1]
        for arm, hyper in {"AdamW": {"weight_decay": weight_decay}, "Adam + L2": {"l2": l2}, "Adam": {}}.items()
    }
    size = g.square().mean(0).sqrt()
    rows = []
    for replica in range(w0.shape[0]):
        for i, group in enumerate(torch.tensor_split(size[replica].argsort(), bins)):
            for arm in ("AdamW", "Adam + L2"):
                pull = _pull(final["Adam"][replica, group], final[arm][replica, group])
                row = {"gradient": float(size[replica, group].mean()), "pull": float(pull)}
                rows.append({"arm": arm, "seed": replica, "bin": i} | row)
    return pd.DataFrame(rows)


def measure_pull(model: str, seeds: Sequence[int]) -> pd.DataFrame:
    """:func:`pull_by_gradient` on the gradients of real runs of one model (a name in ``MODELS``) with 20% wrong
    labels."""
    start, gradients = record_gradients(task(condition(model, "20% wrong labels")), seeds, PULL["steps"], PULL["lr"])
    pulls = pull_by_gradient(start, gradients, lr=PULL["lr"], weight_decay=PULL["weight_decay"], l2=PULL["l2"])
    return pulls.assign(seed=np.asarray(seeds)[pulls["seed"]], model=model)


def weak_over_strong(pulls: pd.DataFrame) -> pd.DataFrame:
    """log₂ of the pull on the weakest-gradient quarter of the groups over that on the strongest, a tidy table by arm
    and seed."""
    quarter = (pulls["bin"].max() + 1) // 4
    ends = pulls.assign(
        end=np.select([pulls["bin"] < quarter, pulls["bin"] > pulls["bin"].max() - quarter], ["weak", "strong"], "")
    )
    means = ends[ends["end"] != ""].groupby(["arm", "seed", "end"])["pull"].mean().unstack("end")
    value = np.log2(means["weak"].clip(lower=1e-6) / means["strong"].clip(lower=1e-6))
    return value.rename("value").reset_index().assign(step=PULL["steps"], metric=WEAK_GRADIENTS.metric)


def just_silenced(
    seeds: Sequence[int], before: int = 1000, after: int = 300, sd: tuple[float, float] = (1.0, 0.03)
) -> pd.DataFrame:
    """Synthetic: half of the coordinates get strong noise gradients, then none; the other half weak ones throughout.

    Returns, for each arm and seed, log₂ of the pull on the silenced half over that on the other, within ``after``
    steps of the silence (a tidy table). The pull is taken as in :func:`pull_by_gradient`.
    """
    n, steps, rows = 400, before + after, []
    rng = torch.Generator().manual_seed(int(seeds[0]))
    draws = torch.randn(steps, len(seeds), n, generator=rng) * torch.tensor(sd).repeat_interleave(n // 2)
    draws[before:, :, : n // 2] = 0
    start = torch.randn(len(seeds), n, generator=rng)
    paths = {
        arm: drive(lambda step, w: draws[step], start, steps, lr=PULL["lr"], **hyper)
        for arm, hyper in {
            "AdamW": {"weight_decay": PULL["weight_decay"]},
            "Adam + L2": {"l2": PULL["l2"]},
            "Adam": {},
        }.items()
    }
    for arm in ("AdamW", "Adam + L2"):
        left = {
            t: 1 - _pull(paths["Adam"][t].unflatten(1, (2, -1)), paths[arm][t].unflatten(1, (2, -1)))
            for t in (before, steps)
        }
        pull = 1 - left[steps] / left[before]
        for seed, (silenced, steady) in zip(seeds, pull.tolist(), strict=True):
            rows.append(
                {
                    "arm": arm,
                    "seed": seed,
                    "step": steps,
                    "metric": WEAK_GRADIENTS.metric,
                    "value": float(np.log2(silenced / steady)),
                }
            )
    return pd.DataFrame(rows)


def pull_effects(pulls: pd.DataFrame, silenced: pd.DataFrame) -> dict[str, Effect]:
    """How much more of its pull AdamW spends on weak gradients than Adam + L2 does, for each network and the synthetic
    case."""
    regimes = {model: weak_over_strong(table) for model, table in pulls.groupby("model", sort=False)}
    regimes["synthetic: strong gradients that have just stopped"] = silenced
    return {regime: paired(table, "AdamW", "Adam + L2", WEAK_GRADIENTS.metric) for regime, table in regimes.items()}
