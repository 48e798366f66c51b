"""Who races on which parameters."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from adamw_book.optim import AdamW

from .shapes import Shapes, gpt2, llama, resnet50

LR, DECAY = 1e-3, 0.1


@dataclass
class Contender:
    """An optimizer in the race: ``make(params)`` builds it, ``step(optimizer)`` is what is timed."""

    make: Callable[[list[Tensor]], torch.optim.Optimizer]
    step: Callable[[torch.optim.Optimizer], object] = field(default=lambda optimizer: optimizer.step())


@dataclass
class Scenario:
    """Parameters, and who competes on them."""

    name: str
    shapes: Shapes
    dtype: torch.dtype
    contenders: dict[str, Contender]


def plain(**options) -> Contender:
    return Contender(lambda params: AdamW(params, lr=LR, weight_decay=DECAY, **options))


def torchs(**options) -> Contender:
    return Contender(lambda params: torch.optim.AdamW(params, lr=LR, weight_decay=DECAY, **options))


def compiled() -> Contender:
    """torch.compile over torch's capturable foreach step."""

    def make(params):
        optimizer = torch.optim.AdamW(params, lr=torch.tensor(LR), weight_decay=DECAY, foreach=True, capturable=True)
        optimizer.compiled = torch.compile(optimizer.step, fullgraph=False)
        return optimizer

    return Contender(make, lambda optimizer: optimizer.compiled())


def installed() -> dict[str, Contender]:
    """Peers that are installed; they are never needed."""
    found = {}
    try:
        from flashoptim import FlashAdamW

        found["flashoptim"] = Contender(
            lambda params: FlashAdamW(params, lr=LR, weight_decay=DECAY, quantize=False, master_weight_bits=None)
        )
    except ImportError:
        pass
    try:
        from optimi import AdamW as Optimi

        found["torch-optimi"] = Contender(
            lambda params: Optimi(params, lr=LR, weight_decay=DECAY, betas=(0.9, 0.999), eps=1e-8, triton=True)
        )
    except ImportError:
        pass
    return found


def one_group_a_replica(replicas: int) -> Contender:
    """What torch offers for different coefficients: a parameter group for each replica."""

    def make(params):
        rows = [[p.detach()[r] for p in params] for r in range(replicas)]
        for row, grads in zip(rows, zip(*(p.grad for p in params), strict=True), strict=True):
            for p, g in zip(row, grads, strict=True):
                p.grad = g
        groups = [{"params": row, "lr": LR * (1 + r / replicas), "weight_decay": DECAY} for r, row in enumerate(rows)]
        return torch.optim.AdamW(groups, fused=True)

    return Contender(make)


def clipped_by_torch() -> Contender:
    def step(optimizer):
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1e9)
        optimizer.step()

    return Contender(torchs(fused=True).make, step)


def gpu_scenarios(memory: float) -> list[Scenario]:
    """The races on a GPU with so many bytes of free memory."""
    rivals = {"torch fused": torchs(fused=True), "torch foreach": torchs(foreach=True), "torch compiled": compiled()}
    everyone = {"adamw_book": plain(), **rivals, **installed()}
    no_compiler = {name: contender for name, contender in everyone.items() if name != "torch compiled"}  # takes minutes
    lean = {"adamw_book": plain(), "torch fused": torchs(fused=True), **installed()}
    billion = min(10**9, int(memory / (4 * (2 + 2 * len(lean)) * 1.1)) // 1024 * 1024)
    replicas = 1000
    mlp: Shapes = [(replicas, *s) for s in ((32, 64), (32,), (10, 32), (10,))]
    vectors = Contender(
        lambda params: AdamW(
            params, lr=LR * (1 + torch.arange(replicas, device=params[0].device) / replicas), weight_decay=DECAY
        )
    )
    variants = {
        "plain": plain(),
        "cautious": plain(cautious=True),
        "lr_independent": plain(lr_independent=True),
        "l2": plain(l2=0.01),
        "explain": plain(explain=True),
    }
    f32, bf16 = torch.float32, torch.bfloat16
    scenarios = [
        Scenario("one tensor, float32", [(billion,)], f32, lean),
        Scenario("one tensor, bfloat16", [(billion,)], bf16, lean),
        Scenario("1,000 tensors of 1,000", [(1000,)] * 1000, f32, no_compiler),
        Scenario("resnet50", resnet50(), f32, no_compiler),
        Scenario("gpt2 124M", gpt2(), f32, everyone),
        Scenario("gpt2 124M, bfloat16", gpt2(), bf16, lean),
        Scenario(
            "ensemble of 1,000 with their own lr", mlp, f32,
            {"adamw_book": vectors, "torch fused, 1,000 groups": one_group_a_replica(replicas)},
        ),
        Scenario(
            "gpt2 124M, clip and step", gpt2(), f32,
            {"adamw_book": plain(max_norm=1e9), "torch clip + fused": clipped_by_torch()},
        ),
        Scenario("gpt2 124M, variants", gpt2(), f32, variants),
    ]  # fmt: skip
    if memory > 4 * 1.52e9 * (2 + 2 * len(lean)) * 1.05:
        scenarios.insert(6, Scenario("llama 1.5B", llama(), f32, lean))
    return scenarios


def cpu_scenarios(memory: float) -> list[Scenario]:
    """A single model on the CPU, against torch's three implementations there."""
    rivals = {
        "torch loop": torchs(foreach=False),
        "torch foreach": torchs(foreach=True),
        "torch fused": torchs(fused=True),
    }
    everyone = {"adamw_book": plain(), **rivals}
    mlp: Shapes = [(32, 64), (32,), (32, 32), (32,), (10, 32), (10,)]
    scenarios = [
        Scenario("mlp 64-32-32-10", mlp, torch.float32, everyone),
        Scenario("1,000 tensors of 1,000", [(1000,)] * 1000, torch.float32, everyone),
        Scenario("resnet50", resnet50(), torch.float32, everyone),
    ]
    if memory > 4 * 125e6 * 15:  # parameters, gradients, four states, and what foreach needs for a moment
        scenarios.append(Scenario("gpt2 124M", gpt2(), torch.float32, everyone))
    return scenarios


def free_memory(device: torch.device) -> float:
    """Bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not on this platform
        return 0.0
