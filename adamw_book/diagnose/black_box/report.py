"""What is shown of a conformance test: text, JSON, HTML."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from ..auditing.finding import grave
from .difference import Difference, percent


@dataclass(frozen=True)
class Conformance:
    """``answers``: what was asked → what the optimizer does, in words; ``findings``: the worst first. ``is_adamw``:
    none of them is more than a note. ``resolution``: the share of a path under which a difference that no question
    names passes for rounding. Printed, it is a report; in a notebook, a table."""

    target: str
    dtype: str
    device: str
    answers: dict[str, str]
    findings: list[Difference]
    resolution: float = 0.0

    @property
    def is_adamw(self) -> bool:
        return not grave(self.findings)

    @property
    def verdict(self) -> str:
        if self.is_adamw:
            return f"{self.target} is AdamW"
        count = sum(finding.severity != "note" for finding in self.findings)
        return f"{self.target} differs from AdamW in {count} way{'s' if count > 1 else ''}"

    def as_dict(self) -> dict:
        """As JSON holds it."""
        return {
            "target": self.target,
            "is_adamw": self.is_adamw,
            "dtype": self.dtype,
            "device": self.device,
            "answers": self.answers,
            "findings": [finding.as_dict() for finding in self.findings],
        }

    def __str__(self) -> str:
        width = max(map(len, self.answers)) + 2
        lines = [f"{self.verdict} (asked in {self.dtype} on {self.device})", ""]
        lines += [f"{question:{width}}{answer}" for question, answer in self.answers.items()]
        for finding in self.findings:
            lines += ["", f"{finding.severity}: {finding.text}"]
            lines += [f"    {line}" for line in (finding.size(), finding.fix) if line]
        return "\n".join([*lines, "", self.limit] if self.limit else lines)

    @property
    def limit(self) -> str:
        """What could not be seen, where that is much."""
        if self.resolution < 0.01:
            return ""
        return (
            f"Rounding is coarse here: a difference of under {percent(self.resolution)} of a path passes for it, "
            "unless a question above asks for it by name."
        )

    def _repr_html_(self) -> str:
        rows = [
            f'<tr><th scope="row" style="text-align:left;white-space:nowrap">{escape(question)}</th>'
            f'<td style="text-align:left;white-space:normal">{escape(answer)}</td></tr>'
            for question, answer in self.answers.items()
        ]
        items = []
        for finding in self.findings:
            fix = f'<br><code style="white-space:pre-wrap">{escape(finding.fix)}</code>' if finding.fix else ""
            text = escape(f"{finding.text} {finding.size()}".strip())
            items.append(f"<li><strong>{finding.severity}</strong>: {text}{fix}</li>")
        limit = f"<p>{self.limit}</p>" if self.limit else ""
        found = f"<ul>{''.join(items)}</ul>" if items else ""
        return (
            f"<div><p><strong>{escape(self.verdict)}</strong> (asked in {self.dtype} on {escape(self.device)})</p>"
            f'<div style="overflow-x:auto"><table>{"".join(rows)}</table></div>{found}{limit}</div>'
        )
