"""A run that the tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.training_runs import run_tiny, stateful

from dealias.training import recorder


@pytest.fixture
def unbroken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of everything that has a state, which saves at every step, in `tmp_path / "unbroken"`."""
    monkeypatch.setattr(recorder, "AGREE_EVERY", 0.0)
    run_tiny(tmp_path / "unbroken", config=stateful())
    return tmp_path / "unbroken"
