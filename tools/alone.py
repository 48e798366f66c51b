"""Runs the plain notebooks as a reader on Colab does: each alone in an empty folder, by another Python, which gets the
package from a repository and installs nothing. `python tools/alone.py PYTHON [part of a page's name …]`

What is run is the last commit of this clone. Exit status 1 where a notebook fails, or that Python's packages changed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from plain_edition import Origin, write_plain

ROOT = Path(__file__).resolve().parents[1]
KERNEL = "alone"


def packages(python: str) -> str:
    """What `pip freeze` says."""
    return subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout


def run(notebook: Path) -> str | None:
    """Run a notebook in a new folder; returns the error that ended it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        client = NotebookClient(
            nbformat.read(notebook, as_version=4), timeout=900, kernel_name=KERNEL,
            resources={"metadata": {"path": folder}},
        )  # fmt: skip
        try:
            client.execute()
        except CellExecutionError as error:
            return str(error)
    return None


def main(python: str, *names: str) -> int:
    if shutil.which(python) is None:
        print(f"PYTHON: {python!r} is no program; name a Python with the packages of tools/colab.txt", file=sys.stderr)
        return 2
    python = str(Path(shutil.which(python)).absolute())
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    before, failed = packages(python), []
    # one thread a notebook, two notebooks at a time; nothing of this environment is to be found there
    os.environ |= {"OMP_NUM_THREADS": "1"}
    os.environ.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "kernels" / KERNEL
        spec.mkdir(parents=True)
        argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": KERNEL, "language": "python"}))
        os.environ["JUPYTER_PATH"] = folder
        written = Path(folder) / "notebooks"
        write_plain(ROOT, written, Origin(ROOT.as_uri(), "", commit.strip(), ""))

        def tried(page: Path) -> None:
            start, error = time.perf_counter(), run(written / page)
            if error:
                failed.append(page)
            print(f"{page}: {error or 'passed'}, {time.perf_counter() - start:.0f} s", flush=True)

        found = sorted(p.relative_to(written) for p in written.rglob("*.ipynb"))
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(tried, [p for p in found if not names or any(name in str(p) for name in names)]))
    same = packages(python) == before
    print(f"{len(failed)} failed; packages {'unchanged' if same else 'CHANGED'}: {python}")
    return int(bool(failed) or not same)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
