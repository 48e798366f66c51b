"""``audit`` on the command line: the numbers of a run in, what its decay will do out."""

from __future__ import annotations

import argparse
import json
import sys

from adamw_book.schedules import SCHEDULES

from .finding import SEVERITIES
from .numbers import audit_numbers

DESCRIPTION = (
    "What AdamW's weight decay will do in a run, before it runs. The exit status is 0 where nothing worse than a note "
    "was found, 1 where something was, 2 for arguments that cannot be."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.description = DESCRIPTION
    add = parser.add_argument
    add("--lr", type=float, required=True, help="learning rate η, at its peak")
    add("--weight-decay", type=float, required=True, help="decoupled decay λ")
    add("--steps", type=_whole, required=True, help="optimizer steps of the run")
    add("--schedule", default="constant", choices=SCHEDULES, help="what the rate does (default: constant)")
    add("--warmup", type=_whole, default=0, help="steps of a straight climb before the schedule (steps, not a share)")
    add("--final", type=float, default=0.0, help="share of the peak rate at which linear and cosine end (default: 0)")
    add("--batch-size", type=_whole, help="examples a step, for epochs")
    add("--dataset-size", type=_whole, help="examples of an epoch")
    add("--beta1", type=float, default=0.9, help="decay rate of the first moment (default: 0.9)")
    add("--gradient-rms", type=float, help="a typical root mean square gradient √v̂, for the comparable L2 penalty")
    add("--json", action="store_true", help="print one JSON object")


def _whole(text: str) -> int:
    """A whole number, which may be written as 1e5."""
    try:
        number = float(text)
        return int(number) if number.is_integer() and abs(number) < 2**53 else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}; a whole number is needed") from None


def run(options: argparse.Namespace) -> int:
    """Audit, print, and return the exit status."""
    arguments = {name: value for name, value in vars(options).items() if name not in ("json", "command")}
    try:
        found = audit_numbers(**arguments)
    except ValueError as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found, indent=2, allow_nan=False, ensure_ascii=False) if options.json else text(found))
    return int(any(finding["severity"] != SEVERITIES[-1] for finding in found["findings"]))


def text(found: dict) -> str:
    """The audit of :func:`.numbers.audit_numbers` in lines for a terminal."""
    epochs = "" if found["timescale_epochs"] is None else f" = {found['timescale_epochs']:.3g} epochs"
    lines = [
        ("left of the initial weights", "remaining", "{:.4g} (by decay alone, at the end of the run)"),
        ("timescale 1/(lr · weight_decay)", "timescale_steps", "{:,.0f} steps" + epochs),
        ("timescales in the run", "timescales_in_run", "{:.3g}"),
        ("half-life at the peak rate", "half_life_steps", "{:,.0f} steps"),
        ("half is left after", "half_left_after", "{:,} steps"),
        ("decay before the peak rate", "warmup_share", "{:.2%} of it"),
        ("noise floor √(η/2λ)", "noise_floor", "{:.3g} (rms of a weight that gets only noise)"),
        ("rotation in equilibrium", "rotation_per_step", "{:.3g} radians a step"),
        ("comparable L2 penalty", "comparable_l2", "{:.3g}"),
    ]
    shown = [f"{name:33}{form.format(found[key])}" for name, key, form in lines if found[key] is not None]
    for finding in found["findings"]:
        shown += ["", f"{finding['severity']}: {finding['text']}", f"    {finding['fix']}"]
    return "\n".join(shown if found["findings"] else [*shown, "", "nothing found that would need to be mended"])
