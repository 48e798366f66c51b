"""The exercises of the chapter on optimizers off the shelf."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import isfinite

import torch

from ..diagnose import Conformance
from ..diagnose.black_box import effects
from ..diagnose.black_box.rule import Rule
from ..optim import AdamW
from . import exercise
from .answers import ask, called, named, near, number, share, truth

TIED = {"no decay": Rule("none"), "ε inside the root": Rule(eps="inside")}
FREE = ("lr", "weight_decay", "eps")


class WhereGradients(torch.optim.AdamW):
    """Leaves a weight whose gradient is 0 as it is."""

    @torch.no_grad()
    def step(self, closure=None):
        """One step."""
        before = [(p, p.clone()) for group in self.param_groups for p in group["params"]]
        loss = super().step(closure)
        for p, was in before:
            p.copy_(torch.where(p.grad == 0, was, p))
        return loss


@exercise
def sign(off_by: float, report: Conformance) -> str:
    """How far ten steps with a decay of the wrong sign lead from AdamW's weights at ηλ = 10⁻⁵, and what is found."""
    right = ((1 + 1e-5) / (1 - 1e-5)) ** 10 - 1
    slips = {
        right / 2: "AdamW's own weights have not stayed where they were, either.",
        right / 10: "That is one step's.",
        100 * right: "That is in percent: give a share.",
    }
    near(share(off_by, "off_by"), right, "off_by", 0.02, slips)
    ask(isinstance(report, Conformance), f"`report` is what `conformance` returns, not {type(report).__name__}.")
    ask(not report.is_adamw, "What you asked is AdamW: was it the class with the mistake?")
    codes = [finding.code for finding in report.findings]
    ask(
        codes == ["decay_grows"],
        f"Your class has {', '.join(codes)}. Is the sign of its decay all that is wrong, and is it as large as before?",
    )
    return "Ten steps of training hide it within a usual tolerance; a question about decay alone does not."


@exercise
def eps_inside(smallest_gradient: float) -> str:
    """The gradient from which on g/√(g² + ε) is within 1% of g/(g + ε), for ε = 10⁻⁸."""
    eps = 1e-8
    right = (eps / 0.0203) ** 0.5
    slips = {
        99 * eps: "There a step with ε outside is within 1% of one without ε. Compare the two steps with each other.",
        eps**0.5: "That is √ε: there the two still differ by much more than 1%.",
        right**2: "That is g².",
    }
    near(number(smallest_gradient, "smallest_gradient"), right, "smallest_gradient", 0.05, slips)
    return "Inside the root, ε acts on gradients that are hundreds of times as large as those it acts on outside."


@exercise
def from_outside(share_taken: Callable[[Callable, float, float], float]) -> str:
    """A function of an optimizer, lr and weight_decay: the share of a weight that the decay of one step takes."""
    boxes = {
        "torch's AdamW": (torch.optim.AdamW, lambda lr, decay: lr * decay),
        "an AdamW whose decay does not follow lr": (partial(AdamW, lr_independent=True), lambda lr, decay: decay),
        "an AdamW that leaves weights without a gradient alone": (WhereGradients, lambda lr, decay: lr * decay),
    }
    for words, (box, right) in boxes.items():
        for lr, decay in ((0.1, 0.5), (0.01, 0.2)):
            value = called(share_taken, box, lr, decay, name="share_taken")
            ask(
                abs(value - right(lr, decay)) <= 1e-3 * right(lr, decay),
                f"Of {words} at lr={lr}, weight_decay={decay}, `share_taken` says {value:.4g}: is that what "
                "decay alone did to the weight in a step?",
            )
    return "Two runs that differ in decay alone, and a look at what is missing: no source needs to be read."


@exercise
def near_tie(setting: Mapping[str, float], sizes: Mapping[str, float], survives: bool) -> str:
    """In another setting than the usual one: how far the two rules of `TIED` end from AdamW's weights, in percent of
    their size, and whether their order is that of the usual setting."""
    ask(isinstance(setting, Mapping), f"`setting` is to be a dict, not {type(setting).__name__}.")
    ask(bool(setting) and set(setting) <= set(FREE), f"`setting` is to hold one or more of {', '.join(FREE)}.")
    own = {name: number(value, f"setting[{name!r}]") for name, value in setting.items()}
    ask(all(value > 0 for value in own.values()), "Each value of `setting` is to be above 0.")
    far = [max(value / effects.USUAL[name], effects.USUAL[name] / value) for name, value in own.items()]
    ask(
        max(far) >= 2,
        f"`setting` is all but the usual one, {effects.USUAL}: change a value by a factor of two or more.",
    )
    last = effects.STEPS[-1]
    usual = {name: 100 * effects.effect(rule)[last] for name, rule in TIED.items()}
    right = {name: 100 * effects.effect(rule, usual=tuple(own.items()))[last] for name, rule in TIED.items()}
    ask(all(map(isfinite, right.values())), "There the weights leave all bounds: take a milder setting.")
    for name, value in named(sizes, TIED, "sizes").items():
        slips = {usual[name]: "That is the usual setting's.", right[name] / 100: "Give it in percent, as above."}
        near(value, right[name], f"sizes[{name!r}]", 0.01, slips)
    a, b = TIED
    ask(abs(right[a] / right[b] - 1) > 0.02, "The sizes are right, and the two are tied there. Go a little further.")
    same = (right[a] > right[b]) == (usual[a] > usual[b])
    ask(truth(survives, "survives") == same, "The sizes are right. Which of the two is larger in the usual setting?")
    return f"{a} {right[a]:.3g}%, {b} {right[b]:.3g}%; in the usual setting {usual[a]:.3g}% and {usual[b]:.3g}%."
