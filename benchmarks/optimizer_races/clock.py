"""Times steps on one device, and the device's memory."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def busy_cores() -> Iterator[None]:
    """A loop that never waits on each core, as on a machine that is shared."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


class Clock:
    """Times steps on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def time(self, step: Callable[[], object]) -> dict[str, float]:
        """Seconds of one step: on the host until the call returns, on the device, until all is done (whole), and of
        the processor, all threads together (cpu)."""
        self.wait()
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if self.device.type == "cuda" else []
        start, before = time.perf_counter(), time.process_time()
        if events:
            events[0].record()
        step()
        if events:
            events[1].record()
        host = time.perf_counter() - start
        self.wait()
        whole, cpu = time.perf_counter() - start, time.process_time() - before
        return {"host": host, "whole": whole, "cpu": cpu} | (
            {"device": events[0].elapsed_time(events[1]) / 1e3} if events else {}
        )

    def queued(self, step: Callable[[], object], times: int) -> float | None:
        """Seconds of device time a step when several wait in the queue, so that the host is out of the picture; None
        where the queue does not hold so many launches, or the host is too slow to fill it."""
        for cycles in (200_000_000, 1_000_000_000):
            self.wait()
            events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            torch.cuda._sleep(cycles)
            events[0].record()
            for _ in range(times):
                step()
            events[1].record()
            overtaken = events[0].query()  # the device was at the first step before the last one was queued
            self.wait()
            if not overtaken:
                return events[0].elapsed_time(events[1]) / 1e3 / times
        return None

    def launches(self, step: Callable[[], object]) -> int | None:
        """Kernels that one step launches."""
        if self.device.type != "cuda":
            return None
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as trace:
            step()
            self.wait()
        return sum(e.count for e in trace.key_averages() if e.device_type.name == "CUDA" and "Mem" not in e.key)

    def extra_memory(self, step: Callable[[], object]) -> int | None:
        """Bytes that a step needs for a moment, beyond what stays."""
        if self.device.type != "cuda":
            return None
        self.wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        self.wait()
        return torch.cuda.max_memory_allocated() - before


def ceiling(device: torch.device, numbers: int) -> dict[str, float]:
    """Bytes a second of a copy and of triads over float32 vectors of so many numbers, the best of ten.

    A CPU fetches a line before it writes to it, unseen, unless it has been read. The triad in place, which writes where
    it has read as an optimizer does, is therefore the ceiling there.
    """
    a, b, c = (torch.ones(numbers, device=device) for _ in range(3))
    clock, best = Clock(device), {"copy": 0.0, "triad": 0.0, "triad in place": 0.0}
    for _ in range(10):
        for name, step, moved in (
            ("copy", lambda: a.copy_(b), 8 * numbers),
            ("triad", lambda: torch.add(b, c, alpha=0.5, out=a), 12 * numbers),
            ("triad in place", lambda: a.add_(b, alpha=1e-9), 12 * numbers),
        ):
            spent = clock.time(step)
            best[name] = max(best[name], moved / spent.get("device", spent["whole"]))
    return best
