"""Mistakes to plant in AdamW's plain lines, and what the conformance test must say of each."""

from pathlib import Path

import plain_adamw

SOURCE = Path(plain_adamw.__file__).read_text()
DECAY, STEP = "p.mul_(1 - lr * weight_decay)", "p.addcdiv_(m / (1 - beta1**t), denominator, value=-lr)"
DENOMINATOR = "(v / (1 - beta2**t)).sqrt() + eps"
NONE = "                if p.grad is None:\n                    continue\n"
OWN, ALL = 'self.__dict__.setdefault("own", {})', '[p for g in self.param_groups for p in g["params"]]'
OWN_DECAY = 'weight_decay = group["weight_decay"]'
BOTH = f"{DECAY}\n                {STEP}"
# what is wrong: (the findings that it must have, none but these, and the replacements in the source that make it)
PLANTED = {
    "1 + lr·wd": (["decay_grows"], {DECAY: "p.mul_(1 + lr * weight_decay)"}),
    "decay taken twice": (["decay_size"], {DECAY: "p.mul_(1 - 2 * lr * weight_decay)"}),
    "decay and penalty": (["unnamed_decay"], {"g, state = p.grad,": "g, state = p.grad + weight_decay * p,"}),
    "decay after the step": (["decay_after"], {BOTH: f"{STEP}\n                {DECAY}"}),
    "decay from the updated weight": (
        ["decay_after"],
        {BOTH: f"{STEP}\n                p.sub_(lr * weight_decay * p)"},
    ),
    "coupled": (["coupled"], {"g, state = p.grad,": "g, state = p.grad + weight_decay * p,", DECAY: "pass"}),
    "coupled into the first moment": (
        ["coupled_first_moment"],
        {"m.mul_(beta1).add_(g,": "m.mul_(beta1).add_(g + weight_decay * p,", DECAY: "pass"},
    ),
    "decay divided with the step": (
        ["decay_in_denominator"],
        {STEP: "p.addcdiv_(m / (1 - beta1**t) + weight_decay * p, denominator, value=-lr)", DECAY: "pass"},
    ),
    "lr-independent": (["lr_independent"], {DECAY: "p.mul_(1 - weight_decay)"}),
    "the paper's schedule": (
        ["lr_independent_scheduled"],
        {DECAY: 'p.mul_(1 - weight_decay * lr / group.setdefault("initial_lr", lr))'},
    ),
    "decay at the initial rate": (
        ["decay_ignores_schedule"],
        {DECAY: 'p.mul_(1 - weight_decay * group.setdefault("initial_lr", lr))'},
    ),
    "decay at the rate of the step before": (
        ["decay_on_another_schedule"],
        {DECAY: 'p.mul_(1 - weight_decay * state.get("rate", lr)); state["rate"] = lr'},
    ),
    "decay in every 16th step": (
        ["decay_varies"],
        {DECAY: "p.mul_(1 - 16 * lr * weight_decay * (t % 16 == 0))"},
    ),
    "lr's root": (["decay_not_proportional"], {DECAY: "p.mul_(1 - lr**0.5 * weight_decay)"}),
    "lr twice": (["decay_by_lr_squared"], {DECAY: "p.mul_(1 - lr * lr * weight_decay)"}),
    "weight_decay's root": (["decay_not_proportional"], {DECAY: "p.mul_(1 - lr * weight_decay**0.5)"}),
    "no decay": (["decay_ignored"], {DECAY: "pass"}),
    "cautious, or where nothing moves": (["cautious"], {DECAY: "p.mul_(1 - lr * weight_decay * (m * p >= 0))"}),
    "cautious": (["cautious"], {DECAY: "p.mul_(1 - lr * weight_decay * (m * p > 0))"}),
    "toward the start": (
        ["toward_start"],
        {DECAY: 'p.sub_(lr * weight_decay * (p - state.setdefault("start", p.clone())))'},
    ),
    "a penalty of L1": (["decay_of_constant_size"], {DECAY: "p.sub_(lr * weight_decay * p.sign())"}),
    "no decay at gradient 0": (["not_at_zero_gradient"], {DECAY: "p.mul_(1 - lr * weight_decay * (g != 0))"}),
    "a parameter of zeros skipped": (
        ["not_at_zero_gradient"],
        {"p.grad is None": "p.grad is None or not p.grad.any()"},
    ),
    "no decay in the first step": (["not_in_first_step"], {DECAY: "p.mul_(1 - lr * weight_decay * (t > 1))"}),
    "decay without a gradient": (
        ["decays_without_gradient"],
        {DECAY: "pass", NONE: f"                {DECAY}\n{NONE}"},
    ),
    "None taken for 0": (
        ["moves_without_gradient"],
        {NONE: "", "g, state = p.grad,": "g, state = torch.zeros_like(p) if p.grad is None else p.grad,"},
    ),
    "vectors not decayed": (["undecayed_shapes"], {DECAY: "p.mul_(1 - lr * weight_decay * (p.ndim > 1))"}),
    "ε inside the root": (["eps_inside"], {DENOMINATOR: "(v / (1 - beta2**t) + eps).sqrt()"}),
    "ε squared inside": (["eps_squared"], {DENOMINATOR: "(v / (1 - beta2**t) + eps**2).sqrt()"}),
    "ε scaled by the correction": (["eps_scaled"], {DENOMINATOR: "(v.sqrt() + eps) / (1 - beta2**t) ** 0.5"}),
    "ε forgotten": (["eps_ignored"], {DENOMINATOR: "(v / (1 - beta2**t)).sqrt() + 1e-12"}),
    "no bias correction": (
        ["not_corrected"],
        {DENOMINATOR: "v.sqrt() + eps", "m / (1 - beta1**t), denominator": "m, denominator"},
    ),
    "first moment not corrected": (["first_not_corrected"], {"m / (1 - beta1**t), denominator": "m, denominator"}),
    "second moment not corrected": (["second_not_corrected"], {DENOMINATOR: "v.sqrt() + eps"}),
    "count one ahead": (["count_ahead"], {'t, m, v = state["step"],': 't, m, v = state["step"] + 1,'}),
    "betas swapped": (["betas_swapped"], {"(beta1, beta2), eps": "(beta2, beta1), eps"}),
    "betas ignored": (["betas_ignored"], {'group["betas"], group["eps"]': '(0.9, 0.999), group["eps"]'}),
    "AMSGrad": (
        ["amsgrad"],
        {
            DENOMINATOR: '(state["top"] / (1 - beta2**t)).sqrt() + eps',
            "                denominator =": '                state["top"] = torch.maximum(state.get("top", v), v)\n'
            "                denominator =",
        },
    ),
    "AdaBelief's moment": (["belief"], {"v.mul_(beta2).addcmul_(g, g,": "v.mul_(beta2).addcmul_(g - m, g - m,"}),
    "Nesterov's momentum": (
        ["nesterov"],
        {"m / (1 - beta1**t), den": "(beta1 * m + (1 - beta1) * g) / (1 - beta1**t), den"},
    ),
    "NAdam's momentum without its schedule": (
        ["nesterov"],
        {"m / (1 - beta1**t), den": "beta1 * m / (1 - beta1 ** (t + 1)) + (1 - beta1) * g / (1 - beta1**t), den"},
    ),
    "gradients summed": (["momentum_summed"], {"alpha=1 - beta1": "alpha=1"}),
    "no root": (["no_root"], {DENOMINATOR: "v / (1 - beta2**t) + eps"}),
    "ascent": (["ascends"], {"denominator, value=-lr": "denominator, value=lr"}),
    "one step count for all": (
        ["step_count_shared"],
        {
            'state["step"] += 1': 'state["step"] = group["step"]',
            "            lr, (": '            group["step"] = group.get("step", 0) + 1\n            lr, (',
        },
    ),
    "a step count for each parameter's step": (
        ["step_count_per_parameter"],
        {'state["step"] += 1': 'state["step"] = group["step"] = group.get("step", 0) + 1'},
    ),
    "a group's lr ignored": (["groups_ignored"], {'group["lr"]': 'self.param_groups[0]["lr"]'}),
    "decay at the first group's rate": (
        ["groups_mixed"],
        {DECAY: 'p.mul_(1 - self.param_groups[0]["lr"] * weight_decay)'},
    ),
    "β₂ of the first group": (["groups_mixed"], {OWN_DECAY: f'{OWN_DECAY}; beta2 = self.param_groups[0]["betas"][1]'}),
    "β₂ of the last group": (["groups_mixed"], {OWN_DECAY: f'{OWN_DECAY}; beta2 = self.param_groups[-1]["betas"][1]'}),
    "β₂ of the constructor": (["changes_in_part"], {OWN_DECAY: f'{OWN_DECAY}; beta2 = self.defaults["betas"][1]'}),
    "a scheduler ignored": (
        ["changes_ignored"],
        {'lr, (beta1, beta2), eps = group["lr"]': 'lr, (beta1, beta2), eps = group.setdefault("rate", group["lr"])'},
    ),
    "state not saved": (["checkpoint_loses"], {"self.state[p]": f"{OWN}.setdefault(p, {{}})"}),
    "step count not saved": (
        ["checkpoint_loses"],
        {'state["step"] += 1': f'state["step"] = {OWN}[p] = {OWN}.get(p, 0) + 1'},
    ),
    "state in bfloat16": (
        ["state_narrow", "state_cast"],
        {"zeros_like(p)": "zeros_like(p, dtype=torch.bfloat16)"},
    ),
    "clipped to a norm of all": (
        ["unnamed_step", "parameters_mixed"],
        {"        loss = None": f"        torch.nn.utils.clip_grad_norm_({ALL}, 0.1)\n        loss = None"},
    ),
}


def planted(replacements: dict[str, str]):
    source = SOURCE
    for right, wrong in replacements.items():
        assert right in source, f"the source no longer contains {right!r}"
        source = source.replace(right, wrong)
    namespace = {}
    exec(source, namespace)
    return namespace["AdamW"]


def codes(report) -> list[str]:
    return [finding.code for finding in report.findings if finding.severity != "note"]


class Trips(plain_adamw.AdamW):
    def step(self, closure=None):
        if any(p.grad is None for group in self.param_groups for p in group["params"]):
            raise AttributeError("'NoneType' object has no attribute 'mul_'")
        return super().step(closure)


class Forgets(plain_adamw.AdamW):
    def load_state_dict(self, saved):
        raise KeyError("exp_avg")
