"""How an optimizer's step is carried out: its parameters sorted into bundles, each for one backend, kept while they
stay the same.
"""

from operator import is_

from torch import Tensor

from .coefficients import replicas_of
from .entry import Entry, flags
from .host import Fused, Reference


class Plan:
    """Bundles that together update every parameter with a gradient."""

    def __init__(self, groups: list[dict], entries: list[tuple[str, Entry]], idle: list[Tensor]) -> None:
        """``entries``: (backend, entry) of each parameter with a gradient; ``idle``: the parameters without."""
        self.idle = idle
        self.groups = [(group, list(group["params"]), flags(group), replicas_of(group)) for group in groups]
        bundles: dict[tuple, list[Entry]] = {}
        for backend, entry in entries:
            kind = entry.kind if backend == "triton" else (id(entry.group), entry.param.dtype)
            bundles.setdefault((backend, *kind), []).append(entry)
        self.bundles = [_bundle(backend, same) for (backend, *_), same in bundles.items()]

    def fits(self, groups: list[dict]) -> bool:
        """Whether parameters, gradients, state and flags still are what was sorted; a look at each, no more."""
        if len(groups) != len(self.groups):
            return False
        for now, (group, params, group_flags, replicas) in zip(groups, self.groups, strict=True):
            if now is not group or flags(now) != group_flags or replicas_of(now) != replicas:
                return False
            if len(now["params"]) != len(params) or not all(map(is_, now["params"], params)):
                return False
        return all(p.grad is None for p in self.idle) and all(bundle.fits() for bundle in self.bundles)

    def step(self, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        """Update everything, bundle by bundle."""
        for bundle in self.bundles:
            bundle.step(grad_scale, found_inf)


def _bundle(backend: str, entries: list[Entry]):
    if backend == "triton":
        from .work_table import Launch

        return Launch(entries)
    return {"torch": Fused, "reference": Reference}[backend](entries)
