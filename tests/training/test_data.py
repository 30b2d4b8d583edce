"""Class folders, WebDataset shards, Hugging Face datasets on disk and as streams: the same images, each once."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dealias.errors import InputError
from dealias.training import Config, load_recipe
from dealias.training.data import TrainingData, open_data
from dealias.training.images import Share

COUNT, CLASSES = 23, 3


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


WRITERS = {
    "folders": write_folders,
    "shards": write_shards,
    "hugging face": write_hugging_face,
    "stream": write_parquet,
}


def open_place(place: str, share: Share, limit: int | None = None, **more: Any) -> TrainingData:
    overrides = {"shift_augmentation": False, "flip": 0, "batch_size": 5, **more}
    settings = load_recipe("cifar-vgg", overrides=overrides)
    return open_data(Config("dealias:vgg13_bn_cifar", settings, data=place, seed=2, limit=limit), share)


def digests(data: TrainingData, epoch: int, start: int = 0) -> list[tuple[str, int]]:
    return [
        (hashlib.sha256((255 * image).round().byte().numpy().tobytes()).hexdigest(), int(label))
        for images, labels, _ in data.batches.of(epoch, start)
        for image, label in zip(images, labels, strict=True)
    ]


def expected(numbers: range) -> Counter[tuple[str, int]]:
    pixels = {number: np.ascontiguousarray(np.array(picture(number)).transpose(2, 0, 1)) for number in numbers}
    return Counter((hashlib.sha256(each.tobytes()).hexdigest(), number % CLASSES) for number, each in pixels.items())


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where the machine has a single core
@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("workers", [0, 2])
def test_each_image_once_over_three_processes(tmp_path: Path, kind: str, workers: int) -> None:
    WRITERS[kind](tmp_path / "data" / "train", range(COUNT))
    WRITERS[kind](tmp_path / "data" / "val", range(100, 107))
    place = f"hf:{tmp_path / 'data'}" if kind == "stream" else str(tmp_path / "data")
    limit = COUNT if kind == "stream" else None  # a stream of loose files does not know its length
    opened = [open_place(place, Share(rank, 3, workers, pin_memory=False), limit) for rank in range(3)]
    assert {data.classes for data in opened} == {CLASSES}
    for epoch in (0, 1):
        found = [digests(data, epoch) for data in opened]
        assert Counter(chain.from_iterable(found)) == expected(range(COUNT))
        assert all(abs(len(part) - COUNT / 3) <= opened[0].batches.steps for part in found)
    for data in opened:  # goes on in the middle of an epoch
        rest, whole = digests(data, 1, start=2), digests(data, 1)
        assert rest == whole[-len(rest) :]
        assert len(whole) - len(rest) in (2, 3, 4)  # two steps of a third of 5 images
    measured = Counter(
        (hashlib.sha256((255 * image).round().byte().numpy().tobytes()).hexdigest(), int(label))
        for data in opened
        for images, _, labels in data.validation()
        for image, label in zip(images, labels, strict=True)
    )
    assert measured == expected(range(100, 107))


def test_a_tenth_is_held_out_without_validation_images(tmp_path: Path) -> None:
    write_folders(tmp_path / "data", range(COUNT))
    data = open_place(str(tmp_path / "data"), Share(0, 1, 0, pin_memory=False))
    trained, measured = digests(data, 0), [int(label) for _, _, labels in data.validation() for label in labels]
    assert (len(trained), len(measured)) == (21, 2)
    assert "validation: 2 images, held out of data" in data.description


def test_images_to_train_on_alone_are_in_their_classes(tmp_path: Path) -> None:
    alone = Share(0, 1, 0, pin_memory=False)
    write_folders(tmp_path / "data" / "train", range(COUNT))
    (tmp_path / "data" / ".cache").mkdir()
    data = open_place(str(tmp_path / "data"), alone)
    assert (data.classes, len(digests(data, 0))) == (CLASSES, 21)
    write_folders(tmp_path / "elsewhere", range(100, 107))
    settings = load_recipe("cifar-vgg")
    config = Config(
        "dealias:vgg13_bn_cifar", settings, data=str(tmp_path / "data"), val_data=str(tmp_path / "elsewhere")
    )
    assert "23 images of" in open_data(config, alone).description
    (tmp_path / "data" / "train").rename(tmp_path / "data" / "class3")
    (tmp_path / "data" / "class3" / "class0").rename(tmp_path / "data" / "train")  # a class of that name
    assert open_place(str(tmp_path / "data"), alone).classes == 2


def test_bad_data(tmp_path: Path) -> None:
    alone = Share(0, 1, 0, pin_memory=False)
    write_folders(tmp_path / "data", range(COUNT))
    with pytest.raises(InputError, match="batch_size=5 with 21 images leaves a batch of fewer than one image"):
        open_place(str(tmp_path / "data"), alone, accumulation=6)
    with pytest.raises(InputError, match="num_classes=2 is too small: the images have 3 classes"):
        open_place(str(tmp_path / "data"), alone, num_classes=2)
    with pytest.raises(InputError, match=r"^data='.*/other' is not a folder"):
        open_place(str(tmp_path / "other"), alone)
    write_folders(tmp_path / "odd", range(2))
    settings = load_recipe("cifar-vgg")
    odd = Config("dealias:vgg13_bn_cifar", settings, data=str(tmp_path / "data"), val_data=str(tmp_path / "odd"))
    with pytest.raises(InputError, match=r"has other classes than .*\['class2'\]"):
        open_data(odd, alone)
    with pytest.raises(InputError, match=r"^val_data='.*/other' is not a folder"):
        open_data(replace(odd, val_data=str(tmp_path / "other")), alone)
    with pytest.raises(InputError, match="data=None: name class folders"):
        open_data(Config("dealias:vgg13_bn_cifar", settings), alone)
    with pytest.raises(InputError, match=r"data='hf:.*' cannot be opened"):
        open_place(f"hf:{tmp_path / 'none'}", alone)
