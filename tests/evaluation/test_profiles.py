"""Profiles written by `run_profile`; `dealias.metrics.site_profile` and the command line have tests of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dealias.data import mnist_digits
from dealias.errors import InputError
from dealias.evaluation.profiles import run_profile

MODEL = "dealias:vgg_small"


def test_bad_arguments(tmp_path: Path) -> None:
    for arguments, message in [
        ({"count": 0}, "count=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"reach": 0}, "reach=0"),
        ({"device": "warp"}, "device='warp' is unknown: use auto, cpu, cuda"),
    ]:
        with pytest.raises(InputError, match=message):
            run_profile([MODEL], None, tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def test_more_images_than_packages_bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dealias.evaluation.profiles.mnist_digits", lambda: tuple(x[:7] for x in mnist_digits()))
    run_profile([MODEL], None, tmp_path, count=9, reach=2)
    assert json.loads((tmp_path / "profile.json").read_text())["images"]["count"] == {"vgg_small": 7}
