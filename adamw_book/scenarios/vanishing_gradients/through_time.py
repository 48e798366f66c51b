"""Gradients through time: a recurrent network that has to remember its first input, and what decay does to the way
back."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from numbers import Integral

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from adamw_book.data import Splits, generator
from adamw_book.ensemble import Snapshot, Task, train
from adamw_book.evidence import Claim, Effect, paired
from adamw_book.models import RNN

RECALL = {
    "delays": [12, 24],
    "symbols": 8,
    "noise": 0.5,
    "train": 400,
    "validation": 200,
    "test": 1000,
    "width": 32,
    "steps": 600,
    "batch_size": 50,
    "schedule": "cosine",
    "lr": 0.005,
    "weight_decay": [1.0, 3.0],
    "l2": [0.01],
    "early": 50,
    "judged_delay": 24,
    "judged_decay": 1.0,
    "seeds": list(range(100, 116)),
}
STARTS = {"torch's start": None, "orthogonal start": 1.0}

THROUGH_TIME = Claim(
    id="vanishing_gradients.through_time",
    tag="3096558",
    statement="AdamW's decay keeps a recurrent network's gradient from vanishing on its way back through time.",
    source="In recurrent networks gradients accumulate over time, and may vanish; AdamW's decay goes on acting where "
    "they do, to the network's benefit.",
    criterion="With λ = 1 the gradient that reaches the first step, relative to that at the last, is larger than with "
    "λ = 0 by at least a quarter (0.1 on a log10 scale), with the 95% interval above zero, early in training and at "
    "its end.",
    metric="log10 of the gradient, first step over last",
    smallest_effect=0.1,
)


def recall_sequences(
    seed: int,
    delay: int,
    *,
    symbols: int = RECALL["symbols"],
    noise: float = RECALL["noise"],
    sizes: Mapping[str, int] | None = None,
) -> Splits:
    """Delayed recall, a synthetic task: the first of ``delay`` steps shows one of ``symbols``, the others noise.

    Inputs (N, delay · (symbols + 1)): a one-hot symbol, and a last feature that is 1 at the first step and 0 after;
    from the second step on the symbols' features are normal noise of standard deviation ``noise``. Label: the symbol.
    """
    sizes = {name: RECALL[name] for name in ("train", "validation", "test")} if sizes is None else sizes
    whole = all(isinstance(n, Integral) for n in (delay, symbols, *sizes.values()))
    if not whole or not sizes or min(delay, symbols) < 2 or not 0 <= noise < float("inf") or min(sizes.values()) < 1:
        raise ValueError(
            f"delay {delay}, symbols {symbols}, noise {noise}, sizes {dict(sizes)}; at least two steps and symbols, "
            "noise of 0 or more and positive sizes are needed"
        )
    rng, splits = generator(seed, "data"), {}
    for name, n in sizes.items():
        y = torch.randint(symbols, (n,), generator=rng)
        x = torch.zeros(n, delay, symbols + 1)
        x[:, 1:, :symbols] = noise * torch.randn(n, delay - 1, symbols, generator=rng)
        x[torch.arange(n), 0, y] = x[:, 0, symbols] = 1.0
        splits[name] = (x.flatten(1), y)
    return splits


def recurrent(start: str, symbols: int = RECALL["symbols"], width: int = RECALL["width"]) -> RNN:
    """The network; ``start``, a name in ``STARTS``, says how its recurrent matrix begins: as torch draws it (spectral
    radius about 0.6), or orthogonal (1)."""
    if start not in STARTS:
        raise ValueError(f"start: {start!r} is unknown; choose from {', '.join(map(repr, STARTS))}")
    model = RNN(symbols + 1, width, symbols)
    if STARTS[start] is not None:
        nn.init.orthogonal_(model.recurrent.weight, STARTS[start])
    return model


def gradient_norms(parameters: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """‖∂L/∂h_t‖ for every step t, replica and example, (T, R, N): the loss of each example traced back through time.

    parameters: those of R networks :class:`adamw_book.models.RNN` without normalisation, stacked. x (R, N, T ·
    features), y (R, N). h_t acts on L through every later step, so ∂L/∂h_{t−1} = W_hᵀ diag(1 − h_t²) ∂L/∂h_t. Raises
    ``ValueError`` for parameters of another network, and for x and y that do not fit these.
    """
    names = ("input.weight", "input.bias", "recurrent.weight", "head.weight", "head.bias")
    if set(parameters) != set(names):
        raise ValueError(f"parameters: {', '.join(parameters)}; {', '.join(names)}, an RNN without norm, are needed")
    replicas, _, features = parameters["input.weight"].shape
    if x.ndim != 3 or len(x) != replicas or not x.shape[2] or x.shape[2] % features or y.shape != x.shape[:2]:
        raise ValueError(
            f"x, y: shapes {tuple(x.shape)} and {tuple(y.shape)}; ({replicas}, N, T · {features}) and ({replicas}, N) "
            "are needed"
        )
    weights = {name: p.detach() for name, p in parameters.items()}
    into, bias, matrix = (weights[name] for name in ("input.weight", "input.bias", "recurrent.weight"))
    x = x.unflatten(2, (-1, into.shape[2]))
    states: list[Tensor] = []
    with torch.enable_grad():
        for t in range(x.shape[2]):
            a = x[:, :, t] @ into.mT + bias[:, None]
            h = torch.tanh(a + states[-1] @ matrix.mT if states else a)
            states.append(h if h.requires_grad else h.requires_grad_())
        logits = states[-1] @ weights["head.weight"].mT + weights["head.bias"][:, None]
        loss = functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum")
        gradients = torch.autograd.grad(loss, states)
    return torch.stack([g.norm(dim=2) for g in gradients])


def spectral_radius(matrices: Tensor) -> Tensor:
    """The largest absolute eigenvalue (R,) of each of the square matrices (R, n, n), NaN where one is not finite."""
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or not matrices.shape[1]:
        raise ValueError(f"matrices: shape {tuple(matrices.shape)}; square ones (R, n, n) are needed")
    finite = matrices.isfinite().flatten(1).all(1)  # the library's routine may crash on others
    largest = torch.linalg.eigvals(matrices.detach().where(finite[:, None, None], 0.0)).abs().amax(1)
    return largest.where(finite, torch.nan).to(matrices.device)


def recall_runs(seeds: Sequence[int], decays: Sequence[float] | None = None, l2: Sequence[float] | None = None):
    """The doses of decay, λ of AdamW and ℓ of Adam + L2, and no decay, at one learning rate: one row a run."""
    decays, l2 = RECALL["weight_decay"] if decays is None else decays, RECALL["l2"] if l2 is None else l2
    rows = [("Adam", 0.0, 0.0), *(("AdamW", d, 0.0) for d in decays), *(("Adam + L2", 0.0, c) for c in l2)]
    runs = pd.DataFrame(rows, columns=["arm", "weight_decay", "l2"]).assign(lr=RECALL["lr"])
    return runs.merge(pd.DataFrame({"seed": list(seeds)}), how="cross")


def recall_task(start: str, delay: int) -> Task:
    """Delayed recall for a network of one ``start``; its data are made once a seed."""
    sequences = cache(lambda seed: recall_sequences(seed, delay))
    return Task(f"recall after {delay} steps", lambda: recurrent(start), sequences)


def train_recall(
    start: str,
    delay: int,
    runs: pd.DataFrame,
    evaluate: Sequence[str] = ("train", "test"),
    **options,
) -> pd.DataFrame:
    """Train ``runs`` on delayed recall; the ensemble's table with columns ``start`` and ``delay`` and two more metrics.

    ``THROUGH_TIME.metric``: log₁₀(‖∂L/∂h_1‖ / ‖∂L/∂h_T‖), averaged over the first 100 validation sequences (which are
    not trained on). "spectral radius": of the recurrent matrix.
    """
    task = recall_task(start, delay)

    def measure(snapshot: Snapshot) -> dict[str, Tensor]:
        norms = held_out_norms(snapshot, task.data)
        ratio = (norms[0] / norms[-1]).log10().mean(1)
        return {THROUGH_TIME.metric: ratio, "spectral radius": spectral_radius(snapshot.parameters["recurrent.weight"])}

    options = {"steps": RECALL["steps"], "batch_size": RECALL["batch_size"], "measure": measure, **options}
    options.setdefault("record", sorted({min(RECALL["early"], options["steps"]), options["steps"]}))
    runs = runs.assign(schedule=RECALL["schedule"])
    table = train(task, runs, evaluate=evaluate, **options).table
    return table.drop(columns="schedule").assign(start=start, delay=delay)


def held_out_norms(snapshot: Snapshot, sequences: Callable[[int], Splits]) -> Tensor:
    """:func:`gradient_norms` (T, R, 100) on the first 100 validation sequences of each replica's seed."""
    held_out = [sequences(int(seed))["validation"] for seed in snapshot.runs["seed"]]
    x, y = (torch.stack([pair[i][:100] for pair in held_out]) for i in (0, 1))
    device = snapshot.parameters["recurrent.weight"].device
    return gradient_norms(snapshot.parameters, x.to(device), y.to(device)).clamp(min=1e-30)


def gradient_profiles(start: str, delay: int, runs: pd.DataFrame, record: Sequence[int]) -> pd.DataFrame:
    """How the gradient changes on its way back: log₁₀(‖∂L/∂h_t‖ / ‖∂L/∂h_T‖) at each step t = 1 … T of a sequence.

    Trains ``runs`` on delayed recall. Returns a tidy table (arm, weight_decay, l2, seed, step, t, value), a row a run,
    recorded training step and t, averaged over sequences as in :func:`train_recall`.
    """
    sequences, tables = cache(lambda seed: recall_sequences(seed, delay)), []

    def measure(snapshot: Snapshot) -> dict[str, Tensor]:
        norms = held_out_norms(snapshot, sequences)
        profile = (norms / norms[-1:]).log10().mean(2).cpu()
        columns = snapshot.runs[["arm", "weight_decay", "l2", "seed"]]
        tables.extend(columns.assign(step=snapshot.step, t=t + 1, value=v) for t, v in enumerate(profile.numpy()))
        return {}

    train_recall(start, delay, runs, (), record=record, measure=measure)
    return pd.concat(tables, ignore_index=True)


def recall_doses(seeds: Sequence[int]) -> pd.DataFrame:
    """Every start, delay and dose, on the given seeds."""
    tables = [train_recall(s, d, recall_runs(seeds)) for s in STARTS for d in RECALL["delays"]]
    table = pd.concat(tables, ignore_index=True)
    wanted = table["metric"].isin(["train accuracy", "test accuracy", "spectral radius", THROUGH_TIME.metric])
    return table[wanted]


def through_time_effects(table: pd.DataFrame) -> dict[str, Effect]:
    """AdamW with the judged λ against Adam, for each start, early in training and at its end."""
    doses = table["weight_decay"].isin([0.0, RECALL["judged_decay"]])
    judged = table[doses & (table["delay"] == RECALL["judged_delay"])]
    return {
        f"{start}, after {step} steps": paired(part, "AdamW", "Adam", THROUGH_TIME.metric, step)
        for step in (RECALL["early"], RECALL["steps"])
        for start, part in judged.groupby("start", sort=False)
    }
