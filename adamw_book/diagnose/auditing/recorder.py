"""A training run's decay while it runs: what decay and gradient did to each kind of parameter, against theory."""

from __future__ import annotations

import math
import sys
from collections import defaultdict

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adamw_book.arguments import whole

from .decay import Decay, decay_of
from .parameters import parameters_of, torch_optimizer
from .rates import value_of

COLUMNS = ["step", "group", "kind", "lr", "param_norm", "decay_norm", "gradient_norm", "cosine"]
THEORY = ["decay_alone", "equilibrium_norm", "noise_gradient_norm"]


class DecayRecorder:
    """Records every ``every``-th step of an optimizer, from :meth:`attach` to :meth:`detach`, or in a ``with`` block::

        with DecayRecorder(optimizer, model, every=10) as recorder:
            train()
        recorder.plot()

    What a step was made of comes from ``explanation()`` of :class:`adamw_book.AdamW`, and for other optimizers from the
    parameters before and after it, of which a copy is kept during a recorded step. Of a decay that is not decoupled
    only the whole step is known: it stands as the gradient step. Groups and parameters that join are recorded from
    then on; a step that a gradient scaler skips is none. Replicas, which a vector of coefficients trains, cannot be
    recorded. :meth:`lightning` and :meth:`hugging_face` give callbacks for their trainers.
    """

    def __init__(self, optimizer: Optimizer | None = None, model: nn.Module | None = None, every: int = 1) -> None:
        self.every = whole("every", every, needed="a whole number of steps, 1 or more,")
        self._given, self._hooks, self._rows, self._steps = (optimizer, model), [], [], 0

    def __enter__(self) -> DecayRecorder:
        return self.attach(*self._given)

    def __exit__(self, *_) -> None:
        self.detach()

    def attach(self, optimizer: Optimizer, model: nn.Module | None = None) -> DecayRecorder:
        """Record this optimizer from now on. Raises RuntimeError where one is attached, else as :func:`audit` does."""
        if self._hooks:
            raise RuntimeError("attach: an optimizer is attached; detach() it first")
        optimizer = torch_optimizer(optimizer)
        self._optimizer, self._model, self._explained = optimizer, model, getattr(optimizer, "explain", None)
        self._held, self._how = [], []
        self._alone: dict[Tensor, float] = {}  # the norm that decay alone would leave, of each that took part
        self._look()
        self._hooks = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]
        return self

    def detach(self) -> None:
        """Stop recording and leave the optimizer as it was; what was recorded stays."""
        for hook in self._hooks:
            hook.remove()
        if self._hooks and self._explained is not None:
            self._optimizer.explain = self._explained
        self._hooks = []

    def _look(self) -> None:
        """Take the groups as they are: since the last step others may have joined, or parameters in them."""
        groups = self._optimizer.param_groups
        held = [[id(p) for p in group["params"]] for group in groups]
        if held == self._held:
            return
        kinds = {id(p.tensor): p.kind for p in parameters_of(self._optimizer, self._model)}
        known = {tuple(ids): how for ids, how in zip(self._held, self._how, strict=True)}
        self._how = [known.get(tuple(ids)) or _how(self._optimizer, i) for i, ids in enumerate(held)]
        self._held, self._kinds = held, [[(p, kinds[id(p)]) for p in group["params"]] for group in groups]

    def _before(self, optimizer: Optimizer, args, kwargs) -> None:
        if _nested(optimizer):
            return
        self._look()
        if self._explained is not None and not optimizer.explain:
            optimizer.explain = True  # it stands in the first group, which a checkpoint may have replaced
        self._shares = []
        for how, group in zip(self._how, optimizer.param_groups, strict=True):
            lr, weight_decay = float(group["lr"]), float(group.get("weight_decay", 0.0))
            share = how.factor * weight_decay * (1.0 if how.lr_independent else lr)
            self._shares.append(share if how.how == "decoupled" else 0.0)
        self._now = self._steps % self.every == 0
        if self._now and self._explained is None:
            # A closure, as Lightning passes one, makes the gradients later: who took part is seen after the step.
            self._copies = [{p: p.detach().clone() for p, _ in own} for own in self._kinds]

    def _after(self, optimizer: Optimizer, args, kwargs) -> None:
        # A gradient scaler lets an optimizer that is fused take the step, and tells it to skip what is in it.
        if _nested(optimizer) or getattr(optimizer, "found_inf", None):
            return
        if self._now:
            explained = None if self._explained is None else optimizer.explanation()
            for i, own in enumerate(self._kinds):
                self._record(i, own, optimizer.param_groups[i], explained)
        for own, share in zip(self._kinds, self._shares, strict=True):
            for p, _ in own:
                if p in self._alone and p.grad is not None:
                    self._alone[p] *= 1 - share
        self._steps += 1

    def _record(self, i: int, own: list[tuple[Tensor, str]], group: dict, explained) -> None:
        sums, counts = defaultdict(lambda: torch.zeros(4, dtype=torch.float64)), defaultdict(int)
        alone = defaultdict(float)
        for p, kind in own:
            if explained is not None and p in explained:
                norms = [float(norm) for norm in explained[p]]
                product = 0.0 if math.isnan(norms[3]) else norms[1] * norms[2] * norms[3]
                own_sums = torch.tensor([norms[0] ** 2, norms[1] ** 2, norms[2] ** 2, product], dtype=torch.float64)
            elif explained is None and p.grad is not None:
                before = self._copies[i][p].double().flatten().cpu()
                decay = self._shares[i] * before
                gradient = before - p.detach().double().flatten().cpu() - decay
                own_sums = torch.stack([before @ before, decay @ decay, gradient @ gradient, decay @ gradient])
            else:
                continue  # without a gradient it took no part
            sums[kind] += own_sums
            counts[kind] += p.numel()
            alone[kind] += self._alone.setdefault(p, math.sqrt(own_sums[0])) ** 2
        lr, share = float(group["lr"]), self._shares[i]
        beta1 = float(group["betas"][0]) if "betas" in group else math.nan
        for kind, (param, decay, gradient, product) in ((kind, s.tolist()) for kind, s in sums.items()):
            cosine = product / math.sqrt(decay * gradient) if decay * gradient else math.nan
            self._rows.append(
                {
                    "step": self._steps,
                    "group": i,
                    "kind": kind,
                    "lr": lr,
                    "param_norm": math.sqrt(param),
                    "decay_norm": math.sqrt(decay),
                    "gradient_norm": math.sqrt(gradient),
                    "cosine": cosine,
                    "decay_alone": math.sqrt(alone[kind]),
                    "equilibrium_norm": lr * math.sqrt(counts[kind] / (2 * share)) if 0 < share < 1 else math.nan,
                    "noise_gradient_norm": lr * math.sqrt(counts[kind] * (1 - beta1) / (1 + beta1)),
                }
            )

    def table(self) -> pd.DataFrame:
        """One row a recorded step, group and kind: Euclidean norms of the parameters before the step, of the decay and
        of the gradient step, and the cosine between the two (1: the gradient shrinks, too; 0 in equilibrium).

        Theory beside it, for the rate and decay of that step: ``decay_alone``, the initial norm · ∏(1 − η_tλ), of
        each parameter from the first row on in which it took part; ``equilibrium_norm``, √(η n/2λ), to which gradients
        of noise lead (closed forms F4 and F10); and ``noise_gradient_norm``, η√(n(1−β₁)/(1+β₁)), the size of Adam's
        step under them.
        """
        return pd.DataFrame(self._rows, columns=[*COLUMNS, *THEORY])

    def plot(self):
        """Norms, steps and cosine over the run, one colour a group and kind, theory dashed; returns the three axes.

        Raises ImportError without matplotlib, ValueError before the first recorded step."""
        try:
            from matplotlib import pyplot as plt
        except ImportError as error:
            raise ImportError("plot needs matplotlib: pip install 'adamw-book[book]'") from error
        table = self.table()
        if table.empty:
            raise ValueError("plot: no step is recorded yet; attach the recorder before optimizer.step()")
        _, (norm, step, cosine) = plt.subplots(3, 1, sharex=True, figsize=(6, 8), layout="constrained")
        for number, ((i, kind), own) in enumerate(table.groupby(["group", "kind"], sort=False)):
            look = {"color": f"C{number}"}
            norm.plot(own["step"], own["param_norm"], label=f"{kind}, group {i}", **look)
            norm.plot(own["step"], own["decay_alone"], "--", **look)
            norm.plot(own["step"], own["equilibrium_norm"], ":", **look)
            step.plot(own["step"], own["gradient_norm"], **look)
            step.plot(own["step"], own["decay_norm"], "-.", **look)
            step.plot(own["step"], own["noise_gradient_norm"], "--", **look)
            cosine.plot(own["step"], own["cosine"], **look)
        norm.set(ylabel="norm (-- decay alone, ·· equilibrium)", yscale="log")
        step.set(ylabel="step (— gradient, -· decay, -- noise)", yscale="log")
        cosine.set(ylabel="cosine of the two steps", xlabel="step t", ylim=(-1.05, 1.05))
        norm.legend(fontsize="small")
        return norm, step, cosine

    def lightning(self):
        """A callback for Lightning's Trainer: records the first optimizer of a fit. Raises ImportError without it."""
        try:
            from lightning.pytorch.callbacks import Callback
        except ImportError:
            try:
                from pytorch_lightning.callbacks import Callback
            except ImportError as error:
                raise ImportError("lightning() needs Lightning: pip install lightning") from error
        recorder = self

        class Record(Callback):
            def on_train_start(self, trainer, module) -> None:
                recorder.attach(trainer.optimizers[0], module)

            def on_train_end(self, trainer, module) -> None:
                recorder.detach()

            def on_exception(self, trainer, module, exception) -> None:
                recorder.detach()

        return Record()

    def hugging_face(self):
        """A callback for Hugging Face's Trainer: records each ``train()``. Raises ImportError without transformers."""
        try:
            from transformers import TrainerCallback
        except ImportError as error:
            raise ImportError("hugging_face() needs transformers: pip install transformers accelerate") from error
        recorder = self

        class Record(TrainerCallback):
            def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs) -> None:
                recorder.detach()  # a train() that broke off tells its callbacks nothing
                recorder.attach(optimizer, model)

            def on_train_end(self, args, state, control, **kwargs) -> None:
                recorder.detach()

        return Record()


def _nested(optimizer: Optimizer) -> bool:
    """Whether a hook is called by a step within a step, as of a class that calls its parent's: torch hooks both."""
    step = sys._getframe(2)
    outer = step.f_back
    while outer is not None and not (outer.f_code is step.f_code and outer.f_locals.get("self") is optimizer):
        outer = outer.f_back
    return outer is not None


def _how(optimizer: Optimizer, i: int) -> Decay:
    """How the decay of group ``i`` acts, tried at the rate that it has now, or begins from; one that is 0 may rise."""
    group, where = optimizer.param_groups[i], f"in group {i}"
    lr, weight_decay = value_of(group, "lr", where), value_of(group, "weight_decay", where)
    if "weight_decay" not in group or not group["params"]:
        return Decay("none")
    axes = max(p.ndim for p in group["params"])
    try:
        return decay_of(optimizer, group, lr or float(group.get("initial_lr") or 1e-3), axes)
    except ValueError:
        if weight_decay:
            raise
        return Decay("none")  # nothing decays yet, and what will is not told from the gradient step
