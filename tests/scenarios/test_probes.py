"""Every chapter's probe: what its record is compared with."""

import importlib
import json
import sys

import numpy as np
import pytest

from adamw_book.ledger import PROBE
from adamw_book.scenarios import STUDIES, study


@pytest.mark.parametrize("chapter", [*STUDIES, "larger_gpt"])
def test_the_probe_runs_on_the_cpu_and_holds_what_a_record_needs(chapter, monkeypatch):
    found, devices = study(chapter), set()
    ensemble = importlib.import_module("adamw_book.ensemble")
    train = ensemble.train

    def watched(*arguments, device=None, **options):
        devices.add(device)
        return train(*arguments, device=device, **options)

    for name, module in list(sys.modules.items()):
        if name.startswith("adamw_book.") and getattr(module, "train", None) is train:
            monkeypatch.setattr(module, "train", watched)
    probe = found.probe()
    assert devices == {"cpu"}  # even where there is a GPU
    assert list(probe.columns) == PROBE and np.isfinite(probe[["value", "atol", "rtol"]]).all().all()
    assert not probe.duplicated(["run", "step", "metric"]).any()
    assert {1, 20} < set(probe["step"]) and {"train loss", "weight norm"} < set(probe["metric"])
    for arm in ("AdamW", "Adam + L2"):
        assert probe["run"].str.startswith(f"{arm},").any()
    assert json.loads(json.dumps(found.settings)) == found.settings
