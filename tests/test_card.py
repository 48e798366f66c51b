"""Claim cards: everything is on them, escaped, and no meaning hangs on a colour."""

import dataclasses
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from adamw_book.card import SYMBOLS, badge, claim_card, verdict_table
from adamw_book.display import listing
from adamw_book.evidence import OUTCOMES, Claim, Effect

CLAIM = Claim(
    id="toy.lift",
    tag="3096487",
    statement="AdamW has the higher test accuracy, and <b>nothing</b> else | changes.",
    source="AdamW generalises better & faster.",
    criterion="The interval lies above 0.",
    metric="test accuracy",
    smallest_effect=0.005,
    primary="depth 8",
    dividing="the depth <and> the labels",
)


def effect(mean, treatment="AdamW", control="Adam + L2"):
    differences = pd.Series(mean + 0.001 * np.linspace(-1, 1, 12))
    return Effect.of(differences, treatment, control, "test accuracy")


def tuned(mean, **changes):
    found = effect(mean)
    parts = {"by_seeds": (found.low, found.high), "by_tuning": (mean - 0.003, mean + 0.003)}
    bounds = {"low": mean - 0.004, "high": mean + 0.004}
    return dataclasses.replace(found, **bounds | parts | changes)


EFFECTS = {
    "depth <1>": tuned(0.0),
    "depth 8": tuned(0.02),
    "depth 2": tuned(-0.02),
    "depth 4": tuned(0.01, undecayed=("Adam + L2",)),
}


class Tree(HTMLParser):
    """Collects tags and text, and fails on a tag that is closed out of turn."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(html)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)

    def words(self):
        return " ".join(" ".join(self.text).split())


def test_the_card_is_one_line_and_the_rest_is_folded_away():
    html = claim_card(CLAIM, EFFECTS, note="From the record.")._repr_html_()
    front, folded = html.split("</summary>")
    words = Tree(html).words()
    shown = " ".join(re.sub("<style>.*</style>|<[^>]+>", " ", front).split())
    assert "Claim (source tag 3096487): AdamW has the higher test accuracy" in shown
    assert "✓ supported AdamW − (Adam + L2): +2.00 pp [+1.60, +2.40]" in shown and CLAIM.criterion not in shown
    for part in ("It depends on the depth <and> the labels.", "Decided by: depth 8: AdamW − (Adam + L2)",
                 CLAIM.source, CLAIM.criterion, "From the record.", "Would matter: 0.5 pp or more",
                 "other evaluation seeds [+1.9", "other tuning seeds [+1.70, +2.30]", "Over all 4 regimes: +0.25 pp",
                 "depth 2 −2.00 pp", "+1.00 pp [+0.60, +1.40] (tuning gave Adam + L2 no decay)"):  # fmt: skip
        assert part in words, part
    assert folded.count("depth &lt;1&gt;") == 1 and html.count('class="verdict ') == 1  # the map bears no badge
    assert "<b>" not in html


def test_a_close_verdict_says_what_it_hangs_on_without_a_click():
    close = {"depth 8": tuned(0.02, low=-0.001, high=0.041)}
    card = claim_card(CLAIM, close)
    (told,) = re.findall(r"</details><p[^>]*>([^<]*)</p>", card._repr_html_())
    assert "it would be “supported” if the interval had its lower end 0.10 pp higher (2% of" in told
    assert "its lower end 0.10 pp higher (2% of its width)" in card._repr_markdown_()
    both = {"depth 8": tuned(0.0, low=-0.006, high=0.0055)}
    told = "if the interval had its lower end 0.10 pp higher and its upper end 0.05 pp lower (9% of"
    assert told in Tree(claim_card(CLAIM, both)._repr_html_()).words()
    assert 'claim-close"' not in claim_card(CLAIM, EFFECTS)._repr_html_()


def test_texts_are_escaped():
    html = claim_card(CLAIM, EFFECTS, note="<script>alert(1)</script>")._repr_html_()
    assert "<b>nothing</b>" not in html and "&lt;b&gt;nothing&lt;/b&gt;" in html
    assert "<script" not in html and "better &amp; faster" in html and "depth &lt;1&gt;" in html


def test_the_card_has_headed_rows():
    tags = Tree(claim_card(CLAIM, EFFECTS)._repr_html_()).tags
    (card,) = [attrs for tag, attrs in tags if tag == "details"]
    assert card["class"] == "claim-card claim-card-supported"
    assert [attrs["scope"] for tag, attrs in tags if tag == "th"] == ["col"] * 2 + ["row"] * 3
    assert "caption" in [tag for tag, _ in tags]


@pytest.mark.parametrize("verdict", OUTCOMES)
def test_a_badge_has_a_word_and_a_symbol_of_its_own(verdict):
    tree = Tree(badge(verdict))
    assert tree.words() == f"{SYMBOLS[verdict]} {verdict}"
    assert tree.tags[0][1]["class"] == f"verdict verdict-{verdict.replace(' ', '-')}"
    assert len(set(SYMBOLS.values())) == len(OUTCOMES) == len(SYMBOLS)


def luminance(color):
    channels = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("verdict", OUTCOMES)
def test_white_words_are_legible_on_every_badge(verdict):
    html = claim_card(CLAIM, EFFECTS)._repr_html_()
    name = verdict.replace(" ", "-")
    (color,) = re.findall(rf":where\(\.verdict-{name}\) {{background: (#\w{{6}})}}", html)
    assert 1.05 / (luminance(color) + 0.05) >= 4.5


def test_the_page_can_override_the_style():
    """No style attribute, and no rule of the card's own with the weight of a class."""
    html = claim_card(CLAIM, EFFECTS)._repr_html_()
    assert "style=" not in html
    style = re.search(r"<style>(.*)</style>", html, re.DOTALL).group(1)
    for selectors in re.findall(r"([^{}]+){", style):
        assert "." not in re.sub(r":where\([^)]*\)", "", selectors), selectors


def test_nothing_is_fetched():
    html = claim_card(CLAIM, EFFECTS)._repr_html_()
    assert not re.search(r"https?:|url\(|@import|src=|href=", html)


def test_several_contrasts_are_named_in_their_rows():
    effects = {"depth 8": effect(0.02), "no decay": effect(0.03, control="Adam")}
    words = Tree(claim_card(CLAIM, effects)._repr_html_()).words()
    assert "✓ supported AdamW − (Adam + L2): +2.00 pp" in words and "AdamW − Adam: no decay +3.00 pp" in words


def test_a_card_says_where_nothing_differs():
    same = Effect.of(pd.Series([0.0] * 12), "AdamW", "Adam + L2", "test accuracy")
    words = Tree(claim_card(CLAIM, {"depth 8": effect(0.02), "tuned away": same})._repr_html_()).words()
    assert "tuned away 0.00 pp [0.00, 0.00] (no seed differs)" in words


def record(verdict="supported", effects=EFFECTS, chapter="generalization/overfitting", claim=CLAIM):
    return SimpleNamespace(chapter=chapter, page=chapter, claim=claim, verdict=verdict, effects=effects)


def test_the_table_of_verdicts_shows_the_effects_that_decide():
    table = verdict_table(iter([record(), record("opposite", chapter="foundations/decoupled_weight_decay")]))
    words = Tree(table._repr_html_()).words()
    assert "generalization · overfitting" in words and "foundations · decoupled weight decay" in words
    assert "✓ supported +2.00 pp [+1.60, +2.40] p < 0.001" in words and "✗ opposite +2.00 pp [" in words
    assert "<b>nothing" not in table._repr_html_()
    rows = table._repr_markdown_().splitlines()
    assert len(rows) == 4 and {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    with pytest.raises(ValueError, match="records is empty"):
        verdict_table([])


def test_the_table_of_verdicts_may_name_claims_lead_to_chapters_and_show_what_is_common():
    formula = record("arithmetic", claim=dataclasses.replace(CLAIM, id="toy.formula", arithmetic=True))
    names = {"toy.lift": "lift & <more>", "toy.formula": "formula"}
    table = verdict_table([record(), formula], names, lambda chapter: f'../{chapter}.html?"', together=True)
    tree = Tree(table._repr_html_())
    links = [attrs["href"] for tag, attrs in tree.tags if tag == "a"]
    assert links == ['../generalization/overfitting.html?"'] * 2
    assert "lift & <more>" in tree.words() and CLAIM.statement not in tree.words()
    assert tree.words().count("Over all 4 regimes: +0.25 pp") == 1  # a formula's regimes have nothing in common
    assert "[generalization · overfitting](../generalization/overfitting.html" in table._repr_markdown_()
    plain = verdict_table([record()])
    assert "<a " not in plain._repr_html_() and "Over all" not in plain._repr_html_()


def test_small_numbers_that_are_no_percentages_keep_four_decimals():
    radius = dataclasses.replace(CLAIM, metric="test radius")
    effects = {regime: dataclasses.replace(e, metric="test radius") for regime, e in EFFECTS.items()}
    words = Tree(claim_card(radius, effects)._repr_html_()).words()
    for part in ("AdamW − (Adam + L2): +0.0200 [+0.0160, +0.0240]", "other tuning seeds [+0.0170, +0.0230]",
                 "regimes: +0.0025 ["):  # fmt: skip
        assert part in words, part


def test_a_map_that_is_not_divided_says_nothing_of_what_divides_it():
    words = Tree(
        claim_card(CLAIM, {"depth 8": EFFECTS["depth 8"], "depth <1>": EFFECTS["depth <1>"]})._repr_html_()
    ).words()
    assert "It depends on" not in words and "Over all" not in words
    alone = claim_card(CLAIM, {"depth 8": EFFECTS["depth 8"]})
    assert "The map" not in Tree(alone._repr_html_()).words() and "| Regime |" not in alone._repr_markdown_()


def test_markdown_has_the_same_content():
    card = claim_card(CLAIM, EFFECTS, note="From the record.")
    text = card._repr_markdown_()
    assert str(card) == text and text.endswith("From the record.")
    for part in ("**Claim (source tag 3096487):** AdamW has the higher", "**✓ supported**",
                 "+2.00 pp [+1.60, +2.40]", "| depth <1> | 0.00 pp",
                 "tuning gave Adam + L2 no decay |"):  # fmt: skip
        assert part in text, part
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 5 and {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}


def test_a_formula_is_a_badge_of_its_own():
    claim = dataclasses.replace(CLAIM, arithmetic=True)
    assert "= arithmetic" in Tree(claim_card(claim, EFFECTS)._repr_html_()).words()


def test_the_table_of_verdicts_counts_its_claims():
    claims = [dataclasses.replace(CLAIM, id=f"toy.{name}", primary="a") for name in "bcd"]
    claims.append(dataclasses.replace(claims[0], id="toy.formula", arithmetic=True))
    effects = [tuned(mean, low=mean - 0.0102, high=mean + 0.0102) for mean in (0.04, 0.0125, 0.0, 0.03)]
    records = [record(effects={"a": found}, claim=claim) for found, claim in zip(effects, claims, strict=True)]
    rows = verdict_table(records)._repr_markdown_().splitlines()[2:]
    assert ["p " + row.split(" p ")[-1].strip(" |") for row in rows[:3]] == ["p < 0.001", "p = 0.04", "p = 1.00"]
    assert rows[3].endswith("] |")  # a formula is no chance


def test_a_listing_is_the_source_of_what_is_called():
    shown = listing(badge, Tree).data
    assert shown.startswith("def badge(") and "\n\nclass Tree(" in shown
    with pytest.raises(TypeError):
        listing(len)
