"""Which parameters an optimizer holds, and what kind each of them is."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

# vector: gains and scales that belong to no norm; flat: what FSDP has made one axis of, and nothing else tells
KINDS = ("matrix", "embedding", "bias", "norm", "vector", "flat")
# Modules whose weights are matrices, also where FSDP keeps them with one axis
MATRICES = nn.Linear | nn.Bilinear | nn.RNNBase | nn.RNNCellBase | nn.MultiheadAttention | nn.modules.conv._ConvNd
_EMBEDDING = re.compile(r"pos_?emb|position_?emb|cls_token|class_token|\bwpe\b|\bwte\b|embedding", re.IGNORECASE)
_NORM = re.compile(r"norm|(^|[._])(ln|bn)(_?\w*)?\d*([._]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Parameter:
    """One tensor, its names in the model (more than one where it is tied), its kind, and the groups that hold it."""

    tensor: Tensor
    names: tuple[str, ...]
    kind: str
    groups: tuple[int, ...]

    @property
    def label(self) -> str:
        return self.names[0] if self.names else f"a {self.kind} {tuple(self.tensor.shape)}"


def torch_optimizer(optimizer) -> Optimizer:
    """The torch optimizer itself, out of Accelerate's or Lightning's wrapper. Raises TypeError for what is none, and
    ValueError where it holds no parameters, in a group or at all, or some whose shape is not known yet."""
    while isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = optimizer.optimizer
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer: {type(optimizer).__name__}; a torch.optim.Optimizer (to audit, or TrainingArguments) is needed"
        )
    empty = [i for i, group in enumerate(optimizer.param_groups) if not group["params"]]
    if empty or not optimizer.param_groups:
        which = f"groups {empty} hold" if empty else "its param_groups hold"
        raise ValueError(f"optimizer: {which} no parameters; give each group some, or leave it out")
    if any(is_lazy(p) for group in optimizer.param_groups for p in group["params"]):
        raise ValueError("optimizer: holds parameters without a shape, of lazy modules; call the model once before")
    return optimizer


def kind_of(name: str, tensor: Tensor, module: nn.Module | None = None) -> str:
    """One of ``KINDS``: by the module that owns the parameter where it is known, by the name, by the number of axes."""
    leaf = name.rpartition(".")[2]
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return "embedding"
    if isinstance(module, MATRICES):
        if "weight" in leaf:
            return "matrix"
    elif hasattr(module, "normalized_shape"):  # which may have several axes
        return "norm"
    elif "norm" in type(module).__name__.lower() and sum(length > 1 for length in tensor.shape) < 2:
        return "norm"
    if tensor.ndim >= 2:
        return "embedding" if _EMBEDDING.search(name) else "matrix"
    if module is None and _NORM.search(name):
        return "norm"
    if "bias" in leaf:
        return "bias"
    flat = getattr(tensor, "_is_flat_param", False) or getattr(tensor, "_fsdp_flattened", False)
    return "flat" if flat else "vector"


def parameters_of(optimizer: Optimizer, model: nn.Module | None = None) -> list[Parameter]:
    """Every tensor of the optimizer or the model, once; without a model, kinds come from names that the groups hold
    (``model.named_parameters()`` gives them) or from the number of axes alone. TypeError for what is no model."""
    held, tensors, names, kinds = defaultdict(list), {}, defaultdict(list), {}
    if not isinstance(model, nn.Module | None):
        raise TypeError(f"model: {type(model).__name__}; a torch.nn.Module, or None, is needed")
    if model is not None:
        for prefix, module in model.named_modules(remove_duplicate=False):
            for leaf, tensor in module.named_parameters(recurse=False, remove_duplicate=False):
                name = f"{prefix}.{leaf}" if prefix else leaf
                if name in names[id(tensor)]:
                    continue
                tensors[id(tensor)] = tensor
                names[id(tensor)].append(name)
                kinds.setdefault(id(tensor), kind_of(name, tensor, module))
    for i, group in enumerate(optimizer.param_groups):
        given = group.get("param_names") or []
        missing = len(group["params"]) - len(given)  # parameters that were appended without a name
        given = [*given, *[None] * missing] if missing >= 0 else [None] * len(group["params"])
        for tensor, name in zip(group["params"], given, strict=True):
            held[id(tensor)].append(i)
            if id(tensor) not in tensors:
                tensors[id(tensor)] = tensor
                names[id(tensor)] = [name] if name else []
                kinds[id(tensor)] = kind_of(name or "", tensor)
    return [Parameter(t, tuple(names[key]), kinds[key], tuple(held[key])) for key, t in tensors.items()]
