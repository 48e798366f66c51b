"""How much smaller does a penalty make the weights of rare and of frequent words, at equal overall strength?"""

from collections.abc import Mapping, Sequence
from numbers import Integral

import numpy as np
import pandas as pd
import torch

from adamw_book.ensemble import train
from adamw_book.evidence import Claim, Effect, grid, paired
from adamw_book.models import matrices
from adamw_book.task import Task

from .tasks import CONDITIONS, WORD_WEIGHTS

SHRINKAGE = {
    "lr": 0.01,
    "bins": 10,
    # Chosen on tuning seeds: with either, half of the word weights' overall size is left.
    "coefficients": {
        "all words informative · linear": {"weight_decay": 1.31, "l2": 0.00895},
        "all words informative · MLP": {"weight_decay": 1.44, "l2": 0.00239},
        "real text · linear": {"weight_decay": 1.58, "l2": 0.00114},
        "real text · MLP": {"weight_decay": 3.33, "l2": 0.00179},
        "real text · MLP, LayerNorm": {"weight_decay": 0.581, "l2": 0.00155},
    },
    "tuning_seeds": list(range(10)),
    "evaluation_seeds": list(range(2000, 2012)),
}

RARE_WORDS = Claim(
    id="sparse_gradients.rare_words",
    tag="3161372",
    statement="AdamW shrinks the weights of rare words more than Adam + L2 does, at equal overall strength.",
    source="AdamW's uniform shrinkage matters most for parameters with sparse gradients; the adaptive denominator of "
    "Adam + L2 spares parameters whose gradients are weak or zero.",
    criterion="Supported: with both coefficients set so that half of the overall size of the word weights is left, the "
    "weights "
    "of the rarer half of the words are smaller under AdamW by at least a factor of 1.25 (0.32 halvings), with the "
    "95% interval above zero.",
    metric="halvings of the rare words' weights",
    smallest_effect=0.32,
    primary="real text · MLP",
    dividing="the network",
)


def weight_sizes(
    task: Task, weight: str, runs: pd.DataFrame, *, steps: int, batch_size: int, bins: int = 10,
    schedule: str = "constant",
) -> pd.DataFrame:  # fmt: skip
    """Train ``runs`` and return the size of the word weights by word frequency.

    weight: the name of the parameter whose last axis is words (the task's inputs are (N, words) indicators). Words are
    sorted by the number of training texts that hold them and cut into ``bins`` groups of equal size, the rarest first.
    Returns one row a run and group, and one for all words together (group −1), with the columns of ``runs`` and group,
    frequency (the mean share of training texts that hold a word of the group) and size (the root mean square of the
    group's weights).
    """
    if not isinstance(bins, Integral) or bins < 2:
        raise ValueError(f"bins: {bins}; at least 2 groups are needed")
    result = train(
        task, runs, steps=steps, batch_size=batch_size, evaluate=(), schedule=schedule, decays=matrices,
        keep_parameters=True, device="cpu",
    )  # fmt: skip
    if weight not in result.parameters:
        raise ValueError(f"weight: {weight!r} is no parameter of the model; it has {', '.join(result.parameters)}")
    shares = {seed: task.data(int(seed))["train"][0].mean(0) for seed in result.runs["seed"].unique()}
    shape, words = tuple(result.parameters[weight].shape[1:]), len(next(iter(shares.values())))
    if len(shape) < 2 or shape[-1] != words or bins > words:
        raise ValueError(
            f"weight, bins: {weight!r} of shape {shape}, {bins}; a last axis of {words} words, in at most as many "
            "groups, is needed"
        )
    tables = []
    for i, seed in enumerate(result.runs["seed"]):
        square, share = result.parameters[weight][i].square().mean(0), shares[seed]
        groups = {-1: torch.arange(len(share))} | dict(enumerate(torch.tensor_split(share.argsort(stable=True), bins)))
        rows = [(g, share[words].mean().item(), square[words].mean().sqrt().item()) for g, words in groups.items()]
        table = pd.DataFrame(rows, columns=["group", "frequency", "size"])
        tables.append(pd.DataFrame([runs.iloc[i]] * len(rows)).reset_index(drop=True).join(table))
    return pd.concat(tables, ignore_index=True)


def measure_sizes(name: str, arms: Mapping[str, Mapping[str, Sequence[float]]], seeds: Sequence[int]) -> pd.DataFrame:
    """:func:`weight_sizes` of one condition (a name in ``CONDITIONS``) for the configurations in ``arms``."""
    runs = grid(arms, seeds)
    own = CONDITIONS[name]
    sizes = weight_sizes(
        own.task, WORD_WEIGHTS[name.rpartition(" · ")[2]], runs, steps=own.steps, batch_size=own.batch_size,
        bins=SHRINKAGE["bins"], schedule=own.schedule,
    )  # fmt: skip
    return sizes.assign(condition=name)


def equal_strength(seeds: Sequence[int], names: Sequence[str] = tuple(SHRINKAGE["coefficients"])) -> pd.DataFrame:
    """Adam, and AdamW and Adam + L2 at equal overall strength, in conditions of ``SHRINKAGE``: the weights' sizes.

    Adds the column ``left``: a group's size as a share of its size under Adam with the same seed.

    Raises ValueError for another condition, and for seeds on which the coefficients were set.
    """
    seeds = list(seeds)
    if again := sorted(set(seeds) & set(SHRINKAGE["tuning_seeds"])):
        raise ValueError(f"seeds: {again} have set the coefficients; fresh seeds are needed")
    found = []
    for name in names:
        if name not in SHRINKAGE["coefficients"]:
            raise ValueError(f"names: {name!r}; choose from {', '.join(map(repr, SHRINKAGE['coefficients']))}")
        own = {column: [value] for column, value in SHRINKAGE["coefficients"][name].items()}
        arms = {"AdamW": {"weight_decay": own["weight_decay"]}, "Adam + L2": {"l2": own["l2"]}, "Adam": {}}
        found.append(measure_sizes(name, {arm: {"lr": [SHRINKAGE["lr"]]} | axes for arm, axes in arms.items()}, seeds))
    return left(pd.concat(found, ignore_index=True))


def _alone(plain: pd.Series, needed: pd.DataFrame) -> None:
    """Raise ValueError unless each row of ``needed`` has one size under Adam, above 0, in ``plain``."""
    if (
        plain.index.has_duplicates
        or not (plain > 0).all()
        or not pd.MultiIndex.from_frame(needed).isin(plain.index).all()
    ):
        raise ValueError(f"arm: {len(plain)} sizes under 'Adam'; one above 0 for each {', '.join(needed)} is needed")


def left(sizes: pd.DataFrame) -> pd.DataFrame:
    """Add the column ``left``: each size as a share of that under Adam, for the same seed, group and learning rate.
    Raises ValueError where Adam's size is missing, there twice, or 0."""
    keys = ["condition", "lr", "seed", "group"]
    plain = sizes[sizes["arm"] == "Adam"].set_index(keys)["size"].rename("plain")
    _alone(plain, sizes[keys])
    both = sizes.join(plain, on=keys)
    return both.assign(left=both["size"] / both["plain"]).drop(columns="plain")


def halvings(shares: pd.DataFrame) -> pd.DataFrame:
    """How often the weights of the rarer half of the words were halved, log₂ of Adam's size over the arm's: a tidy
    table by condition, arm and seed. The groups are of equal size, so their mean squares can be averaged."""
    groups = shares[shares["group"] >= 0]
    rare = groups[groups["group"] < (groups["group"].max() + 1) // 2]
    keys = ["condition", "lr", "seed"]
    rms = (rare["size"] ** 2).groupby([rare[key] for key in ("arm", *keys)], sort=False).mean() ** 0.5
    table = rms.rename("size").reset_index()
    plain = table[table["arm"] == "Adam"].set_index(keys)["size"].rename("plain")
    _alone(plain, table[keys])
    table = table[table["arm"] != "Adam"].join(plain, on=keys)
    value = np.log2(table["plain"] / table["size"])
    return table[["condition", "arm", "seed"]].assign(step=300, metric=RARE_WORDS.metric, value=value)


def rare_word_effects(shares: pd.DataFrame) -> dict[str, Effect]:
    """AdamW − (Adam + L2) in :func:`halvings`, for each condition in ``shares`` (tables of :func:`equal_strength`)."""
    return {
        name: paired(table, "AdamW", "Adam + L2", RARE_WORDS.metric)
        for name, table in halvings(shares).groupby("condition", sort=False)
    }
