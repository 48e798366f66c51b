"""What a test does where something that it needs is not there. (Not in conftest.py, of which there are several.)"""

from __future__ import annotations

import os

import pytest


def unavailable(why: str):
    """Skip, or fail in CI, where everything that is needed can be had."""
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(why)
    pytest.skip(why)
