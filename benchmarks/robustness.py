"""Corruptions against imagecorruptions-imaug, image by image in one run; and whether evaluations wait for images.

    python benchmarks/robustness.py [--images 40] [--size 224]

The packages alternate on the same images, so that a busy machine slows both: the ratios count, not the times.
`pip install imagecorruptions-imaug` brings the other side; without it only our own times are shown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dealias.evaluation import evaluate
from dealias.perturb import CORRUPTIONS, corrupt

try:
    from imagecorruptions import corrupt as other
except ImportError:
    other = None


def photographs(count: int, size: int) -> list[np.ndarray[Any, Any]]:
    """Crops of photographs that scikit-image brings, all different."""
    from dealias.data import photos

    draw = np.random.default_rng(0)
    found = []
    larger = photos(round(size * 1.3)).values()
    pictures = [(picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8) for picture in larger]
    for index in range(count):
        picture = pictures[index % len(pictures)]
        top, left = draw.integers(0, picture.shape[0] - size, 2)
        found.append(np.ascontiguousarray(picture[top : top + size, left : left + size]))
    return found


def seconds(call: Callable[[], object]) -> float:
    """Processor time of one call; a call before it is not counted: some compile or fill caches first."""
    call()
    start = time.process_time()
    call()
    return time.process_time() - start


def compare_corruptions(images: list[np.ndarray[Any, Any]]) -> None:
    """Processor time an image of each corruption, ours and theirs, severities in turn."""
    totals = [0.0, 0.0]
    print(f"{'corruption':<20}{'ours ms':>10}{'theirs ms':>11}{'ratio':>8}")
    for name in CORRUPTIONS:
        ours, theirs = [], []
        for index, image in enumerate(images):
            severity = index % 5 + 1
            generator = np.random.default_rng((0, index))
            ours.append(seconds(partial(corrupt, image, name, severity, generator=generator)))
            if other is not None:
                theirs.append(seconds(partial(other, image, corruption_name=name, severity=severity)))
        own, reference = statistics.mean(ours), statistics.mean(theirs) if theirs else float("nan")
        totals = [totals[0] + own, totals[1] + reference]
        print(f"{name:<20}{1000 * own:>10.2f}{1000 * reference:>11.2f}{reference / own:>8.2f}")
    print(f"{'all fifteen':<20}{1000 * totals[0]:>10.2f}{1000 * totals[1]:>11.2f}{totals[1] / totals[0]:>8.2f}")


def loader_wait(images: list[np.ndarray[Any, Any]], metric: str, workers: int | None) -> None:
    """The share of an evaluation in which the network waits for images."""
    with tempfile.TemporaryDirectory() as folder:
        roots = [Path(folder, "images", f"{label:04d}") for label in range(1000)]  # as many as the network has
        for root in roots:
            root.mkdir(parents=True)
        for index, image in enumerate(images):
            Image.fromarray(image).resize((500, 375)).save(roots[index] / f"{index}.jpg")
        with warnings.catch_warnings(action="ignore"):
            evaluate(
                ["torchvision:resnet18"], Path(folder, "images"), Path(folder, "run"), metrics=[metric], workers=workers
            )
        timing = json.loads(Path(folder, "run", "timing.json").read_text())
    share = timing["waited_for_images"] / timing["seconds"]
    print(f"resnet18, {metric} of {len(images)} JPEGs, {timing['workers']} workers: waits {100 * share:.1f}%")


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=None)
    arguments = parser.parse_args()
    images = photographs(arguments.images, arguments.size)
    if other is None:
        print("imagecorruptions is not installed: ours alone")
    compare_corruptions(images)
    for metric in ("accuracy", "consistency"):
        loader_wait(images, metric, arguments.workers)


if __name__ == "__main__":
    main()
