"""Where the book is published, for what needs an absolute address: canonical links, the site map, the social card."""

from __future__ import annotations

import os
import re

from launch_buttons import github_url


def github_pages(repository: str) -> str:
    """Where GitHub Pages has the site of a repository (`https://github.com/OWNER/NAME`), "/" at its end; "" for ""."""
    owner, _, name = repository.removeprefix("https://github.com/").partition("/")
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" + (f"{name}/" if name.lower() != host else "") if name else ""


def site_address(environ: dict[str, str] | os._Environ = os.environ) -> str:
    """The address of the published book, with "/" at its end, as its publisher gives it (`BOOK_SITE_URL`), or that of
    GitHub Pages where GitHub Actions builds it; "" elsewhere: a clone does not know where it will be read. Raises
    ValueError for a `BOOK_SITE_URL` that is no address."""
    if given := environ.get("BOOK_SITE_URL", "").strip():
        if not re.fullmatch(r"https?://[\w.-]+(:\d+)?(/[\w./~-]*)?", given):
            raise ValueError(f"BOOK_SITE_URL must be an address as in https://example.org/book/, not {given!r}")
        return given.rstrip("/") + "/"
    server, name = environ.get("GITHUB_SERVER_URL", "https://github.com"), environ.get("GITHUB_REPOSITORY", "")
    return github_pages(github_url(f"{server}/{name}")) if name else ""
