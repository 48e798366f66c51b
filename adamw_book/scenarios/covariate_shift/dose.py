"""Decay dose by dose: accuracy with the bit as it was and with the bit flipped, and the largest weight that is left."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from adamw_book.models import matrices
from adamw_book.task import Snapshot

from .tasks import CONDITIONS
from .theory import runs_at

DOSE = {
    "lr": 0.015,
    "doses": {
        "AdamW": [0.0, 0.1, 0.3, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0],
        "Adam + L2": [0.0, 0.0005, 0.002, 0.005, 0.01, 0.03, 0.1, 0.3],
        "Adam": [0.0003, 0.0007, 0.0015, 0.004, 0.015, 0.05, 0.15],
    },
    "conditions": ["bit · MLP", "bit · MLP, LayerNorm", "bit · linear"],
    "seeds": list(range(2000, 2024)),
}


def weights(snapshot: Snapshot) -> dict[str, Tensor]:
    """The largest |w| of all matrices, of the first matrix's weights on the bit (its last input) and of those on the
    pixels, each (R,)."""
    found = [value for name, value in snapshot.parameters.items() if matrices(name)]
    largest = torch.stack([value.flatten(1).abs().amax(1) for value in found]).amax(0)
    first = found[0].abs()
    return {
        "largest weight": largest,
        "largest weight on the bit": first[..., -1].amax(1),
        "largest weight on a pixel": first[..., :-1].flatten(1).amax(1),
    }


def dose_response(seeds: Sequence[int]) -> pd.DataFrame:
    """Test accuracy, flipped test accuracy and :func:`weights` of each network as the decay grows at one learning rate,
    and of Adam as its learning rate does: a tidy table with the column ``condition``."""
    runs = runs_at(DOSE["doses"], DOSE["lr"], seeds)
    tables = [
        CONDITIONS[name].train(runs, ("test", "flipped test"), measure=weights, device="cpu").assign(condition=name)
        for name in DOSE["conditions"]
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[table["metric"].str.contains("test accuracy|largest")]
