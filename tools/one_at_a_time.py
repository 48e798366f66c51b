"""A lock that one process at a time can hold, and that the system frees when its holder ends, in whatever way."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
try:
    import msvcrt
except ImportError:  # anything else
    msvcrt = None

BEYOND = 1 << 30  # Windows locks bytes, and nobody can read those: one that is not there leaves the text readable


def is_free(file: IO[str]) -> bool:
    """Lock an open file, until it is closed; returns whether no other process has locked it. Where the system or the
    file system knows no locks, every file is free."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            file.seek(BEYOND)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):  # as Unix and as Windows call it
        return False
    except OSError:
        pass
    return True


@contextmanager
def one_at_a_time(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` while the block runs. Where another process holds it, SystemExit says which, and since
    when: that it is at the same `what`."""
    with path.open("a+", encoding="utf-8") as file:
        if not is_free(file):
            file.seek(0)
            raise SystemExit(
                f"Another {what} is running ({file.read() or 'its process is not known'}). "
                "Wait until it has ended, or end that process, then try again."
            )
        file.truncate(0)
        file.write(f"process {os.getpid()}, since {time.strftime('%H:%M:%S')}")
        file.flush()
        yield
