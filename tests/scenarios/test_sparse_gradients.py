"""Sparse gradients: texts whose statistics are known, splits that leak nothing, sizes and halvings worked by hand."""

import ast
import gzip
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.naive_bayes import MultinomialNB
from stdlib_identifiers import corpus, functions, identifiers
from torch.nn import functional

from adamw_book.data import generator
from adamw_book.ensemble import Task
from adamw_book.evidence import grid
from adamw_book.models import MLP
from adamw_book.scenarios import sparse_gradients as scenario
from adamw_book.scenarios.sparse_gradients import library
from adamw_book.scenarios.sparse_gradients.library import Function

# ---- single weights


@pytest.mark.parametrize("arm", ["AdamW", "Adam + L2"])
def test_rare_gradients_of_one_sign_settle_where_the_formula_says(arm):
    p = [1.0, 0.1, 0.03]
    found = scenario.settled(arm, p, 0.5, size=2.0, steps=6000, copies=60)
    torch.testing.assert_close(found, scenario.settling_level(arm, p, 0.5, size=2.0), rtol=0.06, atol=0)


@pytest.mark.parametrize("arm", ["AdamW", "Adam + L2"])
def test_rare_gradients_that_cancel_leave_the_decay_that_the_formula_says(arm):
    p = [1.0, 0.1]
    found = scenario.decay_rates(arm, p, 0.1, steps=6000, copies=600)
    torch.testing.assert_close(found, scenario.decay_rate(arm, p, 0.1), rtol=0.08, atol=0)


def test_the_formulas_in_numbers():
    p = [0.25, 0.01]
    torch.testing.assert_close(scenario.settling_level("AdamW", p, 2.0, size=7.0), torch.tensor([-0.25, -0.05]))
    torch.testing.assert_close(scenario.settling_level("Adam + L2", p, 2.0, size=4.0), torch.tensor([-0.5, -0.02]))
    torch.testing.assert_close(scenario.decay_rate("AdamW", p, 0.5, lr=0.01), torch.tensor([0.005, 0.005]))
    # √(0.25·σ² + (ℓw)²) with σ = 6, ℓ = 2, w = 2 is 5, and ηℓ = 0.01
    found = scenario.decay_rate("Adam + L2", [0.25], 2.0, size=6.0, lr=0.005, w=2.0)
    torch.testing.assert_close(found, torch.tensor([0.002]))


def test_sparse_gradients_have_their_probability_and_size():
    gradient = scenario.sparse([0.5, 0.02], 3.0, torch.Generator().manual_seed(0))
    g = torch.stack([gradient(t, torch.zeros(2, 500)) for t in range(200)])
    assert set(g.unique().tolist()) == {0.0, 3.0}
    torch.testing.assert_close((g != 0).float().mean((0, 2)), torch.tensor([0.5, 0.02]), rtol=0.05, atol=0)
    gradient = scenario.sparse([0.5], 3.0, torch.Generator().manual_seed(0), zero_mean=True)
    g = torch.stack([gradient(t, torch.zeros(1, 500)) for t in range(200)])
    assert abs(g.mean()) < 0.05 and g[g != 0].std() == pytest.approx(3.0, rel=0.02)


# ---- synthetic texts


def test_word_frequencies_follow_zipf_and_add_up_to_the_length():
    share = scenario.word_frequencies(400, 10)
    assert share.sum() == pytest.approx(10, abs=1e-4) and share.max() == 0.5
    tail = share[5:] * torch.arange(6, 401)
    torch.testing.assert_close(tail, tail[:1].expand_as(tail), rtol=1e-5, atol=0)
    assert scenario.word_frequencies(400, 10, zipf=False).unique().tolist() == pytest.approx([0.025])


def test_each_condition_gives_meaning_to_the_words_it_names():
    means = {c: scenario.meaning(c, 50, 10, torch.Generator().manual_seed(0)) != 0 for c in scenario.TEXTS[:4]}
    assert means["all words informative"].all() and means["equal frequency"].all()
    assert means["rare words are noise"].tolist() == [True] * 10 + [False] * 40
    assert means["only rare words informative"].tolist() == [False] * 10 + [True] * 40


def test_texts_hold_words_at_their_frequency_and_classes_follow_the_meaning():
    splits = scenario.synthetic_texts("rare words are noise", 1, train=4000, validation=5, test=7, words=60, frequent=6)
    assert {name: tuple(x.shape) for name, (x, _) in splits.items()} == {
        "train": (4000, 60), "validation": (5, 60), "test": (7, 60)
    }  # fmt: skip
    x, y = splits["train"]
    assert set(x.unique().tolist()) == {0.0, 1.0} and set(y.tolist()) == {0, 1}
    torch.testing.assert_close(x.mean(0), scenario.word_frequencies(60, 10), rtol=0, atol=0.03)
    rng = generator(1, "texts")  # the meaning is drawn first
    weights = scenario.meaning("rare words are noise", 60, 6, rng)
    z = (x - scenario.word_frequencies(60, 10)) @ weights
    assert y[z > z.std()].float().mean() > 0.95 and y[z < -z.std()].float().mean() < 0.05
    difference = x[y == 1].mean(0) - x[y == 0].mean(0)
    assert difference[6:].abs().max() < 0.06 < difference[:6].abs().max()


def test_a_seed_decides_the_texts():
    one, same, other = (scenario.synthetic_texts("equal frequency", s, train=n)["train"][0]
                        for s, n in ((3, 50), (3, np.int64(50)), (4, 50)))  # fmt: skip
    assert torch.equal(one, same) and not torch.equal(one, other)


# ---- real text


def test_the_file_says_what_it_is_and_gives_nothing_away():
    packed = library.files("adamw_book").joinpath("data_files", library.FILE).read_bytes()
    head = gzip.decompress(packed).decode().splitlines()[0]
    assert "CPython 3.11" in head and "Python Software Foundation" in head
    functions = scenario.library_functions()
    assert len(scenario.library_packages()) == 10 and min(Counter(f.package for f in functions).values()) >= 300
    names = {name.lower() for f in functions for name in f.identifiers}
    assert not [name for name in names for package in scenario.library_packages() if package in name]
    bags = [tuple(sorted(f.identifiers.items())) for f in functions]
    assert len(set(bags)) == len(bags), "a function with the same identifiers and counts may be in two splits"
    assert not [f.module for f in functions if {"test", "tests"} & set(f.module.split("/"))]


CODE = """
class Reader:
    def read(self, path, *, mode='r'):
        def close(handle): handle.close()
        return asyncio.open(path, mode=self.mode, tkvar=StringIO)
async def wait(): pass
"""


def test_identifiers_are_counted_without_giveaways():
    outer, wait = functions(ast.parse(CODE))
    assert (outer.name, wait.name) == ("read", "wait")  # the inner function is a part of the outer one
    expected = {"read": 1, "self": 2, "path": 2, "mode": 3, "close": 2, "handle": 2, "open": 1, "StringIO": 1}
    assert identifiers(outer) == expected


def test_a_python_without_the_packages_is_told_which_one_has_them(tmp_path):
    with pytest.raises(SystemExit, match="asyncio is not in .*: run this with Python 3.11"):
        list(corpus(tmp_path))


def test_no_module_is_in_two_splits_and_classes_are_balanced():
    sizes = {"test": 60, "validation": 40, "train": 150}
    for seed in range(3):
        parts = scenario.split_by_module(scenario.library_functions(), seed, sizes)
        modules = {name: {(f.package, f.module) for f, _ in part} for name, part in parts.items()}
        assert not modules["train"] & (modules["validation"] | modules["test"])
        assert not modules["validation"] & modules["test"]
        for name, part in parts.items():
            assert set(Counter(label for _, label in part).values()) == {sizes[name]}
            assert all(scenario.library_packages()[label] == f.package for f, label in part)


TOY = tuple(
    Function(package, f"m{i}", {"self": 2, package[0] * 3: 1, f"{package}{i}": 1})
    for package in ("a", "b")
    for i in range(6)
)


def test_a_vocabulary_comes_from_the_training_functions_alone():
    splits = scenario.library_splits(0, train=np.int64(2), validation=1, test=1, vocabulary=7, functions=iter(TOY))
    x, y = splits["train"]
    # self is in all four texts, aaa and bbb in two each, and each text has a name of its own
    assert x.sum(0).tolist() == [4, 2, 2, 1, 1, 1, 1] and y.tolist() == [0, 0, 1, 1]
    x, y = splits["test"]  # of its words, training knows the first three
    assert x.tolist() == [[1, 1, 0, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0, 0]] and y.tolist() == [0, 1]


def test_the_baselines_are_chance_and_a_classifier_that_beats_it():
    found = scenario.baselines(0, train=100, validation=20, test=20, vocabulary=500)
    assert found["majority"] == pytest.approx(0.1) and found["naive Bayes"] > 0.35
    splits = scenario.library_splits(0, train=100, validation=20, test=20, vocabulary=500)
    model = MultinomialNB(alpha=0.1).fit(*splits["train"])
    assert found["naive Bayes"] == pytest.approx(model.score(*splits["validation"]))
    other = scenario.baselines(0, "test", train=100, validation=20, test=20, vocabulary=500)
    assert other["naive Bayes"] == pytest.approx(model.score(*splits["test"]))


# ---- the conditions


def test_conditions_are_every_text_for_both_models():
    assert len(scenario.CONDITIONS) == len(scenario.TEXTS) * len(scenario.MODELS) == 10
    assert set(scenario.CONDITIONS) - set(scenario.REGIMES) == {"equal frequency · linear", "equal frequency · MLP"}


@pytest.mark.parametrize(("name", "kind", "classes"), [
    ("rare words are noise · linear", torch.nn.Linear, 2),
    ("real text · MLP", MLP, 10),
])  # fmt: skip
def test_a_task_is_what_its_name_says(name, kind, classes):
    task = scenario.task(name)
    model, (x, y) = task.model(), task.data(0)["train"]
    assert isinstance(model, kind) and model(x[:3]).shape == (3, classes) and int(y.max()) == classes - 1
    weight = dict(model.named_parameters())[scenario.WORD_WEIGHTS[scenario.CONDITIONS[name][1]]]
    assert weight.shape[1] == x.shape[1]
    # a word that no text holds has no gradient
    functional.cross_entropy(model(x[:20]), y[:20]).backward()
    silent = x[:20].sum(0) == 0
    assert silent.any() and not weight.grad[:, silent].any() and weight.grad[:, ~silent].any()


def test_the_arms_have_grids_of_one_size_that_decay_can_bear():
    for own in scenario.SETTINGS["grids"].values():
        runs = grid(scenario.arms(own, scenario.SETTINGS["lr_adam"]), [0])  # refuses unequal budgets
        assert runs.groupby("arm").size().nunique() == 1
        assert (runs["lr"] * runs["weight_decay"]).max() < 1
    assert not set(scenario.SETTINGS["tuning_seeds"]) & set(scenario.SETTINGS["evaluation_seeds"])
    runs = scenario.tuning_runs("equal frequency · MLP", [0, 1])
    assert runs.groupby("arm").size().to_dict() == {"AdamW": 50, "Adam + L2": 50, "Adam": 50}
    assert runs.loc[runs["arm"] == "Adam", "lr"].agg(["min", "max"]).tolist() == [0.0005, 0.3]
    for name, (text, model) in scenario.CONDITIONS.items():
        own = scenario.SETTINGS["grids"]["real text" if text == "real text" else f"synthetic, {model}"]
        runs = scenario.tuning_runs(name)
        assert set(runs["seed"]) == set(scenario.SETTINGS["tuning_seeds"])
        for arm, decay in (("AdamW", "weight_decay"), ("Adam + L2", "l2")):
            of_arm = runs[runs["arm"] == arm]
            assert set(of_arm[decay]) == set(own[decay]) and set(of_arm["lr"]) == set(own["lr"])


def test_winners_are_retrained_on_fresh_seeds_of_their_own_condition(monkeypatch):
    monkeypatch.setitem(scenario.SETTINGS, "steps", 2)
    name = "equal frequency · linear"
    winners = pd.DataFrame({
        "arm": ["AdamW", "AdamW"], "condition": [name, "real text · MLP"], "lr": 0.01, "weight_decay": [1.0, 2.0],
        "l2": 0.0, "score": 0.9, "n_seeds": 10, "edge": "",
    })  # fmt: skip
    table = scenario.evaluate_winners(name, winners, [300, 301])
    assert set(table["condition"]) == {name} and set(table["seed"]) == {300, 301} and set(table["step"]) == {2}
    assert set(table["weight_decay"]) == {1.0} and {"test accuracy", "weight norm"} < set(table["metric"])
    with pytest.raises(ValueError, match="seeds 0 were used for tuning"):
        scenario.evaluate_winners(name, winners, [0])


# ---- shrinkage


def indicator_task(shares: list[float]) -> Task:
    x = (torch.arange(20)[:, None] < 20 * torch.tensor(shares)).float()
    splits = {"train": (x, torch.arange(20) % 2), "validation": (1 - x, torch.arange(20) % 2)}
    return Task("toy", lambda: torch.nn.Linear(len(shares), 2), lambda seed: splits)


def test_sizes_are_sorted_by_frequency_and_are_those_of_the_trained_weights():
    task = indicator_task([0.9, 0.1, 0.0, 0.5])
    runs = grid({"AdamW": {"lr": [0.1], "weight_decay": [2.0]}}, [5])
    sizes = scenario.weight_sizes(task, "weight", runs, steps=8, batch_size=4, bins=2)
    assert sizes["group"].tolist() == [-1, 0, 1]
    assert sizes["frequency"].tolist() == pytest.approx([0.375, 0.05, 0.7])
    assert sizes["size"][0] ** 2 == pytest.approx((sizes["size"][1] ** 2 + sizes["size"][2] ** 2) / 2, rel=1e-4)
    # a silent word is all that a group of its own holds: its weights have shrunk by the decay alone
    alone = scenario.weight_sizes(task, "weight", runs, steps=8, batch_size=4, bins=4)
    before = scenario.weight_sizes(task, "weight", runs.assign(weight_decay=0.0), steps=8, batch_size=4, bins=4)
    assert alone["size"][1] / before["size"][1] == pytest.approx(0.8**8, rel=1e-4)


def test_halvings_of_a_table_worked_by_hand():
    rows = [
        {"condition": "c", "arm": arm, "lr": 0.1, "seed": seed, "group": group, "size": size}
        for seed in (7, 8)
        for arm, groups in {"Adam": [8.0, 8.0, 5.0, 5.0], "AdamW": [4.0, 4.0, 1.0, 1.0],
                            "Adam + L2": [1.0, 1.0, 5.0, 5.0]}.items()
        for group, size in [(-1, 99.0), *enumerate(groups)]
    ]  # fmt: skip
    shares = scenario.left(pd.DataFrame(rows))
    assert shares.loc[shares["arm"] == "AdamW", "left"].tolist() == [1.0, 0.5, 0.5, 0.2, 0.2] * 2
    table = scenario.halvings(shares)
    assert table.groupby("arm")["value"].unique().map(list).to_dict() == {"AdamW": [1.0], "Adam + L2": [3.0]}
    (effect,) = scenario.rare_word_effects(shares).values()
    assert effect.mean == pytest.approx(-2.0) and effect.n == 2


def test_seeds_of_equal_strength_may_come_one_by_one(monkeypatch):
    monkeypatch.setitem(scenario.SETTINGS, "steps", 2)
    sizes = scenario.equal_strength(scenario.SHRINKAGE["conditions"][0], iter([200]), False)
    assert sizes.groupby("arm")["seed"].unique().map(list).to_dict() == dict.fromkeys(
        ("AdamW", "Adam + L2", "Adam"), [200]
    )


def test_equal_strength_is_set_for_each_of_its_conditions():
    settings = scenario.SHRINKAGE
    assert set(settings["weight_decay"]) == set(settings["l2"]) == set(settings["conditions"])
    assert not set(settings["tuning_seeds"]) & set(settings["evaluation_seeds"])


# ---- bad input


SIZES = pd.DataFrame([
    {"condition": "c", "arm": arm, "lr": lr, "seed": 7, "group": group, "size": size}
    for arm, size in (("Adam", 8.0), ("AdamW", 4.0)) for lr in (0.1, 0.2) for group in (0, 1)
])  # fmt: skip


def test_each_learning_rate_is_held_against_its_own():
    table = SIZES.assign(size=SIZES["size"].where(SIZES["lr"] == 0.1, 1.0))
    assert scenario.left(table).query("arm == 'AdamW'")["left"].tolist() == [0.5, 0.5, 1.0, 1.0]
    assert scenario.halvings(table)["value"].tolist() == [1.0, 0.0]


def sizes(weight: str = "weight", bins: int = 2) -> pd.DataFrame:
    runs = grid({"Adam": {"lr": [0.1]}}, [0])
    return scenario.weight_sizes(indicator_task([0.5, 0.1]), weight, runs, steps=1, batch_size=1, bins=bins)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scenario.task("real text · RNN"), "name: 'real text · RNN' is no condition; choose from .*real text"),
        (lambda: scenario.tuning_runs("novels"), "name: 'novels' is no condition"),
        (lambda: scenario.evaluate_winners("novels", pd.DataFrame()), "name: 'novels' is no condition"),
        (lambda: scenario.classifier("RNN", 5, 2), "model: 'RNN'; choose from 'linear', 'MLP'"),
        (lambda: scenario.equal_strength("novels", [200]), "name: 'novels'; choose from 'all words"),
        (lambda: scenario.equal_strength("real text · MLP", [200, 3]), r"seeds: \[3\] have set the coefficients"),
        (lambda: scenario.settled("AdamW", [0.1], 1.0, steps=2), "steps, copies: 2, 100; whole numbers of at least 3"),
        (lambda: scenario.settled("AdamW", [0.1], 1.0, steps=5.5), "steps, copies: 5.5, 100; whole numbers"),
        (lambda: scenario.settled("AdamW", [0.1], 1.0, size=0.0), "size: 0.0; a finite number above 0"),
        (lambda: scenario.sparse([0.5], float("nan"), generator(0, "x")), "size: nan; a finite number above 0"),
        (lambda: scenario.settling_level("AdamW", [0.1], 1.0, size=-1.0), "size: -1.0; a finite number above 0"),
        (lambda: scenario.decay_rate("AdamW", [0.1], 1.0, lr=-1.0), "lr: -1.0; a finite number above 0"),
        (lambda: scenario.decay_rates("AdamW", [0.1], 1.0, copies=0), r"at least one copy \(copies: 0\)"),
        (lambda: scenario.decay_rates("AdamW", [0.1], 1.0, discard=1.5), "discard: 1.5; a number of steps"),
        (lambda: scenario.settled("Adam", [0.1], 1.0), "arm: 'Adam'; 'AdamW' or 'Adam \\+ L2' is needed"),
        (lambda: scenario.settled("AdamW", [0.1], 0.0), "coefficient: 0.0; a decay above 0"),
        (lambda: scenario.settled("AdamW", [1.5], 1.0), r"probabilities: \[1.5\]; a list of numbers above 0"),
        (lambda: scenario.decay_rates("AdamW", [0.1], 1.0, steps=5, discard=5), "discard: 5; .* below steps=5"),
        (lambda: scenario.word_frequencies(0, 1), "words: 0; a positive"),
        (lambda: scenario.word_frequencies(2.5, 1), "words: 2.5; a positive whole number"),
        (lambda: scenario.word_frequencies(10, 12, highest=2.0), "highest: 2.0; a share above 0, up to 1"),
        (lambda: scenario.meaning("equal frequency", 5, 1.5, generator(0, "x")), "frequent: 1.5; .* between 1 and 4"),
        (lambda: scenario.synthetic_texts("equal frequency", 0, strength=float("nan")), "strength: nan; a finite"),
        (lambda: scenario.split_by_module((), 0, {"train": 1}), "functions: there are none"),
        (lambda: scenario.library_splits(0, vocabulary=2.5), "vocabulary: 2.5; the training functions use"),
        (lambda: scenario.word_frequencies(10, 6), "length: 6; a number between 0 and .* = 5 is needed"),
        (lambda: scenario.meaning("poetry", 5, 2, generator(0, "x")), "condition: 'poetry'; choose from 'all words"),
        (lambda: scenario.meaning("equal frequency", 5, 5, generator(0, "x")), "frequent: 5; .* between 1 and 4"),
        (lambda: scenario.synthetic_texts("equal frequency", 0, test=0), "test: 0; a positive number of texts"),
        (lambda: scenario.library_splits(0, train=0), r"sizes: .*'train': 0.*; a positive number of functions"),
        (lambda: scenario.library_splits(0, train=900), "do not fit 'asyncio' with 668 functions in 30 modules"),
        (lambda: scenario.library_splits(0, vocabulary=10**6), "vocabulary: 1000000; the training functions use"),
        (lambda: scenario.baselines(0, "exam"), "split: 'exam'; choose from 'train'"),
        (lambda: sizes(bins=1), "bins: 1; at least 2 groups"),
        (lambda: sizes(bins=3), r"weight, bins: 'weight' of shape \(2, 2\), 3; a last axis of 2 words"),
        (lambda: sizes(weight="bias"), r"weight, bins: 'bias' of shape \(2,\), 2; a last axis of 2 words"),
        (lambda: scenario.left(SIZES[SIZES["arm"] != "Adam"]), "arm: 0 sizes under 'Adam'; one above 0 for each cond"),
        (lambda: scenario.left(pd.concat([SIZES, SIZES])), "arm: 8 sizes under 'Adam'; one above 0"),
        (lambda: scenario.left(SIZES.assign(size=0.0)), "arm: 4 sizes under 'Adam'; one above 0"),
        (lambda: scenario.halvings(SIZES[SIZES["arm"] != "Adam"]), "arm: 0 sizes under 'Adam'; one above 0"),
        (lambda: sizes(weight="embedding"), "weight: 'embedding' is no parameter of the model; it has weight, bias"),
    ],
)  # fmt: skip
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_effects_are_computed_from_the_tables_alone():
    rows = [
        {"condition": name, "arm": arm, "seed": seed, "step": 9, "metric": "test accuracy", "value": value + seed / 100}
        for name in scenario.CONDITIONS
        for arm, value in {"AdamW": 0.7, "Adam + L2": 0.6, "Adam": 0.5}.items()
        for seed in range(6)
    ]
    found = scenario.gains(pd.DataFrame(rows))
    assert list(found) == scenario.REGIMES
    np.testing.assert_allclose([effect.mean for effect in found.values()], 0.1)


def test_the_headline_measures_every_regime_of_both_claims(monkeypatch):
    monkeypatch.setitem(scenario.SETTINGS, "steps", 2)
    winners = pd.DataFrame(
        [(arm, name, 0.01) for name in scenario.CONDITIONS for arm in ("AdamW", "Adam + L2", "Adam")],
        columns=["arm", "condition", "lr"],
    ).assign(weight_decay=0.0, l2=0.0, score=0.9, n_seeds=10, edge="")
    found = scenario.STUDY.headline({"winners": winners}, [300, 301])
    assert list(found["sparse_gradients.rare_words"]) == scenario.SHRINKAGE["conditions"]
    gains = found["sparse_gradients.generalization"]
    assert list(gains) == scenario.REGIMES
    assert all(effect.n == 2 and effect.mean == 0 for effect in gains.values())  # without decay the arms are the same
