"""What the checkers of all chapters share: the result, what has not been filled in, and answers of the usual kinds."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Result:
    """Whether an answer holds, and what is said about it (Markdown)."""

    passed: bool
    message: str

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return f"✓ {self.message}" if self.passed else f"Not yet. {self.message}"

    __repr__ = _repr_markdown_ = __str__


class NotYet(Exception):
    """The hint for an answer that does not hold."""


def unfilled(answer: Any) -> bool:
    """Whether an answer, or a part of it, is still the `...` of its cell."""
    if isinstance(answer, Mapping):
        return any(unfilled(value) for value in answer.values())
    if isinstance(answer, list | tuple):
        return any(unfilled(value) for value in answer)
    return answer is ...


def exercise(check: Callable[..., str]) -> Callable[..., Result]:
    """Makes a checker of a function that returns what is to be said of a right answer, or raises `NotYet`."""

    @functools.wraps(check)
    def checked(*answers) -> Result:
        empty = [name for name, answer in zip(inspect.signature(check).parameters, answers) if unfilled(answer)]  # noqa: B905
        if empty:
            return Result(False, f"Put your answer in place of `...`: {', '.join(f'`{name}`' for name in empty)}.")
        try:
            return Result(True, check(*answers))
        except NotYet as hint:
            return Result(False, str(hint))

    return checked


def ask(holds: bool, hint: str) -> None:
    """Raises `NotYet` with the hint where a condition does not hold."""
    if not holds:
        raise NotYet(hint)


def number(answer: Any, name: str) -> float:
    """The answer as a float: a number, or an array or tensor of one element."""
    try:
        value = float(_plain(answer))
    except (TypeError, ValueError, RuntimeError):
        raise NotYet(f"`{name}` is to be a number, not {type(answer).__name__}.") from None
    ask(math.isfinite(value), f"`{name}` is {value}: it is to be a finite number.")
    return value


def numbers(answer: Any, name: str, size: int | None = None) -> np.ndarray:
    """The answer as a flat array of floats, `size` of them where that is given."""
    try:
        values = np.asarray([float(value) for value in _flat(answer)])
    except (TypeError, ValueError, RuntimeError):
        raise NotYet(f"`{name}` is to be a list of numbers, not {type(answer).__name__}.") from None
    ask(bool(np.isfinite(values).all()), f"`{name}` holds a number that is not finite.")
    ask(size in (None, len(values)), f"`{name}` holds {len(values)} numbers; {size} are asked for.")
    return values


def _flat(answer: Any) -> Iterable:
    if isinstance(answer, Mapping):
        answer = list(answer.values())
    if isinstance(answer, list | tuple):
        return [value for part in answer for value in _flat(part)]
    return np.asarray(_plain(answer), dtype=float).ravel()


def _plain(answer: Any) -> Any:
    return answer.detach() if hasattr(answer, "detach") else answer  # a tensor with a gradient is a number, too


def named(answer: Any, names: Iterable, name: str) -> dict[Any, float]:
    """The answer as numbers by name; `names` are those that it must hold."""
    ask(isinstance(answer, Mapping), f"`{name}` is to be a dict, not {type(answer).__name__}.")
    missing = [key for key in names if key not in answer]
    ask(not missing, f"`{name}` lacks {', '.join(repr(key) for key in missing)}.")
    return {key: number(answer[key], f"{name}[{key!r}]") for key in names}


def share(answer: Any, name: str) -> float:
    """The answer as a share of one."""
    value = number(answer, name)
    ask(not 1 < value <= 100, f"`{name}` is {value:g}: give it as a share of 1, not in percent.")
    ask(0 <= value <= 1, f"`{name}` is {value:g}: a share lies between 0 and 1.")
    return value


def shares(answer: Any, names: Iterable, name: str) -> dict[Any, float]:
    """Shares of one by name, as `named` has them."""
    return {key: share(value, f"{name}[{key!r}]") for key, value in named(answer, names, name).items()}


def truth(answer: Any, name: str) -> bool:
    """The answer as True or False."""
    ask(isinstance(answer, bool | np.bool_), f"`{name}` is to be True or False, not {answer!r}.")
    return bool(answer)


def one_of(answer: Any, choices: Iterable[str], name: str) -> str:
    """The answer as one of some words."""
    choices = tuple(choices)
    ask(answer in choices, f"`{name}` is to be one of {', '.join(map(repr, choices))}.")
    return answer


def near(
    value: float, right: float, name: str, relative: float = 0.01, slips: Mapping[float, str] | None = None
) -> None:
    """Raises `NotYet` where a number is further from the right one than this share of it. slips: {wrong: its hint}."""
    if abs(value - right) <= relative * abs(right):
        return
    for wrong, hint in (slips or {}).items():
        ask(abs(value - wrong) > relative * abs(wrong), hint)
    if right and abs(value + right) <= relative * abs(right):
        raise NotYet(f"`{name}` has the right size, and the wrong sign.")
    raise NotYet(f"`{name}` = {value:.4g} is too {'large' if value > right else 'small'}.")


def called(function: Any, *arguments: float, name: str) -> float:
    """What a reader's function returns, as a number."""
    ask(callable(function), f"`{name}` is to be a function, not {type(function).__name__}.")
    try:
        value = function(*arguments)
    except Exception as error:  # whatever a reader's code raises
        raise NotYet(f"`{name}{arguments}` raises {type(error).__name__}: {error}.") from None
    ask(value is not ..., f"Put your answer in place of `...`: `{name}` returns it as it is.")
    return number(value, f"{name}{arguments}")
