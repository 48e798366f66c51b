"""The evidence behind the book's verdicts: `evidence` runs the full protocols and writes their records; `check`
compares the records with the code as it is now, and fails where they differ; `stability` makes the primary comparisons
under other seeds, `again` under the record's own, and shows which verdicts stay."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack

from . import ledger
from .jobs import parallel
from .scenarios import ON_DEMAND, STUDIES, study


def evidence(chapter: str) -> None:
    """Run one chapter's full protocol, write its record and print its verdicts. Of a run that was stopped, what it has
    finished is taken over."""
    found = study(chapter)
    print(f"{found.chapter}: running the full protocol", flush=True)
    start, busy = time.perf_counter(), time.process_time()
    unfinished = ledger.Unfinished(found)
    tables = found.run(unfinished.part)
    seconds = unfinished.earlier + time.perf_counter() - start
    paths = ledger.write(found, tables, seconds=seconds)
    unfinished.forget()
    earlier = f" ({unfinished.earlier:.0f} s of it earlier)" if unfinished.earlier else ""
    cpu = time.process_time() - busy
    print(f"{found.chapter}: {seconds:.0f} s{earlier}, CPU {cpu:.0f} s, records in {paths[0].parent}")
    for claim in found.claims:
        record = ledger.read(claim.id)
        print(f"  {claim.id}: {record.verdict} (smallest effect that would matter: {claim.smallest_effect:g})")
        width = max(map(len, record.effects))
        for regime, effect in record.effects.items():
            remarks = f" ({'; '.join(effect.remarks())})" if effect.remarks() else ""
            print(f"    {regime:{width}}  {effect.contrast}: {effect.text()}  {record.verdicts[regime]}{remarks}")


def check(chapter: str) -> list[str]:
    """Print and return what is wrong with a chapter's records."""
    problems = ledger.check(study(chapter))
    for line in problems or ["the records hold"]:
        print(f"{chapter}: {line}", flush=True)
    return problems


def primary(chapter: str, command: str) -> dict[str, bool]:
    """Make one chapter's primary comparisons again, print them beside the record, and return for each claim whether its
    verdict stayed. What other seeds say is kept in the ledger."""
    table = {"stability": ledger.stability, "again": ledger.again}[command](study(chapter))
    if command == "stability":
        ledger.write_stability(table)
    same = ledger.kept(table)
    for claim_id, rows in table.groupby("claim", sort=False):
        print(f"\n{claim_id}: {'same verdict' if same[claim_id] else 'VERDICT CHANGED'} ({rows['regime'].iloc[0]})")
        for row in rows.itertuples():
            print(f"  {row.master:>8}  {row.effect:48} {row.verdict}")
    sys.stdout.flush()
    return same


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that the four commands share to the parser of one of them."""
    parser.add_argument(
        "--chapter", choices=[*STUDIES, *ON_DEMAND], help="one chapter (default: all but those on demand)"
    )
    parser.add_argument("--workers", type=int, default=1, help="that train at a time (default: this process)")
    parser.add_argument("--backend", default="loky", help="joblib's, for them: loky (processes here), ray, dask …")


def run(options: argparse.Namespace) -> int:
    """Run ``options.command``; return the exit status: 1 where a check found a problem, 2 where nothing is run."""
    chapters = [options.chapter] if options.chapter else list(STUDIES)
    try:
        with ExitStack() as workers:
            try:
                workers.enter_context(parallel(options.backend, options.workers))
            except (ValueError, OSError) as error:  # no such backend, or no cluster where one is said to be
                return refused(f"{options.command}: --backend {options.backend}: {error}")
            return run_for(options.command, chapters)
    except (ImportError, ledger.Unavailable) as error:  # an extra, a GPU: it says which
        return refused(f"{options.command}: {error}")


def refused(why: str) -> int:
    """Print why nothing is run; return the exit status."""
    print(why, file=sys.stderr)
    return 2


def run_for(command: str, chapters: list[str]) -> int:
    """One command for some chapters. What takes hours and is held against records reads them all first."""
    if command == "evidence":
        for chapter in chapters:
            evidence(chapter)
        return 0
    if command == "check":
        return int(any([check(chapter) for chapter in chapters]))
    try:
        for chapter in chapters:
            ledger.recorded(study(chapter))
    except (FileNotFoundError, ValueError) as error:
        return refused(f"{command}: {error}")
    same = {claim: stays for chapter in chapters for claim, stays in primary(chapter, command).items()}
    changed = [claim for claim, stays in same.items() if not stays]
    print(f"\n{len(same) - len(changed)} of {len(same)} claims keep their verdict.")
    print(*(f"changed: {claim}" for claim in changed), sep="\n")
    return int(bool(changed))
