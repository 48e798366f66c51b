"""The plain edition: nothing of MyST is left, what is hidden in the book is folded, and each notebook runs alone."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from contents import numbered, pages, source
from launch_buttons import PLAIN_BRANCH, PLAIN_FOLDER

nbformat = pytest.importorskip("nbformat", reason="the book's tools are not installed: pip install -r requirements.txt")
pytest.importorskip("pybtex", reason="the book's tools are not installed: pip install -r requirements.txt")
from exercises import exercises  # noqa: E402
from plain_edition import Origin, plain, setup_code, write_plain  # noqa: E402
from plain_markdown import Book, Translator, raw_constructs  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = [page for page in pages(ROOT) if source(ROOT, page).suffix == ".ipynb"]
SITE = "https://someone.github.io/book"
ORIGIN = Origin("https://github.com/someone/book", "main", "0123456789" * 4, SITE)
each_chapter = pytest.mark.parametrize("page", CHAPTERS)


@pytest.fixture(scope="module")
def book() -> Book:
    return Book(ROOT)


@pytest.fixture(scope="module")
def edition(book: Book) -> dict:
    return {page: plain(page, book, ORIGIN) for page in CHAPTERS}


def sources(page: str) -> list:
    return nbformat.read(ROOT / f"{page}.ipynb", as_version=4).cells


def markdown(notebook) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


# ---- What a reader sees


def test_raw_constructs_are_found():
    text = "(sec-x)=\n## X\n$$ a $$ (eq-a)\n{ref}`x <sec-x>`, {{eq}}`eq-a`, {cite:p}`a,b`\n```{note}\n:class: x\n```"
    assert raw_constructs(text) == [
        "(sec-x)=", "$$ (eq-a)", "{ref}`", "{eq}}`", "{cite:p}`", "```{", ":class:",
    ]  # fmt: skip
    assert raw_constructs("## X\n$$ a \\tag{1} $$\n```python\nf'{x}'\n```\n{x}: `y`, [a](#b)\n<details>") == []
    assert sum(len(raw_constructs(cell.source)) for page in CHAPTERS for cell in sources(page)) > 200


@each_chapter
def test_no_raw_construct_is_left(edition, page: str):
    assert [found for cell in edition[page].cells for found in raw_constructs(cell.source)] == []


@each_chapter
def test_all_code_is_there_once_and_is_python(edition, page: str):
    plain_code = [cell.source for cell in edition[page].cells if cell.cell_type == "code"]
    for code in plain_code:
        ast.parse(code)
    text = "\n".join([*plain_code, markdown(edition[page])])
    for cell in sources(page)[2:]:
        if cell.cell_type == "code" and not raw_constructs(cell.source) and '"../{' not in cell.source:
            assert text.count(cell.source) == 1, cell.source


@each_chapter
def test_what_the_book_hides_is_folded_under_a_title(edition, page: str):
    hidden = {c.id for c in sources(page) if {"remove-input", "hide-input"} & set(c.metadata.get("tags", []))}
    found = [c for c in edition[page].cells if c.id in hidden]
    assert found
    for cell in found:
        assert cell.metadata["cellView"] == "form" and cell.metadata["jupyter"]["source_hidden"]
        assert re.match(r'# @title \S.{1,100} \{ display-mode: "form" \}\n', cell.source)


@each_chapter
def test_solutions_are_folded(edition, page: str):
    written = sum(cell.source.count("{solution-start}") for cell in sources(page))
    folded = [cell for cell in edition[page].cells if cell.source.startswith("<details>\n<summary>Solution</summary>")]
    assert len(folded) == written and all(cell.source.endswith("</details>") for cell in folded)
    inside = False
    for cell in sources(page):  # no code of a solution runs by itself
        starts = cell.source.count("{solution-start}") - cell.source.count("{solution-end}")
        if cell.cell_type == "markdown":
            inside = inside if starts == 0 else starts > 0
        elif inside:
            assert cell.id not in {plain.id for plain in edition[page].cells}


@each_chapter
def test_exercises_are_headings_over_an_open_cell_to_fill_in(edition, book: Book, page: str):
    """Folded on the page; a notebook is there to be filled in."""
    asked = exercises(nbformat.read(ROOT / f"{page}.ipynb", as_version=4))
    assert bool(asked) == (page in numbered(ROOT))
    cells = edition[page].cells
    assert markdown(edition[page]).count("\n### Exercise ") == len(asked)
    for one in asked:
        [at] = [i for i, cell in enumerate(cells) if cell.id == one.stub.id]
        heading = f'id="{one.label}"></a>\n\n### {book.places[one.label].text} ({one.title})\n\n'
        assert heading in cells[at - 1].source
        assert cells[at].source == one.stub.source and "cellView" not in cells[at].metadata and not cells[at].outputs


@each_chapter
def test_links_within_a_notebook_have_a_target(edition, page: str):
    text = markdown(edition[page])
    targets = re.findall(r'<a name="([\w-]+)" id="\1"></a>', text)
    assert len(set(targets)) == len(targets)
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= set(targets)


@each_chapter
def test_links_to_the_book_lead_to_its_pages(edition, page: str):
    links = set(re.findall(rf"{SITE}/([\w/]+)\.html", "".join(cell.source for cell in edition[page].cells)))
    assert page in links and links <= set(pages(ROOT))
    prose = re.sub(r"```.*?```", "", markdown(edition[page]), flags=re.DOTALL)
    assert not re.findall(r"\]\((?!https?://|#)[^)]*\)", prose)


@each_chapter
def test_papers_are_cited_by_name_and_listed(edition, book: Book, page: str):
    written = "\n".join(cell.source for cell in sources(page))
    named = re.findall(r"\{cite:[pt]\}+`([\w,]+)`", written)
    keys = {key for keys in named for key in keys.split(",")}
    text = markdown(edition[page])
    assert set(re.findall(r'name="ref-(\w+)"', text)) == keys
    shown = "\n".join(cell.source for cell in edition[page].cells)
    for key in keys:
        assert book.authors(key) in shown


def test_a_link_that_the_site_has_no_address_for_is_left_as_words(book: Book):
    made = plain("chapters/preface", book, Origin())
    assert "memorising wrong labels" in markdown(made) and ".html" not in markdown(made)
    assert raw_constructs(markdown(made)) == []


def test_roles_become_words_and_links(book: Book):
    first, other = "chapters/foundations/decoupled_weight_decay", "chapters/generalization/overfitting"
    here, there = Translator(book, first, SITE), Translator(book, other, SITE)
    number = book.places["eq-noise"].text
    assert here.markdown("Eq. {eq}`eq-noise`") == f"Eq. [({number})](#eq-noise)"
    assert there.markdown("Eq. {eq}`eq-noise`") == f"Eq. [({number})]({SITE}/{first}.html#equation-eq-noise)"
    assert there.markdown("{ref}`the box <sec-box>`") == f"[the box]({SITE}/{first}.html#sec-box)"
    assert here.code("f'{{eq}}`eq-noise`'") == f"f'({number})'"  # an output cannot link into the notebook
    assert here.markdown("$$\na\n$$ (eq-noise)").endswith(f"$$\na \\tag{{{number}}}\n$$")
    assert there.markdown("{cite:p}`loshchilov2019decoupled`") == (
        "[[Loshchilov and Hutter, 2019](#ref-loshchilov2019decoupled)]"
    )
    assert there.code("'{cite:t}`mosbach2021on`'") == "'Mosbach *et al.* [2021]'"
    assert there.markdown("{term}`decay`, {index}`noise <single: floor>`") == "decay, noise"
    assert there.code("f'`{this}` or `{that}`'") == "f'`{this}` or `{that}`'"
    assert there.cited == {"loshchilov2019decoupled", "mosbach2021on"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{abbr}`SGD`", r"chapters/preface: the plain edition .* knows no role \{abbr\}"),
        ("```{video} x.mp4\n```", r"knows no directive \{video\}"),
        ("{ref}`sec-nowhere`", "names a label that no page has: 'sec-nowhere'"),
        ("{cite:p}`nobody1900`", "not in the bibliography: 'nobody1900'"),
        ("```{note}\nwithout an end", "'```{note}' has no end"),
    ],
)
def test_what_the_plain_edition_does_not_know_is_named(book: Book, text: str, message: str):
    with pytest.raises(ValueError, match=message):
        Translator(book, "chapters/preface", SITE).blocks(text, print, print)


def test_results_stand_in_it_and_lead_to_the_pages(book: Book):
    sentence = "Eq. {eq}`eq-noise`, [a chapter](../part/one.ipynb)"
    folded = ":::{dropdown} More\n* one\n:::"
    table = '<a href="../part/one.html">a chapter</a>'
    script = "<script>`${pair.map((two) => {two}`x`)}`</script>"

    def executed(notebook):
        *_, last = (cell for cell in notebook.cells if "remove-input" in cell.metadata.get("tags", []))
        data = {"text/markdown": f"{sentence}\n\n{folded}", "text/html": table + script, "text/plain": "…"}
        last.outputs = [nbformat.v4.new_output("execute_result", data, execution_count=3, metadata={"a": 1})]
        return notebook

    made = plain("chapters/practice/ledger", book, ORIGIN, executed)
    [found] = [output for cell in made.cells if cell.cell_type == "code" for output in cell.outputs]
    assert found["data"]["text/html"] == f'<a href="{SITE}/chapters/part/one.html">a chapter</a>{script}'
    number = book.places["eq-noise"].text
    page = book.places["eq-noise"].page
    assert found["data"]["text/markdown"] == (
        f"Eq. [({number})]({SITE}/{page}.html#equation-eq-noise), [a chapter]({SITE}/chapters/part/one.html)"
        "\n\n<details>\n<summary>More</summary>\n\n* one\n\n</details>"
    )
    assert not found["metadata"] and found["execution_count"] is None


def test_a_fold_that_a_cell_writes_is_one_when_the_cell_is_run_again(book: Book):
    code = (
        """lines = ["before", "", f":::{{dropdown}} All {n}", "* one", ":::"]\nother = [":::{dropdown} Two", ":::"]"""
    )
    made = Translator(book, "chapters/preface", SITE).code(code)
    exec(made, found := {"n": 2})
    assert "\n".join(found["lines"]) == ("before\n\n<details>\n<summary>All 2</summary>\n\n* one\n\n</details>")
    assert found["other"][0] == "<details>\n<summary>Two</summary>\n" and raw_constructs(made) == []
    assert raw_constructs(code) == ['":::{', '":::', '":::{', '":::']


def test_the_edition_is_written_anew(tmp_path: Path):
    folder = tmp_path / "notebooks"
    (folder / "chapters").mkdir(parents=True)
    (folder / "chapters" / "gone.ipynb").touch()
    write_plain(ROOT, folder, ORIGIN)
    written = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.ipynb")}
    assert written == set(CHAPTERS)
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert all(f"({page}.ipynb)" in readme for page in CHAPTERS)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_plain(ROOT, folder, ORIGIN)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- A notebook alone: its first cell fetches what it was made with


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A Reader", "-c", "user.email=reader@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def remote(tmp_path: Path) -> tuple[Path, Origin]:
    """A bare repository that stands in for the book's: `made` on a branch of its own, one commit later on `main`."""
    work, bare = tmp_path / "work", tmp_path / "book.git"
    (work / "adamw_book").mkdir(parents=True)
    git(work, "init", "--quiet", "--initial-branch=main")
    for branch, version in (("main", "first"), ("wip/second", "made"), ("wip/second", "later"), ("main", "newest")):
        git(work, "checkout", "--quiet", *(("-B",) if version in ("first", "made") else ()), branch)
        (work / "adamw_book" / "__init__.py").write_text(f"VERSION = {version!r}\n")
        git(work, "add", ".")
        git(work, "commit", "--quiet", "--message", version)
    commit = git(work, "rev-parse", "wip/second~1")
    git(tmp_path, "clone", "--quiet", "--bare", str(work), str(bare))
    return bare, Origin(bare.as_uri(), "wip/second", commit)


def run_setup(folder: Path, origin: Origin) -> subprocess.CompletedProcess:
    """Runs the set-up cell in `folder`, with a Python that has nothing installed, and prints what it finds."""
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        # -S and -I: neither site-packages nor the folder of this test run
        [sys.executable, "-I", "-S", "-c", setup_code(origin) + "\nimport adamw_book\nprint(adamw_book.VERSION)"],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"LC_ALL": "C"},
        capture_output=True,
        text=True,
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_set_up_names_the_repository_the_branch_and_the_commit():
    code = setup_code(ORIGIN)
    assert f'REPOSITORY, BRANCH, COMMIT = "https://github.com/someone/book", "main", "{ORIGIN.commit}"\n' in code
    assert len(code.splitlines()) < 45


def test_a_notebook_alone_gets_the_commit_that_it_was_made_from(remote, tmp_path: Path):
    _, origin = remote
    for _ in range(2):  # the second time finds what the first has fetched
        done = run_setup(tmp_path / "content", origin)
        assert done.stdout == "made\n", done.stderr
    assert names(tmp_path / "content") == [f"adamw-book-{origin.commit[:10]}"]


def test_without_network_a_second_run_works(remote, tmp_path: Path):
    bare, origin = remote
    assert run_setup(tmp_path / "content", origin).stdout == "made\n"
    bare.rename(tmp_path / "gone.git")
    assert run_setup(tmp_path / "content", origin).stdout == "made\n"


def test_a_deleted_branch_does_not_matter(remote, tmp_path: Path):
    bare, origin = remote
    git(bare, "branch", "-D", "wip/second")
    assert run_setup(tmp_path / "content", origin).stdout == "made\n"


def test_where_the_commit_is_gone_the_branch_is_taken_and_then_the_default_one(remote, tmp_path: Path):
    bare, origin = remote
    gone = Origin(origin.repository, origin.branch, "f" * 40)
    done = run_setup(tmp_path / "one", gone)
    assert done.stdout.splitlines()[1] == "later"
    assert "no longer has what this notebook was made from: fetched is branch wip/second" in done.stdout
    git(bare, "branch", "-D", "wip/second")
    done = run_setup(tmp_path / "two", gone)
    assert "fetched is its default branch" in done.stdout and done.stdout.endswith("newest\n")


def test_a_repository_that_cannot_be_fetched_is_named_and_nothing_is_left(remote, tmp_path: Path):
    bare, origin = remote
    bare.rename(tmp_path / "gone.git")
    done = run_setup(tmp_path / "content", origin)
    assert f"RuntimeError: {origin.repository} cannot be fetched" in done.stderr
    assert "does not appear to be a git repository" in done.stderr  # git's own words
    assert names(tmp_path / "content") == []
    (tmp_path / "gone.git").rename(bare)
    assert run_setup(tmp_path / "content", origin).stdout == "made\n"


def test_a_used_folder_is_no_obstacle(remote, tmp_path: Path):
    _, origin = remote
    folder = tmp_path / "content"
    (folder / "adamw-book-0000000000" / "adamw_book").mkdir(parents=True)  # of another commit
    half = folder / f"adamw-book-{origin.commit[:10]}.part" / "adamw_book"  # of an interrupted run
    half.mkdir(parents=True)
    (half / "__init__.py").write_text("VERSION = 'half'\n")
    (folder / "notes.txt").touch()
    assert run_setup(folder, origin).stdout == "made\n"
    assert names(folder) == ["adamw-book-0000000000", f"adamw-book-{origin.commit[:10]}", "notes.txt"]


def test_a_folder_of_that_name_with_something_else_is_left_alone(remote, tmp_path: Path):
    _, origin = remote
    own = tmp_path / "content" / f"adamw-book-{origin.commit[:10]}"
    own.mkdir(parents=True)
    (own / "mine.txt").touch()
    done = run_setup(tmp_path / "content", origin)
    assert f"FileExistsError: {own} holds no adamw_book: rename or remove that folder" in done.stderr
    assert names(own) == ["mine.txt"]


def test_in_a_clone_nothing_is_fetched(remote, tmp_path: Path):
    bare, origin = remote
    git(tmp_path, "clone", "--quiet", str(bare), "clone")
    (tmp_path / "clone" / "chapters").mkdir()
    assert run_setup(tmp_path / "clone" / "chapters", Origin()).stdout == "newest\n"
    assert names(tmp_path / "clone" / "chapters") == []


def test_a_notebook_from_nowhere_says_what_to_type(tmp_path: Path):
    done = run_setup(tmp_path / "content", Origin())
    assert "ModuleNotFoundError: adamw_book is not installed" in done.stderr
    assert "Set REPOSITORY above" in done.stderr and names(tmp_path / "content") == []


# ---- Published on a branch of its own


def publishing() -> dict:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8"))
    return workflow["jobs"]["notebooks"]


def test_only_a_push_that_was_audited_and_tested_is_published_and_only_that_job_may_write():
    job = publishing()
    assert job["if"] == "github.event_name == 'push'" and set(job["needs"]) == {"audit", "build"}
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8"))
    may = {name: own.get("permissions", workflow["permissions"]) for name, own in workflow["jobs"].items()}
    assert [name for name, own in may.items() if own.get("contents") == "write"] == ["notebooks"]


def test_the_workflow_pushes_the_notebooks_and_nothing_else(remote, tmp_path: Path):
    bare, _ = remote
    html = tmp_path / "html"
    write_plain(ROOT, html / PLAIN_FOLDER, ORIGIN)
    (html / "index.html").touch()
    (html / "chapters").mkdir()
    (html / "chapters" / "preface.html").touch()
    artifact = tmp_path / "artifact.tar"
    subprocess.run(["tar", "-c", "-f", str(artifact), "-C", str(html), "."], check=True)
    *_, step = publishing()["steps"]
    environment = os.environ | {"ARTIFACT": str(artifact), "GITHUB_SHA": "c" * 40}
    for run in ("first", "second"):  # the branch is not there, and is there
        clone = tmp_path / run
        git(tmp_path, "clone", "--quiet", "--depth=1", bare.as_uri(), run)
        subprocess.run(["bash", "-eo", "pipefail", "-c", step["run"]], cwd=clone, env=environment, check=True)
        published = set(git(bare, "ls-tree", "-r", "--name-only", PLAIN_BRANCH).split("\n"))
        assert published == {"README.md", *(f"{page}.ipynb" for page in CHAPTERS)}
        assert git(bare, "rev-list", "--count", PLAIN_BRANCH) == "1"
    assert git(bare, "show", "main:adamw_book/__init__.py") == "VERSION = 'newest'"
