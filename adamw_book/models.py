"""The few models that the chapters share: plain ``torch.nn`` modules for one model, which the ensemble stacks.

Each maps inputs (N, …) to logits (N, C). None carries buffers or randomness in its forward pass, so that the same
module can be mapped over a replica axis. Images come as flat rows of 8 × 8 pixels, as in
:func:`adamw_book.data.digits`.
"""

import torch
from torch import Tensor, nn

from adamw_book.arguments import whole


def matrices(name: str) -> bool:
    """Whether decay acts on a parameter of that name, as the field does it: on matrices and filters, not on biases and
    not on the gains of normalisations. For the argument ``decays`` of :func:`adamw_book.ensemble.train`."""
    return name.endswith("weight") and "norm" not in name


def _he(layers: list[nn.Module]) -> None:
    """Start every layer from He et al. (2015)'s normal weights and zero biases; the last, a read-out, from variance
    1 / fan-in.

    torch's default shrinks the signal at every ReLU layer, so that a deep network without normalisation hardly trains
    at all, with any optimizer: a comparison of regularisers would be one of starting points.
    """
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear" if layer is layers[-1] else "relu")
        nn.init.zeros_(layer.bias)


class MLP(nn.Module):
    """``depth`` hidden ReLU layers of ``width`` units: inputs (N, features) → logits (N, classes).

    ``norm=True`` puts a LayerNorm before each ReLU. The activations inside are (units, N): a stack of replicas is
    then one batched matrix product a layer, and the softmax over classes runs over memory that lies side by side.
    """

    def __init__(self, features: int = 64, width: int = 32, depth: int = 1, classes: int = 10, norm: bool = False):
        super().__init__()
        whole("depth", depth, needed="at least one hidden layer, in whole numbers,")
        sizes = [features] + [width] * depth + [classes]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth)) if norm else None
        _he(list(self.layers))

    def forward(self, x: Tensor) -> Tensor:
        h = x.T
        for i, layer in enumerate(self.layers):
            h = layer.weight @ h + layer.bias[:, None]
            if i < len(self.layers) - 1:
                if self.norms is not None:
                    h = self.norms[i](h.T).T
                h = h.relu()
        return h.T


class CNN(nn.Module):
    """Two strided 3 × 3 convolutions and a linear read-out: images (N, 64) → logits (N, classes).

    ``norm=True`` puts a GroupNorm (groups of four channels) before each ReLU, which keeps no running statistics. Raises
    ``ValueError`` for channels that do not come in fours then.
    """

    def __init__(self, channels: tuple[int, int] = (8, 16), classes: int = 10, norm: bool = False):
        super().__init__()
        a, b = (whole("channels", count) for count in channels)
        if norm and (a % 4 or b % 4):
            raise ValueError(f"channels: {channels}; multiples of four, the size of GroupNorm's groups, are needed")
        self.conv1 = nn.Conv2d(1, a, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(a, b, 3, stride=2, padding=1)
        self.norm1 = nn.GroupNorm(a // 4, a) if norm else nn.Identity()
        self.norm2 = nn.GroupNorm(b // 4, b) if norm else nn.Identity()
        self.head = nn.Linear(4 * b, classes)
        _he([self.conv1, self.conv2, self.head])

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(self.conv1(x.view(-1, 1, 8, 8))).relu()
        h = self.norm2(self.conv2(h)).relu()
        return self.head(h.flatten(1))


class RNN(nn.Module):
    """A tanh (Elman) recurrent network read out after its last step: sequences (N, T·features) or (N, T, features) →
    (N, classes).

    For digits T = 8 image rows of ``features`` = 8 pixels. h_t = tanh(W_x x_t + W_h h_{t−1} + b); ``norm=True`` puts a
    LayerNorm before the tanh, at every step the same one (Ba et al., 2016, Eq. 4). Sequences of another number of
    features raise ``ValueError``.
    """

    def __init__(self, features: int = 8, width: int = 32, classes: int = 10, norm: bool = False):
        super().__init__()
        self.features = features
        self.input = nn.Linear(features, width)
        self.recurrent = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width) if norm else None
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] % self.features or (x.ndim == 3 and x.shape[-1] != self.features):
            raise ValueError(
                f"x: shape {tuple(x.shape)}; (N, T·features) or (N, T, features) is needed, features={self.features}"
            )
        steps = x.reshape(len(x), -1, self.features).permute(1, 2, 0)  # (T, features, N)
        # the bias is the weight of a feature that is 1: the sequences of a stack's replicas are their own only after
        # the product, and adding to them costs more than this
        weight = torch.cat([self.input.weight, self.input.bias[:, None]], 1)
        steps = torch.cat([steps, torch.ones_like(steps[:, :1])], 1)
        h = None
        for x_t in steps.unbind():
            a = weight @ x_t if h is None else weight @ x_t + self.recurrent.weight @ h
            h = torch.tanh(a if self.norm is None else self.norm(a.T).T)
        return (self.head.weight @ h + self.head.bias[:, None]).T


class QuadraticMLP(nn.Module):
    """One hidden layer with the activation h², no biases: the small network on which modular addition is learned
    late ("grokking").

    Inputs (N, features) → logits (N, classes).
    """

    def __init__(self, features: int, width: int, classes: int):
        super().__init__()
        self.hidden = nn.Linear(features, width, bias=False)
        self.head = nn.Linear(width, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.head.weight @ (self.hidden.weight @ x.T).square()).T
