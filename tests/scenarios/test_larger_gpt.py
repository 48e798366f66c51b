"""Frontier · language model: the larger GPT's text and protocol, on a CPU and in small."""

import hashlib
import json
import math
import sysconfig

import pytest
import torch
from torch.nn import functional

from adamw_book import command_line, ledger, scenarios
from adamw_book.scenarios.language_model import larger_gpt, outliers, rows, study, tasks, text

# ---- the text


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(content.encode())


def test_the_library_is_its_ascii_modules_but_for_what_not_every_machine_has(tmp_path):
    kept = {f"{name}.py": f"# {name}\n" for name in "abcdefgh"} | {"pack/testing.py": "x\n", "distutils_.py": "y\n"}
    folders = sorted(name for name in text.LEFT_OUT if not name.endswith(".py"))
    left = {f"{folder}/x.py": "x\n" for folder in folders} | {f"pack/{folder}/x.py": "x\n" for folder in folders}
    left |= {"turtle.py": "x\n", "_sysconfigdata__linux_.py": "x\n", "config-3.11-x/x.py": "x\n"}
    left |= {"accent.py": "# é\n", "notes.txt": "x\n"}
    write(tmp_path, kept | left | {"windows.py": "one\r\ntwo\r\n"})
    found = text.standard_library(tmp_path)
    assert found == kept | {"windows.py": "one\ntwo\n"}
    assert list(found) == sorted(found, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert list(found) != sorted(found)


def test_a_library_without_modules_is_named(tmp_path):
    write(tmp_path, {"test/a.py": "x\n"})
    with pytest.raises(ledger.Unavailable, match=f"{tmp_path} holds no modules as files; a Python whose"):
        text.standard_library(tmp_path)


def test_this_python_has_a_window_for_every_place_of_a_run():
    splits = larger_gpt.PROTOCOL[larger_gpt.PRIMARY].task.data(40)
    assert {name: tuple(y.shape) for name, (_, y) in splits.items()} == {
        "train": (600 * 32, 256), "validation": (128, 256), "test": (256, 256),
    }  # fmt: skip
    x, _ = splits["train"]
    assert (torch.bincount(x.flatten(), minlength=128) == 0).any()  # rows that nothing reads
    parts = text.parts(text.standard_library)
    assert len(parts["train"]) > 3 * len(text.parts()["train"])
    table = larger_gpt.read(larger_gpt.LARGE).set_index("split")
    assert table["bytes"].to_dict() == {name: len(part) for name, part in parts.items()}
    assert table["sha256"]["test"] == hashlib.sha256(bytes(parts["test"].tolist())).hexdigest()


def test_windows_apart_do_not_overlap_and_are_in_an_order_of_the_seed():
    own = {"train": 1000, "length": 32, "apart": True}
    one, other = (text.text_splits(seed, **own)["train"][0] for seed in (0, 1))
    held = text.parts()["train"]
    grid = held[: len(held) // 32 * 32].view(-1, 32)
    places = {tuple(row.tolist()): i for i, row in enumerate(grid)}
    found = [places[tuple(row.tolist())] for row in one]
    assert len(set(found)) > 990 and found != sorted(found) and not torch.equal(one, other)  # some lines stand twice
    most = (len(held) - 32) // 32
    assert len(text.text_splits(0, train=most, apart=True)["train"][0]) == most
    with pytest.raises(ValueError, match=f"train: {most + 1}; at most {most}, which the text has apart, is needed"):
        text.text_splits(0, train=most + 1, apart=True)


# ---- the protocol


def library():
    """Twenty modules, whose letters are common, whose digits are less so, and with one rare byte."""
    return {f"{i}.py": f"name{i} = other * {i}\n" * 40 + "~" * (i % 3) for i in range(20)}


TINY = tasks.Setting(
    model={"vocabulary": 128, "context": 8, "width": 8, "depth": 1, "heads": 2},
    batch=2,
    steps=10,
    data={"validation": 3, "test": 4, "length": 8, "apart": True},
    ranges=larger_gpt.LARGE.ranges | {"count": 6},
    corpus=library,
)


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setattr(larger_gpt, "is_available", lambda: True)


def test_the_small_study_is_what_its_record_was_made_with():
    settings = json.loads(json.dumps(study.STUDY.settings))
    assert ledger.fingerprint(settings) == ledger.read(study.NEXT_BYTE.id).fingerprint


def test_conditions_are_what_the_study_says():
    assert sum(p.numel() for p in larger_gpt.PROTOCOL[larger_gpt.PRIMARY].task.model().parameters()) == 10_818_432
    assert list(larger_gpt.PROTOCOL.conditions) == [larger_gpt.PRIMARY, larger_gpt.AGAIN]
    for protocol in (larger_gpt.PROTOCOL, larger_gpt.protocol(larger_gpt.SHRUNK)):
        for name, condition in protocol.conditions.items():
            windows = condition.task.data.keywords["train"]
            met = condition.steps * condition.batch_size / windows
            assert met == (1 if name == larger_gpt.PRIMARY else larger_gpt.TIMES)
            assert condition.judged == ("test",) and condition.task.data.keywords["apart"]
            spans = [math.log(high / low) for low, high in (condition.search[d] for d in ("weight_decay", "l2"))]
            assert spans[0] == pytest.approx(spans[1])
    own = {*larger_gpt.PROTOCOL.tuning_seeds, *larger_gpt.PROTOCOL.evaluation_seeds}
    for other in scenarios.STUDIES:
        settings = scenarios.study(other).settings
        assert own.isdisjoint([*settings.get("tuning_seeds", ()), *settings.get("evaluation_seeds", ())])
    small = study.NEXT_BYTE
    for field in ("metric", "criterion", "smallest_effect", "tag", "source"):
        assert getattr(larger_gpt.LARGER, field) == getattr(small, field)
    settings = larger_gpt.STUDY.settings
    assert json.loads(json.dumps(settings)) == settings and settings["matrix products"] == "TF32"
    assert "idlelib" in settings["left out"] and settings["model"]["width"] == 384


def test_what_is_measured_is_of_the_text_that_is_read():
    condition = larger_gpt.protocol(TINY)[larger_gpt.PRIMARY]
    _, y = condition.task.data(0)["test"]
    logits = torch.randn(1, *y.shape, 128, generator=torch.Generator().manual_seed(0))
    bits = functional.cross_entropy(logits[0].flatten(0, 1), y.flatten(), reduction="none") / math.log(2)
    common = torch.tensor([text.shares(library)[byte] >= 0.01 for byte in y.flatten()])
    found = condition.task.metrics["bits per common byte"](logits, y[None])
    torch.testing.assert_close(found, bits[common].mean()[None])
    packed = torch.tensor([text.shares()[byte] >= 0.01 for byte in y.flatten()])
    assert not torch.equal(common, packed)
    shown = set(outliers.windows_read(8, library).flatten().tolist())
    assert shown <= set("".join(library().values()).encode())


def test_the_whole_protocol_in_small(card, monkeypatch):
    asked, corpora, windows_read = [], set(), outliers.windows_read

    def reading(length, corpus=text.library_text):
        corpora.add(corpus)
        return windows_read(length, corpus)

    monkeypatch.setattr(outliers, "windows_read", reading)

    def part(name, function):
        asked.append((name, torch.get_float32_matmul_precision()))
        return function()

    before = torch.get_float32_matmul_precision()
    full = larger_gpt.protocol(TINY)
    found = larger_gpt.on_demand(full)
    tables = found.run(part)
    names = [f"{what} of {name}" for name in full.conditions for what in ("tuning", "evaluation")]
    assert asked == [(name, "high") for name in [*names, "corpus"]]
    assert torch.get_float32_matmul_precision() == before and corpora == {library}
    assert set(tables["tuning"]["seed"]) == {40, 41} and set(tables["evaluation"]["seed"]) == set(range(4000, 4006))
    measured = {"test bits per byte", "weight norm", rows.LEFT, outliers.WEIGHTS, outliers.LARGEST}
    assert measured | {f"test bits per {kind} byte" for kind in tasks.FREQUENCY} < set(tables["evaluation"]["metric"])
    (effects,) = found.effects(tables).values()
    assert list(effects) == list(full.conditions) and larger_gpt.LARGER.primary in effects
    for name, effect in effects.items():
        assert effect.metric == "bits saved per test byte" and effect.n == 6
        own = tables["evaluation"].query("metric == 'test bits per byte'")
        own = own[own["condition"] == name].groupby(["arm", "lr", "weight_decay", "l2"])["value"].mean()
        low, high = own["Adam + L2"].min() - own["AdamW"].max(), own["Adam + L2"].max() - own["AdamW"].min()
        assert low - 1e-6 <= effect.mean <= high + 1e-6  # fewer bits are better


def test_the_comparison_that_decides_is_made_again(card):
    found = larger_gpt.on_demand(larger_gpt.protocol(TINY)).retuned([1, 2], [5, 6, 7])
    ((regime, effect),) = found[larger_gpt.LARGER.id].items()
    assert regime == larger_gpt.PRIMARY and sorted(effect.differences.index) == [5, 6, 7]


def test_the_probe_needs_neither_a_card_nor_this_pythons_library(monkeypatch, tmp_path):
    monkeypatch.setattr(larger_gpt, "is_available", lambda: False)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    for cached in (text.standard_library, text.parts, text.shares):
        cached.cache_clear()
    probe = larger_gpt.STUDY.probe()
    untrained = probe[probe["metric"] == "parameters"]
    assert len(untrained) == 2 and untrained["value"].max() < 50_000  # seconds on any machine, not days
    assert probe["step"].max() == larger_gpt.SHRUNK.steps


# ---- where there is no card


@pytest.fixture
def no_card(monkeypatch, tmp_path):
    monkeypatch.setattr(larger_gpt, "is_available", lambda: False)
    monkeypatch.setenv("ADAMW_BOOK_LEDGER", str(tmp_path))
    return tmp_path


def test_without_a_card_the_command_says_what_would_do_and_writes_nothing(no_card, monkeypatch, capsys):
    monkeypatch.setattr(larger_gpt, "STUDY", larger_gpt.on_demand(larger_gpt.protocol(TINY)))  # or a failure takes days
    assert command_line.main(["evidence", "--chapter", "larger_gpt"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("evidence: larger_gpt trains") and line.endswith("one with 16 GB of memory or more would do")
    assert list(no_card.iterdir()) == []
    with pytest.raises(ledger.Unavailable):
        larger_gpt.STUDY.retuned([1], [2])


def test_the_precision_is_what_it_was_whatever_happens(card):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(ZeroDivisionError), larger_gpt.on_a_card():
            assert torch.get_float32_matmul_precision() == "high"
            1 / 0  # noqa: B018
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_study_is_run_where_it_is_named_and_only_there():
    assert "larger_gpt" in scenarios.ON_DEMAND and "larger_gpt" not in scenarios.STUDIES
    assert scenarios.study("larger_gpt") is larger_gpt.STUDY and larger_gpt.STUDY.name == "larger_gpt"
