"""Class folders, WebDataset shards and Hugging Face datasets on disk: the same images, each once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.image_places import (
    ALONE,
    CLASSES,
    COUNT,
    check_each_image_once,
    digests,
    measured_digests,
    open_place,
    write_folders,
    write_hugging_face,
    write_shards,
)

from dealias.errors import InputError
from dealias.training import Config, load_recipe
from dealias.training.data import open_data
from dealias.training.processes import ProcessPart

WRITERS = {"folders": write_folders, "shards": write_shards, "hugging face": write_hugging_face}


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where the machine has a single core
@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("workers", [0, 2])
def test_each_image_once_over_three_processes(tmp_path: Path, kind: str, workers: int) -> None:
    WRITERS[kind](tmp_path / "data" / "train", range(COUNT))
    WRITERS[kind](tmp_path / "data" / "val", range(100, 107))
    place = str(tmp_path / "data")
    check_each_image_once([open_place(place, ProcessPart(rank, 3, workers, pin_memory=False)) for rank in range(3)])


def test_a_tenth_is_held_out_without_validation_images(tmp_path: Path) -> None:
    write_folders(tmp_path / "data", range(COUNT))
    data = open_place(str(tmp_path / "data"), ALONE)
    trained, measured = digests(data, 0), measured_digests(data)
    assert (len(trained), len(measured)) == (21, 2)
    assert "validation: 2 images, held out of data" in data.description


def test_images_to_train_on_alone_are_in_their_classes(tmp_path: Path) -> None:
    write_folders(tmp_path / "data" / "train", range(COUNT))
    (tmp_path / "data" / ".cache").mkdir()
    data = open_place(str(tmp_path / "data"), ALONE)
    assert (data.classes, len(digests(data, 0))) == (CLASSES, 21)
    write_folders(tmp_path / "elsewhere", range(100, 107))
    settings = load_recipe("cifar-vgg")
    config = Config(
        "dealias:vgg13_bn_cifar", settings, data=str(tmp_path / "data"), val_data=str(tmp_path / "elsewhere")
    )
    assert "23 images of" in open_data(config, ALONE).description
    (tmp_path / "data" / "train").rename(tmp_path / "data" / "class3")
    (tmp_path / "data" / "class3" / "class0").rename(tmp_path / "data" / "train")  # a class of that name
    assert open_place(str(tmp_path / "data"), ALONE).classes == 2


def test_bad_data(tmp_path: Path) -> None:
    write_folders(tmp_path / "data", range(COUNT))
    with pytest.raises(InputError, match="batch_size=5 with 21 images leaves a batch of fewer than one image"):
        open_place(str(tmp_path / "data"), ALONE, accumulation=6)
    with pytest.raises(InputError, match="num_classes=2 is too small: the images have 3 classes"):
        open_place(str(tmp_path / "data"), ALONE, num_classes=2)
    with pytest.raises(InputError, match=r"^data='.*/other' is not a folder"):
        open_place(str(tmp_path / "other"), ALONE)
    write_folders(tmp_path / "odd", range(2))
    settings = load_recipe("cifar-vgg")
    odd = Config("dealias:vgg13_bn_cifar", settings, data=str(tmp_path / "data"), val_data=str(tmp_path / "odd"))
    with pytest.raises(InputError, match=r"has other classes than .*\['class2'\]"):
        open_data(odd, ALONE)
    with pytest.raises(InputError, match=r"^val_data='.*/other' is not a folder"):
        open_data(replace(odd, val_data=str(tmp_path / "other")), ALONE)
    with pytest.raises(InputError, match="data=None: name class folders"):
        open_data(Config("dealias:vgg13_bn_cifar", settings), ALONE)
