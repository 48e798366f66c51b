"""Generalization · vanishing gradients: its data and measurements where the answer is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from adamw_book.data import digits, digits_splits
from adamw_book.dynamics import remaining
from adamw_book.ensemble import Snapshot, initial_parameters, train
from adamw_book.evidence import grid
from adamw_book.models import MLP, RNN
from adamw_book.scenarios import vanishing_gradients as scenario
from adamw_book.scenarios.vanishing_gradients import null_space, through_time

# ---- inputs that are silent in training


def test_silent_pixels_are_distinct_and_would_have_varied():
    pixels = scenario.silent_pixels(3)
    assert len(pixels.unique()) == 16 and (digits()[0][:, pixels].std(0) > 0.25).all()
    assert torch.equal(pixels, scenario.silent_pixels(3, np.int64(16))) and not torch.equal(
        pixels, scenario.silent_pixels(4)
    )


@pytest.mark.parametrize("silent", [0, -1, 2.5, 65])
def test_an_impossible_number_of_silent_pixels_is_refused(silent):
    with pytest.raises(ValueError, match=r"silent: .*; a whole number from 1 to \d+, the pixels that vary, is needed"):
        scenario.silent_pixels(0, silent)


def test_inputs_are_set_in_a_copy():
    x = torch.rand(5, 4)
    changed = scenario.set_inputs(x, torch.tensor([1, 3]), 2.0)
    assert (changed[:, [1, 3]] == 2).all() and torch.equal(changed[:, [0, 2]], x[:, [0, 2]]) and (x < 2).all()
    with pytest.raises(ValueError, match="value: 0.5 for inputs of torch.int64, which cannot hold it"):
        scenario.set_inputs(x.long(), torch.tensor([1]), 0.5)
    with pytest.raises(ValueError, match=r"columns: \[4\]; they must lie in 0…3"):
        scenario.set_inputs(x, torch.tensor([4]), 0.0)


def test_pixels_are_silent_until_they_switch_on():
    splits, whole = scenario.silenced_splits(5, 0.2), digits_splits(5, train=300, label_noise=0.2)
    pixels = scenario.silent_pixels(5)
    others = torch.tensor([i for i in range(64) if i not in pixels.tolist()])
    for name in ("train", "validation", "test"):
        assert not splits[name][0][:, pixels].any()
        assert torch.equal(splits[name][0][:, others], whole[name][0][:, others])
        assert torch.equal(splits[name][1], whole[name][1])  # wrong labels in training alone
    for name in ("validation", "test"):
        assert all(torch.equal(a, b) for a, b in zip(splits[f"{name}, switched on"], whole[name], strict=True))
    stuck = splits["test, stuck on"][0]
    assert (stuck[:, pixels] == 1).all() and torch.equal(stuck[:, others], whole["test"][0][:, others])


@pytest.mark.parametrize("sizes", [{"train": 0}, {"train": -5}, {"train": 1797}, {"validation": 0}])
def test_empty_splits_are_refused(sizes):
    with pytest.raises(ValueError, match="a positive whole number of at most the .* is needed"):
        scenario.silenced_splits(0, **sizes)


def test_labels_out_of_range_are_refused():
    x, y = digits()
    with pytest.raises(ValueError, match="y: labels from .* must lie in 0…9"):
        scenario.silenced_splits(0, 0.2, data=(x, y + 1))


def test_conditions_and_their_arms():
    assert set(scenario.HEADLINE) <= set(scenario.CONDITIONS) and set(scenario.SHRUNK) <= set(scenario.HEADLINE)
    runs = grid(scenario.arms(), scenario.SETTINGS["tuning_seeds"])  # refuses unequal budgets
    assert runs.drop(columns="seed").drop_duplicates().groupby("arm").size().to_dict() == dict.fromkeys(
        ("AdamW", "Adam + L2", "Adam"), 30
    )
    assert not set(scenario.SETTINGS["tuning_seeds"]) & set(scenario.SETTINGS["evaluation_seeds"])
    assert len(scenario.task("4 hidden layers, clean labels").model().layers) == 5
    small, usual = (model.layers[0].weight.std() for model in (scenario.small_start(0.01), MLP()))
    assert 0.008 < small / usual < 0.012
    with pytest.raises(ValueError, match="condition: 'CNN' is unknown; choose from '1 hidden layer, clean labels'"):
        scenario.task("CNN")


def snapshot(weight, seeds):
    runs = pd.DataFrame({"arm": "AdamW", "seed": seeds})
    return Snapshot(1, runs, {"layers.0.weight": weight}, {}, {})


def test_the_silent_norm_sees_the_silent_weights_alone():
    weight = torch.zeros(2, 32, 64)
    weight[0, :, scenario.silent_pixels(7)] = 1.0
    weight[1, :, scenario.silent_pixels(7)] = 1.0
    overlap = len(set(scenario.silent_pixels(7).tolist()) & set(scenario.silent_pixels(8).tolist()))
    norm = scenario.silent_norm(snapshot(weight, [7, 8]))[scenario.SILENT_NORM]
    torch.testing.assert_close(norm, torch.tensor([32 * 16, 32 * overlap]).sqrt())


def test_silent_weights_obey_the_closed_form():
    runs = grid({"AdamW": {"lr": [0.01], "weight_decay": [2.0]}, "Adam": {"lr": [0.01]}}, [0, 1])
    options = {"steps": 40, "record": (0, 40)}
    table = scenario.train_condition("1 hidden layer, clean labels", runs, (), **options)
    norms = table[table["metric"] == scenario.SILENT_NORM].pivot(index=["arm", "seed"], columns="step", values="value")
    left = (norms[40] / norms[0]).groupby("arm").agg(["min", "max"])
    np.testing.assert_allclose(left.loc["Adam"], 1, rtol=1e-6)
    np.testing.assert_allclose(left.loc["AdamW"], remaining(0.01, 2.0, 40, "cosine")[-1], rtol=1e-5)


def evaluation(values):
    """A table of test accuracies: {arm: (silent, switched on, stuck on)}, the same for two seeds."""
    names = ("test accuracy", "test, switched on accuracy", "test, stuck on accuracy")
    rows = [
        {"condition": "c", "arm": arm, "seed": seed, "step": 9, "metric": metric, "value": value + 0.01 * seed}
        for arm, accuracies in values.items()
        for seed in (0, 1)
        for metric, value in zip(names, accuracies, strict=True)
    ]
    return pd.DataFrame(rows)


def test_the_change_at_switch_on_is_on_minus_silent():
    table = evaluation({"AdamW": (0.9, 0.8, 0.7), "Adam": (0.8, 0.5, 0.4), "Adam + L2": (0.9, 0.9, 0.9)})
    change = scenario.switch_on_change(table)
    means = change.groupby(["metric", "arm"])["value"].mean()
    assert means[scenario.SWITCHED_ON, "Adam"] == pytest.approx(-0.3)
    assert means[scenario.STUCK, "AdamW"] == pytest.approx(-0.2)
    found = {regime: effect.mean for regime, effect in scenario.protection_effects(table).items()}
    assert found == {"c, against Adam": pytest.approx(0.2), "c, against Adam + L2": pytest.approx(-0.1)}
    assert {e.metric for e in scenario.protection_effects(table).values()} == {scenario.PROTECTION.metric}


def test_the_oracle_is_chosen_where_the_pixels_are_on():
    rows = [("Adam", lr, metric, value) for lr, metric, value in [
        (0.1, "validation accuracy", 0.9), (0.2, "validation accuracy", 0.8), (0.05, "validation accuracy", 0.1),
        (0.1, "validation, switched on accuracy", 0.3), (0.2, "validation, switched on accuracy", 0.2),
        (0.05, "validation, switched on accuracy", 0.7)]]  # fmt: skip
    table = pd.DataFrame(rows, columns=["arm", "lr", "metric", "value"])
    table = table.assign(condition="c", weight_decay=0.0, l2=0.0, seed=0, step=1)
    assert scenario.winners_of(table)["lr"].tolist() == [0.1]
    with pytest.warns(UserWarning, match="edge"):
        assert scenario.winners_of(table, oracle=True)["lr"].tolist() == [0.05]


def test_tuning_seeds_are_no_evaluation_seeds():
    winners = pd.DataFrame([{"condition": "1 hidden layer, clean labels", "arm": "Adam", "lr": 0.01}])
    with pytest.raises(ValueError, match="seeds 3 were used for tuning"):
        scenario.evaluate_winners(winners.assign(weight_decay=0.0, l2=0.0), [3, 200])
    with pytest.raises(ValueError, match="winners: the table is empty"):
        scenario.evaluate_winners(winners[:0], [200])


# ---- null spaces


def test_halvings():
    rows = [("Adam", 0, 4.0), ("Adam", 7, 8.0), ("AdamW", 0, 4.0), ("AdamW", 7, 0.5), ("Adam + L2", 0, 4.0)]
    table = pd.DataFrame([*rows, ("Adam + L2", 7, 0.0)], columns=["arm", "step", "value"]).assign(seed=0, metric="norm")
    between = pd.concat([table, table[table["step"] == 7].assign(step=5, value=77.0)])
    found = scenario.halvings(between.sample(frac=1, random_state=0), "norm").set_index("arm")["value"].to_dict()
    assert found == {"Adam": -1.0, "AdamW": 3.0, "Adam + L2": scenario.MOST_HALVINGS}
    with pytest.raises(ValueError, match="metric 'norm' starts at 0"):
        scenario.halvings(table.assign(value=0.0), "norm")
    with pytest.raises(ValueError, match="metric 'norm' starts at nan"):
        scenario.halvings(table.assign(value=np.nan), "norm")
    diverged = table.assign(value=table["value"].where((table["arm"] != "AdamW") | (table["step"] == 0)))
    found = scenario.halvings(diverged, "norm").set_index("arm")["value"]
    assert np.isnan(found["AdamW"]) and found["Adam"] == -1.0
    for bad, metric, says in (
        (table, "size", r"0 rows of 'size' at the steps \[\]"),
        (table[:1], "norm", r"1 rows of 'norm' at the steps \[0\]"),
        (pd.concat([table, table]), "norm", r"12 rows of 'norm' at the steps \[0, 7\]"),
    ):
        with pytest.raises(ValueError, match=f"table: {says}; for each arm and seed one at each of at least two"):
            scenario.halvings(bad, metric)


def test_the_null_projector_projects_on_what_no_example_has():
    x = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    p = scenario.null_projector(x)
    torch.testing.assert_close(x @ p, torch.zeros(5, 9), atol=1e-5, rtol=0)
    torch.testing.assert_close(p @ p, p, atol=1e-5, rtol=0)
    assert torch.trace(p).item() == pytest.approx(4, abs=1e-4)
    for bad in (x[0], x[:0], x.long(), x * torch.nan):
        with pytest.raises(ValueError, match=r"x: torch\..* of shape .*; finite floats \(N, D\), of at least one"):
            scenario.null_projector(bad)
    with pytest.raises(ValueError, match="x: its 12 examples span all 9 input dimensions"):
        scenario.null_projector(torch.randn(12, 9, generator=torch.Generator().manual_seed(1)))


def test_across_pixels_the_gradient_has_no_null_part_and_adams_step_has():
    settings = scenario.ACROSS | {"steps": 100, "record": [0, 100]}
    table = scenario.train_across(iter([0, 1]), settings)
    x, y = digits_splits(0, train=40)["train"]
    weight = torch.zeros(10, 64, requires_grad=True)
    functional.cross_entropy(x @ weight.T, y).backward()
    assert (weight.grad @ scenario.null_projector(x)).norm() < 1e-5 * weight.grad.norm()
    norms = table[table["metric"] == scenario.NULL_NORM].pivot(index=["arm", "seed"], columns="step", values="value")
    grown = (norms[100] / norms[0]).groupby("arm").mean()
    assert grown["Adam"] > grown["AdamW"] > 1.5 > 1 > grown["Adam + L2"]
    share = table[table["metric"] == "share in the null space"].set_index(["step", "arm", "seed"])["value"]
    assert share.between(0, 1).all()
    for seed in (0, 1):
        projector = scenario.null_projector(digits_splits(seed, train=40)["train"][0])
        start = initial_parameters(lambda: torch.nn.Linear(64, 10), [seed])["weight"][0]
        norm = (start @ projector).norm()
        assert norms.loc["Adam", seed][0] == pytest.approx(norm.item(), rel=1e-5)
        assert share[0, "Adam", seed] == pytest.approx((norm / start.norm()).item(), rel=1e-5)


def test_shrinkage_is_counted_for_pixels_and_across_them_against_both():
    rows = [(arm, step, value) for arm, end in (("AdamW", 1.0), ("Adam", 4.0), ("Adam + L2", 0.5))
            for step, value in ((0, 4.0), (5, end))]  # fmt: skip
    table = pd.DataFrame(rows, columns=["arm", "step", "value"])
    two = pd.concat([table.assign(seed=seed) for seed in (0, 1)])
    pixels = two.assign(metric=scenario.SILENT_NORM, condition="c")
    effects = scenario.shrinkage_effects(pixels, two.assign(metric=scenario.NULL_NORM), ["c"])
    assert {regime: effect.mean for regime, effect in effects.items()} == {
        "silent pixels, c, against Adam": 2.0,
        "across pixels, linear, against Adam": 2.0,
        "silent pixels, c, against Adam + L2": -1.0,
        "across pixels, linear, against Adam + L2": -1.0,
    }


def test_dead_units_and_their_gradients_are_found():
    own = {f"layers.{i}.{kind}": p for i, layer in enumerate(MLP(features=3, width=4, depth=2, classes=2).layers)
           for kind, p in layer.named_parameters()}  # fmt: skip
    with torch.no_grad():
        own["layers.0.bias"][:] = own["layers.1.bias"][:] = 100.0  # fire always
        own["layers.0.bias"][1] = -1e6  # never fires: nothing flows into or out of it
        own["layers.1.weight"].abs_()
        own["layers.1.weight"][3] = torch.tensor([-1.0, 0.0, 0.0, 0.0])
        own["layers.1.bias"][3] = own["layers.0.bias"][0] + own["layers.0.weight"][0].sum() / 2  # fires for some
        x = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]] * 3)
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    gradient, dead = scenario.silent_now(own, x, y, ["layers.0.weight", "layers.1.weight"])
    first, second = gradient[:12].view(4, 3), gradient[12:].view(4, 4)
    assert dead == 1 / 8 and not first[1].any() and not second[:, 1].any()


def test_dead_parts_of_a_deep_network(monkeypatch):
    settings, moments = scenario.DEEP | {"steps": 30}, {}

    def watched(task, runs, *, measure, **options):
        def both(snapshot):
            v = torch.cat([snapshot.exp_avg_sq[f"layers.{i}.weight"].flatten(1) for i in range(1, 8)], 1)
            moments.update(zip(zip(snapshot.runs["arm"], snapshot.runs["seed"], strict=True), v.clone(), strict=True))
            return measure(snapshot)

        return train(task, runs, measure=both, **options)

    monkeypatch.setattr(null_space, "train", watched)
    table = scenario.dead_parts(iter([0, 1]), settings)
    crossing = settings["l2"] / settings["weight_decay"]
    below = table[table["metric"] == "below the crossing"].set_index(["arm", "seed"])["value"].to_dict()
    assert below == {
        run: pytest.approx(((v > 0) & ((v / (1 - 0.999**30)).sqrt() < crossing)).float().mean().item(), abs=1e-3)
        for run, v in moments.items()
    }
    assert len(below) == 6 and all(0.02 < share < 0.98 for share in below.values())
    with pytest.raises(ValueError, match="settings: depth 1; at least two hidden layers"):
        scenario.dead_parts([0], settings | {"depth": 1})
    with pytest.raises(ValueError, match="settings: weight_decay 0, l2 0.005; numbers above 0"):
        scenario.dead_parts([0], settings | {"weight_decay": 0})
    means = table.groupby(["metric", "arm"])["value"].mean()
    silent, left = means["second moment zero"], means["left of the silent"]
    assert silent["Adam"] > 0.02 and silent["AdamW"] > 0.02 and silent["Adam + L2"] == 0  # the penalty fills v
    assert left["Adam"] == pytest.approx(1, rel=1e-6)
    assert left["AdamW"] == pytest.approx(remaining(0.005, 1.0, 30, "cosine")[-1], rel=1e-5)
    shares = table[table["metric"] != "left of the silent"]["value"]
    assert shares.between(0, 1).all() and (means["dead units"] > 0).all()


def test_noise_drives_weights_as_far_as_the_formula_says():
    settings = scenario.NOISE | {"steps": 3000}
    table = scenario.drift(iter([0, 1, 2]), settings)
    rms = table[table["metric"] == "rms"].groupby(["regime", "arm"])["value"].mean()
    weak, strong = scenario.noise_regimes(settings)
    lr, decay, l2 = settings["lr"], settings["weight_decay"], settings["l2"]
    for regime in (weak, strong):
        assert rms[regime, "AdamW"] == pytest.approx((lr / 2 / decay) ** 0.5, rel=0.1)
        assert rms[regime, "Adam"] == pytest.approx(lr * (5 / 6 * 3000) ** 0.5, rel=0.1)  # mean over the last third
    sigma = scenario.noise_regimes(settings)[weak]
    assert rms[weak, "Adam + L2"] == pytest.approx((lr * sigma / 2 / l2) ** 0.5, rel=0.15)
    effects = scenario.drift_effects(table)
    assert effects[weak].high < 0 < effects[strong].low
    with pytest.raises(ValueError, match="settings: steps 2, coordinates 200; at least 3 and 1 are needed"):
        scenario.drift([0], settings | {"steps": 2})
    with pytest.raises(ValueError, match="seeds: there are none"):
        scenario.drift([], settings)
    with pytest.raises(ValueError, match="settings: weak 0.0, strong 10.0; 0 < weak < strong"):
        scenario.noise_regimes(settings | {"weak": 0.0})
    with pytest.raises(ValueError, match="settings: weight_decay 0.4, l2 0; numbers above 0"):
        scenario.noise_regimes(settings | {"l2": 0})


# ---- gradients through time


def test_a_sequence_shows_its_symbol_first_and_only_there():
    splits = scenario.recall_sequences(4, 6, symbols=3, noise=0.5, sizes={"train": 50, "test": 20})
    same = scenario.recall_sequences(4, np.int64(6), symbols=3, sizes={"train": np.int64(50)})
    x, y = splits["train"]
    assert torch.equal(x, same["train"][0])
    x = x.view(50, 6, 4)
    assert torch.equal(x[:, 0, :3].argmax(1), y) and (x[:, 0, :3].sum(1) == 1).all()
    assert (x[:, 0, 3] == 1).all() and not x[:, 1:, 3].any()
    assert x[:, 1:, :3].std() == pytest.approx(0.5, rel=0.1) and splits["test"][0].shape == (20, 24)


@pytest.mark.parametrize(
    "bad",
    [
        {"delay": 1},
        {"delay": 2.5},
        {"symbols": 1},
        {"symbols": 2.5},
        {"noise": -1.0},
        {"noise": float("nan")},
        {"sizes": {}},
        {"sizes": {"train": 0}},
        {"sizes": {"train": 2.5}},
    ],
)
def test_impossible_sequences_are_refused(bad):
    with pytest.raises(ValueError, match="at least two steps and symbols, noise of 0 or more and positive sizes"):
        scenario.recall_sequences(0, **({"delay": 5} | bad))


def test_starts_of_the_recurrent_matrix():
    radius = {
        start: scenario.spectral_radius(
            initial_parameters(lambda start=start: scenario.recurrent(start), [0, 1])["recurrent.weight"]
        )
        for start in scenario.STARTS
    }
    torch.testing.assert_close(radius["orthogonal start"], torch.ones(2))
    assert (radius["torch's start"] < 0.75).all()
    with pytest.raises(ValueError, match="start: 'identity' is unknown; choose from \"torch's start\""):
        scenario.recurrent("identity")


def test_the_spectral_radius_is_that_of_the_largest_eigenvalue():
    turn = torch.tensor([[0.0, -2.0], [2.0, 0.0]])  # eigenvalues ±2i
    torch.testing.assert_close(
        scenario.spectral_radius(torch.stack([turn, torch.eye(2) * -3])), torch.tensor([2.0, 3.0])
    )
    # a network that has diverged has none, and takes no other with it
    found = scenario.spectral_radius(torch.stack([turn * torch.nan, turn, turn / 0]))
    assert found[1].item() == pytest.approx(2) and found[[0, 2]].isnan().all()
    for bad in (turn, torch.ones(2, 3, 4), torch.ones(2, 0, 0)):
        with pytest.raises(ValueError, match=r"matrices: shape .*; square ones \(R, n, n\)"):
            scenario.spectral_radius(bad)


def test_gradients_through_time_are_read_on_held_out_sequences():
    """On the first hundred validation sequences of each replica's own seed, and on no others."""
    model = RNN(8, 32, 8)
    parameters = {n: torch.stack([p.detach()] * 2) for n, p in model.named_parameters()}
    x, y = torch.randn(2, 120, 3 * 8), torch.randint(8, (2, 120))
    held_out = {seed: {"validation": (x[i], y[i])} for i, seed in enumerate((7, 9))}
    snapshot = Snapshot(1, pd.DataFrame({"seed": [9, 7]}), parameters, {}, {})
    norms = through_time.held_out_norms(snapshot, held_out.__getitem__)
    torch.testing.assert_close(norms, scenario.gradient_norms(parameters, x.flip(0)[:, :100], y.flip(0)[:, :100]))


def test_gradients_through_time_are_those_of_the_loss():
    torch.manual_seed(0)
    models = [RNN(3, 5, 4).double() for _ in range(2)]
    parameters = {
        n: torch.stack([dict(m.named_parameters())[n] for m in models]) for n, _ in models[0].named_parameters()
    }
    x, y = torch.randn(2, 6, 4 * 3, dtype=torch.float64), torch.randint(4, (2, 6))
    norms = scenario.gradient_norms(parameters, x, y)
    assert norms.shape == (4, 2, 6)
    normed = {n: p.detach()[None] for n, p in RNN(3, 5, 4, norm=True).named_parameters()}
    with pytest.raises(ValueError, match="parameters: .*norm.*; .* an RNN without norm, are needed"):
        scenario.gradient_norms(normed, x[:1].float(), y[:1])
    for inputs, labels in ((x[:, :, :11], y), (x[:, :, :0], y), (x[:1], y[:1]), (x, y[:, :3])):
        with pytest.raises(ValueError, match=r"x, y: shapes .*; \(2, N, T · 3\) and \(2, N\) are needed"):
            scenario.gradient_norms(parameters, inputs, labels)
    for r, model in enumerate(models):
        weight, states = model.recurrent.weight, [torch.zeros(6, 5, dtype=torch.float64)]
        for step in x[r].view(6, 4, 3).unbind(1):
            states.append(torch.tanh(step @ model.input.weight.T + model.input.bias + states[-1] @ weight.T))
        logits = states[-1] @ model.head.weight.T + model.head.bias
        torch.testing.assert_close(logits, model(x[r]))
        back = (logits.softmax(1) - functional.one_hot(y[r], 4)) @ model.head.weight
        for t in range(4, 0, -1):
            torch.testing.assert_close(norms[t - 1, r], back.norm(dim=1))
            back = (back * (1 - states[t] ** 2)) @ weight


def test_recall_doses_have_one_learning_rate_and_every_dose():
    runs = scenario.recall_runs([5, 6])
    assert set(runs["lr"]) == {scenario.RECALL["lr"]} and len(runs) == 2 * (1 + 2 + 1)
    assert runs.groupby("arm")["weight_decay"].max().to_dict() == {"Adam": 0.0, "AdamW": 3.0, "Adam + L2": 0.0}


def test_recall_is_trained_and_measured_early_and_at_the_end():
    runs = scenario.recall_runs([0], [1.0], [])
    table = scenario.train_recall("orthogonal start", 5, runs, ("validation",), steps=4, record=(0, 2, 4))
    assert set(table["step"]) == {0, 2, 4} and set(table["start"]) == {"orthogonal start"}
    start = table[(table["step"] == 0) & (table["metric"] == "spectral radius")]
    np.testing.assert_allclose(start["value"], 1.0, rtol=1e-5)
    assert np.isfinite(table.loc[table["metric"] == scenario.THROUGH_TIME.metric, "value"]).all()


def test_before_training_torchs_start_loses_the_gradient_on_its_way_back():
    runs, record = scenario.recall_runs([0, 1], [1.0], []), (0, 2)
    profiles = scenario.gradient_profiles("torch's start", 12, runs.assign(lr=1e-9), record)
    assert len(profiles) == len(runs) * 12 * 2
    along = profiles[profiles["step"] == 0].groupby("t")["value"].mean()
    assert along[12] == 0 and along[1] < along[6] < -0.5
    table = scenario.train_recall("torch's start", 12, runs.assign(lr=1e-9), (), steps=2)
    ratio = table[table["metric"] == scenario.THROUGH_TIME.metric]["value"].mean()
    assert ratio == pytest.approx(along[1], abs=1e-3)


def test_the_judged_doses_are_compared_early_and_late():
    rows = [
        {"start": "s", "delay": delay, "arm": arm, "weight_decay": decay, "l2": l2, "seed": seed, "step": step,
         "metric": scenario.THROUGH_TIME.metric, "value": value * (1 if step == 50 else -2) * (delay == 24)}
        for delay in (12, 24)
        for arm, decay, l2, value in (("Adam", 0.0, 0.0, 1.0), ("AdamW", 1.0, 0.0, 4.0), ("AdamW", 3.0, 0.0, 99.0),
                                      ("Adam + L2", 0.0, 0.01, 77.0))
        for seed in (0, 1) for step in (50, 600)
    ]  # fmt: skip
    found = {regime: effect.mean for regime, effect in scenario.through_time_effects(pd.DataFrame(rows)).items()}
    assert found == {"s, after 50 steps": 3.0, "s, after 600 steps": -6.0}


# ---- the study


def test_the_headline_names_regimes_of_the_record(monkeypatch):
    monkeypatch.setitem(scenario.ACROSS, "steps", 20)
    monkeypatch.setitem(scenario.NOISE, "steps", 30)
    monkeypatch.setitem(scenario.RECALL, "steps", 60)
    monkeypatch.setitem(scenario.SETTINGS, "steps", 10)
    winners = pd.DataFrame(
        [(c, arm, 0.01, decay, l2) for c in scenario.CONDITIONS
         for arm, decay, l2 in (("AdamW", 0.4, 0.0), ("Adam + L2", 0.0, 0.005), ("Adam", 0.0, 0.0))],
        columns=["condition", "arm", "lr", "weight_decay", "l2"],
    )  # fmt: skip
    found = scenario.headline({"winners": winners}, [900, 901])
    assert set(found) == {claim.id for claim in scenario.STUDY.claims} and all(found.values())
    for claim in scenario.STUDY.claims:
        assert {effect.metric for effect in found[claim.id].values()} == {claim.metric}
    assert {regime.rsplit(", against", 1)[0] for regime in found[scenario.PROTECTION.id]} == set(scenario.HEADLINE)
    assert set(found[scenario.THROUGH_TIME.id]) == {f"{s}, after {t} steps" for t in (50, 60) for s in scenario.STARTS}
