"""Shifted views of images: one class for each kind of shift, and how far each of them reaches.

>>> views = make_views("crop", pairs=2, crop_size=28, image_size=32)
>>> views.count, views.compared
(4, [(0, 1), (2, 3)])
>>> views.of(torch.rand(3, 1, 32, 32), indices=[0, 1, 2]).shape
torch.Size([12, 1, 28, 28])
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from random import Random
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from dealias.errors import InputError, as_int
from dealias.models.inputs import Preprocessing
from dealias.perturb.shifts import circular_shift, crop, fourier_shift, resize_and_crop, zero_fill_shift

Mode: TypeAlias = Literal[
    "crop",
    "circular",
    "fractional",
    "half_pixel",
    "third_pixel",
    "zero_fill",
    "diagonal",
    "one_pixel",
    "grid",
    "circular_grid",
    "half_pixel_grid",
]
MODES: tuple[Mode, ...] = get_args(Mode)
CIRCULAR_REACH, ZERO_FILL_REACH = 32, 3
GRID_REACH, HALF_PIXEL_GRID_REACH = 2, 1  # each 25 shifts, as many as windows in `GridViews`
_Offset: TypeAlias = tuple[float, float]
_DRAWN_ROLLS = ("circular", "fractional", "half_pixel", "third_pixel")
_NEIGHBOURS = ((1, 0), (-1, 0), (0, 1), (0, -1))


@dataclass(frozen=True, kw_only=True)
class ShiftedViews(ABC):
    """One kind of shift: the views of an image, and the pairs of them whose predictions are compared.

    The attributes of its subclasses are the arguments of `measure_consistency`.

    Raises:
        InputError: an attribute is out of range.
    """

    mode: ClassVar[Mode]
    windowed: ClassVar[bool] = False
    """Whether a window slides over an image that has more pixels than the network sees."""

    def __post_init__(self) -> None:
        for name in ("pairs", "crop_size", "max_shift", "step", "image_size"):
            if getattr(self, name, None) is not None:
                as_int(name, getattr(self, name))

    @property
    @abstractmethod
    def reach(self) -> str:
        """The range of the shifts, in words."""

    @abstractmethod
    def shifts(self, index: int) -> Sequence[_Offset]:
        """The shifts (dy, dx) of the image of that number."""

    @abstractmethod
    def _move(self, images: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
        """Each image, moved by a shift of its own."""

    @property
    def count(self) -> int:
        """Number of views of an image."""
        return len(self.shifts(0))

    @property
    def compared(self) -> list[tuple[int, int]]:
        """The pairs of views whose predictions are compared."""
        return [(view, view + 1) for view in range(0, self.count, 2)]

    def displacements(self, index: int, size: tuple[int, int]) -> list[_Offset]:
        """Of each compared pair, how far (dy, dx) the second view shows things from where the first does.

        Args:
            index: the number of the image.
            size: (height, width) of the views.
        """
        shifts, (height, width) = self.shifts(index), size
        pairs = [(*shifts[first], *shifts[second]) for first, second in self.compared]
        return [(self._step(y, y2, height), self._step(x, x2, width)) for y, x, y2, x2 in pairs]

    def _step(self, before: float, after: float, side: int) -> float:
        """How far things move on an axis from a view to another."""
        return after - before

    def of(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """Views (N * count, C, h, w) of images (N, C, H, W), those of an image in a row.

        Args:
            images: float, at least `image_size` pixels on the short side where a window slides.
            indices: the number of each image, on which its shifts depend.
        """
        shifts = [self.shifts(index) for index in indices]
        dtype = torch.int64 if isinstance(shifts[0][0][0], int) else torch.float64
        dy, dx = torch.tensor(shifts, dtype=dtype, device=images.device).flatten(0, 1).unbind(1)
        return self._move(images.repeat_interleave(self.count, 0), dy, dx)


@dataclass(frozen=True, kw_only=True)
class _PairViews(ShiftedViews):
    """Pairs of shifts drawn at random, the same for the same seed and number of the image."""

    pairs: int = 5
    seed: int = 0

    def shifts(self, index: int) -> Sequence[_Offset]:
        draw = Random(f"{self.seed}/{index}")
        return [shift for _ in range(self.pairs) for shift in self._pair(draw)]

    @abstractmethod
    def _pair(self, draw: Random) -> tuple[_Offset, _Offset]:
        """The next two shifts."""


def _two(draw: Callable[[int, int], float], low: int, high: int) -> tuple[_Offset, _Offset]:
    """Two shifts with both axes drawn from the range."""
    return (draw(low, high), draw(low, high)), (draw(low, high), draw(low, high))


@dataclass(frozen=True, kw_only=True)
class _RollViews(ShiftedViews):
    """Rolls of up to `max_shift` pixels, whole or not."""

    max_shift: int

    @property
    def reach(self) -> str:
        """The largest shift."""
        return f"up to {self.max_shift} pixel{'s' * (self.max_shift != 1)} on both axes"

    def _step(self, before: float, after: float, side: int) -> float:
        # of all ways around, the shortest
        return (after - before + side / 2) % side - side / 2

    def _move(self, images: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
        return fourier_shift(images, dy, dx) if dy.is_floating_point() else circular_shift(images, dy, dx)


@dataclass(frozen=True, kw_only=True)
class CircularViews(_RollViews, _PairViews):
    """Rolls, both axes drawn from [-max_shift, max_shift)."""

    mode: ClassVar[Mode] = "circular"
    max_shift: int = CIRCULAR_REACH

    def _pair(self, draw: Random) -> tuple[_Offset, _Offset]:
        return _two(draw.randrange, -self.max_shift, self.max_shift)


@dataclass(frozen=True, kw_only=True)
class FractionalViews(CircularViews):
    """Rolls by fractions of a pixel, both axes drawn uniformly from [-max_shift, max_shift)."""

    mode: ClassVar[Mode] = "fractional"

    def _pair(self, draw: Random) -> tuple[_Offset, _Offset]:
        return _two(draw.uniform, -self.max_shift, self.max_shift)


@dataclass(frozen=True, kw_only=True)
class HalfPixelViews(CircularViews):
    """Two rolls drawn as those of `CircularViews`, of which the second goes on by a fraction: half a pixel.

    By the fraction's multiples below a pixel on either axis, each pair as likely, but for none on both.
    """

    mode: ClassVar[Mode] = "half_pixel"
    parts: ClassVar[int] = 2
    """Into how many a pixel is divided."""

    @property
    def reach(self) -> str:
        """The largest shift, and the fraction."""
        return f"{super().reach}, and by multiples of 1/{self.parts} pixel"

    def _pair(self, draw: Random) -> tuple[_Offset, _Offset]:
        (top, left), (top2, left2) = super()._pair(draw)
        down, right = divmod(draw.randrange(1, self.parts**2), self.parts)
        return (float(top), float(left)), (top2 + down / self.parts, left2 + right / self.parts)


@dataclass(frozen=True, kw_only=True)
class ThirdPixelViews(HalfPixelViews):
    """`HalfPixelViews` with a third of a pixel."""

    mode: ClassVar[Mode] = "third_pixel"
    parts: ClassVar[int] = 3


@dataclass(frozen=True, kw_only=True)
class ZeroFillViews(CircularViews):
    """Shifts, both axes drawn from [-max_shift, max_shift]; `fill` enters at the border."""

    mode: ClassVar[Mode] = "zero_fill"
    max_shift: int = ZERO_FILL_REACH
    fill: float = 0.0

    def _step(self, before: float, after: float, side: int) -> float:
        return after - before

    def _pair(self, draw: Random) -> tuple[_Offset, _Offset]:
        return _two(draw.randrange, -self.max_shift, self.max_shift + 1)

    def _move(self, images: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
        return zero_fill_shift(images, dy, dx, self.fill)


@dataclass(frozen=True, kw_only=True)
class _WindowViews(ShiftedViews):
    """Windows of `crop_size` pixels of images resized to `image_size`, by default 8/7 of that."""

    windowed: ClassVar[bool] = True
    crop_size: int = 224
    image_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.room < 1:
            raise InputError(f"image_size={self.wide} must be larger than crop_size={self.crop_size}")

    @property
    def wide(self) -> int:
        return self.image_size or round(self.crop_size * 8 / 7)

    @property
    def room(self) -> int:
        return self.wide - self.crop_size

    @property
    def reach(self) -> str:
        return f"windows of {self.crop_size} pixels in {self.wide}"

    def of(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        height, width = images.shape[2:]
        if min(height, width) < self.wide:
            raise InputError(
                f"images of {height}x{width} are smaller than image_size={self.wide}: "
                f"resize them, or pass a smaller crop_size and image_size"
            )
        return super().of(resize_and_crop(images, self.wide), indices)

    def _step(self, before: float, after: float, side: int) -> float:
        # a window further down shows things further up
        return before - after

    def _move(self, images: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
        return crop(images, dy, dx, self.crop_size)


@dataclass(frozen=True, kw_only=True)
class CropViews(_WindowViews, _PairViews):
    """Two windows, both offsets drawn from 0..room - 1."""

    mode: ClassVar[Mode] = "crop"

    def _pair(self, draw: Random) -> tuple[_Offset, _Offset]:
        return _two(draw.randrange, 0, self.room)


@dataclass(frozen=True, kw_only=True)
class OnePixelViews(_WindowViews, _PairViews):
    """Two windows one pixel apart: any such pair, each as likely as the others."""

    mode: ClassVar[Mode] = "one_pixel"

    def _pair(self, draw: Random) -> tuple[_Offset, _Offset]:
        down, right = draw.choice(_NEIGHBOURS)
        top = draw.randrange(max(-down, 0), self.room + 1 - max(down, 0))
        left = draw.randrange(max(-right, 0), self.room + 1 - max(right, 0))
        return (top, left), (top + down, left + right)


@dataclass(frozen=True, kw_only=True)
class DiagonalViews(_WindowViews):
    """The windows along the diagonal, each compared with the next."""

    mode: ClassVar[Mode] = "diagonal"

    def shifts(self, index: int) -> Sequence[_Offset]:
        """The same offsets for each image."""
        return [(offset, offset) for offset in range(self.room + 1)]

    @property
    def compared(self) -> list[tuple[int, int]]:
        """Neighbours."""
        return [(view, view + 1) for view in range(self.room)]


@dataclass(frozen=True, kw_only=True)
class _AroundMiddle(ShiftedViews):
    """The same grid of shifts for each image, each compared with the one in the middle."""

    @abstractmethod
    def offsets(self) -> Sequence[float]:
        """The shifts along an axis."""

    def shifts(self, index: int) -> Sequence[_Offset]:
        """The same for each image: all pairs of offsets."""
        return [(top, left) for top in self.offsets() for left in self.offsets()]

    @property
    def compared(self) -> list[tuple[int, int]]:
        """The middle with each of the others."""
        centre = self.count // 2
        return [(centre, view) for view in range(self.count) if view != centre]


@dataclass(frozen=True, kw_only=True)
class GridViews(_WindowViews, _AroundMiddle):
    """The windows at every `step`-th offset, by default 5 x 5, each compared with the one in the middle."""

    mode: ClassVar[Mode] = "grid"
    step: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.compared:
            raise InputError(f"step={self.step!r} leaves a single window of {self.room + 1} offsets: use a smaller one")

    def offsets(self) -> Sequence[float]:
        """Every `step`-th of the room."""
        return range(0, self.room + 1, self.step or max(self.room // 4, 1))


@dataclass(frozen=True, kw_only=True)
class CircularGridViews(_RollViews, _AroundMiddle):
    """Rolls by every number of pixels from -max_shift to max_shift on both axes, by default 5 x 5."""

    mode: ClassVar[Mode] = "circular_grid"
    max_shift: int = GRID_REACH

    def offsets(self) -> Sequence[float]:
        """Whole pixels."""
        return range(-self.max_shift, self.max_shift + 1)


@dataclass(frozen=True, kw_only=True)
class HalfPixelGridViews(_RollViews, _AroundMiddle):
    """Rolls by every multiple of half a pixel from -max_shift to max_shift on both axes, by default 5 x 5."""

    mode: ClassVar[Mode] = "half_pixel_grid"
    max_shift: int = HALF_PIXEL_GRID_REACH

    @property
    def reach(self) -> str:
        """The largest shift, and the fraction."""
        return f"{super().reach}, by multiples of 1/2 pixel"

    def offsets(self) -> Sequence[float]:
        """Halves."""
        return [number / 2 for number in range(-2 * self.max_shift, 2 * self.max_shift + 1)]


_ALL = (
    *(CropViews, CircularViews, FractionalViews, HalfPixelViews, ThirdPixelViews, ZeroFillViews),
    *(DiagonalViews, OnePixelViews, GridViews, CircularGridViews, HalfPixelGridViews),
)
KINDS: dict[Mode, type[ShiftedViews]] = {kind.mode: kind for kind in _ALL}


def make_views(mode: Mode, **arguments: Any) -> ShiftedViews:
    """The views of a mode; the arguments are those of `measure_consistency` from `pairs` on.

    None stands for the default. Arguments of other modes are left out.

    Raises:
        InputError: the mode or an argument is unknown or out of range.
    """
    if mode not in KINDS:
        raise InputError(f"mode={mode!r} is unknown: use {', '.join(MODES[:-1])} or {MODES[-1]}")
    known = dict.fromkeys(field.name for kind in _ALL for field in fields(kind))
    for name in arguments:
        if name not in known:
            raise InputError(f"mode={mode!r} takes no argument {name}: use {', '.join(known)}")
    own = {field.name for field in fields(KINDS[mode])}
    return KINDS[mode](**{key: value for key, value in arguments.items() if key in own and value is not None})


def network_views(
    preprocessing: Preprocessing, modes: Iterable[Mode], *, pairs: int = 5, seed: int = 0
) -> dict[Mode, ShiftedViews]:
    """The views of those modes for a network; windows are left out where it sees images whole.

    All tools measure with these reaches. Circular and fractional shifts go up to 32 pixels, as published for images of
    224; for networks that see less than 64 pixels, up to half the image. Zero-filled shifts go up to 3 pixels, grids of
    circular shifts up to 2, those of half pixels up to 1. Windows slide in `shift_size` pixels.
    """
    side = preprocessing.crop_size
    circular = CIRCULAR_REACH if side >= 64 else max(side // 2, 1)
    arguments = {"pairs": pairs, "seed": seed, "crop_size": side, "image_size": preprocessing.shift_size}
    return {
        mode: make_views(mode, **arguments, max_shift=circular if mode in _DRAWN_ROLLS else None)
        for mode in modes
        if preprocessing.slides or not KINDS[mode].windowed
    }
