"""The records: that they hold for every chapter, and that each way in which one can fail is reported."""

import dataclasses
import gzip
import hashlib
import json
import shutil
import sys
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from adamw_book import command_line, evidence_commands, ledger, scenarios
from adamw_book.evidence import Claim, Effect, choose, paired
from adamw_book.ledger import Study, unfinished
from adamw_book.ledger.checks import _drifted, _unlike
from adamw_book.models import MLP
from adamw_book.scenarios import decoupled_weight_decay as foundations
from adamw_book.scenarios.learning_rate_schedules import settings as schedules
from adamw_book.scenarios.overfitting import study as overfitting


@pytest.mark.parametrize("chapter", scenarios.STUDIES)
def test_the_records_hold(chapter):
    """The gate: a record that is missing, stale, edited or contradicted by the code fails here."""
    problems = ledger.check(scenarios.study(chapter))
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("chapter", scenarios.STUDIES)
def test_a_record_knows_the_task_of_each_of_its_conditions(chapter):
    record = ledger.read(scenarios.study(chapter).claims[0].id)
    tables = [table for table in map(record.tables.get, record.tables) if "condition" in table]
    conditions = {name for table in tables for name in table["condition"]}
    probe = record.probe.set_index(["run", "metric"])["value"]
    runs = {run for run, _ in probe.index if run.startswith("untrained, ")}
    untrained = {run.removeprefix("untrained, ").removesuffix(", seed 0") for run in runs}
    assert conditions <= untrained and untrained
    for name in untrained:
        known = set(probe[f"untrained, {name}, seed 0"].index)
        assert {"parameters", "decayed parameters", "train loss", "validation loss"} <= known, name


MAPS = {  # of the chapters that try every decay in the place of a search: a table, its conditions, and their runs
    "decoupled_weight_decay": ("map", list(foundations.CONDITIONS), foundations.map_runs),
    "learning_rate_schedules": (
        "tuned",
        list(schedules.DOSES),
        lambda model, seeds: pd.concat([schedules.runs(model, name, seeds) for name in schedules.SETTINGS]),
    ),
}


@pytest.mark.parametrize("chapter", scenarios.STUDIES)
def test_a_record_was_tuned_on_the_runs_that_its_protocol_would_make(chapter):
    """No probe trains them: a search that draws other configurations under the same settings is told here."""
    module = import_module(scenarios.STUDIES[chapter])
    record, protocol = ledger.read(module.STUDY.claims[0].id), module.PROTOCOL
    of_search = "tuning", list(protocol.conditions), lambda name, seeds: protocol.conditions[name].runs(seeds)
    table, conditions, runs = MAPS.get(chapter, of_search)
    table = record.tables[table]
    assert set(table["condition"]) == set(conditions)
    for name in conditions:
        expected = runs(name, protocol.tuning_seeds or range(10))
        tuned = protocol.conditions[name].tuned if chapter not in MAPS else ("lr", "weight_decay", "l2")
        columns = [column for column in ("arm", "setting", *tuned, "seed") if column in expected]
        found = table[table["condition"] == name][columns].drop_duplicates().sort_values(columns, ignore_index=True)
        expected = expected[columns].sort_values(columns, ignore_index=True)
        pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-5)


@pytest.mark.parametrize("chapter", [chapter for chapter in scenarios.STUDIES if chapter not in MAPS])
def test_a_record_holds_what_its_tuning_runs_choose(chapter):
    module = import_module(scenarios.STUDIES[chapter])
    tables = ledger.read(module.STUDY.claims[0].id).tables
    chosen = module.PROTOCOL.choose(tables["tuning"])
    winners = chosen[chosen["winner"]].drop(columns="winner").reset_index(drop=True)
    for name, expected in (("candidates", chosen), ("winners", winners)):
        pd.testing.assert_frame_equal(tables[name], expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [{"depth": 6}, {"depth": 8, "width": 31}, {"depth": 8, "norm": True}])
def test_another_network_under_the_same_name_is_told(shape):
    """In a condition that the probe does not train."""
    name = "MLP, 8 hidden layers · clean labels"
    condition = overfitting.PROTOCOL[name]
    task = dataclasses.replace(condition.task, model=lambda: MLP(**shape))
    conditions = overfitting.PROTOCOL.conditions | {name: dataclasses.replace(condition, task=task)}
    study = dataclasses.replace(overfitting.PROTOCOL, conditions=conditions).study
    found = {claim.id: ledger.read(claim.id).effects for claim in study.claims}
    problems = ledger.check(dataclasses.replace(study, effects=lambda tables: found))  # no network changes these
    claims = "claims overfitting.weak_gradients, overfitting.generalization"
    run = f"'untrained, {name}, seed 0' at step 0, 'parameters'"
    assert any(line.startswith(f"{claims}: the probe's run {run}") for line in problems)
    assert all(f"'untrained, {name}" in line for line in problems)


@pytest.mark.parametrize("chapter", scenarios.STUDIES)
def test_studies_are_found_by_their_own_name(chapter):
    study = scenarios.study(chapter)
    assert study.name == chapter and study.claims
    assert all(claim.id.startswith(f"{chapter}.") for claim in study.claims)


def test_an_unknown_chapter_is_refused():
    with pytest.raises(ValueError, match="chapter is 'poetry'; expected one of decoupled_weight_decay"):
        scenarios.study("poetry")


# ---- a tiny study

CLAIM = Claim(
    id="toy.lift",
    tag=None,
    statement="AdamW has the higher test accuracy.",
    source="AdamW generalises better.",
    criterion="The interval lies above 0 and the mean reaches half a point.",
    metric="test accuracy",
    smallest_effect=0.005,
    primary="depth 8",
)


def runs(depths=(1, 8)):
    """An invented protocol: AdamW gains two points in deep nets, nothing in shallow ones."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "arm": arm,
            "lr": 1e-3,
            "weight_decay": w,
            "l2": l2,
            "depth": f"{depth}",
            "seed": seed,
            "norm": bool(depth % 2),
        }
        for depth in depths
        for arm, w, l2 in (("AdamW", 0.1, 0.0), ("Adam + L2", 0.0, 1e-3))
        for seed in range(12)
    ]
    table = pd.DataFrame(rows).assign(step=100, metric="test accuracy")
    lift = 0.02 * ((table["arm"] == "AdamW") & (table["depth"] == "8"))
    return table.assign(value=0.8 + 0.01 * table["seed"] + lift + rng.normal(0, 0.001, len(table)))


def run(part=None):
    table = runs()
    winners = choose(table, "test accuracy", by=["depth"])
    return {"winners": winners.assign(regret=[0.1, np.nan, 0.2, 0.3]), "evaluation": table}


def effects(tables):
    blocks = tables["evaluation"].groupby("depth", sort=False)
    return {"toy.lift": {f"depth {depth}": paired(b, "AdamW", "Adam + L2", "test accuracy") for depth, b in blocks}}


def probe(value=0.3123456789, metric="loss", atol=1e-4):
    row = {"run": "AdamW, depth 8", "step": 20, "metric": metric, "value": value, "atol": atol, "rtol": 1e-3}
    return pd.DataFrame([row, row | {"step": 40, "value": 0.2}])


def retuned(mean=0.02):
    """Its primary comparison again: of a mean that one prescribes."""

    def again(tuning=(0, 1), evaluation=range(12)):
        assert not evaluation[0] or (len(set(tuning)), len(set(evaluation))) == (6, 12)
        series = pd.Series(mean + 0.001 * np.linspace(-1, 1, 12), index=evaluation)
        return {"toy.lift": {"depth 8": Effect.of(series, "AdamW", "Adam + L2", "test accuracy")}}

    return again


SETTINGS = {"seeds": [0, 12], "grid": {"lr": (1e-3, 1e-2)}}
STUDY = Study("folder/toy", (CLAIM,), SETTINGS, run, effects, probe, retuned())


def test_a_record_holds_no_number_that_json_does_not_know(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        ledger.write(STUDY, run(), tmp_path, seconds=float("nan"))
    assert not list(tmp_path.rglob("*.*"))


@pytest.fixture
def root(tmp_path):
    ledger.write(STUDY, STUDY.run(), tmp_path, seconds=1.23)
    return tmp_path


def changed(**changes):
    return dataclasses.replace(STUDY, **changes)


def edit(path, change):
    record = json.loads(path.read_text(encoding="utf-8"))
    change(record)
    path.write_text(json.dumps(record), encoding="utf-8")


def rewrite(path, change):
    text = gzip.decompress(path.read_bytes()).decode()
    assert change(text) != text
    path.write_bytes(gzip.compress(change(text).encode()))


# ---- writing and reading


def test_an_unchanged_record_is_clean(root):
    assert ledger.check(STUDY, root) == []


@pytest.mark.parametrize("chapter", ["folder/toy", "folder/toy/another"])
def test_a_record_knows_the_page_that_tells_of_it(chapter, root):
    assert dataclasses.replace(ledger.read("toy.lift", root), chapter=chapter).page == "folder/toy"


def test_a_record_holds_what_was_run(root):
    record = ledger.read("toy.lift", root)
    assert record.claim == CLAIM and record.chapter == "folder/toy"
    assert record.verdict == "supported"
    assert record.verdicts == {"depth 1": "no effect that matters", "depth 8": "supported"}
    assert list(record.effects) == ["depth 1", "depth 8"]
    assert record.effects["depth 8"].mean == pytest.approx(0.02, abs=1e-3)
    assert record.effects["depth 8"].n == 12 and record.effects["depth 8"].differences.index.tolist() == list(range(12))
    assert record.settings == {"seeds": [0, 12], "grid": {"lr": [1e-3, 1e-2]}}
    assert record.winners["arm"].tolist() == ["AdamW", "Adam + L2"] * 2
    assert record.winners["regret"].isna().tolist() == [False, True, False, False]
    assert record.probe["value"].tolist() == [0.31234568, 0.2]
    assert record.seconds == 1.2 and record.device and record.versions["numpy"] == np.__version__
    assert set(record.versions) == {"python", "torch", "triton", "numpy", "scipy", "pandas", "adamw_book"}


def test_tables_come_back_with_their_types(root):
    tables = ledger.read("toy.lift", root).tables
    assert list(tables) == ["winners", "evaluation"]
    back, made = tables["evaluation"], runs()
    assert [kind.kind for kind in back.dtypes] == [kind.kind for kind in made.dtypes]
    for column in made.columns.drop("value"):
        assert back[column].tolist() == made[column].tolist(), column
    assert back["value"].to_numpy() == pytest.approx(made["value"].to_numpy(), rel=5e-6)
    assert tables["winners"]["edge"].tolist() == [""] * 4
    with pytest.raises(KeyError, match="no table 'grid'; it has winners, evaluation"):
        tables["grid"]


def test_changing_a_table_that_was_read_changes_no_other_reader(root):
    tables = ledger.read("toy.lift", root).tables
    mine = tables["evaluation"]
    mine["value"] = 0.0
    assert (tables["evaluation"]["value"] > 0).all()


def test_texts_that_look_like_something_else_survive(tmp_path):
    table = runs().assign(norm="None", schedule=["1e-3", "nan"] * 24)
    ledger.write(STUDY, {"evaluation": table}, tmp_path)
    back = ledger.read("toy.lift", tmp_path).tables["evaluation"]
    assert set(back["norm"]) == {"None"} and back["schedule"].tolist() == ["1e-3", "nan"] * 24


def test_writing_twice_gives_the_same_bytes(root, tmp_path):
    before = {path: path.read_bytes() for path in root.rglob("*.*")}
    ledger.write(STUDY, STUDY.run(), root, seconds=1.23)
    assert {path: path.read_bytes() for path in root.rglob("*.*")} == before
    assert {path.name for path in before} == {"toy.lift.json", "winners.csv.gz", "evaluation.csv.gz"}
    assert all(content[4:8] == bytes(4) for path, content in before.items() if path.suffix == ".gz")  # no time of day


def test_a_record_is_written_for_readers_of_its_text_and_of_its_changes(tmp_path):
    """A value a line, letters as they are, the order of the protocol."""
    (path,) = ledger.write(changed(settings={"network": "MLP · λ"}), STUDY.run(), tmp_path)
    text = path.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n" and "MLP · λ" in text
    assert text.count("\n") > 50 and list(json.loads(text))[:2] == ["claim", "verdict"]


def test_the_stated_hash_is_that_of_the_csv_text(root):
    record = ledger.read("toy.lift", root)
    entry = record.files["evaluation"]
    text = gzip.decompress((root / entry["file"]).read_bytes())
    assert hashlib.sha256(text).hexdigest() == entry["sha256"]


def test_what_is_no_longer_made_is_removed(root):
    old = changed(claims=(CLAIM, dataclasses.replace(CLAIM, id="toy.old")))
    with_old = changed(claims=old.claims, effects=lambda t: effects(t) | {"toy.old": effects(t)["toy.lift"]})
    ledger.write(with_old, run() | {"scratch": runs()}, root)
    (root / "other.claim.json").write_text('{"chapter": "folder/other"}', encoding="utf-8")
    assert any("claim toy.old: the chapter no longer makes it" in line for line in ledger.check(STUDY, root))
    ledger.write(STUDY, run(), root)
    assert sorted(path.name for path in root.rglob("*.*")) == [
        "evaluation.csv.gz",
        "other.claim.json",
        "toy.lift.json",
        "winners.csv.gz",
    ]


@pytest.mark.parametrize(
    "changes, tables, says",
    [
        ({"settings": {"lr": np.arange(3)}}, {}, "settings of folder/toy are not JSON"),
        ({"settings": {"lr": float("nan")}}, {}, "settings of folder/toy are not JSON"),
        ({"effects": lambda tables: {}}, {}, "effects of folder/toy lack the claim 'toy.lift'"),
        ({"probe": lambda: probe().drop(columns="atol")}, {}, "probe of folder/toy has the columns"),
        ({"probe": lambda: probe(value=float("nan"))}, {}, "not finite"),
        ({"probe": lambda: probe(atol=float("nan"))}, {}, "not finite"),
        ({"probe": lambda: probe().assign(rtol=float("inf"))}, {}, "not finite"),
        ({"probe": lambda: probe().iloc[[0, 0]]}, {}, "repeats a row"),
        ({}, {"mixed": pd.DataFrame({"norm": ["group", None]})}, "column 'norm' of table 'mixed' mixes texts"),
    ],
)
def test_write_refuses(tmp_path, changes, tables, says):
    with pytest.raises(ValueError, match=says):
        ledger.write(changed(**changes), run() | tables, tmp_path)
    assert not list(tmp_path.rglob("*"))


def test_a_failed_write_leaves_the_ledger_as_it_was(root):
    def fails():
        raise RuntimeError("the probe's training failed")

    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    tables = run()
    tables["evaluation"]["value"] += 0.01
    for study in (changed(probe=fails), changed(effects=lambda tables: {})):
        with pytest.raises((RuntimeError, ValueError)):
            ledger.write(study, tables | {"more": tables["evaluation"]}, root)
        assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


STOPS = [("write_bytes", 4), ("copyfile", 3), ("replace", 4), ("unlink", 1)]


@pytest.mark.parametrize("step, count", [(step, i) for step, most in STOPS for i in range(most)])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_stops_a_write_loses_no_record(root, monkeypatch, step, count, error):
    """A full disk or Ctrl-C at each of the files in turn: a table changes, one is new, one goes, and a claim is new."""
    study = changed(
        claims=(CLAIM, dataclasses.replace(CLAIM, id="toy.other")),
        effects=lambda tables: effects(tables) | {"toy.other": effects(tables)["toy.lift"]},
    )
    tables = run()
    tables["evaluation"]["value"] += 0.01 * (tables["evaluation"]["arm"] == "AdamW")
    tables["more"] = tables.pop("winners")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    owner = shutil if step == "copyfile" else Path
    does, calls = getattr(owner, step), iter(range(100))

    def stops(*arguments, **options):
        if next(calls) == count:
            raise error
        return does(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, stops)
        with pytest.raises(type(error)):
            ledger.write(study, tables, root)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert ledger.check(STUDY, root) == []
    ledger.write(study, tables, root)
    assert ledger.check(study, root) == []
    names = ["evaluation.csv.gz", "more.csv.gz", "toy.lift.json", "toy.other.json"]
    assert sorted(path.name for path in root.rglob("*") if path.is_file()) == names


def test_a_table_of_another_run_is_told_and_a_new_run_heals_it(root):
    """What a process that is killed between two files leaves."""
    tables = run()
    tables["evaluation"]["value"] += 0.01
    old = (root / "toy.lift.json").read_bytes()
    ledger.write(STUDY, tables, root)
    (root / "toy.lift.json").write_bytes(old)
    only(ledger.check(STUDY, root), "table 'evaluation' (toy/evaluation.csv.gz) was edited or is another run's")
    ledger.write(STUDY, run(), root)
    assert ledger.check(STUDY, root) == []


def test_reading_a_missing_record_says_what_to_run(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="no record of claim 'overfitting.depth'.*make evidence CHAPTER=overfitting"
    ):
        ledger.read("overfitting.depth", tmp_path)


def test_read_all(root):
    other = changed(
        chapter="folder/art",
        claims=(dataclasses.replace(CLAIM, id="art.lift"),),
        effects=lambda tables: {"art.lift": effects(tables)["toy.lift"]},
    )
    ledger.write(other, run(), root)
    assert [record.claim.id for record in ledger.read_all(root)] == ["art.lift", "toy.lift"]
    assert ledger.check(STUDY, root) == [] == ledger.check(other, root)


# ---- places


def test_the_ledger_is_found_from_a_chapter_and_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("ADAMW_BOOK_LEDGER", raising=False)
    (tmp_path / "adamw_book").mkdir()
    (tmp_path / "adamw_book" / "__init__.py").touch()
    (tmp_path / "chapters" / "folder").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "chapters" / "folder")
    assert ledger.find_root() == tmp_path / "ledger"
    monkeypatch.setenv("ADAMW_BOOK_LEDGER", str(tmp_path / "elsewhere"))
    assert ledger.find_root() == tmp_path / "elsewhere"


def test_the_ledger_is_found_beside_the_package(tmp_path, monkeypatch):
    monkeypatch.delenv("ADAMW_BOOK_LEDGER", raising=False)
    monkeypatch.chdir(tmp_path)
    assert (ledger.find_root().parent / "adamw_book" / "__init__.py").is_file()


# ---- checking: each kind of problem is reported, with its claim and its remedy


def only(problems, says):
    assert len(problems) == 1, problems
    assert problems[0].startswith("claim toy.lift: ") and says in problems[0], problems[0]
    assert problems[0].endswith("; run `make evidence CHAPTER=toy`")


def test_missing(tmp_path):
    only(ledger.check(STUDY, tmp_path), "there is no record")


def test_unreadable(root):
    path = root / "toy.lift.json"
    path.write_text(path.read_text(encoding="utf-8")[:200], encoding="utf-8")
    only(ledger.check(STUDY, root), "toy.lift.json cannot be read (JSONDecodeError")


def test_a_lost_field(root):
    edit(root / "toy.lift.json", lambda record: record.pop("device"))
    only(ledger.check(STUDY, root), "toy.lift.json cannot be read (ValueError: record lacks 'device'; expected claim, ")


def places(value, path=()):
    """The paths to every field of a record; of a list, and of what has any names, the first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = list(inner)[: 1 if isinstance(value, list) or path[-1:] in (("differences",), ("columns",)) else None]
    return [*([path] if path else []), *(place for key, own in inner for place in places(own, (*path, key)))]


# Nothing contradicts these where they are of the right kind: they say how the record came about.
VERSIONED = ("python", "torch", "triton", "numpy", "scipy", "pandas", "adamw_book")
FREE = {("device",): str, ("seconds",): int | None} | {("versions", name): str | None for name in VERSIONED}


@pytest.mark.parametrize("wrong", [None, [], {}, "x", 3, True, float("nan"), 10**400, -1e999], ids=lambda x: f"{x}"[:5])
def test_a_field_of_another_kind_is_a_finding(root, wrong):
    path = root / "toy.lift.json"
    record, found = json.loads(path.read_text(encoding="utf-8")), effects(ledger.read("toy.lift", root).tables)
    study = changed(effects=lambda tables: found)
    tried = places(record)
    assert {("claim",), ("tables", "winners", "sha256"), ("effects", "depth 8", "n"), ("probe", 0, "value")} < {*tried}
    for *keys, last in tried:
        wronged = json.loads(json.dumps(record))
        part = wronged
        for key in keys:
            part = part[key]
        was, part[last] = part[last], wrong
        path.write_text(json.dumps(wronged), encoding="utf-8")
        problems = ledger.check(study, root)
        free = isinstance(wrong, FREE.get((*keys, last), ())) and wrong is not True and wrong != 10**400
        assert problems or free or was == wrong, (keys, last)
        assert all(line.startswith("claim toy.lift: ") for line in problems)


def test_a_lost_or_unknown_field_is_a_finding_wherever_it_is(root):
    path = root / "toy.lift.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    for *keys, last in places(record):
        for change in (lambda part, key: part.pop(key), lambda part, key: part.update(extra=1)):
            wronged = json.loads(json.dumps(record))
            part = wronged
            for key in keys:
                part = part[key]
            if isinstance(part, dict) and (*keys,) not in {("winners", 0), ("settings",), ("settings", "grid")}:
                change(part, last)
                path.write_text(json.dumps(wronged), encoding="utf-8")
                assert ledger.check(STUDY, root), (keys, last)


@pytest.mark.parametrize("content", [b"[]", b"3", b"null", b'{"chapter": []}', b"\xff\xfe", b"", b"[" * 10**5, None])
@pytest.mark.parametrize("name", ["toy.lift.json", "x.json"])
def test_a_file_that_is_no_record_is_a_finding(root, content, name):
    (root / name).unlink(missing_ok=True)
    if content is None:
        (root / name).mkdir()
    else:
        (root / name).write_bytes(content)
    problems = ledger.check(STUDY, root)
    if name == "x.json":
        assert problems == ["x.json is no record of any chapter; remove it, or make it anew"]
        ledger.write(STUDY, run(), root)  # does not stop at it, nor take it away
        assert (root / name).exists()
    else:
        only(problems, "toy.lift.json cannot be read (")
    with pytest.raises(ValueError, match=f"{name} is no record.*make evidence"):
        ledger.read_all(root)


def test_changed_settings(root):
    study = changed(settings={"seeds": [0, 24], "grid": {"lr": [1e-3, 1e-2]}, "steps": 100})
    only(ledger.check(study, root), "the protocol changed since the record was made (settings: seeds, steps)")


def test_a_fingerprint_hangs_on_every_setting_and_on_no_order():
    found = ledger.fingerprint({"steps": 400, "grid": {"lr": [0.1, 0.2], "l2": [0.0]}})
    assert found == ledger.fingerprint({"grid": {"l2": [0.0], "lr": [0.1, 0.2]}, "steps": 400})
    assert len(found) == 16 and set(found) <= set("0123456789abcdef")
    others = [{"steps": steps, "grid": {"lr": [0.1, 0.2], "l2": [0.0]}} for steps in range(400)]
    assert len({found, *map(ledger.fingerprint, others)}) == 401


def test_edited_settings(root):
    edit(root / "toy.lift.json", lambda record: record["settings"].update(seeds=[0, 24]))
    problems = ledger.check(changed(settings=STUDY.settings | {"seeds": [0, 24]}), root)
    only(problems, "settings were edited")


@pytest.mark.parametrize(
    "field, value",
    [
        ("statement", "AdamW has a higher test accuracy in deep nets."),
        ("criterion", "The mean lies above 0."),
        ("source", "AdamW is better."),
        ("tag", "3096487"),
        ("smallest_effect", 0.004),
    ],
)
def test_edited_claim(root, field, value):
    study = changed(claims=(dataclasses.replace(CLAIM, **{field: value}),))
    says = f"{field} is {value!r} in the chapter and {getattr(CLAIM, field)!r} in the record"
    only(ledger.check(study, root), says)


def test_edited_table(root):
    rewrite(root / "toy" / "evaluation.csv.gz", lambda text: text.replace("AdamW", "AdamV", 1))
    only(ledger.check(STUDY, root), "table 'evaluation' (toy/evaluation.csv.gz) was edited")


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"lr,value\n")])
def test_lost_table(root, damage):
    damage(root / "toy" / "winners.csv.gz")
    only(ledger.check(STUDY, root), "table 'winners' cannot be read")


def test_a_damaged_archive(root):
    path = root / "toy" / "winners.csv.gz"
    damaged = bytearray(path.read_bytes())
    damaged[20:30] = bytes(10)
    path.write_bytes(damaged)
    only(ledger.check(STUDY, root), "table 'winners' cannot be read")


def test_code_that_fails_is_a_finding_and_stops_no_other_check(root):
    def fails(*_):
        raise KeyError("depth")

    only(ledger.check(changed(probe=fails), root), "the probe fails (KeyError: 'depth')")
    only(
        ledger.check(changed(effects=fails), root), "the effects cannot be computed from the recorded tables (KeyError"
    )


def test_recompressing_a_table_is_no_change(root):
    path = root / "toy" / "evaluation.csv.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1))
    assert ledger.check(STUDY, root) == []


def test_edited_table_with_its_hash(root):
    """Who edits the table and restates its hash is contradicted by the effects."""

    def lift_one(text):
        lines = text.splitlines()
        lines[1] = lines[1].rsplit(",", 1)[0] + ",0.95"
        return "\n".join(lines) + "\n"

    path = root / "toy" / "evaluation.csv.gz"
    rewrite(path, lift_one)
    sha256 = hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
    edit(root / "toy.lift.json", lambda record: record["tables"]["evaluation"].update(sha256=sha256))
    problems = ledger.check(STUDY, root)
    assert any("under 'depth 1' the tables give" in line and "(different differences)" in line for line in problems)


def test_edited_verdict(root):
    edit(root / "toy.lift.json", lambda record: record.update(verdict="opposite"))
    only(ledger.check(STUDY, root), "the tables give the verdict 'supported' and the record 'opposite'")


def test_edited_verdict_of_a_regime(root):
    edit(root / "toy.lift.json", lambda record: record["verdicts"].update({"depth 1": "supported"}))
    only(ledger.check(STUDY, root), "the verdict 'supported' under 'depth 1' does not follow from the recorded effect")


def test_a_verdict_more(root):
    edit(root / "toy.lift.json", lambda record: record["verdicts"].update({"depth 9": "supported"}))
    only(ledger.check(STUDY, root), "the record has depth 1, depth 8 and verdicts under depth 1, depth 8, depth 9")


@pytest.mark.parametrize(
    "field, value",
    [
        ("mean", 0.022), ("low", 0.0101), ("high", 0.05), ("n", 24), ("control", "Adam"), ("treatment", "Adam"),
        ("metric", "train accuracy"), ("confidence", 0.9), ("undecayed", ["AdamW"]), ("freedom", 3),
    ],
)  # fmt: skip
def test_edited_effect(root, field, value):
    regime = "depth 1" if field == "undecayed" else "depth 8"  # in which no verdict hangs on it
    edit(root / "toy.lift.json", lambda record: record["effects"][regime].update({field: value}))
    says = "interval" if field in ("low", "high") else field
    only(ledger.check(STUDY, root), f"(different {says})")


@pytest.mark.parametrize("bound", ["low", "high"])
@pytest.mark.parametrize("share, clean", [(0.03, True), (-0.03, True), (0.07, False), (-0.07, False), (None, False)])
def test_a_bound_may_move_by_a_twentieth_of_the_interval(root, bound, share, clean):
    """As it does with another version of scipy. NaN is no bound, though it lies at no distance from any."""
    effect = ledger.read("toy.lift", root).effects["depth 8"]
    moved = getattr(effect, bound) + (np.nan if share is None else share * (effect.high - effect.low))
    assert (_unlike(effect, dataclasses.replace(effect, **{bound: moved})) == "") == clean
    if share is not None:
        edit(root / "toy.lift.json", lambda record: record["effects"]["depth 8"].update({bound: moved}))
        problems = ledger.check(STUDY, root)
        assert problems == [] if clean else only(problems, "(different interval)") is None


def test_a_probe_that_is_not_a_number_has_drifted():
    for value, other in ((np.nan, 0.3), (0.3, np.nan), (np.nan, np.nan), (np.inf, 0.3)):
        assert len(list(_drifted(probe(value=value), probe(value=other)))) == 1
    for tolerance in ("atol", "rtol"):
        assert len(list(_drifted(probe(), probe().assign(**{tolerance: np.nan})))) == 2


def test_edited_difference(root):
    edit(root / "toy.lift.json", lambda record: record["effects"]["depth 8"]["differences"].update({"3": 0.05}))
    only(ledger.check(STUDY, root), "(different differences)")


def test_edited_winners(root):
    edit(root / "toy.lift.json", lambda record: record["winners"][0].update(lr=1e-2))
    only(ledger.check(STUDY, root), "the recorded winners are not those of the table 'winners'")


def test_a_regime_more(root):
    edit(root / "toy.lift.json", lambda record: record["effects"].pop("depth 1"))
    only(ledger.check(STUDY, root), "the tables give the regimes depth 1, depth 8; the record has depth 8")


def test_changed_evaluation_code(root):
    """The tables stay, and the study's reading of them changes."""

    def swapped(tables):
        blocks = tables["evaluation"].groupby("depth", sort=False)
        return {"toy.lift": {f"depth {d}": paired(b, "Adam + L2", "AdamW", "test accuracy") for d, b in blocks}}

    problems = ledger.check(changed(effects=swapped), root)
    assert any("(different treatment)" in line for line in problems)


def test_a_drifted_probe(root):
    problems = ledger.check(changed(probe=lambda: probe(value=0.313)), root)
    only(problems, "the probe's run 'AdamW, depth 8' at step 20, 'loss', gives 0.313, and 0.31234568 in the record")


@pytest.mark.parametrize("shift, clean", [(0.0003, True), (-0.0003, True), (0.0005, False), (-0.0005, False)])
def test_a_probe_within_its_tolerance_is_clean(root, shift, clean):
    problems = ledger.check(changed(probe=lambda: probe(value=0.3123456789 + shift)), root)
    assert (problems == []) == clean


def test_a_loosened_tolerance(root):
    problems = ledger.check(changed(probe=lambda: probe(atol=1.0)), root)
    assert len(problems) == 2 and all(
        "has atol 1 and rtol 0.001, and atol 0.0001 and rtol 0.001" in p for p in problems
    )


def test_a_probe_of_other_runs(root):
    problems = ledger.check(changed(probe=lambda: probe(metric="accuracy")), root)
    assert sum("is only in the record" in line for line in problems) == 2
    assert sum("is only in the chapter" in line for line in problems) == 2


def test_one_problem_of_several_claims_is_told_once(tmp_path):
    claims = (CLAIM, dataclasses.replace(CLAIM, id="toy.other"))
    study = changed(claims=claims, effects=lambda t: effects(t) | {"toy.other": effects(t)["toy.lift"]})
    ledger.write(study, run(), tmp_path)
    problems = ledger.check(dataclasses.replace(study, probe=lambda: probe(value=0.5)), tmp_path)
    assert len(problems) == 1 and problems[0].startswith("claims toy.lift, toy.other: the probe's run")


def test_probe_rows():
    columns = {"seed": 3, "condition": "depth 8", "metric": ["train loss", "train accuracy"] * 2, "value": 0.5}
    rows = ledger.probe_rows(pd.DataFrame({"arm": "AdamW", "step": [20, 20, 40, 40], **columns}))
    assert list(rows.columns) == ledger.PROBE and (rows["run"] == "AdamW, depth 8, seed 3").all()
    assert rows["atol"].tolist() == [1e-4, 0.005, 1e-4, 0.03] and rows["rtol"].tolist() == [1e-3, 1e-3, 0.1, 0.1]
    own = ledger.probe_rows(pd.DataFrame({"arm": "AdamW", "step": [20], **columns | {"metric": "loss"}}), atol=0.2)
    assert own[["run", "step", "metric", "value", "atol", "rtol"]].values.tolist() == [
        ["AdamW, depth 8, seed 3", 20, "loss", 0.5, 0.2, 0.0]
    ]


# ---- live against recorded


def test_leaves(root):
    record = ledger.read("toy.lift", root)
    deep, shallow = record.effects["depth 8"], record.effects["depth 1"]
    assert "lies in the recorded 95% interval" in ledger.leaves(deep, deep)
    sentence = ledger.leaves(deep, shallow)
    assert "leaves the recorded 95% interval" in sentence and "over 12 seeds" in sentence
    assert shallow.text().split(" [")[0] in sentence and deep.parts()[1] in sentence


@pytest.mark.parametrize("recorded, live, tuning", [(12, 12, 0), (12, 6, 0), (24, 12, 0), (24, 12, 0.5), (24, 6, 2)])
def test_leaves_says_how_often_other_seeds_do_that(root, recorded, live, tuning):
    """Against a simulation: a mean of `live` normal draws outside the 95% interval around a mean of `recorded` ones, to
    which tuning adds so many times what these seeds do."""
    rng = np.random.default_rng(0)
    draws, means = rng.normal(size=(100_000, recorded)), rng.normal(0, 1 / np.sqrt(live), 100_000)
    reach = np.hypot(1, tuning) * stats.t.ppf(0.975, recorded - 1) * draws.std(1, ddof=1)
    reach /= np.sqrt(recorded)
    often = 100 * np.mean(np.abs(draws.mean(1) - means) > reach)
    total, one = float(np.hypot(1, tuning)), ledger.read("toy.lift", root).effects["depth 8"]
    one = dataclasses.replace(one, mean=0.0, low=-total, high=total, n=recorded)
    again = dataclasses.replace(one, n=live, mean=9.0)
    if tuning:
        one = dataclasses.replace(one, by_seeds=(-1.0, 1.0), by_tuning=(-tuning, tuning), freedom=5)
    sentence = ledger.leaves(one, again)
    assert abs(float(sentence.split("about ")[1].split("%")[0]) - often) < 1


def test_leaves_says_whose_mean_it_is(root):
    one = ledger.read("toy.lift", root).effects["depth 8"]
    tuned = dataclasses.replace(one, low=-1, high=1, by_seeds=(0.01, 0.03), by_tuning=(-1, 1), freedom=5)
    assert ledger.leaves(tuned, one).startswith("The live mean of the winners, +")
    assert ledger.leaves(tuned, tuned).startswith("The live mean, +")  # tuned as it was
    far = ledger.leaves(tuned, dataclasses.replace(one, mean=2))
    assert ", of all that tuning might choose (other seeds alone do that to fewer than 1% of such means)." in far
    assert "tuning" not in ledger.leaves(one, dataclasses.replace(one, mean=2))


def test_seeds_that_do_not_matter_take_no_mean_out_of_its_interval(root):
    one = ledger.read("toy.lift", root).effects["depth 8"]
    same = dataclasses.replace(one, low=one.mean, high=one.mean)
    parts = {"by_seeds": (one.mean, one.mean), "by_tuning": (one.low, one.high), "freedom": 1}
    for recorded in (same, dataclasses.replace(one, **parts)):
        assert "alone do that to fewer than 1% of" in ledger.leaves(recorded, dataclasses.replace(one, mean=0.04))


# ---- other master seeds


def test_master_seeds_are_apart():
    seeds = [ledger.master_seeds(master) for master in (1, 2, 3)]
    assert all(len(found) == 12 for found in seeds) and len(set().union(*seeds)) == 36
    assert min(min(found) for found in seeds) >= 10_000  # no protocol's seeds
    for master in (0, 1.5):
        with pytest.raises(ValueError, match=f"master is {master}; expected a whole number from 1"):
            ledger.master_seeds(master)
    with pytest.raises(ValueError, match="count is 0"):
        ledger.master_seeds(1, 0)


def test_stability_tunes_and_evaluates_again_on_other_seeds(root):
    seen = []

    def again(tuning, evaluation):
        seen.append((set(tuning), set(evaluation)))
        return retuned()(tuning, evaluation)

    table = ledger.stability(changed(retuned=again), (1, 2), root)
    assert table["master"].tolist() == ["recorded", "1", "2"] and set(table["regime"]) == {"depth 8"}
    assert table["verdict"].tolist() == ["supported"] * 3 and table["effect"].str.contains("n = 12").all()
    assert ledger.kept(table) == {"toy.lift": True}
    assert all((len(tuning), len(evaluation), tuning & evaluation) == (6, 12, set()) for tuning, evaluation in seen)
    assert not set.union(*seen[0]) & set.union(*seen[1])
    with pytest.raises(ValueError, match="masters is empty"):
        ledger.stability(STUDY, (), root)


def test_a_verdict_that_hangs_on_the_seeds_is_told(root):
    small = ledger.stability(changed(retuned=retuned(0.0048)), (1,), root)  # too small a design decides nothing
    assert small["verdict"].tolist() == ["supported", "undecided"] and ledger.kept(small) == {"toy.lift": True}
    for mean, verdict in ((0.0, "no effect that matters"), (-0.02, "opposite")):
        other = ledger.stability(changed(retuned=retuned(mean)), (1,), root)
        assert other["verdict"].tolist() == ["supported", verdict] and ledger.kept(other) == {"toy.lift": False}


def test_with_the_records_own_seeds_the_verdict_is_the_same(root):
    table = ledger.again(STUDY, root)
    assert table["master"].tolist() == ["recorded", "here"] and ledger.kept(table) == {"toy.lift": True}
    undecided = ledger.again(changed(retuned=retuned(0.0048)), root)
    assert undecided["verdict"].tolist()[1] == "undecided" and ledger.kept(undecided) == {"toy.lift": False}


def test_what_other_seeds_say_is_kept_until_the_protocol_changes(root):
    assert ledger.read_stability(root).empty
    first = ledger.stability(changed(retuned=retuned(0.0)), (1, 2), root)
    ledger.write_stability(first, root)
    assert ledger.read_stability(root).equals(first)
    second = ledger.stability(changed(retuned=retuned(0.0048)), (1, 2), root)
    path = ledger.write_stability(second, root)
    assert ledger.read_stability(root).equals(second)  # in the first one's place
    stored = path.read_text(encoding="utf-8")
    assert "recorded" not in stored and ledger.read("toy.lift", root).fingerprint in stored
    ledger.write(changed(settings=STUDY.settings | {"steps": 999}), run(), root)
    assert ledger.read_stability(root).empty


@pytest.mark.parametrize("found", [{}, {"toy.lift": {"depth 9": None}}])
def test_a_primary_comparison_that_was_not_made_again_is_told(root, found):
    with pytest.raises(ValueError, match="retuned of folder/toy lacks 'depth 8', the primary regime of toy.lift"):
        ledger.stability(changed(retuned=lambda *seeds: found), (1,), root)


@pytest.mark.parametrize("command", [lambda s, r: ledger.stability(s, (1,), r), lambda s, r: ledger.again(s, r)])
def test_records_are_read_before_anything_is_made_again(root, command):
    def runs(*seeds):
        raise AssertionError("hours of training")

    study = changed(retuned=runs)
    edit(root / "toy.lift.json", lambda record: record["effects"].pop("depth 8"))
    with pytest.raises(ValueError, match="record of toy.lift has no effect under 'depth 8'.*make evidence CHAPTER=toy"):
        command(study, root)
    (root / "toy.lift.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="toy.lift.json is no record"):
        command(study, root)
    (root / "toy.lift.json").unlink()
    with pytest.raises(FileNotFoundError, match="no record of claim 'toy.lift'"):
        command(study, root)


def test_another_primary_comparison_is_another_claim(root):
    other = changed(claims=(dataclasses.replace(CLAIM, primary="depth 1"),))
    assert any("primary" in line for line in ledger.check(other, root))


def test_both_parts_of_an_interval_and_what_has_no_decay_are_kept(tmp_path):
    one = effects(run())["toy.lift"]["depth 8"]
    parts = {"by_seeds": (0.01, 0.03), "by_tuning": (0.015, 0.025), "freedom": 3, "undecayed": ("Adam + L2",)}
    tuned = dataclasses.replace(one, **parts)
    study = changed(effects=lambda tables: {"toy.lift": {"depth 8": tuned}})
    ledger.write(study, study.run(), tmp_path)
    found = ledger.read("toy.lift", tmp_path).effects["depth 8"]
    assert {part: getattr(found, part) for part in parts} == parts and found.p == tuned.p
    edit(tmp_path / "toy.lift.json", lambda record: record["claim"].update(arithmetic=1))
    with pytest.raises(ValueError, match="arithmetic"):
        ledger.read("toy.lift", tmp_path)


# ---- a run that is stopped

PART = pd.DataFrame({"seed": [0, 1], "value": [0.123456789, 2.0], "arm": ["AdamW", "Adam"]})


def parts_of(study, root):
    """A function that runs a part, and the list of those that had to be found."""
    ran = []

    def part(name, table=PART):
        return ledger.Unfinished(study, root).part(name, lambda: (ran.append(name), table)[1])

    return part, ran


def test_a_finished_part_is_taken_over_as_a_record_would_keep_it(tmp_path):
    part, ran = parts_of(STUDY, tmp_path)
    first, again = part("tuning of a"), part("tuning of a")
    assert ran == ["tuning of a"] and first["value"].tolist() == [0.123457, 2.0]
    pd.testing.assert_frame_equal(first, again)
    part("tuning of b")
    assert ran == ["tuning of a", "tuning of b"]
    ledger.Unfinished(STUDY, tmp_path).forget()
    assert not list(tmp_path.rglob("*.csv"))
    ledger.Unfinished(STUDY, tmp_path).forget()  # nothing left to remove


def test_a_part_of_other_settings_other_code_or_edited_is_found_again(tmp_path, monkeypatch):
    part, ran = parts_of(STUDY, tmp_path)
    part("a")
    other, found = parts_of(changed(settings=SETTINGS | {"seeds": [0, 13]}), tmp_path)
    other("a")
    assert found == ["a"]
    part("a")
    assert ran == ["a"] * 2
    (csv,) = tmp_path.rglob("*.csv")
    csv.write_bytes(csv.read_bytes().replace(b"AdamW", b"Adaml"))
    assert part("a")["arm"].tolist() == ["AdamW", "Adam"] and ran == ["a"] * 3
    monkeypatch.setattr("adamw_book.ledger.unfinished._package", lambda: "other")
    part("a")
    assert ran == ["a"] * 4
    assert (tmp_path / ".unfinished" / "toy").exists()
    assert ledger.read_all(tmp_path) == []  # no record


@pytest.mark.parametrize("of", ["device", "version"])
def test_a_part_from_elsewhere_is_found_again(tmp_path, monkeypatch, of):
    """A record names one device and one version of each package."""
    part, ran = parts_of(STUDY, tmp_path)
    part("a")
    if of == "device":
        monkeypatch.setattr(unfinished, "device", lambda: "another")
    else:
        known = metadata.version
        monkeypatch.setattr(metadata, "version", lambda name: "9.9" if name == "scikit-learn" else known(name))
    part("a")
    part("a")
    assert ran == ["a"] * 2


def test_what_parts_cost_in_an_earlier_run_is_counted(tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(unfinished, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    stopped, resumed = ledger.Unfinished(STUDY, tmp_path), ledger.Unfinished(STUDY, tmp_path)
    for name in "ab":
        stopped.part(name, lambda: PART)
    for name in "abc":
        resumed.part(name, lambda: PART)
    assert (stopped.earlier, resumed.earlier) == (0, 20)


def test_any_other_file_of_the_package_is_another_package(tmp_path, monkeypatch):
    package = tmp_path / "adamw_book"
    names = ["ensemble.py", "optim/adamw.py", "scenarios/a/tasks.py", "data_files/mnist_8x8.tsv.gz", "a/b.js"]
    idle = ["__pycache__/ensemble.cpython-311.pyc", "optim/__pycache__/x.py", ".DS_Store", "optim/.adamw.py.swp"]
    for name in names + idle:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("a = 1\n")
    monkeypatch.setattr(unfinished, "__file__", str(package / "ledger" / "unfinished.py"))
    found = [unfinished._package()]
    for name in names:
        (package / name).write_text("a = 2\n")
        found.append(unfinished._package())
    (package / "ensemble.py").rename(package / "task.py")
    found.append(unfinished._package())
    assert len(set(found)) == len(names) + 2
    for name in idle:
        (package / name).write_text("a = 2\n")
    assert found[-1] == unfinished._package()


# ---- the command line


@pytest.fixture
def toy_command(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAMW_BOOK_LEDGER", str(tmp_path))
    monkeypatch.setattr(evidence_commands, "STUDIES", {"toy": "adamw_book.scenarios.toy"})
    monkeypatch.setattr(evidence_commands, "study", {"toy": STUDY}.__getitem__)
    return command_line.main


def test_evidence_writes_a_record_that_check_accepts(toy_command, capsys, tmp_path):
    assert toy_command(["check"]) == 1
    assert "claim toy.lift: there is no record; run `make evidence CHAPTER=toy`" in capsys.readouterr().out
    assert toy_command(["evidence", "--chapter", "toy"]) == 0
    printed = capsys.readouterr().out
    assert "toy.lift: supported" in printed and "AdamW − (Adam + L2): +1.9" in printed
    assert (tmp_path / "toy.lift.json").exists()
    assert toy_command(["check"]) == 0
    assert "toy: the records hold" in capsys.readouterr().out


def test_the_seconds_of_a_run_that_was_stopped_are_those_of_all_its_parts(toy_command, monkeypatch, capsys, tmp_path):
    clock = iter([0.0, 40.0])  # of the first run's part; real time after that
    study = changed(run=lambda part: {"evaluation": part("all", runs)})
    monkeypatch.setattr(evidence_commands, "study", {"toy": study}.__getitem__)
    with monkeypatch.context() as patch:
        patch.setattr(unfinished, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
        patch.setattr(ledger, "write", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            toy_command(["evidence"])
    assert toy_command(["evidence"]) == 0
    assert ledger.read("toy.lift", tmp_path).seconds >= 40
    assert "(40 s of it earlier)" in capsys.readouterr().out


@pytest.mark.parametrize(("command", "runs"), [("stability", ["1", "2", "3"]), ("again", ["here"])])
def test_the_primary_comparisons_are_printed_beside_the_record(toy_command, capsys, command, runs):
    toy_command(["evidence"])
    capsys.readouterr()
    assert toy_command([command]) == 0
    printed = capsys.readouterr().out
    assert "toy.lift: same verdict (depth 8)" in printed and printed.count("supported") == 1 + len(runs)
    assert [line.split()[0] for line in printed.splitlines() if line.endswith("supported")] == ["recorded", *runs]
    assert "1 of 1 claims keep their verdict." in printed
    assert len(ledger.read_stability()) == {"stability": 4, "again": 0}[command]


@pytest.mark.parametrize("command", ["stability", "again"])
@pytest.mark.parametrize("damaged", [None, "{"])
def test_without_the_records_of_every_chapter_none_is_made_again(
    toy_command, monkeypatch, capsys, tmp_path, command, damaged
):
    """The second chapter has no record: the first, which takes hours, is not begun."""
    claim = dataclasses.replace(CLAIM, id="other.lift")
    other = changed(chapter="folder/other", claims=(claim,), retuned=lambda *seeds: pytest.fail("hours of training"))
    monkeypatch.setattr(evidence_commands, "STUDIES", {"toy": "", "other": ""})
    monkeypatch.setattr(evidence_commands, "study", {"toy": changed(retuned=other.retuned), "other": other}.__getitem__)
    ledger.write(STUDY, run(), tmp_path)
    if damaged:
        (tmp_path / "other.lift.json").write_text(damaged, encoding="utf-8")
    assert toy_command([command]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    says = "other.lift.json is no record" if damaged else "no record of claim 'other.lift'"
    assert line.startswith(f"{command}: {says}") and line.endswith("run `make evidence CHAPTER=other` to make it")


@pytest.mark.parametrize("backend", ["nonsense", "ray", "dask"])
def test_workers_that_cannot_be_had_are_told_in_a_line(toy_command, monkeypatch, capsys, backend):
    for module in ("ray.util.joblib", "dask.distributed"):
        monkeypatch.setitem(sys.modules, module, None)  # as where it is not installed
    assert toy_command(["evidence", "--workers", "2", "--backend", backend]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    told = {"nonsense": "--backend nonsense: Invalid backend: nonsense, expected one of ["}
    assert line.startswith(f"evidence: {told.get(backend, '')}")
    assert backend in told or f"pip install 'adamw-book[{backend}]'" in line


@pytest.mark.parametrize("command", ["evidence", "stability"])
def test_an_extra_that_a_study_needs_is_told_in_a_line(toy_command, monkeypatch, capsys, command):
    why = "No module named 'x'; pip install 'adamw-book[y]' brings what this study needs"

    def without(*_):
        raise ImportError(why)

    assert toy_command(["evidence"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(evidence_commands, "study", {"toy": changed(run=without, retuned=without)}.__getitem__)
    assert toy_command([command]) == 2
    assert capsys.readouterr().err == f"{command}: {why}\n"


def test_an_unknown_chapter_on_the_command_line(toy_command, capsys):
    with pytest.raises(SystemExit):
        toy_command(["evidence", "--chapter", "poetry"])
    assert "invalid choice: 'poetry'" in capsys.readouterr().err
