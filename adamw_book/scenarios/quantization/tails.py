"""Which weights make the tail: one hidden layer on digits, with and without normalisation, as the decay grows."""

from collections.abc import Sequence

import pandas as pd
import torch

from adamw_book.ensemble import train
from adamw_book.evidence import grid

from .quantisers import crest
from .tasks import CONDITIONS

TAILS = {
    "lr": 0.01,
    "weight_decay": [0.0, 0.3, 1.0, 3.0],
    "conditions": ["MLP · clean labels", "MLP, LayerNorm · clean labels"],
    "largest": 20,  # weights, of 2,048
}


def first_layers(seeds: Sequence[int]) -> pd.DataFrame:
    """The first weight matrix (32, 64) of the networks in ``TAILS``, trained now with AdamW at one learning rate and
    each decay: condition, weight_decay, seed, and

    crest: its crest factor. emptied: the share of its weights that are smaller than a tenth of the largest. rare: of
    its ``largest`` weights, the share that stand on a pixel with ink in fewer than one in ten of the training images.
    """
    rows = []
    for name in TAILS["conditions"]:
        one = CONDITIONS[name]
        runs = grid({"AdamW": {"lr": [TAILS["lr"]], "weight_decay": TAILS["weight_decay"]}}, seeds)
        result = train(
            one.task, runs, steps=one.steps, batch_size=one.batch_size, schedule=one.schedule, decays=one.decays,
            evaluate=(), keep_parameters=True, device="cpu",
        )  # fmt: skip
        w = result.parameters["layers.0.weight"]
        size = w.abs().flatten(1)
        emptied = (size < 0.1 * size.amax(1, keepdim=True)).float().mean(1)
        pixels = size.topk(TAILS["largest"], 1).indices % w.shape[-1]
        ink = torch.stack([(one.task.data(int(seed))["train"][0] > 0).float().mean(0) for seed in runs["seed"]])
        rare = (ink.gather(1, pixels) < 0.1).float().mean(1)
        own = {"crest": crest(w), "emptied": emptied, "rare": rare}
        columns = {key: value.double().numpy() for key, value in own.items()}
        rows.append(runs[["weight_decay", "seed"]].assign(condition=name, **columns))
    return pd.concat(rows, ignore_index=True)
