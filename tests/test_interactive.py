"""The pictures that a reader moves, in headless Chromium: they equal the Python that they stand for."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from unavailable import unavailable

from adamw_book import dynamics, ledger
from adamw_book.diagnose import audit_numbers
from adamw_book.diagnose.auditing.course import FALLING
from adamw_book.diagnose.auditing.finding import TEMPLATES
from adamw_book.interactive.calculator import OUTPUTS, calculator, course_left
from adamw_book.interactive.page import picture
from adamw_book.interactive.records import by_dose, doses
from adamw_book.interactive.weights import (
    EPS,
    KINDS,
    LAST,
    LIMITS,
    RANGES,
    RING,
    START,
    STEPS,
    arrivals,
    at_rest,
    paths,
    three_weights,
    values_of,
)
from adamw_book.schedules import SCHEDULES

ROOT = Path(__file__).resolve().parent.parent
BIT, FLIPPED = "test accuracy", "flipped test accuracy"
NETWORKS = ["bit · MLP", "bit · linear"]
START_OF_RUN = {"lr": 3e-4, "weight_decay": 0.1, "steps": 1000, "schedule": "cosine", "warmup": 100, "final": 0.0}


# ---- The closed forms against the optimizer


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.mark.parametrize(("lr", "weight_decay", "l2", "sigma"), [(1e-3, 0.1, 1e-2, 1e-2), (5e-3, 2.0, 0.2, 0.05)])
def test_silent_and_driven_paths_are_those_of_the_optimizer(lr, weight_decay, l2, sigma):
    steps = np.arange(1, 601)
    found = paths(lr, weight_decay, l2, sigma, steps)
    arms = {"AdamW": {"weight_decay": weight_decay}, "Adam + L2": {"l2": l2}, "Adam": {}}
    for arm, hyper in arms.items():
        silent = dynamics.drive(dynamics.silent, column(START), 600, lr=lr, **hyper)[1:, 0, 0].numpy()
        driven = dynamics.drive(lambda step, w: column(-sigma), column(0.0), 600, lr=lr, **hyper)[1:, 0, 0].numpy()
        moving = slice(None)
        if arm == "Adam + L2":  # until it first arrives where it rests
            moving = slice(0, (arrivals(lr, weight_decay, l2)[arm] or LAST) - 1)
            assert (np.abs(silent[moving.stop :]) < 5 * lr).all() and moving.stop > 10
        np.testing.assert_allclose(found["silent"][arm][moving], silent[moving], rtol=1e-6)
        level = at_rest(lr, weight_decay, l2, sigma)["driven"][arm]
        near = slice(None) if arm != "Adam + L2" else slice(0, int(np.argmax(driven > level - lr / RING) or 600))
        np.testing.assert_allclose(found["driven"][arm][near], driven[near], rtol=1e-5)
        assert near.stop is None or near.stop > 10


def test_the_sizes_at_rest_are_those_of_the_optimizer():
    lr, weight_decay = 1e-2, (1.0, 3.0, 0.5)
    l2, sigma = (1e-2, 0.1, 3e-2), (1e-2, 1e-3, 0.1)  # ηℓ/σ up to 1
    draw = dynamics.noise(torch.tensor(sigma * 2)[:, None], rng())
    hyper = {"weight_decay": torch.tensor([*weight_decay, 0, 0, 0]), "l2": torch.tensor([0, 0, 0, *l2])}
    found = dynamics.drive(draw, torch.zeros(6, 300), 6000, lr=lr, **hyper)[-2000:].square().mean((0, 2)).sqrt()
    ends = [at_rest(lr, *setting)["noisy"] for setting in zip(weight_decay, l2, sigma, strict=True)]
    expected = [end[arm] for arm in ("AdamW", "Adam + L2") for end in ends]
    np.testing.assert_allclose(found, expected, rtol=0.12)

    l2, nudge = (1.0, 1e-3, 1e-5), (1e-9, 1e-9, 1e-12)  # the last one is damped by ε
    draw = dynamics.noise(torch.tensor(nudge)[:, None], rng())
    path = dynamics.drive(draw, torch.full((3, 16), START), 15_000, lr=lr, l2=torch.tensor(l2))[-4000:]
    ends = [at_rest(lr, 1.0, penalty, 1.0)["silent"]["Adam + L2"] for penalty in l2]
    late = path.square().mean((0, 2)).sqrt()
    np.testing.assert_allclose(late[:2], ends[:2], rtol=0.15)
    assert ends[1] == lr / RING - EPS / 1e-3 and ends[2] == 0 and late[2] < 0.01 * lr / RING


def test_a_noisy_weight_spreads_as_the_formula_says():
    lr, weight_decay, l2, sigma = 1e-2, 1.0, 1e-2, 1e-2
    steps = np.array([30, 100, 300, 1000, 3000])
    found = paths(lr, weight_decay, l2, sigma, steps)["noisy"]
    for arm, hyper in {"AdamW": {"weight_decay": weight_decay}, "Adam + L2": {"l2": l2}, "Adam": {}}.items():
        path = dynamics.drive(dynamics.noise(sigma, rng(1)), torch.zeros(1, 2000), 3000, lr=lr, **hyper)
        np.testing.assert_allclose(path[steps].square().mean((1, 2)).sqrt(), found[arm], rtol=0.25)


# ---- The page


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return ledger.read("covariate_shift.shift").tables["dose"]


@pytest.fixture(scope="module")
def html(table) -> str:
    """A page that holds all of them, and nothing else."""
    shown = (
        three_weights(),
        by_dose(table, {BIT: "as in training", FLIPPED: "flipped"}, NETWORKS, "recorded"),
        calculator(**START_OF_RUN),
    )
    body = "".join(f"<h2>{i}</h2>{one._repr_html_()}" for i, one in enumerate(shown))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>To move</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"</head><body><main><h1>To move</h1>{body}</main></body></html>"
    )


@pytest.fixture
def opened(browser, html, tmp_path):
    """Opens the page with these options of a browser context; `page.problems` is what must stay empty."""
    contexts, file = [], tmp_path / "page.html"
    file.write_text(html, encoding="utf-8")

    def at(**options):
        contexts.append(browser.new_context(**{"viewport": {"width": 900, "height": 900}, **options}))
        page = contexts[-1].new_page()
        page.problems = []
        page.on("console", lambda it: page.problems.append(f"console: {it.text}"))
        page.on("pageerror", lambda it: page.problems.append(f"script: {it}"))
        address = file.as_uri()
        page.on(
            "request",
            lambda it: (
                page.problems.append(it.url) if it.url not in (address,) and not it.url.startswith("data:") else None
            ),
        )
        page.goto(address)
        return page

    yield at
    for context in contexts:
        context.close()


@pytest.fixture
def page(opened):
    page = opened()
    yield page
    assert page.problems == []


# What is drawn as numbers again: the curves of a panel, by the places of the first and the last grid line of each axis.
DECODED = """
(svg, [x, y]) => {
  const numbers = (d) => d.match(/-?[\\d.]+/g).map(Number);
  const grid = [...svg.querySelectorAll(".grid")].map((line) => line.getAttribute("d"));
  const upright = grid.filter((d) => d.includes("V")).map((d) => numbers(d)[0]);
  const level = grid.filter((d) => d.includes("H")).map((d) => numbers(d)[1]);
  const back = (place, [a, b], [from, to]) => from + ((place - a) / (b - a)) * (to - from);
  const ends = (all) => [all[0], all.at(-1)];
  return Object.fromEntries([...svg.querySelectorAll("path.line")].map((line) => {
    const found = numbers(line.getAttribute("d")), points = [];
    for (let i = 0; i < found.length; i += 2) {
      points.push([back(found[i], ends(upright), x), back(found[i + 1], ends(level), y)]);
    }
    return [line.dataset.arm, points];
  }));
}
"""


def four_digits(shown: str) -> float:
    """A number as a reader reads it: 1,234 · 0.01234 · 1.234·10⁻⁵."""
    mantissa, _, power = shown.replace(",", "").partition("·10")
    return float(f"{mantissa}e{power.translate(str.maketrans('⁰¹²³⁴⁵⁶⁷⁸⁹⁻', '0123456789-')) or 0}")


def agree(value: float, shown: str, expected: float) -> bool:
    """Whether a number is the expected one, and is shown with four digits of it; from 1,000 on with all whole ones."""
    half = 0.51 if 1e3 <= abs(expected) < 1e7 else 5.01e-4 * abs(expected)
    return math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-300) and abs(four_digits(shown) - expected) <= half


def test_the_slider_picture_equals_the_closed_forms(page):
    """200 random settings: every number of the table to four digits, every curve to four digits of its size."""
    for panel in page.locator(".movable-weights .panel").all():
        ticks = [text for text in panel.locator("text").all_text_contents() if text.startswith("1")]
        assert ticks == ["1", "10¹", "10²", "10³", "10⁴", "10⁵", "10⁻⁶", "10⁻⁴", "10⁻²", "1", "10²"]
    draw = np.random.default_rng(0)
    positions = [{name: int(draw.integers(len(values_of(name)))) for name in RANGES} for _ in range(200)]
    found = page.evaluate(
        f"""(positions) => {{
          const root = document.querySelector(".movable-weights"), decoded = {DECODED};
          return JSON.stringify(positions.map((setting) => {{  // as text: it is much
            for (const [name, position] of Object.entries(setting)) {{
              const input = root.querySelector(`input[name=${{name}}]`);
              input.value = position;
              input.dispatchEvent(new Event("input", {{ bubbles: true }}));
            }}
            const numbers = (cell) => [...cell.querySelectorAll("data")].map((e) => [Number(e.value), e.textContent]);
            const cells = [...root.querySelectorAll("tbody td")].map((cell) => [...numbers(cell), [cell.textContent]]);
            const curves = Object.fromEntries([...root.querySelectorAll(".panel")].map((svg) =>
              [svg.dataset.kind, decoded(svg, [[0, 5], [-6, 2]])]));
            return {{ cells, curves, remark: root.querySelector(".remark").textContent }};
          }}));
        }}""",
        positions,
    )
    inside, rough = 0, 0
    for setting, shown in zip(positions, json.loads(found), strict=True):
        values = {name: values_of(name)[position] for name, position in setting.items()}
        end, curves = at_rest(**values), paths(**values)
        when = arrivals(values["lr"], values["weight_decay"], values["l2"])
        cells = iter(shown["cells"])
        for arm in ("AdamW", "Adam + L2", "Adam"):
            for kind in KINDS:
                expected = [end[kind][arm]] if end[kind][arm] is not None else []
                expected += [when[arm]] if kind == "silent" and when.get(arm) is not None else []
                *numbers, [text] = next(cells)
                assert len(numbers) == len(expected), (values, kind, arm, text)
                assert all(agree(*n, e) for n, e in zip(numbers, expected, strict=True)), (values, kind, arm, text)
                assert ("no rest" in text) == (end[kind][arm] is None)
                at, size = np.array(shown["curves"][kind][arm]).T
                np.testing.assert_allclose(10**at, STEPS, rtol=5e-4)
                seen = (curves[kind][arm] > LIMITS[0]) & (curves[kind][arm] < LIMITS[1])
                np.testing.assert_allclose(10 ** size[seen], curves[kind][arm][seen], rtol=5e-4)
                below = curves[kind][arm] < LIMITS[0] / 2
                assert (size[below] < -6).all()
                inside += seen.sum()
        share = values["lr"] * values["l2"] / values["sigma"]
        rough += share > 1
        assert ("only rough here" in shown["remark"]) == (share > 1)
    assert inside > 150_000 / 2 and 0 < rough < 200


def test_a_record_is_shown_as_it_is(page, table):
    """Every stop of every slider: the means and intervals of the record; the star at the best of the first metric."""
    stops = page.evaluate(
        """() => {
          const root = document.querySelector(".movable-records"), found = [];
          const [condition, arm] = root.querySelectorAll("select"), slider = root.querySelector("input");
          for (const c of condition.options) for (const a of arm.options) {
            condition.value = c.value; arm.value = a.value;
            arm.dispatchEvent(new Event("change"));
            const begins = slider.value;
            for (let i = 0; i <= slider.max; i++) {
              slider.value = i;
              slider.dispatchEvent(new Event("input"));
              const dose = root.querySelector("output data");
              const rows = [...root.querySelectorAll("tbody tr")].map((row) =>
                [...row.cells].slice(1).map((e) => e.textContent));
              const chosen = [...root.querySelectorAll(".mark.chosen")].map((e) => e.dataset.point);
              const caption = root.querySelector("caption").textContent, says = slider.getAttribute("aria-valuetext");
              const label = root.querySelector(`label[for=${slider.id}]`).textContent, best = begins === String(i);
              const stop = { condition: c.value, arm: a.value, at: dose.value, i };
              found.push({ ...stop, best, rows, chosen, caption, says, label });
            }
          }
          return found;
        }"""
    )
    own = table[table["condition"].isin(NETWORKS) & table["metric"].isin([BIT, FLIPPED])]
    own = own[own["arm"] != "Adam"].assign(dose=lambda t: t["weight_decay"] + t["l2"])
    means = own.groupby(["condition", "arm", "dose", "metric"])["value"]
    summary = pd.DataFrame({"mean": means.mean(), "se": means.sem()})["mean"].unstack()
    assert len(stops) == len(summary)
    for condition, arm in {(stop["condition"], stop["arm"]) for stop in stops}:
        order = [float(stop["at"]) for stop in stops if (stop["condition"], stop["arm"]) == (condition, arm)]
        assert order == sorted(order)
    for stop in stops:
        arm, condition, dose = stop["arm"], stop["condition"], float(stop["at"])
        row = summary.loc[(condition, arm, dose)]
        assert [float(mean) for mean, _ in stop["rows"]] == pytest.approx([row[BIT], row[FLIPPED]], abs=6e-4)
        for metric, (mean, interval) in zip((BIT, FLIPPED), stop["rows"], strict=True):
            low, high = map(float, re.findall(r"[\d.]+", interval))
            values = means.get_group((condition, arm, dose, metric))
            assert (low + high) / 2 == pytest.approx(float(mean), abs=1.1e-3)
            assert (high - low) / 2 == pytest.approx(2.0687 * values.sem(), abs=7e-4)  # Student's t, 23 degrees
        assert stop["best"] == (row[BIT] == summary.loc[(condition, arm)][BIT].max())
        symbol = {"AdamW": "λ", "Adam + L2": "ℓ"}[arm]
        assert stop["says"].startswith(f"{symbol} = ") and stop["label"] == f"{symbol} of {arm}"
        assert condition in stop["caption"] and "24 seeds" in stop["caption"] and "lr = 0.015" in stop["caption"]
        assert stop["chosen"] == [str(stop["i"])] * 2


def test_the_marks_of_a_record_stand_at_its_means(page, table):
    drawn = page.evaluate(
        f"""() => {{
          const svg = document.querySelector(".movable-records .panel"), words = [...svg.querySelectorAll("text")];
          const all = ({DECODED.replace("path.line", "path.line[data-metric='1']")})(svg, [[-1, 1], [1, 0.2]]);
          return Object.values(all)[0];
        }}"""
    )
    found = doses(table, [BIT, FLIPPED], NETWORKS)["bit · MLP"]["AdamW"]
    # the grid: a line for 0, then 0.1, 1, 10; 1, 0.8 … 0.2
    assert [y for _, y in drawn] == pytest.approx([point["values"][1][0] for point in found], abs=1e-3)


# ---- The calculator against the audit

FILL = """
(settings) => {
  const root = document.querySelector(".movable-calculator"), form = root.querySelector("form");
  return JSON.stringify(settings.map((texts) => {
    for (const [name, text] of Object.entries(texts)) form.elements[name].value = text;
    form.requestSubmit();
    const cells = Object.fromEntries([...root.querySelectorAll("tr[data-key]")].map((row) => {
      const number = row.querySelector("data");
      return [row.dataset.key, number ? [number.value, number.textContent] : row.cells[1].textContent];
    }));
    const fields = [...form.elements], said = (e) => document.getElementById(e.getAttribute("aria-describedby"));
    const findings = [...root.querySelectorAll(".findings li")].map((item) =>
      [item.textContent, item.querySelector("code")?.textContent]);
    const wrong = Object.fromEntries(fields.map((e) => [e.name, said(e).textContent]));
    const invalid = fields.filter((e) => e.getAttribute("aria-invalid") === "true").map((e) => e.name);
    const curve = (DECODED)(root.querySelector(".panel"), [[0, 1], [0, 1]]).AdamW;
    return { cells, findings, wrong, invalid, curve };
  }));
}
""".replace("DECODED", DECODED)


def filled(page, *settings: dict) -> list[dict]:
    texts = [{name: "" if value is None else str(value) for name, value in setting.items()} for setting in settings]
    found = json.loads(page.evaluate(FILL, texts))
    for shown in found:
        numbers = {key: (float(cell[0]), cell[1]) for key, cell in shown["cells"].items() if cell != "–"}
        shown["cells"] |= numbers
    return found


def settings_of(draw: np.random.Generator) -> dict:
    steps = int(10 ** draw.uniform(0, 4.3))
    schedule = str(draw.choice(list(SCHEDULES)))
    sized = draw.random() < 0.5
    data = int(10 ** draw.uniform(2, 7))
    return {
        "lr": float(f"{10 ** draw.uniform(-5, 0):.3g}"),
        "weight_decay": 0.0 if draw.random() < 0.04 else float(f"{10 ** draw.uniform(-3, 1.5):.3g}"),
        "steps": steps,
        "schedule": schedule,
        "warmup": int(draw.random() ** 2 * steps) if draw.random() < 0.6 else 0,
        "final": round(draw.random(), 2) if schedule in FALLING and draw.random() < 0.5 else 0,
        "batch_size": int(draw.integers(1, data)) if sized else None,
        "dataset_size": data if sized else None,
    }


def test_the_calculator_equals_the_audit(page):
    """200 random settings: every number to four digits, every finding word for word, the course to a thousandth."""
    draw = np.random.default_rng(3)
    settings = [settings_of(draw) for _ in range(200)]
    codes = set()
    for setting, shown in zip(settings, filled(page, *settings), strict=True):
        expected = audit_numbers(**setting)
        assert shown["invalid"] == []
        for key in OUTPUTS:
            if expected[key] is None:
                assert shown["cells"][key] == "–", (setting, key)
            else:
                assert agree(*shown["cells"][key], expected[key]), (setting, key, shown["cells"][key], expected[key])
        told = [[f"{f['severity']}: {f['text']} {f['fix']}", f["fix"]] for f in expected["findings"]]
        assert shown["findings"] == (told or [["Nothing found that would need to be mended.", None]]), setting
        codes |= {finding["code"] for finding in expected["findings"]}
        at, left = course_left(*(setting[name] for name in START_OF_RUN))
        x, y = np.array(shown["curve"]).T
        assert x[0] == 0 and x[-1] == pytest.approx(1, abs=1e-4)
        inside = (left >= 0) & (left <= 1)
        np.testing.assert_allclose(y[inside], np.interp(x * setting["steps"], at, left)[inside], atol=2e-3)
    assert codes == set(TEMPLATES)


def test_the_calculator_equals_the_audit_at_the_ends_of_what_can_be(page):
    settings = [
        START_OF_RUN | {"steps": 1, "warmup": 0},
        START_OF_RUN | {"lr": 1.0, "weight_decay": 1.0},
        START_OF_RUN | {"lr": 1e150, "weight_decay": 1e150},
        START_OF_RUN | {"lr": 1e-300, "weight_decay": 1e-300},
        START_OF_RUN | {"weight_decay": 1e6, "schedule": "constant"},
        START_OF_RUN | {"warmup": 999, "final": 1.0},
        START_OF_RUN | {"steps": 1_000_000, "batch_size": 7, "dataset_size": 7},
    ]
    for setting, shown in zip(settings, filled(page, *settings), strict=True):
        expected = audit_numbers(**setting)
        for key in OUTPUTS:
            if expected[key] is None or not math.isfinite(expected[key]):
                assert shown["cells"][key] == "–" or not math.isfinite(shown["cells"][key][0]), (setting, key)
            else:
                assert shown["cells"][key][0] == pytest.approx(expected[key], rel=1e-9), (setting, key)
        assert [f[0] for f in shown["findings"]] == [
            f"{f['severity']}: {f['text']} {f['fix']}" for f in expected["findings"]
        ] or not expected["findings"]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        *[("lr", text) for text in ("-1", "0", "abc", "nan", "inf", "1e999", "1e-400", "3e", "0x10", "1,5")],
        *[("weight_decay", text) for text in ("-0.1", "nan", "inf", "ten")],
        *[("steps", text) for text in ("0", "-5", "10000001", "1.5", "1e3", "many")],
        *[("warmup", text) for text in ("1000", "-1", "2.5", "x")],
        *[("final", text) for text in ("-0.1", "1.01", "half")],
        *[("dataset_size", text) for text in ("0", "-3", "2.5")],
        *[("batch_size", text) for text in ("0", "101", "1.5")],
    ],
)
def test_bad_input_is_refused_next_to_its_field_in_the_words_of_the_audit(page, field, text):
    good = START_OF_RUN | {"batch_size": 10, "dataset_size": 100}
    whole = field in ("steps", "warmup", "batch_size", "dataset_size") and re.fullmatch(r"[+-]?\d+", text)
    with pytest.raises(ValueError) as refused:
        audit_numbers(**good | {field: int(text) if whole else text})
    bad, mended = filled(page, good | {field: text}, good)
    assert {name: said for name, said in bad["wrong"].items() if said} == {field: str(refused.value)}
    assert bad["invalid"] == [field] and set(bad["cells"].values()) == {"–"} and bad["findings"] == []
    assert mended["invalid"] == [] and not any(mended["wrong"].values()) and mended["cells"]["remaining"] != "–"


def test_other_refusals_are_those_of_the_audit(page):
    for change, field in (
        ({"schedule": "WSD", "final": 0.1}, "final"),
        ({"batch_size": 10}, "dataset_size"),
        ({"dataset_size": 10}, "batch_size"),
    ):
        setting = START_OF_RUN | {"batch_size": None, "dataset_size": None} | change
        with pytest.raises(ValueError) as refused:
            audit_numbers(**setting)
        [bad] = filled(page, setting)
        assert {name: said for name, said in bad["wrong"].items() if said} == {field: str(refused.value)}
    [bad] = filled(page, START_OF_RUN | {"lr": "", "steps": "0", "batch_size": None, "dataset_size": None})
    assert bad["invalid"] == ["lr", "steps"] and bad["wrong"]["lr"].startswith("lr: nothing; a finite number")


def test_the_chosen_numbers_are_what_the_calculator_begins_with(page):
    shown = page.locator(".movable-calculator form").evaluate(
        "form => Object.fromEntries([...form.elements].map(e => [e.name, e.value]))"
    )
    expected = {
        name: "" if value is None else f"{value:g}" for name, value in START_OF_RUN.items() if name != "schedule"
    }
    assert shown == expected | {"schedule": "cosine", "batch_size": "", "dataset_size": ""}
    with pytest.raises(ValueError, match="lr: -1"):
        calculator(lr=-1)


# ---- Words, keys, and what is heard


def test_numbers_in_findings_are_written_as_python_writes_them(page):
    draw = np.random.default_rng(1)
    values = [
        *(draw.choice([-1, 1], 500) * 10 ** draw.uniform(-12, 12, 500)),
        0.0,
        1.0,
        10.0,
        99.95,
        1e4,
        1e5,
        9.9996e-5,
    ]
    source = (ROOT / "adamw_book" / "interactive" / "drawing.js").read_text(encoding="utf-8")
    for digits in (2, 3, 4):
        found = page.evaluate(f"(values) => {{ {source}; return values.map((v) => g(v, {digits})); }}", values)
        assert found == [format(value, f".{digits}g") for value in values]
        assert page.evaluate(
            f"() => {{ {source}; return [Infinity, -Infinity, NaN].map((v) => g(v, {digits})); }}"
        ) == [
            "inf",
            "-inf",
            "nan",
        ]


def test_numbers_for_people_keep_four_digits_and_whole_numbers_whole(page):
    source = (ROOT / "adamw_book" / "interactive" / "drawing.js").read_text(encoding="utf-8")
    values = {
        0: "0",
        0.5: "0.5",
        0.0123456: "0.01235",
        25137: "25,137",
        6931.1: "6,931",
        2.53158e-5: "2.532·10⁻⁵",
        3e7: "3·10⁷",
    }
    assert page.evaluate(f"(values) => {{ {source}; return values.map((v) => spelled(v)); }}", list(values)) == list(
        values.values()
    )


def test_a_slider_follows_the_keys_and_says_its_value(page):
    weights = page.locator(".movable-weights")
    slider = weights.get_by_label("decay λ (AdamW)")
    assert slider.get_attribute("aria-valuetext") == "0.1"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert slider.evaluate("e => e === document.activeElement")
    before = weights.locator("tbody td").nth(2).inner_text()
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "0.13"
    assert weights.locator(f"output[for={slider.get_attribute('id')}]").inner_text() == "0.13"
    assert before == "10" and weights.locator("tbody td").nth(2).inner_text() == "7.692"
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext") == "10"
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext") == "0.01"
    records = page.locator(".movable-records")
    records.get_by_label("kind of decay").focus()
    page.keyboard.press("ArrowDown")
    assert "Adam + L2" in records.locator("caption").inner_text()
    page.keyboard.press("Tab")
    page.keyboard.press("Home")
    assert "ℓ = 0," in records.locator("caption").inner_text()


def test_the_calculator_is_filled_in_with_the_keyboard(page):
    root = page.locator(".movable-calculator")
    root.get_by_label("weight decay λ").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("-3")
    page.keyboard.press("Enter")
    assert root.locator("p.wrong:not(:empty)").inner_text().startswith("weight_decay: -3;")
    page.keyboard.press("Control+A")
    page.keyboard.type("0.5")
    root.locator("p.wrong:not(:empty)").wait_for(state="detached")  # without Enter, a moment later
    page.keyboard.press("Tab")
    assert root.get_by_label("steps", exact=True).evaluate("e => e === document.activeElement")
    expected = audit_numbers(**START_OF_RUN | {"weight_decay": 0.5})
    shown = root.locator("tr[data-key=remaining] data").get_attribute("value")
    assert float(shown) == pytest.approx(expected["remaining"], rel=1e-9)


def test_what_is_announced_is_announced_once_things_are_still(browser, html):
    context = browser.new_context()
    page = context.new_page()
    page.clock.install(time=0)
    page.set_content(html)
    page.clock.pause_at(10_000)
    said = page.locator(".movable-weights .said")
    assert page.locator(".said").all_inner_texts() == ["", "", ""]  # nothing of what stands there at first
    page.evaluate(
        """() => {
          window.heard = [];
          const said = document.querySelector(".movable-weights .said");
          new MutationObserver(() => heard.push(said.textContent)).observe(said, { childList: true });
        }"""
    )
    page.locator(".movable-weights input").first.focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
        page.clock.run_for(300)
    assert page.evaluate("heard") == []
    page.clock.run_for(1000)
    assert len(page.evaluate("heard")) == 1 and "At rest. silent: AdamW 0, half at step" in said.inner_text()
    assert page.locator("[aria-live]:not([aria-live=off])").count() == 3
    context.close()


# ---- Seen by everyone


def axe_of(page) -> list[str]:
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        unavailable("axe-playwright-python is not installed: pip install -r requirements.txt")
    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {node['html'][:90]}" for v in found for node in v["nodes"]]


@pytest.mark.parametrize("width", [900, 390])
@pytest.mark.parametrize("ground", ["light", "dark"])
def test_axe_finds_nothing(opened, width, ground):
    page = opened(viewport={"width": width, "height": 844})
    if ground == "dark":
        page.add_style_tag(content="body {background: #14181e; color: #ced6dd}")
    assert axe_of(page) == []
    filled(page, START_OF_RUN | {"lr": "x", "steps": "0"})
    assert page.locator("p.wrong:not(:empty)").count() == 2
    assert axe_of(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.problems == []


@pytest.mark.parametrize("width", [720, 358])
def test_a_picture_to_move_is_not_higher_than_half_a_thousand_pixels_on_a_desk(opened, width):
    page = opened(viewport={"width": width + 16, "height": 844})
    heights = page.locator(".movable").evaluate_all("all => all.map(e => e.offsetHeight)")
    assert max(heights) <= (500 if width == 720 else 900), heights


def test_colours_of_lines_stand_apart_from_light_and_dark_ground(page):
    """WCAG 1.4.11: 3 to 1 for what is drawn."""
    colours = page.locator("path.line[data-arm], .mark").evaluate_all(
        "all => [...new Set(all.map(e => getComputedStyle(e).stroke))]"
    )
    linear = lambda v: v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4  # noqa: E731
    light = lambda rgb: sum(w * linear(v / 255) for w, v in zip((0.2126, 0.7152, 0.0722), rgb, strict=True))  # noqa: E731
    drawn = [tuple(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours]
    assert len(drawn) == 3  # two, and the colour of the text
    for colour in set(drawn) - {(0, 0, 0)}:
        for ground in ((255, 255, 255), (20, 24, 30)):
            low, high = sorted((light(colour), light(ground)))
            assert (high + 0.05) / (low + 0.05) > 3, colour


# ---- Without scripts


def test_without_scripts_and_in_print_the_still_pictures_stand_there(opened):
    still = opened(java_script_enabled=False)
    for page in (still, opened()):
        if page is not still:
            assert page.locator(".still").evaluate_all("all => all.every(e => !e.checkVisibility())")
            assert page.locator(".live").evaluate_all("all => all.every(e => e.checkVisibility())")
            page.emulate_media(media="print")
        assert [page.locator(".still img").nth(i).is_visible() for i in range(3)] == [True] * 3
        assert [page.locator(".live").nth(i).is_visible() for i in range(3)] == [False] * 3
        boxes = [page.locator(".still img").nth(i).bounding_box() for i in range(3)]
        assert all(box["width"] > 300 and box["height"] > 150 for box in boxes)  # a broken picture is small
        assert "left of the initial weights" in page.locator(".still pre").inner_text()
        assert all(len(page.locator(".still img").nth(i).get_attribute("alt")) > 80 for i in range(3))
    assert still.problems == []


def test_the_still_picture_shows_its_numbers_whole():
    fig, ax = plt.subplots()
    ax.set_title("at 0.000321")
    html = picture(fig, 'an "alt" < 1')
    assert "at 0.000321" in html and 'alt="an &quot;alt&quot; &lt; 1"' in html and len(html) < 20_000
    assert not plt.fignum_exists(fig.number)


def test_a_picture_to_move_is_light_and_says_itself_where_there_is_no_html(table):
    for one in (three_weights(), by_dose(table, {BIT: "a", FLIPPED: "b"}, NETWORKS, "recorded"), calculator()):
        html = one._repr_html_()
        assert len(html) < 60_000
        assert not re.search(r"https?://(?!www\.w3\.org/)", html)
        assert len(one._repr_markdown_()) > 100


def test_data_cannot_end_the_script(table):
    html = by_dose(table, {BIT: "</script><b>", FLIPPED: "b"}, NETWORKS, "a</script>b")._repr_html_()
    assert html.count("</script>") == 1 and "\\u003c/script>" in html and "<b>" not in html


# ---- What cannot be shown


def test_a_table_that_lacks_something_is_refused(table):
    with pytest.raises(ValueError, match="metrics: .*; two are needed"):
        by_dose(table, {BIT: "a"}, NETWORKS, "recorded")
    with pytest.raises(ValueError, match="no 'recall' of AdamW, bit · MLP"):
        doses(table, [BIT, "recall"], NETWORKS)
    with pytest.raises(ValueError, match="no 'test accuracy' of AdamW, nowhere"):
        doses(table, [BIT], ["nowhere"])
    with pytest.raises(ValueError, match="one seed for a configuration"):
        doses(table[table["seed"] == 2000], [BIT], NETWORKS)
    with pytest.raises(ValueError, match="lacks the column 'lr'"):
        doses(table.drop(columns="lr"), [BIT], NETWORKS)


# ---- In the book

CHAPTERS = {
    "foundations/decoupled_weight_decay": "weights",
    "robustness/covariate_shift": "records",
    "robustness/adversarial_robustness": "records",
    "practice/field_guide": "calculator",
}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_has_its_picture_to_move(chapter):
    cells = json.loads((ROOT / "chapters" / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    calls = {"weights": "three_weights()", "records": "by_dose(", "calculator": "calculator()"}
    assert any(calls[CHAPTERS[chapter]] in "".join(cell["source"]) for cell in cells)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_it_moves_in_the_built_book(browser, chapter):
    built = ROOT / "_build" / "html" / "chapters" / f"{chapter}.html"
    carried = [f"{CHAPTERS[chapter]}.js", "drawing.js", "movable.css"]
    texts = [(ROOT / "adamw_book" / "interactive" / name).read_text(encoding="utf-8") for name in carried]
    if not built.exists() or not all(text in built.read_text(encoding="utf-8") for text in texts):
        unavailable("there is no built book with this picture as it is now: run `make book` first")
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(built.as_uri())
    root = page.locator(f".movable-{CHAPTERS[chapter]}.awake")
    assert root.count() == 1 and root.locator(".live").is_visible() and not root.locator(".still").is_visible()
    assert root.evaluate("e => e.offsetHeight") <= 500
    assert root.evaluate("e => e.scrollWidth <= e.clientWidth")
    context.close()
