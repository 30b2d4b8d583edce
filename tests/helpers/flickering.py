"""Photographs and videos of a bright square, and networks that find it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from dealias.data import Source
from dealias.evaluation.clips import PanClip
from dealias.evaluation.network import Network
from dealias.metrics.outputs import AnyTask
from dealias.models import ModelSpec, Preprocessing

SIDE, FRAMES = 64, 9
PLAIN = Preprocessing(SIDE, SIDE, SIDE, 3, "bilinear", (0.0,) * 3, (1.0,) * 3)


def square(top: int, left: int, height: int = SIDE, width: int = SIDE, size: int = 16) -> np.ndarray:
    """A frame (height, width, 3) with a bright square."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[top : top + size, left : left + size] = 255
    return pixels


def pans(folder: Path, count: int = 3, step: float = 1.0) -> list[PanClip]:
    """Pans over photographs of a square, each as large as the path needs."""
    folder.mkdir(exist_ok=True)
    side = SIDE + int(np.ceil((FRAMES - 1) * step))
    for number in range(count):
        Image.fromarray(square(24 + number, 25 + 2 * number, side, side)).save(folder / f"{number}.png")
    paths = sorted(folder.iterdir())
    source = Source.of_all(folder, None, [0] * count, [path.name for path in paths], paths.__getitem__)
    return [PanClip(source, number, PLAIN, FRAMES, (step, step)) for number in range(count)]


def network(model: nn.Module, label: str = "network", task: AnyTask = "detection") -> Network:
    """The model, ready to run."""
    return Network(ModelSpec("a:b", label=label), model.eval(), PLAIN, torch.device("cpu"), 4, task)
