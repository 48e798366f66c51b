"""What is wrong with who is decayed: parameters that should not be, that are not held, or are held twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import torch

from .finding import Finding
from .parameters import Parameter

SPARED = """\
spared = {}  # of what this optimizer trains; a tied tensor stands in it once
for module in model.modules():
    norm = "norm" in type(module).__name__.lower()
    for p in module.parameters(recurse=False):
        axes = sum(length > 1 for length in p.shape) if norm else p.ndim
        spared[p] = axes < 2 or hasattr(module, "normalized_shape")
"""
SPARED_BY_NAME = """\
spared = {  # of what this optimizer trains; FSDP has made the shapes flat
    p: "bias" in name or "norm" in name.lower() for name, p in model.named_parameters()
}
"""
GROUPS = """\
groups = [
    {{"params": [p for p in spared if not spared[p]], "weight_decay": {weight_decay:g}}},
    {{"params": [p for p in spared if spared[p]], "weight_decay": 0.0}},
]
optimizer = torch.optim.AdamW(groups, lr={lr})"""


def paste(lr: str, weight_decay: float, by_name: bool = False) -> str:
    """Parameter groups, ready to paste: matrices and embeddings decayed, biases, norms and gains exempt. by_name: told
    by nothing else."""
    return (SPARED_BY_NAME if by_name else SPARED) + GROUPS.format(lr=lr, weight_decay=weight_decay)


def listed(parameters: Sequence[Parameter], most: int = 3) -> str:
    """Their number and the first few names."""
    names = ", ".join(p.label for p in parameters[:most]) + (", …" if len(parameters) > most else "")
    return f"{len(parameters)} parameter{'s' if len(parameters) > 1 else ''} ({names})"


def _address(tensor: torch.Tensor) -> int:
    """Where a tensor's values begin; 0 where it has none, or none of its own (sparse tensors, wrappers)."""
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return 0


def of_parameters(
    parameters: Iterable[Parameter],
    decays: Callable[[Parameter], float],
    shares: Callable[[Parameter], float],
    lr: str,
    whole_model: bool,
) -> list[Finding]:
    """The findings about who is decayed. decays: a parameter's largest weight_decay; shares: the largest share that a
    step takes from it and rounds to the nearest number, inf where none does; lr: the rate of all groups, or "…";
    whole_model: a model was given."""
    parameters = list(parameters)
    held = [p for p in parameters if p.groups]
    decayed = [p for p in held if decays(p) > 0]
    found = []

    def find(code: str, severity: str, those: list[Parameter], text: str, fix: str) -> None:
        if those:
            found.append(
                Finding(code, severity, text.format(listed(those), are="is" if len(those) == 1 else "are"), fix)
            )

    usual = max((decays(p) for p in decayed), default=0.0)
    flat = [p for p in held if p.kind == "flat"]
    shapeless = flat or any(p.kind in ("matrix", "embedding") and p.tensor.ndim < 2 for p in held)
    find(
        "in_two_groups",
        "error",
        [p for p in held if len(p.groups) > 1],
        "{} {are} listed more than once: each step updates and decays the same tensor twice.",
        "params = list(dict.fromkeys(params))  # before the groups are made",
    )
    memory = defaultdict(list)
    for p in decayed:
        if address := _address(p.tensor):
            memory[p.tensor.device, address].append(p)
    find(
        "shared_memory",
        "error",
        [p for same in memory.values() if len(same) > 1 for p in same],
        "{} lie in the same memory as different parameters: each of them decays it.",
        "head.weight = embedding.weight  # one Parameter under two names, not two over one tensor",
    )
    find(
        "exempt_decayed",
        "warning",
        [p for p in decayed if p.kind in ("bias", "norm", "vector")],
        "{} of kind bias, norm or gain {are} decayed; most recipes exempt them.",
        paste(lr, usual, by_name=bool(shapeless)),
    )
    find(
        "flat",
        "note",
        flat,
        "{} {are} flat, as FSDP keeps parameters: what belongs to matrices there and what to biases, norms or gains, "
        "which would decay with them, is not told.",
        "FSDP(model, use_orig_params=True)  # or audit before it is wrapped",
    )
    find(
        "embedding_decayed",
        "note",
        [p for p in decayed if p.kind == "embedding"],
        "{} of kind embedding {are} decayed: rows of rare tokens, too, in the steps in which they do not occur.",
        '{"params": [m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding)], "weight_decay": 0.0}',
    )
    frozen = [p for p in decayed if not p.tensor.requires_grad]
    find(
        "frozen_decayed",
        "error",
        [p for p in frozen if p.tensor.grad is not None],
        "{} {are} frozen but still hold a gradient: every step decays and moves them.",
        "optimizer.zero_grad(set_to_none=True)  # after requires_grad_(False)",
    )
    find(
        "frozen_held",
        "note",
        [p for p in frozen if p.tensor.grad is None],
        "{} {are} frozen and in a decayed group. Without a gradient torch leaves them alone; gradients of zero, which "
        "zero_grad(set_to_none=False) and some wrappers leave, would let them decay.",
        "params = [p for p in params if p.requires_grad]",
    )
    find(
        "tied",
        "note",
        [p for p in held if len(p.names) > 1],
        "{} {are} tied, one tensor under several names: it is decayed once, with the group that holds it.",
        "",
    )
    # A bfloat16 weight has 8 bits: a share under a quarter of the spacing always rounds back to the weight.
    low = [p for p in decayed if p.tensor.dtype in (torch.bfloat16, torch.float16)]
    low = [p for p in low if shares(p) < torch.finfo(p.tensor.dtype).eps / 4]
    stochastic = all(p.tensor.dtype == torch.bfloat16 for p in low)
    find(
        "decay_rounded_away",
        "warning",
        low,
        f"{{}} {{are}} kept in 16 bits, where a share of {max(map(shares, low), default=0.0):.2g} rounds back to the "
        "weight: where the gradient step is small, too, decay does nothing.",
        "optimizer = adamw_book.AdamW(params, lr=…, weight_decay=…, stochastic_rounding=True)  # or float32 weights"
        if stochastic
        else "model.float()  # weights in float32; torch.autocast computes in 16 bits",
    )
    if whole_model:
        find(
            "not_held",
            "warning",
            [p for p in parameters if not p.groups and p.tensor.requires_grad],
            "{} of the model {are} trainable and in no group of this optimizer, which neither trains nor decays what "
            "it does not hold; if another one does, pass only the part of the model that this one trains.",
            "optimizer = torch.optim.AdamW(model.parameters(), …)  # of the complete model, where no other trains it",
        )
        find(
            "foreign",
            "warning",
            [p for p in held if not p.names],
            "{} of the optimizer {are} no parameter of the model: it was made for another one, or before a change.",
            "optimizer = torch.optim.AdamW(model.parameters(), …)  # made after the last change of the model",
        )
    return found
