"""`dealias recipes`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml


def test_recipes(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipes") == 0
    assert "zhang2019-finetune" in capsys.readouterr().out
    assert run("recipes", "cifar-vgg") == 0
    assert yaml.safe_load(capsys.readouterr().out)["epochs"] == 160


def test_an_unknown_recipe(error_of: Callable[..., str]) -> None:
    assert "recipe='cifar' is unknown: use cifar-vgg, digits" in error_of("recipes", "cifar")
