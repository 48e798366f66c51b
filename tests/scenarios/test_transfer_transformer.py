"""Frontier · transfer learning: the study of a real transformer, without the transformer."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

from adamw_book import command_line, evidence_commands, scenarios
from adamw_book.replicas import batch_order
from adamw_book.scenarios.transfer_learning import transformer
from adamw_book.schedules import learning_rate_factors

SMALL = transformer.SETTINGS | {"train": 3, "test": 4, "steps": 12, "batch_size": 4, "first": 5, "lr": 0.01}


def test_docstrings_do_not_name_their_package_and_stand_once():
    found = transformer.docstrings()
    assert tuple(found) == transformer.PACKAGES
    for package, texts in found.items():
        assert len(texts) > 100 and all(len(text.split()) >= 6 for text in texts)
        assert not any(re.search(package, text, re.IGNORECASE) for text in texts)
    everything = [text for texts in found.values() for text in texts]
    assert len(everything) == len(set(everything))
    assert transformer.described("An\n  Email,\n\tsent by EMAIL.", "email") == "An this, sent by this."


def test_test_texts_are_the_same_under_each_seed_and_no_training_texts():
    first, second = transformer.texts(0), transformer.texts(5)
    assert first["test"][0] == second["test"][0] and first["train"][0] != second["train"][0]
    for splits in (first, second):
        assert not set(splits["test"][0]) & set(splits["train"][0])
        for name in ("train", "test"):
            assert (splits[name][1].bincount() == transformer.SETTINGS[name]).all()
    with pytest.raises(ValueError, match="settings: 12 .* 100000 texts of asyncio; this Python's library has"):
        transformer.texts(0, transformer.SETTINGS | {"test": 100_000})


class Encoder(nn.Module):
    """As much of a transformer as the study uses: numbers in, states of a layer with a gain out."""

    config = SimpleNamespace(hidden_size=6)

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 6)
        self.LayerNorm = nn.LayerNorm(6)

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(
            last_hidden_state=self.LayerNorm(self.words(input_ids)) * (1 + 9 * (input_ids == 0))[..., None]
        )


@pytest.fixture
def tiny(monkeypatch):
    torch.manual_seed(0)
    start = Encoder().state_dict()

    def pre_trained():
        encoder = Encoder()
        encoder.load_state_dict(start)
        return encoder, lambda texts: torch.tensor([[1 + len(text) % 49, 1 + len(text) % 7, 0] for text in texts])

    monkeypatch.setattr(transformer, "pre_trained", pre_trained)
    return pre_trained


def test_what_is_no_token_is_not_averaged(tiny):
    encoder, _ = tiny()
    model = transformer.Classifier(encoder, 6, 3)
    longer = torch.tensor([[5, 7, 0, 0]])
    torch.testing.assert_close(model(longer), model(longer[:, :2]))


def test_a_run_is_what_torch_gives(tiny):
    table = transformer.fine_tune(2.0, 0.25, 3, SMALL).set_index("metric")
    encoder, numbers = tiny()
    with torch.random.fork_rng():
        torch.manual_seed(transformer.generator(3, "weights").initial_seed())
        model = transformer.Classifier(encoder, 6, 8)
    groups = [{"params": [model.encoder.words.weight, model.head.weight], "weight_decay": 2.0},
              {"params": [*model.encoder.LayerNorm.parameters(), model.head.bias], "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    texts, y = transformer.texts(3, SMALL)["train"]
    x, losses, start = numbers(texts), [], model.encoder.words.weight.norm().item()
    for step, (batch, factor) in enumerate(
        zip(batch_order(3, 24, 4, 12), learning_rate_factors("cosine", 12, 0.25), strict=True), 1
    ):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * factor
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step == 3:
            assert table["value"][transformer.LEFT] == pytest.approx(model.encoder.words.weight.norm().item() / start)
    assert table["value"]["train loss"] == pytest.approx(np.mean(losses[-10:]), rel=1e-4)
    assert table["value"][transformer.RISE] == pytest.approx(np.diff(losses[:5]).clip(0).sum(), rel=1e-3)
    assert set(table["arm"]) == {"AdamW"} and set(table["step"]) == {12}


def test_every_run_is_a_part_of_its_own_and_effects_are_against_no_decay(monkeypatch):
    asked = []

    def fine_tune(weight_decay, warmup, seed):
        value = 0.5 + (0.1 if weight_decay == 0.01 else 0.0) + 0.01 * seed
        row = {"arm": "AdamW" if weight_decay else "Adam", "weight_decay": weight_decay, "warmup": warmup}
        return pd.DataFrame([row | {"seed": seed, "step": 80, "metric": "test accuracy", "value": value}])

    monkeypatch.setattr(transformer, "fine_tune", fine_tune)
    tables = transformer.run(lambda name, function: (asked.append(name), function())[1])
    assert len(set(asked)) == len(asked) == len(tables["runs"]) == 4 * 3 * 6
    found = transformer.effects(tables)[transformer.HANDOVER.id]
    assert len(found) == 9 and found[transformer.HANDOVER.primary].mean == pytest.approx(0.1)
    assert found["λ = 1 · warm-up 10%"].mean == 0


def test_a_probe_is_the_first_step_of_a_decayed_run_without_a_warm_up(tiny):
    probe = transformer.STUDY.probe().set_index("metric")
    whole = transformer.fine_tune(1.0, 0.0, 0, transformer.SETTINGS | {"steps": 1}).set_index("metric")
    assert set(probe.index) == {transformer.LEFT, "train loss"} and set(probe["step"]) == {1}
    assert set(probe["run"]) == {"AdamW, seed 0"}
    for metric, value in probe["value"].items():
        assert value == pytest.approx(whole["value"][metric], rel=1e-6)


def test_the_primary_comparison_is_made_again_on_seeds_that_are_named_or_its_own(monkeypatch):
    asked = []

    def fine_tune(weight_decay, warmup, seed):
        asked.append((weight_decay, warmup, seed))
        row = {"arm": "AdamW" if weight_decay else "Adam", "weight_decay": weight_decay, "warmup": warmup}
        value = 0.5 + (0.1 if weight_decay else 0.0)
        return pd.DataFrame([row | {"seed": seed, "step": 80, "metric": "test accuracy", "value": value}])

    monkeypatch.setattr(transformer, "fine_tune", fine_tune)
    for seeds, wanted in (([7, 8], [7, 8]), (None, transformer.SETTINGS["seeds"])):
        asked.clear()
        ((regime, effect),) = transformer.STUDY.retuned([], seeds)[transformer.HANDOVER.id].items()
        assert regime == transformer.HANDOVER.primary and effect.mean == pytest.approx(0.1)
        assert sorted(asked) == sorted((decay, 0.1, seed) for decay in (0.0, 0.01) for seed in wanted)


def test_the_study_is_run_where_it_is_named_and_only_there(monkeypatch):
    asked = []
    monkeypatch.setattr(evidence_commands, "evidence", asked.append)
    assert command_line.main(["evidence"]) == 0 and "transformer" not in asked and "transfer_learning" in asked
    assert command_line.main(["evidence", "--chapter", "transformer"]) == 0
    assert asked[-1] == "transformer"
    assert scenarios.study("transformer") is transformer.STUDY
