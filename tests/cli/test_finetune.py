"""`dealias finetune`, and `dealias report` of a baseline beside its fine-tuned form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file


def test_a_baseline_is_tuned_and_compared(
    run: Callable[..., int], error_of: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    small = ("--recipe", "digits", "--limit", 64, "--device", "cpu", "--epochs", 1)
    assert run("train", "dealias:vgg_small", *small, "--output", base) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1] == str(base / "report.html")
    assert "64 digits of MNIST, 1,000 held out" in shown
    weights = base / "checkpoints" / "best.safetensors"
    arguments = ("finetune", "dealias:vgg_small", "--weights", weights, *small, "--output", tuned)
    assert run(*arguments, "--filter", 3) == 0
    config = yaml.safe_load((tuned / "config.yaml").read_text())
    assert (config["antialias"], config["filter"]) == (True, "3")
    assert config["learning_rate"] == pytest.approx(0.01)
    first = json.loads((tuned / "log.jsonl").read_text().splitlines()[0])
    assert first["loss"] != json.loads((base / "log.jsonl").read_text().splitlines()[0])["loss"]
    assert load_file(weights).keys() == load_file(tuned / "checkpoints" / "last.safetensors").keys()
    capsys.readouterr()
    assert run("report", base, tuned, "--output", tmp_path / "both") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "both" / "report.html")
    page = (tmp_path / "both" / "report.html").read_text()
    assert all(text in page for text in ("base", "tuned", "Training loss", "Throughput", "zero-fill consistency"))
    assert "is not the folder of a training run" in error_of("report", base, tmp_path)


@pytest.mark.sweep
def test_options_replace_the_recipes_settings(run: Callable[..., int], tmp_path: Path) -> None:
    arguments = ("--recipe", "digits", "--limit", 64, "--device", "cpu", "--epochs", 1, "--batch-size", 32)
    assert run("train", "dealias:vgg_small", *arguments, "--output", tmp_path / "base") == 0
    weights = tmp_path / "base" / "checkpoints" / "last.safetensors"
    arguments += ("--learning-rate", 0.3, "--no-antialias", "--shift-augmentation", "--set", "log_every=2", "--seed", 4)
    assert run("finetune", "dealias:vgg_small", "--weights", weights, *arguments, "--output", tmp_path / "tuned") == 0
    config = yaml.safe_load((tmp_path / "tuned" / "config.yaml").read_text())
    expected = {"learning_rate": 0.3, "antialias": False, "shift_augmentation": True, "log_every": 2, "seed": 4}
    expected |= {"epochs": 1, "batch_size": 32, "limit": 64, "weights": str(weights), "recipe": "digits"}
    assert {key: config[key] for key in expected} == expected
