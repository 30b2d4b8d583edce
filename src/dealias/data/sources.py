"""Labelled images by number, from class folders, WebDataset shards or Hugging Face datasets."""

from __future__ import annotations

import glob
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from random import Random
from typing import Any, BinaryIO, TypeAlias

from dealias.data.hugging_face import open_stored
from dealias.data.pictures import EXTENSIONS, read_picture
from dealias.errors import InputError, as_int, printable

Opener: TypeAlias = Callable[[int], Path | BinaryIO]


@dataclass(frozen=True)
class Source:
    """Labelled images by number.

    Attributes:
        place: the folder, file or pattern.
        classes: names of the classes, by number; None where only the numbers are known.
        labels: the class of each image.
        names: the name of each image in reports.
        positions: the number of each image among all images of the place, whatever the `limit`.
        opener: returns the file of the image at a position.
    """

    place: str
    classes: list[str] | None
    labels: list[int]
    names: list[str]
    positions: list[int]
    opener: Opener

    @classmethod
    def of_all(
        cls, place: object, classes: list[str] | None, labels: list[int], names: list[str], opener: Opener
    ) -> Source:
        """All images of a place, numbered in their order."""
        shown_classes = None if classes is None else list(map(printable, classes))
        names = list(map(printable, names))  # file names may have bytes that are not Unicode
        return cls(str(place), shown_classes, labels, names, list(range(len(names))), opener)

    def __len__(self) -> int:
        """Number of images, unreadable ones included."""
        return len(self.labels)

    def read(self, number: int) -> Any:
        """The image as a Pillow picture, RGB.

        Raises:
            InputError: it is not a complete image.
        """
        return read_picture(self.opener(self.positions[number]))

    def check_exists(self) -> None:
        """Check that the images were not removed.

        Raises:
            InputError: they were.
        """
        if not os.path.exists(self.place) and not glob.glob(self.place):
            raise InputError(f"images={self.place!r} was removed while it was read")

    def limited(self, limit: int | None, seed: int) -> Source:
        """At most `limit` images, drawn by `seed`, in their order."""
        if limit is None or as_int("limit", limit) >= len(self):
            return self
        return self.subset(sorted(Random(seed).sample(range(len(self)), limit)))

    def subset(self, numbers: Sequence[int]) -> Source:
        """The images of these numbers."""
        return replace(
            self,
            labels=[self.labels[number] for number in numbers],
            names=[self.names[number] for number in numbers],
            positions=[self.positions[number] for number in numbers],
        )

    def fingerprint(self) -> str:
        """A digest of the names and classes: two runs with the same digest had the same images."""
        digest = hashlib.sha256()
        for name, label, position in zip(self.names, self.labels, self.positions, strict=True):
            digest.update(f"{position}\0{label}\0{name}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]


def open_source(place: str | PathLike[str], *, limit: int | None = None, seed: int = 0) -> Source:
    """The labelled images at `place`.

    Args:
        place: a folder with a subfolder of images for each class (`torchvision.datasets.ImageFolder`); WebDataset
            shards: a .tar file, a folder of them or a pattern such as "val-*.tar", with an image and a ".cls" for each
            key; or a folder that `datasets.Dataset.save_to_disk` wrote, with an image and a class column.
        limit: use at most this many images, drawn by `seed`, in their order.
        seed: of the draw.

    Raises:
        InputError: `place` is none of these or has no images, or `limit` is below 1.
        MissingExtraError: a package is not installed.
    """
    if not str(place).strip():
        raise InputError(f"images={str(place)!r} is empty: name a folder, shards or a data set")
    as_int("seed", seed, 0)
    if limit is not None:
        as_int("limit", limit)  # before the images are listed
    path = Path(place)
    try:
        if shards := _shards(path):
            source = _open_shards(place, shards)
        elif any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
            columns, labels = open_stored(place)
            names = [f"row {row}" for row in range(len(labels))]
            source = Source.of_all(place, columns.classes, labels, names, columns.file_at)
        else:
            source = _open_folder(place)
    except OSError as error:
        raise InputError(f"images={str(place)!r} cannot be read: {error.strerror or error}") from None
    return source.limited(limit, seed)


def _shards(path: Path) -> list[str]:
    """The files of a pattern, the .tar files of a folder without class folders, or the file itself."""
    if glob.has_magic(str(path)) and not path.exists():
        if matches := sorted(glob.glob(str(path))):
            return matches
        raise InputError(f"images={str(path)!r} matches no file")
    if path.is_dir() and not class_folders(path):
        return [str(entry) for entry in sorted(path.iterdir()) if entry.suffix == ".tar"]
    return [str(path)] if path.is_file() else []


@dataclass(frozen=True)
class _Member:
    shard: str
    start: int
    size: int


def _open_member(members: Sequence[_Member], number: int) -> BinaryIO:
    member = members[number]
    with open(member.shard, "rb") as file:
        file.seek(member.start)
        return io.BytesIO(file.read(member.size))


def _open_shards(place: str | PathLike[str], shards: Sequence[str]) -> Source:
    """Index the images of all shards: no stream, so that limits and workers do not change which images are read."""
    members, labels, names = [], [], []
    for shard in shards:
        for key, files in _samples(shard).items():
            image = next((files[extension] for extension in files if f".{extension}" in EXTENSIONS), None)
            if image is None:
                continue
            if "cls" not in files:
                raise InputError(f"images={str(place)!r}: {shard} has an image {key}, but no {key}.cls beside it")
            text = _open_member([files["cls"]], 0).read()
            if not text.strip().isdigit():
                raise InputError(
                    f"images={str(place)!r}: {shard} has {text[:20]!r} in {key}.cls: expected the number of a class"
                )
            members.append(image)
            labels.append(int(text))
            names.append(f"{Path(shard).name}/{key}")
    if not members:
        raise InputError(
            f"images={str(place)!r} has nothing to read: its shards have no images with a class, KEY.jpg and KEY.cls"
        )
    return Source.of_all(place, None, labels, names, partial(_open_member, members))


def _samples(shard: str) -> dict[str, dict[str, _Member]]:
    """The files of each sample by extension. The key of a sample is the path up to the first dot of the name."""
    samples: dict[str, dict[str, _Member]] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                if entry.isfile():
                    folder, slash, name = entry.name.rpartition("/")
                    stem, _, extension = name.partition(".")
                    files = samples.setdefault(f"{folder}{slash}{stem}", {})
                    files[extension.lower()] = _Member(shard, entry.offset_data, entry.size)
    except tarfile.TarError as error:
        raise InputError(f"{shard!r} is not an uncompressed tar file: {error}") from None
    return samples


def class_folders(root: Path) -> list[str]:
    """The names of the subfolders of a folder, in order, without hidden ones."""
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _open_folder(place: str | PathLike[str]) -> Source:
    root = Path(place)
    if not root.is_dir():
        raise InputError(f"images={str(root)!r} is not a folder: give one with a subfolder of images for each class")
    classes = class_folders(root)
    paths, labels = [], []
    for label, chosen in enumerate(classes):
        for folder, _, names in sorted(os.walk(root / chosen, followlinks=True)):
            files = [Path(folder, name) for name in sorted(names) if name.lower().endswith(EXTENSIONS)]
            paths += files
            labels += [label] * len(files)
    if not paths:
        reason = "its class subfolders have no images" if classes else "it has no class subfolders"
        raise InputError(
            f"images={str(root)!r} has nothing to read: {reason}; expected FOLDER/CLASS/IMAGE{', '.join(EXTENSIONS)}"
        )
    return Source.of_all(place, classes, labels, [str(path.relative_to(root)) for path in paths], paths.__getitem__)
