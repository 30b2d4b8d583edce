"""Batches: which images each process reads for each step.

The order of an epoch and the random changes of an image depend on the seed, the epoch and the image alone. So a run can
stop and go on at any step, with any number of workers.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from dealias.data import Source
from dealias.errors import InputError
from dealias.runtime import from_workers
from dealias.training.augment import Augment
from dealias.training.processes import ProcessPart

Numbers: TypeAlias = npt.NDArray[np.int64]
Batch: TypeAlias = tuple[Tensor, Tensor, int]
"""A process's images and classes of a step, and the number of images of the step on all processes."""


def seed_all(*key: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators; the same key gives the same numbers."""
    drawn = np.random.SeedSequence(key).generate_state(2, np.uint32)
    seed = int(drawn[0]) << 32 | int(drawn[1])
    random.seed(seed)
    np.random.seed(drawn)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 300 us where CUDA is not initialised
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)


def epoch_sizes(count: int, batch_size: int) -> list[int]:
    """The sizes of an epoch's batches: as few as possible, differing by one at most."""
    steps = -(-count // batch_size)
    return [count // steps + (step < count % steps) for step in range(steps)]


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Numbers]:
    """The numbers of the images of every step: each image once."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return np.split(order, np.cumsum(epoch_sizes(count, batch_size))[:-1])


class Images(Protocol):
    """Labelled images by number, as Pillow pictures or as float tensors (C, H, W)."""

    @property
    def labels(self) -> Sequence[int]:
        """The class of each image."""

    def read(self, number: int) -> Any:
        """One image; `InputError` if it cannot be read."""


class Arrays:
    """Images in memory, float (N, C, H, W) as the network takes them."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.targets = images, labels
        self.labels: list[int] = labels.tolist()

    def read(self, number: int) -> Tensor:
        """One image."""
        return self.images[number]


class TrainingImages(Dataset[Batch]):
    """Reads whole batches: the key of an item is (epoch, numbers, total), see `Batch`."""

    def __init__(self, images: Images, augment: Augment, seed: int) -> None:
        self._images, self._augment, self._seed = images, augment, seed

    def __getitem__(self, batch: tuple[int, Numbers, int]) -> Batch:
        """Images and classes of those numbers, without the unreadable ones, and the number of images of the step."""
        epoch, numbers, total = batch
        if isinstance(self._images, Arrays) and not self._augment.changes_tensors:
            chosen = torch.from_numpy(numbers)
            return self._images.images[chosen], self._images.targets[chosen], total
        read = []
        for number in numbers.tolist():
            seed_all(self._seed, epoch, number)
            image = readable(self._images, number)
            if image is not None:
                read.append((self._augment(image), self._images.labels[number]))
        return stacked(read, total)


def readable(images: Images, number: int) -> Any | None:
    """The image, or None and a warning where it cannot be read."""
    try:
        return images.read(number)
    except InputError as error:
        name = images.names[number] if isinstance(images, Source) else f"image {number}"
        warnings.warn(f"{name} is left out: {error}", stacklevel=2)
        return None


def stacked(read: Sequence[tuple[Tensor, int]], total: int) -> Batch:
    """Images and classes as a batch."""
    if not read:
        raise InputError("not one image of a batch can be read")
    return torch.stack([image for image, _ in read]), torch.tensor([label for _, label in read]), total


class EpochOrder:
    """Gives a loader the keys of an epoch's batches. A loader's workers live on, so epoch and start are set on it."""

    def __init__(self, count: int, batch_size: int, seed: int, part: ProcessPart) -> None:
        self._count, self._batch_size, self._seed, self._part = count, batch_size, seed, part
        self.epoch = self.start = 0

    def __iter__(self) -> Iterator[tuple[int, Numbers, int]]:
        for numbers in epoch_batches(self._count, self._batch_size, self._seed, self.epoch)[self.start :]:
            yield self.epoch, self._part.of(numbers), len(numbers)


class Batches:
    """The batches of a training, epoch by epoch, for one of its processes.

    On all processes together, an epoch has `count` images, and a step `batch_size` images at most.

    Attributes:
        steps: batches of an epoch.
        smallest: images in the smallest batch of a process.
    """

    def __init__(self, dataset: Dataset[Any], count: int, batch_size: int, seed: int, part: ProcessPart) -> None:
        sizes = epoch_sizes(count, batch_size)
        self.steps, self.smallest = len(sizes), min(sizes) // part.processes
        if isinstance(dataset, IterableDataset):
            # a stream keeps its own order; Hugging Face's streams divide their files among workers
            self._position: Any = dataset
            self._loader = make_loader(dataset, None, replace(part, workers=min(part.workers, 1)))
        else:
            self._position = EpochOrder(count, batch_size, seed, part)
            self._loader = make_loader(dataset, self._position, part)

    def of(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from a step on."""
        self._position.epoch, self._position.start = epoch, start
        yield from from_workers(self._loader)


def make_loader(dataset: Dataset[Any], sampler: Any, part: ProcessPart) -> DataLoader[Any]:
    """A loader of whole batches; its own random draws leave the global generator alone."""
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=part.workers,
        persistent_workers=part.workers > 0 and sampler is not None,
        pin_memory=part.pin_memory,
        generator=torch.Generator(),
    )
