"""The images of a training: which of them every step sees, on every process, whoever reads them and whenever.

The order of an epoch and the random changes of an image depend on the seed, the epoch and the image alone, so that a
run can stop and go on at any step, with any number of workers.

>>> [numbers.tolist() for numbers in epoch_batches(count=5, batch_size=2, seed=0, epoch=0)]
[[2, 4], [3, 0], [1]]
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from dealias.data import Source
from dealias.errors import InputError
from dealias.metrics.views import Mode, ShiftedViews, network_views
from dealias.models import Preprocessing
from dealias.optional import require
from dealias.training.settings import Settings

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
    """The batches of an epoch: as few as can be, and their sizes differ by one at most."""
    steps = -(-count // batch_size)
    return [count // steps + (step < count % steps) for step in range(steps)]


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Numbers]:
    """The numbers of the images of every step: each image once."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return np.split(order, np.cumsum(epoch_sizes(count, batch_size))[:-1])


def share_of(numbers: Any, rank: int, processes: int) -> Any:
    """The part of a batch that one of the processes takes."""
    start, stop = (len(numbers) * place // processes for place in (rank, rank + 1))
    return numbers[start:stop]


class Images(Protocol):
    """Labelled images by number, as Pillow pictures or as float tensors (C, H, W)."""

    @property
    def labels(self) -> Sequence[int]:
        """The class of each."""

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


class Augment:
    """The random changes of an image in training; calls draw from the global generators.

    Args:
        settings: of the training.
        preprocessing: of the network.
    """

    def __init__(self, settings: Settings, preprocessing: Preprocessing) -> None:
        transforms = require("torchvision").transforms
        size = preprocessing.crop_size
        resampling = transforms.InterpolationMode(preprocessing.interpolation)
        self._mode = "RGB" if preprocessing.channels == 3 else "L"
        middle = [transforms.Resize(preprocessing.image_size, resampling), transforms.CenterCrop(size)]
        shift: list[Any] = []
        if settings.shift_augmentation and settings.crop == "padded":
            shift = [transforms.RandomCrop(size, padding=settings.crop_padding)]
        elif settings.shift_augmentation:
            scale = tuple(settings.crop_scale or (0.08, 1.0))
            shift, middle = [transforms.RandomResizedCrop(size, scale=scale, interpolation=resampling)], []
        flip = [transforms.RandomHorizontalFlip(settings.flip)] if settings.flip else []
        policy = [_policy(settings.auto_augment, preprocessing)] if settings.auto_augment else []
        erase = [_random_erasing(settings.random_erasing)] if settings.random_erasing else []
        to_tensor = [transforms.ToTensor(), transforms.Normalize(preprocessing.mean, preprocessing.std)]
        self._of_pictures = transforms.Compose([*middle, *shift, *flip, *policy, *to_tensor, *erase])
        self._of_tensors = [*shift, *flip, *erase]

    @property
    def changes_tensors(self) -> bool:
        """Whether images that are tensors already are changed at all."""
        return bool(self._of_tensors)

    def __call__(self, image: Any) -> Tensor:
        """The image as the network takes it, float (C, H, W)."""
        if not isinstance(image, Tensor):
            changed: Tensor = self._of_pictures(image.convert(self._mode))
            return changed
        changed = image
        for change in self._of_tensors:
            changed = change(changed)
        return changed


def _policy(policy: str, preprocessing: Preprocessing) -> Any:
    timm_augment = require("timm.data.auto_augment")
    if preprocessing.channels != 3:
        raise InputError(f"auto_augment={policy!r} takes images of 3 channels, not {preprocessing.channels}")
    fill = {"img_mean": tuple(round(255 * value) for value in preprocessing.mean)}
    try:
        if policy.startswith("rand-"):
            return timm_augment.rand_augment_transform(policy, fill)
        return timm_augment.auto_augment_transform(policy, fill)
    except (AssertionError, KeyError, ValueError):
        raise InputError(f"auto_augment={policy!r} is no policy of timm, such as rand-m9-mstd0.5") from None


def _random_erasing(probability: float) -> Any:
    return require("timm.data.random_erasing").RandomErasing(probability, device="cpu")


class TrainingImages(Dataset[Batch]):
    """Reads whole batches: an item is asked for by (epoch, numbers, total): see `Batch`."""

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
    """Tells a loader what to read next; a loader's workers outlive an epoch, so it is moved on between two."""

    def __init__(self, count: int, batch_size: int, seed: int, rank: int, processes: int) -> None:
        self._count, self._batch_size, self._seed = count, batch_size, seed
        self._rank, self._processes = rank, processes
        self.epoch = self.start = 0

    def __iter__(self) -> Iterator[tuple[int, Numbers, int]]:
        for numbers in epoch_batches(self._count, self._batch_size, self._seed, self.epoch)[self.start :]:
            yield self.epoch, share_of(numbers, self._rank, self._processes), len(numbers)


class ValidationImages(Dataset["tuple[Tensor, dict[Mode, Tensor], Tensor]"]):
    """Reads images as the network takes them, and their shifted views: an item is asked for by its numbers."""

    def __init__(self, images: Images, preprocessing: Preprocessing, views: dict[Mode, ShiftedViews]) -> None:
        self._images, self._preprocessing, self._views = images, preprocessing, views

    def __getitem__(self, numbers: Sequence[int]) -> tuple[Tensor, dict[Mode, Tensor], Tensor]:
        """Images (N, C, H, W), the views (N * count, C, h, w) of each mode, and the classes."""
        found = [(number, readable(self._images, number)) for number in numbers]
        kept = [(number, image) for number, image in found if image is not None]
        if not kept:
            raise InputError("not one image of a batch can be read")
        if all(isinstance(image, Tensor) for _, image in kept):
            seen = wide = torch.stack([image for _, image in kept])
        else:
            pictures, preprocessing = [image for _, image in kept], self._preprocessing
            wide = self._squares(pictures, preprocessing.shift_size)
            same = preprocessing.image_size == preprocessing.shift_size
            middle = wide if same else self._squares(pictures, preprocessing.image_size)
            start = round((middle.shape[-1] - preprocessing.crop_size) / 2)
            inside = slice(start, start + preprocessing.crop_size)
            seen = middle[:, :, inside, inside]
        places = [number for number, _ in kept]
        views = {mode: shifted.of(wide, places) for mode, shifted in self._views.items()}
        return seen, views, torch.tensor([self._images.labels[number] for number in places])

    def _squares(self, pictures: Sequence[Any], size: int) -> Tensor:
        pixels = np.stack([self._preprocessing.square(picture, size) for picture in pictures])
        return self._preprocessing.normalise(torch.from_numpy(pixels))


def views_for(preprocessing: Preprocessing, pairs: int, seed: int) -> dict[Mode, ShiftedViews]:
    """The shifts that validation compares: Zhang's two crops, or circular and zero-filled ones of whole images."""
    modes: tuple[Mode, ...] = ("crop",) if preprocessing.slides else ("circular", "zero_fill")
    return network_views(preprocessing, modes, pairs=pairs, seed=seed)


@dataclass(frozen=True)
class Share:
    """Which of the processes this is, and how it reads."""

    rank: int
    processes: int
    workers: int
    pin_memory: bool


class Batches:
    """The batches of a training, epoch by epoch, for one of its processes.

    Args:
        dataset: what reads the batches.
        count: images of an epoch, on all processes.
        batch_size: of a step, on all processes, at most.
        seed: of the order.
        share: of this process.
    """

    def __init__(self, dataset: Dataset[Any], count: int, batch_size: int, seed: int, share: Share) -> None:
        self.count, self.steps = count, len(epoch_sizes(count, batch_size))
        self.smallest = min(epoch_sizes(count, batch_size)) // share.processes
        self._dataset = dataset
        self._order = EpochOrder(count, batch_size, seed, share.rank, share.processes)
        if isinstance(dataset, IterableDataset):
            # a stream keeps its own order, and Hugging Face's divide their files among workers
            self._loader = make_loader(dataset, None, replace(share, workers=min(share.workers, 1)))
        else:
            self._loader = make_loader(dataset, self._order, share)

    def of(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from a step on."""
        where: Any = self._dataset if isinstance(self._dataset, IterableDataset) else self._order
        where.epoch, where.start = epoch, start
        yield from self._loader


def make_loader(dataset: Dataset[Any], sampler: Any, share: Share) -> DataLoader[Any]:
    """A loader of whole batches whose own random draws leave the global generator alone."""
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=share.workers,
        persistent_workers=share.workers > 0 and sampler is not None,
        pin_memory=share.pin_memory,
        generator=torch.Generator(),
    )


def validation_loader(
    images: Images, preprocessing: Preprocessing, views: dict[Mode, ShiftedViews], batch_size: int, share: Share
) -> Callable[[], Iterator[tuple[Tensor, dict[Mode, Tensor], Tensor]]]:
    """Gives this process's part of the validation images, batch by batch, each time it is called."""
    numbers = range(len(images.labels))[share.rank :: share.processes]
    batches = [numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size)]
    loader = make_loader(ValidationImages(images, preprocessing, views), batches, share)
    return lambda: iter(loader)
