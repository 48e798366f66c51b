"""Quantisation: the grids against torch's, what their loss depends on, training for them, the judge, the protocol."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from adamw_book.ensemble import batch_order, initial_parameters, train
from adamw_book.models import CNN, MLP
from adamw_book.replicas import made
from adamw_book.scenarios.quantization import dose, quantisers, study, tails, tasks
from adamw_book.scenarios.quantization.aware import QuantisationAware, straight_through
from adamw_book.scenarios.quantization.quantisers import Scheme


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- the grids


@pytest.mark.parametrize(("bits", "q"), [(8, 127), (4, 7), (3, 3), (2, 1)])
def test_levels_on_either_side(bits, q):
    assert quantisers.levels(bits) == q
    w = drawn(1, 40, 30)
    steps = Scheme(bits)(w) / (w.abs().max() / q)
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
    assert steps.abs().max().round() == q and len(steps.round().unique()) <= 2 * q + 1


def off_a_tie(w: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Where rounding does not hang on the last bit of w / step."""
    return ((w / step) % 1 - 0.5).abs() > 1e-3


@pytest.mark.parametrize("bits", [8, 6, 4, 3, 2])
@pytest.mark.parametrize("shape", [(12, 20), (6, 3, 3, 3)])
def test_a_grid_is_torchs_fake_quantize(bits, shape):
    w, q = drawn(2, *shape, seed=bits), quantisers.levels(bits)
    for one, tensor in zip(Scheme(bits)(w), w, strict=True):
        step = tensor.abs().max() / q
        expected = torch.fake_quantize_per_tensor_affine(tensor, step.item(), 0, -q, q)
        there = off_a_tie(tensor, step)
        torch.testing.assert_close(one[there], expected[there])
    for one, tensor in zip(Scheme(bits, per_channel=True)(w), w, strict=True):
        step = tensor.abs().flatten(1).amax(1) / q
        zero = torch.zeros(len(step), dtype=torch.int32)
        expected = torch.fake_quantize_per_channel_affine(tensor, step, zero, 0, -q, q)
        there = off_a_tie(tensor, step.reshape(-1, *[1] * (tensor.ndim - 1)))
        torch.testing.assert_close(one[there], expected[there])


@pytest.mark.parametrize("scheme", [Scheme(4), Scheme(3, per_channel=True), Scheme(3, held=0.9)])
def test_a_grid_that_follows_the_weights_knows_no_scale(scheme):
    w = drawn(3, 8, 9)
    assert torch.equal(scheme(w / 8), scheme(w) / 8)  # powers of two are exact
    ratio = 0.3 * scheme(w) - scheme(0.3 * w)
    assert (ratio.abs() < 1e-6).float().mean() > 0.99
    for measure in (quantisers.crest, quantisers.kurtosis, lambda w: quantisers.relative_error(w, scheme)):
        torch.testing.assert_close(measure(w / 8), measure(w))


def test_a_preset_grid_knows_the_scale():
    w, scheme = torch.tensor([[[-3.0, -0.4, 0.1, 0.2, 0.9, 1.1, 2.0]]]), Scheme(3, preset=1.0)
    expected = torch.tensor([[[-1.0, -1 / 3, 0.0, 1 / 3, 1.0, 1.0, 1.0]]])
    torch.testing.assert_close(scheme(w), expected)
    assert not torch.allclose(scheme(w / 8) * 8, expected)
    # 1.1 is within half a step of the grid's end: rounding moves others as far
    assert quantisers.clipped(w, scheme).item() == pytest.approx(2 / 7)
    assert quantisers.clipped(w, Scheme(8, preset=1.0)).item() == pytest.approx(3 / 7)
    assert quantisers.clipped(w / 8, scheme).item() == 0


def test_a_range_may_leave_out_the_largest_weights():
    w = torch.arange(-50.0, 51.0).reshape(1, 1, 101)
    assert Scheme(8).range(w).item() == 50
    assert Scheme(8, held=0.5).range(w).item() == pytest.approx(25, abs=1)
    assert Scheme(8, held=0.5)(w).max() == pytest.approx(25, abs=1)


def test_a_channel_has_its_own_range_and_a_replica_its_own_grid():
    w = torch.stack([drawn(4, 5), 10 * drawn(4, 5, seed=1)])
    w[0, 2] *= 100
    assert Scheme(4).range(w).shape == (2, 1, 1) and Scheme(4, per_channel=True).range(w).shape == (2, 4, 1)
    for scheme in (Scheme(4), Scheme(4, per_channel=True), Scheme(4, held=0.9)):
        torch.testing.assert_close(scheme(w), torch.cat([scheme(w[:1]), scheme(w[1:])]))
    rest = [0, 1, 3]
    assert not Scheme(4)(w)[0, rest].any()  # one channel's outliers cost the others all of their levels
    assert Scheme(4, per_channel=True)(w)[0, rest].any(1).all()


def test_weights_that_are_all_zero_stay_zero():
    for scheme in (Scheme(4), Scheme(2, per_channel=True), Scheme(3, held=0.9)):
        assert torch.equal(scheme(torch.zeros(1, 3, 4)), torch.zeros(1, 3, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Scheme(1), "bits: 1; a whole number from 2 to 16"),
        (lambda: Scheme(2.5), "bits: 2.5; a whole number from 2 to 16"),
        (lambda: Scheme(4, held=0.0), "held: 0.0; a share of the weights above 0 and up to 1"),
        (lambda: Scheme(4, held=1.1), "held: 1.1; a share"),
        (lambda: Scheme(4, preset=0.0), "preset: 0.0; a finite range above 0"),
        (lambda: Scheme(4, preset=float("inf")), "preset: inf; a finite range"),
        (lambda: tasks.learned("MLP", "no labels"), "labels: 'no labels'; choose from 'clean labels', "),
        (lambda: tasks.learned("RNN", "clean labels"), "model: 'RNN'; choose from 'MLP', "),
    ],
)
def test_what_is_no_grid_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- what the loss depends on


def test_shapes_of_known_distributions():
    uniform, normal = 2 * torch.rand(1, 400, 500, generator=torch.Generator().manual_seed(0)) - 1, drawn(1, 400, 500)
    assert quantisers.crest(uniform).item() == pytest.approx(3**0.5, rel=0.01)
    assert quantisers.kurtosis(uniform).item() == pytest.approx(1.8, rel=0.02)
    assert quantisers.kurtosis(normal).item() == pytest.approx(3, rel=0.05)
    tailed = torch.cat([torch.ones(1, 1, 99), torch.full((1, 1, 1), 50.0)], 2)
    assert quantisers.crest(tailed).item() == pytest.approx(50 / (25.99**0.5), rel=1e-4)


@pytest.mark.parametrize("bits", [8, 5, 4, 3])
def test_the_relative_error_is_the_crest_factor_times_a_constant(bits):
    w = drawn(3, 300, 300)
    w[1] = w[1] ** 3  # tails
    w[2] = w[2].clamp(-1.5, 1.5)
    predicted = quantisers.expected_error(quantisers.crest(w), bits)
    measured = quantisers.relative_error(w, Scheme(bits))
    assert predicted[1] > 2 * predicted[0] > 3 * predicted[2]
    assert measured[1] > 1.5 * measured[0] > 2 * measured[2]
    smooth = [0, 2]  # the peak of the third power is narrower than a step
    torch.testing.assert_close(measured[smooth], predicted[smooth], rtol=0.1, atol=0)


def test_gains_and_biases_are_not_quantised_and_a_tensor_counts_once():
    parameters = initial_parameters(lambda: CNN(norm=True), [0, 1])
    found = quantisers.quantised(parameters, Scheme(2))
    moved = {name for name, p in found.items() if not torch.equal(p, parameters[name])}
    assert moved == {"conv1.weight", "conv2.weight", "head.weight"}
    sizes = quantisers.over_weights(parameters, lambda w: w.new_full((2,), float(w[0].numel())))
    assert sizes.tolist() == pytest.approx([np.mean([8 * 9, 16 * 8 * 9, 10 * 64])] * 2)


# ---- training for the grid


def test_a_gradient_goes_straight_through():
    w, scale = drawn(5, 7).requires_grad_(), drawn(5, 7, seed=1)
    out = straight_through(w, Scheme(2))
    torch.testing.assert_close(out, Scheme(2)(w[None])[0])
    (out * scale).sum().backward()
    torch.testing.assert_close(w.grad, scale)


def test_an_aware_network_starts_as_its_network_and_sees_the_grid():
    own, aware = (made(m, 3) for m in (lambda: MLP(), lambda: QuantisationAware(MLP(), Scheme(3))))
    assert all(torch.equal(p, dict(aware.named_parameters())[f"network.{n}"]) for n, p in own.named_parameters())
    with torch.no_grad():
        for i, p in enumerate(own.parameters()):
            if p.ndim == 1:  # biases start at zero, which is on every grid
                p.copy_(drawn(len(p), seed=i))
    aware.network.load_state_dict(own.state_dict())
    x = torch.rand(6, 64, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(aware(x), own(x))
    with torch.no_grad():
        for p in own.parameters():
            if p.ndim > 1:
                p.copy_(Scheme(3)(p[None])[0])
    torch.testing.assert_close(aware(x), own(x))


def by_hand(task, seed: int, lr: float, weight_decay: float, steps: int) -> torch.nn.Module:
    """Two groups of parameters, a constant rate, batches of 50: a plain loop."""
    model, (x, y) = made(task.model, seed), task.data(seed)["train"]
    groups = [
        {"params": [p for p in model.parameters() if (p.ndim > 1) == m], "weight_decay": m * weight_decay}
        for m in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    for batch in batch_order(seed, len(x), 50, steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    return model.requires_grad_(False)


def one_run(seeds=(3,), **values) -> pd.DataFrame:
    return pd.DataFrame({"arm": "AdamW", "lr": 0.003, "weight_decay": 0.5, "l2": 0.0, "seed": list(seeds)} | values)


def test_an_ensemble_of_aware_networks_is_the_plain_loop():
    aware = next(iter(tasks.AWARE.values()))
    result = train(
        aware.task, one_run(), steps=3, batch_size=50, decays=aware.decays, evaluate=(), keep_parameters=True
    )
    hand = dict(by_hand(aware.task, 3, 0.003, 0.5, 3).named_parameters())
    assert result.parameters.keys() == hand.keys()
    for name, p in hand.items():
        torch.testing.assert_close(result.parameters[name][0], p, rtol=1e-3, atol=1e-4)


# ---- the judge


def test_the_judge_quantises_what_was_trained():
    task = tasks.learned("MLP, LayerNorm", "20% wrong labels")
    condition = tasks.CONDITIONS[task.name]
    runs = one_run(seeds=(3, 5))
    result = train(task, runs, steps=60, batch_size=50, decays=condition.decays, evaluate=("validation",),
                   keep_parameters=True)  # fmt: skip
    judge = tasks.quantising(task, {"validation": ("3 bits", "8 bits, range ±0.125"), "test": ("2 bits",)})
    found = judge(result, ("validation",))
    assert list(found.columns) == list(result.table.columns) and set(found["step"]) == {60}
    assert not found["metric"].str.contains("2 bits").any()
    values = found.set_index(["metric", "seed"])["value"]
    before = result.table.set_index(["metric", "seed"])["value"]
    for seed in (3, 5):
        hand, (x, y) = by_hand(task, seed, 0.003, 0.5, 60), task.data(seed)["validation"]
        clean = (hand(x).argmax(-1) == y).float().mean().item()
        largest = max(p.abs().max().item() for p in hand.parameters() if p.ndim > 1)
        for p in hand.parameters():
            if p.ndim > 1:
                p.copy_(torch.fake_quantize_per_tensor_affine(p, p.abs().max().item() / 3, 0, -3, 3))
        rounded = (hand(x).argmax(-1) == y).float().mean().item()
        assert values["validation accuracy at 3 bits", seed] == pytest.approx(rounded, abs=0.03)
        assert values["largest weight", seed] == pytest.approx(largest, rel=0.02)
        change = values["validation accuracy at 3 bits", seed] - before["validation accuracy", seed]
        assert values["validation accuracy change at 3 bits", seed] == pytest.approx(change, abs=1e-6)
        assert clean > rounded
    preset = values["validation accuracy at 8 bits, range ±0.125"]
    assert (preset < before["validation accuracy"]).all()  # most weights are clipped


def test_shapes_are_those_of_the_weights_alone():
    parameters = {
        "a.weight": torch.tensor([[[2.0, -2.0, 2.0, 2.0]]]),
        "b.weight": torch.tensor([[[4.0, 0.0, 0.0, 0.5]]]),
        "a.bias": torch.full((1, 3), 99.0),
    }
    found = {name: value.item() for name, value in tasks.shapes(parameters).items()}
    assert found["crest factor"] == pytest.approx((1 + 4 / (16.25 / 4) ** 0.5) / 2, rel=1e-5)
    assert found["largest weight"] == 4 and found["weights clipped at ±1"] == pytest.approx(5 / 8)
    assert found["kurtosis"] == pytest.approx((1 + (256.0625 / 4) / (16.25 / 4) ** 2) / 2, rel=1e-5)


# ---- the protocol


def test_the_conditions_are_every_network_with_both_kinds_of_labels_and_two_trained_for_the_grid():
    names = [f"{model} · {labels}" for labels in tasks.LABEL_NOISE for model in tasks.MODELS]
    assert list(study.PROTOCOL.conditions) == [*names, *tasks.AWARE] and len(tasks.AWARE) == 2
    for name, condition in tasks.AWARE.items():
        one = tasks.CONDITIONS[name.removesuffix(" · trained at 3 bits")]
        assert isinstance(condition.task.model(), QuantisationAware)
        assert condition.task.model().scheme == Scheme(3) and "l2" not in condition.search
        assert condition.search["lr"] == one.search["lr"] and condition.steps == one.steps


@pytest.mark.parametrize("name", study.PROTOCOL.conditions)
def test_each_arm_tries_the_same_learning_rates_and_decays_as_wide(name):
    condition = study.PROTOCOL[name]
    runs = condition.runs([0])
    rates = runs.groupby("arm")["lr"].apply(lambda lr: tuple(sorted(lr)))
    assert len(set(rates)) == 1 and len(set(rates.iloc[0])) == condition.search["count"]
    decays = [condition.search[d] for d in ("weight_decay", "l2") if d in condition.search]
    assert np.ptp([np.log(high / low) for low, high in decays]) < 0.1


def test_only_training_labels_are_wrong():
    clean, noisy = (tasks.learned("MLP", labels).data(3) for labels in tasks.LABEL_NOISE)
    assert (clean["train"][1] != noisy["train"][1]).sum() == 0.2 * tasks.TRAIN
    assert all(torch.equal(clean[split][1], noisy[split][1]) for split in ("validation", "test"))


def test_each_claim_is_judged_by_a_metric_that_the_judge_gives():
    given = {f"test accuracy change at {name}" for name in tasks.TUNED_FOR["test"]}
    for claim, contrast in study.PROTOCOL.claims.items():
        regimes = contrast.over(claim, study.PROTOCOL.conditions)
        assert claim.primary in regimes and {one.metric for one in regimes.values()} <= given
        assert regimes[claim.primary].metric == claim.metric and contrast.control.name == "Adam"
    assert not set(study.PROTOCOL.tuning_seeds) & set(study.PROTOCOL.evaluation_seeds)
    assert set(tasks.RULES.values()) == {"validation accuracy", "validation accuracy at 3 bits"}


def test_a_dose_is_judged_on_validation_data(monkeypatch):
    monkeypatch.setitem(dose.DOSE, "weight_decay", [0.0, 1.0])
    table = dose.dose_response([2100], names=["MLP, LayerNorm · clean labels"])
    assert dict(table.groupby("weight_decay")["arm"].first()) == {0.0: "Adam", 1.0: "AdamW"}
    assert set(table["condition"]) == {"MLP, LayerNorm · clean labels"}
    assert not table["metric"].str.contains("test|loss").any()
    at = table.set_index(["metric", "weight_decay"])["value"]
    assert at["crest factor", 1.0] > at["crest factor", 0.0]
    assert at["largest weight", 1.0] < at["largest weight", 0.0]


def test_the_tail_is_counted_in_the_first_layer(monkeypatch):
    """By hand: in a first layer of zeros one weight of 5 stands on the pixel given, and 19 of 1 on a busy one."""
    clean = "MLP · clean labels"
    monkeypatch.setitem(tails.TAILS, "conditions", [clean])
    monkeypatch.setitem(tails.TAILS, "weight_decay", [0.0])
    ink = (tasks.CONDITIONS[clean].task.data(0)["train"][0] > 0).float().mean(0)

    def trained(*arguments, **options):
        w = torch.zeros(1, 32, 64)
        w[0, 0, ink.argmin()], w[0, 1:20, ink.argmax()] = 5.0, 1.0
        return SimpleNamespace(parameters={"layers.0.weight": w})

    monkeypatch.setattr(tails, "train", trained)
    row = tails.first_layers([0]).iloc[0]
    assert row["crest"] == pytest.approx(5 / ((25 + 19) / 2048) ** 0.5)
    assert row["emptied"] == pytest.approx(1 - 20 / 2048) and row["rare"] == pytest.approx(1 / 20)
