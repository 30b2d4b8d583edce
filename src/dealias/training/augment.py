"""Augment: the random changes of an image in training."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dealias.errors import InputError
from dealias.models import Preprocessing
from dealias.optional import require
from dealias.training.settings import Settings


class Augment:
    """The random changes of an image in training; calls draw from the global generators.

    Attributes:
        changes_tensors: whether images that are already tensors are changed at all.
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
        erase: list[Any] = []
        if settings.random_erasing:
            erase = [require("timm.data.random_erasing").RandomErasing(settings.random_erasing, device="cpu")]
        to_tensor = [transforms.ToTensor(), transforms.Normalize(preprocessing.mean, preprocessing.std)]
        self._of_pictures = transforms.Compose([*middle, *shift, *flip, *policy, *to_tensor, *erase])
        self._of_tensors = transforms.Compose([*shift, *flip, *erase])
        self.changes_tensors = bool(self._of_tensors.transforms)

    def __call__(self, image: Any) -> Tensor:
        """The image as the network takes it, float (C, H, W)."""
        is_tensor = isinstance(image, Tensor)
        changed: Tensor = self._of_tensors(image) if is_tensor else self._of_pictures(image.convert(self._mode))
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
        raise InputError(f"auto_augment={policy!r} is not a policy of timm, such as rand-m9-mstd0.5") from None
