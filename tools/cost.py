"""What the execution of a chapter costs: seconds, CPU seconds, memory; and what it ran on."""

from __future__ import annotations

import platform
import re
import threading
import time
from pathlib import Path

import psutil

EVERY = 0.25  # seconds between two looks


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        named = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        named = None
    return named[1].strip() if named else platform.processor() or platform.machine()


class Cost:
    """Watches a process and its children while the block runs: `with Cost() as cost: cost.pid = …`. CPU seconds are
    those of all threads, so that other programs on the machine do not count; the peak is that of the looks, four a
    second."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.seconds = self.cpu_seconds = self.peak_mb = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def look(self) -> None:
        """Look once at the process; nothing where it has gone."""
        if self.pid is None:
            return
        try:
            process = psutil.Process(self.pid)
            family = [process, *process.children(recursive=True)]
            own = process.cpu_times()
            # what ended children took is in their parent's account, where the system keeps one
            ended = getattr(own, "children_user", 0.0) + getattr(own, "children_system", 0.0)
            times = [one.cpu_times() for one in family]
            memory = sum(one.memory_info().rss for one in family)
        except psutil.Error:
            return
        self.cpu_seconds = max(self.cpu_seconds, ended + sum(one.user + one.system for one in times))
        self.peak_mb = max(self.peak_mb, memory / 1e6)

    def _watch(self) -> None:
        while not self._ended.wait(EVERY):
            self.look()

    def __enter__(self) -> Cost:
        self._begun = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._ended.set()
        self._thread.join()
        self.seconds = time.perf_counter() - self._begun

    def as_record(self) -> dict[str, float | str]:
        """What `_build/executions.json` keeps: seconds, CPU seconds, the peak in MB, the day (UTC)."""
        day = time.strftime("%Y-%m-%d", time.gmtime())
        numbers = {name: round(getattr(self, name), 1) for name in ("seconds", "cpu_seconds", "peak_mb")}
        return {**numbers, "day": day}
