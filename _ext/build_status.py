"""The directive `build-status`: what the chapters' execution cost, where and with what, as tools/build_book.py wrote it
to `_build/executions.json`."""

from __future__ import annotations

import json
from pathlib import Path

from sphinx.util.docutils import SphinxDirective

NUMBERS = {"seconds": "seconds", "cpu_seconds": "CPU seconds", "peak_mb": "peak memory, MB"}


def table(executions: dict[str, dict], chapters: list[str]) -> str:
    """Markdown: a row for each of `chapters` that was executed, and what they were executed on."""
    rows = [name for name in chapters if name in executions]
    heads = ["chapter", *NUMBERS.values(), "executed on"]
    lines = [f"| {' | '.join(heads)} |", "|---|--:|--:|--:|---|"]
    for name in rows:
        known = executions[name]
        numbers = [f"{known[key]:,.0f}" if key in known else "–" for key in NUMBERS]
        lines.append(f"| {{doc}}`/{name}` | {' | '.join(numbers)} | {known.get('day', '–')} |")
    total = [f"{sum(executions[name].get(key, 0) for name in rows):,.0f}" for key in ("seconds", "cpu_seconds")]
    lines.append(f"| all | {' | '.join(total)} | | |")
    places: dict[tuple[str, str], list[str]] = {}
    for name in rows:
        known = executions[name]
        place = known.get("device", "not recorded"), ", ".join(known.get("versions", []))
        places.setdefault(place, []).append(name)
    for (device, versions), names in places.items():
        which = "" if len(places) == 1 else " (" + ", ".join(f"{{doc}}`/{name}`" for name in names) + ")"
        lines += ["", f"*Device:* {device}{which}.", "", f"*Versions:* {versions or 'not recorded'}."]
    return "\n".join(lines)


class BuildStatus(SphinxDirective):
    def run(self) -> list:
        path = Path(self.env.srcdir) / "_build" / "executions.json"
        self.env.note_dependency(str(path))
        if not path.is_file():
            return self.parse_text_to_nodes("These pages were built without `tools/build_book.py`, which measures.")
        chapters = [name for name in self.env.found_docs if (Path(self.env.srcdir) / f"{name}.ipynb").is_file()]
        order = list(getattr(self.env, "external_site_map", ()))  # of _toc.yml
        chapters.sort(key=lambda name: (order.index(name) if name in order else len(order), name))
        return self.parse_text_to_nodes(table(json.loads(path.read_text(encoding="utf-8")), chapters))


def setup(app) -> dict[str, bool]:
    app.add_directive("build-status", BuildStatus)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
