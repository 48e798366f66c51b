"""The commands of `adamw-book` and `python -m adamw_book`. A command's module is imported when it is called for, so
that those which diagnose need nothing but torch, numpy and pandas."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

# command → (the module that offers configure(parser) and run(options) -> exit status, what it does)
COMMANDS = {
    "audit": ("adamw_book.diagnose.auditing.command", "what will weight decay do in this run?"),
    "conformance": ("adamw_book.diagnose.black_box.command", "is this optimizer AdamW, and where does it differ?"),
    "evidence": ("adamw_book.evidence_commands", "run the full protocols and write their records"),
    "check": ("adamw_book.evidence_commands", "compare the records with the code"),
    "stability": ("adamw_book.evidence_commands", "make the primary comparisons under three master seeds"),
    "again": (
        "adamw_book.evidence_commands",
        "make the primary comparisons under the record's own seeds, on this machine",
    ),
}


def _with_numbers(arguments: list[str]) -> list[str]:
    """``--lr -1e-3`` as ``--lr=-1e-3``: argparse takes such a number for an option."""
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1].startswith("--") and word.startswith("-") and _is_number(word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status. 2: the arguments or the installed packages do not allow it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="adamw-book", description="What AdamW's weight decay really does.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:])
        if arguments[:1] == [name]:
            try:
                module = import_module(COMMANDS[name][0])
            except ModuleNotFoundError as error:
                if (error.name or "").startswith("adamw_book"):
                    raise
                print(f"{name}: {error.name} is not installed: pip install 'adamw-book[book]'", file=sys.stderr)
                return 2
            module.configure(command)
    options = parser.parse_args(_with_numbers(arguments))
    return module.run(options)
