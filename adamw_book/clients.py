"""The clients of a federation as replicas: they begin each round with the common model, take their local steps, and
what they send is averaged, or refused and reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from adamw_book.arguments import real
from adamw_book.data import generator
from adamw_book.optim import AdamW
from adamw_book.optim.state import new_state
from adamw_book.replicas import Replicas, permuted

Update = Mapping[str, Tensor]
PULLS = ("origin", "global", "server")
SERVER = {"betas": (0.9, 0.99), "eps": 1e-3}  # of the server's AdamW: Reddi et al. (2021), without their tuning of ε


def why_refused(update: object, like: Mapping[str, Sequence[int]]) -> str | None:
    """Why a client's parameters cannot be averaged, or None where they can: ``like`` gives the shape of each by its
    name. Names and shapes must be these, and every number finite."""
    if not isinstance(update, Mapping):
        return f"no parameters by name, but {type(update).__name__}"
    if strange := sorted(set(update) ^ set(like)):
        return f"parameters that only one side has: {', '.join(map(str, strange))}"
    for name, shape in like.items():
        found = tuple(getattr(update[name], "shape", ()))
        if found != tuple(shape):
            return f"{name} has shape {found} in the place of {tuple(shape)}"
    for name in like:
        value = torch.as_tensor(update[name])
        if bad := int((~value.isfinite()).sum()):
            return f"{bad} of {value.numel()} numbers of {name} are not finite"
    return None


def client_order(seed: int, client: int, examples: int, batch_size: int, steps: int) -> Tensor:
    """Indices (steps, batch_size) into one client's own examples: fresh permutations, one after the other, so that a
    client with fewer examples than a batch sees some of them twice in it."""
    return permuted(generator(seed, f"batches of client {client}"), examples, batch_size, steps)


class Clients(Replicas):
    """The clients of one chunk of R runs: m in each round, R·m models, and R global ones.

    ``parameters`` {name: (R·m, …)} are the clients' own, ``shared`` {name: (R, …)} the global ones.
    """

    def __init__(
        self, federation, task, runs, splits, starts, names, steps, batch_size, decays, betas, eps, device
    ) -> None:
        if batch_size is None:
            raise ValueError("batch_size: None; clients have training sets of different sizes, so a number is needed")
        if steps % federation.local_steps:
            raise ValueError(f"steps: {steps}; a multiple of local_steps={federation.local_steps} is needed")
        self.federation, self.m = federation, federation.models
        self.of_runs, self.columns = _with_pull(runs), list(runs)
        expanded = self.of_runs.loc[self.of_runs.index.repeat(self.m)].reset_index(drop=True)
        expanded.loc[expanded["pull"] == "server", ["weight_decay", "l2"]] = 0.0
        super().__init__(task, expanded, splits, starts, names, steps, batch_size, decays, betas, eps, device)
        self.runs = runs
        self.shared = {n: p.detach()[:: self.m].clone() for n, p in self.parameters.items()}
        to_global = torch.tensor((expanded["pull"] == "global").to_numpy(), device=device)
        self.to_global = to_global
        # what their decay leads to, and 0 for the other clients
        self.centre = {n: torch.zeros_like(p.detach()) for n, p in self.learning.items() if bool(to_global.any())}
        self.anchors += [(self.parameters[name], centre) for name, centre in self.centre.items()]
        self.server = self._server(decays)
        self.round, self.left_out = 0, torch.zeros(len(runs), dtype=torch.long, device=device)

    def place(self, splits, names, batch_size, steps) -> None:
        """Put the evaluated splits once a seed, and the training examples and batches once a client."""
        codes, seeds = self.stack(self.of_runs, splits, names)
        self.seeds = [int(seed) for seed in seeds]
        self.full_batch = None
        cuts = [self.federation.cut(int(seed), splits[seed]["train"][1]) for seed in seeds]
        self.sizes = torch.tensor([[len(part) for part in cut] for cut in cuts])  # (S, clients)
        rows = []
        for seed, cut in zip(self.seeds, cuts, strict=True):
            for client, part in enumerate(cut):
                part = part if len(part) else torch.zeros(1, dtype=torch.long)  # has no say, but a place in the stack
                rows.append(part[client_order(seed, client, len(part), batch_size, steps)])
        self.orders = torch.stack(rows, 1).to(self.device)  # (steps, S·clients, batch)
        self.shard_seed = torch.arange(len(self.seeds), device=self.device).repeat_interleave(self.federation.clients)
        self.shard_of = torch.zeros(len(codes) * self.m, dtype=torch.long, device=self.device)
        self._report_the_small()

    def batch(self) -> tuple[Tensor, Tensor]:
        """Inputs (R·m, N, …) and targets (R·m, N) of the next local step: gathered once a client of a seed."""
        order = self.orders.index_select(0, self.taken)[0]
        x, y = self.data["train"]
        row = self.shard_seed[:, None]
        return x[row, order].index_select(0, self.shard_of), y[row, order].index_select(0, self.shard_of)

    def advance(self, step: int) -> None:
        if (step - 1) % self.federation.local_steps == 0:
            self._begin()
        super().advance(step)
        if step % self.federation.local_steps == 0:
            self._end()

    def judged(self) -> dict[str, Tensor]:
        return self.shared if self.between is None else self._average(self.weights)

    @property
    def between(self) -> int | None:
        """Local steps since the last average; None right after it."""
        return int(self.taken) % self.federation.local_steps or None

    # ---- a round

    @torch.no_grad()
    def _begin(self) -> None:
        """Draw the participants and hand the global model to them."""
        takes, weights = [], []
        for place, seed in enumerate(self.seeds):
            drawn = self._drawn(seed, place)
            sizes = self.sizes[place, drawn]
            takes.append(drawn + place * self.federation.clients)
            weights.append(sizes * (sizes >= self.federation.least_examples))
        seed_of = self.seed_of.cpu()
        self.drawn = torch.stack(takes)[seed_of]  # (R, m), places among all clients of all seeds
        self.weights = torch.stack(weights)[seed_of].to(self.device, torch.float32)
        self.shard_of.copy_(self.drawn.flatten().to(self.device))
        self.began = dict(self.shared)
        for name, p in self.parameters.items():
            p.copy_(self.shared[name].repeat_interleave(self.m, 0))
            if name in self.centre:
                self.centre[name].copy_(torch.where(_along(self.to_global, p), p, 0.0))
        if self.federation.state == "reset" and self.round:
            for state in self.optimizer.state.values():
                for value in state.values():
                    value.zero_()

    def _drawn(self, seed: int, place: int) -> Tensor:
        """The clients (m,) of this round, those with enough examples first."""
        every = torch.arange(self.federation.clients)
        if self.m == len(every):
            return every
        order = torch.randperm(len(every), generator=generator(seed, f"participants of round {self.round}"))
        small = self.sizes[place, order] < self.federation.least_examples
        return torch.cat([order[~small], order[small]])[: self.m].sort().values

    @torch.no_grad()
    def _end(self) -> None:
        """Average what the clients send; what cannot be averaged is reported, and left out."""
        refused = self._refused()
        weights = self.weights.masked_fill(refused, 0.0)
        self.left_out += refused.sum(1)
        if self.federation.state == "kept" and bool(refused.any()):
            self._forget(refused)
        enough = (weights > 0).sum(1) >= self.federation.quorum
        average = self._average(weights)
        if self.server is not None:
            average = self._server_step(average, enough)
        for name, new in average.items():
            self.shared[name] = torch.where(_along(enough, new), new, self.shared[name])
        for run in torch.nonzero(~enough)[:, 0].tolist():
            replies = int((weights[run] > 0).sum())
            self._report(run, -1, f"{replies} replies for a quorum of {self.federation.quorum}: the model stays")
        self.round += 1

    def _forget(self, refused: Tensor) -> None:
        """Whoever was left out begins the next round with moments of 0."""
        for p, state in self.optimizer.state.items():
            for moment in (state["exp_avg"], state["exp_avg_sq"]):
                moment.copy_(torch.where(_along(refused.flatten(), p), 0.0, moment))

    def _average(self, weights: Tensor) -> dict[str, Tensor]:
        """The clients' mean {name: (R, …)} with weights (R, m), of which those at 0 may be anything; the global model
        where nobody has a say, and its parameters that had no gradient."""
        share, heard, found = _share(weights), weights.sum(1) > 0, {}
        for name, p in self.parameters.items():
            each = p.detach().unflatten(0, (-1, self.m)).flatten(2)
            each = torch.where(weights[..., None] > 0, each, 0.0)
            mean = (share[..., None] * each).sum(1).view_as(self.shared[name])
            found[name] = torch.where(_along(heard, mean) & (p.grad is not None), mean, self.shared[name])
        return found

    def _refused(self) -> Tensor:
        """Whose reply cannot be averaged, a mask (R, m); clients without a say are not asked."""
        bad = torch.zeros_like(self.weights, dtype=torch.bool)
        if self.federation.reply is not None:
            self._hear(bad)
        finite = torch.stack([p.isfinite().flatten(1).all(1) for p in self.parameters.values()]).all(0)
        strange = ~finite.view_as(bad) & ~bad & (self.weights > 0)
        if bool(strange.any()):
            like = {name: p.shape[1:] for name, p in self.parameters.items()}
            for run, slot in torch.nonzero(strange).tolist():
                own = {name: p.detach()[run * self.m + slot] for name, p in self.parameters.items()}
                self._report(run, self._client(run, slot), why_refused(own, like))
        return bad | strange

    def _hear(self, bad: Tensor) -> None:
        """Ask every client for its reply, one by one, and put what can be averaged in its place."""
        like = {name: p.shape[1:] for name, p in self.parameters.items()}
        for run, slot in torch.nonzero(self.weights > 0).tolist():
            row, client = run * self.m + slot, self._client(run, slot)
            own = {name: p.detach()[row].clone() for name, p in self.parameters.items()}
            try:
                sent = self.federation.reply(int(self.runs["seed"].iloc[run]), self.round, client, own)
                reason = why_refused(sent, like)
            except Exception as error:  # whatever a client dies of is its own
                reason = f"died: {type(error).__name__}: {error}"
            if reason is None:
                for name, p in self.parameters.items():
                    p.detach()[row].copy_(torch.as_tensor(sent[name]))
            else:
                bad[run, slot] = True
                self._report(run, client, reason)

    def _client(self, run: int, slot: int) -> int:
        return int(self.drawn[run, slot]) % self.federation.clients

    # ---- the server

    def _server(self, decays) -> AdamW | None:
        """AdamW on the global models of the runs that pull at the server; None where there are none."""
        here = self.of_runs["pull"] == "server"
        if not here.any():
            return None
        self.at_server = torch.tensor(here.to_numpy(), device=self.device)
        rates = torch.tensor(self.of_runs["server_lr"].where(here, 0.0).to_numpy(float), dtype=torch.float32)
        decay = torch.tensor(self.of_runs["weight_decay"].where(here, 0.0).to_numpy(float), dtype=torch.float32)
        self.server_parameters = {n: p.clone().requires_grad_() for n, p in self.shared.items()}
        groups = [
            {
                "params": [p for n, p in self.server_parameters.items() if decays(n)],
                "weight_decay": decay.to(self.device),
            },
            {"params": [p for n, p in self.server_parameters.items() if not decays(n)], "weight_decay": 0.0},
        ]
        server = AdamW([g for g in groups if g["params"]], lr=rates.to(self.device), **SERVER)
        for group in server.param_groups:
            server.state.update({p: new_state(p, group) for p in group["params"]})
        self.turns = torch.zeros(len(here), dtype=torch.long, device=self.device)  # steps that each run has taken here
        return server

    def _server_step(self, average: dict[str, Tensor], enough: Tensor) -> dict[str, Tensor]:
        """Where the server has an optimizer of its own, its step along the clients' mean change; else the average. A
        round without a quorum is none for a run's moments and count either."""
        for name, p in self.server_parameters.items():
            p.copy_(self.shared[name])
            p.grad = None if self.parameters[name].grad is None else self.shared[name] - average[name]
        due, states = enough & self.at_server, self.server.state
        for turn in self.turns[due].unique().tolist():  # one, as long as the runs have missed the same rounds
            now = due & (self.turns == turn)
            tensors = [t for p, state in states.items() for t in (p, state["exp_avg"], state["exp_avg_sq"])]
            before = [t.clone() for t in tensors]
            for state in states.values():
                state["step"].fill_(turn)
            self.server.step()
            for new, old in zip(tensors, before, strict=True):
                new.copy_(torch.where(_along(now, new), new, old))
        self.turns += due
        return {
            name: torch.where(_along(self.at_server, p), p.detach(), average[name])
            for name, p in self.server_parameters.items()
        }

    # ---- what is recorded

    @torch.no_grad()
    def record(self, step: int, evaluate, measure) -> list[pd.DataFrame]:
        frames = super().record(step, evaluate, measure)
        values = {"replies left out": self.left_out.double()}
        if step:
            values |= self._apart()
            for split in evaluate:
                if split != "train":
                    values |= self._opinions(split)
        return frames + [
            self.runs.assign(step=step, metric=m, value=v.double().cpu().numpy()) for m, v in values.items()
        ]

    def _apart(self) -> dict[str, Tensor]:
        """How far the clients have gone from where the round began, and from each other, each (R,): the weighted root
        mean square of Euclidean distances over all parameters."""
        share = _share(self.weights)
        mean = self._average(self.weights)
        drift, spread = torch.zeros_like(share), torch.zeros_like(share)
        for name, p in self.parameters.items():
            own = p.detach().unflatten(0, (-1, self.m))
            drift += (own - self.began[name][:, None]).flatten(2).square().sum(2)
            spread += (own - mean[name][:, None]).flatten(2).square().sum(2)
        return {
            "client drift": (share * drift).sum(1).sqrt(),
            "client disagreement": (share * spread).sum(1).sqrt(),
        }

    def _opinions(self, split: str, block: int = 16) -> dict[str, Tensor]:
        """What the clients' own models say of a split, before they are averaged."""
        x, y = self.data[split]
        accuracy, agreement = [], []
        for start in range(0, len(self.seed_of), block):
            rows = slice(start, start + block)
            own = {n: p.detach()[start * self.m : (start + block) * self.m] for n, p in self.parameters.items()}
            seeds = self.seed_of[rows]
            logits = self.apply(own, x[seeds.repeat_interleave(self.m)])
            said = logits.argmax(-1).flatten(1).unflatten(0, (-1, self.m))  # (runs, m, N), of sequences all places
            has, right = self.weights[rows] > 0, said == y[seeds].flatten(1)[:, None]
            accuracy.append((_share(self.weights[rows]) * right.float().mean(2)).sum(1))
            votes = torch.nn.functional.one_hot(said, logits.shape[-1]).mul(has[..., None, None]).sum(1)  # (runs, N, C)
            n = has.sum(1)
            pairs = (votes * (votes - 1)).sum(2).float().mean(1)
            agreement.append(torch.where(n > 1, pairs / (n * (n - 1)).clamp(min=1), 1.0))
        return {f"{split} client accuracy": torch.cat(accuracy), f"{split} client agreement": torch.cat(agreement)}

    # ---- what is reported

    def _report(self, run: int, client: int, reason: str) -> None:
        one = self.runs.iloc[[run]].assign(round=self.round, client=client, reason=reason)
        self.reports.append(one)

    def _report_the_small(self) -> None:
        least = self.federation.least_examples
        for place, client in torch.nonzero(self.sizes < least).tolist():
            own = self.of_runs.loc[self.of_runs["seed"] == self.seeds[place], self.columns]
            reason = f"{int(self.sizes[place, client])} examples for at least {least}: takes no part"
            self.reports.append(own.assign(round=-1, client=client, reason=reason))


def _along(values: Tensor, like: Tensor) -> Tensor:
    """values (R,) in the shape (R, 1, …) that goes with ``like``."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _share(weights: Tensor) -> Tensor:
    """Each client's part (R, m) in what the clients of its run have to say; 0 where none of them has any."""
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-30)


def _with_pull(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the columns that they may leave out. Raises ``ValueError`` for what they cannot hold."""
    runs = runs.reset_index(drop=True).copy()
    runs["pull"] = runs["pull"] if "pull" in runs else "origin"
    runs["server_lr"] = runs["server_lr"] if "server_lr" in runs else 0.0
    strange = ~runs["pull"].isin(PULLS)
    if strange.any():
        raise ValueError(f"runs: pull {runs['pull'][strange].iloc[0]!r}; choose from {', '.join(map(repr, PULLS))}")
    torn = (runs["toward"] == "start") & (runs["pull"] != "origin")
    if torn.any():
        raise ValueError(
            f"runs: toward 'start' with pull {runs['pull'][torn].iloc[0]!r}, which leads elsewhere; pull 'origin' or "
            "toward 'zero' is needed"
        )
    at_server = runs["pull"] == "server"
    still = at_server & ~(real(runs["server_lr"]) > 0)
    if still.any() or (at_server & (runs["l2"] > 0)).any():
        raise ValueError("runs: pull 'server' needs a server_lr above 0, and knows no l2")
    return runs
