"""Federations: each client as it would train alone, what an average takes in, what it refuses and says so."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from test_ensemble import Partly
from torch import nn

from adamw_book.clients import SERVER, client_order, why_refused
from adamw_book.data import digits_splits
from adamw_book.ensemble import Task, initial_parameters, train
from adamw_book.federated import Federation
from adamw_book.models import matrices

LOCAL, ROUNDS, BATCH = 3, 4, 8
NEAR = {"rtol": 1e-5, "atol": 1e-7}


def data(seed: int):
    splits = digits_splits(seed, train=60, validation=40)
    return {name: (x.double(), y) for name, (x, y) in splits.items()}


def net() -> nn.Module:
    return nn.Linear(64, 10).double()


TASK = Task("digits", net, data)


def uneven(seed: int, labels: torch.Tensor) -> list[torch.Tensor]:
    """Four clients: 30, 20, 5 (fewer than a batch) and 5 examples."""
    return list(torch.arange(len(labels)).split([30, 20, 5, 5]))


def federation(**options) -> Federation:
    return Federation("uneven", uneven, 4, LOCAL, **options)


RUNS = pd.DataFrame(
    [
        ("AdamW", 0.01, 0.5, 0.0, 0, "origin", 0.0),
        ("Adam + L2", 0.01, 0.0, 0.05, 1, "origin", 0.0),
        ("Adam", 0.02, 0.0, 0.0, 0, "origin", 0.0),
        ("decay to global", 0.01, 2.0, 0.0, 1, "global", 0.0),
        ("FedProx", 0.01, 0.0, 0.5, 0, "global", 0.0),
        ("AdamW at the server", 0.01, 0.5, 0.0, 1, "server", 0.05),
    ],
    columns=["arm", "lr", "weight_decay", "l2", "seed", "pull", "server_lr"],
)


def trained(kind: Federation, runs: pd.DataFrame = RUNS, **options):
    own = {"steps": LOCAL * ROUNDS, "batch_size": BATCH, "evaluate": ("validation",), "decays": matrices}
    return train(TASK, runs, kind=kind, keep_parameters=True, device="cpu", **own | options)


def by_hand(run, state: str = "reset", left_out=(), participants=None) -> dict[str, torch.Tensor]:
    """One run of :data:`RUNS` with one torch optimizer a client, one after the other: the global model at the end."""
    x, y = data(run.seed)["train"]
    cut = uneven(run.seed, y)
    shared = {name: p[0] for name, p in initial_parameters(net, [run.seed]).items()}
    model = net()
    server = {name: p.clone() for name, p in shared.items()}
    server = {name: nn.Parameter(p) for name, p in server.items()}
    at_server = torch.optim.AdamW(
        [{"params": [server["weight"]], "weight_decay": run.weight_decay}, {"params": [server["bias"]]}],
        lr=run.server_lr or 1.0, weight_decay=0.0, **SERVER,
    )  # fmt: skip
    kept = {}
    orders = [client_order(run.seed, c, len(own), BATCH, LOCAL * ROUNDS) for c, own in enumerate(cut)]
    for turn in range(ROUNDS):
        replies, weights = [], []
        for client in participants[turn] if participants else range(4):
            model.load_state_dict(shared)
            decay = run.weight_decay if run.pull != "server" else 0.0
            optimizer = torch.optim.AdamW(
                [{"params": [model.weight], "weight_decay": decay * (run.pull == "origin")}, {"params": [model.bias]}],
                lr=run.lr, weight_decay=0.0,
            )  # fmt: skip
            if state == "kept" and client in kept:
                optimizer.load_state_dict(kept[client])
            for step in range(turn * LOCAL, (turn + 1) * LOCAL):
                batch = cut[client][orders[client][step]]
                centre = shared["weight"] if run.pull == "global" else 0.0
                penalty = run.l2 / 2 * (model.weight - centre).square().sum()
                optimizer.zero_grad()
                (nn.functional.cross_entropy(model(x[batch]), y[batch]) + penalty).backward()
                with torch.no_grad():
                    if run.pull == "global":
                        model.weight.sub_(run.lr * decay * (model.weight - centre))
                optimizer.step()
            kept[client] = optimizer.state_dict()
            for one in kept[client]["state"].values() if (turn, client) in left_out else ():
                one["exp_avg"].zero_(), one["exp_avg_sq"].zero_()
            if (turn, client) not in left_out:
                replies.append({name: p.clone() for name, p in model.state_dict().items()})
                weights.append(len(cut[client]))
        if not replies:
            continue
        total = sum(weights)
        average = {n: sum(w / total * r[n] for w, r in zip(weights, replies, strict=True)) for n in shared}
        if run.pull == "server":
            for name, p in server.items():
                p.grad = p.detach() - average[name]
            at_server.step()
            average = {name: p.detach().clone() for name, p in server.items()}
        shared = average
    return shared


@pytest.mark.parametrize("state", ["reset", "kept"])
def test_every_run_is_what_its_clients_give_one_after_the_other(state):
    found = trained(federation(state=state))
    for row, run in enumerate(RUNS.itertuples()):
        for name, expected in by_hand(run, state).items():
            torch.testing.assert_close(found.parameters[name][row], expected, **NEAR)
    assert found.reports.empty


def test_reset_and_kept_moments_give_different_models():
    first, second = (trained(federation(state=state)).parameters["weight"] for state in ("reset", "kept"))
    assert ((first - second).abs().amax((1, 2)) > 1e-3).all()


def test_parameters_without_a_gradient_stay_where_they_are_at_clients_and_server():
    task = Task("digits", lambda: Partly().double(), data)
    first = initial_parameters(task.model, list(RUNS["seed"]))
    options = {"steps": LOCAL * ROUNDS, "batch_size": BATCH, "keep_parameters": True, "device": "cpu"}
    for name, p in train(task, RUNS, kind=federation(), **options).parameters.items():
        for run in range(len(RUNS)):
            assert torch.equal(p[run], first[name][run]) == ("head" not in name)


def test_drawn_clients_are_the_same_for_all_arms_and_others_do_not_count():
    seen = set()

    def reply(seed, turn, client, own):
        seen.add((seed, turn, client))
        return own

    found = trained(federation(participants=2, reply=reply))
    turns = {
        seed: [sorted(c for s, t, c in seen if (s, t) == (seed, turn)) for turn in range(ROUNDS)] for seed in (0, 1)
    }
    assert all(len(clients) == 2 for drawn in turns.values() for clients in drawn) and turns[0] != turns[1]
    assert len({client for _, _, client in seen}) == 4
    for row, run in enumerate(RUNS.itertuples()):
        expected = by_hand(run, participants=turns[run.seed])
        torch.testing.assert_close(found.parameters["weight"][row], expected["weight"], **NEAR)


def test_a_run_is_the_same_alone_and_in_any_chunk():
    whole = trained(federation(), record=[0, 1, LOCAL, LOCAL * ROUNDS])
    parts = trained(federation(), record=[0, 1, LOCAL, LOCAL * ROUNDS], chunk_size=2)
    pd.testing.assert_frame_equal(whole.table, parts.table, rtol=1e-6, atol=1e-9)
    alone = trained(federation(), RUNS.iloc[[4]])
    torch.testing.assert_close(alone.parameters["weight"][0], whole.parameters["weight"][4], **NEAR)


def die(own):
    raise ConnectionError("gone")


FAULTS = {
    "died: ConnectionError: gone": die,
    "1 of 640 numbers of weight are not finite": lambda own: own | {"weight": own["weight"].index_put(
        (torch.tensor([3]), torch.tensor([2])), torch.tensor(float("nan"), dtype=torch.float64))},
    "weight has shape (10, 63) in the place of (10, 64)": lambda own: own | {"weight": own["weight"][:, :-1]},
    "parameters that only one side has: bias": lambda own: {"weight": own["weight"]},
    "no parameters by name, but NoneType": lambda own: None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "state"), [*((reason, "reset") for reason in FAULTS), ("died: ConnectionError: gone", "kept")]
)
def test_a_reply_that_cannot_be_averaged_is_left_out_and_reported(reason, state):
    def reply(seed, turn, client, own):
        return FAULTS[reason](own) if (turn, client) == (1, 0) else own

    found = trained(federation(reply=reply, state=state))
    assert (found.reports["reason"] == reason).all() and found.reports["client"].eq(0).all()
    assert found.reports["round"].eq(1).all() and sorted(found.reports["arm"]) == sorted(RUNS["arm"])
    for row, run in enumerate(RUNS.itertuples()):
        expected = by_hand(run, state, left_out={(1, 0)})
        torch.testing.assert_close(found.parameters["weight"][row], expected["weight"], **NEAR)
    counted = found.table[found.table["metric"] == "replies left out"]
    assert counted["value"].eq(1).all()


@pytest.mark.parametrize("state", ["reset", "kept"])
def test_a_client_whose_training_diverges_is_left_out_by_itself(state):
    def broken(seed):
        splits = data(seed)
        x, y = splits["train"]
        x = x.clone()
        x[52] = torch.inf  # client 2 has it in each batch of its five
        return splits | {"train": (x, y)}

    own = {"steps": LOCAL * ROUNDS, "batch_size": BATCH, "evaluate": ("validation",), "keep_parameters": True}
    found = train(Task("broken", net, broken), RUNS.iloc[:3], kind=federation(state=state), device="cpu", **own)
    assert found.parameters["weight"].isfinite().all()
    assert found.reports["client"].eq(2).all() and len(found.reports) == 3 * ROUNDS
    assert found.reports["reason"].str.contains("of 640 numbers of weight are not finite").all()


@pytest.mark.parametrize("missed", [(2,), (0,), (0, 2)])
def test_without_a_quorum_the_model_stays_and_it_is_said(missed):
    """At a server, whose moments and count know nothing of such a round, as everywhere."""

    def reply(seed, turn, client, own):
        return die(own) if client > 1 and turn in missed else own

    found = trained(federation(reply=reply, quorum=3))
    at = found.reports.groupby(["client", "round"]).size()
    assert dict(at) == {(client, turn): 6 for client in (-1, 2, 3) for turn in missed}
    reasons = found.reports.loc[found.reports["client"] == -1, "reason"]
    assert reasons.eq("2 replies for a quorum of 3: the model stays").all()
    nobody = {(turn, client) for turn in missed for client in range(4)}
    for row, run in enumerate(RUNS.itertuples()):
        for name, expected in by_hand(run, left_out=nobody).items():
            torch.testing.assert_close(found.parameters[name][row], expected, **NEAR)


def test_a_server_counts_the_rounds_of_each_run_by_itself():
    """Runs that miss other rounds than those beside them, and one that never has a quorum."""
    missed = {0: {0, 1}, 1: {1}, 2: {0, 1, 2, 3}, 3: set()}
    runs = RUNS.iloc[[5, 5, 5, 5, 0]].assign(seed=[0, 1, 2, 3, 3], weight_decay=[0.5, 0.1, 0.5, 1.0, 0.5])

    def reply(seed, turn, client, own):
        return die(own) if turn in missed[seed] else own

    found = trained(federation(reply=reply), runs, chunk_size=len(runs))
    for row, run in enumerate(runs.itertuples()):
        nobody = {(turn, client) for turn in missed[run.seed] for client in range(4)}
        for name, expected in by_hand(run, left_out=nobody).items():
            torch.testing.assert_close(found.parameters[name][row], expected, **NEAR)


def test_without_a_client_that_has_a_say_the_model_between_averages_is_the_global_one():
    runs, steps = RUNS.iloc[:2], range(LOCAL + 2)
    found = trained(federation(least_examples=31), runs, steps=2 * LOCAL, record=steps)
    norms = found.table[found.table["metric"] == "weight norm"].pivot(index="seed", columns="step", values="value")
    assert (norms.to_numpy() > 0).all() and (norms.nunique(axis=1) == 1).all() and len(norms.columns) == len(steps)


def test_reports_have_the_columns_of_the_runs_as_they_were_given():
    def reply(seed, turn, client, own):
        return die(own) if (turn, client) == (1, 0) else own

    for runs in (RUNS, RUNS.drop(columns=["pull", "server_lr"]).assign(schedule="cosine"), RUNS[RUNS["seed"] == 0]):
        found = trained(federation(reply=reply, least_examples=6), runs, chunk_size=2)
        assert list(found.reports) == [*runs, "round", "client", "reason"]
        told = dict(found.reports.groupby(["client", "round"]).size())
        assert told == dict.fromkeys([(0, 1), (2, -1), (3, -1)], len(runs))
        for _, own in found.reports.groupby("client"):
            given = own[list(runs)].sort_values(["seed", "arm"], ignore_index=True)
            pd.testing.assert_frame_equal(given, runs.sort_values(["seed", "arm"], ignore_index=True))


def test_clients_of_sequences_are_asked_at_every_place():
    """Targets (N, T): each place counts as an example of its own would."""
    sent = []

    def pairs(seed):
        both = {name: data(seed)[name] for name in ("train", "validation")}
        return {name: tuple(t.unflatten(0, (-1, 2)) for t in part) for name, part in both.items()}

    def reply(seed, turn, client, own):
        sent.append(own)
        return own

    kind = Federation("even", lambda seed, y: list(torch.arange(len(y)).chunk(3)), 3, LOCAL, reply=reply)
    options = {"steps": LOCAL, "batch_size": BATCH, "evaluate": ("validation",), "device": "cpu"}
    found = train(Task("pairs", net, pairs), RUNS.iloc[:1], kind=kind, **options).table.set_index("metric")["value"]
    x, y = data(0)["validation"]
    said = torch.stack([(x @ own["weight"].T + own["bias"]).argmax(1) for own in sent])
    agree = [(said[a] == said[b]).float().mean().item() for a in range(3) for b in range(a)]
    assert found["validation client accuracy"] == pytest.approx((said == y).float().mean().item(), abs=1e-6)
    assert found["validation client agreement"] == pytest.approx(np.mean(agree), abs=1e-6)


def test_a_client_with_too_few_examples_takes_no_part_and_it_is_said_once():
    def shards(seed, labels):
        return list(torch.arange(len(labels)).split([30, 27, 3])) + [torch.empty(0, dtype=torch.long)]

    asked = set()

    def reply(seed, turn, client, own):
        asked.add(client)
        return own

    kind = Federation("small", shards, 4, LOCAL, least_examples=5, reply=reply)
    found = trained(kind, RUNS.iloc[:2])
    assert asked == {0, 1} and found.reports["round"].eq(-1).all() and len(found.reports) == 4
    assert set(found.reports["reason"]) == {f"{n} examples for at least 5: takes no part" for n in (0, 3)}
    without = trained(Federation("large", lambda seed, labels: shards(seed, labels)[:2], 2, LOCAL), RUNS.iloc[:2])
    torch.testing.assert_close(found.parameters["weight"], without.parameters["weight"], **NEAR)
    values = [r.table.pivot(index="seed", columns="metric", values="value") for r in (found, without)]
    columns = [c for c in values[0] if "client" in c]
    assert len(columns) == 4
    np.testing.assert_allclose(values[0][columns], values[1][columns], rtol=1e-6)


def test_what_clients_think_is_recorded_before_they_are_averaged():
    sent = {}

    def reply(seed, turn, client, own):
        if turn == ROUNDS - 1:
            sent[seed, client] = own
        return own

    run = RUNS.iloc[[0]]
    found = trained(federation(reply=reply), run).table.set_index("metric")["value"]
    x, y = data(0)["validation"]
    said = torch.stack([(x @ sent[0, c]["weight"].T + sent[0, c]["bias"]).argmax(1) for c in range(4)])
    share = torch.tensor([30, 20, 5, 5]) / 60
    accuracy = (share * (said == y).float().mean(1)).sum().item()
    pairs = [(said[a] == said[b]).float().mean().item() for a in range(4) for b in range(a)]
    assert found["validation client accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert found["validation client agreement"] == pytest.approx(np.mean(pairs), abs=1e-6)
    flat = torch.stack([torch.cat([p.flatten() for p in sent[0, c].values()]) for c in range(4)])
    mean = (share.double()[:, None] * flat).sum(0)
    spread = (share.double() * (flat - mean).square().sum(1)).sum().sqrt().item()
    assert found["client disagreement"] == pytest.approx(spread, rel=1e-5)
    assert found["client drift"] > found["client disagreement"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": "lost"}, "state: 'lost'; choose from 'reset', 'kept'"),
        ({"state": "kept", "participants": 2}, "state: 'kept' with participants drawn anew"),
        ({"participants": 5}, "participants: 5; None, or a whole number from 1 to 4, is needed"),
        ({"quorum": 0}, "quorum: 0; a whole number from 1 to the 4 clients of a round is needed"),
    ],
)
def test_a_federation_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        federation(**options)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"steps": 10}, "steps: 10; a multiple of local_steps=3 is needed"),
        ({}, {"batch_size": None}, "batch_size: None; clients have training sets of different sizes"),
        ({"pull": "north"}, {}, "runs: pull 'north'; choose from 'origin', 'global', 'server'"),
        ({"pull": "server", "server_lr": 0.0}, {}, "pull 'server' needs a server_lr above 0"),
        ({"pull": "server", "server_lr": "0.1"}, {}, "pull 'server' needs a server_lr above 0"),
    ],
)
def test_runs_that_cannot_be_are_refused(change, options, message):
    with pytest.raises(ValueError, match=message):
        trained(federation(), RUNS.iloc[:1].assign(**change), **options)


def test_a_decay_leads_to_one_place():
    """To the start, which is the global model of the first round, or to where ``pull`` says."""
    begun = replace(TASK, start=lambda seeds: initial_parameters(net, seeds))
    options = {"steps": LOCAL, "batch_size": BATCH, "evaluate": (), "kind": federation(), "keep_parameters": True}
    for decayed in (RUNS.iloc[[3]], RUNS.iloc[[4]]):
        to_start = train(begun, decayed.assign(pull="origin", toward="start"), **options, device="cpu")
        to_global = train(begun, decayed, **options, device="cpu")
        torch.testing.assert_close(to_start.parameters["weight"], to_global.parameters["weight"], **NEAR)
    for pull in ("global", "server"):
        runs = RUNS.iloc[[0, 5]].assign(toward=["zero", "start"], pull=["origin", pull])
        with pytest.raises(ValueError, match=f"runs: toward 'start' with pull '{pull}', .*; pull 'origin' or toward"):
            train(begun, runs, **options, device="cpu")


@pytest.mark.parametrize("shards", [[[0, 1], [1, 2], [3], [4]], [[0], [1], [2]], [[0], [1], [2], [60]]])
def test_clients_share_no_example(shards):
    kind = Federation("odd", lambda seed, labels: [torch.tensor(s) for s in shards], 4, LOCAL)
    with pytest.raises(ValueError, match=r"shards: \d clients with \d examples, .* 4 clients with examples of"):
        trained(kind, RUNS.iloc[:1])


def test_a_sound_reply_is_not_refused():
    like = {"weight": (10, 64), "bias": (10,)}
    own = {"bias": np.zeros(10), "weight": torch.zeros(10, 64)}
    assert why_refused(own, like) is None
    assert partial(why_refused, own | {"bias": np.full(10, np.inf)})(like) == "10 of 10 numbers of bias are not finite"
