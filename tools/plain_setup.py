# @title Set-up: fetches the book's package. Run this cell first. { display-mode: "form" }
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY, BRANCH, COMMIT = "", "", ""
if importlib.util.find_spec("adamw_book") is None:
    folders = [*Path.cwd().parents, Path.cwd() / f"adamw-book-{COMMIT[:10] or 'latest'}"]
    root = next((p for p in folders if (p / "adamw_book").is_dir()), folders[-1])
    if not (root / "adamw_book").is_dir():
        if not REPOSITORY:
            raise ModuleNotFoundError(
                "adamw_book is not installed, and this notebook does not know where it came from. Set REPOSITORY above "
                'to the address of the book, as in "https://github.com/OWNER/NAME", and run again.'
            )
        if root.exists():
            raise FileExistsError(f"{root} holds no adamw_book: rename or remove that folder, and run again.")
        part = root.with_name(root.name + ".part")  # gets its name when it is whole
        shutil.rmtree(part, ignore_errors=True)
        subprocess.run(["git", "init", "--quiet", str(part)], check=True)
        # The commit that this notebook was made from; if history was rewritten, the nearest that is left.
        tried = {f"commit {COMMIT}": COMMIT, f"branch {BRANCH}": BRANCH, "its default branch": "HEAD"}
        said = ""
        for name, wanted in tried.items():
            if wanted:
                fetch = ["git", "-C", str(part), "fetch", "--quiet", "--depth=1", "--", REPOSITORY, wanted]
                done = subprocess.run(fetch, capture_output=True, text=True)
                if done.returncode == 0:
                    break
                said += f"{name}: {done.stderr}"
        else:
            shutil.rmtree(part, ignore_errors=True)
            raise RuntimeError(f"{REPOSITORY} cannot be fetched. Look whether it is there, and run again.\n{said}")
        if said:
            print(f"{REPOSITORY} no longer has what this notebook was made from: fetched is {name}, which may differ.")
        subprocess.run(["git", "-C", str(part), "checkout", "--quiet", "FETCH_HEAD"], check=True)
        part.rename(root)
    sys.path.insert(0, str(root))
