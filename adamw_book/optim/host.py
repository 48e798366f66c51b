"""The two backends that are made of torch's own operations: bundles of parameters of one group, updated together."""

import torch
from torch import Tensor

from . import fused_cpu, reference
from .coefficients import COEFFICIENTS, is_vector
from .entry import Entry, local, numbers

_ONE = torch.tensor(1.0)


class Bundle:
    """Parameters of one group for one backend."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries, self.group = entries, entries[0].group
        self.steps = [e.step for e in entries]

    def fits(self) -> bool:
        """Whether the parameters would be sorted here again."""
        return all(e.fits() and e.param.dtype is e.dtype and e.param.device == e.device for e in self.entries)

    def step(self, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        """Take one step. Gradients of a scaled loss are unscaled in place, as torch's fused step leaves them."""
        if found_inf is not None and found_inf.item():
            return
        if grad_scale is not None:
            for e in self.entries:
                e.param.grad.div_(grad_scale.to(e.param.grad.device))
        if self.steps[0].is_cpu:
            torch._foreach_add_(self.steps, _ONE, alpha=1.0)
        else:
            torch._foreach_add_(self.steps, 1)
        self.update()

    def update(self) -> None:
        """Compute the new parameters and moments; ``steps`` have been counted."""
        raise NotImplementedError


class Fused(Bundle):
    """Parameters of one dtype on the CPU, through torch's fused kernel."""

    def __init__(self, entries: list[Entry]) -> None:
        super().__init__(entries)
        self.params = [numbers(e.param) for e in entries]
        self.exp_avgs = [numbers(e.exp_avg) for e in entries]
        self.exp_avg_sqs = [numbers(e.exp_avg_sq) for e in entries]
        self.max_exp_avg_sqs = [numbers(e.max_exp_avg_sq) for e in entries if e.max_exp_avg_sq is not None]
        self.scratch: list[Tensor] = []

    def fits(self) -> bool:
        """As in every bundle; and torch's kernel takes the memory as it comes, so that strides must not change."""
        return super().fits() and all(
            local(e.param) is p and p.is_contiguous() for e, p in zip(self.entries, self.params, strict=True)
        )

    def update(self) -> None:
        group, dtype = self.group, self.params[0].dtype
        if any(is_vector(group[name]) for name in COEFFICIENTS) and not self.scratch:
            self.scratch = [torch.empty_like(p) for p in self.params]
        fused_cpu.adamw_(
            self.params,
            [numbers(e.param.grad).to(dtype).contiguous() for e in self.entries],
            self.exp_avgs,
            self.exp_avg_sqs,
            self.max_exp_avg_sqs,
            self.steps,
            self.scratch,
            lr=_number_or_vector(group["lr"]),
            weight_decay=_number_or_vector(group["weight_decay"]),
            l2=_number_or_vector(group["l2"]),
            beta1=float(group["betas"][0]),
            beta2=float(group["betas"][1]),
            eps=group["eps"],
            maximize=group["maximize"],
        )


class Reference(Bundle):
    """Parameters of any kind, one after the other, through the tensor algebra of reference.py."""

    def update(self) -> None:
        group = self.group
        tensors_count = group["capturable"] or group["fused"] or group["differentiable"]
        for e in self.entries:
            moments = [numbers(m) for m in e.moments]
            device = moments[0].device
            reference.adamw_(
                numbers(e.param),
                numbers(e.param.grad),
                *moments,
                step=_double(e.step, device) if tensors_count else e.step.item(),
                lr=_double(group["lr"], device),
                weight_decay=_double(group["weight_decay"], device),
                l2=_double(group["l2"], device),
                beta1=_double(group["betas"][0], device),
                beta2=_double(group["betas"][1], device),
                eps=group["eps"],
                maximize=group["maximize"],
                differentiable=group["differentiable"],
            )


def _double(value: float | Tensor, device: torch.device) -> float | Tensor:
    """Tensor coefficients in float64: 1 − β₂ᵗ loses half of float32's digits at the first step."""
    return value.squeeze().to(device, torch.float64) if isinstance(value, Tensor) else value


def _number_or_vector(value: float | Tensor) -> float | Tensor:
    """A float, or a vector in float64 on the CPU."""
    return value.to("cpu", torch.float64) if is_vector(value) else float(value)
