"""Class AdamW: what a user of torch sees. It checks arguments, keeps torch's state and hands each step to a backend."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from .backends import BACKENDS, why_not_torch, why_not_triton
from .coefficients import check_arguments, check_leading_axis, is_vector, replicas_of
from .entry import Entry
from .explanation import Explanation
from .plan import Plan
from .state import MOMENTS, STATE_DTYPES, count, fit, new_state, state_dtype_of

OWN_OPTIONS = ("l2", "lr_independent", "cautious", "stochastic_rounding", "state_dtype")  # those torch does not know


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
    Vectors may be changed in place or replaced between steps (a schedule). They belong on the parameters' device; from
    another device they are copied at each step, and from a GPU to the CPU that copy waits for the GPU.

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
            scheduler, λ·lr/initial_lr, as in the paper, where a schedule multiplies both steps.
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
        if max_norm is not None and not 0.0 < max_norm:
            raise ValueError(f"Invalid max_norm value: {max_norm}; a number above 0, or None for no clipping")
        if state_dtype not in (None, *STATE_DTYPES):
            known = ", ".join(map(str, STATE_DTYPES))
            raise ValueError(f"Invalid state_dtype: {state_dtype}; one of {known}, or None for the parameters'")
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
            "l2": l2,
            "lr_independent": lr_independent,
            "cautious": cautious,
            "stochastic_rounding": stochastic_rounding,
            "state_dtype": state_dtype,
        }
        self.max_norm, self.explain = max_norm, explain
        self._backend = backend
        self._plan: Plan | None = None
        self._captured: list[Plan] = []
        super().__init__(params, defaults)
        if fused:
            if differentiable:
                raise RuntimeError("`fused` does not support `differentiable`")
            if foreach:
                raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
            self._step_supports_amp_scaling = True

    @property
    def backend(self) -> str:
        """The backend in use; more than one, joined by " + ", where groups differ."""
        names = {self._backend_of(p, group, replicas_of(group)) for group in self.param_groups for p in group["params"]}
        return " + ".join(name for name in BACKENDS if name in names)

    def add_param_group(self, param_group: dict) -> None:
        """Add a group as in torch; vectors among its coefficients must fit the leading axis of its parameters."""
        super().add_param_group(param_group)
        try:
            group = self.param_groups[-1]
            replicas = replicas_of(group)
            for p in group["params"]:
                check_leading_axis(p, replicas, group)
                self._backend_of(p, group, replicas)
        except ValueError:
            self.param_groups.pop()
            raise

    def explanation(self) -> dict[Tensor, Explanation]:
        """What the last step was made of, for each parameter that took part: {parameter: Explanation}.

        Set ``explain``, an argument and an attribute, before the step. Where parameters are sharded over processes,
        all of them must ask.

        Raises:
            RuntimeError: the last step was taken without ``explain``.
        """
        if self._plan is None or not self._plan.explain:
            raise RuntimeError("explanation: set optimizer.explain = True before the step that is to be explained")
        return self._plan.explanation()

    def step(self, closure=None):
        """Take one step; ``closure``, if given, reevaluates the model first and its loss is returned."""
        self._check_capture()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            self._update(getattr(self, "grad_scale", None), getattr(self, "found_inf", None))
        return loss

    def _update(self, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        if self._plan is None or not self._plan.fits(self.param_groups, self.state, self.explain):
            if self._plan is not None and self._plan.captured:
                self._captured.append(self._plan)  # its graph may be replayed as long as the optimizer lives
            self._plan = self._sort()
        self._plan.step(grad_scale, found_inf, self.max_norm)

    def _sort(self) -> Plan:
        """Give every parameter with a gradient its state and its backend."""
        entries, idle, index = [], [], 0
        for group in self.param_groups:
            replicas = replicas_of(group)
            for p in group["params"]:
                if p.grad is None:
                    idle.append(p)
                else:
                    check_leading_axis(p, replicas, group)
                    self._prepare(p, index, group)
                    entry = Entry(p, index, group, self.state[p], replicas)
                    entries.append((self._backend_of(p, group, replicas), entry))
                index += 1
        return Plan(self.param_groups, self.state, entries, idle, self.explain)

    def _prepare(self, p: Tensor, index: int, group: dict) -> None:
        """Check one parameter with a gradient and its state, and make that at its first step."""
        if p.grad.is_sparse:
            raise RuntimeError("Adam does not support sparse gradients, please consider SparseAdam instead")
        state = self.state[p]
        if len(state) == 0:
            state.update(new_state(p, group))
        else:
            fit(state, p, index, group)
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

    def _check_capture(self) -> None:
        """torch's check that a step under CUDA graph capture is capturable; the method's name depends on
        torch's version.
        """
        name = "_accelerator_graph_capture_health_check"
        getattr(self, name if hasattr(self, name) else "_cuda_graph_capture_health_check")()

    def __getstate__(self) -> dict:
        own = {name: getattr(self, name) for name in ("max_norm", "explain", "_backend")}
        return super().__getstate__() | own

    def __setstate__(self, state: dict) -> None:
        replaced = self.__dict__.get("param_groups", [])  # when a state is loaded
        super().__setstate__(state)
        self._captured = self.__dict__.get("_captured", [])
        if self.__dict__.get("_plan") is not None and self._plan.captured:
            self._captured.append(self._plan)
        self._plan = None
        for i, group in enumerate(self.param_groups):
            for name in ("amsgrad", "maximize", "capturable", "differentiable"):
                group.setdefault(name, False)
            for name in ("foreach", "fused"):
                group.setdefault(name, None)
            for name in OWN_OPTIONS:
                group.setdefault(name, (replaced[i] if i < len(replaced) else self.defaults)[name])
            group["decoupled_weight_decay"] = True
            for p in group["params"]:
                step = self.state[p].get("step") if p in self.state else None
                if step is not None and not isinstance(step, Tensor):
                    self.state[p]["step"] = count(float(step), p, group)
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
