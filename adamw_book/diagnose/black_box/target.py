"""The optimizer and the device that a command line names."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import torch


def find(target: str) -> Callable:
    """What ``target`` names: "torch.optim.AdamW", "timm.optim:AdamW" or "path/to/file.py:Class".

    Raises ValueError, which says what is not there, and what an import said that failed.
    """
    place, colon, name = target.rpartition(":")
    if not colon and not target.endswith(".py"):
        place, _, name = target.rpartition(".")
    if not place or not name:
        raise ValueError(f"TARGET: {target!r}; package.module.Class, package.module:Class or file.py:Class is needed")
    try:
        found = _load(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except FileNotFoundError as error:
        raise ValueError(f"TARGET: there is no file {place}") from error
    except SystemExit as error:
        raise ValueError(f"TARGET: {place} exits with {error.code or 0} when imported") from error
    except Exception as error:
        raise ValueError(f"TARGET: {place} cannot be imported: {type(error).__name__}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"TARGET: {place} has no {name}")
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"TARGET: {target} is a {type(found).__name__}, and cannot be called")
    return found


def _load(path: Path):
    if not path.is_file():
        raise FileNotFoundError(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # for what it imports from beside it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def device_of(name: str) -> str:
    """The device of that name, as torch writes it. Raises ValueError where there is none, and says which there are."""
    here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    here += ["mps"] if torch.backends.mps.is_available() else []
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device: torch knows none that is called {name!r}; here it can be {', '.join(here)}"
        ) from error
    try:
        torch.zeros(1, device=device).cpu()
    except Exception as error:
        said = str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".")
        raise ValueError(
            f"device: {device} cannot be used on this machine ({said}); here it can be {', '.join(here)}"
        ) from error
    return str(device)


def keyword(text: str) -> tuple[str, object]:
    """(name, value) of "name=value": a Python literal, a name of torch such as torch.float32, or else a word.

    Raises ValueError without a "=" after a name.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"{text!r} is no keyword argument; name=value is needed, as weight_decay=0.1")
    if value.startswith("torch.") and hasattr(torch, value.removeprefix("torch.")):
        return name, getattr(torch, value.removeprefix("torch."))
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
