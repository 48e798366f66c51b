"""The learning rate and the decay of each parameter group at each step of a run that has not begun."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from adamw_book.arguments import whole

from .course import MOST_STEPS, named_factors, number


def value_of(group: dict, name: str, where: str) -> float:
    """A group's ``lr`` or ``weight_decay`` as a number. Raises ValueError for what is none, for a negative or infinite
    one, and for a vector of replicas, which ``l2`` or one of the ``betas`` may be, too."""
    value = group.get(name, 0.0)
    for what, given in (name, value), ("l2", group.get("l2")), *(("betas", beta) for beta in group.get("betas", ())):
        if isinstance(given, torch.Tensor) and given.numel() != 1:
            shape = tuple(given.shape)
            raise ValueError(f"{what}: {shape} values {where}; audit one replica at a time, with its number")
    return number(f"{name} {where}", value, 0, needed="a finite number of 0 or more")


def rates(
    optimizer: Optimizer,
    steps: int | None,
    schedule: str | LRScheduler | Callable[[int], float] | Sequence[float] | None,
    warmup: int = 0,
    final: float = 0.0,
    interval: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """η_t and λ_t of each group over the next ``steps`` steps, two arrays (G, T).

    schedule: None, the groups' rates as they are; a name in :data:`adamw_book.schedules.SCHEDULES`, a function of the
    step or a sequence of ``steps`` factors, all of which multiply each group's rate; or a torch scheduler, of which a
    copy is stepped, once in ``interval`` steps. Raises ValueError for what does not fit.
    """
    groups = [f"in group {i}" for i in range(len(optimizer.param_groups))]
    lr = np.array([value_of(g, "lr", where) for g, where in zip(optimizer.param_groups, groups, strict=True)])
    decay = np.array([value_of(g, "weight_decay", w) for g, w in zip(optimizer.param_groups, groups, strict=True)])
    if steps is None and isinstance(schedule, Sequence | np.ndarray) and not isinstance(schedule, str):
        steps = len(schedule)
    steps = whole("steps", steps, 1, MOST_STEPS, f"the number of optimizer steps of the run, 1 to {MOST_STEPS:,},")
    interval = whole("schedule_interval", interval, needed="a whole number of optimizer steps, 1 or more,")
    if not isinstance(schedule, str) and (warmup or final):
        raise ValueError(
            f"warmup: {warmup}, final: {final}, with a schedule that is no name; they shape a named schedule, others "
            "bring their own"
        )
    schedule, times = unwrapped(schedule)
    if isinstance(schedule, ReduceLROnPlateau):
        raise ValueError("schedule: ReduceLROnPlateau follows a loss that is not known yet; give a name or the factors")
    if hasattr(schedule, "step") and hasattr(schedule, "optimizer"):
        return _stepped(optimizer, schedule, steps, interval, times)
    # A group that a scheduler has been made for says what its rate starts from.
    start = [float(group.get("initial_lr", own)) for group, own in zip(optimizer.param_groups, lr, strict=True)]
    if schedule is None:
        factors, start = np.ones(steps), lr
    elif isinstance(schedule, str):
        factors = named_factors(schedule, steps, warmup, final)
    else:
        factors = _given(schedule, steps, interval)
    wrong = np.flatnonzero(~((factors >= 0) & (factors < np.inf)))
    if len(wrong):
        raise ValueError(f"schedule: {factors[wrong[0]]} at step {wrong[0]}; finite factors of 0 or more are needed")
    return np.outer(start, factors), np.repeat(decay[:, None], steps, 1)


def unwrapped(schedule) -> tuple:
    """A torch scheduler out of its wrapper, and how often Accelerate's steps it at a step of the optimizer: once for
    each process, whose batches it counts. 0: once, as it is, which is also what DeepSpeed makes of a wrapped one."""
    times = 0
    while not isinstance(schedule, LRScheduler) and isinstance(getattr(schedule, "scheduler", None), LRScheduler):
        counted = type(schedule).__name__ == "AcceleratedScheduler"
        if counted and schedule.step_with_optimizer and not schedule.split_batches:
            from accelerate.state import AcceleratorState

            times = AcceleratorState().num_processes
        schedule = schedule.scheduler
    return schedule, times


def made_for(optimizer: Optimizer, schedule) -> None:
    """Raises ValueError for a torch scheduler that drives other groups than the optimizer's own. A wrapper, on either
    side, shows those of the optimizer that it holds."""
    scheduler, _ = unwrapped(schedule)
    driven = getattr(getattr(scheduler, "optimizer", None), "param_groups", optimizer.param_groups)
    if list(map(id, driven)) != list(map(id, optimizer.param_groups)):
        name = type(scheduler).__name__
        raise ValueError(f"schedule: {name} drives another optimizer; make the scheduler for the one that is audited")


def _given(schedule, steps: int, interval: int) -> np.ndarray:
    """The factors (steps,) of a function of the step, or of a sequence."""
    needed = f"a torch scheduler, a name, a function of the step that returns a factor, or {steps} factors are needed"
    try:
        called = callable(schedule)
        factors = np.array([float(schedule(t // interval)) for t in range(steps)] if called else schedule, float)
    except Exception as error:
        name = getattr(schedule, "__name__", type(schedule).__name__)
        raise ValueError(f"schedule: {name} raises {type(error).__name__}: {error}; {needed}") from error
    if not factors.ndim:
        raise ValueError(f"schedule: {schedule!r}; {needed}")
    if factors.shape != (steps,):
        raise ValueError(f"schedule: shape {factors.shape}; one factor for each of the {steps} steps is needed")
    return factors


def _stepped(optimizer: Optimizer, scheduler, steps: int, interval: int, times: int) -> tuple[np.ndarray, np.ndarray]:
    """What a copy of a torch scheduler makes of copies of the groups, which hold no parameters. times: as
    :func:`unwrapped` says."""
    real = scheduler.optimizer
    if len(real.param_groups) != len(optimizer.param_groups):
        raise ValueError(
            f"schedule: drives {len(real.param_groups)} parameter groups, the optimizer has "
            f"{len(optimizer.param_groups)}; make the scheduler for this optimizer"
        )
    stand_in = torch.optim.SGD([torch.zeros(1)], lr=0.0)
    stand_in.defaults = dict(real.defaults)
    stand_in.param_groups = [
        {key: copy.deepcopy(value) for key, value in group.items() if key != "params"} | {"params": []}
        for group in real.param_groups
    ]
    name = type(scheduler).__name__
    memo = {id(real): stand_in, id(optimizer): stand_in}
    memo |= {id(p): None for group in real.param_groups for p in group["params"]}
    found = np.empty((2, len(real.param_groups), steps))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's about the order of the two steps
        try:
            scheduler = copy.deepcopy(scheduler, memo)
            for t in range(steps):
                for _ in range((times or 1) if t and t % interval == 0 else 0):
                    ended = getattr(scheduler, "_step_count", 0) > getattr(scheduler, "total_steps", np.inf)
                    if not (times and ended):  # Accelerate leaves OneCycleLR at its end
                        scheduler.step()
                for i, group in enumerate(stand_in.param_groups):
                    found[:, i, t] = float(group["lr"]), float(group.get("weight_decay", 0.0))
        except Exception as error:
            raise ValueError(f"schedule: {name} raises {type(error).__name__}: {error}; {steps} steps are asked of it, "
                             f"one in {interval} of the optimizer's") from error  # fmt: skip
    if not ((found >= 0) & (found < np.inf)).all():
        _, i, t = np.argwhere(~((found >= 0) & (found < np.inf)))[0]
        raise ValueError(f"schedule: {name} sets {found[0, i, t]} in group {i} at step {t}; 0 or more is needed")
    return found[0], found[1]
