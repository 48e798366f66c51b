"""The two backends that are made of torch's own operations: bundles of parameters of one group, updated together."""

from contextlib import contextmanager
from functools import reduce

import torch
from torch import Tensor

from . import fused_cpu, reference
from .coefficients import decay_rate, is_vector
from .entry import Entry, in_memory, local, numbers, sharding
from .explanation import sums_of, widest
from .options import option
from .watch import Gradients, Watch, common_buffer

# torch's fused kernel shares tensors of any size among all cores. Below this many elements a core is done sooner alone,
# and on a busy machine does not wait for the others.
ALONE = 2**14


class Bundle:
    """Parameters of one group for one backend. ``repeated``: another bundle counts steps in the same states."""

    def __init__(self, entries: list[Entry], repeated: bool = False) -> None:
        self.entries, self.group = entries, entries[0].group
        self.device, self.replicas, self.sharding = entries[0].device, entries[0].replicas, sharding(entries[0].param)
        self.counts = None if self.group["differentiable"] or repeated else common_buffer(entries)
        self.watch = Watch(entries, by_address=False)
        dtypes = (torch.float32, entries[0].dtype, *(e.grad_dtype for e in entries))
        self.dtype_of_norms = reduce(torch.promote_types, dtypes).to_real()
        self.sums: dict[Tensor, Tensor] = {}

    def fits(self) -> bool:
        """Whether the parameters would be sorted here again."""
        return self.watch.look()

    def squares(self) -> Tensor:
        """Each replica's sum of squared gradients (R,)."""
        found = self.watch.found = self.watch.take()
        dtype = self.dtype_of_norms
        total = torch.zeros(self.replicas, dtype=dtype, device=self.device)
        for g in found.present():
            g = numbers(g.resolve_conj())
            rows = g.reshape(self.replicas, g.numel() // self.replicas)
            total += torch.linalg.vector_norm(rows, dim=1, dtype=dtype).square()
        return total

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
        found = self.watch.take()
        self.sums = {}
        entries, grads = found.present(self.entries), found.present()
        if not entries or (found_inf is not None and found_inf.item()):
            return
        if grad_scale is not None:
            grad_scale = grad_scale.squeeze().to(self.device)
            for g in grads:
                g.div_(grad_scale)
        if not found.ordinary:
            grads = [g.resolve_conj().resolve_neg() for g in grads]
        if self.entries[0].dtype.is_complex:
            grads = list(map(torch.view_as_real, grads))
        if squares is not None:
            norm = squares.sqrt() if grad_scale is None else squares.sqrt() / grad_scale
            clip = (max_norm / (norm + 1e-6)).clamp(max=1.0)
            grads = [
                g * clip.to(g.device, g.dtype).view(-1, *[1] * (g.dim() - 1)) if g.dim() else g * clip[0] for g in grads
            ]
        self._count(found, entries)
        self.update(entries, grads, explain)

    def update(self, entries: list[Entry], grads: list[Tensor], explain: bool) -> None:
        """Compute the new parameters and moments; the step has been counted."""
        raise NotImplementedError

    def explained(self) -> dict[Tensor, Tensor]:
        """parameter → Σθ², Σd², Σu², Σdu of the last step that was to be explained, shape (R, 4)."""
        return self.sums

    def _count(self, found: Gradients, entries: list[Entry]) -> None:
        if self.counts is None:
            torch._foreach_add_([e.state["step"] for e in entries], 1)
        elif found.mask is None:
            self.counts.add_(1)
        else:
            self.counts.add_(torch.tensor(found.mask, device="cpu").to(self.counts.device))


class TorchBundle(Bundle):
    """Parameters of one dtype on the CPU, through torch's fused kernel."""

    def __init__(self, entries: list[Entry]) -> None:
        super().__init__(entries)
        self.scratch: dict[Entry, Tensor] = {}
        self.alone = all(e.param.numel() <= ALONE for e in entries)

    def update(self, entries: list[Entry], grads: list[Tensor], explain: bool) -> None:
        group, dtype, locals_of = self.group, self.entries[0].dtype, self.watch.locals_of
        if is_vector(group["lr"]) and not self.scratch:
            self.scratch = {e: torch.empty_like(local(e.param)) for e in self.entries}
        steps, *moments = map(list, zip(*map(self.watch.of_state, [e.state for e in entries]), strict=True))
        as_they_are = all(map(Tensor.is_contiguous, grads)) and all(g.dtype is dtype for g in grads)
        with threads(1 if self.alone else torch.get_num_threads()):
            fused_cpu.adamw_(
                locals_of([e.param for e in entries]),
                grads if as_they_are else [g.to(dtype).contiguous() for g in grads],
                *map(locals_of, moments),
                *([] if group["amsgrad"] else [[]]),
                steps,
                list(map(self.scratch.get, entries)),
                lr=_number_or_vector(group["lr"]),
                weight_decay=_number_or_vector(group["weight_decay"]),
                decay_rate=_number_or_vector(decay_rate(group)),
                l2=_number_or_vector(option(group, "l2")),
                beta1=float(group["betas"][0]),
                beta2=float(group["betas"][1]),
                eps=group["eps"],
                maximize=group["maximize"],
            )


class ReferenceBundle(Bundle):
    """Parameters of any kind, one after the other, through the tensor algebra of reference.py."""

    def update(self, entries: list[Entry], grads: list[Tensor], explain: bool) -> None:
        group = self.group
        count_is_tensor = group["capturable"] or group["fused"] or group["differentiable"]
        for e, grad in zip(entries, grads, strict=True):
            param, step = numbers(e.param), e.state["step"]
            count = _double(step, param.device) if count_is_tensor or not in_memory(step) else step.item()
            before = param.clone() if explain else None
            new = reference.adamw_(
                param,
                grad,
                *(numbers(m) for m in e.moments),
                step=count,
                lr=_double(group["lr"], param.device),
                weight_decay=_double(group["weight_decay"], param.device),
                decay_rate=_double(decay_rate(group), param.device),
                l2=_double(option(group, "l2"), param.device),
                beta1=_double(group["betas"][0], param.device),
                beta2=_double(group["betas"][1], param.device),
                eps=group["eps"],
                maximize=group["maximize"],
                cautious=option(group, "cautious"),
                differentiable=group["differentiable"],
                stochastic_rounding=option(group, "stochastic_rounding"),
                index=e.index,
            )
            if explain:
                self.sums[e.param] = sums_of(before, new.decay_step, new.gradient_step, e.replicas)


@contextmanager
def threads(number: int):
    """Let torch's operations on this thread use so many cores."""
    before = torch.get_num_threads()
    if number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _double(value: float | Tensor, device: torch.device) -> float | Tensor:
    """Tensor coefficients in float64, where the device has it: 1 − β₂ᵗ loses half of float32's digits at the first
    step."""
    return value.squeeze().to(device, widest(device)) if isinstance(value, Tensor) else value


def _number_or_vector(value: float | Tensor) -> float | Tensor:
    """A float, or a vector in float64 on the CPU."""
    return value.to("cpu", torch.float64) if is_vector(value) else float(value)
