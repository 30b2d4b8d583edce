"""Weights of another number of classes, in every command that takes weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

LEFT_OUT = "classifier.weight, classifier.bias"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Ten classes of two pictures of noise each."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 36, 36), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        folder = tmp_path / "images" / str(number % 10)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{number}.png")
    return tmp_path / "images"


def assert_all_but_the_head(written: Path, source: Path, classes: int) -> None:
    """The weights are those of `source`, bit for bit, except in a head of so many classes."""
    found, stored = load_file(written), load_file(source)
    assert found["classifier.bias"].shape == (classes,)
    assert all(torch.equal(value, stored[key]) for key, value in found.items() if not key.startswith("classifier"))


def test_convert_and_sites(
    run: Callable[..., int],
    error_of: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    three_classes: Path,
    tmp_path: Path,
) -> None:
    model = ("dealias:vgg_small", "--weights", three_classes)
    assert "--new-head" in error_of("convert", *model, "--output", tmp_path / "out")
    assert run("convert", *model, "--new-head", "--output", tmp_path / "out") == 0
    assert f"has 3 classes: {LEFT_OUT} are not loaded" in capsys.readouterr().err
    assert_all_but_the_head(tmp_path / "out" / "model.safetensors", three_classes, classes=10)
    seven = ("dealias:vgg_small,num_classes=7", "--weights", three_classes, "--new-head")
    assert run("convert", *seven, "--output", tmp_path / "seven") == 0
    assert_all_but_the_head(tmp_path / "seven" / "model.safetensors", three_classes, classes=7)
    capsys.readouterr()
    assert "--new-head" in error_of("sites", *model)
    assert run("sites", *model, "--new-head") == 0
    assert LEFT_OUT in capsys.readouterr().err
    assert run("sites", "dealias:vgg_small,num_classes=3", "--weights", three_classes) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.sweep
def test_audit_and_repair(
    run: Callable[..., int],
    error_of: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    images: Path,
    three_classes: Path,
    tmp_path: Path,
) -> None:
    weights = ("--weights", three_classes, "--images", images)
    audit = ("audit", "dealias:vgg_small", *weights, "--workers", 0, "--output", tmp_path / "audit")
    assert "--new-head" in error_of(*audit)
    assert run(*audit, "--new-head") == 0
    assert LEFT_OUT in capsys.readouterr().err
    assert "accuracy" in json.loads((tmp_path / "audit" / "results.json").read_text())["metrics"]["vgg_small"]
    assert run("audit", "dealias:vgg_small,num_classes=3,in_chans=1", *audit[2:-1], tmp_path / "three") == 0
    assert LEFT_OUT not in capsys.readouterr().err
    found = json.loads((tmp_path / "three" / "results.json").read_text())["metrics"]["vgg_small"]
    assert "accuracy" not in found  # 10 folders
    assert "circular_consistency" in found
    repair = ("repair", "dealias:vgg_small,num_classes=7", *weights, "--output", tmp_path / "repair")
    repair += ("--epochs", 1, "--min-agreement", 0, "--min-consistency", 0)
    assert "--new-head" in error_of(*repair)
    assert run(*repair, "--new-head") == 0
    assert LEFT_OUT in capsys.readouterr().err
    assert load_file(tmp_path / "repair" / "model.safetensors")["classifier.bias"].shape == (7,)


@pytest.mark.parametrize("name", ["train", "finetune"])
def test_training(
    run: Callable[..., int],
    error_of: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    three_classes: Path,
    tmp_path: Path,
    name: str,
) -> None:
    command = (name, "dealias:vgg_small", "--weights", three_classes, "--recipe", "digits", "--limit", 64)
    command += ("--device", "cpu", "--epochs", 1, "--output", tmp_path / "out")
    assert "--new-head" in error_of(*command)
    assert run(*command, "--new-head") == 0
    assert LEFT_OUT in capsys.readouterr().err
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["new_head"] is True
    assert load_file(tmp_path / "out" / "checkpoints" / "last.safetensors")["classifier.bias"].shape == (10,)


def test_evaluate_and_profile(
    run: Callable[..., int],
    error_of: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    images: Path,
    three_classes: Path,
    tmp_path: Path,
) -> None:
    model = f"dealias:vgg_small,num_classes=7,weights={three_classes}"
    evaluate = ("--images", images, "--metrics", "consistency", "--workers", 0, "--output", tmp_path / "evaluate")
    profile = ("--images", images, "--count", 2, "--reach", 2, "--output", tmp_path / "profile")
    for name, more in (("evaluate", evaluate), ("profile", profile)):
        assert "new_head=true beside weights=PATH" in error_of(name, model, *more)
        assert "new_head must be true or false" in error_of(name, f"{model},new_head=1", *more)
        assert run(name, f"{model},new_head=true", *more) == 0
        assert LEFT_OUT in capsys.readouterr().err
    stored = json.loads((tmp_path / "profile" / "profile.json").read_text())
    assert stored["networks"]["vgg_small"]["new_head"] is True
