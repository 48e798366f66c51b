"""The questions to an optimizer in their order, and what their answers mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from .box import NARROW, PROBING, Box, CouldNotRun, differ, gradients, starts
from .decays import Decay, at_zero_gradients, decay_of, undecayed_axes, without_gradient
from .difference import Difference, difference, percent
from .effects import USUAL, effect, measured
from .keeping import checkpoint_loses, ignored_by_groups, state_of, together
from .rule import Rule, simulate
from .steps import Step, step_of

# (field, value) of the Rule → code of the finding
OF_STEP = {
    ("eps", "inside"): "eps_inside", ("eps", "squared"): "eps_squared", ("eps", "scaled"): "eps_scaled",
    ("eps", "summed"): "eps_summed", ("eps", "floor"): "eps_floor", ("eps", "ignored"): "eps_ignored",
    ("corrected", "none"): "not_corrected", ("corrected", "first"): "second_not_corrected",
    ("corrected", "second"): "first_not_corrected", ("shift", 1): "count_ahead",
    ("betas", "swapped"): "betas_swapped", ("betas", "usual"): "betas_ignored",
    ("second", "largest"): "amsgrad", ("second", "largest corrected"): "amsgrad_corrected",
    ("second", "belief"): "belief", ("second", "previous"): "second_late", ("momentum", "nesterov"): "nesterov",
    ("momentum", "nesterov alike"): "nesterov", ("momentum", "summed"): "momentum_summed", ("root", False): "no_root",
    ("ascends", True): "ascends",
}  # fmt: skip
OF_DECAY = {
    "coupled": "coupled", "first moment": "coupled_first_moment", "denominator": "decay_in_denominator",
    "cautious": "cautious", "cautious or still": "cautious", "start": "toward_start", "sign": "decay_of_constant_size",
    "gradients": "not_at_zero_gradient", "late": "not_in_first_step", "unnamed": "unnamed_decay",
    "untaken": "takes_no_decay", "ignored": "decay_ignored",
}  # fmt: skip
FOLLOWS = {
    "nothing": "lr_independent", "schedule": "lr_independent_scheduled", "first": "decay_ignores_schedule",
    "square": "decay_by_lr_squared", "otherwise": "decay_on_another_schedule",
}  # fmt: skip
SLACK = 3  # tolerances that all of it together, decay and step, may be off
RESTS = "the parameter rests"
LOST = {
    "all": "its whole state", "step": "the step count", "exp_avg": "the first moment",
    "exp_avg_sq": "the second moment", "moments": "the moments",
    "coefficients": "the coefficients of its groups", "something": "part of what it had",
}  # fmt: skip


class Asked:
    """The questions to one box, with the answers and findings so far."""

    def __init__(self, box: Box, keywords: dict) -> None:
        self.box = box
        self.answers: dict[str, str] = {}
        self.findings: list[Difference] = []
        self.driven_effects: dict[tuple, dict] = {}
        self.usual = tuple((k, v) for k, v in keywords.items() if k in USUAL and k in box.names and v)

    def all(self) -> None:
        step = self.step()
        decay = self.decay(step)
        rule = decay.rule(step.rule) if step.rule else None
        if decay.decay not in ("ignored", "untaken", "coupled", "first moment"):
            self.question("weights without gradients", self.zero, decay)
        self.question("gradient None", self.none)
        self.question("shapes", self.shapes)
        self.question("other parameters", self.together, rule)
        self.question("parameter groups", self.groups)
        self.question("checkpoint", self.checkpoint, rule)
        self.question("state", self.state, None if step.depends or self.has("parameters_mixed") else step.rule)
        if rule and not step.depends and not self.has("decay_not_proportional"):
            self.question("all of it together", self.whole, rule)
        self.notes()

    def question(self, name: str, ask: Callable, *arguments) -> None:
        try:
            self.answers[name] = ask(*arguments)
        except NotImplementedError as error:
            self.answers[name] = f"not asked: {error}"
        except CouldNotRun as error:
            self.answers[name] = f"cannot be answered: {error}"
            self.found("raises", question=name.capitalize(), what=error)

    def has(self, *codes: str) -> bool:
        return any(finding.code in codes for finding in self.findings)

    def found(
        self,
        code: str,
        rule: Rule | None = None,
        situation: str = "plain",
        forgets: str = "",
        instead: tuple = (),
        **values,
    ) -> None:
        """Add a finding, with the effect of ``rule`` in a situation."""
        sized = effect(rule, situation, forgets, self.usual, instead) if rule else {}
        self.findings.append(difference(code, sized, situation, **values))

    def driven(self, code: str, situation: str = "all", times: int = 1, **values) -> None:
        """Add a finding that no rule describes: its effect is that of all differences, as the optimizer shows it."""
        asked = situation, times
        if asked not in self.driven_effects:
            self.driven_effects[asked] = measured(self.box, *asked, **dict(self.usual))
        self.findings.append(difference(code, self.driven_effects[asked], situation, **values))

    def step(self) -> Step:
        step = step_of(self.box)
        if step.depends:
            self.driven("depends_on_weight")
        if step.rule is None:
            if step.relative:
                self.driven("relative", name=step.relative)
            elif step.sizes:
                self.driven("resized", low=step.sizes[0], high=step.sizes[1])
            else:
                self.driven("unnamed_step")
            self.answers["step"] = f"{step.relative}'s" if step.relative else "not Adam's"
            return step
        rule = step.rule
        for (field, value), code in OF_STEP.items():
            if getattr(rule, field) == value:
                self.found(code, replace(Rule(), **{field: value}))
        self.answers["step"] = "Adam's" if rule == Rule(decay="none") else "a variant of Adam's"
        self.answers["ε"] = {
            "outside": "outside the root", "inside": "inside the root", "squared": "its square inside the root",
            "scaled": "outside the root, divided by √(1 − β₂ᵗ)", "summed": "summed up in v", "floor": "a floor",
            "ignored": "no effect",
        }[rule.eps]  # fmt: skip
        corrected = {"both": "both moments", "none": "none"}.get(rule.corrected, f"{rule.corrected} moment only")
        self.answers["bias correction"] = corrected + (", one step ahead" if rule.shift else "")
        self.answers["betas"] = {"given": "first and second", "swapped": "swapped", "usual": "ignored"}[rule.betas]
        return step

    def decay(self, step: Step) -> Decay:
        decay = decay_of(self.box, step)
        rule = Rule(decay.decay, decay.order) if decay.decay not in ("untaken", "ignored") else Rule("none")
        if decay.decay == "unnamed":
            self.driven("unnamed_decay")
        elif decay.decay == "varying":
            self.driven("decay_varies", low=decay.varies[0], high=decay.varies[1])
        elif decay.decay in OF_DECAY:
            self.found(OF_DECAY[decay.decay], rule, "silent" if decay.decay == "gradients" else "plain")
        self.answers["decay"] = {
            "start": "decoupled, toward the initial weights", "cautious": "decoupled, cautious",
            "cautious or still": "decoupled, cautious", "first moment": "through the first moment",
            "denominator": "divided by √v̂ + ε", "untaken": "none", "ignored": "none", "unnamed": "of another kind",
            "varying": "decoupled, of a varying share", "sign": "of a constant size",
            "gradients": "decoupled, not at gradient 0", "late": "decoupled, from the second step",
        }.get(decay.decay, decay.decay)  # fmt: skip
        if decay.decay in ("untaken", "ignored", "coupled", "first moment", "unnamed", "varying"):
            return decay
        if decay.order == "after":
            self.found("decay_after", Rule(order="after"))
        if decay.follows == "otherwise":
            self.driven(FOLLOWS[decay.follows], "all, schedule")
        elif decay.follows != "lr":
            situation = "schedule" if decay.follows in ("schedule", "first") else "plain"
            self.found(FOLLOWS[decay.follows], Rule(follows=decay.follows), situation)
        powers = {"lr": 1, "nothing": 0, "first": 1, "schedule": 0, "square": 2, "otherwise": 1}[decay.follows]
        if not np.allclose(decay.powers, (powers, 1), atol=max(0.01, 4 * self.box.tolerance)):
            self.driven("decay_not_proportional", powers=decay.powers)
        elif decay.factor < 0:
            self.found("decay_grows", Rule(factor=decay.factor), factor=-decay.factor)
        elif decay.factor != 1:
            self.found("decay_size", Rule(factor=decay.factor), factor=decay.factor)
        self.answers["decay acts"] = f"{decay.order} the step"
        times = "" if decay.factor == 1 else f"{decay.factor:.3g}·"
        self.answers["share of a step"] = times + {
            "lr": "η_tλ: it follows the schedule of lr", "nothing": "λ, whatever lr and its schedule",
            "schedule": "λη_t/η_0: it follows the schedule, not the size of lr", "square": "η_t²λ",
            "first": "η_0λ: a schedule does not reach it", "otherwise": "ηλ at a constant rate, not under a schedule",
        }[decay.follows]  # fmt: skip
        return decay

    def zero(self, decay: Decay) -> str:
        if at_zero_gradients(self.box) or decay.decay in ("start", "late"):
            return "decay where gradients are 0" if decay.decay not in ("start", "late") else "as other weights"
        if decay.decay not in ("gradients", "cautious", "unnamed", "varying"):
            self.found("not_at_zero_gradient", Rule("gradients"), "silent")
        return "do not decay where gradients are 0"

    def none(self) -> str:
        found = without_gradient(self.box)
        if found == "decays":
            self.found("decays_without_gradient", Rule(), "absent")
        elif found == "moves":
            self.found("moves_without_gradient", Rule("none"), "absent")
        return {"rests": RESTS, "decays": "the parameter decays", "moves": "the parameter moves on"}[found]

    def shapes(self) -> str:
        skipped, others = undecayed_axes(self.box)

        def axes(numbers: list[int]) -> str:
            return " and ".join(f"{n} axis" if n == 1 else f"{n} axes" for n in numbers)

        if skipped:
            self.found("undecayed_shapes", Rule("none"), "own decay", axes=axes(skipped))
        if others:
            self.driven("steps_differ_by_shape", f"all, {others[0]}", axes=axes(others))
        return "all alike" if not skipped + others else f"{axes(skipped + others)}: not as a matrix"

    def together(self, rule: Rule | None) -> str:
        rests = self.answers["gradient None"] == RESTS
        found = together(self.box, rule, rests)
        if found == "count":
            self.found("step_count_shared", Rule(), "late")
        elif found == "counts":
            self.found("step_count_per_parameter", Rule(), "several")
        elif found == "late":
            self.driven("late_start", "all, late")
        elif found == "something":
            self.driven("parameters_mixed", "all, beside")
        return {
            "nothing": "have no influence", "count": "share a step count",
            "counts": "share a step count, each adds to it", "something": "change what a parameter does",
            "late": "share something, which a late gradient meets",
        }[found]  # fmt: skip

    def groups(self) -> str:
        own, later, own_in_part, later_in_part = ignored_by_groups(self.box, self.has("parameters_mixed"))
        if self.has(*FOLLOWS.values()):  # a schedule that does not reach the decay has been told
            later_in_part = [name for name in later_in_part if name != "lr"]
        for name in own:
            called, there = self.box.names[name], self.box.in_groups(name)
            names = name if called == there else f"{' and '.join(called)} (there it is called {', '.join(there)})"
            self.found("groups_ignored", Rule(), f"own {name}", names=names)
        for name in later:
            self.found("changes_ignored", Rule(), "schedule ignored" if name == "lr" else f"own {name}", names=name)
        for name in own_in_part:
            self.driven("groups_mixed", f"all, own {name}", names=name)
        for name in later_in_part:
            self.driven("changes_in_part", "all, schedule" if name == "lr" else f"all, own {name}", names=name)
        ignored = [*own, *(f"{name} changed later" for name in later if name not in own)]
        ignored += [f"{name} in part" for name in own_in_part]
        ignored += [f"{name} changed later in part" for name in later_in_part if name not in own_in_part]
        if ignored:
            return "ignored: " + ", ".join(ignored)
        taken = [name for name in PROBING if name in self.box.names]
        usual = self.box.held(**USUAL | dict(self.usual))
        for name, held in self.box.held().items():
            given = PROBING[name]
            if np.shape(held) == np.shape(given) and not np.allclose(held, given, rtol=1e-6):
                shown = f"{held:.3g}" if np.ndim(held) == 0 else held
                called = " and ".join(self.box.names[name])
                self.found("coefficients_changed", Rule(), "held", instead=((name, usual[name]),), name=called,
                           given=given, held=shown)  # fmt: skip
        return f"each may have its own {', '.join(taken)}, and change them"

    def checkpoint(self, rule: Rule | None) -> str:
        lost = checkpoint_loses(self.box, rule)
        if lost.startswith("raises"):
            self.found("checkpoint_raises", what=lost)
            return lost
        if lost in ("", "something", "coefficients"):
            if lost == "coefficients":
                self.found("checkpoint_loses", Rule(), "own lr, resumed", what=LOST[lost])
            elif lost:
                self.driven("checkpoint_loses", "all, resumed", what=LOST[lost])
        else:
            self.found("checkpoint_loses", Rule(), "resumed", lost, what=LOST[lost])
        return f"loses {LOST[lost]}" if lost else "nothing is lost"

    def state(self, rule: Rule | None) -> str:
        state, own = state_of(self.box), str(self.box.dtype).removeprefix("torch.")
        shown = " and ".join(self.box.state_dtypes) or "not in optimizer.state"
        narrow = [one for one in self.box.state_dtypes if one in NARROW]
        if narrow and own not in narrow:
            if narrow[0] in ("bfloat16", "float16"):
                self.found("state_narrow", Rule(state=narrow[0]), weights=own, state=narrow[0])
            else:
                self.driven("state_narrow", weights=own, state=shown)
        cast = state.loaded and state.loaded != self.box.state_dtypes
        if cast and {*self.box.state_dtypes, *state.loaded} & {*NARROW}:
            names = {"before": shown, "after": " and ".join(state.loaded)}
            if {shown, names["after"]} <= {"float64", "float32", "bfloat16", "float16"}:
                self.found("state_cast", Rule(state=shown, loaded=names["after"]), "resumed", **names)
            else:
                self.driven("state_cast", "all, resumed", **names)
        if state.error > self.box.tolerance and rule:
            self.driven("state_coarse", times=32, off=percent(state.error))
        return f"{shown}, for weights in {own}"

    def whole(self, rule: Rule) -> str:
        box, given = self.box, gradients(12, seed=7)
        scheduled = not self.has("changes_ignored", "changes_in_part", FOLLOWS["otherwise"])
        lrs = PROBING["lr"] * np.linspace(1, 0.1 if scheduled else 1, 12)
        [path] = box.drive([starts(seed=9)], [[g] for g in given], lrs=lrs)
        error = differ(path, simulate(rule, path[0], given, **box.in_force() | {"lr": lrs}))
        where = ""
        if error <= SLACK * box.tolerance and box.dtype != torch.bfloat16:  # in bfloat16 the usual steps are lost
            given, where = gradients(60, seed=8), " at the usual coefficients"
            given[:, -1] = given[:, 0]  # none without gradient: what is divided by ε there may leave all bounds
            [path] = box.drive([0.02 * starts(seed=9)], [[g] for g in given], **USUAL)
            error = differ(path, simulate(rule, path[0], given, **box.in_force(**USUAL)))
        if error > SLACK * box.tolerance:
            self.driven("unnamed", off=percent(error), where=where)
            return f"{percent(error)} off"
        return "the path is that of these answers"

    def notes(self) -> None:
        if self.box.default("weight_decay") == 0 and "weight_decay" not in self.box.keywords:
            self.found("default_without_decay", Rule("none"))
        for code in ("needs_closure", "writes_gradients", "modes"):
            if getattr(self.box, code):
                self.found(code)
