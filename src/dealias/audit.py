"""Measure how shift-sensitive a network is on the user's images, beside its anti-aliased copy."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dealias.convert import antialias, sites
from dealias.data import load_images
from dealias.evaluation import STAGES, feature_maps, measure_accuracy, measure_shifts
from dealias.files import prepare_output, write_whole
from dealias.filters import Filter
from dealias.metrics.views import Mode
from dealias.models import create_model, default_input_size, parse_model, preprocessing_for
from dealias.perturb import crop
from dealias.progress import OnProgress, Stages
from dealias.report import picture_bytes, picture_source, plot_feature_distance, render_page
from dealias.report.summary import distance_table, format_share, metric_notes, summary_rows
from dealias.runtime import versions

SLIDER_IMAGES = 6
MAPPED_IMAGES, MAPPED_SHIFTS, MAPPED_LAYERS = 2, range(-6, 7), 6
UNTRAINED = (
    "The anti-aliased copy has the baseline's weights and was not trained after the conversion: its figures are a "
    "starting point for training, not a result. A network gains from anti-aliasing once it is trained with it."
)


def run_audit(
    model: str,
    images: str | Path,
    output: str | Path,
    *,
    weights: str | Path | None = None,
    new_head: bool = False,
    filter: Filter = "bin4",
    limit: int | None = None,
    seed: int = 0,
    on_progress: OnProgress = lambda stage, done: None,
) -> dict[str, Any]:
    """Measure a network and its anti-aliased copy; write `results.json` and `report.html` into `output`.

    Args:
        model: "NAME" or "NAME,KEY=VALUE,...", see `dealias.models.parse_model`.
        images: a folder with one subfolder for each class.
        output: the folder to write into; it is created.
        weights: checkpoint of the network; random weights without it.
        new_head: load all but the head of weights with another number of classes.
        filter: of the anti-aliased copy.
        limit: use at most this many images, drawn from the whole folder by `seed`.
        seed: of the shifts and of the images drawn.
        on_progress: told the stage and the fraction of the work done.

    Returns:
        What `results.json` holds.

    Raises:
        InputError: the model, the weights, the images or the output folder will not do.
        MissingExtraError: a package is not installed.
    """
    started = time.monotonic()
    folder = prepare_output(output)
    stages = Stages(
        {"reading images": 2, "measuring": 10, "mapping internal features": 4, "writing the report": 1}, on_progress
    )
    torch.manual_seed(seed)
    network_name, own = parse_model(model)
    network = create_model(network_name, weights=weights, new_head=new_head, **own).eval()
    made_for = preprocessing_for(network_name, in_chans=own.get("in_chans"))
    crop_size = default_input_size(network_name)[1]
    image_size = round(crop_size * 8 / 7)
    loaded = load_images(
        images, image_size, channels=made_for.channels, limit=limit, seed=seed, progress=stages.start("reading images")
    )
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (made_for.mean, made_for.std))
    pixels = (loaded.images - mean) / std
    offset = (image_size - crop_size) // 2
    centre = pixels[:, :, offset : offset + crop_size, offset : offset + crop_size]
    networks = {"baseline": network, "antialiased": antialias(network, centre[:1], filter=filter)}
    with torch.no_grad():
        labelled = network(centre[:1]).shape[1] == len(loaded.classes)

    results: dict[str, Any] = {
        "finding": "",
        "networks": {"baseline": "baseline", "antialiased": "anti-aliased, not trained"},
        "model": model,
        "weights": None if weights is None else str(weights),
        "sites": [asdict(site) for site in sites(network, centre[:1])],
    }
    advance = stages.start("measuring")
    for index, (name, candidate) in enumerate(networks.items()):
        results[name] = measure_accuracy(candidate, centre, loaded.targets) if labelled else {"accuracy": None}
        crops: dict[Mode, dict[str, Any]] = {"crop": {"crop_size": crop_size, "image_size": image_size}}
        shifts: dict[Mode, dict[str, Any]] = {
            "circular": {"max_shift": max(crop_size // 7, 1)},
            "zero_fill": {"max_shift": 3},
        }
        results[name] |= measure_shifts(candidate, pixels, crops, seed=seed)
        results[name] |= measure_shifts(candidate, centre, shifts, seed=seed)
        advance(index + 1, len(networks))
    curves = _diagonal_curves(network, pixels, image_size, crop_size)
    variation = np.abs(np.diff(curves.probabilities, axis=1)).mean(axis=1)
    results["baseline"]["probability_variation"] = float(variation.mean())

    advance = stages.start("mapping internal features")
    maps, layers = {}, _pooling_layers(network, centre)
    for index, (name, candidate) in enumerate(networks.items()):
        maps[name] = feature_maps(candidate, centre[:MAPPED_IMAGES], {path: path for path in layers}, MAPPED_SHIFTS)
        results[name]["feature_distance"] = {", ".join(key): float(value.mean()) for key, value in maps[name].items()}
        advance(index + 1, len(networks))

    advance = stages.start("writing the report")
    results["finding"] = (
        f"{model} gives two crops of the same image the same top-1 class in "
        f"{format_share(results['baseline']['crop_consistency'])} of cases ({len(pixels):,} images)."
    )
    unstable = np.argsort(-variation, kind="stable")[:SLIDER_IMAGES]
    classes = _class_names(loaded.classes if labelled else None, curves.classes)
    results["photos"] = [
        {
            "name": f"{loaded.paths[index].parent.name}/{loaded.paths[index].name}",
            "label": classes[index],
            "shifts": list(range(curves.probabilities.shape[1])),
            "probabilities": [round(float(value), 4) for value in curves.probabilities[index]],
        }
        for index in unstable
    ]
    results["images"] = len(pixels)
    results["skipped"] = [{"path": str(path), "reason": reason} for path, reason in loaded.skipped]
    results |= {"seed": seed, "versions": versions(), "seconds": round(time.monotonic() - started, 1)}
    pictures = [picture_source(picture_bytes(_to_image(loaded.images[index]))) for index in unstable]
    figure = picture_bytes(plot_feature_distance(maps, layers, list(STAGES))) if layers else None
    write_whole(folder / "report.html", _page(results, pictures, figure, crop_size, image_size))
    write_whole(folder / "results.json", json.dumps(results, indent=1) + "\n")
    advance(1, 1)
    return results


@dataclass(frozen=True)
class _Curves:
    """P(`classes`) of each image (rows) at each shift (columns): the class with the highest mean over the shifts."""

    probabilities: np.ndarray[Any, Any]
    classes: list[int]


def _diagonal_curves(network: nn.Module, pixels: Tensor, image_size: int, crop_size: int) -> _Curves:
    shifts = range(image_size - crop_size + 1)
    curves, classes = [], []
    with torch.no_grad():
        for image in pixels:
            crops = torch.stack([crop(image, shift, shift, crop_size) for shift in shifts])
            probabilities = torch.softmax(network(crops), dim=1)
            best = int(probabilities.mean(dim=0).argmax())
            classes.append(best)
            curves.append(probabilities[:, best])
    return _Curves(torch.stack(curves).numpy(), classes)


def _pooling_layers(network: nn.Module, images: Tensor) -> list[str]:
    """The paths of the first pooling layers, in the order in which they run; conversion keeps them."""
    return [site.path for site in sites(network, images[:1]) if site.path and "pool" in site.kind][:MAPPED_LAYERS]


def _class_names(folders: Sequence[str] | None, classes: Sequence[int]) -> list[str]:
    return [folders[index] if folders is not None else f"class {index}" for index in classes]


def _to_image(pixels: Tensor) -> Image.Image:
    levels = (pixels * 255).round().byte().expand(3, -1, -1)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def _page(
    results: Mapping[str, Any], pictures: Sequence[str], figure: bytes | None, crop_size: int, image_size: int
) -> str:
    figures = []
    if figure is not None:
        figures.append(
            {
                "heading": "Where the aliasing enters",
                "text": "Internal feature distance at the pooling layers over circular shifts of up to "
                f"{MAPPED_SHIFTS[-1]} pixels: how far F(Shift(X)) is from Shift(F(X)). Dark is shift-equivariant.",
                "source": picture_source(figure),
                "alt": "Heat maps of the internal feature distance for both networks at the pooling layers.",
            }
        )
    skipped = [f"{item['path']} was skipped: {item['reason']}" for item in results["skipped"]]
    accuracy = (
        []
        if results["baseline"]["accuracy"] is not None
        else ["Accuracy is not measured: the folder has another number of classes than the network."]
    )
    return render_page(
        title=f"dealias audit of {results['model']}",
        finding=results["finding"],
        photos_heading="Your most unstable images",
        photos=[
            {
                **{key: photo[key] for key in ("name", "label", "shifts")},
                "curves": {"baseline": photo["probabilities"]},
                "crop": crop_size,
                "size": image_size,
                "source": source,
            }
            for photo, source in zip(results["photos"], pictures, strict=True)
        ],
        figures=figures,
        tables=[
            *([distance_table(results)] if results["baseline"]["feature_distance"] else []),
            {"heading": "The numbers", "columns": ["", *results["networks"].values()], "rows": summary_rows(results)},
        ],
        notes=[
            UNTRAINED,
            *accuracy,
            *metric_notes(results),
            f"{results['images']:,} images of {image_size} x {image_size} pixels, windows of {crop_size}; "
            f"seed {results['seed']}; intervals are 95%.",
            *(f"Left as it is: {site['path']}, {site['reason']}." for site in results["sites"] if site["reason"]),
            *skipped,
            ", ".join(f"{name} {version}" for name, version in results["versions"].items())
            + f"; {results['seconds']} seconds.",
        ],
    )
