"""The pattern of torch's own optimizer suite: seven steps, a missing gradient at step 2, a layer frozen from 3 to 5, a
0-dim parameter.
"""

import torch
from torch import Tensor, nn


def parameters(dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[nn.Parameter]:
    """Two layers (3, 2), (3,), (1, 3), (1,) and a scalar, the same at each call."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 2), (3,), (1, 3), (1,), ()]
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).to(device, dtype)) for s in shapes]


def train(optimizer: torch.optim.Optimizer, params: list[nn.Parameter]) -> list[list[Tensor]]:
    """Take the seven steps; return the parameters after each."""
    generator = torch.Generator().manual_seed(1)
    trajectory = []
    for step in range(1, 8):
        for i, p in enumerate(params):
            real = torch.view_as_real(p) if p.is_complex() else p
            grad = torch.randn(real.shape, generator=generator, dtype=torch.float64).to(real.device, real.dtype)
            grad = torch.view_as_complex(grad) if p.is_complex() else grad
            missing = (step == 2 and i == 1) or (3 <= step <= 5 and i in (2, 3))
            p.grad = None if missing else grad
        optimizer.step()
        trajectory.append([p.detach().clone() for p in params])
    return trajectory


def assert_same_training(mine, theirs, params, other_params, **tolerance) -> None:
    """Both optimizers take the seven steps; parameters after each of them, and the state at the end, are compared."""
    for step, (ours, torchs) in enumerate(zip(train(mine, params), train(theirs, other_params), strict=True), start=1):
        for i, (a, b) in enumerate(zip(ours, torchs, strict=True)):
            torch.testing.assert_close(a, b, **tolerance, msg=lambda m, s=step, j=i: f"step {s}, parameter {j}: {m}")
    for p, q in zip(params, other_params, strict=True):
        a, b = mine.state[p], theirs.state[q]
        assert list(a) == list(b)
        for name in a:
            torch.testing.assert_close(
                a[name].cpu(), b[name].cpu(), **tolerance, msg=lambda m, n=name: f"state {n}: {m}"
            )
