"""Whether the tensors that were sorted at an earlier step still are what they were: what every step costs on the host.

With thousands of small parameters the price is that of the memory that a look touches, so the look is kept short: each
gradient and parameter, its address, and one call in which torch compares type, dtype, device, shape and strides of all.
The state is looked at only after somebody may have changed it, for which he must have asked the optimizer for it.
"""

import sys
from itertools import chain, compress
from operator import attrgetter, itemgetter
from typing import NamedTuple

import torch
from torch import Tensor

from .entry import Entry, as_stored, in_memory, local

try:  # what torch.compile watches its inputs with
    from torch._C._dynamo.guards import TensorGuards
except ImportError:
    TensorGuards = None

_grad = attrgetter("grad")


def kind(t: Tensor) -> tuple:
    """What must not change beneath an address, and the lazy sign and conjugate, which an address does not show."""
    strides = t.stride() if t.layout is torch.strided else None
    return type(t), t.dtype, t.device, t.shape, strides, t.is_conj(), t.is_neg(), t.requires_grad


class Kinds:
    """The kinds of some tensors, which are not held."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self.guards, self.known = None, None
        if TensorGuards is None or not all(map(as_stored, tensors)):
            self.known = list(map(kind, tensors))
        else:
            self.guards = TensorGuards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None)

    def fit(self, tensors: list[Tensor | None]) -> bool:
        """Whether these are of the same kinds, None being of none."""
        if self.guards is not None:
            return self.guards.check(*tensors)
        return all(t is not None and kind(t) == known for t, known in zip(tensors, self.known, strict=True))


class Gradients(NamedTuple):
    """The gradients of one step in the order of the entries, local parts, None where there is none."""

    all: list[Tensor | None]
    alike: bool  # whether each is there, with the dtype and the layout of its parameter

    def present(self, of_entries: list | None = None) -> list:
        """Those of a list with a place for each entry, by default the gradients, whose entry has a gradient."""
        of_entries = self.all if of_entries is None else of_entries
        return of_entries if self.alike else list(compress(of_entries, self.mask))

    @property
    def mask(self) -> list[bool]:
        return [g is not None for g in self.all]


class Watch:
    """Watches the parameters of some entries, their gradients and their states."""

    def __init__(self, entries: list[Entry], by_address: bool) -> None:
        """``by_address``: whether the step goes on in the memory that is found here."""
        self.entries, self.by_address = entries, by_address
        self.params = [e.param for e in entries]
        self.sharded = any(local(e.param) is not e.param for e in entries)
        self.grad_dtypes = [e.grad_dtype for e in entries]
        self.of_state = itemgetter("step", *entries[0].names)
        params, values = self.locals_of(self.params), self._values()
        self.kinds, self.state_kinds = Kinds(params), Kinds(values)
        self.gradient_kinds = Kinds([p.detach().to(dtype) for p, dtype in zip(params, self.grad_dtypes, strict=True)])
        self.have_places = all(map(in_memory, values))
        self.places, self.state_places = self._places(params, by_address), self._places(values, self.have_places)
        self.found: Gradients | None = None

    def look(self) -> bool:
        """Whether nothing but values, and which gradients there are and where, has changed."""
        try:
            params = self.locals_of(self.params)
            same = self.kinds.fit(params) and self._places(params, self.by_address) == self.places
            found = self._gradients()
            if same and not found.alike:
                same = all(map(self._usable, found.all, self.grad_dtypes))
        except (TypeError, RuntimeError):  # what has no address, or no layout, any more
            same = False
        self.found = found if same else None
        return same

    def take(self) -> Gradients:
        """The gradients. They are not kept: ``zero_grad(set_to_none=True)`` is to free them."""
        found, self.found = self.found or self._gradients(), None
        return found

    def same_state(self, state: dict[Tensor, dict]) -> bool:
        """Whether the tensors of the state still lie where they lay, as what they were; takes hold of the state."""
        try:
            for e in self.entries:
                e.state = state[e.param] if e.param in state else None
            values = self._values()
            return self.state_kinds.fit(values) and self._places(values, self.have_places) == self.state_places
        except (TypeError, KeyError, AttributeError, RuntimeError):  # missing, a number, or without an address
            return False

    def state_is_ours(self) -> bool:
        """Whether none but the optimizer holds the state: then none can change it without asking for it."""
        return holders([e.state for e in self.entries]) == {HOLDERS_OF_A_STATE} and holders(self._values()) == {1}

    def release(self) -> None:
        """Let go of the state, which somebody may change."""
        for e in self.entries:
            e.state = None

    def _usable(self, grad: Tensor | None, dtype: torch.dtype) -> bool:
        return grad is None or (grad.dtype == dtype and not grad.is_sparse and (not self.by_address or in_memory(grad)))

    def _gradients(self) -> Gradients:
        grads = list(map(_grad, self.params))
        if self.sharded:
            grads = [g if g is None else local(g) for g in grads]
        return Gradients(grads, self.gradient_kinds.fit(grads))

    def locals_of(self, tensors: list[Tensor]) -> list[Tensor]:
        """The parts of some tensors that this process holds."""
        return list(map(local, tensors)) if self.sharded else tensors

    def _values(self) -> list[Tensor]:
        return self.locals_of(list(chain.from_iterable(self.of_state(e.state) for e in self.entries)))

    def _places(self, tensors: list[Tensor], wanted: bool) -> list[int] | None:
        return list(map(Tensor.data_ptr, tensors)) if wanted else None


def common_buffer(entries: list[Entry]) -> Tensor:
    """One buffer of all step counts: the one they lie in already, which a graph may know, or a new one. The states'
    counts become views of it, so that one addition advances them all."""
    steps = [e.state["step"] for e in entries]
    buffer, size = steps[0]._base, steps[0].element_size()
    if buffer is None or buffer.dim() != 1 or len(buffer) != len(steps):
        buffer = None
    elif not all(s.dim() == 0 and s.data_ptr() == buffer.data_ptr() + i * size for i, s in enumerate(steps)):
        buffer = None
    if buffer is None:
        buffer = torch.stack([s.detach().reshape(()) for s in steps])
    for e, view in zip(entries, buffer, strict=True):
        e.state["step"] = view
    return buffer


def holders(things: list) -> set[int]:
    """How many hold each of these things besides the list, as CPython counts references."""
    return {count - _IN_A_LIST for count in map(sys.getrefcount, things)}


_IN_A_LIST = 0
_IN_A_LIST = holders([object()]).pop()
HOLDERS_OF_A_STATE = 2  # optimizer.state and the Entry


def count_of_references(holder: dict, name: str) -> int:
    """How many hold what a dict holds under a name, as CPython counts references; to be compared with its like."""
    return sys.getrefcount(holder[name])
