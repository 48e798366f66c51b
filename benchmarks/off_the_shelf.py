"""Optimizers that call themselves Adam or AdamW, from the packages of the index: which of them are AdamW?

    python -m venv shelf; shelf/bin/pip install -r benchmarks/off_the_shelf.txt
    shelf/bin/python benchmarks/off_the_shelf.py             a line an optimizer, of what is installed
    shelf/bin/python benchmarks/off_the_shelf.py --only timm keras
    shelf/bin/python benchmarks/off_the_shelf.py --record    also writes benchmarks/results/off_the_shelf.json; with
                                                             --only, the other packages stay there as they were

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
import time
import tomllib
import warnings
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # this clone's package, whatever is installed
from shelf.listed import SHELF, made  # noqa: E402

from adamw_book.diagnose import CouldNotRun, conformance  # noqa: E402

MOST = 1800  # seconds that a package may take


def version(package: str) -> str | None:
    if package == "adamw-book":  # this clone's
        return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def asked(package: str) -> dict[str, dict]:
    """name → its report, the seconds that it took, or what it raised."""
    found = {}
    for name in SHELF[package][1]:
        clock = time.perf_counter()
        try:
            found[name] = conformance(made(package, name), name=name).as_dict()
        except CouldNotRun as error:
            found[name] = {"error": str(error)}
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {error}"}
        found[name]["seconds"] = round(time.perf_counter() - clock, 2)
    return found


def in_a_process(package: str) -> dict[str, dict]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, "--package", package]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=MOST)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {name: {"error": last, "seconds": 0.0} for name in SHELF[package][1]}
    return json.loads(done.stdout.splitlines()[-1])


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", choices=SHELF, help="ask this one, in this process, and print JSON")
    parser.add_argument("--only", nargs="+", choices=SHELF, default=list(SHELF), help="ask these packages")
    parser.add_argument("--record", action="store_true", help="write what was found to benchmarks/results/")
    options = parser.parse_args()
    if options.package:
        warnings.simplefilter("ignore")
        print("\n" + json.dumps(asked(options.package)))
        return
    packages = {}
    for package in options.only:
        own = version(package)
        if own is None:
            print(f"{package}: not installed")
            continue
        print(package, own, flush=True)
        about = {"version": own, "python": platform.python_version(), "device": device_name()}
        clock = time.perf_counter()
        packages[package] = about | {"date": datetime.now(UTC).date().isoformat(), "optimizers": in_a_process(package)}
        packages[package]["seconds"] = round(time.perf_counter() - clock, 1)
        for name, found in packages[package]["optimizers"].items():
            print(line(name, found), flush=True)
    seconds = sum(p["seconds"] for p in packages.values())
    print(f"{sum(len(p['optimizers']) for p in packages.values())} optimizers in {seconds:.0f} s")
    if options.record:
        target = ROOT / "benchmarks" / "results" / "off_the_shelf.json"
        old = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
        found = {package: (old | packages)[package] for package in SHELF if package in old | packages}
        target.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"wrote {target.name}")


if __name__ == "__main__":
    main()
