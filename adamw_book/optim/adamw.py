"""Class AdamW: what a user of torch sees. It checks arguments, keeps torch's state and hands each step to a backend."""

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from .backends import BACKENDS, why_not_torch, why_not_triton
from .coefficients import (
    check_arguments,
    check_leading_axis,
    check_schedulable,
    check_vectors,
    decay_rate,
    is_vector,
    noted,
    replicas_of,
    take_back,
)
from .entry import Entry
from .explanation import Explanation
from .options import DEFAULTS, max_norm_of, option, said
from .plan import Plan
from .state import MOMENTS, count, fit, new_state, state_dtype_of
from .watch import count_of_references


class AdamW(Optimizer):
    r"""AdamW as in :class:`torch.optim.AdamW`, with a coupled L2 penalty beside the decay and per-replica coefficients.

    .. math::
        \tilde g_t &= g_t + \ell\,\theta_{t-1} \\
        m_t &= \beta_1 m_{t-1} + (1-\beta_1)\,\tilde g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2)\,\tilde g_t^2 \\
        \theta_t &= (1-\eta\lambda)\,\theta_{t-1} - \eta\,\frac{m_t/(1-\beta_1^t)}{\sqrt{v_t/(1-\beta_2^t)}+\varepsilon}

    With the defaults of the arguments that torch does not have, every step, state and ``state_dict`` is that of
    torch's AdamW (Loshchilov and Hutter, 2019); a ``state_dict`` moves between the two in either direction. A
    parameter whose gradient is None is left alone, decay included.

    A vector (R,) for ``lr``, ``weight_decay``, ``l2`` or a beta gives each of R replicas, stacked along the leading
    axis of every parameter of the group, a value of its own: row r moves as it would alone under the r-th values.
    Vectors may be changed in place or replaced between steps, which is how they are scheduled: torch's schedulers know
    one lr a group and are refused (ReduceLROnPlateau, which asks nobody, fails at its first reduction). They belong on
    the parameters' device; from another device they are copied at each step, and from a GPU to the CPU that copy waits
    for the GPU.

    Options that torch does not have stand in the groups too, where they are not at their defaults, and may be set there
    between steps: through a wrapper that hands on nothing but ``param_groups``, ``max_norm`` and ``explain`` as well.

    Args:
        params: parameters, named parameters or parameter groups, as in torch.
        lr: learning rate η ≥ 0; a number, a 1-element tensor or a vector (R,).
        betas: decay rates of the two moments, each in [0, 1); both numbers or both 1-element tensors, either may be a
            vector (R,).
        eps: ε ≥ 0, added outside the root.
        weight_decay: λ ≥ 0, decoupled: each step takes the share ηλ from the parameter. A number, a 1-element tensor
            or a vector (R,).
        amsgrad: normalise by the largest second moment so far (Reddi et al., 2018).
        maximize: ascend.
        foreach: accepted and kept in the groups; all tensors are always updated together, so it changes nothing. As in
            torch, True asks for numbers as lr and betas unless ``capturable``.
        capturable: keep the step counts on the parameters' device, so that a CUDA graph can hold the step.
        differentiable: let autograd through the step; it then runs on the backend "reference".
        fused: True keeps the step counts on the parameters' device and lets ``torch.amp.GradScaler`` unscale and skip
            inside the step. None and False mean the same: counts on the CPU, the scaler works before the step.
        l2: ℓ ≥ 0, Adam's coupled penalty, added to the gradient; a number, a 1-element tensor or a vector (R,).
        lr_independent: take the share λ itself from the parameter, whatever lr (0 stops both steps); with a torch
            scheduler, λ·lr/initial_lr, as in the paper, where a schedule multiplies both steps. A schedule that climbs
            above its start needs to say how high, as OneCycleLR does: ``param_group["max_lr"]``. ReduceLROnPlateau
            does not say where it began: ``param_group["initial_lr"] = float(param_group["lr"])``, before it reduces.
        cautious: decay only coordinates that the gradient step does not lead away from 0 (Chen et al., 2025).
        stochastic_rounding: round bfloat16 parameters up or down at random with the right mean, so that steps below
            their precision add up; the random numbers are a hash of place and step, and a run repeats itself.
        state_dtype: dtype of the moments, for instance float32 beside bfloat16 parameters; None is the parameters'.
        max_norm: scale gradients down to this global norm within the step, as ``clip_grad_norm_`` before it; the
            gradients themselves stay. Replicas are clipped each by its own norm; shards of DTensors count together.
        explain: keep what each step was made of for :meth:`explanation`, computed within the step.
        backend: "triton" (one kernel launch), "torch" (torch's fused CPU kernel) or "reference" (tensor algebra).
            None, the default, takes "triton" on a GPU where Triton is installed, "torch" on the CPU where it covers
            the case, else "reference".

    Raises:
        ValueError: a coefficient out of its range, a vector that does not fit a parameter's leading axis, an unknown
            backend.
        RuntimeError: a combination of flags that excludes itself, sparse gradients.
    """

    def __init__(
        self,
        params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float | Tensor = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        l2: float | Tensor = 0.0,
        lr_independent: bool = False,
        cautious: bool = False,
        stochastic_rounding: bool = False,
        state_dtype: torch.dtype | None = None,
        max_norm: float | None = None,
        explain: bool = False,
        backend: str | None = None,
    ) -> None:
        check_arguments(lr, betas, eps, weight_decay, l2, foreach=foreach, capturable=capturable)
        if params is None and is_vector(lr):
            raise ValueError(
                "Tensor lr must be 1-element, or hold one value for each replica of the parameters; "
                f"got {lr} and no parameters"
            )
        own = said(
            {
                "l2": l2,
                "lr_independent": lr_independent,
                "cautious": cautious,
                "stochastic_rounding": stochastic_rounding,
                "state_dtype": state_dtype,
            }
        )
        max_norm_of([{"max_norm": max_norm}])
        if backend not in (None, *BACKENDS):
            raise ValueError(f"backend: {backend!r} is unknown; choose from {', '.join(map(repr, BACKENDS))} or None")
        defaults = {
            "lr": lr,
            "betas": tuple(b.squeeze() if isinstance(b, Tensor) and b.numel() == 1 else b for b in betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": True,
            **own,
        }
        self._backend = backend
        self._now = _Now()
        super().__init__(params, defaults)
        if max_norm is not None:
            max_norm_of([*self.param_groups, {"max_norm": max_norm}])  # a group may not have named another
            self.max_norm = max_norm
        if explain:
            self.explain = True
        if fused:
            if differentiable:
                raise RuntimeError("`fused` does not support `differentiable`")
            if foreach:
                raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
            self._step_supports_amp_scaling = True

    @property
    def backend(self) -> str:
        """The backend in use; more than one, joined by " + ", where groups differ."""
        names = {
            self._backend_of(p, group, replicas_of(group))
            for group in self.param_groups
            for p in group["params"]
            if not is_lazy(p)
        }
        return " + ".join(name for name in BACKENDS if name in names)

    @property
    def state(self) -> dict[Tensor, dict[str, Tensor]]:
        """torch's state. Whoever asks for it may change it, so the next step looks at all of it."""
        self._now.show_state()
        return self.__dict__["state"]

    @state.setter
    def state(self, state: dict[Tensor, dict[str, Tensor]]) -> None:
        self._now.show_state()
        self.__dict__["state"] = state

    @property
    def max_norm(self) -> float | None:
        """The norm to which the gradients of all groups together are scaled down; None where no group names one."""
        return max_norm_of(self.param_groups)

    @max_norm.setter
    def max_norm(self, max_norm: float | None) -> None:
        max_norm_of([{"max_norm": max_norm}])
        self._say("max_norm", max_norm)

    @property
    def explain(self) -> bool:
        """Whether steps are explained, which any group may ask for."""
        return any(option(group, "explain") for group in self.param_groups)

    @explain.setter
    def explain(self, explain: bool) -> None:
        self._say("explain", bool(explain))

    def _say(self, name: str, value) -> None:
        for group in self.param_groups:
            group.pop(name, None)
        self.param_groups[0].update(said({name: value}))

    def add_param_group(self, param_group: dict) -> None:
        """Add a group as in torch; vectors among its coefficients must fit the leading axis of its parameters."""
        super().add_param_group(param_group)
        try:
            group = self.param_groups[-1]
            replicas = replicas_of(group)
            check_vectors(group)
            max_norm_of(self.param_groups)
            for p in group["params"]:
                state_dtype_of(p, group)
                if not is_lazy(p):
                    check_leading_axis(p, replicas, group)
                    self._backend_of(p, group, replicas)
        except Exception:
            self.param_groups.pop()
            raise
        self._now.noted[id(group)] = noted(group)

    def explanation(self) -> dict[Tensor, Explanation]:
        """What the last step was made of, for each parameter that took part: {parameter: Explanation}.

        Set ``explain``, an argument and an attribute, before the step. Where parameters are sharded over processes,
        all of them must ask.

        Raises:
            RuntimeError: the last step was taken without ``explain``.
        """
        plan = self._now.plan
        if plan is None or not plan.explain:
            raise RuntimeError("explanation: set optimizer.explain = True before the step that is to be explained")
        return plan.explanation()

    def step(self, closure=None):
        """Take one step; ``closure``, if given, reevaluates the model first and its loss is returned."""
        self._check_capture()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            # A compiled training loop takes the step as it is: addresses cannot be traced.
            update = torch.compiler.disable(self._update) if torch.compiler.is_compiling() else self._update
            update(getattr(self, "grad_scale", None), getattr(self, "found_inf", None))
        return loss

    def _update(self, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        now, state = self._now, self.__dict__["state"]
        fits = now.plan is not None and now.plan.fits(self.param_groups, self.explain)
        if not fits or (now.state_seen and not now.plan.same_state(state)):
            now.keep_captured()
            now.plan = self._sort()
        for group in self.param_groups:
            decay_rate(group)  # refuses what it does not fit before anything has changed
        now.plan.step(grad_scale, found_inf, self.max_norm)
        if now.state_seen:  # the local name is a holder, too
            alone = count_of_references(self.__dict__, "state") == count_of_references({"state": object()}, "state") + 1
            now.state_seen = not (alone and now.plan.state_is_ours())
            if now.state_seen:
                now.plan.release()

    def _sort(self) -> Plan:
        """Give every parameter that takes part its state and its backend."""
        state, entries, idle, index = self.__dict__["state"], [], [], 0
        before = {} if self._now.plan is None else self._now.plan.state_dtypes
        for group in self.param_groups:
            self._now.noted[id(group)] = noted(group)
            replicas = replicas_of(group)
            recast = before.get(id(group), option(group, "state_dtype")) != option(group, "state_dtype")
            for p in group["params"]:
                if p.grad is None and not (p in state and self._is_fit(p, index, group, recast)):
                    idle.append(p)
                else:
                    check_leading_axis(p, replicas, group)
                    self._prepare(p, index, group, recast)
                    entries.append((self._backend_of(p, group, replicas), Entry(p, index, group, state[p], replicas)))
                index += 1
        return Plan(self.param_groups, entries, idle, self.explain)

    def _is_fit(self, p: Tensor, index: int, group: dict, recast: bool) -> bool:
        """Whether a parameter without a gradient has the state with which it could take part again."""
        try:
            check_leading_axis(p, replicas_of(group), group)
            fit(self.__dict__["state"][p], p, index, group, recast)
        except ValueError:
            return False
        return True

    def _prepare(self, p: Tensor, index: int, group: dict, recast: bool) -> None:
        """Check one parameter that takes part and its state, and make that at its first step."""
        if p.grad is not None and p.grad.is_sparse:
            raise RuntimeError("Adam does not support sparse gradients, please consider SparseAdam instead")
        state = self.__dict__["state"][p]
        if len(state) == 0:
            state.update(new_state(p, group))
        else:
            fit(state, p, index, group, recast)
        if group["differentiable"] and state["step"].requires_grad:
            raise RuntimeError("`requires_grad` is not supported for `step` in differentiable mode")
        if group["foreach"] and isinstance(group["lr"], Tensor) and not group["capturable"]:
            raise RuntimeError("lr as a Tensor is not supported for capturable=False and foreach=True")

    def _backend_of(self, p: Tensor, group: dict, replicas: int | None) -> str:
        wanted = self._backend
        if wanted == "reference" or (wanted is None and group["differentiable"]):
            return "reference"
        if wanted == "torch" or (wanted is None and p.is_cpu):
            name, problem = "torch", why_not_torch(p, group, replicas, self.explain)
        else:
            name, problem = "triton", why_not_triton(p, group, replicas)
        if problem is None:
            return name
        if wanted is not None:
            raise ValueError(f"backend: {wanted!r} {problem}; backend=None chooses for each parameter")
        return "reference"

    # torch's check that a step under CUDA graph capture is capturable; the method's name depends on torch's version
    _check_capture = (
        getattr(Optimizer, "_accelerator_graph_capture_health_check", None)
        or Optimizer._cuda_graph_capture_health_check
    )

    def __setattr__(self, name: str, value) -> None:
        if name == "step" and getattr(value, "_wrapped_by_lr_sched", False):  # by a torch scheduler, at its making
            before = [self._now.noted.get(id(group), {}) for group in self.param_groups]
            try:
                for group, said_before in zip(self.param_groups, before, strict=True):
                    check_schedulable(group, said_before)
            except ValueError:
                for group, said_before in zip(self.param_groups, before, strict=True):
                    take_back(group, said_before)
                raise
        super().__setattr__(name, value)

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_backend": self._backend}

    def __setstate__(self, state: dict) -> None:
        replaced = self.__dict__.get("param_groups", [])  # when a state is loaded
        super().__setstate__(state)
        now = self.__dict__.setdefault("_now", _Now())
        now.keep_captured()
        now.plan = None
        now.show_state()
        states = self.__dict__["state"]
        for i, group in enumerate(self.param_groups):
            for name in ("amsgrad", "maximize", "capturable", "differentiable"):
                group.setdefault(name, False)
            for name in ("foreach", "fused"):
                group.setdefault(name, None)
            before = replaced[i] if i < len(replaced) else self.defaults
            for name in DEFAULTS:
                if name in before:
                    group.setdefault(name, before[name])
            group["decoupled_weight_decay"] = True
            now.noted[id(group)] = noted(group)
            for p in group["params"]:
                step = states[p].get("step") if p in states else None
                if step is not None and not isinstance(step, Tensor):
                    states[p]["step"] = count(float(step), p, group)
        if any(group["fused"] for group in self.param_groups):
            self._step_supports_amp_scaling = True

    def load_state_dict(self, state_dict: dict) -> None:
        """Load as in torch. What the saved groups do not say, as those of torch's AdamW say nothing of ``l2``,
        stays.
        """
        given = state_dict

        def look(optimizer: Optimizer, adapted: dict) -> None:
            nonlocal given
            given = adapted

        def restore(optimizer: Optimizer) -> None:
            for group, saved in zip(self.param_groups, given["param_groups"], strict=True):
                for p, number in zip(group["params"], saved["params"], strict=True):
                    dtype = state_dtype_of(p, group)
                    if number in given["state"] and dtype != p.dtype:  # torch has rounded them to the parameter's
                        moments = {n: t for n, t in given["state"][number].items() if n in MOMENTS}
                        self.state[p].update({n: t.to(p.device, dtype) for n, t in moments.items()})

        # after all of the user's hooks that may adapt the state, and before those that may look at what became of it
        hooks = (
            self.register_load_state_dict_pre_hook(look),
            self.register_load_state_dict_post_hook(restore, prepend=True),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()


class _Now:
    """Where the optimizer stands between two steps. A wrapper that copies the optimizer's ``__dict__`` (Lightning's)
    shares it."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.captured: list[Plan] = []  # plans whose memory graphs know, which may be replayed as long as this lives
        self.state_seen = True  # whether somebody asked for the state since the last look at it
        self.noted: dict[int, dict] = {}  # id of a group: what it said of what torch's schedulers write to it

    def show_state(self) -> None:
        """Somebody asks for the state: nothing here keeps it alive if he throws some of it away."""
        if not self.state_seen and self.plan is not None:
            self.plan.release()
        self.state_seen = True

    def keep_captured(self) -> None:
        if self.plan is not None and self.plan.captured:
            self.captured.append(self.plan)
