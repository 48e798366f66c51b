"""Frontier · language model: its text, its conditions, and the formulas of its measurements."""

import gzip
import hashlib
import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from stdlib_text import corpus, taken
from torch.nn import functional

from adamw_book.dynamics import scale_invariant_noise
from adamw_book.ensemble import Snapshot, batch_order, initial_parameters
from adamw_book.optim import AdamW
from adamw_book.protocol import Regime
from adamw_book.scenarios.language_model import outliers, rows, sizes, study, tasks, text
from adamw_book.schedules import learning_rate_factors
from adamw_book.transformer import GPT

# ---- the text


def test_the_file_is_the_one_that_the_record_was_made_with_and_names_its_licence():
    folder = text.files("adamw_book").joinpath("data_files")
    packed = folder.joinpath(text.FILE).read_bytes()
    assert len(packed) < 400_000
    stored = json.loads(gzip.decompress(packed))
    whole = "".join(f"{name}\n{content}" for name, content in stored["files"].items())
    assert hashlib.sha256(whole.encode()).hexdigest() == HASH
    assert "CPython 3.11.7" in stored["text"] and "Python Software Foundation" in stored["copyright"]
    named = stored["licence"].rsplit(" ", 1)[1]
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in folder.joinpath(named).read_text()


HASH = "ba74bceb31f113b50e539a4668a40d7ffc4fd5039f67d739a235d2646ecc18d8"


def test_a_file_with_a_licence_of_its_own_tests_and_what_is_not_ascii_are_left_out(tmp_path):
    body = "x = 1\n" * 400
    kept = {"a.py": body, "pack/b.py": body}
    left = {
        "c.py": body + "# Copyright (c) someone\n", "d.py": body + "# see LICENCE\n", "e.py": body + "# é\n",
        "f.py": "x = 1\n", "g.py": body * 40, "test/h.py": body, "pack/tests/i.py": body, "_sysconfigdata_x.py": body,
    }  # fmt: skip
    for name, content in (kept | left).items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert corpus(tmp_path) == kept
    assert not any(taken(tmp_path / name, tmp_path) for name in left)
    first = min(kept, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert list(corpus(tmp_path, total=100)) == [first]


def test_every_module_is_in_one_split_and_the_vocabulary_is_not_used_up():
    modules, parts = list(text.library_text().values()), text.parts()
    assert sum(map(len, parts.values())) == sum(map(len, modules))
    for i, split in ((0, "test"), (1, "validation"), (2, "train"), (9, "train"), (10, "test")):
        assert modules[i][:200] in bytes(parts[split].tolist()).decode()
    assert int(torch.cat(list(parts.values())).max()) < text.VOCABULARY
    assert (text.shares() > 0).sum() == 96 and text.shares().sum().item() == pytest.approx(1)


def test_targets_are_the_next_bytes():
    x, y = text.windows(torch.arange(10), torch.tensor([0, 4]), 5)
    assert x.tolist() == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]] and y.tolist() == [[1, 2, 3, 4, 5], [5, 6, 7, 8, 9]]
    splits = text.text_splits(3, train=7, validation=5, test=4, length=9)
    for name, count in {"train": 7, "validation": 5, "test": 4}.items():
        x, y = splits[name]
        assert x.shape == y.shape == (count, 9) and torch.equal(x[:, 1:], y[:, :-1])
        source = bytes(text.parts()[name].tolist())
        assert all(bytes([*a.tolist(), int(b[-1])]) in source for a, b in zip(x, y, strict=True))


def test_test_windows_are_the_same_under_each_seed_and_spread_over_the_text():
    one, other = (text.text_splits(seed, train=8, test=50) for seed in (0, 2000))
    assert torch.equal(one["test"][0], other["test"][0])
    assert not torch.equal(one["train"][0], other["train"][0])
    assert not torch.equal(one["validation"][0], other["validation"][0])
    part = text.parts()["test"]
    assert torch.equal(one["test"][0][25], part[25 * (len(part) - 32) // 50 :][:32])


@pytest.mark.parametrize("sizes", [{"train": 0}, {"train": 2, "test": 1.5}, {"train": 2, "length": 0}])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="a positive whole number"):
        text.text_splits(0, **sizes)


# ---- the conditions


def test_conditions_are_what_their_names_say():
    for name, condition in tasks.CONDITIONS.items():
        data, model = condition.task.data(0), condition.task.model()
        assert condition.task.name == name and condition.schedule == "warm-up + cosine"
        assert hasattr(model.norm, "weight") == name.startswith("pre-norm") and model.head is not None
        met, steps = len(data["train"][0]), condition.steps * condition.batch_size
        assert met == (tasks.REPEATED if "again" in name else steps)
        assert condition.steps == tasks.STEPS * (2 if "twice" in name else 1)
        assert ("train" in condition.judged) == ("again" in name)
        assert not condition.decays("blocks.0.norm1.weight") and condition.decays("tokens.weight")
        widths = [math.log(high / low) for low, high in (condition.search[d] for d in ("weight_decay", "l2"))]
        assert widths[0] == pytest.approx(widths[1])
    assert study.NEXT_BYTE.primary == tasks.PRIMARY in study.PROTOCOL.conditions
    contrast = study.PROTOCOL.claims[study.NEXT_BYTE]
    assert contrast.regimes == {name: Regime(name, "test bits per byte") for name in tasks.CONDITIONS}
    assert not set(study.PROTOCOL.tuning_seeds) & set(study.PROTOCOL.evaluation_seeds)


def test_bits_by_frequency_add_up_to_the_bits():
    rng = torch.Generator().manual_seed(0)
    _, y = text.text_splits(0, train=1, test=40)["test"]
    y, logits = torch.stack([y, y.flip(0)]), torch.randn(2, 40, 32, 128, generator=rng)
    nats = functional.cross_entropy(logits.flatten(0, 2), y.flatten(), reduction="none").view(2, -1)
    torch.testing.assert_close(tasks.bits_per_byte(logits, y), nats.mean(1) / math.log(2))
    counts, total = {}, 0
    for kind, (low, high) in tasks.FREQUENCY.items():
        mine = [(low <= text.shares()[byte] < high).item() for byte in y[0].flatten()]
        counts[kind] = sum(mine)
        total = total + tasks.METRICS[f"bits per {kind} byte"](logits, y) * counts[kind]
        own = nats[0, torch.tensor(mine)].mean() / math.log(2)
        torch.testing.assert_close(tasks.METRICS[f"bits per {kind} byte"](logits, y)[0], own)
    assert sum(counts.values()) == y[0].numel() and min(counts.values()) > 0
    torch.testing.assert_close(total / y[0].numel(), tasks.bits_per_byte(logits, y))


def small(steps: int = 6, **options):
    """The primary condition, shortened, on little text."""
    own = tasks.CONDITIONS[tasks.PRIMARY]
    data = partial(text.text_splits, train=40, validation=6, test=6, length=tasks.LENGTH)
    return replace(own, steps=steps, task=replace(own.task, data=data, **options))


def test_a_row_is_a_plain_training_loop():
    condition = small()
    runs = pd.DataFrame({"arm": ["Adam", "AdamW"], "lr": 0.004, "weight_decay": [0.0, 5.0], "l2": 0.0, "seed": [1, 4]})
    table = condition.train(runs, ("test",)).query("arm == 'AdamW'").set_index("metric")["value"]
    model, (x, y) = GPT(**tasks.MODEL), condition.task.data(4)["train"]
    model.load_state_dict({name: p[0] for name, p in initial_parameters(condition.task.model, [4]).items()})
    groups = [[p for n, p in model.named_parameters() if ("norm" in n) == exempt] for exempt in (False, True)]
    optimizer = torch.optim.AdamW([{"params": groups[0], "weight_decay": 5.0}, {"params": groups[1]}], weight_decay=0.0)
    factors = learning_rate_factors("warm-up + cosine", 6)
    for batch, factor in zip(batch_order(4, 40, 8, 6), factors, strict=True):
        for part in optimizer.param_groups:
            part["lr"] = 0.004 * factor
        optimizer.zero_grad()
        functional.cross_entropy(model(x[batch]).flatten(0, 1), y[batch].flatten()).backward()
        optimizer.step()
    x, y = condition.task.data(4)["test"]
    loss = functional.cross_entropy(model(x).flatten(0, 1), y.flatten()).item()
    assert table["test bits per byte"] == pytest.approx(loss / math.log(2), rel=1e-4)
    norm = math.sqrt(sum(p.square().sum().item() for p in model.parameters()))
    assert table["weight norm"] == pytest.approx(norm, rel=1e-4)


# ---- rows that nothing reads


def test_unused_bytes_are_those_that_no_training_window_shows():
    task = small().task
    shown = set(task.data(2)["train"][0].flatten().tolist())
    assert rows.unused(task, 2).tolist() == [byte for byte in range(128) if byte not in shown]
    full = replace(task, data=lambda seed: {"train": (torch.arange(128)[None], None)})
    with pytest.raises(ValueError, match="shows all 128 bytes"):
        rows.unused(full, 0)


def test_what_is_left_of_unused_rows_is_predicted_without_training():
    condition = small(steps=60)
    dose = {"lr": 0.003, "weight_decay": 8.0, "l2": 0.01}
    found = rows.measured(condition, [5, 6], every=4, dose=dose)
    assert set(found["step"]) == set(range(0, 61, 4)) and set(found["seed"]) == {5, 6}
    for seed in (5, 6):
        expected = rows.predicted(condition, seed, dose)
        for arm, path in expected.items():
            mine = found[(found["arm"] == arm) & (found["seed"] == seed)]
            early = mine[path[mine["step"]] > 0.05]  # beyond, Adam + L2 goes past zero, where rounding decides
            np.testing.assert_allclose(early["value"], path[early["step"]], rtol=5e-3)
            assert len(early) >= 4
    left = found[found["step"] == 60].groupby("arm")["value"].mean()
    assert left["Adam"] == pytest.approx(1) and 0.4 < left["AdamW"] < 0.6 and left["Adam + L2"] < 0.2


# ---- outliers


def test_kurtosis_is_that_of_the_distribution():
    rng = torch.Generator().manual_seed(0)
    normal = torch.randn(2, 200_000, generator=rng)
    values = outliers.kurtosis(torch.stack([normal[0] + 5, normal[1].sign(), normal[0] * normal[1].exp()]))
    assert values[:2].tolist() == pytest.approx([3, 1], abs=0.05) and values[2] > 20


def snapshot_of(condition, seeds, **changed) -> Snapshot:
    parameters = initial_parameters(condition.task.model, seeds)
    runs = pd.DataFrame({"arm": "AdamW", "lr": 0.01, "weight_decay": 0.5, "l2": 0.0, "seed": seeds})
    nothing = {name: torch.zeros_like(p) for name, p in parameters.items()}
    return replace(Snapshot(1, runs, parameters, nothing, nothing), **changed)


def test_an_outlier_in_weights_or_activations_shows_in_its_own_replica_alone():
    condition = small()
    before = outliers.outliers(condition.task, snapshot_of(condition, [1, 2]))
    parameters = {name: p.clone() for name, p in initial_parameters(condition.task.model, [1, 2]).items()}
    parameters["blocks.1.up.weight"][1, 3, 4] = 1.0
    parameters["positions.weight"][0, :, 7] = -0.5
    after = outliers.outliers(condition.task, snapshot_of(condition, [1, 2], parameters=parameters))
    assert all(value.shape == (2,) for value in after.values())
    assert before[outliers.WEIGHTS].tolist() == pytest.approx([3, 3], abs=0.2)
    assert after[outliers.WEIGHTS][1] > 50 and after[outliers.WEIGHTS][0] == before[outliers.WEIGHTS][0]
    for metric in (outliers.ACTIVATIONS, outliers.LARGEST):
        assert after[metric][0] > 1.3 * before[metric][0]
    model = GPT(**tasks.MODEL)
    model.load_state_dict({name: p[0] for name, p in parameters.items()})
    h = model.stream(outliers.windows_read(tasks.LENGTH)).flatten().detach()
    assert after[outliers.LARGEST][0].item() == pytest.approx((h.abs().max() / h.square().mean().sqrt()).item())
    expected = stats.kurtosis(h.double().numpy(), fisher=False)
    assert after[outliers.ACTIVATIONS][0].item() == pytest.approx(expected, rel=1e-3)


# ---- sizes behind norms


def logits_after(norm: str, factor: float, parts) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = GPT(**tasks.MODEL, norm=norm)
    x = text.text_splits(0, train=1, validation=4, test=1)["validation"][0]
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 0.0
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(5.0 if p.ndim > 1 else 1.0)
        before = model(x)
        for name, p in model.named_parameters():
            if name.split(".")[-2] in parts:
                p.mul_(factor)
        return before, model(x)


def test_all_that_writes_to_a_pre_norm_stream_is_scale_invariant_together_and_nothing_else_is():
    before, after = logits_after("pre", 3.0, sizes.GROUPS[sizes.WRITERS])
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)
    for norm, parts in [("post", sizes.GROUPS[sizes.WRITERS])] + [
        ("pre", parts) for name, parts in sizes.GROUPS.items() if name != sizes.WRITERS
    ]:
        before, after = logits_after(norm, 3.0, parts)
        assert (before - after).abs().max() > 0.01, (norm, parts)


def test_groups_cover_every_matrix():
    names = {name.split(".")[-2] for name, p in GPT(**tasks.MODEL).named_parameters() if p.ndim == 2}
    assert names == {part for parts in sizes.GROUPS.values() for part in parts}


def test_sizes_are_norm_expectation_and_cosine():
    condition = small()
    start = snapshot_of(condition, [1, 2])
    moments = {name: torch.ones_like(p) for name, p in start.parameters.items()}
    moments["blocks.0.up.weight"][0] = 0.0  # of one replica, half of the perceptrons' inputs got no gradient
    found = sizes.sizes_of(replace(start, gradients=start.parameters, exp_avg_sq=moments))
    up = torch.cat([start.parameters[f"blocks.{i}.up.weight"].flatten(1) for i in (0, 1)], 1)
    torch.testing.assert_close(found[f"perceptron's input · {sizes.NORM}"], up.norm(dim=1))
    n = torch.tensor([up.shape[1] / 2, up.shape[1]])
    torch.testing.assert_close(found[f"perceptron's input · {sizes.EXPECTED}"], (0.01 * n / (2 * 0.5)).sqrt())
    assert found[f"read-out · {sizes.RADIAL}"].tolist() == pytest.approx([1, 1])
    assert all(value.shape == (2,) for value in found.values()) and len(found) == 18


def test_the_expectation_is_where_scale_invariant_noise_settles():
    noise = scale_invariant_noise(torch.Generator().manual_seed(0))
    w = torch.randn(1, 400, generator=torch.Generator().manual_seed(1)).requires_grad_()
    optimizer = AdamW([w], lr=0.01, weight_decay=0.5)
    for step in range(1500):
        w.grad = noise(step, w.detach())
        optimizer.step()
    runs = pd.DataFrame({"lr": [0.01], "weight_decay": [0.5]})
    named = {f"blocks.0.{part}.weight": w.detach() for parts in sizes.GROUPS.values() for part in parts}
    found = sizes.sizes_of(Snapshot(1500, runs, named, named, named | {"blocks.0.up.weight": w.detach().abs()}))
    assert found[f"perceptron's input · {sizes.NORM}"].item() == pytest.approx(
        found[f"perceptron's input · {sizes.EXPECTED}"].item(), rel=0.2
    )


def test_sizes_table_names_group_and_metric():
    settings = sizes.SIZES | {"steps": 2, "every": 1, "weight_decay": [1.0, 4.0]}
    table = sizes.sizes([3], settings)
    assert set(table["group"]) == set(sizes.GROUPS) and set(table["step"]) == {0, 1, 2}
    assert set(table["metric"]) == {sizes.NORM, sizes.EXPECTED, sizes.RADIAL} and set(table["weight_decay"]) == {1, 4}
    last = table[(table["step"] == 2) & (table["group"] == sizes.WRITERS)].set_index(["metric", "weight_decay"])
    assert (last.loc[sizes.RADIAL, "value"].abs() < 0.1).all()


def test_every_run_is_measured():
    condition = small(steps=2)
    runs = pd.DataFrame({"arm": "AdamW", "lr": [0.01], "weight_decay": 0.5, "l2": 0.0, "seed": 3})
    found = set(condition.train(runs, ("validation",))["metric"])
    assert found == {
        "weight norm", rows.LEFT, outliers.WEIGHTS, outliers.ACTIVATIONS, outliers.LARGEST,
        *(f"validation {metric}" for metric in tasks.METRICS),
    }  # fmt: skip
