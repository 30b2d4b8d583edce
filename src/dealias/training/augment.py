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
        """Whether images that are already tensors are changed at all."""
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
        raise InputError(f"auto_augment={policy!r} is not a policy of timm, such as rand-m9-mstd0.5") from None


def _random_erasing(probability: float) -> Any:
    return require("timm.data.random_erasing").RandomErasing(probability, device="cpu")
