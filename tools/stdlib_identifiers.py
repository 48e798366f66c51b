"""Write the corpus of chapters/generalization/sparse_gradients: which identifiers each function of ten standard-library
packages uses.

Run with the Python whose library is to be counted (the committed file is CPython 3.11.7's; distutils and lib2to3 have
left the library since):

    python3.11 tools/stdlib_identifiers.py

A line of the file is one function: package, module, and its distinct identifiers with their counts. No code is copied,
only counts of names and where they were found. The counted library is Copyright (c) 2001-2023 Python Software
Foundation and others, under the PSF License Agreement (https://docs.python.org/3.11/license.html).

What would give the answer away is left out: every identifier that holds the name of one of the packages or its short
form, tests (they name what they test), functions with fewer than five distinct identifiers, and functions whose
identifiers and counts repeat those of an earlier one, in whatever package. A nested function or class is part of the
function around it.
"""

import ast
import gzip
import platform
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGES = (
    "asyncio", "distutils", "email", "idlelib", "importlib", "lib2to3", "multiprocessing", "tkinter", "unittest", "xml",
)  # fmt: skip
GIVEAWAYS = (*PACKAGES, "distutil", "idle", "2to3", "tk")
TESTS = {"test", "tests", "idle_test"}
SMALLEST = 5  # distinct identifiers
TARGET = Path(__file__).resolve().parents[1] / "adamw_book" / "data_files" / "stdlib_identifiers.tsv.gz"


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The outermost functions and methods below a node, in the order of the file."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        else:
            yield from functions(node)


def identifiers(function: ast.AST) -> Counter[str]:
    """How often each identifier occurs: names, attributes, arguments, keywords, and what is defined; no giveaways."""
    found: Counter[str] = Counter()
    for node in ast.walk(function):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] += 1
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                found[name] += 1
            case ast.keyword(arg=str(name)):
                found[name] += 1
    return Counter({name: n for name, n in found.items() if not any(word in name.lower() for word in GIVEAWAYS)})


def corpus(library: Path) -> Iterator[tuple[str, str, Counter[str]]]:
    """(package, module, identifiers) of each function, without repetitions."""
    seen = set()
    for package in PACKAGES:
        if not (library / package).is_dir():
            raise SystemExit(f"{package} is not in {library}: run this with Python 3.11, the last that has them all")
        for path in sorted((library / package).rglob("*.py")):
            if TESTS & set(path.relative_to(library).parts):
                continue
            for function in functions(ast.parse(path.read_bytes())):
                found = identifiers(function)
                key = tuple(sorted(found.items()))
                if len(found) >= SMALLEST and key not in seen:
                    seen.add(key)
                    yield package, path.relative_to(library / package).with_suffix("").as_posix(), found


def line(package: str, module: str, found: Counter[str]) -> str:
    names = " ".join(name if n == 1 else f"{name}:{n}" for name, n in sorted(found.items()))
    return f"{package}\t{module}\t{names}\n"


if __name__ == "__main__":
    rows = [line(*row) for row in corpus(Path(sysconfig.get_path("stdlib")))]
    head = (
        f"# Identifier counts of functions in the standard library of {platform.python_implementation()} "
        f"{platform.python_version()}, Copyright (c) 2001-2023 Python Software Foundation, PSF License Agreement. "
        "package, module, identifiers (name:count where not 1), separated by tabs. "
        "Made by tools/stdlib_identifiers.py.\n"
    )
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_bytes(gzip.compress("".join([head, *rows]).encode(), 9, mtime=0))
    print(f"{TARGET.name}: {len(rows)} functions, {TARGET.stat().st_size / 1024:.0f} KiB")
