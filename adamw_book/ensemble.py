"""Train hundreds of models at once: arms × grid × seeds on one replica axis, one optimizer step for all.

The parameters of R models are stacked along a leading axis, ``torch.func.vmap`` maps the forward pass over it, one
backward pass gives all gradients, and one :class:`adamw_book.optim.AdamW`, whose ``lr``, ``weight_decay`` and ``l2``
are tensors of shape (R,), updates all of them. Runs with the same seed start from the same weights and see the same
batches, whatever their arm: comparisons are paired. Replicas never mix, so a run gives the same result alone or as
one of a thousand (to float rounding).
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from tqdm import tqdm

from adamw_book.data import Splits, generator
from adamw_book.optim import AdamW
from adamw_book.schedules import learning_rate_factors

HYPER = ["lr", "weight_decay", "l2"]
_SEEDING = threading.Lock()  # modules draw their weights from torch's one global generator


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of each replica: logits (R, N, C), class labels (R, N) → (R,), in nats."""
    return functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none").mean(1)


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Share of examples classified correctly in each replica: logits (R, N, C), class labels (R, N) → (R,), in 0…1.

    A replica whose logits are not finite has learned nothing that could be used: it counts as 0.
    """
    correct = (logits.argmax(-1) == targets).float().mean(1)
    return correct * logits.isfinite().flatten(1).all(1)


@dataclass(frozen=True)
class Task:
    """What is learned: ``model()`` makes one module, ``data(seed)`` its splits {"train": (x, y), …}, ``loss`` and
    ``metrics`` judge it.

    ``loss`` and each metric map (logits (R, N, C), targets (R, N)) to (R,). ``perturb``, where there is one, is called
    before every update as ``perturb(logits, x, y)`` and returns the inputs (R, N, ...) that the update is taken on in
    the place of x: ``logits`` maps inputs to the logits of the current models, whose parameters take no gradient in it.
    Adversarial training is such a ``perturb``. For a run to be the same alone and among others it must not draw at
    random.
    """

    name: str
    model: Callable[[], nn.Module]
    data: Callable[[int], Splits]
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = field(
        default_factory=lambda: {"loss": cross_entropy, "accuracy": accuracy}
    )
    perturb: Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Snapshot:
    """What a ``measure`` function sees after ``step`` updates: R replicas, each tensor with the replica axis in
    front."""

    step: int
    runs: pd.DataFrame
    parameters: dict[str, Tensor]
    gradients: dict[str, Tensor]
    exp_avg_sq: dict[str, Tensor]


@dataclass(frozen=True)
class Result:
    """``table``: the runs' columns + step, metric, value (tidy). ``parameters``: {name: (R, …)}, in the order of
    ``runs``, if kept."""

    table: pd.DataFrame
    runs: pd.DataFrame
    parameters: dict[str, Tensor] | None


def initial_parameters(model: Callable[[], nn.Module], seeds: Sequence[int]) -> dict[str, Tensor]:
    """Stacked initial weights {name: (len(seeds), …)}: row i is what ``model()`` draws under seed ``seeds[i]``."""
    by_seed = {}
    for seed in dict.fromkeys(seeds):
        with _SEEDING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator(seed, "weights").initial_seed())
            by_seed[seed] = dict(model().named_parameters())
    first = next(iter(by_seed.values()))
    return {name: torch.stack([by_seed[seed][name].detach() for seed in seeds]) for name in first}


def batch_order(seed: int, examples: int, batch_size: int, steps: int) -> Tensor:
    """Indices (steps, batch_size) of one seed's batches: fresh permutations of the training set, one after the
    other."""
    rng = generator(seed, "batches")
    epochs = -(-steps * batch_size // examples)
    stream = torch.cat([torch.randperm(examples, generator=rng) for _ in range(epochs)])
    return stream[: steps * batch_size].view(steps, batch_size)


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
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    keep_parameters: bool = False,
    device: str | torch.device | None = None,
    chunk_size: int | None = None,
    progress: bool = True,
) -> Result:
    """Train every row of ``runs`` on ``task`` for ``steps`` updates and return what was recorded.

    runs: columns arm, lr, weight_decay, l2, seed; optional ``schedule`` (a name in ``SCHEDULES``); further columns
    are carried along.
    batch_size: examples a step, drawn without replacement epoch by epoch; None takes the whole training set at every
    step.
    record: the steps (0 … steps, counted in finished updates) at which ``evaluate``'s splits, "weight norm" (the
        Euclidean norm of all parameters) and ``measure`` are recorded; by default the end. Leave "test" out of
        ``evaluate`` until the last run.
    decays: names of parameters → whether weight_decay and l2 act on them (by default all, as in torch).
    chunk_size: replicas trained at a time; None takes what the memory holds, and on a CPU no more than its caches like,
        in as many chunks as keep all cores busy.
    device: by default a GPU where there is one.

    Raises ``ValueError`` for missing columns, an unknown schedule or split, an impossible batch size or step.
    """
    runs = _checked(runs, steps, batch_size)
    record = sorted(set([steps] if record is None else record))
    if not record or record[0] < 0 or record[-1] > steps:
        raise ValueError(f"record: {record}; steps between 0 and steps={steps} are needed")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    splits = {seed: task.data(int(seed)) for seed in runs["seed"].unique()}
    missing = [name for name in ("train", *evaluate) if any(name not in s for s in splits.values())]
    if missing:
        raise ValueError(
            f"evaluate: task {task.name!r} has no split {missing[0]!r}; it has {list(next(iter(splits.values())))}"
        )

    examples = min(len(s["train"][0]) for s in splits.values())
    if batch_size is not None and batch_size > examples:
        raise ValueError(f"batch_size: {batch_size}; the training set has {examples} examples (None takes all of them)")
    if chunk_size is not None and (not isinstance(chunk_size, int) or chunk_size < 1):
        raise ValueError(f"chunk_size: {chunk_size}; a positive whole number, or None, is needed")

    template = task.model()
    if any(True for _ in template.buffers()):
        raise ValueError(
            "task.model: the module keeps buffers (running statistics?), which replicas cannot share; "
            "use GroupNorm or LayerNorm"
        )

    def once(chunk: pd.DataFrame, bar) -> tuple[list[pd.DataFrame], dict[str, Tensor]]:
        replicas = _Replicas(task, chunk, splits, {"train", *evaluate}, steps, batch_size, decays, betas, eps, device)
        frames = replicas.record(0, evaluate, measure) if 0 in record else []
        for step in range(1, steps + 1):
            replicas.advance(step)
            if step in record:
                frames += replicas.record(step, evaluate, measure)
            bar.update(len(chunk))
        return frames, {n: p.detach().cpu() for n, p in replicas.parameters.items()} if keep_parameters else {}

    size = chunk_size or _fitting_chunk(task, template, runs, splits, batch_size, device)
    frames, kept, start = [], [], 0
    total = len(runs) * steps
    with tqdm(
        total=total, desc=task.name, unit="step", unit_scale=True, disable=not progress, leave=False, mininterval=1.0
    ) as bar:
        if device.type == "cpu" and torch.get_num_threads() > 1 and len(runs) > size:
            tables, kept = _side_by_side(once, [runs.iloc[i : i + size] for i in range(0, len(runs), size)], bar)
            frames, start = [frame for some in tables for frame in some], len(runs)
        while start < len(runs):
            done = bar.n
            try:
                tables, parameters = once(runs.iloc[start : start + size], bar)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size, bar.n = size // 2, done
                torch.cuda.empty_cache()
                continue
            frames += tables
            kept.append(parameters)
            start += size
    table = pd.concat(frames, ignore_index=True).drop(columns=[] if "schedule" in runs.attrs["given"] else ["schedule"])
    stacked = {n: torch.cat([k[n] for k in kept]) for n in kept[0]} if keep_parameters else None
    return Result(table, runs, stacked)


def _side_by_side(once: Callable, chunks: list[pd.DataFrame], bar) -> tuple[list, list]:
    """Chunks on a CPU, one to a core: a thread each, in which every operation stays on that core.

    The operations of one chunk are too small to be worth sharing between cores: most of the time would go into waiting.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return tuple(zip(*pool.map(lambda chunk: once(chunk, bar), chunks), strict=True))
    finally:
        torch.set_num_threads(threads)


def _checked(runs: pd.DataFrame, steps: int, batch_size: int | None) -> pd.DataFrame:
    missing = [c for c in ("arm", *HYPER, "seed") if c not in runs]
    if missing:
        raise ValueError(
            f"runs: no column {missing[0]!r}; needed are arm, lr, weight_decay, l2, seed (found {list(runs.columns)})"
        )
    if runs.empty:
        raise ValueError("runs: the table is empty; at least one run is needed")
    if runs[[*HYPER, "seed"]].isna().any().any():
        raise ValueError("runs: lr, weight_decay, l2 and seed must all have a value; found a missing one")
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: {steps}; a positive whole number is needed")
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(
            f"batch_size: {batch_size}; a positive whole number, or None for the whole training set, is needed"
        )
    checked = runs.reset_index(drop=True).copy()
    checked.attrs["given"] = list(runs.columns)
    if "schedule" not in checked:
        checked["schedule"] = "constant"
    for schedule in checked["schedule"].unique():
        learning_rate_factors(schedule, 1)
    return checked


class _Replicas:
    """The replicas of one chunk: their data, stacked parameters and optimizer. S distinct seeds serve R replicas."""

    def __init__(self, task, runs, splits, names, steps, batch_size, decays, betas, eps, device) -> None:
        self.task, self.runs = task, runs
        with _SEEDING:  # making a module draws too, and must not come between another thread's seed and its weights
            module = task.model()
        self.apply = vmap(lambda parameters, x: functional_call(module, parameters, (x,)))
        seeds = list(runs["seed"].unique())
        self.seed_of = torch.tensor([seeds.index(seed) for seed in runs["seed"]], device=device)  # (R,)
        self.data = {
            name: tuple(torch.stack([splits[seed][name][i] for seed in seeds]).to(device) for i in (0, 1))
            for name in names
        }
        self.full_batch = tuple(t[self.seed_of] for t in self.data["train"]) if batch_size is None else None
        if batch_size is not None:
            examples = self.data["train"][0].shape[1]
            orders = [batch_order(int(seed), examples, batch_size, steps) for seed in seeds]
            self.orders = torch.stack(orders, 1).to(device)  # (steps, S, batch)

        initial = initial_parameters(task.model, list(runs["seed"]))
        self.parameters = {name: p.to(device).requires_grad_() for name, p in initial.items()}
        hyper = {c: torch.tensor(runs[c].to_numpy(), dtype=torch.float32, device=device) for c in HYPER}
        self.base_lr = hyper.pop("lr")
        factors = np.stack([learning_rate_factors(schedule, steps) for schedule in runs["schedule"]], 1)
        self.factors = torch.tensor(factors, dtype=torch.float32, device=device)  # (steps, R)
        self.lr = self.base_lr.clone()
        groups = [
            {"params": [p for name, p in self.parameters.items() if decays(name)], **hyper},
            {"params": [p for name, p in self.parameters.items() if not decays(name)], "weight_decay": 0.0, "l2": 0.0},
        ]
        self.optimizer = AdamW([g for g in groups if g["params"]], lr=self.lr, betas=betas, eps=eps)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs (R, N, …) and targets (R, N) of step 1 … steps: gathered once a seed, then handed to its replicas."""
        if self.full_batch is not None:
            return self.full_batch
        order = self.orders[step - 1]
        row = torch.arange(len(order), device=order.device)[:, None]
        x, y = self.data["train"]
        # index_select copies whole rows, where indexing with a tensor would copy element by element
        return x[row, order].index_select(0, self.seed_of), y[row, order].index_select(0, self.seed_of)

    def advance(self, step: int) -> None:
        """Update number ``step``, from 1. Replicas share no parameter, so the gradient of the sum is each one's own."""
        x, y = self.batch(step)
        if self.task.perturb is not None:
            now = {name: p.detach() for name, p in self.parameters.items()}
            x = self.task.perturb(lambda inputs: self.apply(now, inputs), x, y).detach()
        loss = self.task.loss(self.apply(self.parameters, x), y)
        gradients = torch.autograd.grad(loss.sum(), list(self.parameters.values()))
        for p, gradient in zip(self.parameters.values(), gradients, strict=True):
            p.grad = gradient
        torch.mul(self.base_lr, self.factors[step - 1], out=self.lr)
        self.optimizer.step()

    @torch.no_grad()
    def record(self, step: int, evaluate, measure) -> list[pd.DataFrame]:
        """What is to be recorded after ``step`` updates, a tidy table a metric."""
        values = {}
        for split in evaluate:
            values |= self.evaluate(split)
        values["weight norm"] = sum(p.flatten(1).square().sum(1) for p in self.parameters.values()).sqrt()
        if measure is not None:
            values |= measure(self.snapshot(step))
        return [self.runs.assign(step=step, metric=m, value=v.double().cpu().numpy()) for m, v in values.items()]

    def snapshot(self, step: int) -> Snapshot:
        nothing = {name: torch.zeros_like(p) for name, p in self.parameters.items()} if step == 0 else {}
        return Snapshot(
            step,
            self.runs,
            {name: p.detach() for name, p in self.parameters.items()},
            nothing or {name: p.grad for name, p in self.parameters.items()},
            nothing or {name: self.optimizer.state[p]["exp_avg_sq"] for name, p in self.parameters.items()},
        )

    def evaluate(self, split: str, block: int = 128) -> dict[str, Tensor]:
        """Every metric on one split, a block of replicas at a time, since evaluation sets are larger than batches."""
        x, y = self.data[split]
        parts = {f"{split} {metric}": [] for metric in self.task.metrics}
        for start in range(0, len(self.seed_of), block):
            rows = slice(start, start + block)
            targets = y[self.seed_of[rows]]
            logits = self.apply({n: p.detach()[rows] for n, p in self.parameters.items()}, x[self.seed_of[rows]])
            for metric, function in self.task.metrics.items():
                parts[f"{split} {metric}"].append(function(logits, targets))
        return {key: torch.cat(values) for key, values in parts.items()}


def _fitting_chunk(task, template, runs, splits, batch_size, device) -> int:
    """Replicas that fit into half of the free memory, counted from one replica's parameters and saved activations."""
    x, y = next(iter(splits.values()))["train"]
    x, y = (x, y) if batch_size is None else (x[:batch_size], y[:batch_size])
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        task.loss(template(x)[None], y[None])
    # per replica: weights, gradients, two moments, temporaries of the update; activations forward and backward
    per_replica = (
        6 * sum(p.numel() * p.element_size() for p in template.parameters())
        + 3 * saved
        + 2 * x.numel() * x.element_size()
    )
    if device.type == "cuda":
        return max(1, min(len(runs), int(0.5 * torch.cuda.mem_get_info(device)[0] / per_replica)))
    # a chunk that stays in the CPU's caches is faster than a larger one, and the cores share them evenly
    chunks = -(-len(runs) // max(1, min(256, int(2**31 / per_replica))))
    cores = torch.get_num_threads()
    return -(-len(runs) // (-(-chunks // cores) * cores))
