"""What keeps the book right: the costs of chapters, the status page, the audit, outward links, the workflows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest
import yaml

psutil = pytest.importorskip("psutil", reason="the book's tools are not installed: pip install -r requirements.txt")
pytest.importorskip("sphinx", reason="the book's tools are not installed: pip install -r requirements.txt")
nbformat = pytest.importorskip("nbformat", reason="the book's tools are not installed: pip install -r requirements.txt")

import alone  # noqa: E402
import audit_pages  # noqa: E402
import outward_links  # noqa: E402
from build_status import table  # noqa: E402
from cost import Cost  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]

# A process that computes for half a second in itself, and whose child holds 60 MB
BUSY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "x = bytearray(60_000_000); import time; time.sleep(600)"])
while time.process_time() < 0.5: pass
print("done", flush=True)
try: time.sleep(600)
finally: child.kill()
"""


def test_the_cost_of_a_process_counts_its_children_and_not_its_waiting():
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True)
    try:
        with Cost() as cost:
            cost.pid = process.pid
            assert process.stdout.readline() == "done\n"
            deadline = time.monotonic() + 60
            while not (cost.peak_mb > 60 and cost.cpu_seconds > 0.4) and time.monotonic() < deadline:
                cost.look()  # the thread's last look may be older than what the process has said since
    finally:
        for child in psutil.Process(process.pid).children():
            child.kill()
        process.kill()
        process.communicate()
    assert 60 < cost.peak_mb < 400 and 0.4 < cost.cpu_seconds and cost.seconds > 0.4
    assert set(cost.as_record()) == {"seconds", "cpu_seconds", "peak_mb", "day"}
    cost.look()  # a process that has gone is no error


def test_the_status_page_names_what_each_chapter_cost_and_where_it_ran():
    cost = {"seconds": 61.4, "cpu_seconds": 58.0, "peak_mb": 1234.5, "day": "2026-11-02"}
    here, there = (
        {"device": "a CPU", "versions": ["python 3", "torch 2"]},
        {"device": "a GPU", "versions": ["python 3"]},
    )
    text = table({"c/b": cost | here, "c/a": cost | here, "c/gone": cost}, ["c/a", "c/b"])
    assert "| {doc}`/c/a` | 61 | 58 | 1,234 | 2026-11-02 |\n| {doc}`/c/b`" in text and "gone" not in text
    assert "| all | 123 | 116 | | |" in text
    assert "*Device:* a CPU." in text and "*Versions:* python 3, torch 2." in text
    both = table({"c/b": cost | there, "c/a": cost | here}, ["c/a", "c/b"])
    assert "a CPU ({doc}`/c/a`)." in both and "a GPU ({doc}`/c/b`)." in both


def write_notebook(path: Path, *cells: tuple[str, str]) -> Path:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.v4.new_notebook()
    make = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}
    notebook.cells = [make[kind](text) for kind, text in cells]
    nbformat.write(notebook, path)
    return path


def test_an_exercise_counts_as_checked_where_its_solution_is_asserted(tmp_path: Path):
    asked = "```{exercise-start} How much? — code\n:label: ex-%s\n:class: dropdown\nDo it.\n```"
    opened = "```{exercise-end}\n```\n```{solution-start} ex-%s\n:class: dropdown\n```"
    cells = []
    for label, last in (("a", "assert check.first(3)"), ("b", "check.second(3)")):  # the second is shown, not asserted
        cells += [("markdown", asked % label), ("code", "x = ..."), ("markdown", opened % label), ("code", last)]
        cells.append(("markdown", "```{solution-end}\n```"))
    assert audit_pages.unchecked_exercises(write_notebook(tmp_path / "a.ipynb", *cells)) == 1
    assert audit_pages.unchecked_exercises(write_notebook(tmp_path / "b.ipynb", ("code", "1"))) is None
    assert audit_pages.unchecked_exercises(tmp_path / "c.md") is None


def test_a_page_of_the_audit_is_wrong_where_a_zero_belongs_or_it_is_heavy():
    clean = dict.fromkeys(audit_pages.COLUMNS, 0) | {"MB": 1.2, "raw Colab": None}
    assert audit_pages.wrong(clean) == []
    assert audit_pages.wrong(clean | {"axe": 2, "MB": 1.6}) == ["MB", "axe"]
    row = audit_pages.line("chapters/a", clean)
    assert re.findall(r"\S+", row)[:4] == ["chapters/a", "0", "0", "1.20"] and "–" in row


class Answers:
    def __init__(self, answer: Exception | None) -> None:
        self.answer = answer

    def __call__(self, *arguments, **options):
        if self.answer is not None:
            raise self.answer
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        pass


def test_a_link_leads_nowhere_only_where_its_host_says_so(monkeypatch: pytest.MonkeyPatch):
    import socket

    def answer(error: Exception | None) -> str:
        monkeypatch.setattr(outward_links, "urlopen", Answers(error))
        return outward_links.problem("https://example.org/")

    assert answer(None) == "" and answer(HTTPError("", 403, "Forbidden", None, None)) == ""
    assert answer(HTTPError("", 404, "Not Found", None, None)) == "404 Not Found"
    assert "unknown" in answer(URLError(socket.gaierror("unknown"))) and answer(TimeoutError()) == ""


def test_the_links_that_lead_out_are_those_of_pages_and_papers():
    found = outward_links.links(ROOT)
    assert len(found) > 50 and "https://arxiv.org/abs/1412.6980" in found
    assert any("doi.org" in address for address in found) and not any("OWNER" in address for address in found)
    assert [address for address in found if address.endswith((".", ","))] == []


def workflow(name: str) -> dict:
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))


def test_what_the_nightly_and_the_weekly_run_find_becomes_an_issue():
    read = workflow("newest.yml")
    crons = [entry["cron"] for entry in read[True]["schedule"]]
    assert [len(cron.split()) for cron in crons] == [5, 5] and crons[0].endswith("* * *") and crons[1].endswith("* * 1")
    assert read["permissions"] == {"contents": "read"}
    for name, other in (("newest", crons[1]), ("links", crons[0]), ("alone", crons[0])):
        job = read["jobs"][name]
        assert job["if"] == f"github.event.schedule != '{other}'" and job["permissions"]["issues"] == "write"
        last = job["steps"][-1]
        assert last["if"] == "failure()" and last["run"].startswith("bash .github/say_so.sh ")
    assert subprocess.run(["bash", "-n", ROOT / ".github" / "say_so.sh"]).returncode == 0


def test_each_notebook_is_run_alone_and_what_fails_or_changes_packages_is_named(monkeypatch, tmp_path: Path, capsys):
    def written(root: Path, folder: Path, origin) -> None:
        assert re.fullmatch("[0-9a-f]{40}", origin.commit) and origin.repository == ROOT.as_uri()
        for name, code in {"good": "import os; assert os.listdir() == []", "bad": "1 / 0"}.items():
            folder.mkdir(exist_ok=True)
            cells = [nbformat.v4.new_code_cell(code)]
            nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{name}.ipynb")

    monkeypatch.setattr(alone, "write_plain", written)
    for name in ("JUPYTER_PATH", "OMP_NUM_THREADS", "PYTHONPATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    freezes = iter(["a==1", "a==1", "a==1", "a==2"])
    monkeypatch.setattr(alone, "packages", lambda python: next(freezes))
    assert alone.main(sys.executable) == 1
    printed = capsys.readouterr().out
    assert (
        "good.ipynb: passed" in printed and "ZeroDivisionError" in printed and "1 failed; packages unchanged" in printed
    )
    assert alone.main(sys.executable, "good") == 1  # for its packages
    assert "0 failed; packages CHANGED" in capsys.readouterr().out
    assert alone.main(str(tmp_path / "python9")) == 2 and "is no program" in capsys.readouterr().err


def test_the_nightly_run_skips_the_tests_that_need_a_browser_or_a_built_book(tmp_path: Path):
    """GitHub says CI=true, with which they would fail (tests/unavailable.py), and this job has neither."""
    [step] = [step for step in workflow("newest.yml")["jobs"]["newest"]["steps"] if "Tests" in step.get("name", "")]
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "CI=$CI $*"\n', encoding="utf-8")
    python.chmod(0o755)
    environment = os.environ | {"CI": "true", "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    said = subprocess.run(["bash", "-c", step["run"]], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.startswith("CI= -m pytest ") and "tests/test_interactive" not in said.stdout


def test_a_pull_request_gets_a_preview_and_is_never_published():
    jobs = workflow("book.yml")["jobs"]
    [upload] = [step for step in jobs["build"]["steps"] if "upload-pages-artifact" in step.get("uses", "")]
    assert "'preview'" in upload["with"]["name"] and "pull_request" in upload["if"]
    assert jobs["publish"]["if"] == "github.event_name == 'push'"
