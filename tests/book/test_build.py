"""The build of the book, tried on a small one that is made of this book's own configuration, extensions and tools."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from dependencies import Package, fingerprint, notebook_modules
from launch_buttons import github_url, repository
from moved_pages import redirect, write_moved
from offer_pdf import NAME as NAME_OF_PDF
from offer_pdf import RECORD, digest
from one_at_a_time import one_at_a_time
from serve import Server, serve

nbformat = pytest.importorskip("nbformat", reason="the book's tools are not installed: pip install -r requirements.txt")
pytest.importorskip("jupyter_book", reason="the book's tools are not installed: pip install -r requirements.txt")
build_book = pytest.importorskip("build_book")
formulas = pytest.importorskip("formulas")

ROOT = Path(__file__).resolve().parents[2]
ORIGIN = "/srv/somewhere/book.git"  # as a clone of a folder has it


def write_notebook(path: Path, title: str, *cells: str) -> None:
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.cells = [nbformat.v4.new_markdown_cell(f"# {title}"), *map(nbformat.v4.new_code_cell, cells)]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chapters, each on a module of its own."""
    root = tmp_path_factory.mktemp("small") / "book"
    root.mkdir()
    for name in ("_ext", "_static", "tools"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_config.yml", "LICENSE", "LICENSE-TEXT", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, root / name)
    config = (root / "_config.yml").read_text(encoding="utf-8")
    moved = re.sub(
        "moved_pages: {.*}", "moved_pages: {chapters/old/second: chapters/two, chapters/gone: nowhere}", config
    )
    (root / "_config.yml").write_text(moved, encoding="utf-8")
    chapters = root / "chapters"
    write_notebook(
        chapters / "one.ipynb",
        "One\n\nWhat is weighed here, and $\\lambda$. A weight $w^2$.",
        "from adamw_book.apple import weigh\nprint('apple:', weigh())",
    )
    write_notebook(chapters / "two.ipynb", "Two", "import adamw_book.pear as pear\nprint('pear:', pear.weigh())")
    (chapters / "references.bib").touch()
    (root / "_toc.yml").write_text("format: jb-book\nroot: chapters/one\nchapters:\n- file: chapters/two\n")
    package = root / "adamw_book"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "apple.py").write_text("def weigh():\n    return 'light'\n")
    (package / "pear.py").write_text("def weigh():\n    return 'green'\n")
    for command in (["init", "--quiet", "--initial-branch=main"], ["remote", "add", "origin", ORIGIN]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def build(book: Path, **environment: str) -> tuple[int, str]:
    """The exit status of a build, and what it printed."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "BOOK_"))}
    done = subprocess.run(
        [sys.executable, "tools/build_book.py"],
        cwd=book,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def executed(output: str) -> list[str]:
    return sorted(re.findall(r"^  (\S+): executed in", output, flags=re.MULTILINE))


def page(book: Path, name: str) -> str:
    return (book / "_build" / "html" / "chapters" / f"{name}.html").read_text(encoding="utf-8")


def shared_files(book: Path) -> dict[str, bytes]:
    """The files that all pages share, and what is in them."""
    static = book / "_build" / "html" / "_static"
    return {file.relative_to(static).as_posix(): file.read_bytes() for file in static.rglob("*") if file.is_file()}


def unlicensed(html: Path) -> list[str]:
    """The files of built pages that are an installed package's, and whose licence does not lie with them."""
    texts = html / "_static" / "licenses"
    licenses = {file.stem.lower() for file in texts.iterdir()}
    licenses |= {"sphinx-mathjax-offline"} if "mathjax" in licenses else set()
    files = (file for file in (html / "_static").rglob("*") if file.is_file() and file.parent != texts)
    brought = {content: file for file in files if (content := file.read_bytes())}  # an empty file is nobody's
    kinds = {(file.suffix, len(content)) for content, file in brought.items()}
    return [
        f"{file.name} is from {distribution.name}"
        for distribution in metadata.distributions()
        if distribution.name.lower().replace("_", "-") not in licenses
        for file in distribution.files or ()
        if (path := Path(file.locate())).is_file() and (path.suffix, path.stat().st_size) in kinds
        if path.read_bytes() in brought
    ]


@pytest.mark.slow
def test_a_book_from_nothing_to_a_second_edition(book: Path):
    """One story, because each step starts from what the one before has left behind."""
    status, output = build(book)
    assert status == 0, output
    assert executed(output) == ["chapters/one", "chapters/two"]
    assert "apple: light" in page(book, "one") and "pear: green" in page(book, "two")
    html = book / "_build" / "html"
    # The origin is a folder: no Colab button, and no word of that folder; no address that nobody knows.
    assert "colab" not in page(book, "one") and ORIGIN not in page(book, "one")
    assert not re.search(r"canonical|og:|/issues|/edit/|book\.pdf", page(book, "one").replace("moved", ""))
    assert not (html / "sitemap.xml").exists() and not (html / "404.html").exists()
    described = re.search(r'<meta content="([^"]*)" name="description"', page(book, "one"))
    assert described[1] == "What is weighed here, and λ. A weight w2."
    # A page that has moved is found at its old address; one that leads nowhere is not written.
    assert 'content="0; url=../two.html"' in page(book, "old/second")
    assert not (book / "_build" / "html" / "chapters" / "gone.html").exists()
    # A formula is set in the page that has it, and no page loads what none needs.
    assert "<mjx-math" in page(book, "one") and "mjx" not in page(book, "two")
    shared = shared_files(book)
    assert sum(map(len, shared.values())) < 2.5e6
    assert not [
        name for name in shared if name.startswith(("scripts/fontawesome.js", "mathjax/tex")) and "LIC" not in name
    ]
    # What others wrote stands with its licence.
    assert unlicensed(book / "_build" / "html") == []
    static = book / "_build" / "html" / "_static"
    for carried, license, words in (
        ("mathjax/fonts/MathJax_Main-Regular.woff", "MathJax-fonts", "SIL OPEN FONT LICENSE"),
        ("vendor/fontawesome/icons.woff", "Font-Awesome", "SIL OPEN FONT LICENSE"),
        ("scripts/bootstrap.js", "Bootstrap", "MIT License"),
        ("clipboard.min.js", "clipboard.js", "MIT License"),
        ("searchtools.js", "Sphinx", "Redistribution and use in source and binary forms"),
        ("book.css", "LICENSE-TEXT", "CC BY 4.0"),
    ):
        assert (static / carried).is_file() and words in (static / "licenses" / f"{license}.txt").read_text("utf-8")
    listed = (static / "licenses" / "README.txt").read_text(encoding="utf-8")
    setter = formulas.Setter()
    assert f"MathJax {setter.version} " in listed
    setter.close()
    for script, name, before in (("bootstrap", "Bootstrap", " v"), ("fontawesome", "Font Awesome", " Free ")):
        said = (static / "scripts" / f"{script}.js.LICENSE.txt").read_text(encoding="utf-8")
        assert f"{name} {re.search(rf'{name}{before}([0-9.]+)', said)[1]} " in listed

    # Unchanged: nothing is executed, and no page changes.
    before = {path: path.read_bytes() for path in html.rglob("*") if path.is_file()}
    status, output = build(book)
    assert status == 0, output
    assert executed(output) == []
    assert shared_files(book) == shared
    assert [p.name for p in html.rglob("*") if p.is_file() and before.get(p) != p.read_bytes()] == []

    # A PDF of these pages is offered on them; one of other pages is not.
    (html / NAME_OF_PDF).write_bytes(b"%PDF")
    (built := book / "_build").joinpath(RECORD).write_text(digest(book, html))
    assert build(book)[0] == 0 and 'href="../book.pdf"' in page(book, "one")
    (built / RECORD).write_text("of other pages")
    assert build(book)[0] == 0 and "book.pdf" not in page(book, "one") and not (html / NAME_OF_PDF).exists()

    # Damaged results of earlier builds: as if there were none.
    (built / "executions.json").write_text((built / "executions.json").read_text()[:-9])
    (built / ".jupyter_cache" / "global.db").write_text("no database")
    for name in (".doctrees", "html"):
        shutil.rmtree(built / name)
        (built / name).write_text("a file")
    (built / "pages.json").unlink()
    (built / "pages.json").mkdir()
    status, output = build(book)
    assert status == 0, output
    assert executed(output) == ["chapters/one", "chapters/two"]
    assert re.findall(r"_build/(\S+) is damaged", output) == [".jupyter_cache", "executions.json", "pages.json"]

    # While another process builds, one says so and leaves everything alone.
    with one_at_a_time(built / "lock", "build of this book"):
        status, output = build(book)
    assert status == 1 and f"Another build of this book is running (process {os.getpid()}, since " in output
    assert "Traceback" not in output

    # A changed function: the chapter that depends on it is executed, no other, and the page shows it.
    (book / "adamw_book" / "apple.py").write_text("def weigh():\n    return 'heavy'\n")
    status, output = build(book)
    assert status == 0, output
    assert executed(output) == ["chapters/one"]
    assert "apple: heavy" in page(book, "one") and "apple: light" not in page(book, "one")
    assert "<mjx-math" in page(book, "one") and shared_files(book) == shared

    # A failing cell, in a function that a chapter calls: it fails, and fails again.
    (book / "adamw_book" / "pear.py").write_text("def weigh():\n    raise ArithmeticError('no scales')\n")
    for _ in range(2):
        status, output = build(book)
        assert status != 0
        assert "chapters/two.ipynb FAILED" in output and "ArithmeticError: no scales" in output

    # Mended; and an address on GitHub gives the button.
    (book / "adamw_book" / "pear.py").write_text("def weigh():\n    return 'ripe'\n")
    published = {"BOOK_REPOSITORY_URL": "git@github.com:someone/a-book.git"}
    status, output = build(book, **published)
    assert status == 0, output
    assert executed(output) == ["chapters/two"]
    assert "pear: ripe" in page(book, "two")
    assert "https://colab.research.google.com/github/someone/a-book/blob/colab/chapters/one.ipynb" in page(book, "one")
    # Beside the pages lies each chapter as a notebook that runs alone, with that address in its first cell.
    assert 'href="../notebooks/chapters/one.ipynb"' in page(book, "one")
    alone = nbformat.read(book / "_build" / "html" / "notebooks" / "chapters" / "two.ipynb", as_version=4)
    assert 'REPOSITORY, BRANCH, COMMIT = "https://github.com/someone/a-book", "main", ' in alone.cells[1].source
    assert "(https://someone.github.io/a-book/chapters/two.html)" in alone.cells[0].source
    # … and links for answers; the publisher's own address makes the site known.
    assert "https://github.com/someone/a-book/issues/new" in page(book, "one")
    assert "https://github.com/someone/a-book/edit/main/chapters/one.ipynb" in page(book, "one")
    address = "https://example.org/b/"
    assert build(book, **published, BOOK_SITE_URL=address)[0] == 0
    tag = f'<link href="{address}chapters/one.html" rel="canonical"'
    assert all(part in page(book, "one") for part in tag.split())
    # This book has no record of which a card could be drawn, so its pages name none.
    assert 'content="summary"' in page(book, "one") and "og:image" not in page(book, "one")
    assert f"<loc>{address}chapters/two.html</loc>" in (html / "sitemap.xml").read_text()
    assert (html / "404.html").exists() and not (html / "_static" / "card.png").exists()

    # A chapter over its budget fails.
    budget = (book / "tools" / "build_book.py").read_text(encoding="utf-8")
    (book / "tools" / "build_book.py").write_text(budget.replace("BUDGET = 270", "BUDGET = 0.01"), encoding="utf-8")
    status, output = build(book, **published)
    assert status == 1 and "took more than the 0.01 CPU seconds that one may take: chapters/one" in output
    (book / "tools" / "build_book.py").write_text(budget, encoding="utf-8")

    # A warning of Sphinx is an error, and stays one.
    write_notebook(book / "chapters" / "two.ipynb", "Two\n\n### A level too deep", "print(2)")
    for _ in range(2):
        status, output = build(book, **published)
        assert status != 0
        assert "Non-consecutive header level" in output

    # A page without results is not published as if it had some.
    write_notebook(book / "chapters" / "two.ipynb", "Two", "x = 2")
    status, output = build(book, **published)
    assert status != 0
    assert "no cell has an output" in output


def test_a_moved_page_leads_to_a_page_by_itself(tmp_path: Path):
    write_moved(tmp_path, {"a/b/old": "a/c/new", "a/lost": "a/nowhere"}, {"a/c/new"})
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")] == ["a/b/old.html"]
    text = (tmp_path / "a" / "b" / "old.html").read_text(encoding="utf-8")
    links = re.findall(r'(?:href="|url=|replace\(")([^"]+)"', text)
    assert len(links) == 4 and {(tmp_path / "a" / "b" / link).resolve() for link in links} == {
        (tmp_path / "a" / "c" / "new.html").resolve()
    }
    assert "//" not in text and "location.hash" in text  # no network, and the place on the page is kept
    with pytest.raises(ValueError, match="'a/c/new' has moved, but it is a page"):
        write_moved(tmp_path, {"a/c/new": "a/d"}, {"a/c/new", "a/d"})
    assert 'url=x.html"' in redirect("old", "x")


# ---- What an earlier build left, damaged


NAME, KEY = "chapters/one", "what it was computed from"
COST = {"seconds": 1.0, "cpu_seconds": 0.9, "peak_mb": 100.0}


def opened(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[build_book.Executions, list[str]]:
    """The executions as the next build finds them, and the lines that it says about them."""
    capsys.readouterr()
    executions = build_book.Executions(root, timeout=60)
    executions.is_current(NAME, KEY)
    return executions, capsys.readouterr().out.splitlines()


@pytest.fixture
def kept(tmp_path: Path) -> nbformat.NotebookNode:
    """An executed notebook, kept by a build in `tmp_path`."""
    write_notebook(tmp_path / f"{NAME}.ipynb", "One", "print(1)")
    notebook = nbformat.read(tmp_path / f"{NAME}.ipynb", as_version=4)
    notebook.cells[1].execution_count = 1
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="1\n")]
    (tmp_path / "_build").mkdir()
    build_book.Executions(tmp_path, timeout=60).keep(NAME, KEY, notebook, COST)
    return notebook


def put(path: Path, content: bytes | None) -> None:
    """Leave `content` at `path` instead of what is there; None leaves a folder."""
    build_book.remove(path)
    path.mkdir() if content is None else path.write_bytes(content)


def without_a_table(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE nbcache")


DAMAGES = {
    "executions.json": [b"", b'{"chapters/one": {"finger', b"[1]", b"null", b'{"chapters/one": 3}', b"\xff", None],
    ".jupyter_cache": [b"a file"],
    ".jupyter_cache/global.db": [b"", b"no database", b"SQLite format 3\0" * 300, None, without_a_table],
    ".jupyter_cache/executed": [b"a file"],
    ".jupyter_cache/executed/*": [b"a file"],
    ".jupyter_cache/executed/*/base.ipynb": [b"", b'{"cells": [', b"{}", b"[1]", b"\xff", None, Path.unlink],
}


@pytest.mark.parametrize(
    ("name", "damage"), [(name, damage) for name, damages in DAMAGES.items() for damage in damages]
)
def test_damaged_results_count_as_absent(tmp_path: Path, kept, capsys: pytest.CaptureFixture[str], name: str, damage):
    [path] = (tmp_path / "_build").glob(name)
    damage(path) if callable(damage) else put(path, damage)
    executions, said = opened(tmp_path, capsys)
    assert len(said) == 1 and "damaged" in said[0]
    assert not executions.is_current(NAME, KEY)
    # It is executed again, and then all is well.
    executions.forget(NAME)
    executions.keep(NAME, KEY, kept, COST)
    executions, said = opened(tmp_path, capsys)
    assert executions.is_current(NAME, KEY) and not said


def test_results_without_what_they_cost_count_as_absent(tmp_path: Path, kept, capsys):
    for cost in COST:
        executions, said = opened(tmp_path, capsys)
        assert executions.is_current(NAME, KEY) and not said
        executions.known[NAME].pop(cost)
        assert not executions.is_current(NAME, KEY)
        executions.forget(NAME)
        executions.keep(NAME, KEY, kept, COST)


def test_what_cannot_be_mended_is_said_in_a_line(book: Path, tmp_path: Path):
    root = tmp_path / "book"
    shutil.copytree(book, root, ignore=shutil.ignore_patterns("_build"))
    for spoil in (lambda path: path.write_text("a file"), lambda path: (path / "lock").mkdir(parents=True)):
        build_book.remove(root / "_build")
        spoil(root / "_build")
        status, output = build(root)
        assert status == 1 and "Traceback" not in output
        assert "make clean" in output


# ---- One build at a time


def test_the_lock_of_a_process_that_has_died_is_free(tmp_path: Path):
    path = tmp_path / "lock"
    hold = (
        "import sys, time; from one_at_a_time import *\n"
        "with one_at_a_time(Path(sys.argv[1]), 'job'): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, path], cwd=ROOT / "tools", stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SystemExit, match=rf"Another job is running \(process {holder.pid}, since .* try again\."):
            with one_at_a_time(path, "job"):
                pass
    finally:
        holder.kill()
        holder.communicate()
    with one_at_a_time(path, "job"):
        assert path.read_text().startswith(f"process {os.getpid()}, since ")


# ---- What `make` is told


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile and an environment that needs nothing installed; its path has a space."""
    if shutil.which("make") is None or os.name == "nt":
        pytest.skip("the Makefile is for systems with make and a POSIX shell")
    root = tmp_path / "a book"
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "python").symlink_to(sys.executable)
    shutil.copytree(ROOT / "tools", root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    (root / ".venv" / ".installed").touch()
    return root


def make(root: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        ["make", *arguments], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("python", ["/bin/true", "/bin/echo", "no/such/python", "tools", "python3 -E"])
def test_what_is_no_python_is_refused(checkout: Path, python: str):
    status, output = make(checkout, "lint", "VENV=new", f"PYTHON={python}")
    assert status != 0
    assert output.startswith(f"{python} is not a Python, is older than 3.11, or does not run.")
    assert len(output.splitlines()) == 2  # and make's own
    assert not (checkout / "new").exists()


def test_the_path_of_a_python_may_have_spaces(checkout: Path):
    python = checkout / "my python"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *--clear*) echo "asked: $*"; exit 1;; esac\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    assert "asked: -m venv --clear new\n" in make(checkout, "lint", "VENV=new", f"PYTHON={python}")[1]


@pytest.mark.parametrize(
    ("venv", "message"),
    [
        ("Makefile", "Makefile is there, and is not a virtual environment. Remove it, or name another"),
        ("tools", "tools is there, and is not a virtual environment. Remove it, or name another"),
        ("", 'VENV must be the name of a folder without spaces, not ""'),
        ("two words", 'VENV must be the name of a folder without spaces, not "two words"'),
    ],
)
def test_what_is_no_environment_is_refused_and_kept(checkout: Path, venv: str, message: str):
    before = sorted(checkout.rglob("*"))
    status, output = make(checkout, "lint", f"VENV={venv}", f"PYTHON={sys.executable}")
    assert status != 0 and message in output
    assert sorted(checkout.rglob("*")) == before


def test_a_lock_is_installed_by_hash(checkout: Path):
    (checkout / "requirements.lock").touch()
    for requirements, by_hash in (("requirements.lock", True), ("requirements.txt", False)):
        commands = make(checkout, "--dry-run", "lint", "VENV=new", f"REQUIREMENTS={requirements}")[1]
        assert f"--requirement {requirements}" in commands and ("--require-hashes" in commands) == by_hash


def test_serve_says_what_is_wrong_with_a_port(checkout: Path):
    assert "There is no built book yet: run make book first." in make(checkout, "serve")[1]
    (checkout / "_build" / "html").mkdir(parents=True)
    (checkout / "_build" / "html" / "index.html").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = str(taken.getsockname()[1])
        for port in ("-1", "0", "65536", "eight", "²", "80 80", "", used):
            status, output = make(checkout, "serve", f"PORT={port}")
            assert status != 0
            told = f"Port {used} cannot be used" if port == used else f"from 1 to 65535, not {port!r}."
            assert told in output and len(output.splitlines()) == 2, output


def test_serve_shows_the_book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "index.html").write_text("the book")

    def one_page(server: Server) -> None:
        with socket.create_connection(server.server_address) as reader:
            reader.sendall(b"GET / HTTP/1.0\r\n\r\n")
            server.handle_request()
            assert reader.makefile().read().endswith("the book")
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", one_page)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    serve(tmp_path, port)
    assert capsys.readouterr().out == f"http://127.0.0.1:{port}  (Ctrl-C ends it)\n"


# ---- What a chapter depends on


@pytest.fixture
def package(tmp_path: Path) -> Path:
    files = {
        "__init__.py": "from .optim import AdamW\n",
        "optim/__init__.py": "from .adamw import AdamW\n",
        "optim/adamw.py": "class AdamW: pass\n",
        "evidence.py": "def late():\n    from . import numbers\n",
        "numbers.py": "",
        "ledger.py": "FOLDER = 'ledger'\n",
        "scenarios/__init__.py": "from importlib import import_module\n"
        "STUDIES = {'a': 'adamw_book.scenarios.a', 'b': 'b'}\n"
        "def study(name):\n    return import_module(STUDIES[name], __name__)\n",
        "scenarios/a.py": "from ..evidence import late\n",
        "scenarios/b.py": "",
        "plug.py": "from importlib import import_module\ndef plug(name):\n    return import_module(name)\n",
    }
    for name, text in files.items():
        path = tmp_path / "adamw_book" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["numpy>=1"]\n')
    return tmp_path


BASE = {"adamw_book", "adamw_book.optim", "adamw_book.optim.adamw"}
A = {"adamw_book.scenarios", "adamw_book.scenarios.a", "adamw_book.evidence", "adamw_book.numbers"}
EVERYTHING = BASE | A | {f"adamw_book.{name}" for name in ("scenarios.b", "ledger", "plug")}


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import numpy", set()),
        ("import adamw_book", BASE),
        ("from adamw_book import AdamW", BASE),
        ("from adamw_book import evidence", BASE | {"adamw_book.evidence", "adamw_book.numbers"}),
        ("import adamw_book.ledger as records", BASE | {"adamw_book.ledger"}),
        # A chapter's own scenario does not drag in the others that the package could import by name …
        ("from adamw_book.scenarios import a", BASE | A),
        ("def later():\n    from adamw_book.scenarios.a import late", BASE | A),
        # … but the function that imports them does.
        ("from adamw_book.scenarios import study", BASE | A | {"adamw_book.scenarios.b"}),
        ("from importlib import import_module\nimport_module('adamw_book.numbers')", BASE | {"adamw_book.numbers"}),
        # What cannot be told counts as everything.
        ("from adamw_book.plug import plug", EVERYTHING),
        ("!python -m adamw_book evidence", EVERYTHING),
        ("%%script something else", set()),
        ("no Python at all", EVERYTHING),
    ],
)
def test_modules_that_a_chapter_reaches(package: Path, code: str, modules: set[str]):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    assert notebook_modules(notebook, Package(package)) == modules


def test_fingerprint_follows_code_modules_records_and_device(package: Path):
    path = package / "chapters" / "one.ipynb"
    (package / "ledger").mkdir()
    (package / "ledger" / "claim.json").write_text("1")

    def now(device: str = "cpu") -> str:
        return fingerprint(path, package, device)

    write_notebook(path, "One", "from adamw_book import ledger")
    first = now()
    assert now() == first
    assert now("a GPU") != first
    (package / "adamw_book" / "numbers.py").write_text("x = 1")  # not reached
    write_notebook(path, "Another title", "from adamw_book import ledger")
    assert now() == first
    (package / "ledger" / "claim.json").write_text("2")
    second = now()
    assert second != first
    (package / "adamw_book" / "optim" / "adamw.py").write_text("class AdamW: changed = True")
    third = now()
    assert third not in (first, second)
    (package / "adamw_book" / "table.csv").write_text("data")
    fourth = now()
    assert fourth != third
    (package / "adamw_book" / "scenarios" / "a.js").write_text("")  # beside modules that are not loaded
    assert now() == fourth
    (package / "adamw_book" / "optim" / "a.js").write_text("")
    fifth = now()
    assert fifth != fourth
    write_notebook(path, "Another title", "from adamw_book import ledger  # edited")
    assert now() != fifth

    write_notebook(path, "Records unread", "from adamw_book import evidence")
    unread = now()
    (package / "ledger" / "claim.json").write_text("3")
    assert now() == unread


# ---- Where the book came from


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("https://github.com/owner/name", "https://github.com/owner/name"),
        ("https://github.com/owner/name.git", "https://github.com/owner/name"),
        ("https://token@github.com/owner/na.me.git/", "https://github.com/owner/na.me"),
        ("git@github.com:owner/name.git", "https://github.com/owner/name"),
        ("ssh://git@github.com:22/owner/name", "https://github.com/owner/name"),
        ("https://gitlab.com/owner/name", ""),
        ("https://github.com.example.org/owner/name", ""),
        ("https://example.org/github.com/owner/name", ""),
        ("/srv/github.com/owner/name", ""),
        ("../name", ""),
        ("", ""),
    ],
)
def test_github_url(address: str, url: str):
    assert github_url(address) == url


def test_the_publisher_is_asked_before_the_clone(book: Path):
    nothing: dict[str, str] = {}
    assert repository(book, nothing) == ("", "main")
    actions = {"GITHUB_REPOSITORY": "o/n", "GITHUB_REF_TYPE": "branch", "GITHUB_EVENT_NAME": "push"}
    assert repository(book, actions | {"GITHUB_REF_NAME": "v2"}) == ("https://github.com/o/n", "v2")
    given = {"BOOK_REPOSITORY_URL": "https://github.com/a/b", "BOOK_REPOSITORY_BRANCH": "pages"}
    assert repository(book, actions | given) == ("https://github.com/a/b", "pages")
