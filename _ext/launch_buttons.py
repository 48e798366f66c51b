"""Points the buttons of a page at its plain notebook: Colab's at the branch on which the workflow publishes the plain
edition, in the repository that this clone came from, and the download button at the copy beside the pages.

The repository's address is that of the publisher (`BOOK_REPOSITORY_URL`, or GitHub Actions' own variables) or else of
the clone's `origin`. Only github.com will do, because that is where Colab opens notebooks from; any other origin, a
folder for instance, leaves the pages without a Colab button, and stays out of the pages.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

PLAIN_FOLDER = "notebooks"  # of the built pages
PLAIN_BRANCH = "colab"  # .github/workflows/book.yml pushes to it
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


def commit(root: Path) -> str:
    """The commit that is checked out; "" where there is none."""
    return _git(root, "rev-parse", "HEAD")


def _point_at_repository(app, config) -> None:
    options = config.html_theme_options
    options["repository_url"], options["repository_branch"] = repository(Path(app.srcdir))
    if not options["repository_url"]:
        options.setdefault("launch_buttons", {}).pop("colab_url", None)


def _lead_to_plain_edition(app, pagename, templatename, context, doctree) -> None:
    if pagename not in app.env.found_docs or not str(app.env.doc2path(pagename)).endswith(".ipynb"):
        return
    repository_url = app.config.html_theme_options["repository_url"]
    for button in [button for group in context["header_buttons"] for button in group.get("buttons", ())]:
        if button["text"] == "Colab":
            place = repository_url.removeprefix("https://")
            place = place.replace("github.com", "https://colab.research.google.com/github", 1)
            button["url"] = f"{place}/blob/{PLAIN_BRANCH}/{pagename}.ipynb"
        elif button.get("label") == "download-source-button":
            button["url"] = context["pathto"](f"{PLAIN_FOLDER}/{pagename}.ipynb", 1)
            button["tooltip"] = "Download this page as a notebook that runs alone"


def setup(app) -> dict[str, bool]:
    # Before the theme (default priority 500) reads its options, and after it has made its buttons.
    app.connect("config-inited", _point_at_repository, priority=100)
    app.connect("html-page-context", _lead_to_plain_edition, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
