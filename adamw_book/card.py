"""Claim cards: what a source claims, what would count as support, and the verdict that the evidence gives.

A card carries its own style, so that it reads the same in the book, in Jupyter and in Colab. Every selector of that
style is wrapped in :where(), which has no specificity: any rule of a page's stylesheet for the same class wins over it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from html import escape

from .display import Shown
from .evidence import Claim, Effect, close_call, divided, holm, pooled, printed, unit_of, verdict
from .ledger import Record

SYMBOLS = {
    "supported": "✓",
    "no effect that matters": "≈",
    "opposite": "✗",
    "undecided": "?",
    "arithmetic": "=",
}

_STYLE = """
:where(.claim-card) {border: 1px solid var(--pst-color-border, #8888); border-left-width: 5px; border-radius: 6px;
  padding: .8em 1em; margin: 1em 0; color: inherit; background: var(--pst-color-surface, transparent);
  line-height: 1.45}
:where(.claim-card) p {margin: .3em 0}
:where(.claim-card .claim-key) {font-weight: 600}
:where(.claim-card table, .verdict-table) {border-collapse: collapse; width: 100%; margin: .6em 0 0; font-size: .95em;
  color: inherit; background: transparent}
:where(.claim-card caption, .verdict-table caption) {caption-side: top; text-align: left; padding: .2em 0;
  color: inherit}
:where(.claim-card th, .claim-card td, .verdict-table th, .verdict-table td) {text-align: left; border: 0;
  border-top: 1px solid var(--pst-color-border, #8886); padding: .25em .6em .25em 0; vertical-align: top}
:where(.claim-card tbody th, .verdict-table tbody th) {font-weight: 400}
:where(.claim-card .effect, .verdict-table .effect) {white-space: nowrap; font-variant-numeric: tabular-nums}
:where(.verdict-table .chapter) {display: block; font-size: .9em; opacity: .8}
:where(.verdict) {display: inline-block; padding: 0 .55em; border-radius: 1em; font-weight: 600; white-space: nowrap;
  color: #fff; background: #59636e}
:where(.verdict-supported) {background: #1a7f37}
:where(.verdict-no-effect-that-matters) {background: #59636e}
:where(.verdict-opposite) {background: #b3261e}
:where(.verdict-undecided) {background: #7a5200}
:where(.verdict-arithmetic) {background: #0b5cad}
:where(.claim-card summary) {cursor: pointer}
:where(.claim-card .claim-map) {max-height: 32em; overflow: auto}
:where(.claim-close) {margin: -.5em 0 1em; padding-left: 1em; font-size: .95em}
"""


def badge(verdict: str) -> str:
    """A verdict as an HTML badge: its symbol and its word, so that nothing hangs on the colour."""
    return (
        f'<span class="verdict verdict-{_class(verdict)}"><span aria-hidden="true">{SYMBOLS[verdict]}</span> '
        f"{verdict}</span>"
    )


def _class(verdict: str) -> str:
    return verdict.replace(" ", "-")


def claim_card(claim: Claim, effects: Mapping[str, Effect], note: str = "") -> Shown:
    """The card of a claim, folded to one line: its verdict, computed from `effects` ({regime: Effect}), the statement,
    and its primary regime's effect. Below it, unfolded, stands what a close verdict (`close_call`) hangs on.

    Folded away are what was tested, both parts of the interval, and the map of all other regimes, which bear no badge;
    `note` is a closing line, for instance what a reader of the map should know. All texts are escaped.
    """
    overall = verdict(claim, effects)
    primary = effects[claim.primary]
    unit, matters = unit_of(claim.metric), claim.smallest_effect
    tag = f" (source tag {claim.tag})" if claim.tag else ""
    mean, interval = primary.parts()
    rider = f"It depends on {claim.dividing}." if claim.dividing and divided(claim, effects) else ""
    about = [
        ("The source claims", claim.source),
        ("Decided by", f"{claim.primary}: {primary.contrast}, {claim.metric}. {claim.criterion}"),
        ("Would matter", f"{100 * matters if unit == 'pp' else matters:g} {unit}".rstrip() + " or more"),
        ("Remarks", "; ".join(primary.remarks())),
    ]
    if primary.by_seeds is not None:
        parts = ("other evaluation seeds", primary.by_seeds), ("other tuning seeds", primary.by_tuning)
        told = ", ".join(f"{what} {printed(unit, 0, *bounds)[1]}" for what, bounds in parts)
        about.append(("The interval's parts", told))
        about.append(("The effect", "a mean over what tuning might have chosen, not the difference of two winners"))
    others = {regime: effect for regime, effect in effects.items() if regime != claim.primary}
    rows = [(regime, effect, "; ".join(effect.remarks())) for regime, effect in others.items()]
    alike = len({effect.contrast for effect in effects.values()}) == 1
    own = {regime: "" if alike else f"{e.contrast}: " for regime, e in effects.items()}
    closing = " ".join(filter(None, (_common(claim, effects), note)))
    close = _close(claim, primary)

    about = [(key, text) for key, text in about if text]
    body = "".join(f'<p><span class="claim-key">{key}:</span> {escape(text)}</p>' for key, text in about)
    cells = "".join(
        f'<tr><th scope="row">{escape(own[regime] + regime)}</th><td>{_parts_html(*effect.parts())}'
        f"{f' ({escape(remarks)})' if remarks else ''}</td></tr>"
        for regime, effect, remarks in rows
    )
    caption = f"The map: {claim.metric}, mean difference and {100 * primary.confidence:g}% interval, without a verdict"
    head = '<tr><th scope="col">Regime</th><th scope="col">Effect</th></tr>'
    table = f"<table><caption>{escape(caption)}</caption><thead>{head}</thead><tbody>{cells}</tbody></table>"
    foot = f'<p class="claim-note">{escape(closing)}</p>' if closing else ""
    below = f'<p class="claim-close">{escape(close)}</p>' if close else ""
    html = (
        f'<style>{_STYLE}</style><details class="claim-card claim-card-{_class(overall)}">'
        f'<summary><span class="claim-key">Claim{escape(tag)}:</span> {escape(claim.statement)} {badge(overall)} '
        f"{escape(primary.contrast)}: {_parts_html(mean, interval)}</summary>"
        f"{f'<p>{escape(rider)}</p>' if rider else ''}{body}"
        f'{f"""<div class="claim-map" tabindex="0">{table}</div>""" if rows else ""}{foot}</details>{below}'
    )
    lines = [f"**Claim{tag}:** {claim.statement} **{SYMBOLS[overall]} {overall}**", ""]
    lines += [f"{primary.contrast}, {claim.primary}: {mean} {interval}. {rider}".rstrip(), ""]
    lines += [line for key, text in about for line in (f"**{key}:** {text}", "")]
    if rows:
        lines += [caption, "", "| Regime | Effect | Remarks |", "|---|---|---|"]
        lines += [_row(own[regime] + regime, effect.text(), remarks) for regime, effect, remarks in rows]
    return Shown(html, "\n".join(lines + [line for text in (closing, close) if text for line in ("", text)]))


def _close(claim: Claim, effect: Effect) -> str:
    """What would turn a close verdict, in one sentence; nothing for any other."""
    found = close_call(effect, claim)
    if found is None:
        return ""
    outcome, moves = found
    told = []
    for part, move in moves.items():
        distance, _ = printed(unit_of(effect.metric), abs(move), effect.low, effect.high, sign=False)
        told.append(f"its {part} {distance} {'higher' if move > 0 else 'lower'}")
    share = max(map(abs, moves.values())) / (effect.high - effect.low)
    return (
        f"A close verdict: it would be “{outcome}” if the interval had {' and '.join(told)} ({share:.0%} of its "
        "width), which other seeds, or the rounding of another processor, may bring about."
    )


def _common(claim: Claim, effects: Mapping[str, Effect]) -> str:
    """What all regimes have in common; nothing for those of different contrasts, and for a formula's."""
    if claim.arithmetic or len(effects) < 3 or len({effect.contrast for effect in effects.values()}) > 1:
        return ""
    found, unit = pooled(effects), unit_of(claim.metric)
    mean, interval = found.parts(unit)
    spread, _ = printed(unit, found.tau, found.low, found.high, sign=False)
    return f"Over all {found.n} regimes: {mean} {interval}, with a spread between regimes of {spread}."


def verdict_table(
    records: Iterable[Record],
    names: Mapping[str, str] | None = None,
    address: Callable[[str], str] | None = None,
    together: bool = False,
) -> Shown:
    """All verdicts at a glance, one row a record: chapter, claim, verdict, and the effect that decides, with its
    probability under no effect once the number of these claims is counted (`holm`).

    names: what stands for each claim's statement, by its id. address: where a chapter, as its record names it, is to be
    found; the chapters' names become links. together: what all regimes of a record have in common, below its effect.
    """
    records = list(records)
    if not records:
        raise ValueError("records is empty; expected at least one record of the ledger")
    deciding = {r.claim.id: r.effects[r.claim.primary] for r in records}
    chance = holm({r.claim.id: deciding[r.claim.id].p for r in records if not r.claim.arithmetic})
    cells, lines = "", ["| Chapter | Claim | Verdict | Effect |", "|---|---|---|---|"]
    for r in records:
        parts = deciding[r.claim.id].parts()
        parts += (_probability(chance[r.claim.id]),) if r.claim.id in chance else ()
        statement = names[r.claim.id] if names else r.claim.statement
        common = _common(r.claim, r.effects) if together else ""
        title = chapter = _title(r.chapter)
        html = escape(chapter)
        if address:
            html = f'<a href="{escape(address(r.page), quote=True)}">{html}</a>'
            title = f"[{chapter}]({address(r.page)})"
        below = f'<span class="chapter">{escape(common)}</span>' if common else ""
        cells += (
            f'<tr><th scope="row"><span class="chapter">{html}</span> {escape(statement)}</th>'
            f"<td>{badge(r.verdict)} {_parts_html(*parts)}{below}</td></tr>"
        )
        effect = " ".join(filter(None, (*parts, common)))
        lines.append(_row(title, statement, f"{SYMBOLS[r.verdict]} {r.verdict}", effect))
    caption = (
        "The verdicts, and the effects that decide. p: the probability of so large an effect if there were none, "
        "raised by Holm's correction for the number of these claims; verdicts go by the interval, uncorrected"
    )
    html = (
        f'<style>{_STYLE}</style><table class="verdict-table"><caption>{caption}</caption><thead><tr>'
        '<th scope="col">Claim, by chapter</th><th scope="col">Verdict and effect</th></tr></thead>'
        f"<tbody>{cells}</tbody></table>"
    )
    return Shown(html, "\n".join(lines))


def _probability(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2f}" if p >= 0.095 else f"p = {p:.1g}"


def _parts_html(*parts: str) -> str:
    """Texts of which none is broken over two lines."""
    return " ".join(f'<span class="effect">{escape(part)}</span>' for part in parts)


def _title(chapter: str) -> str:
    return chapter.replace("_", " ").replace("/", " · ")


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
