"""The images that a repair reads: photographs, pans over them, or the frames of a video."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from dealias.data import Source, Video, open_source
from dealias.data.pictures import EXTENSIONS
from dealias.errors import InputError, as_int
from dealias.files import digest
from dealias.models import Preprocessing
from dealias.optional import require
from dealias.perturb.pans import slide

VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm")
"""Ends of the names of files that are read as videos."""
STEP = 1.25
"""Pixels that the window of a pan moves down and to the right in each frame: all quarters of a pixel come."""
STRETCHES = 10
"""Parts of a video that are held out as a whole, because neighbouring frames look alike."""


@dataclass(frozen=True)
class ImageChoice:
    """A choice of images, and of their size.

    Attributes:
        place: a place that `dealias.data.open_source` takes; a folder of images without classes, subfolders included;
            or a video. A folder with an image beside its subfolders has no classes.
        limit: use at most this many images, drawn by the seed.
        image_size, crop_size: sizes that replace those of `dealias.models.preprocessing_for`.
        pan: frames of a pan over each image, by 1.25 pixels a frame; 1 for the image alone.
    """

    place: str | PathLike[str]
    limit: int | None = None
    image_size: int | None = None
    crop_size: int | None = None
    pan: int = 1

    @property
    def is_video(self) -> bool:
        """Whether the place is a video, by its name."""
        return Path(self.place).suffix.lower() in VIDEOS


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Images in memory.

    Attributes:
        place: the folder or file.
        pixels: uint8 (N, channels, size, size), in the size in which windows slide: 0.2 MB each at 256 pixels.
        scenes: the number of the scene of each image: frames of a pan, or of a tenth of a video, have the same.
        skipped: the files or frames that cannot be read, with the reasons.
        fingerprint: of the names of the images, or of the content of a video.
        source: where the images come from, if they have classes.
    """

    place: str
    pixels: Tensor
    scenes: list[int]
    skipped: list[str]
    fingerprint: str
    source: Source | None = None


def read_images(choice: ImageChoice, preprocessing: Preprocessing, seed: int = 0) -> TrainingImages:
    """Read the chosen images, drawn by `seed`, into memory.

    Raises:
        InputError: none can be read; or `pan` is below 1, or above 1 for a video.
        MissingExtraError: a package is not installed.
    """
    if choice.pan < 1 or (choice.pan > 1 and choice.is_video):
        raise InputError(f"pan={choice.pan} must be 1 for a video, and at least 1 for images")
    if choice.limit is not None:
        as_int("limit", choice.limit)
    if choice.is_video:
        return read_frames(Video(choice.place), preprocessing, choice.limit, seed)
    source, labelled = open_images(choice, seed)
    images = read_source(source, preprocessing, choice.pan)
    return replace(images, source=source) if labelled else images


def open_images(choice: ImageChoice, seed: int = 0) -> tuple[Source, bool]:
    """The chosen images, drawn by `seed`, and whether they have classes."""
    path = Path(choice.place)
    if not (path.is_dir() and any(_is_image(entry) for entry in path.iterdir())):
        return open_source(choice.place, limit=choice.limit, seed=seed), True
    found = sorted(entry for entry in path.rglob("*") if _is_image(entry))
    names = [str(entry.relative_to(path)) for entry in found]
    source = Source.of_all(choice.place, None, [0] * len(found), names, found.__getitem__)
    return source.limited(choice.limit, seed), False


def read_source(source: Source, preprocessing: Preprocessing, pan: int = 1) -> TrainingImages:
    """Read the images of a source, or frames of pans over them; their scenes are their numbers in the source.

    Raises:
        InputError: none can be read.
    """

    def read(number: int) -> Tensor | str:
        try:
            return torch.stack(_frames(source.read(number), preprocessing, pan))
        except InputError as error:
            return f"{source.names[number]}: {error}"

    # Pillow decodes outside of Python's lock; threads that read leave each other's filters of warnings behind
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        found = list(pool.map(read, range(len(source))))
    images = {number: frames for number, frames in enumerate(found) if isinstance(frames, Tensor)}
    skipped = [problem for problem in found if isinstance(problem, str)]
    if not images:
        raise InputError(f"images={source.place!r} has no readable image: {skipped[0]}")
    scenes = [number for number in images for _ in range(pan)]
    pixels = torch.cat([*images.values()])
    return TrainingImages(source.place, pixels, scenes, skipped, source.fingerprint())


def _frames(picture: Any, preprocessing: Preprocessing, count: int) -> list[Tensor]:
    """The frames of a pan over a Pillow picture; the picture as it is if there is one."""
    size = preprocessing.shift_size
    photo = torch.from_numpy(preprocessing.square(picture, size + math.ceil((count - 1) * STEP)))
    return [*slide(photo, (size, size), frames=count, step=(STEP, STEP))]


def read_frames(video: Video, preprocessing: Preprocessing, limit: int | None = None, seed: int = 0) -> TrainingImages:
    """Read the frames of a video's range, at most `limit` of them, drawn by `seed`.

    Raises:
        InputError: none can be read.
    """
    found = list(_chosen_frames(video, limit, preprocessing, seed))
    count = len(found)
    return TrainingImages(
        str(video.path),
        torch.stack(found),
        [STRETCHES * number // count for number in range(count)],
        [f"frame {number}: {problem}" for number, problem in video.skipped],
        digest(video.path),
    )


def _chosen_frames(video: Video, limit: int | None, preprocessing: Preprocessing, seed: int) -> Iterator[Tensor]:
    """At most `limit` frames; from all of the range where the video announces its length, else its first ones."""
    chosen, length = None, video.length
    if limit is not None and length is not None and limit < length:
        chosen = set(Random(seed).sample(range(video.start, video.start + length), limit))
    taken = 0
    for frame in video:
        if limit is not None and taken == limit:
            break
        if chosen is None or frame.number in chosen:
            picture = require("PIL.Image").fromarray(frame.pixels)
            yield torch.from_numpy(preprocessing.square(picture, preprocessing.shift_size))
            taken += 1


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and path.is_file()
