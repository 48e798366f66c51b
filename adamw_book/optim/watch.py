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

BLOCK = 256
ABSENT = -1  # in the place of a gradient's address
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
    mask: list[bool] | None  # which entries have one; None: all of them
    ordinary: bool  # whether those that are there have the layout of their parameters, and nothing is still to be taken
    places: list[int]  # where the step goes by address and they are ordinary: their addresses, ABSENT for none

    def present(self, of_entries: list | None = None) -> list:
        """Those of a list with a place for each entry, by default the gradients, whose entry has a gradient."""
        of_entries = self.all if of_entries is None else of_entries
        return of_entries if self.mask is None else list(compress(of_entries, self.mask))


class Watch:
    """Watches the parameters of some entries, their gradients and their states."""

    def __init__(self, entries: list[Entry], by_address: bool) -> None:
        """``by_address``: whether the step goes on in the memory that is found here."""
        self.entries, self.by_address = entries, by_address
        self.sharded = any(local(e.param) is not e.param for e in entries)
        self.of_state = itemgetter("step", *entries[0].names)
        self.blocks = [_Block(entries[i : i + BLOCK], self) for i in range(0, len(entries), BLOCK)]
        values = self._values()
        self.state_kinds, self.have_places = Kinds(values), all(map(in_memory, values))
        self.state_places = self.places_of(values, self.have_places)
        self.found: Gradients | None = None

    @property
    def places(self) -> list[int]:
        """The parameters' addresses."""
        return [place for block in self.blocks for place in block.places]

    def look(self) -> bool:
        """Whether nothing but values, and which gradients there are and where, has changed."""
        grads, places, missing, ordinary, self.found = [], [], False, True, None
        try:
            for block in self.blocks:
                params = self.locals_of(block.params)
                if not block.kinds.fit(params) or self.places_of(params, self.by_address) != block.places:
                    return False
                some = self._gradients(block.params)
                grads += some
                if block.gradient_kinds.fit(some):
                    places += self.places_of(some, self.by_address) or ()
                    continue
                if not all(map(self._usable, some, block.grad_dtypes)):
                    return False
                missing = missing or any(g is None for g in some)
                stand_ins = [p.detach() if g is None else g for p, g in zip(params, some, strict=True)]
                ordinary = ordinary and block.gradient_kinds.fit(stand_ins)
                places += [ABSENT if g is None else g.data_ptr() for g in some] if self.by_address else ()
        except (TypeError, RuntimeError):  # what has no address, or no layout, any more
            return False
        self.found = Gradients(grads, [g is not None for g in grads] if missing else None, ordinary, places)
        return True

    def take(self) -> Gradients:
        """The gradients. They are not kept: ``zero_grad(set_to_none=True)`` is to free them."""
        if self.found is None:
            self.look()
        found, self.found = self.found, None
        return found

    def same_state(self, state: dict[Tensor, dict]) -> bool:
        """Whether the tensors of the state still lie where they lay, as what they were; takes hold of the state."""
        try:
            for e in self.entries:
                e.state = state[e.param] if e.param in state else None
            values = self._values()
            return self.state_kinds.fit(values) and self.places_of(values, self.have_places) == self.state_places
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

    def _gradients(self, params: list[Tensor]) -> list[Tensor | None]:
        grads = list(map(_grad, params))
        return [g if g is None else local(g) for g in grads] if self.sharded else grads

    def locals_of(self, tensors: list[Tensor]) -> list[Tensor]:
        """The parts of some tensors that this process holds."""
        return list(map(local, tensors)) if self.sharded else tensors

    def _values(self) -> list[Tensor]:
        return self.locals_of(list(chain.from_iterable(self.of_state(e.state) for e in self.entries)))

    def places_of(self, tensors: list[Tensor], wanted: bool) -> list[int] | None:
        """Their addresses, where they are wanted."""
        return list(map(Tensor.data_ptr, tensors)) if wanted else None


class _Block:
    """So many parameters that what a look touches of them stays in a core's own cache until all of it is done."""

    def __init__(self, entries: list[Entry], watch: Watch) -> None:
        self.params, self.grad_dtypes = [e.param for e in entries], [e.grad_dtype for e in entries]
        params = watch.locals_of(self.params)
        self.kinds, self.places = Kinds(params), watch.places_of(params, watch.by_address)
        self.gradient_kinds = Kinds([p.detach().to(dtype) for p, dtype in zip(params, self.grad_dtypes, strict=True)])


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
