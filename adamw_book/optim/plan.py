"""How an optimizer's step is carried out: its parameters sorted into bundles, each for one backend, kept while they
stay the same."""

from collections import Counter
from operator import is_

import torch
from torch import Tensor

from .coefficients import replicas_of
from .entry import Entry, Flags, sharding
from .explanation import Explanation
from .torch_bundles import ALONE, ReferenceBundle, TorchBundle


class Plan:
    """Bundles that together update every parameter with a gradient."""

    def __init__(
        self,
        groups: list[dict],
        entries: list[tuple[str, Entry]],
        idle: list[Tensor],
        explain: bool = False,
    ) -> None:
        """``entries``: (backend, entry) of each parameter that takes part; ``idle``: those that never had a
        gradient."""
        self.idle, self.explain = idle, explain
        self.groups = [(group, list(group["params"]), Flags.of(group), replicas_of(group)) for group in groups]
        self.state_dtypes = {id(group): flags.state_dtype for group, _, flags, _ in self.groups}
        bundles: dict[tuple, list[Entry]] = {}
        listed, turns = Counter(id(entry.param) for _, entry in entries), Counter()
        for backend, entry in entries:
            if listed[id(entry.param)] > 1:  # a parameter that is listed twice is updated twice, in turns
                backend = "reference"
                turns[id(entry.param)] += 1
            kind = entry.kind if backend == "triton" else (id(entry.group), entry.dtype, entry.device)
            alone = backend == "torch" and entry.param.numel() <= ALONE and torch.get_num_threads() > 1
            key = (backend, turns[id(entry.param)], alone, sharding(entry.param), *kind)
            bundles.setdefault(key, []).append(entry)
        self.bundles = [_bundle(backend, same, turn > 0) for (backend, turn, *_), same in bundles.items()]

    def fits(self, groups: list[dict], explain: bool) -> bool:
        """Whether parameters, gradients and flags still are what was sorted; a look at each, no more."""
        same = self._same_groups(groups, explain) and all(bundle.fits() for bundle in self.bundles)
        if not same:
            for bundle in self.bundles:
                bundle.watch.found = None
        return same

    def same_state(self, state: dict[Tensor, dict]) -> bool:
        """Whether the state still is what was sorted."""
        return all([bundle.watch.same_state(state) for bundle in self.bundles])

    def state_is_ours(self) -> bool:
        """Whether none but the optimizer holds any part of the state, its dict apart."""
        return all(bundle.watch.state_is_ours() for bundle in self.bundles)

    def release(self) -> None:
        """Let go of the state, which somebody may change; :meth:`same_state` takes hold of it again."""
        for bundle in self.bundles:
            bundle.watch.release()

    def _same_groups(self, groups: list[dict], explain: bool) -> bool:
        if len(groups) != len(self.groups) or explain != self.explain:
            return False
        for now, (group, params, flags, replicas) in zip(groups, self.groups, strict=True):
            if now is not group or Flags.of(now) != flags or replicas_of(now) != replicas:
                return False
            if len(now["params"]) != len(params) or not all(map(is_, now["params"], params)):
                return False
        return all(p.grad is None for p in self.idle)

    def step(self, grad_scale: Tensor | None, found_inf: Tensor | None, max_norm: float | None) -> None:
        """Update everything, bundle by bundle."""
        squares = self._squares() if max_norm is not None else {}
        for bundle in self.bundles:
            bundle.step(grad_scale, found_inf, squares.get((bundle.replicas, bundle.device)), max_norm, self.explain)

    @property
    def captured(self) -> bool:
        """Whether a CUDA graph holds this plan's memory."""
        return any(getattr(bundle, "captured", False) for bundle in self.bundles)

    def explanation(self) -> dict[Tensor, Explanation]:
        """parameter → what its last step was made of. With shards on several processes each of them must ask."""
        explained = {}
        for bundle in self.bundles:
            for param, sums in bundle.explained().items():
                sums = _over(bundle.sharding, sums.clone())
                explained[param] = Explanation.of(sums if bundle.replicas > 1 else sums[0])
        return explained

    def _squares(self) -> dict[tuple, Tensor]:
        """(replicas, device) → sums of squared gradients (R,), over all bundles and processes.

        The replicas of an ensemble are models of their own, and clipped as such; all other parameters are one model.
        """
        totals: dict[int, Tensor] = {}
        for bundle in self.bundles:
            squares = _over(bundle.sharding, bundle.squares())
            known = totals.get(bundle.replicas)
            totals[bundle.replicas] = squares if known is None else known + squares.to(known.device, known.dtype)
        return {(b.replicas, b.device): totals[b.replicas].to(b.device) for b in self.bundles}


def _over(groups: tuple, values: Tensor) -> Tensor:
    """The sum of ``values`` over the processes that hold the shards."""
    for group in groups:
        torch.distributed.all_reduce(values, group=group)
    return values


def _bundle(backend: str, entries: list[Entry], repeated: bool):
    if backend == "triton":
        from .triton_bundle import TritonBundle

        return TritonBundle(entries)
    return TorchBundle(entries) if backend == "torch" else ReferenceBundle(entries, repeated)
