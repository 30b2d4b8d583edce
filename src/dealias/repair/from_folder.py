"""Repair of a network by name with a folder of images, with labels or without."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from dealias.convert import antialias
from dealias.data import Source, open_source
from dealias.data.classes import match_classes
from dealias.data.pictures import EXTENSIONS
from dealias.errors import InputError
from dealias.evaluation.network import build_network
from dealias.filters import Filter
from dealias.models import ModelSpec, Preprocessing
from dealias.progress import OnProgress
from dealias.repair.folder import RepairFolder
from dealias.repair.options import RepairOptions
from dealias.repair.run import RepairResult, repair
from dealias.runtime import pick_device


@dataclass(frozen=True)
class ImageChoice:
    """A choice of images, and of their size.

    Attributes:
        place: a place that `dealias.data.open_source` takes; or a folder of images without classes, subfolders
            included. A folder with an image beside its subfolders has no classes.
        limit: use at most this many images, drawn by the seed.
        image_size, crop_size: sizes that replace those of `dealias.models.preprocessing_for`.
    """

    place: str | PathLike[str]
    limit: int | None = None
    image_size: int | None = None
    crop_size: int | None = None


def repair_from_folder(
    spec: ModelSpec,
    choice: ImageChoice,
    output: str | PathLike[str],
    options: RepairOptions,
    *,
    filter: Filter = "bin4",
    device: str = "auto",
    resume: bool = False,
    on_progress: OnProgress = lambda stage, done: None,
) -> RepairResult:
    """Run `repair` for a network by name and images on disk; writes into `output`.

    Args:
        spec: the original, with its checkpoint.
        choice: the images. Where their classes are the network's, the accuracy is measured too.
        output, options, resume: as for `repair`.
        filter: of the anti-aliased copy.
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
    )
    preprocessing = network.preprocessing
    on_progress("reading images", 0.0)
    read = read_domain(choice, preprocessing, options.seed)
    classes = match_classes(read.source, network.classes) if read.labels is not None else None
    targets = None if classes is None or read.labels is None else torch.tensor([classes[each] for each in read.labels])
    return repair(
        network.model,
        read.images,
        converted=antialias(network.model, network.blank(), filter=filter),
        prepare=preprocessing.normalise,
        crop_size=preprocessing.crop_size if preprocessing.slides else None,
        targets=targets,
        output=output,
        resume=resume,
        on_progress=on_progress,
        about={
            "model": spec.identity(),
            "preprocessing": asdict(preprocessing),
            "filter": filter if isinstance(filter, str | int) else list(map(float, filter)),
            "images": {"place": str(choice.place), "fingerprint": read.source.fingerprint(), "skipped": read.skipped},
        },
        **options.model_dump(),
    )


@dataclass(frozen=True)
class DomainImages:
    """The images that `read_domain` read.

    Attributes:
        images: uint8 (N, channels, size, size).
        labels: the number of each image's class among `source.classes`; None for a folder without classes.
        source: where they come from.
        skipped: the names of the files that could not be read, and the reasons.
    """

    images: Tensor
    labels: list[int] | None
    source: Source
    skipped: list[str]


def read_domain(choice: ImageChoice, preprocessing: Preprocessing, seed: int = 0) -> DomainImages:
    """Read all images into memory, at the size in which windows slide (about 0.2 MB each at 256 pixels).

    The sizes of `choice` are in `preprocessing`; `seed` draws the images.

    Raises:
        InputError: there are no images, or none can be read.
    """
    path = Path(choice.place)
    labelled = not (path.is_dir() and any(_is_image(entry) for entry in path.iterdir()))
    if labelled:
        source = open_source(choice.place, limit=choice.limit, seed=seed)
    else:
        found = sorted(entry for entry in path.rglob("*") if _is_image(entry))
        names = [str(entry.relative_to(path)) for entry in found]
        source = Source.of_all(choice.place, None, [0] * len(found), names, found.__getitem__)
        source = source.limited(choice.limit, seed)

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
    if not images:
        raise InputError(f"images={str(choice.place)!r} has no readable image: {skipped[0]}")
    return DomainImages(torch.stack(images), labels if labelled else None, source, skipped)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and path.is_file()
