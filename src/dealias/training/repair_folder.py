"""Repair a network named on the command line with a folder of images, with labels or without."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dealias.convert import antialias
from dealias.data import Source, open_source
from dealias.data.classes import match_classes
from dealias.data.pictures import EXTENSIONS
from dealias.errors import InputError
from dealias.evaluation.network import build_network
from dealias.files import prepare_output
from dealias.filters import Filter
from dealias.models import ModelSpec, Preprocessing, parse_model
from dealias.progress import OnProgress
from dealias.runtime import pick_device
from dealias.training.repair import RepairResult, check_options, repair


def repair_from_folder(
    model: str,
    weights: str | PathLike[str],
    images: str | PathLike[str],
    output: str | PathLike[str],
    *,
    new_head: bool = False,
    filter: Filter = "bin4",
    device: str = "auto",
    limit: int | None = None,
    image_size: int | None = None,
    crop_size: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    on_progress: OnProgress = lambda stage, done: None,
    **options: Any,
) -> RepairResult:
    """`repair` for a network by name and images on disk; writes into `output`.

    Args:
        model: "NAME" or "NAME,KEY=VALUE,...", see `parse_model`.
        weights: the original's checkpoint.
        images: see `read_domain`. Where its classes are the network's, the accuracy is told too.
        output: see `repair`.
        new_head: load all but the head of weights with another number of classes.
        filter: of the anti-aliased copy.
        device: as in PyTorch; "auto" takes a GPU where there is one.
        limit: use at most so many images, drawn by `seed`.
        image_size, crop_size: other sizes than those of `dealias.models.preprocessing_for`.
        batch_size, seed, on_progress, options: as for `repair`.

    Raises:
        InputError: as for `repair`; or the network, its weights or the images cannot be read.
        MissingExtraError: a package is not installed.
    """
    check_options({**options, "batch_size": batch_size})
    prepare_output(Path(output))
    name, own = parse_model(model)
    spec = ModelSpec(name, weights=str(weights), new_head=new_head, **own)
    network = build_network(
        spec, pick_device(device), batch_size, image_size=image_size, crop_size=crop_size, seed=seed
    )
    preprocessing = network.preprocessing
    read = read_domain(
        images,
        preprocessing,
        limit=limit,
        seed=seed,
        progress=lambda done, total: on_progress("reading images", 0.0),
    )
    classes = match_classes(read.source, network.classes) if read.labels is not None else None
    targets = None if classes is None or read.labels is None else torch.tensor([classes[each] for each in read.labels])
    return repair(
        network.model,
        read.images,
        converted=antialias(network.model, network.blank(), filter=filter),
        prepare=preprocessing.normalise,
        crop_size=preprocessing.crop_size if preprocessing.slides else None,
        targets=targets,
        batch_size=batch_size,
        seed=seed,
        output=output,
        on_progress=on_progress,
        about={
            "model": spec.identity(),
            "preprocessing": asdict(preprocessing),
            "filter": filter if isinstance(filter, str | int) else list(map(float, filter)),
            "images": {"place": str(images), "fingerprint": read.source.fingerprint(), "skipped": read.skipped},
        },
        **options,
    )


@dataclass(frozen=True)
class DomainImages:
    """What `read_domain` read.

    Attributes:
        images: uint8 (N, channels, size, size).
        labels: the number of each one's class among `source.classes`; None for a folder without classes.
        source: where they come from.
        skipped: the names of the files that could not be read, and why.
    """

    images: Tensor
    labels: list[int] | None
    source: Source
    skipped: list[str]


def read_domain(
    place: str | PathLike[str],
    preprocessing: Preprocessing,
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DomainImages:
    """Read all images into memory, at the size in which windows slide (about 0.2 MB each at 256 pixels).

    Args:
        place: what `dealias.data.open_source` takes; or a folder of images, subfolders included, without classes: one
            that has an image beside its subfolders.
        preprocessing: of the network.
        limit: use at most so many, drawn by `seed`.
        seed: of the images drawn.
        progress: called with the number of images done and their total.

    Raises:
        InputError: there are no images, or none can be read.
    """
    path = Path(place)
    labelled = not (path.is_dir() and any(_is_image(entry) for entry in path.iterdir()))
    if labelled:
        source = open_source(place, limit=limit, seed=seed)
    else:
        found = sorted(entry for entry in path.rglob("*") if _is_image(entry))
        names = [str(entry.relative_to(path)) for entry in found]
        source = Source.of_all(place, None, [0] * len(found), names, found.__getitem__).limited(limit, seed)

    def read(number: int) -> Tensor | str:
        try:
            return torch.from_numpy(preprocessing.square(source.read(number), preprocessing.shift_size))
        except InputError as error:
            return f"{source.names[number]}: {error}"

    images, labels, skipped = [], [], []
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside of Python's lock
        for number, image in enumerate(pool.map(read, range(len(source)))):
            if isinstance(image, str):
                skipped.append(image)
            else:
                images.append(image)
                labels.append(source.labels[number])
            progress(number + 1, len(source))
    if not images:
        raise InputError(f"images={str(place)!r} has no readable image: {skipped[0]}")
    return DomainImages(torch.stack(images), labels if labelled else None, source, skipped)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and path.is_file()
