"""Made-up results of an evaluation, with everything that a report shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dealias.data.pictures import picture_url
from dealias.evaluation.results import Results, Slide, write_results
from dealias.evaluation.run import FILES
from dealias.files import OutputFolder
from dealias.records import from_json

PLAIN, BLURRED = "plain", "blurred"


def _figure(value: float, reach: float = 0.05, images: int = 100) -> dict[str, Any]:
    return {"value": value, "interval": [max(value - reach, 0.0), value + reach], "images": images}


def _profile(scale: float) -> dict[str, Any]:
    shifts = list(range(8))
    grid = np.minimum(np.add.outer(np.arange(8) % 2, np.arange(8) % 2), 1) * scale
    site = {
        "path": "features.3",
        "kind": "max_pool",
        "stride": [2, 2],
        "status": "placed",
        "grid": [2, 2],
        "before": 0.01,
        "after": scale,
        "added": scale - 0.01,
        "maximum": 0.02,
        "periodicity": 1.0,
        "maps": {"input": (grid / 9).tolist(), "max": (grid / 5).tolist(), "output": grid.tolist()},
    }
    return {"sites": [site, {**site, "path": "features.7"}], "missed": ["slice"], "dy": shifts, "dx": shifts}


def results() -> Results:
    """What `results.json` holds, as the record that writers and readers share."""
    return from_json(Results, json.dumps(stored_results()).encode(), "results.json")


def stored_results() -> dict[str, Any]:
    """The same as JSON."""
    shares = {"accuracy": 0.7, "top5_accuracy": 0.9, "crop_consistency": 0.85, "probability_variation": 0.02}
    shares |= {"mean_corruption_error": 0.6, "mean_flip_rate": 0.1}
    names = ("fog", "gaussian_noise", "jpeg_compression")
    site = {
        "kind": "max_pool",
        "path": "features.3",
        "stride": [2, 2],
        "input_size": [32, 32],
        "output_size": [16, 16],
        "status": "placed",
        "action": "max at stride 1, then BlurPool2d(stride=2)",
        "reason": None,
    }
    preprocessing = {"image_size": 256, "crop_size": 224, "shift_size": 256, "channels": 3}
    preprocessing |= {"interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.2] * 3}
    return {
        "networks": {
            PLAIN: {"name": "torchvision:resnet18", "preprocessing": preprocessing},
            BLURRED: {"name": "torchvision:resnet18", "antialias": "bin4", "preprocessing": preprocessing},
        },
        "baseline": PLAIN,
        "metrics": {
            PLAIN: {key: _figure(value) for key, value in shares.items()},
            BLURRED: {key: _figure(value + 0.03) for key, value in shares.items()},
        },
        "differences": {BLURRED: {key: {"value": 0.03, "interval": [0.01, 0.05], "images": None} for key in shares}},
        "corruptions": {
            label: {name: {str(s): _figure(shift + 0.1 * s) for s in range(1, 6)} for name in names}
            for label, shift in ((PLAIN, 0.3), (BLURRED, 0.2))
        },
        "perturbations": {
            label: {name: {"flip_rate": _figure(rate), "t5d": _figure(10 * rate)} for name in ("snow", "tilt")}
            for label, rate in ((PLAIN, 0.2), (BLURRED, 0.1))
        },
        "profiles": {PLAIN: _profile(0.4), BLURRED: _profile(0.1)},
        "curves": {PLAIN: [0.5, 0.6, 0.4, 0.5], BLURRED: [0.6, 0.61, 0.6, 0.62]},
        "reaches": {label: {"crop": "windows of 224 pixels in 256"} for label in (PLAIN, BLURRED)},
        "images": {
            "place": "images",
            "asked_for": 101,
            "skipped": [["cat/<i>broken.jpg", "no image <b>"]],
            "smaller_than_the_window": 2,
            "not_a_number": {PLAIN: 0, BLURRED: 3},
        },
        "notes": ["Not measured, grid."],
        "measured": ["accuracy", "consistency"],
        "seed": 0,
        "difficulty": 1,
        "level": 0.95,
        "sites": {PLAIN: [site], BLURRED: [{**site, "kind": "blur", "action": None, "reason": "already"}]},
        "versions": {"dealias": "0"},
    }


def slides() -> list[Slide]:
    """What `slides.json` holds."""
    shade = np.add.outer(np.arange(40), np.arange(40)).astype(np.uint8) * 3
    curves = {PLAIN: [0.1, 0.2, 0.3, 0.4, 0.5], BLURRED: [0.9] * 5}
    return [
        Slide(name, "cat <b>", [0, 1, 2, 3, 4], curves, crop=36, size=40, source=picture_url(shade[None]))
        for name in ("one.png", "two.png")
    ]


def evaluation_folder(path: Path) -> OutputFolder:
    """The folder of an evaluation, to be opened."""
    return OutputFolder(path, "evaluate", writes=FILES)


def write(path: Path, timing: Mapping[str, float] | None = None) -> None:
    """Write `results()` and `slides()` into a folder."""
    with evaluation_folder(path) as folder:
        write_results(folder, results(), slides(), timing or {})
