"""The book's conclusion: every tag of the source has a record, and no sentence names an outcome of its own."""

import ast
import dataclasses
import json
import re
import string
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from adamw_book import ledger, overview
from adamw_book.evidence import CONFIGURATION, OUTCOMES, Claim, Effect
from adamw_book.scenarios import ON_DEMAND, STUDIES, study

NOTEBOOK = Path(__file__).resolve().parent.parent / "chapters" / "practice" / "ledger.ipynb"
CELLS = [cell | {"source": "".join(cell["source"])} for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]]
RECORDS = ledger.read_all()
TAGS = {  # of the source, each with the chapter that answers it
    "3096487": "generalization/overfitting",
    "3096558": "generalization/vanishing_gradients",
    "3161372": "generalization/sparse_gradients",
    "3096579": "robustness/covariate_shift",
    "3096556": "robustness/class_imbalance",
    "3096527": "robustness/adversarial_robustness",
    "3096511": "frontier/transfer_learning",
    "3096515": "frontier/learning_rate_schedules",
    "3096479": "frontier/federated_learning",
    "3096537": "frontier/quantization",
}


@pytest.mark.parametrize("tag", TAGS)
def test_every_tag_of_the_source_has_a_record_in_its_chapter(tag):
    assert TAGS[tag] in {r.chapter for r in RECORDS if r.claim.tag == tag}, "run `make evidence` for that chapter"


def claims():
    """Of all studies, in the book's order; a chapter's further studies follow its own."""
    found = {}
    for one in (study(name) for name in [*STUDIES, *ON_DEMAND]):
        page = "/".join(one.chapter.split("/")[:2])
        found.setdefault(page, []).extend(one.claims)
    return [claim for own in found.values() for claim in own]


def test_every_claim_has_a_name_that_fits_in_the_order_of_the_book():
    assert list(overview.NAMES) == [claim.id for claim in claims()]
    assert len(set(overview.NAMES.values())) == len(overview.NAMES)
    assert max(map(len, overview.NAMES.values())) <= 26  # characters beside the axis of a narrow figure


@pytest.mark.parametrize("name", STUDIES)
def test_all_that_tuning_might_have_chosen_was_evaluated(name):
    record = next(r for r in RECORDS if r.claim.id.startswith(f"{name}."))
    if "candidates" in record.tables and "evaluation" in record.tables:
        ran, keys = record.tables["evaluation"], ["condition", "arm", *CONFIGURATION]
        both = record.tables["candidates"][keys].merge(ran[keys].drop_duplicates(), how="left", indicator="evaluated")
        assert (both["evaluated"] == "both").all()


# ---- The chapter's prose


def texts():
    """The texts about claims, {claim: {outcome: text}}, from the cell that holds them, without its function."""
    (cell,) = [cell["source"] for cell in CELLS if "\nTEXTS = {" in cell["source"]]
    tree = ast.parse(cell)
    tree.body = [node for node in tree.body if isinstance(node, ast.Assign)]
    found = {"OUTCOMES": OUTCOMES}
    exec(compile(tree, NOTEBOOK.name, "exec"), found)
    return found["TEXTS"]


def named(text):
    return [word for word in OUTCOMES if re.search(rf"\b{word}\b", text)]


def test_no_typed_sentence_of_the_conclusion_names_an_outcome():
    typed = [cell["source"] for cell in CELLS if cell["cell_type"] == "markdown"]
    assert len(typed) > 5 and [text for text in typed if named(text)] == []
    assert [text for own in texts().values() for text in own.values() if named(text)] == []


def test_texts_are_about_claims_and_regimes_that_there_are():
    known = {claim.id for claim in claims()}
    records = {r.claim.id: r for r in RECORDS}
    assert texts().keys() <= known
    for name, own in texts().items():
        for text in own.values():
            fields = [field for _, field, _, _ in string.Formatter().parse(text) if field]
            regimes = {re.fullmatch(r"effects\[(.+)\]", field)[1] for field in fields}
            assert name not in records or regimes <= records[name].effects.keys(), (name, regimes)


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.claim.id)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_outcome_beside_a_claim_is_that_of_its_record(record, outcome):
    said = overview.told(dataclasses.replace(record, verdict=outcome), texts().get(record.claim.id, {}))
    said = said.replace(record.claim.statement, "")
    assert named(said) == [outcome] and f"(*{outcome}*" in said
    assert f"](../{record.page}.ipynb)" in said


# ---- Its functions

CLAIM = Claim(
    id="overfitting.generalization",
    tag=None,
    statement="AdamW is ahead.",
    source="…",
    criterion="…",
    metric="test accuracy",
    smallest_effect=0.005,
    primary="CNN, GroupNorm",
)


def effect(mean):
    return Effect.of(pd.Series([mean - 0.001, mean, mean + 0.001] * 4), "AdamW", "Adam + L2", "test accuracy")


def record(verdict="supported", claim=CLAIM):
    found = {"CNN, GroupNorm": effect(0.02), "CNN": effect(-0.01), "MLP": effect(0.0), "RNN": effect(0.03)}
    return SimpleNamespace(claim=claim, verdict=verdict, page="part/some_chapter", effects=found)


def test_a_claim_with_a_sign_is_steady_where_every_other_tuning_said_the_same():
    own = [dataclasses.replace(CLAIM, id=f"toy.{name}") for name in ("firm", "weak", "open", "new")]
    verdicts = ("opposite", "supported", "undecided", "supported")
    records = [record(verdict, claim) for verdict, claim in zip(verdicts, own, strict=True)]
    said = {"firm": ["opposite"] * 4, "weak": ["supported", "undecided"], "open": ["undecided"] * 4}
    again = pd.DataFrame([(f"toy.{c}", v) for c, own in said.items() for v in own], columns=["claim", "verdict"])
    assert overview.steady(records, again) == {"toy.firm": True, "toy.weak": False}


def test_regimes_against_another_rival_do_not_count():
    found = record()
    found.effects["RNN"] = dataclasses.replace(found.effects["RNN"], control="Adam")
    assert overview.sides(found) == (1, 1) and "; of 3 regimes 1 for it, 1 against" in overview.told(found, {})


def test_what_is_told_of_a_claim():
    said = overview.told(record(), {"supported": "Without it {effects[CNN]}."}, chance=0.22)
    assert said.startswith(
        "* **Less overfitting** ([some chapter](../part/some_chapter.ipynb)). Without it −1.00 pp [−1"
    )
    assert "(*supported*: AdamW − (Adam + L2) +2.00 pp [" in said and "; of 4 regimes 2 for it, 1 against.)" in said
    assert "and p = 0.22 once" in said and "p =" not in overview.told(record(), {}, chance=0.01)
    assert "The statement tested: AdamW is ahead. (*opposite*" in overview.told(record("opposite"), {"supported": "x"})
    formula = record("arithmetic", dataclasses.replace(CLAIM, arithmetic=True))
    assert overview.told(formula, {"arithmetic": "It holds."}).endswith("It holds. (*arithmetic*.)")


@pytest.mark.parametrize(
    "own, says",
    [
        ({"supported": "This is supported."}, "says 'supported'"),
        ({"opposite": "no effect that matters here"}, "says 'no effect that matters'"),
        ({"refuted": "x"}, "hold 'refuted'"),
    ],
)
def test_a_text_that_names_an_outcome_is_refused(own, says):
    with pytest.raises(ValueError, match=says):
        overview.told(record(), own)


def test_records_come_in_the_order_of_the_source():
    last, first = (dataclasses.replace(CLAIM, id=name) for name in (list(overview.NAMES)[-1], list(overview.NAMES)[0]))
    found = overview.in_order([record(claim=last), record(claim=CLAIM), record(claim=first)])
    assert [r.claim.id for r in found] == [first.id, CLAIM.id, last.id]
    with pytest.raises(ValueError, match="toy.claim"):
        overview.in_order([record(claim=dataclasses.replace(CLAIM, id="toy.claim"))])


def test_outcomes_are_counted():
    assert overview.counts(["opposite", "supported", "opposite"]) == "1 supported, 2 opposite"


def test_chances_count_claims_and_leave_out_formulas():
    formula = dataclasses.replace(CLAIM, id="vanishing_gradients.drift", arithmetic=True)
    other = dataclasses.replace(CLAIM, id="overfitting.weak_gradients", primary="MLP")
    found = overview.chances([record(), record(claim=other), record(claim=formula)])
    assert found.keys() == {CLAIM.id, other.id}
    assert found[CLAIM.id] == pytest.approx(2 * record().effects["CNN, GroupNorm"].p) and found[other.id] == 1


def test_pairs_with_and_without_normalisation_in_units_of_what_matters():
    pairs = overview.normalised_pairs([record()])
    assert pairs[["regime", "contrast"]].to_numpy().tolist() == [["CNN, GroupNorm", "AdamW − (Adam + L2)"]]
    assert pairs[["plain", "normalised"]].to_numpy()[0] == pytest.approx([-2.0, 4.0])


def test_the_forest_has_the_effects_that_decide():
    (row,) = overview.forest_table([record()]).to_dict("records")
    assert (row["name"], row["outcome"], row["smallest_effect"]) == ("less overfitting", "supported", 0.005)
    decides = record().effects["CNN, GroupNorm"]
    assert (row["mean"], row["low"], row["high"]) == (decides.mean, decides.low, decides.high)


def test_an_effect_in_units_of_what_matters_is_the_same_effect():
    own = dataclasses.replace(effect(0.02), by_seeds=(0.019, 0.021), by_tuning=(0.01, 0.03), freedom=2)
    found = overview.in_deltas(SimpleNamespace(claim=CLAIM, effects={"CNN": own}), "CNN")
    assert (found.mean, *found.by_seeds, *found.by_tuning) == pytest.approx((4, 3.8, 4.2, 2, 6))
    assert found.p == pytest.approx(own.p) and overview.in_deltas(record(), "MLP").by_tuning is None
