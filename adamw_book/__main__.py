"""`python -m adamw_book evidence [--chapter NAME]` runs the full protocols and writes their records; `… check` compares
the records with the code as it is now, and fails where they differ."""

from __future__ import annotations

import argparse
import sys
import time

from . import ledger
from .scenarios import STUDIES, study


def evidence(chapter: str) -> None:
    """Run one chapter's full protocol, write its record and print its verdicts."""
    found = study(chapter)
    print(f"{found.chapter}: running the full protocol", flush=True)
    start = time.perf_counter()
    tables = found.run(True)
    seconds = time.perf_counter() - start
    paths = ledger.write(found, tables, seconds=seconds)
    print(f"{found.chapter}: {seconds:.0f} s, records in {paths[0].parent}")
    for claim in found.claims:
        record = ledger.read(claim.id)
        print(f"  {claim.id}: {record.verdict} (smallest effect that would matter: {claim.smallest_effect:g})")
        width = max(map(len, record.effects))
        for regime, effect in record.effects.items():
            print(f"    {regime:{width}}  {effect.contrast}: {effect.text()}  {record.verdicts[regime]}")


def check(chapter: str) -> list[str]:
    """Print and return what is wrong with a chapter's records."""
    problems = ledger.check(study(chapter))
    for line in problems or ["the records hold"]:
        print(f"{chapter}: {line}", flush=True)
    return problems


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status (1 where a check found a problem)."""
    parser = argparse.ArgumentParser(
        prog="python -m adamw_book", description="The evidence behind the book's verdicts."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("evidence", "run the full protocols and write their records"),
        ("check", "compare the records with the code"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--chapter", choices=STUDIES, help="one chapter (default: all)")
    options = parser.parse_args(arguments)
    chapters = [options.chapter] if options.chapter else list(STUDIES)
    if options.command == "evidence":
        for chapter in chapters:
            evidence(chapter)
        return 0
    return int(any([check(chapter) for chapter in chapters]))


if __name__ == "__main__":
    sys.exit(main())
