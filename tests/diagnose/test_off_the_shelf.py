"""The shelf of real packages: its record, and the window through which optimizers of other libraries are asked."""

import json
from pathlib import Path

import numpy as np
import pytest

from adamw_book.diagnose import conformance
from adamw_book.diagnose.black_box.words import WORDS

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def record() -> dict:
    return json.loads((BENCHMARKS / "results" / "off_the_shelf.json").read_text(encoding="utf-8"))


@pytest.fixture
def shelf(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from shelf import functional, listed

    return functional, listed


def test_the_record_holds_what_is_listed_in_the_versions_that_are_pinned(record, shelf):
    pins = dict(
        line.split("==") for line in (BENCHMARKS / "off_the_shelf.txt").read_text().splitlines() if "==" in line
    )
    for package, own in record.items():
        assert package == "adamw-book" or own["version"].partition("+")[0] == pins[package]
        assert list(own["optimizers"]) == list(shelf[1].SHELF[package][1])
        assert own["date"] and own["device"] and own["seconds"] > 0
    assert set(record) == set(shelf[1].SHELF)


def test_at_least_twenty_optimizers_were_asked_and_every_finding_has_words(record):
    asked = [found for own in record.values() for found in own["optimizers"].values() if "error" not in found]
    assert len(asked) >= 20
    findings = [finding for found in asked for finding in found["findings"]]
    assert {finding["code"] for finding in findings} <= set(WORDS)
    for found in asked:
        assert found["is_adamw"] == all(f["severity"] == "note" for f in found["findings"])


def test_a_record_that_was_cut_short_goes_on_with_what_it_lacks(shelf, monkeypatch, tmp_path):
    import off_the_shelf as script

    monkeypatch.setattr(script, "RECORD", tmp_path / "record.json")
    names = list(shelf[1].SHELF["torch"][1])

    def found(code="relative", severity="warning", effect=("100", "10000")):
        effect = dict.fromkeys(effect, 0.5)
        return {"findings": [{"code": code, "severity": severity, "effect": effect}], "seconds": 1.5}

    complete = {name: found() for name in names}
    complete[names[2]], complete[names[3]] = found("raises", effect=()), found("modes", "note", ())
    cut = complete | {names[1]: found(effect=["100"]), names[4]: {"error": "it cannot be made", "seconds": 0.0}}
    del cut[names[0]]
    whole = {"torch": {"optimizers": complete}}
    assert script.chosen(["torch"], whole) == {"torch": []}
    assert script.chosen(["torch"], {"torch": {"optimizers": cut}}) == {"torch": names[:2]}
    assert script.chosen(["torch:AdamW"], {}) == {"torch": ["AdamW"]} and len(script.chosen(None, {})) > 10
    with pytest.raises(SystemExit, match="there is no torch:AdamV on the shelf"):
        script.chosen(["torch:AdamV"], {})
    record = {"keras": {"optimizers": {}}, "torch": {"optimizers": cut}}
    script.written(record, "torch", {"version": "2"}, names[0], found())
    kept = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert list(kept) == ["torch", "keras"] and list(kept["torch"]["optimizers"]) == names
    assert kept["torch"]["seconds"] == 1.5 * (len(names) - 1) and kept["torch"]["version"] == "2"


def test_torchs_own_classes_are_what_the_record_says(record, shelf):
    for name in ("AdamW", "AdamW, amsgrad", "Adam, decoupled_weight_decay"):
        found = conformance(shelf[1].made("torch", name))
        recorded = record["torch"]["optimizers"][name]["findings"]
        assert [f.code for f in found.findings] == [f["code"] for f in recorded]


def test_an_optimizer_of_another_library_is_asked_through_a_window(shelf):
    class Numpy(shelf[0].Adapted):
        """AdamW on numpy arrays."""

        def __init__(self, params, lr=1e-3, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01):
            super().__init__(params, {"lr": lr, "b1": b1, "b2": b2, "eps": eps, "weight_decay": weight_decay})
            self.t, self.m, self.v = 0, 0.0, 0.0

        def moved(self, values, gradients):
            c, self.t, moved = self.coefficients, self.t + 1, []
            shapes = [v.shape for v in values]
            g = np.concatenate([g.ravel() for g in gradients])
            self.m = c["b1"] * self.m + (1 - c["b1"]) * g
            self.v = c["b2"] * self.v + (1 - c["b2"]) * g * g
            step = (self.m / (1 - c["b1"] ** self.t)) / (np.sqrt(self.v / (1 - c["b2"] ** self.t)) + c["eps"])
            for value, size, start in zip(
                values, map(np.prod, shapes), np.cumsum([0, *map(np.prod, shapes)]), strict=False
            ):
                own = step[start : start + size].reshape(value.shape)
                moved.append(value * (1 - c["lr"] * c["weight_decay"]) - c["lr"] * own)
            return moved

        def kept(self):
            return [self.t, self.m, self.v]

        def keep(self, kept):
            self.t, self.m, self.v = kept

    report = conformance(Numpy)
    assert report.is_adamw and report.findings == []
    assert report.answers["gradient None"] == "not asked: there is no gradient None"
    assert report.answers["parameter groups"] == "not asked: there are no parameter groups"
