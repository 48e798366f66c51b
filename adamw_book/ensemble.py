"""Train hundreds of models at once: arms × grid × seeds on one replica axis, one optimizer step for all.

The parameters of R models are stacked along a leading axis, ``torch.func.vmap`` maps the forward pass over it, one
backward pass gives all gradients, and one :class:`adamw_book.optim.AdamW`, whose ``lr``, ``weight_decay`` and ``l2``
are tensors of shape (R,), updates all of them. Runs with the same seed start from the same weights and see the same
batches, whatever their arm: comparisons are paired. Replicas never mix, so a run gives the same result alone or as
one of a thousand (to float rounding).
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from adamw_book.arguments import real, shown, whole
from adamw_book.data import Splits, generators_kept
from adamw_book.jobs import on_workers, side_by_side, workers
from adamw_book.replicas import (
    HYPER,
    Replicas,
    batch_order,
    given_parameters,
    initial_parameters,
    keep_freed_memory,
    made,
    over_replicas,
)
from adamw_book.schedules import decay_factors, learning_rate_factors
from adamw_book.task import Snapshot, Task, accuracy, cross_entropy

__all__ = [
    "Result",
    "Snapshot",
    "Task",
    "accuracy",
    "batch_order",
    "cross_entropy",
    "initial_parameters",
    "over_replicas",
    "train",
]


@dataclass(frozen=True)
class Result:
    """``table``: the runs' columns + step, metric, value (tidy), by step, then metric, then run in the order of
    ``runs``, however many chunks there were. ``runs``: as given, numbered anew. ``parameters``: {name: (R, …)}, in the
    order of ``runs``, if kept. ``reports``: what the ``kind`` of replicas had to report, empty where nothing went
    wrong."""

    table: pd.DataFrame
    runs: pd.DataFrame
    parameters: dict[str, Tensor] | None
    reports: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Job:
    """One chunk of the runs, and all that it takes to train it anywhere. ``splits`` and ``starts``
    (:class:`.replicas.Replicas`): of the chunk's seeds; the rest as in :func:`train`."""

    task: Task
    runs: pd.DataFrame
    splits: dict[int, Splits]
    starts: dict[int, dict[str, Tensor]]
    steps: int
    batch_size: int | None
    record: tuple[int, ...]
    evaluate: tuple[str, ...]
    measure: Callable[[Snapshot], dict[str, Tensor]] | None
    decays: Callable[[str], bool]
    betas: tuple[float, float]
    eps: float
    keep_parameters: bool
    device: torch.device
    kind: Callable[..., Replicas] = Replicas

    def rows(self, start: int, stop: int) -> "Job":
        """The job of some of the runs, with what they need of the data."""
        runs = self.runs.iloc[start:stop]
        seeds = runs["seed"].unique()
        return replace(
            self, runs=runs, splits={s: self.splits[s] for s in seeds}, starts={s: self.starts[s] for s in seeds}
        )


def train_chunk(
    job: Job, stepped: Callable[[int], None] = lambda runs: None
) -> tuple[list[pd.DataFrame], dict[str, Tensor], list[pd.DataFrame]]:
    """Train a chunk: a table for each recorded step and metric, the parameters if they are to be kept, on the CPU, and
    what the replicas report. ``stepped`` is told after every step how many runs took it."""
    replicas = job.kind(
        job.task, job.runs, job.splits, job.starts, {"train", *job.evaluate}, job.steps, job.batch_size, job.decays,
        job.betas, job.eps, job.device,
    )  # fmt: skip
    frames = replicas.record(0, job.evaluate, job.measure) if 0 in job.record else []
    for step in range(1, job.steps + 1):
        replicas.advance(step)
        if step in job.record:
            frames += replicas.record(step, job.evaluate, job.measure)
        stepped(len(job.runs))
    kept = {n: p.cpu() for n, p in replicas.judged().items()} if job.keep_parameters else {}
    return frames, kept, replicas.reports


@generators_kept()
def train(
    task: Task,
    runs: pd.DataFrame,
    *,
    steps: int,
    batch_size: int | None = None,
    record: Sequence[int] | None = None,
    evaluate: Sequence[str] = ("train", "validation"),
    measure: Callable[[Snapshot], dict[str, Tensor]] | None = None,
    decays: Callable[[str], bool] = lambda name: True,
    schedule: str = "constant",
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    keep_parameters: bool = False,
    device: str | torch.device | None = None,
    chunk_size: int | None = None,
    kind: Callable[..., Replicas] = Replicas,
) -> Result:
    """Train every row of ``runs`` on ``task`` for ``steps`` updates and return what was recorded.

    runs: columns arm, lr, weight_decay, l2, seed; further columns are carried along. Optional, where runs differ in it:
        ``schedule``; ``warmup``, the share of the steps over which ``lr`` first climbs from 0, by default 0;
        ``decay_schedule``, a name in ``DECAY_SCHEDULES``: how the decay follows the schedule, by default as in torch
        (l2 has no schedule of its own); ``toward``, where decay pulls to: "zero", the default, or "start", the weights
        that ``task.start`` gives (parameters that it leaves out decay to zero).
    schedule: of the learning rate, a name in ``SCHEDULES``, for runs that name none of their own.
    batch_size: examples a step, drawn without replacement epoch by epoch; None takes the whole training set at
        every step.
    record: the steps (0 … steps, counted in finished updates) at which ``evaluate``'s splits, "weight norm" (the
        Euclidean norm of all parameters) and ``measure`` are recorded; by default the end. Leave "test" out of
        ``evaluate`` until the last run.
    decays: names of parameters → whether weight_decay and l2 act on them (by default all, as in torch).
    chunk_size: replicas trained at a time; None takes what the memory holds, and on a CPU no more than its caches like,
        in as many chunks as keep all cores busy.
    kind: how the runs of a chunk are trained, :class:`adamw_book.replicas.Replicas` or something with its arguments and
        methods, such as :class:`adamw_book.federated.Federation`.
    device: by default a GPU where there is one.

    Chunks are jobs of their own. On a CPU each core takes one at a time; inside ``joblib.parallel_config`` its workers
    do (:mod:`adamw_book.jobs`): processes, or those of a Ray or Dask cluster, with the same result.

    On a terminal a bar shows how far it is (``TQDM_DISABLE=1``: none).

    The global generators of torch, numpy and python are left as they were. Raises ``ValueError`` for runs that are no
    table, missing columns, coefficients that are no finite numbers of 0 or more, an unknown schedule or split, an
    impossible batch size or step.
    """
    runs, filled = _checked(runs, schedule)
    steps = whole("steps", steps)
    record = _recorded(record, steps)
    if isinstance(evaluate, str):
        raise ValueError(f"evaluate: {evaluate!r}; a sequence of names, such as ({evaluate!r},), is needed")
    evaluate = tuple(evaluate)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    splits = {seed: task.data(int(seed)) for seed in runs["seed"].unique()}
    if task.start is None and (runs["toward"] == "start").any():
        raise ValueError(
            f"runs: toward 'start', and task {task.name!r} has no start; 'zero', or a Task(start=…), is needed"
        )
    given = given_parameters(task, list(splits))
    starts = {seed: {name: p[i] for name, p in given.items()} for i, seed in enumerate(splits)}
    _check_splits(task.name, splits, ("train", *evaluate))
    if batch_size is not None:
        examples = len(next(iter(splits.values()))["train"][0])
        needed = f"None, for the whole training set of {examples} examples, or a positive whole number of at most that"
        batch_size = whole("batch_size", batch_size, 1, examples, needed)
    if chunk_size is not None:
        chunk_size = whole("chunk_size", chunk_size, needed="a positive whole number, or None,")

    template = made(task.model)
    if any(True for _ in template.buffers()):
        raise ValueError(
            "task.model: the module keeps buffers (running statistics?), which replicas cannot share; "
            "use GroupNorm or LayerNorm"
        )
    if not any(p.requires_grad for p in template.parameters()):
        raise ValueError("task.model: none of its parameters asks for a gradient; at least one is needed")

    # runs of one seed side by side share their batches; a measurement sees them in the order given
    order = np.argsort(pd.factorize(runs["seed"])[0], kind="stable") if measure is None else np.arange(len(runs))
    job = Job(
        task, runs.iloc[order], splits, starts, steps, batch_size, tuple(record), evaluate, measure, decays, betas, eps,
        keep_parameters, device, kind,
    )  # fmt: skip
    keep_freed_memory()
    elsewhere = workers()
    size = chunk_size or _fitting_chunk(job, template, elsewhere)
    size = size if measure is not None else _whole_seeds(job.runs["seed"], size)
    frames, kept, reports, start = [], [], [], 0
    with tqdm(
        total=len(runs) * steps, desc=task.name, unit="step", unit_scale=True, leave=False, disable=None,
        mininterval=1.0,
    ) as bar:  # fmt: skip
        if len(runs) > size and (elsewhere > 1 or (device.type == "cpu" and torch.get_num_threads() > 1)):
            jobs = [job.rows(i, i + size) for i in range(0, len(runs), size)]
            if elsewhere > 1:
                chunks = on_workers(train_chunk, jobs, lambda done: bar.update(len(done.runs) * steps))
            else:
                chunks = side_by_side(lambda one: train_chunk(one, bar.update), jobs)
            tables, kept, reported = zip(*chunks, strict=True)
            reports = [report for some in reported for report in some]
            frames, start = [frame for some in tables for frame in some], len(runs)
        while start < len(runs):
            done = bar.n
            try:
                tables, parameters, reported = train_chunk(job.rows(start, start + size), bar.update)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size, bar.n = size // 2, done
                torch.cuda.empty_cache()
                continue
            frames += tables
            kept.append(parameters)
            reports += reported
            start += size
    # chunk after chunk as they came; the sort is stable, so that the runs keep their order
    metrics = list(dict.fromkeys(frame["metric"].iloc[0] for frame in frames))
    frames.sort(key=lambda frame: (frame["step"].iloc[0], metrics.index(frame["metric"].iloc[0])))
    table = pd.concat(frames).drop(columns=filled)
    place = np.argsort(order)
    rows = (np.arange(0, len(table), len(runs))[:, None] + place).ravel()
    table = table.iloc[rows].reset_index(drop=True)
    stacked = {n: torch.cat([k[n] for k in kept])[torch.tensor(place)] for n in kept[0]} if keep_parameters else None
    reported = pd.concat(reports, ignore_index=True) if reports else pd.DataFrame()
    return Result(table, runs.drop(columns=filled), stacked, reported.drop(columns=filled, errors="ignore"))


def _checked(runs: pd.DataFrame, schedule: str) -> tuple[pd.DataFrame, list[str]]:
    """The runs with all their columns, and the names of those that were filled in."""
    if not isinstance(runs, pd.DataFrame):
        raise ValueError(f"runs: of type {type(runs).__name__}; a pandas.DataFrame with a row for each run is needed")
    missing = [c for c in ("arm", *HYPER, "seed") if c not in runs]
    if missing:
        raise ValueError(
            f"runs: no column {missing[0]!r}; needed are arm, lr, weight_decay, l2, seed (found {list(runs.columns)})"
        )
    if taken := [c for c in ("step", "metric", "value") if c in runs]:
        raise ValueError(f"runs: the column {taken[0]!r} is one of the result's; rename it or leave it out")
    if not runs.columns.is_unique:
        raise ValueError(f"runs: two columns {runs.columns[runs.columns.duplicated()][0]!r}; one of a name is needed")
    if runs.empty:
        raise ValueError("runs: the table is empty; at least one run is needed")
    for column in (*HYPER, "seed"):
        number = real(runs[column])
        good = np.isfinite(number) & (number >= 0) & (column != "seed" or number == np.floor(number))
        if not good.all():
            kind = "a whole" if column == "seed" else "a finite"
            bad = runs[column][~good].iloc[0]
            raise ValueError(f"runs: {column} {shown(bad)}; {kind} number of 0 or more is needed")
    checked = runs.reset_index(drop=True).copy()
    optional = {"schedule": schedule, "warmup": 0.0, "decay_schedule": "torch", "toward": "zero"}
    filled = [column for column in optional if column not in checked]
    checked = checked.assign(**{column: optional[column] for column in filled})
    for name, warmup, decay, toward in set(checked[list(optional)].itertuples(False, None)):
        decay_factors(decay, learning_rate_factors(name, 1, warmup))
        if toward not in ("zero", "start"):
            raise ValueError(f"runs: toward {toward!r}; 'zero' or 'start' is needed")
    return checked, filled


def _recorded(record: Iterable[int] | None, steps: int) -> list[int]:
    asked = np.asarray([steps] if record is None else list(record) if np.iterable(record) else [])
    numbers = asked.dtype.kind in "iuf" and asked.ndim == 1 and asked.size > 0
    if not numbers or (asked != np.floor(asked)).any() or asked.min() < 0 or asked.max() > steps:
        raise ValueError(f"record: {record}; whole numbers from 0 to steps={steps} are needed")
    return sorted({int(step) for step in asked})


def _check_splits(task: str, splits: dict[int, Splits], names: Iterable[str]) -> None:
    """Replicas are stacked: under each seed a split has one shape, and a target for each input."""
    first = next(iter(splits))
    for seed, name in itertools.product(splits, names):
        if name not in splits[seed]:
            raise ValueError(f"evaluate: task {task!r} has no split {name!r}; it has {list(splits[seed])}")
        (x, y), expected = ([tuple(t.shape) for t in splits[s][name]] for s in (seed, first))
        if not 0 < x[0] == y[0] or [x, y] != expected:
            raise ValueError(
                f"task.data: {name!r} has inputs {x} and targets {y} under seed {seed}, {expected} under seed {first}; "
                "a target for each input, and the same shapes under each seed, are needed"
            )


def _whole_seeds(seeds: pd.Series, size: int) -> int:
    """At most ``size`` runs such that no chunk tears a seed's runs apart more than it has to."""
    each = int((seeds == seeds.iloc[0]).sum())
    if size >= len(seeds):
        return size
    if size >= each:
        return size - size % each
    return -(-each // -(-each // size))


def _fitting_chunk(job: Job, template: nn.Module, elsewhere: int) -> int:
    """Replicas that fit into half of the free memory, counted from one replica's parameters and saved activations, in
    as many chunks as keep all cores, or ``elsewhere`` that many workers, busy."""
    x, y = next(iter(job.splits.values()))["train"]
    x, y = (x, y) if job.batch_size is None else (x[: job.batch_size], y[: job.batch_size])
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        job.task.loss(template(x)[None], y[None])
    # per run: weights, gradients, two moments, temporaries of the update; activations forward and backward
    per_replica = job.kind.models * (
        6 * sum(p.numel() * p.element_size() for p in template.parameters())
        + 3 * saved
        + 2 * x.numel() * x.element_size()
    )
    if job.device.type == "cuda":
        return max(1, min(len(job.runs), int(0.5 * torch.cuda.mem_get_info(job.device)[0] / per_replica)))
    # a chunk that stays in the CPU's caches is faster than a larger one, and the cores share them evenly
    chunks = -(-len(job.runs) // max(1, min(256 // job.kind.models, int(2**26 / per_replica))))
    cores = elsewhere if elsewhere > 1 else torch.get_num_threads()
    return -(-len(job.runs) // (-(-chunks // cores) * cores))
