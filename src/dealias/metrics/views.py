"""The shifted copies of an image whose predictions are compared: the published forms of shift consistency.

>>> views = ShiftedViews("crop", pairs=2, crop_size=28, image_size=32)
>>> views.count, views.compared
(4, [(0, 1), (2, 3)])
>>> views.of(torch.rand(3, 1, 32, 32), indices=[0, 1, 2]).shape
torch.Size([12, 1, 28, 28])
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from dealias.errors import InputError
from dealias.perturb.shifts import circular_shift, crop, fourier_shift, resize_and_crop, zero_fill_shift

Mode: TypeAlias = Literal["crop", "circular", "fractional", "zero_fill", "diagonal", "one_pixel", "grid"]
MODES: tuple[Mode, ...] = get_args(Mode)
WINDOWED = ("crop", "diagonal", "one_pixel", "grid")
"""The modes that slide a window over an image, which has more pixels than the network sees."""
_DEFAULT_MAX_SHIFT = {"circular": 32, "fractional": 32, "zero_fill": 3}
_NEIGHBOURS = ((1, 0), (-1, 0), (0, 1), (0, -1))


class ShiftedViews:
    """Which shifts of an image a mode makes, and which of them it compares; see `measure_consistency`.

    Args:
        mode, pairs, seed, crop_size, image_size, max_shift, step, fill: as for `measure_consistency`.

    Attributes:
        count: number of views of an image.
        compared: the pairs of views whose predictions are compared.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(
        self,
        mode: Mode,
        *,
        pairs: int = 5,
        seed: int = 0,
        crop_size: int = 224,
        image_size: int | None = None,
        max_shift: int | None = None,
        step: int | None = None,
        fill: float = 0.0,
    ) -> None:
        if mode not in MODES:
            raise InputError(f"mode={mode!r} is unknown: use {', '.join(MODES[:-1])} or {MODES[-1]}")
        for name, value in (("pairs", pairs), ("crop_size", crop_size), ("max_shift", max_shift), ("step", step)):
            if value is not None and value < 1:
                raise InputError(f"{name}={value!r} is too small: it must be at least 1")
        self.mode, self.seed, self.fill, self.crop_size = mode, seed, fill, crop_size
        self.max_shift = max_shift or _DEFAULT_MAX_SHIFT.get(mode, 0)
        self.image_size = image_size or round(crop_size * 8 / 7)
        self.room = self.image_size - crop_size
        if mode in WINDOWED and self.room < 1:
            raise InputError(f"image_size={self.image_size} must be larger than crop_size={crop_size}")
        offsets = range(0, self.room + 1, step or max(self.room // 4, 1))
        self._grid = [(top, left) for top in offsets for left in offsets]
        if mode == "diagonal":
            self.count = self.room + 1
            self.compared = [(view, view + 1) for view in range(self.room)]
        elif mode == "grid":
            self.count = len(self._grid)
            centre = self.count // 2
            self.compared = [(centre, view) for view in range(self.count) if view != centre]
        else:
            self.count = 2 * pairs
            self.compared = [(view, view + 1) for view in range(0, self.count, 2)]
        if not self.compared:
            raise InputError(f"step={step!r} leaves a single window of {self.room + 1} offsets: use a smaller one")

    def of(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """Views (N * count, C, h, w) of images (N, C, H, W), those of an image in a row.

        Args:
            images: float, at least `image_size` pixels on the short side for windowed modes.
            indices: the number of each image, on which its shifts depend.
        """
        if self.mode in WINDOWED:
            height, width = images.shape[2:]
            if min(height, width) < self.image_size:
                raise InputError(
                    f"images of {height}x{width} are smaller than image_size={self.image_size}: "
                    f"resize them, or pass a smaller crop_size and image_size"
                )
            images = resize_and_crop(images, self.image_size)
        shifts = [self._shifts(index) for index in indices]
        copies = images.repeat_interleave(self.count, 0)
        if self.mode == "fractional":
            dy, dx = torch.tensor(shifts, dtype=torch.float64, device=images.device).flatten(0, 1).unbind(1)
            return fourier_shift(copies, dy, dx)
        dy, dx = torch.tensor(shifts, dtype=torch.int64, device=images.device).flatten(0, 1).unbind(1)
        if self.mode == "circular":
            return circular_shift(copies, dy, dx)
        if self.mode == "zero_fill":
            return zero_fill_shift(copies, dy, dx, self.fill)
        return crop(copies, dy, dx, self.crop_size)

    def _shifts(self, index: int) -> Sequence[tuple[float, float]]:
        if self.mode == "diagonal":
            return [(offset, offset) for offset in range(self.count)]
        if self.mode == "grid":
            return self._grid
        draw, reach = Random(f"{self.seed}/{index}"), self.max_shift
        if self.mode == "fractional":
            return [(draw.uniform(-reach, reach), draw.uniform(-reach, reach)) for _ in range(self.count)]
        if self.mode == "one_pixel":
            return [shift for _ in range(self.count // 2) for shift in self._neighbours(draw)]
        low, high = {"crop": (0, self.room), "circular": (-reach, reach), "zero_fill": (-reach, reach + 1)}[self.mode]
        return [(draw.randrange(low, high), draw.randrange(low, high)) for _ in range(self.count)]

    def _neighbours(self, draw: Random) -> tuple[tuple[int, int], tuple[int, int]]:
        """Two windows one pixel apart: any such pair, each as likely as the others."""
        down, right = draw.choice(_NEIGHBOURS)
        top = draw.randrange(max(-down, 0), self.room + 1 - max(down, 0))
        left = draw.randrange(max(-right, 0), self.room + 1 - max(right, 0))
        return (top, left), (top + down, left + right)
