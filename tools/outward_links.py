"""Looks up every link in the book's sources that leads out of it: `python tools/outward_links.py`. Returns 1, and names
them, where a page says that it is not there, or a host is unknown. Nothing but Python is needed."""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parent.parent
GONE = (404, 410)  # a host that asks robots to stay out (403, 429) says nothing about a link
EXAMPLE = re.compile(r"//(localhost|127\.0\.0\.1|example\.|[\w.]*\.example)|OWNER|\{")


def texts(root: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of what readers read: README, pages, the Markdown cells of notebooks, the bibliography."""
    for path in [root / "README.md", *sorted((root / "chapters").rglob("*"))]:
        name = path.relative_to(root).as_posix()
        if path.suffix == ".ipynb":
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            yield name, "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        elif path.suffix in (".md", ".bib"):
            yield name, path.read_text(encoding="utf-8")


def addresses(name: str, text: str) -> set[str]:
    """The addresses that a text names; in a bibliography those of its DOIs and arXiv numbers, too."""
    found = {address.rstrip(".,;:") for address in re.findall(r"https?://[^\s\"'<>`)\]}|\\]+", text)}
    if name.endswith(".bib"):
        for field, where in (("doi", "https://doi.org/"), ("eprint", "https://arxiv.org/abs/")):
            numbers = re.findall(rf"^\s*{field}\s*=\s*[{{\"]([^}}\"]+)", text, re.MULTILINE | re.IGNORECASE)
            found |= {where + number for number in numbers}
    return {address for address in found if not EXAMPLE.search(address)}


def links(root: Path) -> dict[str, list[str]]:
    """address → the files that name it."""
    found: dict[str, list[str]] = {}
    for name, text in texts(root):
        for address in sorted(addresses(name, text)):
            found.setdefault(address, []).append(name)
    return found


def problem(address: str) -> str:
    """Why a link leads nowhere; "" where it does not, or where its host does not say."""
    request = Request(address, headers={"User-Agent": "Mozilla/5.0 (link check of a book)"})
    try:
        with urlopen(request, timeout=30):
            return ""
    except HTTPError as error:
        return f"{error.code} {error.reason}" if error.code in GONE else ""
    except URLError as error:
        return str(error.reason) if isinstance(error.reason, socket.gaierror) else ""
    except (OSError, ValueError):
        return ""


def main() -> int:
    """Look up all links; returns the exit status."""
    found, bad = links(ROOT), 0
    for address, names in sorted(found.items()):
        if why := problem(address):
            bad += 1
            print(f"{address}: {why} (in {', '.join(names)})", flush=True)
        time.sleep(0.2)
    print(f"{len(found)} links, {bad} of which lead nowhere")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
