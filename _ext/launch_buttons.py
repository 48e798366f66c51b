"""Points the launch buttons at the repository that this clone came from.

The address is that of the publisher (`BOOK_REPOSITORY_URL`, or GitHub Actions' own variables) or else of the clone's
`origin`. Only github.com will do, because that is where Colab opens notebooks from; any other origin, a folder for
instance, leaves the pages without a Colab button, and stays out of the pages.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

GITHUB = re.compile(
    r"(?:(?:https?|ssh|git)://(?:[^@/]*@)?github\.com(?::\d+)?/|(?:[^@/]+@)?github\.com:)"
    r"(?P<owner>[\w.-]+)/(?P<name>[\w.-]+?)(?:\.git)?/?"
)


def github_url(address: str) -> str:
    """`https://github.com/OWNER/NAME` for an address (https, ssh or scp form) of a github.com repository, or ""."""
    match = GITHUB.fullmatch(address.strip())
    return f"https://github.com/{match['owner']}/{match['name']}" if match else ""


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def repository(root: Path, environ: dict[str, str] | os._Environ = os.environ) -> tuple[str, str]:
    """The book's address on GitHub and its branch; ("", branch) where there is none."""
    if address := environ.get("BOOK_REPOSITORY_URL"):
        url = github_url(address)
    elif name := environ.get("GITHUB_REPOSITORY"):
        url = github_url(f"{environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{name}")
    else:
        url = github_url(_git(root, "remote", "get-url", "origin"))
    branch = environ.get("BOOK_REPOSITORY_BRANCH", "")
    if not branch and environ.get("GITHUB_REF_TYPE") == "branch" and environ.get("GITHUB_EVENT_NAME") == "push":
        branch = environ.get("GITHUB_REF_NAME", "")
    return url, branch or _git(root, "symbolic-ref", "--short", "HEAD") or "main"


def _point_at_repository(app, config) -> None:
    options = config.html_theme_options
    options["repository_url"], options["repository_branch"] = repository(Path(app.srcdir))
    if not options["repository_url"]:
        options.setdefault("launch_buttons", {}).pop("colab_url", None)


def setup(app) -> dict[str, bool]:
    # Before the theme (default priority 500) reads its options.
    app.connect("config-inited", _point_at_repository, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
