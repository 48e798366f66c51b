"""A small transformer for text, which the ensemble stacks like any other model."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from adamw_book.arguments import whole

NORMS = ("pre", "post", "none")


class Block(nn.Module):
    """Causal self-attention and a perceptron of four times the width, each added to the stream that runs past it.

    norm: where LayerNorms (gains, no biases) stand: "pre", before each of the two; "post", after each sum, as in
    Vaswani et al. (2017); or "none".
    """

    def __init__(self, width: int, heads: int, norm: str):
        super().__init__()
        self.heads, self.norm = heads, norm
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        if norm != "none":
            self.norm1, self.norm2 = (nn.LayerNorm(width, bias=False) for _ in range(2))

    def attention(self, h: Tensor, shape: tuple[int, int]) -> Tensor:
        """What each token, a row of h (N·T, width), takes from itself and those before it. ``shape``: (N, T)."""
        n, t = shape
        # (3, N, heads, T, width / heads)
        q, k, v = (h @ self.qkv.weight.T).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        later = torch.full((t, t), -math.inf, dtype=h.dtype, device=h.device).triu(1)
        weights = (q @ k.transpose(2, 3) / math.sqrt(q.shape[3]) + later).softmax(3)
        return (weights @ v).transpose(1, 2).reshape(n * t, -1) @ self.mix.weight.T

    def perceptron(self, h: Tensor) -> Tensor:
        return functional.gelu(h @ self.up.weight.T) @ self.down.weight.T

    def forward(self, h: Tensor, shape: tuple[int, int]) -> Tensor:
        if self.norm == "pre":
            h = h + self.attention(self.norm1(h), shape)
            return h + self.perceptron(self.norm2(h))
        if self.norm == "post":
            h = self.norm1(h + self.attention(h, shape))
            return self.norm2(h + self.perceptron(h))
        h = h + self.attention(h, shape)
        return h + self.perceptron(h)


class GPT(nn.Module):
    """A decoder like GPT-2's (Radford et al., 2019), without biases and dropout: tokens (N, T) → logits of the next
    token (N, T, vocabulary).

    Positions are learned. Weights start as GPT-2's: normal with standard deviation 0.02, the two matrices of a block
    that write to the stream with 0.02/√(2·depth). tied: whether the read-out is the embedding, transposed; if it is
    not, the embedding's row of a token that never occurs in training gets no gradient. Linear layers act on rows of
    tokens (N·T, width), so that a stack of replicas is one batched matrix product a layer.

    Raises ``ValueError`` for an unknown norm, sizes that are no positive whole numbers, a width that the heads do not
    divide, and more tokens in a row than the context holds.
    """

    def __init__(
        self, vocabulary: int = 128, context: int = 64, width: int = 32, depth: int = 2, heads: int = 2,
        norm: str = "pre", tied: bool = False,
    ):  # fmt: skip
        super().__init__()
        for name, value in {"vocabulary": vocabulary, "context": context, "depth": depth, "heads": heads}.items():
            whole(name, value)
        if whole("width", width) % heads:
            raise ValueError(f"width: {width}; a multiple of heads={heads} is needed")
        if norm not in NORMS:
            raise ValueError(f"norm: {norm!r}; choose from {', '.join(map(repr, NORMS))}")
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads, norm) for _ in range(depth))
        self.norm = nn.LayerNorm(width, bias=False) if norm == "pre" else nn.Identity()
        self.head = None if tied else nn.Linear(width, vocabulary, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                writes = name.endswith(("mix.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * depth) if writes else 0.02)

    def stream(self, x: Tensor) -> Tensor:
        """The stream (N·T, width) as it leaves the last block."""
        if x.shape[1] > len(self.positions.weight):
            held = len(self.positions.weight)
            raise ValueError(f"x: shape {tuple(x.shape)}; at most {held} tokens in a row, the context, are needed")
        n, t = x.shape
        h = functional.embedding(x, self.tokens.weight) + self.positions.weight[:t]
        h = h.reshape(n * t, -1)
        for block in self.blocks:
            h = block(h, (n, t))
        return h

    def forward(self, x: Tensor) -> Tensor:
        out = self.tokens if self.head is None else self.head
        return (self.norm(self.stream(x)) @ out.weight.T).view(*x.shape, -1)
