"""TeX as plain text, for where no formula can be set: search, descriptions."""

from __future__ import annotations

import re

SYMBOLS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "Delta": "Δ", "epsilon": "ε", "varepsilon": "ε",
    "eta": "η", "theta": "θ", "lambda": "λ", "Lambda": "Λ", "mu": "μ", "pi": "π", "rho": "ρ", "sigma": "σ",
    "Sigma": "Σ", "tau": "τ", "phi": "φ", "varphi": "φ", "omega": "ω", "ell": "ℓ", "infty": "∞", "sum": "Σ",
    "prod": "Π", "sqrt": "√", "cdot": "·", "times": "×", "approx": "≈", "leq": "≤", "le": "≤", "geq": "≥", "ge": "≥",
    "neq": "≠", "pm": "±", "to": "→", "in": "∈", "rightarrow": "→", "leftarrow": "←", "mapsto": "↦", "propto": "∝",
    "partial": "∂", "nabla": "∇", "dots": "…", "ldots": "…", "cdots": "…", "circ": "∘", "odot": "⊙", "quad": " ",
    "qquad": " ",
}  # fmt: skip
FUNCTIONS = {"log", "ln", "exp", "min", "max", "tanh", "cos", "sin", "lim", "Pr", "det"}
INDICES = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def plain(tex: str) -> str:
    r"""TeX as text: `\beta_1 m` is "β₁ m". Layout and alignment go; a command that is not known goes, its argument
    stays."""
    text = re.sub(r"\\(begin|end)\{[^}]*\}(\{[^}]*\})?", " ", tex)
    text = re.sub(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2", text)

    def command(match: re.Match) -> str:
        name, symbol = match[1], SYMBOLS.get(match[1], "")
        if symbol:
            return symbol + match[2] * (not symbol.isalpha())  # the space after a relation is seen
        return f" {name} " if name in FUNCTIONS else ""

    text = re.sub(r"\\([A-Za-z]+)( ?)", command, text)
    text = re.sub(r"_\{?(\d+)\}?", lambda match: match[1].translate(INDICES), text)
    text = re.sub(r"\\\\|\\[,;:! ]|[&~]", " ", text)
    return " ".join(re.sub(r"[\\{}$^_]", "", text).split())
