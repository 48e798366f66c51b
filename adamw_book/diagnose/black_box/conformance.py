"""Is this optimizer AdamW, and where does it differ?"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch

from ..auditing.finding import grave, sort
from .asked import SLACK, Asked
from .box import open_box
from .report import Conformance
from .target import device_of


def conformance(
    make_optimizer: Callable,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    *,
    name: str | None = None,
    **keywords,
) -> Conformance:
    """Ask an optimizer, as a black box, where it differs from AdamW.

    It is driven with prescribed gradients, and what its weights do is compared with the closed forms; its source is not
    looked at, and nothing but fresh optimizers of small tensors is made.

    Args:
        make_optimizer: a class, or a function that takes parameters (or groups) and returns an optimizer. lr,
            weight_decay, betas and eps are passed as keywords where it takes them, else put into ``param_groups``.
        dtype: of the weights; None takes float64, or where that cannot be stepped float32, or bfloat16.
        device: of the weights.
        name: what it is called in the report; None takes its own.
        keywords: of ``make_optimizer``. lr, weight_decay, betas and eps among them are what effects are computed at.

    Raises CouldNotRun, which says what was said, for one that cannot be made or stepped; TypeError for what cannot be
    called, and ValueError for another dtype, or a device that is not here.
    """
    if not callable(make_optimizer):
        raise TypeError(f"make_optimizer: {make_optimizer!r}; a class or a function of the parameters is needed")
    if dtype not in (None, torch.float64, torch.float32, torch.bfloat16):
        raise ValueError(f"dtype: {dtype}; torch.float64, torch.float32, torch.bfloat16 or None is needed")
    device = device_of(device)
    box = open_box(make_optimizer, keywords, dtype, device)
    name = name or f"{make_optimizer.__module__}.{getattr(make_optimizer, '__qualname__', '…')}"
    asked = Asked(box, keywords)
    asked.all()
    dtype = str(box.dtype).removeprefix("torch.")
    return Conformance(name, dtype, device, asked.answers, sort(asked.findings), SLACK * box.tolerance)


def require(make_optimizer: Callable, allow: Collection[str] = (), **arguments) -> Conformance:
    """One line of a test suite: raises AssertionError, the report, where an optimizer is not AdamW.

    allow: codes of findings that are meant to be there. arguments: those of :func:`conformance`.
    """
    report = conformance(make_optimizer, **arguments)
    if grave(finding for finding in report.findings if finding.code not in allow):
        raise AssertionError(str(report))
    return report
