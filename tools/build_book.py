"""Executes the chapters that need it and builds the book's pages: `python tools/build_book.py`.

A chapter is executed when what its results depend on has changed (tools/dependencies.py), two chapters at a time.
The results go to the cache that Jupyter Book reads. A chapter that fails has no entry in the cache, so it fails again
until it is mended; a build with warnings forgets what it had read, so it warns again. What an earlier build left
damaged under `_build` is taken as absent, and one build at a time works there (tools/one_at_a_time.py).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
import yaml
from contents import pages, source
from cost import Cost, processor
from dependencies import Package, fingerprint, versions
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbclient import NotebookClient
from offer_pdf import offer
from one_at_a_time import one_at_a_time
from plain_edition import Origin, write_plain
from sqlalchemy.exc import SQLAlchemyError

ROOT = Path(__file__).resolve().parent.parent
AIM = 90  # seconds that a chapter should take on two CPU cores
# CPU seconds above which it fails: CPU seconds, and three times the aim, so that neither other work on a machine nor an
# old processor makes a sound chapter fail.
BUDGET = 270
COSTS = ("seconds", "cpu_seconds", "peak_mb")  # what is kept of each execution; tools/cost.py
HEARTBEAT = 15  # seconds between signs of life


def say(text: str) -> None:
    # One write, so that lines of two chapters do not mix.
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def write(path: Path, text: str) -> None:
    """Write a file whole: whoever interrupts it finds the old one."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def read_object(path: Path, values: type | tuple[type, ...]) -> dict:
    """The JSON object in a file that a build wrote, its values all of the type `values`; empty where there is no file.
    A damaged one is removed, said, and counts as none."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and all(isinstance(value, values) for value in found.values()):
            return found
        why = "it holds something else"
    except (OSError, ValueError) as error:
        why = str(error)
    say(f"_build/{path.name} is damaged ({why}): it is taken as absent")
    remove(path)
    return {}


def sound_cache(path: Path):
    """Jupyter Book's cache of notebooks in the folder `path`. A damaged one is removed, said, and begun anew."""
    cache = get_cache(path)
    try:
        cache.list_cache_records(), cache.list_project_records(), cache.get_cache_limit()
        with cache.db.connect() as database:
            why = database.exec_driver_sql("PRAGMA integrity_check").scalar()
        executed = path / "executed"
        for folder in executed.iterdir() if executed.exists() else ():
            if not (folder / "base.ipynb").is_file():
                say(f"_build/{path.name}: an entry is damaged: it is removed")
                remove(folder)
        if why == "ok":
            return cache
    except (OSError, RuntimeError, TypeError, ValueError, SQLAlchemyError) as error:  # RuntimeError is jupyter_cache's
        cause = error.__cause__ or error
        why = getattr(cause, "orig", cause)  # SQLite's own words
    say(f"_build/{path.name} is damaged ({why}): it is taken as empty")
    if cache._db is not None:
        cache._db.dispose()  # Windows removes no file that is open
    remove(path)
    return get_cache(path)


def device() -> str:
    """The accelerator that the chapters will find, or "cpu"."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


class Executions:
    """The executed notebooks under `_build`: results in Jupyter Book's cache, and what they were computed from."""

    def __init__(self, root: Path, timeout: int) -> None:
        self.root, self.timeout = root, timeout
        self.build = root / "_build"
        self.cache = sound_cache(self.build / ".jupyter_cache")
        self.path = self.build / "executions.json"
        self.known: dict[str, dict] = read_object(self.path, dict)
        self.at: dict[str, str] = {}  # chapter → the cell that it is at
        self._lock = threading.Lock()

    def is_current(self, chapter: str, key: str) -> bool:
        """Whether the cache holds a chapter's results, whole, as computed from `key`."""
        known = self.known.get(chapter, {})
        if known.get("fingerprint") != key or not all(isinstance(known.get(cost), int | float) for cost in COSTS):
            return False
        notebook = self._read(chapter)
        try:
            _, notebook = self.cache.merge_match_into_notebook(notebook)
            check_executed(chapter, notebook)
        except KeyError:  # not in the cache
            return False
        except Exception as error:  # whatever a damaged notebook gives
            say(f"{chapter}: its results in the cache are damaged ({type(error).__name__}): they are taken as absent")
            return False
        return True

    def _read(self, chapter: str) -> nbformat.NotebookNode:
        return nbformat.read(self.root / f"{chapter}.ipynb", as_version=4)

    def forget(self, chapter: str) -> None:
        """Drop a chapter's results, and its page as read from them."""
        self.known.pop(chapter, None)
        self._save()
        try:
            self.cache.remove_cache(self.cache.match_cache_notebook(self._read(chapter)).pk)
        except KeyError:
            pass
        remove(self.build / ".doctrees" / f"{chapter}.doctree")

    def run(self, chapter: str) -> tuple[nbformat.NotebookNode, Cost]:
        """Execute a chapter from the top, in its own kernel and its own folder; what came out, and what it cost. Raises
        what nbclient raises."""
        notebook = self._read(chapter)
        cells = len(notebook.cells)

        def started(cell, cell_index) -> None:
            self.at[chapter] = f"cell {cell_index + 1} of {cells}"
            cost.pid = getattr(client.km.provisioner, "pid", None)

        client = NotebookClient(
            notebook,
            timeout=self.timeout,
            # Timings are cell metadata, and the cache looks a notebook up by its cells and their metadata.
            record_timing=False,
            resources={"metadata": {"path": str((self.root / chapter).parent)}},
            extra_arguments=["--IPKernelApp.log_level=40"],  # not its remarks on transport
            on_cell_start=started,
            on_cell_executed=lambda **_: cost.look(),
        )
        with Cost() as cost:
            client.execute()
        check_executed(chapter, notebook)
        return notebook, cost

    def keep(self, chapter: str, key: str, notebook: nbformat.NotebookNode, cost: dict) -> None:
        """Keep what came out of a chapter, what it was computed from, and what it cost (COSTS, and more)."""
        with self._lock:
            uri = str(self.root / f"{chapter}.ipynb")
            data = {"execution_seconds": cost["seconds"]}
            self.cache.cache_notebook_bundle(CacheBundleIn(notebook, uri, data=data), overwrite=True)
            self.known[chapter] = {"fingerprint": key, **cost}
            self._save()

    def _save(self) -> None:
        write(self.path, json.dumps(self.known, indent=1) + "\n")


def check_executed(chapter: str, notebook: nbformat.NotebookNode) -> None:
    """Raises ValueError unless every code cell has run and something came out of them."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    idle = [cell.source.splitlines()[0] for cell in cells if cell.execution_count is None]
    if idle:
        raise ValueError(f"{chapter}: these cells did not run: {idle}")
    if cells and not any(cell.outputs for cell in cells):
        raise ValueError(f"{chapter}: no cell has an output, so the page would show no result")


def execute(executions: Executions, stale: dict[str, str], jobs: int, ran_on: dict) -> list[str]:
    """Execute the chapters in `stale` (chapter → fingerprint), `jobs` at a time, and keep with each what it `ran_on`;
    returns those that failed."""
    failed: list[str] = []
    begun: dict[str, float] = {}
    done = threading.Event()

    def one(chapter: str) -> float:
        begun[chapter] = time.perf_counter()
        say(f"  {chapter}: started")
        notebook, cost = executions.run(chapter)
        executions.keep(chapter, stale[chapter], notebook, cost.as_record() | ran_on)
        return cost.seconds

    def heartbeat() -> None:
        while not done.wait(HEARTBEAT):
            for chapter, at in list(executions.at.items()):
                say(f"  {chapter}: {at}, {time.perf_counter() - begun[chapter]:.0f} s")

    threading.Thread(target=heartbeat, daemon=True).start()
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(one, chapter): chapter for chapter in stale}
        for future in as_completed(futures):
            chapter = futures[future]
            executions.at.pop(chapter, None)
            if (error := future.exception()) is None:
                say(f"  {chapter}: executed in {future.result():.0f} s")
                continue
            failed.append(chapter)
            say(f"\n{chapter}.ipynb FAILED\n")
            # A failed cell's message holds the cell and its traceback; anything else needs ours.
            known = type(error).__module__.startswith("nbclient") or isinstance(error, ValueError)
            text = str(error) if known else "".join(traceback.format_exception(error))
            say(text if sys.stdout.isatty() else re.sub(r"\x1b\[[\d;]*m", "", text))
    done.set()
    return failed


def pages_fingerprint(root: Path) -> str:
    """A digest of what every page depends on besides its own text: configuration, extensions, style, address."""
    digest = hashlib.sha256()
    for name in ("_config.yml", "_toc.yml", "requirements.txt", "_ext", "_static"):
        for file in sorted((root / name).rglob("*")) if (root / name).is_dir() else [root / name]:
            if file.is_file() and file.suffix != ".pyc":
                digest.update(f"\0{file.relative_to(root)}\0".encode() + file.read_bytes())
    sys.path.insert(0, str(root / "_ext"))
    from addresses import site_address
    from launch_buttons import repository

    digest.update(repr((repository(root), site_address())).encode())
    return digest.hexdigest()


def build_pages(root: Path) -> bool:
    """Run Jupyter Book with warnings as errors; returns whether it built. A build that fails, or that is interrupted,
    leaves nothing behind that would hide its warnings from the next one."""
    build = root / "_build"
    complete = build / "pages.json"
    key = pages_fingerprint(root)
    if read_object(complete, str).get("fingerprint") != key:
        remove(build / ".doctrees")
        remove(build / "html")
    complete.unlink(missing_ok=True)
    command = "import sys; from jupyter_book.cli.main import main; sys.argv[0] = 'jupyter-book'; main()"
    options = ["build", str(root), "-W", "-n", "--keep-going"]
    built = subprocess.run([sys.executable, "-c", command, *options], cwd=root).returncode == 0
    if built:
        write(complete, json.dumps({"fingerprint": key}) + "\n")
    return built


def without_results(root: Path, chapters: list[str]) -> list[str]:
    """The chapters whose built page shows no output of a cell, or that have no page."""
    paths = {chapter: root / "_build" / "html" / f"{chapter}.html" for chapter in chapters}
    return [name for name, path in paths.items() if not path.exists() or "cell_output" not in path.read_text("utf-8")]


def write_plain_edition(root: Path, executions: Executions) -> None:
    """Put the chapters, with results, as plain notebooks beside the pages. Raises ValueError for what is unknown."""
    sys.path.insert(0, str(root / "_ext"))
    from addresses import github_pages, site_address
    from launch_buttons import PLAIN_FOLDER, commit, repository

    url, branch = repository(root)
    origin = Origin(url, branch, commit(root), (site_address() or github_pages(url)).rstrip("/"))
    folder = root / "_build" / "html" / PLAIN_FOLDER
    write_plain(root, folder, origin, lambda notebook: executions.cache.merge_match_into_notebook(notebook)[1])


def main() -> int:
    """Build the book, unless another process is at it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="chapters executed at a time")
    jobs = parser.parse_args().jobs
    if jobs < 1:
        parser.error(f"--jobs must be 1 or more, not {jobs}")
    try:
        (ROOT / "_build").mkdir(exist_ok=True)
        with one_at_a_time(ROOT / "_build" / "lock", "build of this book"):
            return build(jobs)
    except OSError as error:
        say(f"\nThe book was not built: {error}\nIf that is something under _build: `make clean` removes all of it.")
        return 1


def build(jobs: int) -> int:
    """Build the book, `jobs` chapters at a time; returns the exit status."""
    # Kernels inherit these: this tree's package whatever is installed, this Python's kernel, one thread each.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    contents = pages(ROOT)
    if missing := [page for page in contents if source(ROOT, page) is None]:
        say(f"_toc.yml names pages that do not exist: {', '.join(missing)}")
        return 1
    chapters = [page for page in contents if source(ROOT, page).suffix == ".ipynb"]
    executions = Executions(ROOT, config["execute"]["timeout"])

    package, accelerator = Package(ROOT), device()
    keys = {chapter: fingerprint(ROOT / f"{chapter}.ipynb", ROOT, accelerator, package) for chapter in chapters}
    stale = {chapter: key for chapter, key in keys.items() if not executions.is_current(chapter, key)}
    say(f"{len(chapters)} chapters, {len(stale)} to execute on {accelerator}, {jobs} at a time")
    for chapter in stale:
        executions.forget(chapter)
    cpu = f"{processor()}, {os.cpu_count()} CPUs"
    ran_on = {"device": cpu if accelerator == "cpu" else f"{accelerator}; {cpu}", "versions": versions(ROOT)}
    failed = execute(executions, stale, jobs, ran_on)
    if failed:
        say(f"\nThe book was not built: {', '.join(failed)} failed.")
        return 1

    if not build_pages(ROOT):
        say("\nThe book was not built: Jupyter Book's warnings and errors are above, and are errors here.")
        return 1
    if empty := without_results(ROOT, chapters):
        (ROOT / "_build" / "pages.json").unlink()
        say(f"\nThe book was built, but these pages show no result: {', '.join(empty)}")
        return 1

    try:
        write_plain_edition(ROOT, executions)
    except ValueError as error:
        say(f"\nThe book was built, but not its notebooks for Colab and for download: {error}")
        return 1

    say("\nSeconds, CPU seconds and MB to execute each chapter:")
    for chapter in chapters:
        seconds, cpu_seconds, peak = (executions.known[chapter][cost] for cost in COSTS)
        note = "" if chapter in stale else " (kept: nothing it depends on has changed)"
        note += f"  WARNING: over the {AIM} s that a chapter should take" if seconds > AIM else ""
        say(f"  {seconds:6.1f} {cpu_seconds:6.1f} {peak:6.0f}  {chapter}{note}")
    if over := [chapter for chapter in chapters if executions.known[chapter]["cpu_seconds"] > BUDGET]:
        say(f"\nThese chapters took more than the {BUDGET} CPU seconds that one may take: {', '.join(over)}")
        return 1
    if not offer(ROOT, ROOT / "_build" / "html"):
        say("There is no PDF of these pages: `make pdf` prints it.")
    say(f"\nThe book is in _build/html. Open {(ROOT / '_build/html/index.html').as_uri()}")
    say("or run `make serve` and open http://127.0.0.1:8000")
    return 0


if __name__ == "__main__":
    sys.exit(main())
