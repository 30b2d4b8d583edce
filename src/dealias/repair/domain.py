"""The images of a repair: as the networks see them, shifted, and split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dealias.errors import InputError, InputTypeError
from dealias.metrics.views import Mode, make_views
from dealias.perturb import crop


class Domain:
    """Images as the networks see them, and the shifts under which predictions should agree.

    Args:
        images: (N, C, H, W), in any form that `prepare` takes.
        prepare: turns a batch of `images` into what the networks see.
        crop_size: side of the window that the networks see; None: all of the image.
        circular: whether circular shifts commute with the networks' convolutions.
        device: of the networks.
        batch_size: images in a forward pass.
        seed: of the shifts.

    Attributes:
        mode: of the shift consistency: "crop" where a window slides, "circular" or "zero_fill".
        shifts: the arguments of that mode.

    Raises:
        InputError: the images are not (N, C, H, W), or not larger than `crop_size`.
        InputTypeError: `images` is not a tensor.
    """

    def __init__(
        self,
        images: Tensor,
        *,
        prepare: Callable[[Tensor], Tensor],
        crop_size: int | None,
        circular: bool,
        device: torch.device,
        batch_size: int,
        seed: int,
    ) -> None:
        if not isinstance(images, Tensor):
            raise InputTypeError(f"images must be a torch.Tensor, got {type(images).__name__}")
        if images.ndim != 4 or 0 in images.shape:
            raise InputError(f"images of shape {tuple(images.shape)}: use (N, C, H, W), none of them 0")
        side = min(images.shape[2:])
        if crop_size is not None and not 1 <= crop_size < side:
            raise InputError(f"crop_size={crop_size!r} must be at least 1 and below the images' {side}")
        self.images, self.prepare, self.crop_size = images, prepare, crop_size
        self.device, self.batch_size = device, batch_size
        self.mode: Mode = "crop" if crop_size is not None else "circular" if circular else "zero_fill"
        self.shifts: dict[str, Any] = {"seed": seed}
        if crop_size is not None:
            self.shifts |= {"crop_size": crop_size, "image_size": side}
        else:
            self.shifts["max_shift"] = side // 2 if circular else 3
        # two pairs: four shifts of each image
        self._averaged = make_views(self.mode, pairs=2, **self.shifts)

    def whole(self, indices: Sequence[int]) -> Tensor:
        """Images (n, C, H, W) before a window is cut out."""
        return self.prepare(self.images[list(indices)].to(self.device))

    def centre(self, indices: Sequence[int]) -> Tensor:
        """Images as the networks see them when nothing is shifted."""
        return self._window(self.whole(indices), 0.5, 0.5)

    def anywhere(self, indices: Sequence[int], step: int) -> Tensor:
        """A window at a place drawn by the seed and the number of the step; whole images where no window slides."""
        down, right = np.random.default_rng((self.shifts["seed"], step)).random(2)
        return self._window(self.whole(indices), down, right)

    def shifted(self, indices: Sequence[int]) -> Tensor:
        """Four shifts of each image: (4 n, C, h, w), the shifts of an image in a row."""
        return self._averaged.of(self.whole(indices), indices)

    def batches(self, indices: Sequence[int]) -> Iterator[Sequence[int]]:
        """The indices, `batch_size` at a time."""
        return (indices[start : start + self.batch_size] for start in range(0, len(indices), self.batch_size))

    def _window(self, images: Tensor, down: float, right: float) -> Tensor:
        if self.crop_size is None:
            return images
        room = [size - self.crop_size for size in images.shape[2:]]
        return crop(images, round(down * room[0]), round(right * room[1]), self.crop_size)


def draw_held_out(keys: Sequence[Hashable], fraction: float, seed: int) -> list[int]:
    """Numbers of images, drawn by `seed` until they are the fraction of all; those with the same key come together."""
    groups: dict[Hashable, list[int]] = {}
    for index in torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed)).tolist():
        groups.setdefault(keys[index], []).append(index)
    held: list[int] = []
    for group in groups.values():
        if len(held) < max(round(fraction * len(keys)), 1):
            held += group
    return sorted(held)


def split_held_out(images: Tensor, held_out: float | Sequence[int], seed: int) -> tuple[list[int], list[int]]:
    """Indices to train on and indices held out; copies of an image are all on the same side.

    Raises:
        InputError: `held_out` has a number that no image has, or one of the parts would be empty.
    """
    keys = [hashlib.blake2b(image.contiguous().view(torch.uint8).numpy().tobytes()).digest() for image in images.cpu()]
    if isinstance(held_out, float | int):
        held = draw_held_out(keys, held_out, seed)
    else:
        held = sorted(set(held_out))
        if not held or held[0] < 0 or held[-1] >= len(keys):
            raise InputError(f"held_out must be a fraction, or numbers of images from 0 to {len(keys) - 1}")
    kept_out = {keys[index] for index in held}
    train = [index for index, key in enumerate(keys) if key not in kept_out]
    if len(train) < 2:
        raise InputError(
            f"images has {len(keys)} images, {len(train)} of them to train on and {len(held)} held out: give more"
        )
    return train, sorted(held)


def near_duplicates(images: Tensor, train: Sequence[int], held: Sequence[int]) -> list[int]:
    """Numbers of held-out images that look like one that is trained on: their grey thumbnails correlate by 0.99."""
    parts = (images[start : start + 256].float().mean(1, keepdim=True) for start in range(0, len(images), 256))
    thumbnails = torch.cat([F.adaptive_avg_pool2d(part, 16).flatten(1).cpu() for part in parts])
    thumbnails = F.normalize(thumbnails - thumbnails.mean(1, keepdim=True))
    likest = torch.cat([(part @ thumbnails[list(train)].T).amax(1) for part in thumbnails[list(held)].split(256)])
    return [number for number, is_like in zip(held, (likest > 0.99).tolist(), strict=True) if is_like]
