"""Optimizers that call themselves Adam or AdamW, from the packages of the index: which of them are AdamW?

    python -m venv shelf; shelf/bin/pip install -r benchmarks/off_the_shelf.txt
    shelf/bin/python benchmarks/off_the_shelf.py             a line an optimizer, of what is installed
    shelf/bin/python benchmarks/off_the_shelf.py --only timm keras:AdamW
    shelf/bin/python benchmarks/off_the_shelf.py --record    also writes benchmarks/results/off_the_shelf.json, after
                                                             each optimizer; others than --only's stay as they were
    shelf/bin/python benchmarks/off_the_shelf.py --lacking --record    goes on with a record that was cut short: those
                                                             that are not in it, or have a finding without its effect

Each package is asked in a process of its own, on one thread of the CPU.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # this clone's package, whatever is installed
from shelf.listed import SHELF, made  # noqa: E402

from adamw_book.diagnose import CouldNotRun, conformance  # noqa: E402
from adamw_book.diagnose.black_box import effects  # noqa: E402
from adamw_book.diagnose.black_box.difference import STOPS  # noqa: E402

RECORD = ROOT / "benchmarks" / "results" / "off_the_shelf.json"
MARK, PATIENCE = "found: ", 900.0  # seconds; a record waits longer than a user would


def version(package: str) -> str | None:
    if package == "adamw-book":  # this clone's
        return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def asked(package: str, name: str) -> dict:
    """Its report, the seconds that it took, or what it raised."""
    clock = time.perf_counter()
    try:
        found = conformance(made(package, name), name=name).as_dict()
    except CouldNotRun as error:
        found = {"error": str(error)}
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    return found | {"seconds": round(time.perf_counter() - clock, 2)}


def in_a_process(package: str, names: list[str]) -> Iterator[tuple[str, dict]]:
    """(name, what was found) of each, as soon as it is."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, "--package", package, *names]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=said, text=True)
        for line in process.stdout:
            if line.startswith(MARK):
                name, found = json.loads(line.removeprefix(MARK))
                names = [one for one in names if one != name]
                yield name, found
        if process.wait():
            said.seek(0)
            last = (said.read().strip().splitlines() or ["no output"])[-1]
            yield from ((name, {"error": last, "seconds": 0.0}) for name in names)


def lacks(found: dict | None) -> bool:
    """Whether there is no report of an optimizer, or one with a finding without its effect."""
    grave = [f for f in (found or {}).get("findings", []) if f["severity"] != "note" and f["code"] not in STOPS]
    return found is None or any(len(f["effect"]) < len(effects.STEPS) for f in grave)


def chosen(only: list[str] | None, record: dict) -> dict[str, list[str]]:
    """package → names to ask; only: packages, or packages with a name after a colon; record: keep those that lack
    something there."""
    found = {}
    for one in only or SHELF:
        package, _, name = one.partition(":")
        if package not in SHELF or (name and name not in SHELF[package][1]):
            raise SystemExit(f"--only: there is no {one} on the shelf")
        names = [name] if name else list(SHELF[package][1])
        found[package] = [*found.get(package, []), *names]
    have = {package: own["optimizers"] for package, own in record.items()}
    return {p: [n for n in names if lacks(have.get(p, {}).get(n))] for p, names in found.items()} if record else found


def device_name() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def line(name: str, found: dict) -> str:
    """One optimizer in a line of text."""
    if "error" in found:
        said = f"could not run: {found['error']}"
    else:
        codes = [f["code"] for f in found["findings"] if f["severity"] != "note"]
        said = f"{found['dtype']}, " + ("AdamW" if found["is_adamw"] else ", ".join(codes))
    return f"  {name:32} {found['seconds']:6.1f} s  {said[:200]}"


def written(record: dict, package: str, about: dict, name: str, found: dict) -> None:
    """Put one report into the record, in the order of the shelf, and write it."""
    own = record.get(package, {}).get("optimizers", {}) | {name: found}
    own = {one: own[one] for one in SHELF[package][1] if one in own}
    seconds = round(sum(one["seconds"] for one in own.values()), 1)
    record[package] = about | {"optimizers": own, "seconds": seconds}
    kept = {one: record[one] for one in SHELF if one in record}
    RECORD.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", nargs="+", help="ask its names, in this process, and print JSON lines")
    parser.add_argument("--only", nargs="+", help="ask these packages, or PACKAGE:NAME")
    parser.add_argument("--lacking", action="store_true", help="ask those that lack something in the record")
    parser.add_argument("--record", action="store_true", help="write what was found to benchmarks/results/")
    options = parser.parse_args()
    if options.package:
        warnings.simplefilter("ignore")
        effects.PATIENCE = PATIENCE
        package, *names = options.package
        for name in names:
            print(f"\n{MARK}{json.dumps([name, asked(package, name)])}", flush=True)
        return
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    clock, count = time.perf_counter(), 0
    for package, names in chosen(options.only, record if options.lacking else {}).items():
        if not names:
            continue
        own = version(package)
        if own is None:
            print(f"{package}: not installed")
            continue
        print(package, own, flush=True)
        about = {"version": own, "python": platform.python_version(), "device": device_name()}
        about["date"] = datetime.now(UTC).date().isoformat()
        for name, found in in_a_process(package, names):
            print(line(name, found), flush=True)
            count += 1
            if options.record:
                written(record, package, about, name, found)
    print(f"{count} optimizers in {time.perf_counter() - clock:.0f} s")


if __name__ == "__main__":
    main()
