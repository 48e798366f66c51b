"""The exercises of a chapter, read from its notebook: whoever asks about exercises asks here.

An exercise is one fold: `{exercise-start}` with a name and a label, its text, the cell that a reader fills in, then
`{exercise-end}`; right after it `{solution-start}` with the same label, its cells, then `{solution-end}`. What is
written otherwise raises ValueError, so that no exercise is passed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from nbformat import NotebookNode

KINDS = ("a calculation", "code", "a small study", "near-tied winners")
GATE = re.compile(
    r"^`{3}\{(?P<name>(?:exercise|solution)-(?:start|end))\} *(?P<argument>.*)\n(?P<options>(?::.*\n)*)", re.M
)
MENTION = re.compile(r"\{(?:exercise|solution)\b")
TITLE = re.compile(rf"(?P<name>[A-Z][^?]*\?) — (?P<kind>{'|'.join(KINDS)})")


@dataclass
class Exercise:
    """What is asked (`name`, a question), and of which kind (KINDS); the cell to fill in; the cells of the solution."""

    label: str
    name: str
    kind: str
    stub: NotebookNode | None = None
    solution: list[NotebookNode] = field(default_factory=list)
    solved: bool = False  # whether it has a solution, of cells or of text

    @property
    def title(self) -> str:
        return f"{self.name} — {self.kind}"


def exercises(notebook: NotebookNode) -> list[Exercise]:
    """The exercises of a notebook, in their order. Raises ValueError where one is not written as said above."""
    found: list[Exercise] = []
    within = ""  # "exercise", "solution", or between them
    for cell in notebook.cells:
        if cell.cell_type == "code" and within == "exercise":
            if found[-1].stub is not None:
                raise ValueError(f"{found[-1].label}: an exercise has one cell to fill in, not two")
            found[-1].stub = cell
        elif cell.cell_type == "code" and within == "solution":
            found[-1].solution.append(cell)
        elif cell.cell_type == "markdown":
            gates = list(GATE.finditer(cell.source + "\n"))
            if len(gates) != len(MENTION.findall(cell.source)):
                raise ValueError(f"cell {cell.get('id')}: a directive of an exercise that cannot be read")
            for gate in gates:
                within = _through(gate, within, found)
    if within:
        raise ValueError(f"{found[-1].label}: the {within} has no end")
    if unsolved := [one.label for one in found if not one.solved]:
        raise ValueError(f"without a solution: {', '.join(unsolved)}")
    return found


def _through(gate: re.Match, within: str, found: list[Exercise]) -> str:
    """Go through the start or the end of an exercise or a solution: what we are within then."""
    what, side = gate["name"].split("-")
    options = dict(re.findall(r"^:([\w-]+): *(.*)$", gate["options"], re.MULTILINE))
    at = found[-1].label if found else "the first exercise"
    if (side == "end" and within != what) or (side == "start" and within):
        raise ValueError(f"{at}: {{{gate['name']}}} where {within or 'nothing'} is open")
    if side == "start" and options.get("class") != "dropdown":
        raise ValueError(f"{gate.group().strip()!r}: an exercise and its solution are folded (:class: dropdown)")
    if gate["name"] == "exercise-start":
        title = TITLE.fullmatch(gate["argument"].strip())
        if not title or not options.get("label"):
            raise ValueError(
                f"{gate.group().strip()!r}: an exercise has a label, and for a title 'A question? — a kind', "
                f"the kind one of {', '.join(KINDS)}"
            )
        if any(one.label == options["label"] for one in found):
            raise ValueError(f"{options['label']}: two exercises of this label")
        found.append(Exercise(options["label"], title["name"], title["kind"]))
    elif gate["name"] == "exercise-end" and found[-1].stub is None:
        raise ValueError(f"{at}: an exercise has a cell to fill in, before {{exercise-end}}")
    elif gate["name"] == "solution-start":
        if gate["argument"].strip() != at or found[-1].solved:
            raise ValueError(f"{at}: {{solution-start}} {gate['argument']} stands after it")
        found[-1].solved = True
    return what if side == "start" else ""
