"""Small sets of pictures on disk, in every form that a training reads, and the images that come out of it."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dealias.training import Config, load_recipe
from dealias.training.data import TrainingData, open_data
from dealias.training.processes import ProcessPart

COUNT, CLASSES = 23, 3
ALONE = ProcessPart(0, 1, 0, pin_memory=False)


def picture(number: int) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(number: int) -> bytes:
    buffer = io.BytesIO()
    picture(number).save(buffer, format="PNG")
    return buffer.getvalue()


def write_folders(root: Path, numbers: range) -> None:
    for number in numbers:
        place = root / f"class{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:03d}.png").write_bytes(encoded(number))


def write_shards(root: Path, numbers: range) -> None:
    root.mkdir(parents=True)
    for shard, part in enumerate(np.array_split(np.array(numbers), 3)):  # of unequal size
        with tarfile.open(root / f"part-{shard}.tar", "w") as archive:
            for number in part.tolist():
                for name, content in (("png", encoded(number)), ("cls", str(number % CLASSES).encode())):
                    entry = tarfile.TarInfo(f"{number:03d}.{name}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))


def write_hugging_face(root: Path, numbers: range) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[f"class{label}" for label in range(CLASSES)])}
    )
    rows = {
        "image": [{"bytes": encoded(number), "path": None} for number in numbers],
        "label": [number % CLASSES for number in numbers],
    }
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(root)


def write_parquet(root: Path, numbers: range) -> None:
    write_hugging_face(root / "whole", numbers)
    datasets = pytest.importorskip("datasets")
    datasets.load_from_disk(root / "whole").to_parquet(root.parent / f"{root.name}-00000.parquet")


def open_place(place: str, part: ProcessPart, limit: int | None = None, **more: Any) -> TrainingData:
    overrides = {"shift_augmentation": False, "flip": 0, "batch_size": 5, **more}
    settings = load_recipe("cifar-vgg", overrides=overrides)
    return open_data(Config("dealias:vgg13_bn_cifar", settings, data=place, seed=2, limit=limit), part)


def digests(data: TrainingData, epoch: int, start: int = 0) -> list[tuple[str, int]]:
    return [
        (hashlib.sha256((255 * image).round().byte().numpy().tobytes()).hexdigest(), int(label))
        for images, labels, _ in data.batches.of(epoch, start)
        for image, label in zip(images, labels, strict=True)
    ]


def measured_digests(data: TrainingData) -> list[tuple[str, int]]:
    return [
        (hashlib.sha256((255 * image).round().byte().numpy().tobytes()).hexdigest(), int(label))
        for images, _, labels in data.validation.batches
        for image, label in zip(images, labels, strict=True)
    ]


def expected(numbers: range) -> Counter[tuple[str, int]]:
    pixels = {number: np.ascontiguousarray(np.array(picture(number)).transpose(2, 0, 1)) for number in numbers}
    return Counter((hashlib.sha256(each.tobytes()).hexdigest(), number % CLASSES) for number, each in pixels.items())


def check_each_image_once(opened: list[TrainingData]) -> None:
    """Three processes train on the images 0 to 22, each once in an epoch, and measure the images 100 to 106."""
    assert {data.classes for data in opened} == {CLASSES}
    for epoch in (0, 1):
        found = [digests(data, epoch) for data in opened]
        assert Counter(chain.from_iterable(found)) == expected(range(COUNT))
        assert all(abs(len(part) - COUNT / 3) <= opened[0].batches.steps for part in found)
    for data in opened:  # goes on in the middle of an epoch
        rest, whole = digests(data, 1, start=2), digests(data, 1)
        assert rest == whole[-len(rest) :]
        assert len(whole) - len(rest) in (2, 3, 4)  # two steps of a third of 5 images
    assert Counter(chain.from_iterable(map(measured_digests, opened))) == expected(range(100, 107))
