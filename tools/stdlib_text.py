"""Write the corpus of chapters/frontier/language_model: source text of modules of Python's standard library.

Run with the Python whose library is to be copied (the committed file is CPython 3.11.7's):

    python3.11 tools/stdlib_text.py

The file is JSON: where the text is from, under which licence, and {module's path: its text}, unchanged. Only ASCII
files between 2 and 60 kB are taken, no tests, and none that speaks of a copyright or a licence: these may have one of
their own, the others fall under the PSF License Agreement alone, whose text is written beside the corpus. Of those that
are left the first are taken, in the order of the SHA-256 of their paths, until there are 1.5 million characters.
"""

import gzip
import hashlib
import json
import platform
import re
import sysconfig
from pathlib import Path

LEFT_OUT = {"test", "tests", "idle_test", "idlelib", "lib2to3", "encodings", "pydoc_data", "site-packages"}
SMALLEST, LARGEST, TOTAL = 2_000, 60_000, 1_500_000  # bytes of a file, and of all
FOLDER = Path(__file__).resolve().parents[1] / "adamw_book" / "data_files"
TARGET, LICENCE = FOLDER / "stdlib_text.json.gz", FOLDER / "stdlib_text.LICENSE.txt"


def taken(path: Path, library: Path) -> bool:
    """Whether a file of the library may be part of the corpus."""
    parts = path.relative_to(library).parts
    if LEFT_OUT & set(parts) or parts[-1].startswith("_sysconfigdata") or parts[0].startswith("config-"):
        return False
    text = path.read_bytes()
    return SMALLEST <= len(text) <= LARGEST and text.isascii() and not re.search(rb"copyright|licen[cs]e", text, re.I)


def corpus(library: Path, total: int = TOTAL) -> dict[str, str]:
    """{path: text} of the files that are taken, in the order of the paths' SHA-256."""
    paths = {path.relative_to(library).as_posix(): path for path in library.rglob("*.py") if taken(path, library)}
    found: dict[str, str] = {}
    for name in sorted(paths, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        if sum(map(len, found.values())) >= total:
            break
        found[name] = paths[name].read_bytes().decode("ascii")
    return found


if __name__ == "__main__":
    library = Path(sysconfig.get_path("stdlib"))
    files = corpus(library)
    head = {
        "text": f"modules of the standard library of {platform.python_implementation()} {platform.python_version()}",
        "copyright": "Copyright (c) 2001-2023 Python Software Foundation; All Rights Reserved",
        "licence": f"PSF License Agreement, see {LICENCE.name}",
        "made by": "tools/stdlib_text.py",
    }
    TARGET.write_bytes(gzip.compress(json.dumps(head | {"files": files}, indent=0).encode(), 9, mtime=0))
    LICENCE.write_bytes((library / "LICENSE.txt").read_bytes())
    print(
        f"{TARGET.name}: {len(files)} files, {sum(map(len, files.values()))} characters, {TARGET.stat().st_size} bytes"
    )
