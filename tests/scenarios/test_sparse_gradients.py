"""Sparse gradients: texts whose statistics are known, splits that leak nothing, sizes and halvings worked by hand."""

import ast
import dataclasses
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
from adamw_book.scenarios.sparse_gradients import coordinates, library, shrinkage, study, tasks, texts
from adamw_book.scenarios.sparse_gradients.library import Function

# ---- single weights


@pytest.mark.parametrize("arm", ["AdamW", "Adam + L2"])
def test_rare_gradients_of_one_sign_settle_where_the_formula_says(arm):
    p = [1.0, 0.1, 0.03]
    found = coordinates.settled(arm, p, 0.5, size=2.0, steps=6000, copies=60)
    torch.testing.assert_close(found, coordinates.settling_level(arm, p, 0.5, size=2.0), rtol=0.06, atol=0)


@pytest.mark.parametrize("arm", ["AdamW", "Adam + L2"])
def test_rare_gradients_that_cancel_leave_the_decay_that_the_formula_says(arm):
    p = [1.0, 0.1]
    found = coordinates.decay_rates(arm, p, 0.1, steps=6000, copies=600)
    torch.testing.assert_close(found, coordinates.decay_rate(arm, p, 0.1), rtol=0.08, atol=0)


def test_the_formulas_in_numbers():
    p = [0.25, 0.01]
    torch.testing.assert_close(coordinates.settling_level("AdamW", p, 2.0, size=7.0), torch.tensor([-0.25, -0.05]))
    torch.testing.assert_close(coordinates.settling_level("Adam + L2", p, 2.0, size=4.0), torch.tensor([-0.5, -0.02]))
    torch.testing.assert_close(coordinates.decay_rate("AdamW", p, 0.5, lr=0.01), torch.tensor([0.005, 0.005]))
    # √(0.25·σ² + (ℓw)²) with σ = 6, ℓ = 2, w = 2 is 5, and ηℓ = 0.01
    found = coordinates.decay_rate("Adam + L2", [0.25], 2.0, size=6.0, lr=0.005, w=2.0)
    torch.testing.assert_close(found, torch.tensor([0.002]))


def test_sparse_gradients_have_their_probability_and_size():
    gradient = coordinates.sparse([0.5, 0.02], 3.0, torch.Generator().manual_seed(0))
    g = torch.stack([gradient(t, torch.zeros(2, 500)) for t in range(200)])
    assert set(g.unique().tolist()) == {0.0, 3.0}
    torch.testing.assert_close((g != 0).float().mean((0, 2)), torch.tensor([0.5, 0.02]), rtol=0.05, atol=0)
    gradient = coordinates.sparse([0.5], 3.0, torch.Generator().manual_seed(0), zero_mean=True)
    g = torch.stack([gradient(t, torch.zeros(1, 500)) for t in range(200)])
    assert abs(g.mean()) < 0.05 and g[g != 0].std() == pytest.approx(3.0, rel=0.02)


# ---- synthetic texts


def test_word_frequencies_follow_zipf_and_add_up_to_the_length():
    share = texts.word_frequencies(400, 10)
    assert share.sum() == pytest.approx(10, abs=1e-4) and share.max() == 0.5
    tail = share[5:] * torch.arange(6, 401)
    torch.testing.assert_close(tail, tail[:1].expand_as(tail), rtol=1e-5, atol=0)
    assert texts.word_frequencies(400, 10, zipf=False).unique().tolist() == pytest.approx([0.025])


def test_each_condition_gives_meaning_to_the_words_it_names():
    means = {c: texts.meaning(c, 50, 10, torch.Generator().manual_seed(0)) != 0 for c in texts.CONDITIONS}
    assert means["all words informative"].all() and means["equal frequency"].all()
    assert means["rare words are noise"].tolist() == [True] * 10 + [False] * 40
    assert means["only rare words informative"].tolist() == [False] * 10 + [True] * 40


def test_texts_hold_words_at_their_frequency_and_classes_follow_the_meaning():
    splits = texts.synthetic_texts("rare words are noise", 1, train=4000, validation=5, test=7, words=60, frequent=6)
    assert {name: tuple(x.shape) for name, (x, _) in splits.items()} == {
        "train": (4000, 60), "validation": (5, 60), "test": (7, 60)
    }  # fmt: skip
    x, y = splits["train"]
    assert set(x.unique().tolist()) == {0.0, 1.0} and set(y.tolist()) == {0, 1}
    torch.testing.assert_close(x.mean(0), texts.word_frequencies(60, 10), rtol=0, atol=0.03)
    rng = generator(0, "language")  # the meaning is drawn first
    weights = texts.meaning("rare words are noise", 60, 6, rng)
    z = (x - texts.word_frequencies(60, 10)) @ weights
    assert y[z > z.std()].float().mean() > 0.95 and y[z < -z.std()].float().mean() < 0.05
    difference = x[y == 1].mean(0) - x[y == 0].mean(0)
    assert difference[6:].abs().max() < 0.06 < difference[:6].abs().max()


def test_each_part_has_a_thousand_texts_of_four_hundred_words_unless_told():
    splits = texts.synthetic_texts("equal frequency", 0)
    assert {name: tuple(x.shape) for name, (x, _) in splits.items()} == dict.fromkeys(splits, (1000, 400))


def test_a_seed_decides_the_texts_but_not_the_test_part():
    one, same, other = (
        texts.synthetic_texts("equal frequency", s, train=n) for s, n in ((3, 50), (3, np.int64(50)), (4, 50))
    )
    for split in ("train", "validation"):
        assert torch.equal(one[split][0], same[split][0]) and not torch.equal(one[split][0], other[split][0])
    assert all(torch.equal(a, b) for a, b in zip(one["test"], other["test"], strict=True))


# ---- real text


def test_the_file_says_what_it_is_and_gives_nothing_away():
    packed = library.files("adamw_book").joinpath("data_files", library.FILE).read_bytes()
    head = gzip.decompress(packed).decode().splitlines()[0]
    assert "CPython 3.11" in head and "Python Software Foundation" in head
    functions = library.library_functions()
    assert len(library.library_packages()) == 10 and min(Counter(f.package for f in functions).values()) >= 300
    names = {name.lower() for f in functions for name in f.identifiers}
    assert not [name for name in names for package in library.library_packages() if package in name]
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
        parts = library.split_by_module(library.library_functions(), seed, sizes)
        modules = {name: {(f.package, f.module) for f, _ in part} for name, part in parts.items()}
        assert not modules["train"] & (modules["validation"] | modules["test"])
        assert not modules["validation"] & modules["test"]
        for name, part in parts.items():
            assert set(Counter(label for _, label in part).values()) == {sizes[name]}
            assert all(library.library_packages()[label] == f.package for f, label in part)


TOY = tuple(
    Function(package, f"m{i}", {"self": 2, package[0] * 3: 1, f"{package}{i}": 1})
    for package in ("a", "b")
    for i in range(6)
)


def test_no_seed_trains_on_a_module_of_the_test_part():
    functions = library.library_functions()
    test, seen = set(), []
    split_by_module = library.split_by_module

    def watched(functions, seed, sizes):
        found = split_by_module(functions, seed, sizes)
        if "test" in sizes:
            test.update((f.package, f.module) for f, _ in found["test"])
        else:
            seen.append({(f.package, f.module) for part in found.values() for f, _ in part})
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "split_by_module", watched)
        first, second = (library.library_splits(seed, functions=functions) for seed in (0, 2001))
    assert len(seen) == 2 and seen[0] != seen[1] and not test & (seen[0] | seen[1])
    assert torch.equal(first["test"][1], second["test"][1]) and len(first["test"][1]) == 600


def test_a_vocabulary_comes_from_the_training_functions_alone():
    splits = library.library_splits(0, train=np.int64(2), validation=1, test=1, vocabulary=7, functions=iter(TOY))
    x, y = splits["train"]
    # self is in all four texts, aaa and bbb in two each, and each text has a name of its own
    assert x.sum(0).tolist() == [4, 2, 2, 1, 1, 1, 1] and y.tolist() == [0, 0, 1, 1]
    x, y = splits["test"]  # of its words, training knows the first three
    assert x.tolist() == [[1, 1, 0, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0, 0]] and y.tolist() == [0, 1]


def test_the_baselines_are_chance_and_a_classifier_that_beats_it():
    found = library.baselines(0, train=100, validation=20, test=20, vocabulary=500)
    assert found["majority"] == pytest.approx(0.1) and found["naive Bayes"] > 0.35
    splits = library.library_splits(0, train=100, validation=20, test=20, vocabulary=500)
    model = MultinomialNB(alpha=0.1).fit(*splits["train"])
    assert found["naive Bayes"] == pytest.approx(model.score(*splits["validation"]))
    other = library.baselines(0, "test", train=100, validation=20, test=20, vocabulary=500)
    assert other["naive Bayes"] == pytest.approx(model.score(*splits["test"]))


# ---- the conditions


def test_conditions_are_every_text_for_both_models_and_two_texts_for_layernorm():
    assert len(tasks.CONDITIONS) == 2 * len(tasks.TEXTS) + 2 == 12
    assert set(tasks.CONDITIONS) - set(tasks.REGIMES) == {"equal frequency · linear", "equal frequency · MLP"}
    assert study.SPARSE_GAIN.primary in tasks.REGIMES
    assert shrinkage.RARE_WORDS.primary in shrinkage.SHRINKAGE["coefficients"]


@pytest.mark.parametrize(("name", "kind", "classes"), [
    ("rare words are noise · linear", torch.nn.Linear, 2),
    ("real text · MLP", MLP, 10),
    ("real text · MLP, LayerNorm", MLP, 10),
])  # fmt: skip
def test_a_task_is_what_its_name_says(name, kind, classes):
    task = tasks.CONDITIONS[name].task
    model, (x, y) = task.model(), task.data(0)["train"]
    assert isinstance(model, kind) and model(x[:3]).shape == (3, classes) and int(y.max()) == classes - 1
    weight = dict(model.named_parameters())[tasks.WORD_WEIGHTS[name.rpartition(" · ")[2]]]
    assert weight.shape[1] == x.shape[1] and any("norm" in n for n, _ in model.named_parameters()) == ("Norm" in name)
    # a word that no text holds has no gradient
    functional.cross_entropy(model(x[:20]), y[:20]).backward()
    silent = x[:20].sum(0) == 0
    assert silent.any() and not weight.grad[:, silent].any() and weight.grad[:, ~silent].any()


@pytest.mark.parametrize("name", tasks.CONDITIONS)
def test_each_arm_of_a_condition_tries_the_same_learning_rates(name):
    runs = tasks.CONDITIONS[name].runs([0])
    assert runs.groupby("arm")["lr"].apply(lambda lr: tuple(sorted(lr))).nunique() == 1 and len(runs) in (72, 90)
    assert (runs["lr"] * runs["weight_decay"]).max() < 1


# ---- shrinkage


def indicator_task(shares: list[float]) -> Task:
    x = (torch.arange(20)[:, None] < 20 * torch.tensor(shares)).float()
    splits = {"train": (x, torch.arange(20) % 2), "validation": (1 - x, torch.arange(20) % 2)}
    return Task("toy", lambda: torch.nn.Linear(len(shares), 2), lambda seed: splits)


def test_sizes_are_sorted_by_frequency_and_are_those_of_the_trained_weights():
    task = indicator_task([0.9, 0.1, 0.0, 0.5])
    runs = grid({"AdamW": {"lr": [0.1], "weight_decay": [2.0]}}, [5])
    sizes = shrinkage.weight_sizes(task, "weight", runs, steps=8, batch_size=4, bins=2)
    assert sizes["group"].tolist() == [-1, 0, 1]
    assert sizes["frequency"].tolist() == pytest.approx([0.375, 0.05, 0.7])
    assert sizes["size"][0] ** 2 == pytest.approx((sizes["size"][1] ** 2 + sizes["size"][2] ** 2) / 2, rel=1e-4)
    # a silent word is all that a group of its own holds: its weights have shrunk by the decay alone
    alone = shrinkage.weight_sizes(task, "weight", runs, steps=8, batch_size=4, bins=4)
    before = shrinkage.weight_sizes(task, "weight", runs.assign(weight_decay=0.0), steps=8, batch_size=4, bins=4)
    assert alone["size"][1] / before["size"][1] == pytest.approx(0.8**8, rel=1e-4)


def test_halvings_of_a_table_worked_by_hand():
    rows = [
        {"condition": "c", "arm": arm, "lr": 0.1, "seed": seed, "group": group, "size": size}
        for seed in (7, 8)
        for arm, groups in {"Adam": [8.0, 8.0, 5.0, 5.0], "AdamW": [4.0, 4.0, 1.0, 1.0],
                            "Adam + L2": [1.0, 1.0, 5.0, 5.0]}.items()
        for group, size in [(-1, 99.0), *enumerate(groups)]
    ]  # fmt: skip
    shares = shrinkage.left(pd.DataFrame(rows))
    assert shares.loc[shares["arm"] == "AdamW", "left"].tolist() == [1.0, 0.5, 0.5, 0.2, 0.2] * 2
    table = shrinkage.halvings(shares)
    assert table.groupby("arm")["value"].unique().map(list).to_dict() == {"AdamW": [1.0], "Adam + L2": [3.0]}
    (effect,) = shrinkage.rare_word_effects(shares).values()
    assert effect.mean == pytest.approx(-2.0) and effect.n == 2


def test_seeds_of_equal_strength_may_come_one_by_one(monkeypatch):
    name = "all words informative · linear"
    monkeypatch.setitem(tasks.CONDITIONS, name, dataclasses.replace(tasks.CONDITIONS[name], steps=2))
    sizes = shrinkage.equal_strength(iter([2000]), [name])
    assert sizes.groupby("arm")["seed"].unique().map(list).to_dict() == dict.fromkeys(
        ("AdamW", "Adam + L2", "Adam"), [2000]
    )


def test_equal_strength_is_set_on_other_seeds_for_conditions_that_there_are():
    settings = shrinkage.SHRINKAGE
    assert set(settings["coefficients"]) <= set(tasks.CONDITIONS)
    assert not set(settings["tuning_seeds"]) & set(settings["evaluation_seeds"])


# ---- bad input


SIZES = pd.DataFrame([
    {"condition": "c", "arm": arm, "lr": lr, "seed": 7, "group": group, "size": size}
    for arm, size in (("Adam", 8.0), ("AdamW", 4.0)) for lr in (0.1, 0.2) for group in (0, 1)
])  # fmt: skip


def test_each_learning_rate_is_held_against_its_own():
    table = SIZES.assign(size=SIZES["size"].where(SIZES["lr"] == 0.1, 1.0))
    assert shrinkage.left(table).query("arm == 'AdamW'")["left"].tolist() == [0.5, 0.5, 1.0, 1.0]
    assert shrinkage.halvings(table)["value"].tolist() == [1.0, 0.0]


def sizes(weight: str = "weight", bins: int = 2) -> pd.DataFrame:
    runs = grid({"Adam": {"lr": [0.1]}}, [0])
    return shrinkage.weight_sizes(indicator_task([0.5, 0.1]), weight, runs, steps=1, batch_size=1, bins=bins)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tasks.classifier("RNN", 5, 2), "model: 'RNN'; choose from 'linear', 'MLP', 'MLP, LayerNorm'"),
        (lambda: shrinkage.equal_strength([2000], ["novels"]), "names: 'novels'; choose from 'all words"),
        (lambda: shrinkage.equal_strength([2000, 3]), r"seeds: \[3\] have set the coefficients"),
        (lambda: coordinates.settled("AdamW", [0.1], 1.0, steps=2), "steps, copies: 2, 100; whole numbers of at"),
        (lambda: coordinates.settled("AdamW", [0.1], 1.0, steps=5.5), "steps, copies: 5.5, 100; whole numbers"),
        (lambda: coordinates.settled("AdamW", [0.1], 1.0, size=0.0), "size: 0.0; a finite number above 0"),
        (lambda: coordinates.sparse([0.5], float("nan"), generator(0, "x")), "size: nan; a finite number above 0"),
        (lambda: coordinates.settling_level("AdamW", [0.1], 1.0, size=-1.0), "size: -1.0; a finite number above 0"),
        (lambda: coordinates.decay_rate("AdamW", [0.1], 1.0, lr=-1.0), "lr: -1.0; a finite number above 0"),
        (lambda: coordinates.decay_rates("AdamW", [0.1], 1.0, copies=0), r"at least one copy \(copies: 0\)"),
        (lambda: coordinates.decay_rates("AdamW", [0.1], 1.0, discard=1.5), "discard: 1.5; a number of steps"),
        (lambda: coordinates.settled("Adam", [0.1], 1.0), "arm: 'Adam'; 'AdamW' or 'Adam \\+ L2' is needed"),
        (lambda: coordinates.settled("AdamW", [0.1], 0.0), "coefficient: 0.0; a decay above 0"),
        (lambda: coordinates.settled("AdamW", [1.5], 1.0), r"probabilities: \[1.5\]; a list of numbers above 0"),
        (lambda: coordinates.decay_rates("AdamW", [0.1], 1.0, steps=5, discard=5), "discard: 5; .* below steps=5"),
        (lambda: texts.word_frequencies(0, 1), "words: 0; a positive"),
        (lambda: texts.word_frequencies(2.5, 1), "words: 2.5; a positive whole number"),
        (lambda: texts.word_frequencies(10, 12, highest=2.0), "highest: 2.0; a share above 0, up to 1"),
        (lambda: texts.meaning("equal frequency", 5, 1.5, generator(0, "x")), "frequent: 1.5; .* between 1 and 4"),
        (lambda: texts.synthetic_texts("equal frequency", 0, strength=float("nan")), "strength: nan; a finite"),
        (lambda: library.split_by_module((), 0, {"train": 1}), "functions: there are none"),
        (lambda: library.library_splits(0, vocabulary=2.5), "vocabulary: 2.5; the training functions use"),
        (lambda: texts.word_frequencies(10, 6), "length: 6; a number between 0 and .* = 5 is needed"),
        (lambda: texts.meaning("poetry", 5, 2, generator(0, "x")), "condition: 'poetry'; choose from 'all words"),
        (lambda: texts.meaning("equal frequency", 5, 5, generator(0, "x")), "frequent: 5; .* between 1 and 4"),
        (lambda: texts.synthetic_texts("equal frequency", 0, test=0), "test: 0; a positive number of texts"),
        (lambda: library.library_splits(0, train=0), r"sizes: .*'train': 0.*; a positive number of functions"),
        (lambda: library.library_splits(0, train=900), "do not fit 'asyncio' with 668 functions in 30 modules"),
        (lambda: library.library_splits(0, vocabulary=10**6), "vocabulary: 1000000; the training functions use"),
        (lambda: library.baselines(0, "exam"), "split: 'exam'; choose from 'train'"),
        (lambda: sizes(bins=1), "bins: 1; at least 2 groups"),
        (lambda: sizes(bins=3), r"weight, bins: 'weight' of shape \(2, 2\), 3; a last axis of 2 words"),
        (lambda: sizes(weight="bias"), r"weight, bins: 'bias' of shape \(2,\), 2; a last axis of 2 words"),
        (lambda: shrinkage.left(SIZES[SIZES["arm"] != "Adam"]), "arm: 0 sizes under 'Adam'; one above 0 for each cond"),
        (lambda: shrinkage.left(pd.concat([SIZES, SIZES])), "arm: 8 sizes under 'Adam'; one above 0"),
        (lambda: shrinkage.left(SIZES.assign(size=0.0)), "arm: 4 sizes under 'Adam'; one above 0"),
        (lambda: shrinkage.halvings(SIZES[SIZES["arm"] != "Adam"]), "arm: 0 sizes under 'Adam'; one above 0"),
        (lambda: sizes(weight="embedding"), "weight: 'embedding' is no parameter of the model; it has weight, bias"),
    ],
)  # fmt: skip
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
