"""The data of a training: the images to train on and the images to measure, from a place by name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from dealias.data import Source, digits_split, open_source
from dealias.data.sources import class_folders
from dealias.errors import InputError
from dealias.models import Preprocessing, preprocessing_for
from dealias.training.augment import Augment
from dealias.training.batches import Arrays, Batches, Images, TrainingImages
from dealias.training.config import Config
from dealias.training.processes import ProcessPart
from dealias.training.streams import StreamImages, is_stream, open_stream
from dealias.training.validation import Validation, views_for

HELD_OUT = 0.1
VALIDATION_FOLDERS = ("val", "validation", "test")


@dataclass(frozen=True)
class TrainingData:
    """The images of a run: to train on, to measure on, their number of classes, and all of it in words."""

    batches: Batches
    validation: Validation
    preprocessing: Preprocessing
    classes: int
    description: str


def open_data(config: Config, part: ProcessPart) -> TrainingData:
    """The images of a run, for one of its processes.

    Raises:
        InputError: there are no such images, the validation images have other classes, or a batch is
            smaller than the number of its parts.
    """
    settings, preprocessing = config.settings, _preprocessing(config)
    dataset: StreamImages | TrainingImages
    validation: Images
    if is_stream(config.data):
        dataset, validation, count, classes, description = open_stream(config, preprocessing, part)
    else:
        images, validation, description = _digits(config) if config.data == "digits" else _open_sources(config)
        dataset = TrainingImages(images, Augment(settings, preprocessing), config.seed)
        count, classes = len(images.labels), max(*images.labels, *validation.labels) + 1
    batches = Batches(dataset, count, settings.batch_size, config.seed, part)
    if batches.smallest < settings.accumulation:
        raise InputError(
            f"batch_size={settings.batch_size} with {count} images leaves a batch of fewer than one image for each of "
            f"{part.processes} processes x accumulation={settings.accumulation}"
        )
    if settings.num_classes is not None and settings.num_classes < classes:
        raise InputError(f"num_classes={settings.num_classes} is too small: the images have {classes} classes")
    views = views_for(preprocessing, settings.consistency_pairs, config.seed)
    per_process = max(settings.batch_size // part.processes // settings.accumulation, 1)
    measured = Validation(validation, preprocessing, views, per_process, part)
    return TrainingData(batches, measured, preprocessing, classes, description)


def _preprocessing(config: Config) -> Preprocessing:
    if config.data == "digits":
        return Preprocessing(32, 32, 32, 1, "bilinear", (0.0,), (1.0,))
    settings = config.settings
    return preprocessing_for(
        config.model, in_chans=settings.in_chans, image_size=settings.image_size, crop_size=settings.crop_size
    )


def _digits(config: Config) -> tuple[Images, Images, str]:
    train, held_out = digits_split(seed=0)  # the same split for every run: no run measures what another was trained on
    count = len(train.labels)
    limit = count if config.limit is None else min(config.limit, count)
    chosen = sorted(Random(config.seed).sample(range(count), limit))
    description = f"{len(chosen):,} digits of MNIST, {len(held_out.labels):,} held out"
    return Arrays(train.images[chosen], train.labels[chosen]), Arrays(*held_out), description


def _open_sources(config: Config) -> tuple[Images, Images, str]:
    """The images to train on, the images to measure, and both in words."""
    if config.data is None:
        raise InputError("data=None: name class folders, WebDataset shards or a Hugging Face dataset")
    train_place, validation_place = config.data, config.val_data
    inside = class_folders(Path(train_place)) if os.path.isdir(train_place) else []
    found = [name for name in VALIDATION_FOLDERS if name in inside]
    if "train" in inside and (found or inside == ["train"]):  # else "train" is a class
        train_place = os.path.join(config.data, "train")
        if validation_place is None and found:
            validation_place = os.path.join(config.data, found[0])
    train = _open_source("data", train_place)
    if validation_place is not None:
        validation = _open_source("val_data", validation_place)
        if train.classes is not None and validation.classes is not None and train.classes != validation.classes:
            odd = sorted({*train.classes} ^ {*validation.classes})
            raise InputError(f"val_data={validation_place!r} has other classes than data={train_place!r}: {odd[:5]}")
        measured = validation_place
    else:
        count = max(round(HELD_OUT * len(train)), 1)
        order = np.random.default_rng(config.seed).permutation(len(train)).tolist()
        validation, train = (train.subset(sorted(numbers)) for numbers in (order[:count], order[count:]))
        measured = f"held out of {Path(train_place).name}"
        if not len(train):
            raise InputError(f"data={train_place!r} has a single image: give more")
    train = train.limited(config.limit, config.seed)
    description = f"{len(train):,} images of {train_place}; validation: {len(validation):,} images, {measured}"
    return train, validation, description


def _open_source(argument: str, place: str) -> Source:
    """`open_source`, with errors that name our `argument` instead of its own."""
    try:
        return open_source(place)
    except InputError as error:
        raise InputError(str(error).replace("images=", f"{argument}=", 1)) from None
