"""An optimizer as a black box: made anew, driven with prescribed gradients, and known by its weights only."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

# What each coefficient is called by those who do not call it as torch does
NAMES = {
    "lr": (("lr",), ("learning_rate",)),
    "weight_decay": (("weight_decay",), ("wd",)),
    "betas": (("betas",), ("beta1", "beta2"), ("b1", "b2"), ("beta_1", "beta_2")),
    "eps": (("eps",), ("epsilon",)),
}
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.bfloat16: 5e-2}
# Within the tolerance, but above a fifth of it, a difference that has a name is taken if it is so many times as near.
CLOSER = 3
NARROW = ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "int8", "uint8")
# All are far from their usual values, so that each question has a large answer, in bfloat16, too.
PROBING = {"lr": 0.5, "weight_decay": 0.5, "betas": (0.6, 0.9), "eps": 0.02}
SHAPE = (4, 4)
NOT_FINITE = "its step makes weights that are not finite of finite weights and gradients"


class CouldNotRun(RuntimeError):
    """The optimizer could not be made, or not be stepped."""


class Box:
    """What ``make(params, **keywords)`` returns, behind a window that shows the weights only.

    ``names``: coefficient → the names it is set by. ``modes``: it has train() and eval(), and is driven in train().
    ``needs_closure``, ``writes_gradients``: as seen so far. Raises :class:`CouldNotRun`.
    """

    def __init__(self, make: Callable, keywords: dict, dtype: torch.dtype, device: str = "cpu") -> None:
        self.make, self.keywords, self.dtype, self.device = make, keywords, dtype, device
        self.needs_closure = self.writes_gradients = self.modes = False
        try:
            taken = inspect.signature(make).parameters.values()
        except (TypeError, ValueError):
            taken = []
        self._accepts = {p.name for p in taken if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        self._accepts_any = any(p.kind == p.VAR_KEYWORD for p in taken)
        self.names: dict[str, tuple[str, ...]] = {}
        first = {"lr": 1e-3} if "lr" in self._accepts and "lr" not in keywords else {}
        group = self._made([self._parameter(np.ones(SHAPE))], first).param_groups[0]
        self.defaults = {key: value for key, value in group.items() if key != "params"}
        for name, spellings in NAMES.items():
            for spelling in spellings:
                if all(one in self._accepts or one in group for one in spelling):
                    self.names[name] = spelling
                    break
        for name in ("betas", "eps"):
            if name in self.names and not _fits(name, self.default(name)):
                del self.names[name]

        self.state_dtypes: tuple[str, ...] = ()

    @property
    def tolerance(self) -> float:
        """How far two paths may be apart that are one: by the precision of the weights, or that of a narrower state."""
        narrow = set(self.state_dtypes) & set(NARROW)
        return TOLERANCE[torch.bfloat16 if narrow else self.dtype]

    @property
    def doubtful(self) -> float:
        """Up to where two paths are one without a doubt."""
        return self.tolerance / 5

    def default(self, name: str):
        """A coefficient's value in the groups of an optimizer that was not told another; None where there is none."""
        spelling = next((s for s in NAMES[name] if all(one in self.defaults for one in s)), None)
        if spelling is None:
            return None
        value = [self.defaults[one] for one in spelling]
        return value[0] if len(value) == 1 else tuple(value)

    def in_force(self, **changed) -> dict:
        """The coefficients that a drive with ``changed`` has: those that can be set, and the defaults of the others."""
        usual = {"lr": 1e-3, "weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-8}
        found = {}
        for name, value in (PROBING | changed).items():
            found[name] = value if name in self.names else self.default(name)
            if found[name] is None or not _fits(name, found[name]):
                found[name] = usual[name]
        return found

    def drive(
        self,
        starts: Sequence[np.ndarray],
        gradients: Sequence[Sequence],
        *,
        own: Sequence[dict] | None = None,
        lrs: Sequence[float] | None = None,
        between: Callable | None = None,
        last: bool = False,
        **changed,
    ) -> list[np.ndarray]:
        """The paths (T + 1, numel) of parameters that begin at ``starts`` and get ``gradients`` (T lists of one each).

        A gradient is an array, None, or a function of the weights (numel,). own: a group for each parameter, with these
        coefficients of its own. lrs (T,): put into the groups before each step. ``between(optimizer, t)`` is called
        before step t and may return another optimizer. last: only the two ends of the paths. changed: coefficients
        that are not as in ``PROBING``.
        """
        params = [self._parameter(start) for start in starts]
        values = PROBING | changed
        optimizer = self.optimizer(params, values, own)
        paths = [[self._read(p)] for p in params]
        for t, now in enumerate(gradients):
            optimizer = (between(optimizer, t) if between else None) or optimizer
            if lrs is not None:
                self.set(optimizer, "lr", lrs[t])
            given = [g(path[-1]) if callable(g) else g for g, path in zip(now, paths, strict=True)]
            self._step(optimizer, params, given)
            if not last or t == len(gradients) - 1:
                for p, path in zip(params, paths, strict=True):
                    path.append(self._read(p))
        return [np.stack(path) for path in paths]

    def optimizer(self, params: list, values: dict, own: Sequence[dict] | None = None):
        """A new one with these coefficients."""
        keywords = self._native({k: v for k, v in values.items() if self._by_keyword(k)})
        if own is not None:
            params = [{"params": [p]} | self._native(group) for p, group in zip(params, own, strict=True)]
        optimizer = self._made(params, keywords)
        for name, value in values.items():
            if name in self.names and not self._by_keyword(name):
                for i, group in enumerate(optimizer.param_groups):
                    group.update(self._native({name: own[i].get(name, value) if own else value}))
        takes = inspect.signature(optimizer.step).parameters.get("closure")
        self.needs_closure |= takes is not None and takes.default is inspect.Parameter.empty
        if callable(getattr(optimizer, "train", None)):
            self.modes = True
            optimizer.train()
        return optimizer

    def held(self, **values) -> dict:
        """Coefficients as the groups of an optimizer hold them that was given these, in the place of ``PROBING``'s."""
        values, found = PROBING | values, {}
        group = self.optimizer([self._parameter(starts())], values).param_groups[0]
        for name in self.names:
            own = [group.get(key, given) for key, given in self._native({name: values[name]}).items()]
            own = [tuple(map(float, one)) if np.ndim(one) else float(one) for one in own]
            found[name] = own[0] if len(own) == 1 else tuple(own)
        return found

    def stepped(self) -> tuple:
        """(an optimizer that has made two steps, its parameter)."""
        p = self._parameter(starts())
        optimizer = self.optimizer([p], PROBING)
        for g in gradients(2):
            self._step(optimizer, [p], [g])
        return optimizer, p

    def in_groups(self, name: str) -> tuple[str, ...]:
        """The names of a coefficient in ``param_groups``, which may be others than those of the constructor."""
        return next((s for s in NAMES[name] if all(one in self.defaults for one in s)), self.names[name])

    def set(self, optimizer, name: str, value, groups: slice = slice(None)) -> None:
        """Put a coefficient into all groups, or into some, as a scheduler does."""
        spelling = self.in_groups(name)
        for group in optimizer.param_groups[groups]:
            for key, one in zip(spelling, [value] if len(spelling) == 1 else value, strict=True):
                if isinstance(group.get(key), Tensor):
                    group[key].fill_(one)
                else:
                    group[key] = one

    def _by_keyword(self, name: str) -> bool:
        return name in self.names and (self._accepts_any or all(one in self._accepts for one in self.names[name]))

    def _native(self, values: dict) -> dict:
        found = {}
        for name, value in values.items():
            if name in self.names:
                spelling = self.names[name]
                found |= dict(zip(spelling, [value] if len(spelling) == 1 else value, strict=True))
        return found

    def _made(self, params: list, keywords: dict):
        try:
            optimizer = self.make(params, **(self.keywords | keywords))
        except NotImplementedError:
            raise
        except (Exception, SystemExit) as error:
            raise CouldNotRun(f"it cannot be made: {type(error).__name__}: {error}") from error
        if missing := [name for name in ("step", "param_groups") if not hasattr(optimizer, name)]:
            raise CouldNotRun(f"{type(optimizer).__name__} has no {' and no '.join(missing)}: it is no torch optimizer")
        return optimizer

    def _parameter(self, start: np.ndarray) -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.tensor(start, dtype=self.dtype, device=self.device))

    def _read(self, p: Tensor) -> np.ndarray:
        return p.detach().double().flatten().cpu().numpy().copy()

    def _step(self, optimizer, params: list, given: list) -> None:
        wanted = [
            None if g is None else self._parameter(np.reshape(g, p.shape)).data
            for g, p in zip(given, params, strict=True)
        ]

        def closure() -> Tensor:
            for p, g in zip(params, wanted, strict=True):
                p.grad = None if g is None else g.clone()
            return torch.zeros((), dtype=self.dtype, device=self.device)

        closure()
        try:
            if not self.needs_closure:
                try:
                    optimizer.step()
                except Exception as error:
                    if "closure" not in str(error):
                        raise
                    self.needs_closure = True
            if self.needs_closure:
                optimizer.step(closure)
        except NotImplementedError:
            raise
        except (Exception, SystemExit) as error:
            raise CouldNotRun(f"its step raises {type(error).__name__}: {error}") from error
        for p, g in zip(params, wanted, strict=True):
            if g is not None and (p.grad is None or not torch.equal(p.grad, g)):
                self.writes_gradients = True
            if not p.isfinite().all():
                raise CouldNotRun(NOT_FINITE)


def open_box(make: Callable, keywords: dict, dtype: torch.dtype | None = None, device: str = "cpu") -> Box:
    """A box in ``dtype``, or in the first of float64, float32 and bfloat16 in which it can be stepped."""
    problems = {}
    for one in (torch.float64, torch.float32, torch.bfloat16) if dtype is None else (dtype,):
        try:
            box = Box(make, keywords, one, device)
            box.drive([np.ones(SHAPE)], [[np.full(SHAPE, 0.1)]] * 2)
            box.state_dtypes = state_dtypes(*box.stepped())
            return box
        except (CouldNotRun, NotImplementedError) as error:
            problems[one] = CouldNotRun(error)
    if len(set(map(str, problems.values()))) == 1:
        raise problems.popitem()[1]
    raise CouldNotRun("; ".join(f"in {str(d).removeprefix('torch.')}, {e}" for d, e in problems.items()))


def _fits(name: str, value) -> bool:
    """Whether a coefficient is what Adam's is: two betas, one ε."""
    if value is None:
        return True
    if name == "betas":
        return isinstance(value, list | tuple) and len(value) == 2
    return isinstance(value, int | float | Tensor)


def state_dtypes(optimizer, p: Tensor) -> tuple[str, ...]:
    """The names of the dtypes of the state's tensors that are as large as the parameter."""
    own = optimizer.state.get(p, {}) if hasattr(optimizer, "state") else {}
    tensors = own.values() if hasattr(own, "values") else ()
    large = (t for t in tensors if isinstance(t, Tensor) and t.numel() == p.numel())
    return tuple(sorted({str(t.dtype).removeprefix("torch.") for t in large}))


def gradients(steps: int, count: int = 16, seed: int = 0) -> np.ndarray:
    """Gradients (steps, count) of the size of ε in ``PROBING``: at the fourth step one ten times as large, and in the
    last coordinate none."""
    found = 0.05 * np.random.default_rng(seed).standard_normal((steps, count))
    found[3:4] *= 10
    found[:, -1] = 0.0
    return found


def starts(seed: int = 1) -> np.ndarray:
    """Weights of SHAPE, between 1 and 2 in size, of either sign."""
    rng = np.random.default_rng(seed)
    return rng.uniform(1, 2, SHAPE) * np.where(np.arange(16).reshape(SHAPE) % 2, 1, -1)


def differ(found: np.ndarray, wanted: np.ndarray) -> float:
    """The root mean square difference of two arrays in units of ``wanted``'s root mean square."""
    with np.errstate(over="ignore", invalid="ignore"):
        size, apart = (np.sqrt(np.mean(np.square(x))) for x in (wanted, found - wanted))
    if not np.isfinite(apart):
        return np.inf
    return float(apart / size) if size else float(np.abs(found).max())
