"""`dealias train` from the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from helpers.training_runs import ENVIRONMENT, SMALL, command
from safetensors.torch import load_file


def test_settings_behind_the_models_name(run: Callable[..., int], tmp_path: Path) -> None:
    small = ("--recipe", "digits", "--limit", 64, "--device", "cpu", "--epochs", 1)
    for name, more in (
        ("base", ("train",)),
        ("tuned", ("finetune", "--weights", tmp_path / "base/checkpoints/best.safetensors")),
    ):
        model = "dealias:vgg_small,num_classes=12,padding_mode=circular"
        assert run(*more, model, *small, "--output", tmp_path / name) == 0
        config = yaml.safe_load((tmp_path / name / "config.yaml").read_text())
        assert (config["model"], config["num_classes"]) == ("dealias:vgg_small", 12)
        assert config["padding_mode"] == "circular"
        assert load_file(tmp_path / name / "checkpoints" / "last.safetensors")["classifier.bias"].shape == (12,)


def test_a_package_of_the_report_is_missed_before_the_training(
    error_of: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert "pip install 'dealias[report]'" in error_of("train", "dealias:vgg_small", "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bad_input_is_one_line(error_of: Callable[..., str], tmp_path: Path) -> None:
    for arguments, message in (
        (("--recipe", "digits", "--set", "epoch=1"), "unknown key 'epoch': did you mean epochs?"),
        (("--recipe", "fashion"), "recipe='fashion' is unknown"),
        ((), "data=None: name class folders"),
        (("--recipe", "digits", "--weights", tmp_path / "none.pth"), "none.pth"),
        (("--recipe", "digits", "--filter", "bin5"), "filter='bin5' changes nothing in a network as it is"),
        (("--recipe", "digits", "--filter", "bin99", "--antialias"), "filter='bin99' is unknown"),
        (("--recipe", "digits", "--workers", -1), "workers=-1 must be at least 0"),
    ):
        assert message in error_of("train", "dealias:vgg_small", "--output", tmp_path / "run", *arguments)


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.sweep), (signal.SIGTERM, 143)]
)
def test_a_signal_saves_and_sets_the_exit_code(tmp_path: Path, number: int, code: int) -> None:
    process = subprocess.Popen(
        command(*SMALL, "--device", "cpu", "--set", "epochs=50", "--output", tmp_path),
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob("checkpoints/state-*.pt")) and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, number)
    _, error = process.communicate(timeout=900)
    assert process.returncode == code
    assert f"{signal.Signals(number).name}: saved at step" in error
    assert "Traceback" not in error
    newest = max(tmp_path.glob("checkpoints/state-*.pt"))
    assert f"saved at step {torch.load(newest, weights_only=True)['step']};" in error
