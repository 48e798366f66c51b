"""The same federation on Flower: its common model is the ensemble's, and it refuses and reports the same replies."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adamw_book.ensemble import Task, train
from adamw_book.models import matrices
from adamw_book.replicas import made
from adamw_book.scenarios.federated_learning import faults, tasks

pytest.importorskip("flwr", reason="the extra flower is not installed (make engines)")
pytest.importorskip("ray", reason="the extra flower is not installed (make engines)")

APP = Path(__file__).resolve().parent.parent / "flower"
spec = importlib.util.spec_from_file_location("simulate", APP / "simulate.py")
simulate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(simulate)


def in_the_ensemble(config: dict):
    """The same federation, in float64 as the app is."""
    one = tasks.condition(config["split"], config["model"], tasks.PLAIN).task

    def data(seed):
        return {name: (x.double(), y) for name, (x, y) in one.data(seed).items()}

    task = Task(one.name, lambda: one.model().double(), data)
    run = {"arm": "AdamW", "lr": config["lr"], "weight_decay": config["weight-decay"], "l2": 0.0}
    kind = tasks.federation(
        config["split"], config["clients"], state=config["state"], quorum=config["quorum"],
        reply=faults.faults(config["faults"]),
    )  # fmt: skip
    return train(
        task, pd.DataFrame([run | {"seed": config["seed"]}]), steps=config["rounds"] * config["local-steps"],
        batch_size=config["batch-size"], decays=matrices, kind=kind, evaluate=(), keep_parameters=True, device="cpu",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"state": "kept", "model": "MLP, LayerNorm", "split": "even"},
        {"split": "even", "quorum": 2, "faults": "dies@1:0 NaN@2:1 shape@0:1 dies@0:2 dies@1:2 NaN@3:2"},
    ],
)
def test_flower_and_the_ensemble_train_the_same_common_model(changed, tmp_path):
    out, reports = simulate.simulate(stream=False, out=str(tmp_path), **changed)
    config = simulate.settings(changed)
    found = in_the_ensemble(config)
    with np.load(out / "model.npz") as arrays:
        assert set(arrays) == set(found.parameters)
        for name, value in found.parameters.items():
            np.testing.assert_allclose(arrays[name], value[0], rtol=0, atol=1e-5)
    begun = made(tasks.MODELS[config["model"]], config["seed"])
    assert max((p - found.parameters[n][0]).abs().max() for n, p in begun.named_parameters()) > 0.05
    ours, theirs = (
        sorted((one["round"], one["client"], kind_of(one["reason"])) for one in said)
        for said in (found.reports.to_dict("records"), reports)
    )
    assert theirs == ours and len(ours) == (7 if "faults" in changed else 0 if changed else 1)


def kind_of(reason: str) -> str:
    """Of what a client died is told by each engine in its own words; everything else is the same text."""
    return "died" if reason.startswith("died: ") else reason


def test_settings_are_those_of_the_app():
    assert simulate.settings({})["clients"] == 4 and simulate.settings({"lr": 0.1})["lr"] == 0.1
    for changed, message in (({"rate": 1.0}, "rate: unknown; choose from split"), ({"lr": 1}, "lr: 1; a value like")):
        with pytest.raises(ValueError, match=message):
            simulate.settings(changed)


def test_telemetry_is_off(tmp_path):
    env = simulate.environment(tmp_path)
    assert env["FLWR_TELEMETRY_ENABLED"] == "0" and env["RAY_USAGE_STATS_ENABLED"] == "0"
    assert json.dumps(str(tmp_path)) == json.dumps(env["FLWR_HOME"]) and str(Path(sys.executable).parent) in env["PATH"]
