"""The command line in this process."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dealias.cli import main
from dealias.models import create_model
from dealias.repair.distillation import reestimate_statistics


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs `dealias ARGUMENTS` and returns its exit code."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["dealias", *map(str, arguments)])
        monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
        before = signal.getsignal(signal.SIGINT)
        try:
            with pytest.raises(SystemExit) as stopped:
                main()
        finally:
            signal.signal(signal.SIGINT, before)
        return int(stopped.value.code or 0)

    return run


@pytest.fixture
def error_of(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `dealias ARGUMENTS`, which must fail with a single line, and returns that line."""

    def error_of(*arguments: object) -> str:
        capsys.readouterr()
        assert run(*arguments) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line

    return error_of


@pytest.fixture
def three_classes(tmp_path: Path) -> Path:
    """A checkpoint of `dealias:vgg_small` with 3 classes."""
    torch.manual_seed(0)
    network = create_model("dealias:vgg_small", num_classes=3)
    reestimate_statistics(network, [torch.rand(64, 1, 32, 32)])  # else it predicts one class only
    save_file(network.state_dict(), tmp_path / "three.safetensors")
    return tmp_path / "three.safetensors"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of two pictures each, and a file that is cut short."""
    folder = tmp_path / "images"
    for index, (name, color) in enumerate((("a", "red"), ("b<i>", "blue"))):
        (folder / name).mkdir(parents=True)
        for copy in range(2):
            picture = Image.new("RGB", (40, 48), color)
            picture.paste("white", (5 * index, 7 * copy, 20, 30))
            picture.save(folder / name / f"{copy}.jpg")
    whole = (folder / "a" / "0.jpg").read_bytes()
    (folder / "a" / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    return folder
