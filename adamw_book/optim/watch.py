"""Whether the tensors that were sorted at an earlier step still are what they were: what every step costs on the host.

With thousands of small parameters the price is that of the memory that a look touches, so the look is kept short: each
gradient's and parameter's address and layout, the identity of each tensor of the state, and the addresses of a few of
those. No call goes through torch's dispatcher.
"""

from itertools import chain
from operator import is_, itemgetter

import torch
from torch import Tensor

from .entry import Entry, local

SAMPLE = 32  # tensors of the state whose addresses are looked at in one step


class Watch:
    """Watches the parameters of some entries, their gradients and their states."""

    def __init__(self, entries: list[Entry]) -> None:
        self.params, self.states = [e.param for e in entries], [e.state for e in entries]
        self.sharded = any(local(e.param) is not e.param for e in entries)
        names = ["step", "exp_avg", "exp_avg_sq"] + (["max_exp_avg_sq"] if len(entries[0].moments) > 2 else [])
        self.of_state = itemgetter(*names)
        self.kept = list(chain.from_iterable(map(self.of_state, self.states)))
        self.steps = self.kept[:: len(names)]
        self.grad_dtypes = [e.grad_dtype for e in entries]
        self.contiguous = all(local(p).is_contiguous() for p in self.params)
        self.strides = None if self.contiguous else [local(p).stride() for p in self.params]
        self.places, self.numels = self._places(self.params), list(map(Tensor.numel, self.params))
        # A state that is loaded or replaced is another object, and noticed at once. Memory that is put beneath the same
        # object (``state.data = …``) is noticed at once when it befalls all, and in turn when it befalls one; until
        # then the step goes on in the memory that it knows, which is therefore held.
        self.moments = [t for e in entries for t in e.moments]
        self.held = [local(t).detach() for t in self.moments]
        self.moment_places = list(map(Tensor.data_ptr, self.held))
        self.turn = 0
        self.found: tuple[list[Tensor], list[int]] | None = None

    def look(self) -> bool:
        """Whether nothing but the values and the places of the gradients has changed."""
        try:
            grads, places = self._gradients()
            same = (
                [g.dtype for g in grads] == self.grad_dtypes
                and all(map(is_, chain.from_iterable(map(self.of_state, self.states)), self.kept))
                and self._places(self.params) == self.places
                and list(map(Tensor.numel, self.params)) == self.numels
                and self._same_strides()
                and self._same_sample()
            )
        except (TypeError, KeyError, RuntimeError):  # no gradient or a sparse one, no state
            same = False
        self.found = (grads, places) if same else None
        return same

    def take(self) -> tuple[list[Tensor], list[int]]:
        """The gradients and their addresses. They are not kept: ``zero_grad(set_to_none=True)`` is to free them."""
        found, self.found = self.found or self._gradients(), None
        return found

    def _gradients(self) -> tuple[list[Tensor], list[int]]:
        grads = [p.grad for p in self.params]
        if self.sharded:
            grads = list(map(local, grads))
        return grads, list(map(Tensor.data_ptr, grads))

    def _places(self, tensors: list[Tensor]) -> list[int]:
        return list(map(Tensor.data_ptr, map(local, tensors) if self.sharded else tensors))

    def _same_strides(self) -> bool:
        params = map(local, self.params) if self.sharded else self.params
        if self.contiguous:
            return all(map(Tensor.is_contiguous, params))
        return [p.stride() for p in params] == self.strides

    def _same_sample(self) -> bool:
        sample = slice(self.turn, self.turn + SAMPLE)
        self.turn = sample.stop if sample.stop < len(self.moments) else 0
        return self._places(self.moments[sample]) == self.moment_places[sample]


def common_buffer(entries: list[Entry]) -> Tensor:
    """One buffer of all step counts: the one they lie in already, which a graph may know, or a new one. The states'
    counts become views of it, so that one addition advances them all."""
    steps = [e.step for e in entries]
    buffer, size = steps[0]._base, steps[0].element_size()
    if buffer is None or buffer.dim() != 1 or len(buffer) != len(steps):
        buffer = None
    elif not all(s.dim() == 0 and s.data_ptr() == buffer.data_ptr() + i * size for i, s in enumerate(steps)):
        buffer = None
    if buffer is None:
        buffer = torch.stack([s.detach().reshape(()) for s in steps])
    for e, view in zip(entries, buffer, strict=True):
        e.state["step"] = e.step = view
    return buffer
