"""What `pip install` brings: the files of the wheel and the source distribution, what they ask for, the command."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import torch

from adamw_book.command_line import main

ROOT = Path(__file__).resolve().parents[2]
DATA = {"mnist_8x8.tsv.gz", "stdlib_identifiers.tsv.gz", "stdlib_text.LICENSE.txt", "stdlib_text.json.gz"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source distribution, as setuptools makes them from a copy without a network."""
    if int(metadata.version("setuptools").split(".")[0]) < 77:
        pytest.skip("setuptools is older than pyproject.toml asks for")
    root = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root / name)
    for name in ("adamw_book", "tests", "tools"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
    done = subprocess.run([sys.executable, "-c", build], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [wheel], [source] = (root / "dist").glob("*.whl"), (root / "dist").glob("*.tar.gz")
    return wheel, source


def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = set(wheel.namelist())
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "adamw_book").rglob("*.py")}
    assert {p.name for p in (ROOT / "adamw_book" / "data_files").iterdir() if p.suffix != ".py"} - {
        "__pycache__"
    } == DATA
    installed = {name for name in names if ".dist-info/" not in name}
    moved = {p.relative_to(ROOT).as_posix() for p in (ROOT / "adamw_book").rglob("*") if p.suffix in (".js", ".css")}
    assert installed == modules | moved | {f"adamw_book/data_files/{name}" for name in DATA}
    licences = {name.partition("/licenses/")[2] for name in names if "/licenses/" in name}
    assert licences == {"LICENSE", "adamw_book/data_files/stdlib_text.LICENSE.txt"}


def test_the_source_distribution_holds_what_the_wheel_is_made_of(built):
    with zipfile.ZipFile(built[0]) as wheel, tarfile.open(built[1]) as source:
        made = {name for name in wheel.namelist() if ".dist-info/" not in name}
        names = {name.partition("/")[2] for name in source.getnames()}
    assert made | {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert not [name for name in names if name.startswith(("tests", "tools", "chapters"))]


def test_without_extras_it_asks_for_torch_numpy_pandas_and_triton_alone(built):
    with zipfile.ZipFile(built[0]) as wheel:
        [text] = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/METADATA")]
        [commands] = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/entry_points.txt")]
    asked = re.findall(r"^Requires-Dist: ([\w-]+)(.*)$", text, re.MULTILINE)
    assert {name for name, rest in asked if "extra ==" not in rest} == {"torch", "numpy", "pandas", "triton"}
    assert ("triton", True) in [(name, "platform_system" in rest) for name, rest in asked]
    assert "adamw-book = adamw_book.command_line:main" in commands
    assert "## Diagnose your own run" in text  # the page of the package is the README


def test_it_runs_from_the_wheel_itself(built):
    """A wheel is a zip file that python can import from: nothing of the clone is at hand."""
    run = """if True:
        import sys
        sys.path.insert(0, wheel := sys.argv.pop(1))
        from adamw_book import command_line
        assert command_line.__file__.startswith(wheel)
        sys.exit(command_line.main())"""
    words = "audit --lr 2e-5 --weight-decay 0.01 --steps 1500 --schedule linear".split()
    done = subprocess.run(
        [sys.executable, "-P", "-c", run, str(built[0]), *words],
        cwd=built[0].parent,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "warning: The run is too short for this decay" in done.stdout, done.stderr


# ---- What the README says of it

[SECTION] = re.findall(r"^## Diagnose your own run\n(.*?)^## ", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
COMMANDS = re.findall(r"^adamw-book (.*?)(?: +# .*)?$", SECTION, re.MULTILINE)


def test_the_readme_has_three_commands():
    assert [command.partition(" ")[0] for command in COMMANDS] == ["audit", "audit", "conformance"]


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("audit")])
def test_the_audits_of_the_readme_run_on_a_terminal(command: str, capsys: pytest.CaptureFixture[str]):
    status = main(shlex.split(command))
    said = capsys.readouterr()
    assert status in (0, 1) and ("remaining" if "--json" in command else "left of the initial weights") in said.out
    assert not said.err


def test_the_python_of_the_readme_runs():
    plt = pytest.importorskip("matplotlib.pyplot")
    [code] = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10_000)

    def train() -> None:
        for _ in range(20):
            optimizer.zero_grad()
            model(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()

    scope = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "train": train}
    exec(code, scope)
    assert scope["recorder"].table()["step"].unique().tolist() == [0, 10]
    plt.close("all")
