"""R models as one: stacked parameters, batches that runs of one seed share, one gradient and one update for all."""

import threading
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from adamw_book.data import generator
from adamw_book.optim import AdamW
from adamw_book.schedules import learning_rate_factors
from adamw_book.task import Snapshot

HYPER = ["lr", "weight_decay", "l2"]
_SEEDING = threading.Lock()  # modules draw their weights from torch's one global generator


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


def over_replicas(module: nn.Module) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """``module`` as a function of stacked parameters {name: (R, …)} and inputs (R, N, …), mapped over the replicas."""
    return vmap(lambda parameters, x: functional_call(module, parameters, (x,)))


class Replicas:
    """The replicas of one chunk: their data, stacked parameters and optimizer. S distinct seeds serve R replicas."""

    def __init__(self, task, runs, splits, names, steps, batch_size, decays, betas, eps, device) -> None:
        self.task, self.runs = task, runs
        with _SEEDING:  # making a module draws too, and must not come between another thread's seed and its weights
            module = task.model()
        self.apply = over_replicas(module)
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
