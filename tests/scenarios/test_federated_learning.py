"""Who holds what, what a round comes to, and the chapter's protocol and record."""

import numpy as np
import pytest
import torch

from adamw_book import ledger
from adamw_book.data import digits_splits
from adamw_book.ensemble import initial_parameters
from adamw_book.scenarios.federated_learning import doses, rounds, shards, study, tasks

LABELS = digits_splits(0, train=400)["train"][1]


# ---- who holds what


@pytest.mark.parametrize("split", tasks.SPLITS)
@pytest.mark.parametrize("clients", [10, 20])
def test_every_example_goes_to_one_client_and_the_seed_decides(split, clients):
    first, again, other = (tasks.SPLITS[split](seed, LABELS, clients=clients) for seed in (0, 0, 1))
    assert len(first) == clients and torch.cat(first).sort().values.equal(torch.arange(400))
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert not all(a.equal(b) for a, b in zip(first, other, strict=True))


def test_clients_differ_as_their_split_says():
    even = shards.evenly(0, LABELS, 10)
    assert {len(own) for own in even} == {40} and min(len(LABELS[own].unique()) for own in even) > 6
    own = shards.one_label(0, LABELS, 20)
    assert [LABELS[part].unique().tolist() for part in own] == [[c // 2] for c in range(20)]
    drawn = [shards.dirichlet(seed, LABELS, 10, 0.1) for seed in range(8)]
    shares = np.stack([np.stack([np.bincount(LABELS[part], minlength=10) for part in one]) for one in drawn])
    largest = (shares.max(1) / shares.sum(1)).mean()  # of a class, at one client
    assert 0.55 < largest < 0.75 and 60 < np.mean([max(map(len, one)) for one in drawn]) < 130
    nearly_even = [len(part) for part in shards.dirichlet(0, LABELS, 10, 1e4)]
    assert max(nearly_even) - min(nearly_even) < 12


def test_splits_that_cannot_be_are_refused():
    for call, message in (
        (lambda: shards.evenly(0, LABELS, 401), "clients: 401; a whole number from 1 to the 400 examples is needed"),
        (lambda: shards.one_label(0, LABELS, 12), "clients: 12; a multiple of the 10 classes is needed"),
        (lambda: shards.dirichlet(0, LABELS, 10, 0.0), "alpha: 0.0; a number above 0 is needed"),
        (lambda: tasks.federation("odd"), "split: 'odd'; choose from 'even'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# ---- what a round comes to


@pytest.mark.parametrize("local_steps", [1, 7, 60])
def test_clients_with_quadratic_losses_meet_where_the_formula_says(local_steps):
    rng = torch.Generator().manual_seed(0)
    h, c = torch.rand(5, 3, generator=rng, dtype=torch.float64) * 4, torch.randn(5, 3, generator=rng).double()
    p = torch.rand(5, 1, generator=rng).double()
    for decay in (0.0, 0.7):
        done = rounds.average_quadratics(h, c, p, 0.05, decay, local_steps, max(300, 6000 // local_steps))[-1]
        torch.testing.assert_close(rounds.meeting_point(h, c, p, 0.05, decay, local_steps), done, rtol=1e-6, atol=1e-8)
    pooled = (p * h * c).sum(0) / (p * h).sum(0)
    apart = (rounds.meeting_point(h, c, p, 0.05, 0.0, local_steps) - pooled).abs().max()
    assert apart < 1e-9 if local_steps == 1 else apart > 0.01
    with pytest.raises(ValueError, match=r"lr: 0.6; 1 − η\(h \+ λ\) is -1.4"):
        rounds.meeting_point(torch.tensor([4.0, 0.1]), torch.zeros(2), torch.ones(2), 0.6, 0.0, 1)


def test_decay_of_either_direction_leaves_the_same_of_a_distance():
    u = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    start = torch.tensor([3.0, 1.0], dtype=torch.float64)
    for lr, decay, steps in ((0.01, 0.3, 5), (0.01, 1.0, 20), (0.1, 5.0, 7)):
        gaps = {}
        for name, (own, centre) in {"none": (0.0, 0.0), "origin": (decay, 0.0), "global": (decay, start)}.items():
            theta = start.expand(2, 2)
            for _ in range(steps):
                theta = theta - lr * own * (theta - centre) - lr * u
            gaps[name] = (theta[0] - theta[1]).norm()
        for name in ("origin", "global"):
            assert gaps[name] / gaps["none"] == pytest.approx(rounds.damping(lr, decay, steps), rel=1e-9)
    assert rounds.damping(1e-2, 1.0, 20) == pytest.approx(0.910, abs=5e-4)
    assert rounds.damping(0.01, 0.0, 5) == 1.0


# ---- the protocol and its record


@pytest.mark.parametrize("name", study.PROTOCOL.conditions)
def test_each_arm_of_a_condition_tries_the_same_learning_rates(name):
    condition = study.PROTOCOL[name]
    runs = condition.runs([0])
    rates = runs.groupby("arm")["lr"].apply(lambda lr: tuple(sorted(lr)))
    assert len(set(rates)) == 1 and len(set(rates.iloc[0])) == condition.search["count"] == 16
    assert (runs["lr"] * runs["weight_decay"]).max() < 1
    bounds = [condition.search[d] for d in ("weight_decay", "l2") if d in condition.search]
    assert [high / low for low, high in bounds] == pytest.approx([600] * len(bounds))
    spared = {n for n, p in condition.task.model().named_parameters() if not condition.decays(n)}
    assert spared == {n for n, p in condition.task.model().named_parameters() if p.ndim < 2}


def test_further_pulls_lead_where_they_say():
    runs = tasks.CONDITIONS[f"{tasks.UNEVEN} · MLP · toward the global model"].runs([0, 1])
    assert runs["pull"].eq("global").all() and set(runs["arm"]) == {"decay to global", "FedProx", "Adam"}
    runs = tasks.CONDITIONS[f"{tasks.UNEVEN} · MLP · decay at the server"].runs([0, 1])
    server = runs["arm"] == "AdamW at the server"
    assert runs["pull"].eq(np.where(server, "server", "origin")).all()
    rates = runs.loc[server, "server_lr"]
    assert rates.nunique() == 16 and 0.005 <= rates.min() < 0.008 and 0.06 < rates.max() <= 0.1
    assert runs.loc[~server, "server_lr"].eq(0).all()


def test_each_claim_has_a_primary_comparison_on_fresh_seeds():
    protocol = study.PROTOCOL
    assert not set(protocol.tuning_seeds) & set(protocol.evaluation_seeds)
    assert not set(protocol.tuning_seeds) & set(doses.DOSES["seeds"])
    assert {claim.id: claim.primary for claim in protocol.claims} == {
        study.CONSENSUS.id: "Dirichlet 0.1 · MLP", doses.AGREEMENT.id: "Dirichlet 0.1 · MLP",
    }  # fmt: skip
    assert study.PRIMARY in study.TOWARD_ORIGIN and len(study.TOWARD_ORIGIN) == 7


def test_doses_and_their_effects(monkeypatch):
    monkeypatch.setattr(doses, "NAMES", ["even · MLP, LayerNorm"])
    table = doses.doses([2000, 2001])
    last = table[(table["metric"] == "client drift") & (table["seed"] == 2000)].set_index(["arm", "dose"])["value"]
    assert last["decay to global", 30.0] < 0.7 * last["Adam", 0.0] and len(last) == 11
    effect = doses.agreement_effects(table)["even · MLP, LayerNorm"]
    values = table[table["metric"] == "test client agreement"].set_index(["arm", "dose", "seed"])["value"]
    expected = [values["AdamW", 0.3, s] - values["Adam", 0.0, s] for s in (2000, 2001)]
    np.testing.assert_allclose(effect.differences, expected)


def test_no_reply_of_the_record_was_left_out():
    evaluation = ledger.read(study.CONSENSUS.id).tables["evaluation"]
    left = evaluation[evaluation["metric"] == "replies left out"]
    assert len(left) and left["value"].eq(0).all()


def test_clients_of_a_seed_start_from_its_one_network():
    found = initial_parameters(tasks.MODELS["MLP"], [0, 0, 1])["layers.0.weight"]
    assert found[0].equal(found[1]) and not found[0].equal(found[2])
