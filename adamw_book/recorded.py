"""A function of tensors, recorded as the torch operations that it came down to, and replayed without autograd, vmap or
Python between them: what a compiler would start from, at the price of a single call.

    gradients, again = record(function, parameters, x, y)     # runs the function
    again(parameters, x, y)                                   # the same operations on other numbers

What hangs on the numbers themselves, such as a branch or NumPy's result, cannot be replayed: then ``again`` is None.
"""

import operator
from collections.abc import Callable

import torch
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# operations whose result, or its shape, is known to Python or drawn anew: item, nonzero, a draw
_OF_THE_MOMENT = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded}
# what hands the numbers themselves on, which no operation shows
_OUT_OF_TORCH = {Tensor.numpy, Tensor.__array__, Tensor.tolist, Tensor.__dlpack__}
_SAME_PLACE = {"aten::detach", "aten::expand", "aten::view", "aten::_unsafe_view", "aten::alias"}


class _Recorder(TorchDispatchMode):
    """Sees every operation below autograd and vmap, and writes it down."""

    def __init__(self, inputs: list[Tensor]) -> None:
        super().__init__()
        self.graph, self.root, self.repeatable = fx.Graph(), torch.nn.Module(), True
        self.kept: list[Tensor] = []  # an id is a tensor's own only while the tensor lives
        self.nodes: dict[int, fx.Node] = {}
        for i, tensor in enumerate(inputs):
            self.name(tensor, self.graph.placeholder(f"input_{i}"))

    def name(self, tensor: Tensor, node: fx.Node) -> None:
        self.kept.append(tensor)
        self.nodes[id(tensor)] = node

    def node(self, value):
        """What stands for a value in the graph: a tensor that no operation made, such as a constant, is kept as it
        is."""
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self.nodes:
            name = f"constant_{len(self.kept)}"
            setattr(self.root, name, value)
            self.name(value, self.graph.get_attr(name))
        return self.nodes[id(value)]

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        self.repeatable &= not _OF_THE_MOMENT.intersection(function.tags)
        if function._schema.name in _SAME_PLACE and _placed(result) == _placed(args[0]):
            self.name(result, self.node(args[0]))
            return result
        node = self.graph.call_function(function, *tree_map(self.node, (tuple(args), kwargs)))
        if isinstance(result, Tensor):
            self.name(result, node)
            node.meta["is"] = _placed(result)
        else:
            for i, tensor in enumerate(result if isinstance(result, (tuple, list)) else ()):
                if isinstance(tensor, Tensor):
                    self.name(tensor, self.graph.call_function(operator.getitem, (node, i)))
        return result


class _Leaving(TorchFunctionMode):
    """Sees where numbers leave torch, and tells the recorder."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.recorder.repeatable &= function not in _OUT_OF_TORCH
        return function(*args, **kwargs or {})


def _placed(tensor: Tensor) -> tuple:
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype


def _in_place(graph: fx.Graph) -> None:
    """Let element-wise operations write into an operand that nobody reads afterwards: the memory is in the caches
    already."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    memory = {}  # whose memory a node looks at
    for node in graph.nodes:
        memory[node] = memory[node.args[0]] if node.op == "call_function" and _is_view(node.target) else node
    read = {}  # how long
    for node in graph.nodes:
        for used in node.all_input_nodes:
            read[memory[used]] = max(read.get(memory[used], 0), order[node])
    for node in graph.nodes:
        first = node.args[0] if node.args else None
        if node.op != "call_function" or torch.Tag.pointwise not in getattr(node.target, "tags", ()):
            continue
        if not isinstance(first, fx.Node) or first.meta.get("is") != node.meta.get("is") or "is" not in first.meta:
            continue
        own = memory[first]
        if own.op != "call_function" or own is node or read[own] != order[node]:
            continue
        if sum(memory[other] is own for other in node.all_input_nodes) > 1:
            continue
        packet, overload = node.target.overloadpacket, node.target._overloadname
        there = getattr(torch.ops.aten, f"{packet.__name__}_", None)
        if there is not None and overload in there.overloads():
            node.target = getattr(there, overload)
        elif "grad_input" in packet.overloads():
            node.target = packet.grad_input
            node.kwargs = node.kwargs | {"grad_input": first}
        else:
            continue
        read[own] = max(read[own], read.get(node, 0))
        memory[node] = own


def _is_view(operation: Callable) -> bool:
    if operation in (operator.getitem, torch.ops.aten._unsafe_view.default):
        return True
    return operation._schema.arguments[0].alias_info is not None


def record(function: Callable[..., list[Tensor]], *inputs) -> tuple[list[Tensor], Callable[..., list[Tensor]] | None]:
    """``function(*inputs)``, a list of tensors, and a function of the same inputs that replays it.

    inputs: tensors and lists of them; further calls take tensors of the same shapes. ``function`` must hang on nothing
    else that changes: what it reads elsewhere is kept as it was, and so is what the ``backward`` of an
    ``autograd.Function`` gets from NumPy, where nobody sees the numbers leave.
    """
    recorder = _Recorder(tree_leaves(inputs))
    with recorder, _Leaving(recorder):
        results = function(*inputs)
    if not recorder.repeatable:
        return results, None
    recorder.graph.output([recorder.node(result) for result in results])
    _in_place(recorder.graph)
    module = fx.GraphModule(recorder.root, recorder.graph)

    def again(*inputs) -> list[Tensor]:
        with torch.no_grad():
            return module(*tree_leaves(inputs))

    return results, again
