"""R models as one: stacked parameters, batches that runs of one seed share, one gradient and one update for all."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from adamw_book.arguments import whole
from adamw_book.data import generator, generators_kept
from adamw_book.optim import AdamW
from adamw_book.recorded import record
from adamw_book.schedules import decay_factors, learning_rate_factors
from adamw_book.task import Snapshot, Task

HYPER = ["lr", "weight_decay", "l2"]


def keep_freed_memory() -> None:
    """Freed, a block of this size tells the C library (glibc) to keep up to twice as much for the next step's tensors,
    where it would hand each one's pages back to the system and fetch them, zeroed, again."""
    torch.empty(2**25 - 2**16, dtype=torch.uint8)


def made(model: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """``model()`` as it is drawn under ``seed``, apart from other threads; the global generators stay where they are.

    Raises ``ValueError`` for a module in the place of what makes one, for what is none when it is made, and for
    parameters on another device than the CPU: their draws would hang on it.
    """
    if isinstance(model, nn.Module):
        name = type(model).__name__
        raise ValueError(f"task.model: {name}, made already; what makes one is needed, such as lambda: {name}(…)")
    with generators_kept(generator(seed, "weights").initial_seed()):
        module = model()
    if not isinstance(module, nn.Module):
        raise ValueError(f"task.model: it makes something of type {type(module).__name__}; a torch.nn.Module is needed")
    for name, p in module.named_parameters():
        if p.device.type != "cpu":
            raise ValueError(f"model: it makes {name} on {p.device}; make it on the CPU, from where it is moved")
    return module


def initial_parameters(model: Callable[[], nn.Module], seeds: Sequence[int]) -> dict[str, Tensor]:
    """Stacked initial weights {name: (len(seeds), …)}: row i is what ``model()`` draws under seed ``seeds[i]``. The
    global generators are left as they were. Raises ``ValueError`` for no seeds and what is no seed."""
    if not len(seeds):
        raise ValueError("seeds: none; at least one is needed")
    # a tensor's are not told apart by their values; what is no whole number is refused where it is used
    seeds = [seed if not isinstance(seed, (Real, Tensor)) or seed % 1 else int(seed) for seed in seeds]
    place = {seed: i for i, seed in enumerate(dict.fromkeys(seeds))}
    modules = [dict(made(model, seed).named_parameters()) for seed in place]
    rows = torch.tensor([place[seed] for seed in seeds])
    return {name: torch.stack([m[name].detach() for m in modules]).index_select(0, rows) for name in modules[0]}


def given_parameters(task: Task, seeds: Sequence[int]) -> dict[str, Tensor]:
    """The weights {name: (len(seeds), …)} that ``task.start`` gives runs to begin with, row i under seed ``seeds[i]``;
    empty where there is no ``start``. Raises ``ValueError`` for names or shapes that are not the model's."""
    if task.start is None:
        return {}
    own = {name: tuple(p.shape) for name, p in made(task.model).named_parameters()}
    with torch.enable_grad():  # a start may train, whoever asks for it
        given = {name: value.detach() for name, value in task.start(list(seeds)).items()}
    for name, value in given.items():
        if name not in own:
            raise ValueError(f"task.start: it gives {name!r}; the model's parameters are {', '.join(own)}")
        if tuple(value.shape) != (len(seeds), *own[name]):
            raise ValueError(
                f"task.start: {name!r} has the shape {tuple(value.shape)} for {len(seeds)} seed(s); "
                f"{(len(seeds), *own[name])} is needed"
            )
    return given


def batch_order(seed: int, examples: int, batch_size: int, steps: int) -> Tensor:
    """Indices (steps, batch_size) of one seed's batches: fresh permutations of the training set, one after the
    other. Raises ``ValueError`` for sizes that are no positive whole numbers and a batch larger than the set."""
    whole("examples", examples)
    whole("batch_size", batch_size, 1, examples, f"a positive whole number of at most examples={examples}")
    whole("steps", steps)
    return permuted(generator(seed, "batches"), examples, batch_size, steps)


def permuted(rng: torch.Generator, examples: int, batch_size: int, steps: int) -> Tensor:
    """Indices (steps, batch_size): fresh permutations of ``examples`` indices, one after the other."""
    epochs = -(-steps * batch_size // examples)
    stream = torch.cat([torch.randperm(examples, generator=rng) for _ in range(epochs)])
    return stream[: steps * batch_size].view(steps, batch_size)


@contextmanager
def _draws_refused() -> Iterator[None]:
    """Names the model where a forward pass draws at random, which a run would do otherwise among others than alone."""
    try:
        yield
    except RuntimeError as error:
        if "randomness" not in str(error):
            raise
        raise ValueError(
            "task.model: its forward pass draws at random (dropout?), which replicas cannot do; leave that out, or "
            "make the module with .eval()"
        ) from error


def over_seeds(module: nn.Module) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """``module`` as a function of stacked parameters {name: (R, …)}, R/S for each seed side by side, and inputs (S, N,
    …) that those of one seed share: their first products are then one, and the inputs are never copied."""
    mapped = vmap(vmap(lambda parameters, x: functional_call(module, parameters, (x,)), in_dims=(0, None)))

    @_draws_refused()
    def apply(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        by_seed = {name: p.unflatten(0, (len(x), -1)) for name, p in parameters.items()}
        return mapped(by_seed, x).flatten(0, 1)

    return apply


def over_replicas(module: nn.Module | Callable[[], nn.Module]) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """``module``, or the one that it makes (:func:`made`), as a function of stacked parameters {name: (R, …)} and
    inputs (R, N, …), mapped over the replicas."""
    module = module if isinstance(module, nn.Module) else made(module)
    return _draws_refused()(vmap(lambda parameters, x: functional_call(module, parameters, (x,))))


class Replicas:
    """The replicas of one chunk: their data, stacked parameters and optimizer. S distinct seeds serve R replicas.

    models: that one run trains at a time. reports: tables of what went wrong on the way, if anything did. each: runs of
    a seed, where these lie side by side and are as many for each seed; else 0.

    starts: {seed: {name: the weights that runs of this seed begin with}}, of :func:`given_parameters`. Where ``runs``
    decay toward them, the optimizer sees the distance θ − θ₀, so that both kinds of decay pull to θ₀.

    A parameter without a gradient, because it asks for none or the loss does not hang on it, stays where it is.
    """

    models, each = 1, 0

    def __init__(self, task, runs, splits, starts, names, steps, batch_size, decays, betas, eps, device) -> None:
        self.task, self.runs, self.device = task, runs, device
        self.reports: list[pd.DataFrame] = []
        module = made(task.model)
        self.apply, self.apply_by_seed = over_replicas(module), over_seeds(module)
        self.place(splits, names, batch_size, steps)
        self.taken = torch.zeros(1, dtype=torch.long, device=device)  # steps
        self.graph: torch.cuda.CUDAGraph | None = None
        self.eager = steps if device.type != "cuda" or steps < 20 else 3  # steps before one is recorded into a graph
        self.replay: Callable[..., list[Tensor]] | None = None

        initial = initial_parameters(task.model, list(runs["seed"]))
        codes, seeds = pd.factorize(runs["seed"])
        given = {name: torch.stack([starts[s][name] for s in seeds])[codes] for name in next(iter(starts.values()), {})}
        initial |= {name: p.to(initial[name].dtype) for name, p in given.items()}
        learns = {name: p.requires_grad for name, p in module.named_parameters()}
        self.parameters = {name: p.to(device).requires_grad_(learns[name]) for name, p in initial.items()}
        anchored = torch.tensor((runs["toward"] == "start").to_numpy())
        self.anchors = [
            (self.parameters[name], (initial[name] * anchored.view(-1, *[1] * (p.ndim - 1))).to(device))
            for name, p in given.items()
            if learns[name] and decays(name) and anchored.any()
        ]
        hyper = {c: torch.tensor(runs[c].to_numpy(float), dtype=torch.float32, device=device) for c in HYPER}
        self.base_lr = hyper.pop("lr")
        kinds = runs[["schedule", "warmup", "decay_schedule"]]
        of_lr = {kind: learning_rate_factors(kind[0], steps, kind[1]) for kind in set(kinds.itertuples(False, None))}
        of_decay = {kind: decay_factors(kind[2], factors) for kind, factors in of_lr.items()}
        self.factors, self.decay_factors = (
            torch.tensor(
                np.stack([found[kind] for kind in kinds.itertuples(False, None)], 1), dtype=torch.float32, device=device
            )
            for found in (of_lr, of_decay)
        )  # (steps, R)
        self.lr = self.base_lr.clone()
        self.base_decay, self.decay = hyper["weight_decay"].clone(), hyper["weight_decay"]
        groups = [
            {"params": [p for name, p in self.learning.items() if decays(name)], **hyper},
            {"params": [p for name, p in self.learning.items() if not decays(name)], "weight_decay": 0.0, "l2": 0.0},
        ]
        self.optimizer = AdamW(
            [g for g in groups if g["params"]], lr=self.lr, betas=betas, eps=eps, capturable=device.type == "cuda"
        )

    @property
    def learning(self) -> dict[str, Tensor]:
        """The parameters {name: (R, …)} that ask for a gradient: the optimizer's."""
        return {name: p for name, p in self.parameters.items() if p.requires_grad}

    def place(self, splits, names, batch_size, steps) -> None:
        """Put the splits ``names`` and the batches of all steps where they are needed."""
        codes, seeds = self.stack(self.runs, splits, names)
        each = len(codes) // len(seeds)
        self.each = each if np.array_equal(codes, np.arange(len(seeds)).repeat(each)) else 0
        self.full_batch = self.handed(*self.data["train"]) if batch_size is None else None
        if batch_size is not None:
            examples = self.data["train"][0].shape[1]
            orders = torch.stack([batch_order(int(seed), examples, batch_size, steps) for seed in seeds], 1)
            first = examples * torch.arange(len(seeds))[:, None]
            self.orders = (orders + first).to(self.device)  # (steps, S, batch), in the examples of all seeds

    def stack(self, runs: pd.DataFrame, splits, names) -> tuple[np.ndarray, pd.Index]:
        """Put the splits ``names`` where they are needed, once a seed; gives each run's place among the seeds (R,), and
        the seeds."""
        codes, seeds = pd.factorize(runs["seed"])
        self.seed_of = torch.tensor(codes, device=self.device)
        self.data = {
            name: tuple(torch.stack([splits[seed][name][i] for seed in seeds]).to(self.device) for i in (0, 1))
            for name in names
        }
        return codes, seeds

    def handed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the seeds (S, N, …) for their replicas: targets (R, N, …) for each, inputs once a seed
        where its replicas share them."""
        shared = self.each > 1 and self.task.perturb is None
        # index_select copies whole rows, where indexing with a tensor would copy element by element
        return x if shared else x.index_select(0, self.seed_of), y.index_select(0, self.seed_of)

    def logits(self, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        """(R, N, C) for inputs (R, N, …), or (S, N, …) that replicas share."""
        some = len(next(iter(parameters.values())))
        return (self.apply if len(x) == some else self.apply_by_seed)(parameters, x)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets (R, N, …) of the next step, as :meth:`handed` out."""
        if self.full_batch is not None:
            return self.full_batch
        rows = self.orders.index_select(0, self.taken)[0]
        x, y = (t.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, rows.shape) for t in self.data["train"])
        return self.handed(x, y)

    def advance(self, step: int) -> None:
        """Update number ``step``, from 1, one after the other.

        The operations of one step are too small for a GPU: it would wait for their launches. So they are recorded into
        a CUDA graph, which is then launched as a whole. What a graph cannot hold, such as a ``perturb`` that looks at
        its numbers, goes on as it began.
        """
        if step == self.eager + 1:
            self._record_graph()
        if self.graph is not None:
            self.graph.replay()
        else:
            self._update(step)

    def _update(self, step: int) -> None:
        gradients = self._gradients_at(step, list(self.parameters.values()), *self.batch())
        for p, gradient in zip(self.parameters.values(), gradients, strict=True):
            p.grad = gradient
        torch.mul(self.base_lr, self.factors.index_select(0, self.taken)[0], out=self.lr)
        torch.mul(self.base_decay, self.decay_factors.index_select(0, self.taken)[0], out=self.decay)
        self.move()
        self.taken += 1

    def move(self) -> None:
        """Take the optimizer's step on the gradients that are there; where runs decay toward given weights, in what
        lies beyond these."""
        with torch.no_grad():
            for p, anchor in self.anchors:
                p.sub_(anchor)
            self.optimizer.step()
            for p, anchor in self.anchors:
                p.add_(anchor)

    def _gradients_at(self, step: int, *inputs) -> list[Tensor | None]:
        """On a CPU the first step is recorded and, once the second has shown that it comes to the same, replayed: half
        of a small step would be Python's."""
        if self.device.type != "cpu" or (self.replay is None and step > 1):
            return self.gradients(*inputs)
        if step == 1:
            gradients, self.replay = record(self.gradients, *inputs)
            return gradients
        if step > 2:
            return self.replay(*inputs)
        gradients = self.gradients(*inputs)
        if not all(map(_same, gradients, self.replay(*inputs))):
            self.replay = None
        return gradients

    def gradients(self, parameters: list[Tensor], x: Tensor, y: Tensor) -> list[Tensor | None]:
        """Of each replica's loss: replicas share no parameter, so the gradient of the sum is each one's own. None, as
        under torch, for parameters that ask for none or that no loss hangs on."""
        named = dict(zip(self.parameters, parameters, strict=True))
        if self.task.perturb is not None:
            now = {name: p.detach() for name, p in named.items()}
            x = self.task.perturb(lambda inputs: self.apply(now, inputs), x, y).detach()
        loss = self.one_each("task.loss", self.task.loss(self.logits(named, x), y), len(self.lr))
        if not loss.requires_grad:
            raise ValueError("task.loss: it hangs on no parameter that asks for a gradient; at least one is needed")
        found = iter(torch.autograd.grad(loss.sum(), [p for p in parameters if p.requires_grad], allow_unused=True))
        return [next(found) if p.requires_grad else None for p in parameters]

    def _record_graph(self) -> None:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.empty_cache()  # a graph has memory of its own
        try:
            with torch.cuda.device(self.device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._update(0)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            torch.cuda.synchronize(self.device)
            return
        self.graph = graph

    def judged(self) -> dict[str, Tensor]:
        """The parameters {name: (R, …)} that are recorded and kept."""
        return {name: p.detach() for name, p in self.parameters.items()}

    @torch.no_grad()
    def record(self, step: int, evaluate, measure) -> list[pd.DataFrame]:
        """What is to be recorded after ``step`` updates, a tidy table a metric."""
        values = {}
        for split in evaluate:
            values |= self.evaluate(split)
        values["weight norm"] = sum(p.flatten(1).square().sum(1) for p in self.judged().values()).sqrt()
        if measure is not None:
            measured = measure(self.snapshot(step))
            if taken := [name for name in measured if name in values]:
                raise ValueError(f"measure: it gives {taken[0]!r}, which is recorded already; another name is needed")
            values |= {name: self.one_each(f"measure[{name!r}]", value) for name, value in measured.items()}
        return [self.runs.assign(step=step, metric=m, value=v.double().cpu().numpy()) for m, v in values.items()]

    def one_each(self, name: str, values: Tensor, replicas: int | None = None) -> Tensor:
        """``values``, of which each replica (by default: each run) must have its own."""
        replicas = len(self.runs) if replicas is None else replicas
        if values.shape != (replicas,):
            raise ValueError(f"{name}: shape {tuple(values.shape)} for {replicas} replicas; one value each is needed")
        return values

    def snapshot(self, step: int) -> Snapshot:
        state = self.optimizer.state
        return Snapshot(
            step,
            self.runs,
            self.judged(),
            {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in self.parameters.items()},
            {n: state[p]["exp_avg_sq"] if p in state else torch.zeros_like(p) for n, p in self.parameters.items()},
        )

    def evaluate(self, split: str, block: int = 128) -> dict[str, Tensor]:
        """Every metric on one split, a block of replicas at a time, since evaluation sets are larger than batches."""
        x, y = self.data[split]
        parameters = self.judged()
        parts = {f"{split} {metric}": [] for metric in self.task.metrics}
        block = max(1, block // self.each) * self.each if self.each else block
        for start in range(0, len(self.seed_of), block):
            rows = slice(start, start + block)
            seeds = self.seed_of[rows]
            inputs = x[seeds[:: self.each]] if self.each else x[seeds]
            logits = self.logits({n: p[rows] for n, p in parameters.items()}, inputs)
            for metric, function in self.task.metrics.items():
                parts[f"{split} {metric}"].append(function(logits, y[seeds]))
        return {key: self.one_each(f"task.metrics, {key}", torch.cat(values)) for key, values in parts.items()}


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    """Equal but for rounding, which may hang on where in memory a tensor lies."""
    if a is None or b is None:
        return a is b
    return torch.allclose(a, b, rtol=1e-3, atol=1e-5 * float(a.abs().nan_to_num(posinf=0.0).max()), equal_nan=True)
