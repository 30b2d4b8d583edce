"""Tiny training runs for the tests, in this process, in a forked one, or by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from dealias.training import Config, load_recipe, train

NOISY = "helpers.training_runs:noisy_network"
_PATHS = (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", ""))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, _PATHS))}
SMALL = ("train", "dealias:vgg_small", "--recipe", "digits", "--antialias", "--epochs", 2, "--limit", 512, "--seed", 5)
# everything that has a state or draws random numbers
STATEFUL = {"ema_decay": 0.9, "mixup": 0.2, "cutmix": 1.0, "shift_augmentation": True, "label_smoothing": 0.1}


def plain_network() -> nn.Module:
    """A network without batch statistics: a batch's gradient is the sum of its parts'."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(128, 10)
    )


class _Half(nn.Sequential):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.float16):
            return super().forward(16 * input).float()


def half_network() -> nn.Module:
    """The same on brighter images in float16: its gradients overflow at the usual first scale."""
    return _Half(*plain_network())


def noisy_network() -> nn.Module:
    """A network with batch statistics that draws random numbers."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(256, 10)
    )


def colour_network() -> nn.Module:
    """A network that takes no digits."""
    return nn.Sequential(nn.Conv2d(3, 10, 3, stride=4), nn.MaxPool2d(8), nn.Flatten())


def two_classes() -> nn.Module:
    """A network that knows two digits."""
    return nn.Sequential(nn.Conv2d(1, 2, 3, stride=4), nn.MaxPool2d(8), nn.Flatten())


def tiny_config(
    model: str = "helpers.training_runs:noisy_network", *, limit: int = 200, seed: int = 5, **more: Any
) -> Config:
    """A run of 2 epochs of 4 steps."""
    overrides = {"epochs": 2, "batch_size": 50, **more}
    return Config(model, load_recipe("digits", overrides=overrides), "digits", "digits", limit=limit, seed=seed)


def stateful() -> Config:
    """A run of 2 epochs of 4 steps, with everything that has a state; it saves when it can."""
    return tiny_config(save_every=1e-9, **STATEFUL)


def run_tiny(output: Path, *, resume: bool = False, config: Config | None = None) -> dict[str, Any]:
    """Train in this process."""
    return train(config or tiny_config(), output, resume=resume, device="cpu")


def command(*arguments: object, processes: int = 1) -> list[str]:
    """`dealias ...`, in so many processes."""
    return python("-m", "dealias", *arguments, processes=processes)


def python(*arguments: object, processes: int = 1) -> list[str]:
    """`python ...`, or `torchrun ...` in so many processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    return [sys.executable, *launcher, *map(str, arguments)]


def run_command(*arguments: object, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """The outcome of `dealias ...`."""
    return outcome(command(*arguments, processes=processes))


def outcome(made: list[str]) -> subprocess.CompletedProcess[str]:
    """The outcome of a command."""
    return subprocess.run(made, env=ENVIRONMENT, capture_output=True, text=True, timeout=900, check=False)


def records(folder: Path) -> list[dict[str, Any]]:
    """The log of a run."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    """The losses in the log of a run."""
    return [record["loss"] for record in records(folder) if "loss" in record]


def assert_same_run(one: Path, other: Path) -> None:
    """The same log byte for byte, the same weights bit for bit, and the same states."""
    assert (one / "log.jsonl").read_bytes() == (other / "log.jsonl").read_bytes()
    for name in ("last.safetensors", "best.safetensors"):
        ours, theirs = (load_file(folder / "checkpoints" / name) for folder in (one, other))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    ours, theirs = (
        torch.load(max((folder / "checkpoints").glob("state-*.pt")), weights_only=True) for folder in (one, other)
    )
    assert_equal(ours, theirs)


def assert_equal(one: Any, other: Any) -> None:
    """Equal containers of equal tensors."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for ours, theirs in zip(one, other, strict=True):
            assert_equal(ours, theirs)
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
