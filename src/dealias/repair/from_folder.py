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
        task=options.task,
    )
    preprocessing = network.preprocessing
    on_progress("reading images", 0.0)
    source, labelled = open_images(choice, options.seed)
    images, numbers, skipped = read_images(source, preprocessing)
    classes = match_classes(source, network.classes) if labelled else None
    targets = None if classes is None else torch.tensor([classes[source.labels[number]] for number in numbers])
    return repair(
        network.model,
        images,
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
            "images": {"place": str(choice.place), "fingerprint": source.fingerprint(), "skipped": skipped},
        },
        **options.model_dump(),
    )


def open_images(choice: ImageChoice, seed: int = 0) -> tuple[Source, bool]:
    """The chosen images, drawn by `seed`, and whether they have classes."""
    path = Path(choice.place)
    if not (path.is_dir() and any(_is_image(entry) for entry in path.iterdir())):
        return open_source(choice.place, limit=choice.limit, seed=seed), True
    found = sorted(entry for entry in path.rglob("*") if _is_image(entry))
    names = [str(entry.relative_to(path)) for entry in found]
    source = Source.of_all(choice.place, None, [0] * len(found), names, found.__getitem__)
    return source.limited(choice.limit, seed), False


def read_images(source: Source, preprocessing: Preprocessing) -> tuple[Tensor, list[int], list[str]]:
    """Read all images into memory, at the size in which windows slide (about 0.2 MB each at 256 pixels).

    Returns:
        The images, uint8 (N, channels, size, size); their numbers in `source`; the names of the files that could not be
        read, with the reasons.

    Raises:
        InputError: none can be read.
    """

    def read(number: int) -> Tensor | str:
        try:
            return torch.from_numpy(preprocessing.square(source.read(number), preprocessing.shift_size))
        except InputError as error:
            return f"{source.names[number]}: {error}"

    with ThreadPoolExecutor() as pool:  # Pillow decodes outside of Python's lock
        found = list(pool.map(read, range(len(source))))
    images = {number: image for number, image in enumerate(found) if isinstance(image, Tensor)}
    skipped = [problem for problem in found if isinstance(problem, str)]
    if not images:
        raise InputError(f"images={source.place!r} has no readable image: {skipped[0]}")
    return torch.stack([*images.values()]), [*images], skipped


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and path.is_file()
