"""The two backends that are made of torch's own operations: bundles of parameters of one group, updated together."""

import torch
from torch import Tensor

from . import fused_cpu, reference
from .coefficients import decay_rate, is_vector
from .entry import Entry, numbers, sharding
from .explanation import sums_of, widest
from .watch import Watch, common_buffer


class Bundle:
    """Parameters of one group for one backend."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries, self.group = entries, entries[0].group
        self.device, self.replicas, self.sharding = entries[0].device, entries[0].replicas, sharding(entries[0].param)
        self.counts = None if self.group["differentiable"] else common_buffer(entries)
        self.watch = Watch(entries)
        self.sums: list[Tensor] = []

    def fits(self) -> bool:
        """Whether the parameters would be sorted here again."""
        return self.watch.look()

    def squares(self) -> Tensor:
        """Each replica's sum of squared gradients (R,)."""
        grads = [numbers(e.param.grad) for e in self.entries]
        rows = [g.reshape(self.replicas, g.numel() // self.replicas) for g in grads]
        dtype = torch.promote_types(rows[0].dtype, torch.float32)
        return torch.stack([torch.linalg.vector_norm(row, dim=1, dtype=dtype).square() for row in rows]).sum(0)

    def step(
        self,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
        squares: Tensor | None,
        max_norm: float | None,
        explain: bool,
    ) -> None:
        """Take one step. Gradients of a scaled loss are unscaled in place, as torch's fused step leaves them; clipping
        leaves them as they are."""
        grads, _ = self.watch.take()
        if found_inf is not None and found_inf.item():
            return
        if grad_scale is not None:
            grad_scale = grad_scale.squeeze()
            for g in grads:
                g.div_(grad_scale.to(g.device))
        if self.entries[0].dtype.is_complex:
            grads = list(map(torch.view_as_real, grads))
        if squares is not None:
            norm = squares.sqrt() if grad_scale is None else squares.sqrt() / grad_scale
            clip = (max_norm / (norm + 1e-6)).clamp(max=1.0)
            grads = [
                g * clip.to(g.device, g.dtype).view(-1, *[1] * (g.dim() - 1)) if g.dim() else g * clip[0] for g in grads
            ]
        if self.counts is None:
            torch._foreach_add_([e.step for e in self.entries], 1)
        else:
            self.counts.add_(1)
        self.update(grads, explain)

    def update(self, grads: list[Tensor], explain: bool) -> None:
        """Compute the new parameters and moments; the step has been counted."""
        raise NotImplementedError

    def explained(self) -> dict[Tensor, Tensor]:
        """parameter → Σθ², Σd², Σu², Σdu of the last step that was to be explained, shape (R, 4)."""
        return {e.param: sums for e, sums in zip(self.entries, self.sums, strict=True)} if self.sums else {}


class Fused(Bundle):
    """Parameters of one dtype on the CPU, through torch's fused kernel."""

    def __init__(self, entries: list[Entry]) -> None:
        super().__init__(entries)
        self.params = [numbers(e.param) for e in entries]
        self.exp_avgs = [numbers(e.exp_avg) for e in entries]
        self.exp_avg_sqs = [numbers(e.exp_avg_sq) for e in entries]
        self.max_exp_avg_sqs = [numbers(e.max_exp_avg_sq) for e in entries if e.max_exp_avg_sq is not None]
        self.scratch: list[Tensor] = []

    def update(self, grads: list[Tensor], explain: bool) -> None:
        group, dtype = self.group, self.params[0].dtype
        if is_vector(group["lr"]) and not self.scratch:
            self.scratch = [torch.empty_like(p) for p in self.params]
        as_they_are = all(map(Tensor.is_contiguous, grads)) and all(g.dtype is dtype for g in grads)
        fused_cpu.adamw_(
            self.params,
            grads if as_they_are else [g.to(dtype).contiguous() for g in grads],
            self.exp_avgs,
            self.exp_avg_sqs,
            self.max_exp_avg_sqs,
            self.watch.steps,
            self.scratch,
            lr=_number_or_vector(group["lr"]),
            weight_decay=_number_or_vector(group["weight_decay"]),
            decay_rate=_number_or_vector(decay_rate(group)),
            l2=_number_or_vector(group["l2"]),
            beta1=float(group["betas"][0]),
            beta2=float(group["betas"][1]),
            eps=group["eps"],
            maximize=group["maximize"],
        )


class Reference(Bundle):
    """Parameters of any kind, one after the other, through the tensor algebra of reference.py."""

    def update(self, grads: list[Tensor], explain: bool) -> None:
        group = self.group
        count_is_tensor = group["capturable"] or group["fused"] or group["differentiable"]
        self.sums = []
        for e, grad in zip(self.entries, grads, strict=True):
            param = numbers(e.param)
            before = param.clone() if explain else None
            new = reference.adamw_(
                param,
                grad,
                *(numbers(m) for m in e.moments),
                step=_double(e.step, param.device) if count_is_tensor else e.step.item(),
                lr=_double(group["lr"], param.device),
                weight_decay=_double(group["weight_decay"], param.device),
                decay_rate=_double(decay_rate(group), param.device),
                l2=_double(group["l2"], param.device),
                beta1=_double(group["betas"][0], param.device),
                beta2=_double(group["betas"][1], param.device),
                eps=group["eps"],
                maximize=group["maximize"],
                cautious=group["cautious"],
                differentiable=group["differentiable"],
                stochastic_rounding=group["stochastic_rounding"],
                index=e.index,
            )
            if explain:
                self.sums.append(sums_of(before, new.decay_step, new.gradient_step, e.replicas))


def _double(value: float | Tensor, device: torch.device) -> float | Tensor:
    """Tensor coefficients in float64, where the device has it: 1 − β₂ᵗ loses half of float32's digits at the first
    step."""
    return value.squeeze().to(device, widest(device)) if isinstance(value, Tensor) else value


def _number_or_vector(value: float | Tensor) -> float | Tensor:
    """A float, or a vector in float64 on the CPU."""
    return value.to("cpu", torch.float64) if is_vector(value) else float(value)
