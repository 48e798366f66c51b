"""Quantisation-aware training: the forward pass sees weights on the grid, the gradient goes straight through it."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.func import functional_call

from .quantisers import Scheme


def straight_through(w: Tensor, scheme: Callable[[Tensor], Tensor]) -> Tensor:
    """Q(w) in value, w in gradient: the straight-through estimator (Bengio et al., 2013). w (…), one model's."""
    return w + (scheme(w[None])[0] - w).detach()


class QuantisationAware(nn.Module):
    """``network`` as it will be deployed: every weight (parameters of two axes or more) is on the grid of ``scheme``
    whenever an input passes; what the optimizer trains are the weights behind it.

    It starts from the weights that ``network`` has, and it keeps no buffers, so that an ensemble can stack it.
    """

    def __init__(self, network: nn.Module, scheme: Scheme):
        super().__init__()
        self.network, self.scheme = network, scheme

    def forward(self, x: Tensor) -> Tensor:
        grid = {n: straight_through(p, self.scheme) if p.ndim > 1 else p for n, p in self.network.named_parameters()}
        return functional_call(self.network, grid, (x,))
