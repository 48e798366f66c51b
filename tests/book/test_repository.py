"""What is committed: notebooks without results, no traces of a machine, a table of contents that holds."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from contents import pages, source
from lock import lock

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "chapters").rglob("*.ipynb"))
NOTEBOOKS = [path for path in NOTEBOOKS if ".ipynb_checkpoints" not in path.parts]


def tracked() -> list[Path]:
    """The files under version control, or all but what builds leave behind where there is no git."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
        names = [name for name in done.stdout.split("\0") if name] if done.returncode == 0 else []
    except OSError:
        names = []
    left_behind = {".git", "_build", ".venv", "__pycache__", ".ruff_cache", ".pytest_cache"}
    found = [ROOT / name for name in names] or ROOT.rglob("*")
    return [p for p in found if p.is_file() and not (left_behind | {"adamw_book.egg-info"}) & set(p.parts)]


def texts() -> list[tuple[str, str]]:
    """(name, text) of the tracked files that are text."""
    found = []
    for path in tracked():
        try:
            found.append((path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def code_cells(path: Path) -> list[dict]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells if cell["cell_type"] == "code"]


each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(ROOT).as_posix())


@each_notebook
def test_notebook_is_committed_without_results(path: Path):
    assert [cell["source"] for cell in code_cells(path) if cell["outputs"] or cell["execution_count"]] == []


@each_notebook
def test_notebook_is_written_for_any_python3(path: Path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert "widgets" not in notebook["metadata"]


def draws(code: str) -> bool:
    """Whether a cell's code makes a picture: a call of a function of `plots`, of pyplot, or of `.subplots`."""
    quiet = {"style", "rc_context", "close"}
    tree = ast.parse("\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!"))))
    calls = [
        node.func for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    return any(
        call.attr not in quiet
        and (isinstance(call.value, ast.Name) and call.value.id in ("plots", "plt") or call.attr == "subplots")
        for call in calls
    )


@each_notebook
def test_pictures_say_what_they_show(path: Path):
    silent = []
    for cell in code_cells(path):
        image = cell["metadata"].get("mystnb", {}).get("image", {})
        hidden = "remove-output" in cell["metadata"].get("tags", [])
        if (draws(cell["source"]) and not hidden or image) and len(image.get("alt", "").split()) < 5:
            silent.append(cell["source"])
    assert not silent, "cells that draw need metadata {'mystnb': {'image': {'alt': a sentence}}}"


def test_every_page_of_the_contents_exists_and_every_chapter_is_in_them():
    listed = pages(ROOT)
    assert [page for page in listed if source(ROOT, page) is None] == []
    assert len(set(listed)) == len(listed)
    written = {path.relative_to(ROOT).with_suffix("").as_posix() for path in NOTEBOOKS}
    assert written - set(listed) == set()


def test_old_addresses_lead_to_pages_and_are_none():
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    moved, listed = config["sphinx"]["config"]["moved_pages"], set(pages(ROOT))
    assert moved["chapters/foundations/triton_kernel"] == "chapters/engineering/triton_kernel"
    assert set(moved.values()) <= listed and not moved.keys() & listed


def test_every_extension_of_the_build_is_asked_for():
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    own = {path.stem for path in (ROOT / "_ext").glob("*.py") if "\ndef setup(app)" in path.read_text("utf-8")}
    assert own == set(config["sphinx"]["local_extensions"])


def test_labels_are_the_only_ones_of_their_name():
    found = [label for path in NOTEBOOKS for label in re.findall(r":label: *([\w-]+)", path.read_text("utf-8"))]
    assert found and sorted({label for label in found if found.count(label) > 1}) == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_of_the_texts_at_the_root_lead_to_files(name: str):
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_what_the_guide_for_contributors_names_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+(?: [a-z-]+)*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    asked = set(re.findall(r"(?:`|&& |=pictures |^)make ([a-z-]+)", text, re.MULTILINE))
    assert asked and asked <= {name for line in targets for name in line.split()}
    modules = [path for path in tracked() if path.suffix == ".py"]
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    assert named and [n for n in named if not any(m.as_posix().endswith(f"/{n}") for m in modules)] == []
    assert "CONTRIBUTING.md" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_licence_of_the_text_excepts_what_others_wrote():
    text = (ROOT / "LICENSE-TEXT").read_text(encoding="utf-8")
    assert "MathJax (Apache License 2.0)" in text and "SIL Open\nFont License 1.1" in text
    assert (ROOT / re.search(r"\S+/README.txt", text)[0]).is_file()


# ---- What the published book is built with


def pins(name: str) -> dict[str, str]:
    """package → version, of a file of requirements with `==`, where their markers hold for Linux on x86-64."""
    found = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([\w.-]+)==([\w.]+)", line):
            found[match[1].lower()] = match[2]
    return found


@pytest.mark.parametrize(
    ("asked", "locked"), [("requirements.txt", "requirements.lock"), (".github/audit.txt", ".github/audit.lock")]
)
def test_the_lock_holds_what_is_asked_for_each_wheel_by_its_hash(asked: str, locked: str):
    assert pins(asked).items() <= pins(locked).items(), "run `make lock`"
    head, *lines = (ROOT / locked).read_text(encoding="utf-8").splitlines()
    assert head.startswith(f"# From {asked}, ") and len(lines) == 2 * len(pins(locked)) > 0
    for package, digest in zip(lines[::2], lines[1::2], strict=True):
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+ \\", package)  # no address, no local version
        assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", digest)


def report(**changed) -> dict:
    wheel = {"url": "https://files.example.org/A_b-1.0-py3-none-any.whl", "archive_info": {"hashes": {"sha256": "c0"}}}
    return {"install": [{"metadata": {"name": "A_b", "version": "1.0"} | changed.pop("metadata", {})}
                        | {"download_info": wheel | changed}]}  # fmt: skip


def test_lock_takes_nothing_but_wheels_of_the_index():
    assert lock(report()) == "a-b==1.0 \\\n    --hash=sha256:c0\n"
    folder = {"url": "file:///somewhere/A_b", "dir_info": {}}
    for other in (
        {"url": "https://files.example.org/A_b-1.0.tar.gz"},
        {"archive_info": {}},
        {"metadata": {"version": "1.0+cpu"}},
        folder | {"archive_info": {}},
    ):
        with pytest.raises(ValueError, match=r"A_b 1\.0\S* is no wheel from the package index, but \w+://"):
            lock(report(**other))


def workflow() -> dict:
    return yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8"))


def test_actions_stand_by_their_commit():
    for path in (ROOT / ".github" / "workflows").iterdir():
        used = re.findall(r"uses: *(.+)", path.read_text(encoding="utf-8"))
        assert used and [one for one in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", one)] == []


def test_the_book_is_published_as_locked_and_audited():
    jobs = workflow()["jobs"]
    assert set(jobs["publish"]["needs"]) == {"audit", "build"}
    [build] = [step for step in jobs["build"]["steps"] if step.get("run") == "bash .ci/run"]
    assert build["env"]["REQUIREMENTS"] == "requirements.lock"
    # The audit fails for what it cannot look up, and nothing makes a failure pass.
    assert "--strict" in jobs["audit"]["env"]["AUDIT"]
    commands = [step["run"] for step in jobs["audit"]["steps"] if "run" in step]
    assert commands[-1] == "$AUDIT --require-hashes --requirement requirements.lock --requirement .github/audit.lock"
    assert not any("continue-on-error" in step for job in jobs.values() for step in [job, *job["steps"]])


# ---- What differs from one machine to the next


# Folders that differ from one machine to the next.
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:home|Users|root|work|mnt|tmp|var/folders)/[\w.-]+[/\w.-]*")
INDEX_ADDRESSES = re.compile(r"(?:index-url|find-links)[ =]+\S+|https?://[^\s'\"]*/simple\b")
PUBLIC_INDEXES = ("https://pypi.org/", "https://download.pytorch.org/")


def test_no_path_of_a_machine_is_in_the_files():
    assert [(name, found) for name, text in texts() for found in MACHINE_PATHS.findall(text)] == []


def test_only_public_package_indexes_are_named():
    here = Path(__file__).name
    named = [(n, found) for n, text in texts() if not n.endswith(here) for found in INDEX_ADDRESSES.findall(text)]
    assert [(name, found) for name, found in named if not any(index in found for index in PUBLIC_INDEXES)] == []


# ---- The first code cell: `import adamw_book` works in a clone without installation (elsewhere: test_plain_edition.py)


def setup_cell() -> str:
    return code_cells(ROOT / "chapters" / "preface.ipynb")[0]["source"]


@each_notebook
def test_the_first_code_cell_is_the_same_in_every_notebook(path: Path):
    first = code_cells(path)[0]
    assert first["source"] == setup_cell() and first["metadata"]["tags"] == ["remove-cell"]


@pytest.mark.parametrize("folder", ["clone/chapters", "clone/chapters/part"])
def test_a_clone_is_found_without_installation(tmp_path: Path, folder: str):
    (tmp_path / "clone" / "adamw_book").mkdir(parents=True)
    (tmp_path / "clone" / "adamw_book" / "__init__.py").write_text("HERE = 'in the clone'\n")
    (tmp_path / folder).mkdir(parents=True)
    done = subprocess.run(
        # -S and -I: neither site-packages nor the folder of this test run
        [sys.executable, "-I", "-S", "-c", setup_cell() + "\nimport adamw_book\nprint(adamw_book.HERE)"],
        cwd=tmp_path / folder,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "in the clone\n", done.stderr
