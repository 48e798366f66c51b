"""The words for each difference from AdamW."""

# code → (severity, what is said, what would be AdamW)
WORDS = {
    # the decay
    "takes_no_decay": ("warning", "It takes no weight_decay: nothing decays.", "p.mul_(1 - lr * weight_decay)"),
    "decay_ignored": ("error", "weight_decay is taken and does nothing.", "p.mul_(1 - lr * weight_decay)"),
    "coupled": (
        "warning",
        "The decay is coupled: λθ is added to the gradient and divided by its running size, an L2 penalty as in Adam.",
        "p.mul_(1 - lr * weight_decay)  # and no weight_decay in the gradient",
    ),
    "coupled_first_moment": (
        "warning",
        "λθ is added to the gradient of the first moment only: the decay comes late, and is divided by √v̂ + ε.",
        "p.mul_(1 - lr * weight_decay)  # and no weight_decay in the gradient",
    ),
    "decay_in_denominator": (
        "warning",
        "The decay is divided by √v̂ + ε together with the step: it is strongest where gradients are small.",
        "p.mul_(1 - lr * weight_decay).addcdiv_(m_hat, denominator, value=-lr)",
    ),
    "cautious": (
        "warning",
        "The decay is cautious: it acts only where the step leads the weight toward 0.",
        "p.mul_(1 - lr * weight_decay)  # without a mask",
    ),
    "toward_start": (
        "warning",
        "The decay pulls toward the initial weights, not toward 0.",
        "p.mul_(1 - lr * weight_decay)",
    ),
    "decay_of_constant_size": (
        "warning",
        "The decay takes the same amount from small and large weights (an L1 penalty), not a share.",
        "p.mul_(1 - lr * weight_decay)",
    ),
    "not_at_zero_gradient": (
        "warning",
        "A weight whose gradient is 0 does not decay.",
        "p.mul_(1 - lr * weight_decay)  # whatever the gradient",
    ),
    "not_in_first_step": ("warning", "The first step does not decay.", "p.mul_(1 - lr * weight_decay)"),
    "unnamed_decay": (
        "warning",
        "weight_decay acts in a way that no question here has a name for.",
        "p.mul_(1 - lr * weight_decay)",
    ),
    "decay_varies": (
        "warning",
        "At a constant rate, the share that the decay takes changes from step to step: {low:.3g} to {high:.3g} times "
        "ηλ in this probe.",
        "p.mul_(1 - lr * weight_decay)",
    ),
    "decay_after": (
        "warning",
        "The decay is taken from the weight that the step has already changed, not from the weight before it.",
        "p.mul_(1 - lr * weight_decay)  # before the step",
    ),
    "lr_independent": (
        "warning",
        "The decay does not follow lr: a step takes the share λ itself, under a schedule, too.",
        "p.mul_(1 - lr * weight_decay)",
    ),
    "lr_independent_scheduled": (
        "warning",
        "The decay follows the schedule of lr, not its size: a step takes the share λ·η_t/η_0, the paper's own form.",
        "p.mul_(1 - lr * weight_decay)",
    ),
    "decay_ignores_schedule": (
        "warning",
        "The decay keeps the rate that the optimizer was made with: a schedule does not reach it.",
        'p.mul_(1 - group["lr"] * weight_decay)  # the rate of this step',
    ),
    "decay_on_another_schedule": (
        "warning",
        "While lr changes, the share that the decay takes has a course that no question here has a name for.",
        'p.mul_(1 - group["lr"] * weight_decay)  # the rate of this step',
    ),
    "decay_by_lr_squared": (
        "warning",
        "A step takes the share η²λ of a weight: lr is multiplied in twice.",
        "p.mul_(1 - lr * weight_decay)",
    ),
    "decay_grows": (
        "error",
        "The sign of the decay is wrong: a step multiplies the weights by 1 + {factor:.3g}·ηλ, and they grow.",
        "p.mul_(1 - lr * weight_decay)",
    ),
    "decay_size": (
        "warning",
        "A step takes {factor:.3g} times the share that it should.",
        "p.mul_(1 - lr * weight_decay)",
    ),
    "decay_not_proportional": (
        "warning",
        "The share that a step takes grows with lr to the power {powers[0]:.2g} and with weight_decay to the power "
        "{powers[1]:.2g}.",
        "p.mul_(1 - lr * weight_decay)",
    ),
    "decays_without_gradient": (
        "warning",
        "A parameter whose gradient is None decays.",
        "if p.grad is None: continue  # before the decay",
    ),
    "moves_without_gradient": (
        "warning",
        "A parameter whose gradient becomes None goes on moving.",
        "if p.grad is None: continue",
    ),
    "undecayed_shapes": (
        "warning",
        "weight_decay does not act on tensors of {axes} as on a matrix, whatever their group says.",
        'p.mul_(1 - lr * group["weight_decay"])  # exempt vectors in groups of their own',
    ),
    # the step
    "eps_inside": ("warning", "ε stands inside the root: √(v̂ + ε).", "denominator = v_hat.sqrt() + eps"),
    "eps_squared": ("warning", "ε² stands inside the root: √(v̂ + ε²).", "denominator = v_hat.sqrt() + eps"),
    "eps_scaled": (
        "warning",
        "ε is added before the second moment is corrected: it is divided by √(1 − β₂ᵗ), large in the first steps.",
        "denominator = v.sqrt() / math.sqrt(1 - beta2**t) + eps",
    ),
    "eps_summed": (
        "warning",
        "ε is added to the second moment in every step, and once more outside the root.",
        "denominator = v_hat.sqrt() + eps",
    ),
    "eps_floor": ("warning", "ε is a floor of the denominator: max(√v̂, ε).", "denominator = v_hat.sqrt() + eps"),
    "eps_ignored": ("warning", "eps has no effect.", "denominator = v_hat.sqrt() + eps"),
    "not_corrected": (
        "warning",
        "Neither moment is bias-corrected.",
        "m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)",
    ),
    "second_not_corrected": ("warning", "The second moment is not bias-corrected.", "v_hat = v / (1 - beta2**t)"),
    "first_not_corrected": ("warning", "The first moment is not bias-corrected.", "m_hat = m / (1 - beta1**t)"),
    "count_ahead": (
        "warning",
        "The step count of the bias correction is one ahead: it is 2 in the first step.",
        "t = 1, 2, 3, …",
    ),
    "betas_swapped": (
        "error",
        "The betas are swapped: the first moment has β₂, the second β₁.",
        "beta1, beta2 = betas",
    ),
    "betas_ignored": (
        "error",
        "The betas that are given are ignored: the moments have 0.9 and 0.999.",
        'beta1, beta2 = group["betas"]',
    ),
    "amsgrad": (
        "warning",
        "The step is divided by the largest second moment so far (AMSGrad).",
        "denominator = v_hat.sqrt() + eps",
    ),
    "amsgrad_corrected": (
        "warning",
        "The step is divided by the largest corrected second moment so far (a form of AMSGrad).",
        "denominator = v_hat.sqrt() + eps",
    ),
    "belief": (
        "warning",
        "The second moment is that of g − m, as in AdaBelief.",
        "v.mul_(beta2).addcmul_(g, g, value=1 - beta2)",
    ),
    "second_late": (
        "warning",
        "The step is divided by the second moment of the step before.",
        "v = …  # before the denominator is made",
    ),
    "nesterov": (
        "warning",
        "The first moment looks one step ahead (Nesterov's momentum, as in NAdam).",
        "m_hat = m / (1 - beta1**t)",
    ),
    "momentum_summed": ("warning", "Gradients are summed, not averaged, in the first moment.", "m.lerp_(g, 1 - beta1)"),
    "no_root": ("error", "The root of the second moment is not taken.", "denominator = v_hat.sqrt() + eps"),
    "ascends": ("error", "It climbs: the step goes along the gradient, not against it.", "p.addcdiv_(…, value=-lr)"),
    "relative": ("warning", "Its step is {name}'s, not Adam's.", ""),
    "resized": (
        "warning",
        "Its step has Adam's direction and another length: {low:.3g} to {high:.3g} times Adam's in this probe.",
        "",
    ),
    "unnamed_step": ("warning", "Its step is not Adam's, nor that of a variant that is known here.", ""),
    "depends_on_weight": (
        "warning",
        "The same gradients move other weights by other steps, as a trust ratio or a relative step size does.",
        "",
    ),
    "steps_differ_by_shape": ("warning", "Tensors of {axes} take other steps than a matrix.", ""),
    # what is kept
    "step_count_shared": (
        "warning",
        "Parameters share one step count: the bias correction of a parameter whose first gradient comes late has gone.",
        'state = self.state[p]; state["step"] += 1',
    ),
    "late_start": (
        "warning",
        "A parameter whose first gradient comes late takes other steps than one that begins with the run.",
        'state = self.state[p]; state["step"] += 1',
    ),
    "step_count_per_parameter": (
        "error",
        "The step count rises with every parameter of a step: the bias correction goes too early.",
        'state = self.state[p]; state["step"] += 1',
    ),
    "parameters_mixed": (
        "warning",
        "What a parameter does depends on the other parameters, as under a norm that is taken over all of them.",
        "",
    ),
    "groups_ignored": (
        "error",
        "A parameter group's own {names} is ignored: it gets that of the others.",
        'for group in self.param_groups: lr = group["lr"], …',
    ),
    "changes_ignored": (
        "error",
        "A change of {names} in param_groups between steps is ignored: a scheduler does nothing there.",
        'lr = group["lr"]  # read in step(), not in __init__()',
    ),
    "groups_mixed": (
        "error",
        "A parameter group's own {names} is mixed with that of the others: a part of the step or of the decay takes "
        "another group's.",
        'for group in self.param_groups: lr = group["lr"], …',
    ),
    "changes_in_part": (
        "error",
        "A change of {names} in param_groups between steps reaches only a part of the step or of the decay.",
        'lr = group["lr"]  # read in step(), not in __init__()',
    ),
    "checkpoint_loses": (
        "error",
        "A run that is saved by state_dict() and resumed by load_state_dict() goes on without {what}.",
        "self.state[p] = {…}  # what is not in self.state or param_groups is not saved",
    ),
    "checkpoint_raises": ("error", "A checkpoint cannot be made or loaded: it {what}.", ""),
    "state_narrow": (
        "warning",
        "The moments of {weights} weights are kept in {state}.",
        "torch.zeros_like(p)",
    ),
    "state_cast": (
        "warning",
        "load_state_dict makes {after} of a state in {before}: a resumed run is not the same.",
        "",
    ),
    "state_coarse": (
        "warning",
        "In a tensor of 8,192 weights the path is {off} off that of the same weights in a small tensor: the "
        "state of large tensors is kept in fewer bits.",
        "",
    ),
    "raises": ("warning", "{question}: {what}.", ""),
    "unnamed": (
        "warning",
        "Taken together, its path is {off} off that of the rule which the answers describe{where}: there is a "
        "difference that no question here asks for.",
        "",
    ),
    "coefficients_changed": (
        "warning",
        "{name}={given} is given, and param_groups hold {held}.",
        'defaults = {{"lr": lr, …}}',
    ),
    # notes
    "default_without_decay": ("note", "weight_decay is 0 by default.", "weight_decay=0.1"),
    "writes_gradients": ("note", "A step changes p.grad, or removes it.", ""),
    "needs_closure": ("note", "step() needs a closure.", ""),
    "modes": (
        "note",
        "It has train() and eval(): weights are looked at here in train mode, and are others in eval mode.",
        "",
    ),
}
