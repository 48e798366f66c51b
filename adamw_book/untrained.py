"""What tells one task from another before anything is trained: a few numbers a record keeps of every task it is about.

A probe trains some of a protocol's conditions. These numbers cost one forward pass, so they can be taken of all: a
network of another depth, other data or another loss under the same name changes them.
"""

from collections.abc import Callable, Mapping

import pandas as pd
import torch

from adamw_book.ledger import probe_rows
from adamw_book.replicas import given_parameters, initial_parameters, over_replicas
from adamw_book.task import Task


@torch.no_grad()
def untrained(
    tasks: Mapping[str, Task], decays: Mapping[str, Callable[[str], bool]] | None = None, seed: int = 0
) -> pd.DataFrame:
    """Rows for a study's probe: each task, by its condition's name, as ``seed`` starts it.

    "parameters" and "decayed parameters" count numbers, the latter those that ``decays``, where it names the condition,
    lets decay act on; "<split> loss" is the task's loss on each of its splits, and "perturbed train loss" that on the
    inputs of its first update, where the task has a ``perturb``.
    """
    rows = []
    for name, task in tasks.items():
        parameters = initial_parameters(task.model, [seed]) | given_parameters(task, [seed])
        logits = over_replicas(task.model)
        decayed = (decays or {}).get(name, lambda parameter: True)
        sizes = {parameter: value[0].numel() for parameter, value in parameters.items()}
        found = {
            "parameters": sum(sizes.values()),
            "decayed parameters": sum(size for parameter, size in sizes.items() if decayed(parameter)),
        }
        splits = {split: (x[None], y[None]) for split, (x, y) in task.data(seed).items()}
        if task.perturb is not None:
            x, y = splits["train"]
            with torch.enable_grad():
                splits["perturbed train"] = task.perturb(lambda x: logits(parameters, x), x, y).detach(), y  # noqa: B023
        found |= {f"{split} loss": task.loss(logits(parameters, x), y).item() for split, (x, y) in splits.items()}
        rows += [{"condition": name, "metric": metric, "value": value} for metric, value in found.items()]
    table = probe_rows(pd.DataFrame(rows).assign(arm="untrained", seed=seed, step=0))
    counts = table["metric"].str.endswith("parameters")
    return table.assign(atol=table["atol"].mask(counts, 0.5), rtol=table["rtol"].mask(counts, 0.0))
