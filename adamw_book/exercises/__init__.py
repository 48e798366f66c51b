"""Exercises that check themselves: a module a chapter, a function an exercise.

Each function takes a reader's answer and returns a `Result`: that the answer holds, or a hint that does not give it
away. What is right is computed from the formula, the record or the reader's own runs.
"""

from .answers import Result, exercise

__all__ = ["Result", "exercise"]
