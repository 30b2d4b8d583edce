"""What a training reads: from which place, which part of it to train on, and which to measure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from dealias.data import Source, digits_split, open_source
from dealias.errors import InputError
from dealias.metrics.views import Mode, ShiftedViews
from dealias.models import Preprocessing, preprocessing_for
from dealias.training.images import (
    Arrays,
    Augment,
    Batches,
    Images,
    Share,
    TrainingImages,
    validation_loader,
    views_for,
)
from dealias.training.streams import StreamImages, is_stream, open_stream

if TYPE_CHECKING:
    from dealias.training.train import Config

HELD_OUT = 0.1
VALIDATION_FOLDERS = ("val", "validation", "test")


@dataclass(frozen=True)
class TrainingData:
    """What a training reads.

    Attributes:
        batches: to train on.
        validation: gives the batches to measure, each time it is called.
        views: the shifts compared in them.
        preprocessing: of the images.
        classes: their number.
        description: for people.
    """

    batches: Batches
    validation: Callable[[], Iterator[tuple[Tensor, dict[Mode, Tensor], Tensor]]]
    views: dict[Mode, ShiftedViews]
    preprocessing: Preprocessing
    classes: int
    description: str


def open_data(config: Config, share: Share) -> TrainingData:
    """The images of a run, for one of its processes.

    Raises:
        InputError: there are no such images, the parts have different classes, or a batch is smaller than the number of
            its parts.
    """
    settings, preprocessing = config.settings, _preprocessing(config)
    if is_stream(config.data):
        stream = open_stream(config, preprocessing, share)
        dataset: StreamImages | TrainingImages = stream.training
        validation: Images = stream.validation
        count, classes, description = stream.count, stream.classes, stream.description
    else:
        if config.data == "digits":
            images, validation, description = _digits(config)
            preprocessing = Preprocessing(32, 32, 32, 1, "bilinear", (0.0,), (1.0,))
        else:
            images, validation, description = _open_sources(config)
        dataset = TrainingImages(images, Augment(settings, preprocessing), config.seed)
        count, classes = len(images.labels), max(*images.labels, *validation.labels) + 1
    batches = Batches(dataset, count, settings.batch_size, config.seed, share)
    if batches.smallest < settings.accumulation:
        raise InputError(
            f"batch_size={settings.batch_size} with {count} images leaves a batch of fewer than one image for each of "
            f"{share.processes} processes x accumulation={settings.accumulation}"
        )
    if settings.num_classes is not None and settings.num_classes < classes:
        raise InputError(f"num_classes={settings.num_classes} is too small: the images have {classes} classes")
    views = views_for(preprocessing, settings.consistency_pairs, config.seed)
    per_process = max(settings.batch_size // share.processes // settings.accumulation, 1)
    loader = validation_loader(validation, preprocessing, views, per_process, share)
    return TrainingData(batches, loader, views, preprocessing, classes, description)


def _preprocessing(config: Config) -> Preprocessing:
    settings = config.settings
    return preprocessing_for(
        config.model, in_chans=settings.in_chans, image_size=settings.image_size, crop_size=settings.crop_size
    )


def _digits(config: Config) -> tuple[Images, Images, str]:
    """The digits to train on, those to measure, and both in words."""
    train, held_out = digits_split(seed=0)  # the same for every run, so that no run measures what another has seen
    chosen = _limited(len(train.labels), config.limit, config.seed)
    description = f"{len(chosen):,} digits of MNIST, {len(held_out.labels):,} held out"
    return Arrays(train.images[chosen], train.labels[chosen]), Arrays(*held_out), description


def _open_sources(config: Config) -> tuple[Images, Images, str]:
    """The images to train on, those to measure, and both in words."""
    if config.data is None:
        raise InputError("data=None: name class folders, WebDataset shards or a Hugging Face dataset")
    train_place, validation_place = config.data, config.val_data
    entries = list(os.scandir(train_place)) if os.path.isdir(train_place) else []
    inside = {entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
    found = [name for name in VALIDATION_FOLDERS if name in inside]
    if "train" in inside and (found or inside == {"train"}):  # else it is a class of that name
        train_place = os.path.join(config.data, "train")
        if validation_place is None and found:
            validation_place = os.path.join(config.data, found[0])
    train = _open_source("data", train_place)
    if validation_place is not None:
        validation = _open_source("val_data", validation_place)
        if train.classes is not None and validation.classes is not None and train.classes != validation.classes:
            odd = sorted({*train.classes} ^ {*validation.classes})
            raise InputError(f"val_data={validation_place!r} has other classes than data={train_place!r}: {odd[:5]}")
        what = validation_place
    else:
        count = max(round(HELD_OUT * len(train)), 1)
        order = np.random.default_rng(config.seed).permutation(len(train)).tolist()
        validation, train = (train.subset(sorted(part)) for part in (order[:count], order[count:]))
        what = f"held out of {Path(train_place).name}"
        if not len(train):
            raise InputError(f"data={train_place!r} has a single image: give more")
    train = train.limited(config.limit, config.seed)
    return train, validation, f"{len(train):,} images of {train_place}; validation: {len(validation):,} images, {what}"


def _open_source(argument: str, place: str) -> Source:
    """`open_source`, whose errors name its own argument, with this one's name in place of that."""
    try:
        return open_source(place)
    except InputError as error:
        raise InputError(str(error).replace("images=", f"{argument}=", 1)) from None


def _limited(count: int, limit: int | None, seed: int) -> list[int]:
    if limit is None or limit >= count:
        return list(range(count))
    return sorted(Random(seed).sample(range(count), limit))
