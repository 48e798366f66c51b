"""What the tests of the conformance test share."""

import pytest

from adamw_book.diagnose.black_box import effects


@pytest.fixture
def short(monkeypatch):
    """Effects after ten steps: what is asked here is the code of a finding."""
    effects.effect.cache_clear()
    monkeypatch.setattr(effects, "STEPS", (10,))
    yield
    effects.effect.cache_clear()
