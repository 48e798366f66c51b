"""Functions of trained ensembles: what a ``Condition.judge`` measures on each replica's own data."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from adamw_book.ensemble import Result, Task, over_replicas
from adamw_book.jobs import side_by_side


def stacked(task: Task, parameters: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """The logits (R, N, C) of R trained models, {name: (R, …)}, as a function of their inputs (R, N, D)."""
    apply = over_replicas(task.model)
    return lambda x: apply(dict(parameters), x)


def each(task: Task, result: Result, split: str, function: Callable, block: int = 12) -> Tensor:
    """``function(logits, x, y)``, which gives one value (R,) a replica, for all replicas of a result that kept its
    parameters; x and y are the replica's own ``split``. ``block`` replicas at a time, each block on its own core."""
    if result.parameters is None:
        raise ValueError("result: it kept no parameters; train with keep_parameters=True")

    def values(start: int) -> Tensor:
        rows = slice(start, start + block)
        splits = [task.data(int(seed))[split] for seed in result.runs["seed"][rows]]
        x, y = (torch.stack(part) for part in zip(*splits, strict=True))
        logits = stacked(task, {name: p[rows] for name, p in result.parameters.items()})
        return function(logits, x, y).detach()

    return torch.cat(side_by_side(values, range(0, len(result.runs), block)))
