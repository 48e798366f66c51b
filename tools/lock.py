"""Writes the lock files: every wheel that pip takes for a requirements file, by its version and its SHA-256.

    python tools/lock.py

They are for the Python, system and processor that this runs on: run it where the published book is built (see
.github/workflows/book.yml), or with the same three. No package is installed. The hashes are those that the package
index states; whoever installs with them gets the wheels that stood there when this ran, or an error.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {"requirements.txt": "requirements.lock", ".github/audit.txt": ".github/audit.lock"}


def lock(report: dict) -> str:
    """The lines of a lock file, from the report of `pip install --dry-run`. Raises ValueError for anything that is not
    a wheel of a public version: a folder, a repository, a build of one's own."""
    lines = []
    for item in report["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        digest = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if not digest or not item["download_info"]["url"].endswith(".whl") or "+" in version:
            raise ValueError(f"{name} {version} is no wheel from the package index, but {item['download_info']['url']}")
        lines.append(f"{re.sub(r'[-_.]+', '-', name).lower()}=={version} \\\n    --hash=sha256:{digest}\n")
    return "".join(sorted(lines))


def main() -> None:
    # pip as it is anywhere: neither this machine's configuration nor folders of wheels that it may have.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    options = ["--dry-run", "--quiet", "--ignore-installed", "--only-binary", ":all:", "--report", "-"]
    here = f"Python {sys.version_info.major}.{sys.version_info.minor}, {platform.system()}, {platform.machine()}"
    for source, target in LOCKS.items():
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", *options, "--requirement", source],
            cwd=ROOT,
            env=environment | {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            sys.exit(done.returncode)
        head = f"# From {source}, by tools/lock.py, for {here}. Not to be edited.\n"
        (ROOT / target).write_text(head + lock(json.loads(done.stdout)), encoding="utf-8")
        print(f"wrote {target}")


if __name__ == "__main__":
    main()
