"""The built pages over a slow line, nothing of them in the cache: when is something seen, when do the formulas stand?

Chromium's network is held to 1.6 Mbit/s down, 0.75 up and 150 ms before each answer (a slow 4G line); text comes
compressed, as publishers' servers send it. The processor is this machine's own, and what else it does makes the times
longer: the load is in the record. For each page, on a phone's screen:

    first paint   seconds until the first text or picture is seen (first contentful paint)
    formulas      seconds until all formulas are in the page and their fonts have come
    MB            over the line until the page is at rest, and with every picture further down, uncompressed

Medians of several openings, each in a browser context of its own, the pages in turns. make book first.

    python benchmarks/page_speed.py                            some pages
    python benchmarks/page_speed.py chapters/preface --rounds 5
    python benchmarks/page_speed.py --record                   also writes benchmarks/results/page_speed.json
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]  # this clone's tools
from chromium import chromium, served  # noqa: E402

PAGES = (
    "chapters/preface",
    "chapters/foundations/decoupled_weight_decay",
    "chapters/generalization/overfitting",
    "chapters/frontier/transfer_learning",
    "chapters/practice/field_guide",
    "chapters/engineering/triton_kernel",
    "chapters/notation",
    "chapters/api/optimizer",
)
LINE = {"downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8, "latency": 150}  # bytes a second, milliseconds
SCREEN = {"width": 390, "height": 844}
TARGETS = {"first paint": 2.0, "formulas": 5.0, "MB": 1.5}

# Notes the moment from which on the formulas stand, looking at each frame; a page without formulas has none.
WATCH = """
(() => {
  const stand = () => document.readyState !== "loading" && document.fonts.status === "loaded"
    && [...document.querySelectorAll(".math")].every((e) => e.querySelector("mjx-container"));
  let stood = false;
  const look = () => {
    const stands = stand();
    if (stands && !stood) window.formulasStand = performance.now() / 1000;
    stood = stands;
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})();
"""
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
FORMULAS = "() => document.querySelector('.math') ? window.formulasStand : null"
PICTURES = "() => Promise.all([...document.images].map((e) => (e.loading = 'eager', e.decode().catch(() => 0))))"


def rest(page, bytes_: dict[str, int], seconds: float = 1.0) -> None:
    """Wait until no byte has come for so long. Playwright's own `networkidle` never comes on some pages behind a slow
    line, whose last request it takes for pending."""
    before, quiet = -1, 0.0
    while quiet < seconds:
        page.wait_for_timeout(100)
        quiet = quiet + 0.1 if bytes_["plain"] == before else 0.0
        before = bytes_["plain"]


def opened(browser, address: str, line: dict = LINE) -> dict[str, float | None]:
    """What one opening of a page costs; formulas: None where there are none."""
    context = browser.new_context(viewport=SCREEN)
    try:
        page = context.new_page()
        page.set_default_timeout(120_000)
        devtools, bytes_ = context.new_cdp_session(page), {"line": 0, "plain": 0}
        devtools.on("Network.loadingFinished", lambda it: bytes_.update(line=bytes_["line"] + it["encodedDataLength"]))
        devtools.on("Network.dataReceived", lambda it: bytes_.update(plain=bytes_["plain"] + it["dataLength"]))
        devtools.send("Network.enable")
        devtools.send("Network.emulateNetworkConditions", {"offline": False, **line})
        page.add_init_script(WATCH)
        page.goto(address, wait_until="load")
        rest(page, bytes_)
        found = {"first paint": page.evaluate(PAINT), "formulas": page.evaluate(FORMULAS), "MB": bytes_["line"] / 1e6}
        devtools.send("Network.emulateNetworkConditions", {"offline": False, **dict.fromkeys(line, -1), "latency": 0})
        page.evaluate(PICTURES)
        rest(page, bytes_)
        return found | {"MB of all": bytes_["plain"] / 1e6}
    finally:
        context.close()


def summary(openings: list[dict[str, float | None]]) -> dict[str, dict | None]:
    """Median, least and most of each figure over the openings of a page."""
    found = {}
    for what in openings[0]:
        values = [one[what] for one in openings if one[what] is not None]
        known = {"median": statistics.median(values), "least": min(values), "most": max(values)} if values else None
        found[what] = known and {name: round(value, 3) for name, value in known.items()}
    return found


def missed(found: dict[str, dict | None]) -> list[str]:
    """The targets that a page misses."""
    return [what for what, most in TARGETS.items() if found[what] and found[what]["median"] > most] + (
        ["MB of all"] if found["MB of all"]["median"] > TARGETS["MB"] else []
    )


def line_of(page: str, found: dict[str, dict | None]) -> str:
    """A page in a line of text."""
    cells = []
    for what, unit in (("first paint", "s"), ("formulas", "s"), ("MB", ""), ("MB of all", "")):
        row = found[what]
        cells.append("–" if row is None else f"{row['median']:.2f}{unit} [{row['least']:.2f}, {row['most']:.2f}]")
    return f"{page:46}" + "".join(f"{cell:>22}" for cell in cells) + ("  missed" if missed(found) else "")


def device_name() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def load() -> float | None:
    """Processes that wanted a core in the last minute, this one among them; None where that is not told."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", default=PAGES, help="pages as in chapters/preface")
    parser.add_argument("--rounds", type=int, default=3, help="openings of each page")
    parser.add_argument("--record", action="store_true", help="write the figures to benchmarks/results/")
    options = parser.parse_args()
    html = ROOT / "_build" / "html"
    if not (ROOT / "_build" / "pages.json").is_file():
        print("There is no built book yet: run make book first.")
        return
    if unknown := [page for page in options.pages if not (html / f"{page}.html").is_file()]:
        parser.error(f"these are no pages of the built book: {', '.join(unknown)}")
    if options.rounds < 1:
        parser.error(f"--rounds must be 1 or more, not {options.rounds}")
    results = {"date": datetime.now(UTC).date().isoformat(), "device": device_name(), "cores": os.cpu_count()}
    results |= {"line": LINE, "screen": SCREEN, "targets": TARGETS, "rounds": options.rounds, "load before": load()}
    with served(html, compressed=True) as site, chromium() as browser:
        versions = {name: importlib.metadata.version(name) for name in ("playwright",)}
        results["versions"] = {"python": platform.python_version(), "chromium": browser.version, **versions}
        print(f"{results['device']}, " + ", ".join(f"{k} {v}" for k, v in results["versions"].items()))
        print("targets: " + ", ".join(f"{what} ≤ {most}" for what, most in TARGETS.items()) + "; [least, most]")
        print(f"{'page':46}" + "".join(f"{head:>22}" for head in ("first paint", "formulas", "MB", "MB of all")))
        openings: dict[str, list] = {page: [] for page in options.pages}
        for _ in range(options.rounds):
            for page, done in openings.items():
                done.append(opened(browser, f"{site}/{page}.html"))
    results["pages"] = {page: summary(done) for page, done in openings.items()}
    for page, found in results["pages"].items():
        print(line_of(page, found))
    results["load after"] = load()
    failed = [page for page, found in results["pages"].items() if missed(found)]
    print(f"{len(results['pages']) - len(failed)} of {len(results['pages'])} pages reach all targets")
    if options.record:
        target = Path(__file__).parent / "results" / "page_speed.json"
        target.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {target.name}")


if __name__ == "__main__":
    main()
