"""All claims of the book side by side, from their records alone: their order, names, counts, and the prose about them.

An outcome in that prose always comes out of a record: a text about a claim says what was found about the mechanism, it
is chosen by the outcome that the record bears, and must not name one itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import pandas as pd

from .evidence import OUTCOMES, Effect, comparable, decide, holm, surviving
from .ledger import Record

# Short names, in the order of the source.
NAMES = {
    "decoupled_weight_decay.unconditional": "λ alone sets the shrinking",
    "decoupled_weight_decay.separability": "one decay for all rates",
    "overfitting.weak_gradients": "L2 spares weak gradients",
    "overfitting.generalization": "less overfitting",
    "vanishing_gradients.shrinkage": "null weights shrink more",
    "vanishing_gradients.drift": "both decays end a drift",
    "vanishing_gradients.silent_inputs": "silent inputs harm less",
    "sparse_gradients.rare_words": "rare words shrink more",
    "sparse_gradients.generalization": "better on sparse text",
    "covariate_shift.spurious": "leans less on coincidence",
    "covariate_shift.spurious_kind": "… less than Adam + L2",
    "covariate_shift.shift": "steady under shift",
    "class_imbalance.minority": "sees the minority",
    "class_imbalance.weights": "class weights count",
    "class_imbalance.threshold": "beats a moved threshold",
    "adversarial_robustness.margin": "wider margin",
    "adversarial_robustness.withstands": "withstands PGD",
    "transfer_learning.early_shock": "smaller early shock",
    "transfer_learning.handover": "better fine-tuning",
    "transfer_learning.target": "decay toward the start",
    "transformer.handover": "better real fine-tuning",
    "learning_rate_schedules.interplay": "new schedule, new decay",
    "learning_rate_schedules.timescale": "timescale carries over",
    "language_model.next_byte": "better language model",
    "larger_gpt.next_byte": "better larger GPT",
    "federated_learning.consensus": "better common model",
    "federated_learning.agreement": "clients agree more",
    "quantization.precision": "4 bits cost less",
    "quantization.preset": "a preset range clips less",
}


def in_order(records: Iterable[Record]) -> list[Record]:
    """The records in the source's order. Raises ValueError for a claim that `NAMES` does not hold."""
    records = list(records)
    if unknown := sorted({r.claim.id for r in records} - set(NAMES)):
        raise ValueError(f"records hold the claims {unknown}, which have no name; expected claims of overview.NAMES")
    return sorted(records, key=lambda r: list(NAMES).index(r.claim.id))


def counts(outcomes: Iterable[str]) -> str:
    """How often each outcome occurs, in words: "2 supported, 1 opposite". Outcomes that do not occur are left out."""
    outcomes = list(outcomes)
    return ", ".join(f"{outcomes.count(name)} {name}" for name in OUTCOMES if name in outcomes)


def forest_table(records: Iterable[Record]) -> pd.DataFrame:
    """One row a record, as `plots.claim_forest` takes them: name, mean, low, high, smallest_effect, outcome."""
    rows = []
    for r in records:
        effect = r.effects[r.claim.primary]
        rows.append((NAMES[r.claim.id], effect.mean, effect.low, effect.high, r.claim.smallest_effect, r.verdict))
    return pd.DataFrame(rows, columns=["name", "mean", "low", "high", "smallest_effect", "outcome"])


def chances(records: Iterable[Record]) -> dict[str, float]:
    """Each claim's probability under no effect, corrected for the number of these claims; formulas have none."""
    return holm({r.claim.id: r.effects[r.claim.primary].p for r in records if not r.claim.arithmetic})


def sides(record: Record) -> tuple[int, int]:
    """How many regimes of a record favour its claim and how many say the opposite, by `decide`, of those that are
    `comparable` and once their number is counted (`surviving`)."""
    own = comparable(record.claim, record.effects)
    found = [decide(own[regime], record.claim) for regime in surviving(own)]
    return found.count("supported"), found.count("opposite")


def told(
    record: Record,
    texts: Mapping[str, str],
    chance: float | None = None,
    address: Callable[[str], str] = "../{}.ipynb".format,
) -> str:
    """One item of a list, in Markdown: the claim's name with a link to its chapter, what was found, its outcome, the
    effect that decides, and how its map stands.

    texts: {outcome: what was found}; where the record bears an outcome that has no text, the claim's statement stands
    there. "{effects[regime]}" in a text becomes that regime's mean and interval. chance: the corrected probability,
    said where a supported or opposite claim does not reach 5%. address: where a chapter is to be found. Raises
    ValueError for a text that names an outcome, and for an outcome that there is not; KeyError for a regime that the
    record does not hold.
    """
    for outcome, text in texts.items():
        if outcome not in OUTCOMES:
            raise ValueError(f"texts of {record.claim.id} hold {outcome!r}; expected {', '.join(OUTCOMES)}")
        if named := [word for word in OUTCOMES if re.search(rf"\b{word}\b", text)]:
            raise ValueError(f"a text about {record.claim.id} says {named[0]!r}; an outcome comes from the record")
    effect = record.effects[record.claim.primary]
    readable = {regime: " ".join(own.parts()) for regime, own in record.effects.items()}
    text = texts.get(record.verdict, f"The statement tested: {record.claim.statement}").format(effects=readable)
    said = f"*{record.verdict}*"
    if not record.claim.arithmetic:
        said += f": {effect.contrast} {' '.join(effect.parts())}"
        if chance is not None and chance > 0.05 and record.verdict in ("supported", "opposite"):
            said += f", and p = {chance:.2f} once the book's claims are counted"
        if len(own := comparable(record.claim, record.effects)) > 1:
            said += "; of {} regimes {} for it, {} against".format(len(own), *sides(record))
    name = NAMES[record.claim.id].lstrip("… ")
    title = record.page.rpartition("/")[2].replace("_", " ")
    name = name[0].upper() + name[1:] if name[0].isascii() else name  # a symbol stays as it is
    return f"* **{name}** ([{title}]({address(record.page)})). {text} ({said}.)"


def steady(records: Iterable[Record], again: pd.DataFrame) -> dict[str, bool]:
    """For each claim that is supported or opposite, whether every run of `make stability` (``again``) that there is of
    it said the same."""
    said = again.groupby("claim")["verdict"].agg(set)
    signed = [r for r in records if r.verdict in ("supported", "opposite") and r.claim.id in said]
    return {r.claim.id: said[r.claim.id] == {r.verdict} for r in signed}


def in_deltas(record: Record, regime: str) -> Effect:
    """The effect of one regime of a record in units of the smallest effect that would matter to its claim."""
    effect, unit = record.effects[regime], record.claim.smallest_effect
    scaled = {field: getattr(effect, field) / unit for field in ("mean", "low", "high", "differences")}
    for part in ("by_seeds", "by_tuning"):
        scaled[part] = getattr(effect, part) and tuple(bound / unit for bound in getattr(effect, part))
    return replace(effect, metric="effect ÷ smallest that matters", **scaled)


def normalised_pairs(records: Iterable[Record]) -> pd.DataFrame:
    """The regimes that a record holds with and without a normalisation, all else equal: claim, regime, contrast, and
    the mean effects `plain` and `normalised`, in units of the smallest effect that would matter."""
    rows = []
    for r in records:
        for regime in r.effects:
            bare = re.sub(", (LayerNorm|GroupNorm)", "", regime)
            if bare != regime and bare in r.effects:
                one, other = in_deltas(r, bare), in_deltas(r, regime)
                rows.append((r.claim.id, regime, other.contrast, one.mean, other.mean))
    return pd.DataFrame(rows, columns=["claim", "regime", "contrast", "plain", "normalised"])
