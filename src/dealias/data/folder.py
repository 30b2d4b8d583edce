"""A folder of images with a subfolder for each class, as `torchvision.datasets.ImageFolder` reads it.

>>> import tempfile
>>> from pathlib import Path
>>> from PIL import Image
>>> root = Path(tempfile.mkdtemp())
>>> (root / "cat").mkdir()
>>> Image.new("RGB", (300, 260)).save(root / "cat" / "0.png")
>>> loaded = load_images(root, size=256)
>>> loaded.images.shape, loaded.targets.tolist(), loaded.classes
(torch.Size([1, 3, 256, 256]), [0], ['cat'])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from dealias.data.pictures import read_image
from dealias.data.sources import find_images
from dealias.errors import InputError
from dealias.models import IMAGENET_MEAN, IMAGENET_STD
from dealias.optional import require
from dealias.perturb import resize_and_crop


class Skipped(NamedTuple):
    """A file that is no readable image, and why."""

    path: Path
    reason: str


class LoadedImages(NamedTuple):
    """What `load_images` read.

    Attributes:
        images: float32 (N, channels, size, size) in [0, 1].
        targets: the classes, int64 (N,).
        classes: the names of the classes, by number.
        paths: the files, N of them.
        skipped: the files that could not be read.
    """

    images: Tensor
    targets: Tensor
    classes: list[str]
    paths: list[Path]
    skipped: list[Skipped]


def load_images(
    root: str | PathLike[str],
    size: int = 256,
    *,
    channels: int = 3,
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LoadedImages:
    """Read a folder at once, pixels in [0, 1]; unreadable files are skipped and named in the result.

    Args:
        root, size, channels, limit, seed: as for `Folder`.
        progress: called after each file with the number of files done and their total.

    Raises:
        InputError: as for `Folder`, or not one of the images can be read.
        MissingExtraError: Pillow is not installed.
    """
    folder = Folder(root, size=size, channels=channels, mean=None, std=None, limit=limit, seed=seed)
    images, targets, paths = [], [], []
    for index, (path, label) in enumerate(zip(folder.paths, folder.labels, strict=True)):
        image = folder.read(path)
        if image is not None:
            images.append(image)
            targets.append(label)
            paths.append(path)
        if progress is not None:
            progress(index + 1, len(folder))
    folder.check_any_read()
    return LoadedImages(torch.stack(images), torch.tensor(targets), folder.classes, paths, folder.skipped)


class Folder:
    """The images below `root`, class by class, decoded as they are asked for.

    Args:
        root: folder with a subfolder for each class, which may have subfolders in turn. Classes are numbered in the
            order of their names, and images come in the order of their paths, as in `torchvision.datasets.ImageFolder`.
        size: the short side is resized to it, up or down (bilinear with anti-aliasing), and the square in the middle
            kept.
        channels: 3 for RGB, 1 for grayscale.
        mean, std: of the normalisation (pixels in [0, 1] - mean) / std, for each channel; ImageNet's by default, None
            for none.
        limit: use at most so many files, drawn from all of them by `seed`, in the same order.
        seed: of the files drawn.

    Attributes:
        classes: names of the subfolders, by number.
        paths: the files, with `labels` the numbers of their classes.
        skipped: the files found unreadable so far, truncated or broken ones: they are left out of the batches.

    Raises:
        InputError: `root` is no folder or cannot be read, it has no class subfolders, or those have no images; or
            another argument is out of range.
        MissingExtraError: Pillow is not installed.
    """

    def __init__(
        self,
        root: str | PathLike[str],
        *,
        size: int = 256,
        channels: int = 3,
        mean: Sequence[float] | None = IMAGENET_MEAN,
        std: Sequence[float] | None = IMAGENET_STD,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        for name, value in (("size", size), ("limit", limit)):
            if value is not None and value < 1:
                raise InputError(f"{name}={value!r} is too small: it must be at least 1")
        if channels not in (1, 3):
            raise InputError(
                f"channels={channels!r} is impossible for a folder of images: use 3 (RGB) or 1 (grayscale)"
            )
        for name, values in (("mean", mean), ("std", std)):
            if values is not None and len(values) != channels:
                raise InputError(f"{name}={values!r} must have channels={channels} numbers, or be None")
        if std is not None and min(std) <= 0:
            raise InputError(f"std={std!r} must be positive")
        require("PIL")
        self.root, self.size, self.channels = Path(root), size, channels
        self._mean = torch.tensor(mean or (0.0,) * channels).view(-1, 1, 1)
        self._std = torch.tensor(std or (1.0,) * channels).view(-1, 1, 1)
        self.skipped: list[Skipped] = []
        try:
            self.classes, found = find_images(self.root)
        except OSError as error:
            raise InputError(f"images={str(root)!r} cannot be read: {error.strerror or error}") from None
        if limit is not None and limit < len(found):
            found = [found[index] for index in sorted(Random(seed).sample(range(len(found)), limit))]
        self.paths = [path for path, _ in found]
        self.labels = [label for _, label in found]

    def __len__(self) -> int:
        """Number of files, unreadable ones included."""
        return len(self.paths)

    def batches(self, batch_size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
        """Images float32 (N, channels, size, size) and their classes int64 (N,), in order; the last N may be smaller.

        Unreadable files are left out and listed in `skipped`.

        Raises:
            InputError: not one of the images can be read, or `batch_size` is below 1.
        """
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size!r} is too small: it must be at least 1")
        self.skipped = []
        images: list[Tensor] = []
        labels: list[int] = []
        for path, label in zip(self.paths, self.labels, strict=True):
            image = self.read(path)
            if image is None:
                continue
            images.append(image)
            labels.append(label)
            if len(images) == batch_size:
                yield torch.stack(images), torch.tensor(labels)
                images, labels = [], []
        if images:
            yield torch.stack(images), torch.tensor(labels)
        self.check_any_read()

    def read(self, path: Path) -> Tensor | None:
        """The normalised image of one file; None, and an entry in `skipped`, where it cannot be read."""
        try:
            image = read_image(path, channels=self.channels)
        except InputError as error:
            self.skipped.append(Skipped(path, str(error)))
            return None
        return (resize_and_crop(image, self.size).clamp(0, 1) - self._mean) / self._std

    def check_any_read(self) -> None:
        """Raise `InputError` if every file was skipped."""
        if len(self.skipped) == len(self.paths):
            first = self.skipped[0]
            raise InputError(
                f"images={str(self.root)!r} has no readable image: all {len(self.skipped)} files were skipped, "
                f"the first one {first.path.name}: {first.reason}"
            )
