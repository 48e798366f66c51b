"""Models and optimizers that the tests of the audit look at."""

import torch
from torch import nn


class Model(nn.Module):
    """One parameter of each kind, a tied pair among them."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 4)
        self.norm = nn.LayerNorm(4)
        self.hidden = nn.Linear(4, 4)
        self.gain = nn.Parameter(torch.ones(4))
        self.head = nn.Linear(4, 20, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x):
        return self.head(self.gain * self.hidden(self.norm(self.tokens(x))))


def groups(model: nn.Module, weight_decay: float = 1.0) -> list[dict]:
    exempt = [model.norm.weight, model.norm.bias, model.hidden.bias, model.gain]
    matrices = [model.hidden.weight, model.tokens.weight]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]


def codes(found) -> list[str]:
    return [finding.code for finding in found.findings]


def matrix() -> nn.Parameter:
    return nn.Parameter(torch.ones(2, 2))


class Deaf(torch.optim.Optimizer):
    """Takes a weight_decay and does not decay."""

    def __init__(self, params, lr=1e-2, weight_decay=0.1):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.sub_(group["lr"] * p.grad.sign())


class LateAndCautious(Deaf):
    """Decays after the step, and only what the gradient shrinks, too."""

    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for p in group["params"]:
                p.data.mul_(1 - group["lr"] * group["weight_decay"] * (p.grad * p.data > 0))


class Capped(Deaf):
    """Decays by a share that does not grow with weight_decay: the least that a large one takes."""

    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for p in group["params"]:
                p.data.mul_(1 - min(group["lr"] * group["weight_decay"], 1e-3))


class Doubled(Deaf):
    """Takes twice the share that AdamW takes, as the gradient of the squared norm without its half would."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.mul_(1 - 2 * group["lr"] * group["weight_decay"])
        super().step()
