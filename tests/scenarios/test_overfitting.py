"""Generalization · overfitting: its conditions, and its measurements on gradients whose answer is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from adamw_book.ensemble import batch_order, initial_parameters
from adamw_book.models import CNN, MLP, RNN
from adamw_book.scenarios.overfitting import pull, study, tasks

# ---- the conditions


def test_the_conditions_are_every_network_with_clean_and_with_wrong_labels_and_the_showcase():
    names = [f"{model} · {labels}" for labels in tasks.LABEL_NOISE for model in tasks.MODELS]
    assert list(study.PROTOCOL.conditions) == [*names, "addition modulo 23"] and len(names) == 20
    assert all(study.PROTOCOL[name].task.name == name for name in names)


@pytest.mark.parametrize(
    ("name", "kind", "norm"),
    [
        ("MLP, 8 hidden layers · clean labels", MLP, False),
        ("MLP, 4 hidden layers, LayerNorm · 20% wrong labels", MLP, True),
        ("CNN, GroupNorm · clean labels", CNN, True),
        ("RNN over image rows · clean labels", RNN, False),
        ("RNN over image rows, LayerNorm · clean labels", RNN, True),
    ],
)
def test_a_network_is_what_its_name_says(name, kind, norm):
    model = tasks.DIGITS[name].task.model()
    assert isinstance(model, kind)
    assert norm == any(isinstance(m, torch.nn.LayerNorm | torch.nn.GroupNorm) for m in model.modules())
    if kind is MLP:
        assert len(model.layers) - 1 == int(name.split()[1])


def test_only_training_labels_are_wrong_and_these_are_a_split_of_their_own():
    clean, noisy = (tasks.DIGITS[f"CNN · {labels}"].task.data(3) for labels in tasks.LABEL_NOISE)
    wrong = clean["train"][1] != noisy["train"][1]
    assert wrong.sum() == 0.2 * tasks.TRAIN and torch.equal(clean["train"][0], noisy["train"][0])
    assert all(torch.equal(clean[split][1], noisy[split][1]) for split in ("validation", "test"))
    assert "mislabelled" not in clean
    for i in (0, 1):
        assert torch.equal(noisy["mislabelled"][i], noisy["train"][i][wrong])


def test_no_seed_tunes_on_a_test_image():
    data = tasks.DIGITS["CNN · clean labels"].task.data
    first, second = data(0), data(2001)
    assert torch.equal(first["test"][0], second["test"][0]) and len(first["test"][0]) == 597
    assert not torch.equal(first["validation"][0], second["validation"][0])


@pytest.mark.parametrize("name", study.PROTOCOL.conditions)
def test_each_arm_of_a_condition_tries_the_same_learning_rates(name):
    runs = study.PROTOCOL[name].runs([0])
    rates = runs.groupby("arm")["lr"].apply(lambda lr: tuple(sorted(lr)))
    assert len(set(rates)) == 1 and len(set(rates.iloc[0])) == study.PROTOCOL[name].search["count"]
    assert (runs["lr"] * runs["weight_decay"]).max() < 1
    decays = study.PROTOCOL[name].search
    assert np.ptp([np.log(np.divide(*decays[d][::-1])) for d in ("weight_decay", "l2")]) < 0.1


def test_decay_spares_gains_and_biases():
    condition = tasks.DIGITS["CNN, GroupNorm · clean labels"]
    spared = {n for n, p in condition.task.model().named_parameters() if not condition.decays(n)}
    assert spared == {n for n, p in condition.task.model().named_parameters() if p.ndim < 2} and spared


def test_each_primary_comparison_is_made():
    protocol = study.PROTOCOL
    assert study.GENERALIZATION.primary in protocol.conditions and pull.WEAK_GRADIENTS.primary in pull.PULL["models"]
    assert not set(protocol.tuning_seeds) & set(protocol.evaluation_seeds)


# ---- which coordinates does the penalty hit?


def test_recorded_gradients_are_those_that_the_training_met():
    task = tasks.DIGITS["MLP, 1 hidden layer · 20% wrong labels"].task
    start, gradients = pull.record_gradients(task, [4, 9], steps=3, lr=0.01, batch_size=20)
    shapes = {name: tuple(p.shape) for name, p in task.model().named_parameters()}
    assert {name: tuple(w.shape) for name, w in start.items()} == {name: (2, *s) for name, s in shapes.items()}
    assert {name: tuple(g.shape) for name, g in gradients.items()} == {name: (3, 2, *s) for name, s in shapes.items()}
    model, (x, y) = task.model(), task.data(9)["train"]
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(initial_parameters(task.model, [9])[name][0])
            assert torch.equal(p, start[name][1])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step, batch in enumerate(batch_order(9, len(x), 20, 3)):
        optimizer.zero_grad()
        functional.cross_entropy(model(x[batch]), y[batch]).backward()
        for name, p in model.named_parameters():
            torch.testing.assert_close(gradients[name][step, 1], p.grad, rtol=1e-4, atol=1e-6)
        optimizer.step()


HYPER = {"lr": 1e-3, "weight_decay": 0.5, "l2": 1e-4}
STEPS = 300


def played(sizes: torch.Tensor, bins: int = 4) -> pd.DataFrame:
    """`pull_by_gradient` on noise gradients whose standard deviations are `sizes` (R, n), of a weight and a bias."""
    rng = torch.Generator().manual_seed(0)
    replicas, n = sizes.shape
    start = {"weight": torch.randn(replicas, n // 10, 10, generator=rng), "bias": torch.full((replicas, 9), 1e6)}
    draws = torch.randn(STEPS, replicas, n, generator=rng) * sizes
    gradients = {"weight": draws.unflatten(2, (n // 10, 10)), "bias": torch.full((STEPS, replicas, 9), 1e6)}
    return pull.pull_by_gradient(start, gradients, **HYPER, bins=bins)


def test_adamw_pulls_on_every_coordinate_alike_and_l2_on_the_weak_ones_most():
    sizes = torch.tensor([0.001, 0.01, 0.1, 1.0]).repeat_interleave(400)
    shuffled = torch.stack([sizes[torch.randperm(1600, generator=torch.Generator().manual_seed(i))] for i in range(3)])
    pulls = played(shuffled)
    assert list(pulls.columns) == ["arm", "seed", "bin", "gradient", "pull", "summed"] and len(pulls) == 2 * 3 * 4
    np.testing.assert_allclose(pulls.groupby("bin")["gradient"].mean(), [0.001, 0.01, 0.1, 1.0], rtol=0.01)
    adamw, l2 = (
        pulls[pulls["arm"] == arm].pivot(index="seed", columns="bin", values="pull") for arm in ("AdamW", "Adam + L2")
    )
    np.testing.assert_allclose(adamw, 1 - (1 - HYPER["lr"] * HYPER["weight_decay"]) ** STEPS, rtol=0.03)
    # ℓ|w| is small beside σ, so a coordinate loses the share ηℓ/σ a step
    expected = 1 - np.exp(-HYPER["lr"] * HYPER["l2"] * STEPS / np.array([0.001, 0.01, 0.1, 1.0]))
    np.testing.assert_allclose(l2.mean(), expected, rtol=0.2)
    assert (l2.diff(axis=1).iloc[:, 1:] < 0).all().all()
    np.testing.assert_allclose(pulls["summed"], pulls["pull"], rtol=0.25)  # momentum, and Adam's own path, are left out


def test_what_is_taken_is_the_sum_of_the_steps_each_with_its_own_denominator():
    path, gradients = torch.tensor([[[2.0]], [[1.0]], [[9.0]]]), torch.tensor([[[3.0]], [[0.0]]])
    # by hand, β₂ = 1/2, ℓ = 1: v̂ is (3 + 2)², then (½ · ½ · 25 + ½ · 1) / ¾
    expected = 0.1 * (2 / 5 + 1 / np.sqrt(6.75 / 0.75))
    found = pull.taken(path, gradients, lr=0.1, l2=1.0, beta2=0.5)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_adamws_pull_on_silent_coordinates_is_exact():
    pulls = played(torch.zeros(2, 80))
    adamw = pulls.loc[pulls["arm"] == "AdamW", "pull"]
    np.testing.assert_allclose(adamw, 1 - (1 - HYPER["lr"] * HYPER["weight_decay"]) ** STEPS, rtol=1e-4)


def test_pulls_of_a_model_carry_its_seeds_and_its_name(monkeypatch):
    monkeypatch.setitem(pull.PULL, "steps", 4)
    asked, real = [], pull.record_gradients

    def record_gradients(task, *rest):
        asked.append(task.name)
        return real(task, *rest)

    monkeypatch.setattr(pull, "record_gradients", record_gradients)
    pulls = pull.measure_pull("CNN", iter([203, 201]))
    assert set(pulls["model"]) == {"CNN"} and pulls["seed"].unique().tolist() == [203, 201]
    assert np.isfinite(pulls["pull"]).all() and set(pulls["bin"]) == set(range(12))
    assert asked == ["CNN · 20% wrong labels"]


def test_weak_over_strong_compares_the_outer_quarters():
    weak, middle, strong = [0.4] * 3, [77.0] * 6, [0.1, 0.1, 0.1]
    rows = [
        {"arm": arm, "seed": seed, "bin": i, "gradient": 1.0, "pull": pull * scale}
        for arm, pulls in {"Adam + L2": weak + middle + strong, "AdamW": [0.2] * 12}.items()
        for seed, scale in ((7, 1.0), (8, 0.5))
        for i, pull in enumerate(pulls)
    ]
    values = pull.weak_over_strong(pd.DataFrame(rows))
    assert set(values["metric"]) == {pull.WEAK_GRADIENTS.metric}
    found = values.set_index(["arm", "seed"])["value"].to_dict()
    assert found == {
        ("Adam + L2", 7): pytest.approx(2.0),
        ("Adam + L2", 8): pytest.approx(2.0),
        ("AdamW", 7): pytest.approx(0.0, abs=1e-9),
        ("AdamW", 8): pytest.approx(0.0, abs=1e-9),
    }


def test_after_a_silence_l2_spares_what_the_formula_says_and_adamw_nothing():
    found = pull.just_silenced([3, 4, 5], ratios=[1, 10, 100]).set_index(["arm", "ratio", "seed"])["value"]
    assert (found["AdamW"].abs() < 0.1).all()
    for ratio, mean in found["Adam + L2"].groupby("ratio").mean().items():
        assert mean == pytest.approx(pull.silenced_formula(ratio), abs=0.25)
    alone = pull.just_silenced(iter([4]), ratios=[10]).set_index("arm")["value"]
    for arm in ("AdamW", "Adam + L2"):
        assert alone[arm] == pytest.approx(found[arm, 10.0, 4], abs=1e-5)  # the seed alone decides


def test_what_v_has_forgotten_is_spared_no_longer():
    assert pull.silenced_formula(30) < -2 and pull.silenced_formula(30, after=12_000) > 1
    assert pull.silenced_formula(1, after=1) == pytest.approx(0, abs=1e-3)
    for after in (300, 12_000):  # step by step: a step takes 1/√v̂, and v̂ keeps the share 0.999 of itself
        taken = (1 / np.sqrt(0.999 ** np.arange(after))).mean()
        assert pull.silenced_formula(30, after) == pytest.approx(np.log2(taken / 30), abs=0.01)


def test_only_what_was_taken_since_the_silence_counts(monkeypatch):
    """By hand: of what was left at the silence the silenced half loses a half and the steady one a fifth."""

    def drive(gradient, start, steps, **hyper):
        assert [bool(gradient(t, start)[:, :200].any()) for t in (3, 4)] == [True, False]  # silent after four steps
        assert all(gradient(t, start)[:, 200:].all() for t in range(steps))
        path = torch.ones(steps + 1, *start.shape)
        if "weight_decay" in hyper or "l2" in hyper:
            path[4, :, :200], path[4, :, 200:], path[-1] = 0.8, 0.5, 0.4
        return path

    monkeypatch.setattr(pull, "drive", drive)
    values = pull.just_silenced([1, 2], ratios=[30], before=4, after=3)
    assert values["value"].tolist() == pytest.approx([np.log2(0.5 / 0.2)] * 4) and set(values["step"]) == {7}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: played(torch.ones(1, 20), bins=21), "bins: 21; a whole number from 1 to 20, the weights in start"),
        (lambda: played(torch.ones(1, 20), bins=2.5), "bins: 2.5; a whole number from 1 to 20"),
        (lambda: pull.pull_by_gradient({"b": torch.ones(1, 9)}, {"b": torch.ones(2, 1, 9)}, **HYPER),
         "bins: 12; a whole number from 1 to 0, .*biases left out"),
        (lambda: pull.weak_over_strong(PULLS[PULLS["bin"] < 3]), "pulls: 3 groups; at least four"),
        (lambda: pull.weak_over_strong(PULLS.assign(pull=PULLS["pull"].where(PULLS["bin"] > 0))),
         "pulls: 12 groups; at least four with finite pulls"),
        (lambda: pull.just_silenced([]), r"seeds, ratios, before, after: \[\], .*; at least one seed and one ratio"),
        (lambda: pull.just_silenced([3], after=0), "1000, 0; .* 0 and 1 steps"),
        (lambda: pull.just_silenced([3], ratios=[30, 0]), r"\[30, 0\], .* ratio above 0"),
        (lambda: pull.just_silenced([3], ratios=[float("nan")]), r"\[nan\], .* ratio above 0"),
    ],
)  # fmt: skip
def test_what_has_no_pull_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


PULLS = pd.DataFrame({"arm": "AdamW", "seed": 0, "bin": range(12), "gradient": 1.0, "pull": 0.1})


def test_effects_are_positive_where_adamw_pulls_on_weak_gradients_more():
    pulls = pd.concat([PULLS.assign(arm=arm, seed=seed, model="CNN", pull=np.where(PULLS["bin"] < 3, 0.4, 0.1) ** power)
                       for arm, power in (("AdamW", 1), ("Adam + L2", 0.5)) for seed in (0, 1)])  # fmt: skip
    found = study.PROTOCOL.effects({"pulls": pulls})
    assert found[pull.WEAK_GRADIENTS.id]["CNN"].mean == pytest.approx(1.0)
    assert found[study.GENERALIZATION.id] == {}  # nothing was evaluated


# ---- the showcase


def test_the_showcase_is_addition_modulo_23():
    splits = tasks.ADDITION.task.data(0)
    assert {name: len(x) for name, (x, _) in splits.items()} == {"train": 317, "validation": 106, "test": 106}
    for x, y in splits.values():
        a, b = x[:, :23].argmax(1), x[:, 23:].argmax(1)
        assert torch.equal(y, (a + b) % 23) and (x.sum(1) == 2).all()
    assert tasks.ADDITION.task.model()(splits["test"][0]).shape == (106, 23)


def test_the_showcase_trains_on_the_whole_set_at_every_step():
    runs = pd.DataFrame({"arm": "AdamW", "lr": 0.01, "weight_decay": 1.0, "l2": 0.0, "seed": [0]})
    table = tasks.ADDITION.train(runs, ("train", "test"), record=[0, 3], steps=3)
    loss = table[table["metric"] == "train loss"].set_index("step")["value"]
    assert set(table["metric"]) > {"train accuracy", "test accuracy"} and loss[3] < loss[0]
    task = tasks.ADDITION.task
    model, (x, y) = task.model(), task.data(0)["train"]
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(initial_parameters(task.model, [0])[name][0])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert loss[3] == pytest.approx(functional.cross_entropy(model(x), y).item(), rel=1e-5)
