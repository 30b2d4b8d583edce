"""Repair of a network by name with a folder of images, with labels or without."""

from __future__ import annotations

from dataclasses import asdict
from os import PathLike

import torch
from torch import Tensor

from dealias.data.classes import match_classes
from dealias.evaluation.network import Network, build_network
from dealias.models import ModelSpec
from dealias.progress import OnProgress
from dealias.repair.domain import draw_held_out
from dealias.repair.folder import RepairFolder
from dealias.repair.images import ImageChoice, TrainingImages, read_images
from dealias.repair.options import RepairOptions
from dealias.repair.parts import check_parts
from dealias.repair.run import RepairResult, repair
from dealias.runtime import pick_device


def repair_from_folder(
    spec: ModelSpec,
    choice: ImageChoice,
    output: str | PathLike[str],
    options: RepairOptions,
    *,
    device: str = "auto",
    resume: bool = False,
    on_progress: OnProgress = lambda stage, done: None,
) -> RepairResult:
    """Run `repair` for a network by name and images on disk; writes into `output`.

    Args:
        spec: the original, with its checkpoint.
        choice: the images. Where their classes are the network's, the accuracy is measured too.
        output, options, resume: as for `repair`.
        device: as for `dealias.runtime.pick_device`.
        on_progress: called with the stage and the fraction of the work done.

    Raises:
        InputError: as for `repair`; or the network, its weights or the images cannot be read.
        MissingExtraError: a package is not installed.
    """
    RepairFolder(output, resume=resume, weights=spec.weights)  # refuses now what it must refuse
    network = build_network(
        spec,
        pick_device(device),
        options.batch_size,
        image_size=choice.image_size,
        crop_size=choice.crop_size,
        seed=options.seed,
        task=options.task,
    )
    check_parts(network.model, options.parts)
    on_progress("reading images", 0.0)
    images = read_images(choice, network.preprocessing, options.seed)
    if isinstance(options.held_out, float) and len(set(images.scenes)) < len(images.scenes):
        held_out = draw_held_out(images.scenes, options.held_out, options.seed)
        options = options.model_copy(update={"held_out": held_out})
    return repair_network(network, images, output, options, resume=resume, on_progress=on_progress)


def repair_network(
    network: Network,
    images: TrainingImages,
    output: str | PathLike[str],
    options: RepairOptions,
    *,
    resume: bool = False,
    on_progress: OnProgress = lambda stage, done: None,
) -> RepairResult:
    """Run `repair` for a network that is built, and images that are read; writes into `output`."""
    preprocessing = network.preprocessing
    return repair(
        network.model,
        images.pixels,
        prepare=preprocessing.normalise,
        crop_size=preprocessing.crop_size if preprocessing.slides else None,
        targets=_targets(images, network),
        output=output,
        resume=resume,
        on_progress=on_progress,
        about={
            "model": network.spec.identity(),
            "preprocessing": asdict(preprocessing),
            "images": {"place": images.place, "fingerprint": images.fingerprint, "skipped": images.skipped},
        },
        **options.model_dump(),
    )


def _targets(images: TrainingImages, network: Network) -> Tensor | None:
    """The class of each image; None where the classes are not the network's, or unknown."""
    source = images.source
    classes = None if source is None else match_classes(source, network.classes)
    if source is None or classes is None:
        return None
    return torch.tensor([classes[source.labels[scene]] for scene in images.scenes])
