"""Every exercise checks itself: the unfilled cell is told so, the solution passes, and hints fit what is wrong.

That a solution passes is asserted in the solution itself, which every execution of its chapter runs.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from contents import numbered, pages, source

from adamw_book import ledger
from adamw_book.exercises import answers, exercise, near_ties
from adamw_book.exercises.answers import NotYet

nbformat = pytest.importorskip("nbformat", reason="the book's tools are not installed: pip install -r requirements.txt")
from exercises import KINDS, Exercise  # noqa: E402
from exercises import exercises as written  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = {Path(page).name: ROOT / f"{page}.ipynb" for page in numbered(ROOT)}  # every chapter of the contents
UNTUNED = {"triton_kernel"}  # no winner was chosen there, so none is near-tied


def exercises(chapter: str) -> dict[str, Exercise]:
    """label → exercise, of a chapter."""
    return {one.label: one for one in written(nbformat.read(NOTEBOOKS[chapter], as_version=4))}


EVERY = [(chapter, label) for chapter in NOTEBOOKS for label in exercises(chapter)]
each_exercise = pytest.mark.parametrize(("chapter", "label"), EVERY, ids=[label for _, label in EVERY])


class Anything(dict):
    """Names of a chapter that has not been executed: each is something."""

    def __missing__(self, name: str) -> object:
        if hasattr(builtins, name):
            raise KeyError(name)
        return object()


def last_call(code: str) -> str:
    """The checker that a cell calls last: in `check.name(...)`, or in `assert check.name(...)`."""
    last = ast.parse(code).body[-1]
    call = last.value if isinstance(last, ast.Expr) else last.test if isinstance(last, ast.Assert) else None
    assert isinstance(call, ast.Call) and ast.unparse(call.func).startswith("check."), code
    return call.func.attr


def test_every_chapter_of_the_contents_has_checkers_and_no_checkers_are_without_a_chapter():
    modules = {path.stem for path in (ROOT / "adamw_book" / "exercises").glob("*.py")}
    assert modules - {"__init__", "answers", "near_ties"} == set(NOTEBOOKS)


@pytest.mark.parametrize("chapter", NOTEBOOKS)
def test_a_chapter_has_four_exercises_or_more_and_one_takes_other_near_tied_winners(chapter: str):
    found = exercises(chapter)
    assert len(found) >= 4
    called = [last_call(one.stub.source) for one in found.values()]
    assert ("near_tie" in called) == (chapter not in UNTUNED)
    named = [one.kind == "near-tied winners" for one in found.values()]
    assert named == [name == "near_tie" for name in called]
    module = importlib.import_module(f"adamw_book.exercises.{chapter}")
    checkers = {name for name, value in vars(module).items() if hasattr(value, "__wrapped__")}
    assert checkers == set(called) and len(set(called)) == len(called)


@each_exercise
def test_the_unfilled_cell_is_told_so(chapter: str, label: str):
    stub = exercises(chapter)[label].stub.source
    *statements, call = ast.parse(stub).body
    names = Anything(check=importlib.import_module(f"adamw_book.exercises.{chapter}"))
    exec(compile(ast.Module(statements, []), label, "exec"), names)  # its own globals: a function must find itself
    result = eval(compile(ast.Expression(call.value), label, "eval"), {}, names)
    assert isinstance(result, answers.Result) and not result
    assert str(result).startswith("Not yet. Put your answer in place of `...`")
    # Hints call an answer what the cell calls it.
    given = [ast.unparse(argument) for argument in call.value.args]
    assert given == list(inspect.signature(getattr(names["check"], last_call(stub))).parameters)


@each_exercise
def test_the_solution_is_held_against_the_same_checker(chapter: str, label: str):
    one = exercises(chapter)[label]
    asserted = one.solution[-1].source
    assert isinstance(ast.parse(asserted).body[-1], ast.Assert)
    assert last_call(asserted) == last_call(one.stub.source)


def test_names_are_short_and_each_is_that_of_one_exercise():
    names = [exercises(chapter)[label].name for chapter, label in EVERY]
    assert len(names) > 60 and len(set(names)) == len(names)
    assert [name for name in names if len(name) > 45] == []


def test_every_exercise_is_found_wherever_it_stands():
    """By counting what begins like one, in all pages."""
    texts = [source(ROOT, page).read_text(encoding="utf-8") for page in pages(ROOT)]
    assert sum(len(re.findall(r"[{]exercise\b(?!-end)", text)) for text in texts) == len(EVERY)


@each_exercise
def test_what_the_unfilled_cell_answers_is_not_on_the_page(chapter: str, label: str):
    """It is executed, and in a notebook it answers. On a page nobody can fill it in."""
    one = exercises(chapter)[label]
    assert one.stub.metadata.get("tags") == ["remove-output"]
    assert not any("remove-output" in cell.metadata.get("tags", []) for cell in one.solution)


ONE = """
```{exercise-start} How much is left? — a calculation
:label: ex-a
:class: dropdown
Guess.
```
---
left = ...
---
```{exercise-end}
```

```{solution-start} ex-a
:class: dropdown
```
---
assert check.left(1)
---
```{solution-end}
```
"""


def of_text(text: str) -> list[Exercise]:
    """The exercises of a notebook whose cells, Markdown and code by turns, are the parts of a text between `---`."""
    make = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    cells = [make[i % 2](part.strip()) for i, part in enumerate(text.split("\n---\n"))]
    return written(nbformat.v4.new_notebook(cells=cells))


def test_an_exercise_is_read_as_it_is_written():
    [one] = of_text(ONE)
    assert (one.label, one.name, one.kind) == ("ex-a", "How much is left?", "a calculation")
    assert one.title == "How much is left? — a calculation" and one.kind in KINDS
    assert (one.stub.source, [cell.source for cell in one.solution]) == ("left = ...", ["assert check.left(1)"])
    assert len(of_text(ONE + ONE.replace("ex-a", "ex-b"))) == 2 and of_text("Nothing\n---\n1") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("{exercise-start}", "{exercise}"), "cannot be read"),
        (("```{exercise-start}", "~~~{exercise-start}"), "cannot be read"),
        (("```{exercise-start}", "> ```{exercise-start}"), "cannot be read"),
        ((":label: ex-a\n", ""), "an exercise has a label"),
        ((" — a calculation", ""), "for a title 'A question"),
        (("a calculation", "a riddle"), "for a title 'A question"),
        (("How much is left? — a calculation", ""), "for a title 'A question"),
        ((":label: ex-a\n:class: dropdown", ":label: ex-a"), "are folded"),
        (("ex-a\n:class: dropdown\n```\n---\nassert", "ex-a\n```\n---\nassert"), "are folded"),
        (("left = ...\n---\n", "left = ...\n---\nAnd\n---\nright = ...\n---\n"), "one cell to fill in, not two"),
        (("Guess.\n```\n---\nleft = ...\n---\n", "Guess.\n```\n\n"), "has a cell to fill in"),
        (("```{exercise-end}\n```\n", ""), "{solution-start} where exercise is open"),
        (("{solution-start} ex-a", "{solution-start} ex-b"), "ex-a: {solution-start} ex-b stands after it"),
        (("```{solution-end}\n```", ""), "ex-a: the solution has no end"),
        (("```{solution-start} ex-a\n:class: dropdown\n```\n---\n", "---\n"), "where nothing is open"),
        ((ONE[ONE.index("```{solution-start}") :], ""), "without a solution: ex-a"),
        ((ONE, ONE + ONE), "two exercises of this label"),
    ],
)
def test_an_exercise_that_is_written_otherwise_is_named(change: tuple[str, str], message: str):
    assert ONE.count(change[0]) == 1
    with pytest.raises(ValueError, match=re.escape(message)):
        of_text(ONE.replace(*change))


# ---- Hints


@exercise
def half(value: float) -> str:
    answers.near(answers.number(value, "value"), 0.5, "value", slips={2.0: "The other way round."})
    return "Right."


@pytest.mark.filterwarnings("error")
def test_a_tensor_with_a_gradient_is_an_answer():
    found = torch.tensor([2.0, 3.0], requires_grad=True)
    assert answers.number(found[0], "loss") == 2 and answers.numbers([found, 4], "losses").tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (..., "Not yet. Put your answer in place of `...`: `value`."),
        (0.5, "✓ Right."),
        (torch.tensor([0.501]), "✓ Right."),
        (2.0, "Not yet. The other way round."),
        (-0.5, "Not yet. `value` has the right size, and the wrong sign."),
        (0.7, "Not yet. `value` = 0.7 is too large."),
        (0.1, "Not yet. `value` = 0.1 is too small."),
        ("a half", "Not yet. `value` is to be a number, not str."),
        (math.nan, "Not yet. `value` is nan: it is to be a finite number."),
        ([1, 2], "Not yet. `value` is to be a number, not list."),
    ],
)
def test_a_number_gets_the_hint_that_fits(answer, said: str):
    result = half(answer)
    assert str(result) == said == result._repr_markdown_() and bool(result) == said.startswith("✓")


def test_what_is_unfilled_is_found_wherever_it_stands():
    for answer in (..., {"a": 1, "b": ...}, [1, [..., 2]], (1, {"a": ...})):
        assert answers.unfilled(answer)
    for answer in (0, {}, {"a": 0}, np.zeros(2), torch.zeros(2), "..."):
        assert not answers.unfilled(answer)


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: answers.share(70, "kept"), "`kept` is 70: give it as a share of 1, not in percent."),
        (lambda: answers.share(-0.1, "kept"), "a share lies between 0 and 1"),
        (lambda: answers.named([1], ("a",), "found"), "`found` is to be a dict, not list."),
        (lambda: answers.named({"a": 1}, ("a", "b"), "found"), "`found` lacks 'b'."),
        (lambda: answers.numbers([1, "x"], "gains"), "`gains` is to be a list of numbers, not list."),
        (lambda: answers.numbers([1, 2], "gains", 3), "`gains` holds 2 numbers; 3 are asked for."),
        (lambda: answers.truth("yes", "survives"), "`survives` is to be True or False, not 'yes'."),
        (lambda: answers.one_of("c", ("a", "b"), "which"), "`which` is to be one of 'a', 'b'."),
        (lambda: answers.called(lambda x: 1 / x, 0, name="f"), "`f(0,)` raises ZeroDivisionError"),
        (lambda: answers.called(lambda x: ..., 0, name="f"), "Put your answer in place of `...`: `f` returns"),
        (lambda: answers.called(3, 0, name="f"), "`f` is to be a function, not int."),
    ],
)
def test_an_answer_of_another_kind_is_named(call, hint: str):
    with pytest.raises(NotYet, match=re.escape(hint)):
        call()


RIGHT = np.array([[1.0, -0.2], [0.3, 2.0]])


@pytest.mark.parametrize(
    ("gains", "answer", "hint"),
    [
        (RIGHT.ravel()[:3], True, "holds 3 numbers. Each candidate of the one arm"),
        (RIGHT / 100, True, "in percentage points, not in fractions"),
        (-RIGHT, True, "the right sizes and the wrong sign"),
        (RIGHT + [[0, 0], [0, 0.5]], True, "1 of the 4 `gains` differ from the record's"),
        (RIGHT, False, "The verdict is *undecided*; it survives if the pairs do not all say the same"),
        (RIGHT, "yes", "`survives` is to be True or False"),
    ],
)
def test_pairs_of_near_tied_winners_get_the_hint_that_fits(gains, answer, hint: str):
    with pytest.raises(NotYet, match=re.escape(hint)):
        near_ties.check_pairs(gains, answer, RIGHT, "undecided", 0.5)


def test_pairs_are_right_in_any_order_and_form():
    for gains in (RIGHT, RIGHT.ravel()[::-1], RIGHT.tolist(), {"a": RIGHT[0], "b": RIGHT[1]}):
        assert "4 pairs, from -0.2 to +2 points" in near_ties.check_pairs(gains, True, RIGHT, "undecided", 0.5)


@pytest.mark.parametrize(
    ("verdict", "gains", "survives"),
    [
        ("supported", [0.1, 2], True),
        ("supported", [-0.1, 2], False),
        ("opposite", [-0.1, -2], True),
        ("opposite", [0.1, -2], False),
        ("no effect that matters", [0.4, -0.4], True),
        ("no effect that matters", [0.4, -0.6], False),
        ("undecided", [0.4, 0.6], True),
        ("undecided", [0.5, 0.6], False),
        ("undecided", [-0.5, -0.6], False),
        ("undecided", [0.4, -0.4], False),
    ],
)
def test_a_verdict_survives_if_each_pair_says_it(verdict: str, gains: list[float], survives: bool):
    assert near_ties.survives(verdict, np.array(gains), 0.5) == survives


def test_pairs_of_a_record_are_all_pairs_of_its_candidates():
    record = ledger.read("quantization.precision")
    found = near_ties.pair_gains(record, "AdamW", "Adam", rule="accuracy")
    tied = record.tables["candidates"].query("condition == @record.claim.primary and rule == 'accuracy'")
    assert found.shape == ((tied["arm"] == "AdamW").sum(), (tied["arm"] == "Adam").sum())
    effect = record.effects[record.claim.primary]
    assert found.min() < effect.mean < found.max()
