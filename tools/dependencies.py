"""What a notebook's results depend on: its code, the modules of the package that it reaches, the records that it reads,
the versions that it runs on. `fingerprint` turns all of it into one text; while that stays, the results stay.

Imports are followed statically, through functions too. An import of a submodule loads its parent packages, and what
those import. A module that imports by name at run time (`import_module(...)`) counts every module that it names in a
string; if it names none, the whole package. Where in doubt, more counts rather than less: a chapter executed once too
often costs a minute, a stale result costs the reader's trust.
"""

from __future__ import annotations

import ast
import hashlib
import platform
import re
import tomllib
from collections.abc import Iterator
from functools import cached_property
from importlib import metadata
from pathlib import Path

import nbformat

# Folders of results that a chapter may read; they count where its code, or a module that it reaches, names the folder.
RESULTS = ("ledger", "benchmarks")


class Package:
    """The modules of the package `name` under `root`, and what they import."""

    def __init__(self, root: Path, name: str = "adamw_book") -> None:
        self.root, self.name = root, name
        self.paths: dict[str, Path] = {}
        for path in sorted((root / name).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            self.paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        self._trees: dict[str, ast.Module] = {}

    @cached_property
    def data_files(self) -> list[Path]:
        """Files of the package that are not modules."""
        files = (self.root / self.name).rglob("*")
        return sorted(p for p in files if p.is_file() and p.suffix != ".py" and "__pycache__" not in p.parts)

    def data_of(self, modules: set[str]) -> list[Path]:
        """The data files that a notebook depends on which loads ``modules``: those beside the modules of a sub-package
        where that is loaded, all others in any case."""
        folders = {path.parent: name for name, path in self.paths.items() if path.name == "__init__.py"}
        return [p for p in self.data_files if modules and folders.get(p.parent, self.name) in modules | {self.name}]

    def _tree(self, module: str) -> ast.Module:
        if module not in self._trees:
            self._trees[module] = ast.parse(self.paths[module].read_text(encoding="utf-8"))
        return self._trees[module]

    def _parents(self, module: str) -> Iterator[str]:
        while "." in module:
            module = module.rpartition(".")[0]
            yield module

    def _nearest(self, name: str) -> str | None:
        """The module that `name` is, or is an attribute of; None outside the package."""
        while name:
            if name in self.paths:
                return name
            name = name.rpartition(".")[0]
        return None

    def imported(self, tree: ast.AST, package: str = "") -> set[str]:
        """The modules that the import statements of `tree` name; relative ones are those of `package`."""
        names = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    above = package.split(".")[: len(package.split(".")) - node.level + 1]
                    base = ".".join([*above, base] if base else above)
                names += [f"{base}.{alias.name}" for alias in node.names]
        return {found for name in names if (found := self._nearest(name))}

    def named_in_strings(self, tree: ast.AST, package: str = "") -> set[str]:
        """The modules that `tree` can import at run time: those that its strings name, or else all of them; none if it
        never imports at run time."""
        calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
        names = {func.id if isinstance(func, ast.Name) else getattr(func, "attr", "") for func in calls}
        if not names & {"import_module", "__import__", "run_module"}:
            return set()
        texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        absolute = {text for text in texts if text in self.paths}
        relative = {name for text in texts if package and (name := f"{package}.{text.lstrip('.')}") in self.paths}
        return absolute | relative or set(self.paths)

    def closure(self, tree: ast.AST) -> set[str]:
        """The modules that are loaded, or may be, when the code `tree` runs."""
        named = self.imported(tree)
        # Outside the package a call of import_module is about it only if a string says so.
        at_run_time = self.named_in_strings(tree)
        named |= set() if at_run_time == set(self.paths) else at_run_time
        loaded: set[str] = set()
        followed: set[str] = set()  # modules named themselves, not loaded as the parent of one: their strings count
        todo = [(module, True) for module in named]
        while todo:
            module, by_name = todo.pop()
            if by_name and module not in followed:
                followed.add(module)
                todo += [(name, True) for name in self.named_in_strings(self._tree(module), self._package(module))]
            if module in loaded:
                continue
            loaded.add(module)
            todo += [(parent, False) for parent in self._parents(module)]
            todo += [(name, True) for name in self.imported(self._tree(module), self._package(module))]
        return loaded

    def _package(self, module: str) -> str:
        return module if self.paths[module].name == "__init__.py" else module.rpartition(".")[0]


def notebook_modules(notebook: nbformat.NotebookNode, package: Package) -> set[str]:
    """The modules of `package` that a notebook's code cells reach. A cell that Python's parser does not read, or a
    magic or shell line that names the package, counts as reaching all of it."""
    modules: set[str] = set()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        lines = cell.source.splitlines()
        magic = [line for line in lines if line.lstrip().startswith(("%", "!"))]
        if any(package.name in line for line in magic):
            return set(package.paths)
        try:
            tree = ast.parse("\n".join(line for line in lines if line not in magic))
        except SyntaxError:
            return set(package.paths)
        modules |= package.closure(tree)
    return modules


def versions(root: Path) -> list[str]:
    """Python's version and that of everything that the package and its extra `book` require, as installed."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [f"python {platform.python_version()}"]
    for requirement in project["dependencies"] + project.get("optional-dependencies", {}).get("book", []):
        name = re.match(r"[\w.-]+", requirement)[0]
        try:
            lines.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{name} missing")
    return lines


def fingerprint(path: Path, root: Path, device: str, package: Package | None = None) -> str:
    """A digest of all that the results of the notebook at `path` depend on, on this machine, on `device`."""
    package = package or Package(root)
    notebook = nbformat.read(path, as_version=4)
    modules = notebook_modules(notebook, package)
    files = [package.paths[name] for name in sorted(modules)] + package.data_of(modules)
    code = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    texts = [code, *(file.read_text(encoding="utf-8", errors="replace") for file in files)]
    for folder in RESULTS:
        if any(re.search(rf"\b{folder}\b", text) for text in texts):
            files += sorted(file for file in (root / folder).rglob("*") if file.is_file() and file.suffix != ".pyc")
    digest = hashlib.sha256("\n".join([code, device, *versions(root)]).encode())
    for file in files:
        digest.update(f"\0{file.relative_to(root).as_posix()}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
