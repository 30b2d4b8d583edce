"""Pans: a photograph becomes a synthetic video whose true motion is known.

>>> photo = torch.arange(48.0).view(1, 6, 8)
>>> pan = slide(photo, (3, 3), frames=3)
>>> pan[0], pan.shifts[:2]
(tensor([[[ 1.,  2.,  3.],
         [ 9., 10., 11.],
         [17., 18., 19.]]]), [(-0.0, -1.0), (-1.0, -2.0)])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, overload

import torch
from torch import Tensor

from dealias.errors import InputError, InputTypeError, as_int, shown
from dealias.perturb.shifts import fourier_shift

Kernel: TypeAlias = Literal["lanczos", "fourier"]
Place: TypeAlias = tuple[float, float]
LOBES = 5
"""Of Lanczos' kernel, which reaches as many pixels to each side. With three, finest detail lags behind by .02 px."""


@dataclass(frozen=True, eq=False)
class Pan(Sequence[Tensor]):
    """The frames of a window that slides over a photograph: a sequence of images (C, h, w), made when asked for.

    Between pixels the photograph is resampled: by Lanczos' kernel of five lobes, its edge pixels repeated; or as the
    periodic, band-limited image through its pixels (`fourier_shift`), which suits photographs of a repeating scene. At
    whole places the frames are the photograph's own pixels.

    Attributes:
        photo: (C, H, W), uint8 or float.
        size: (height, width) of the window.
        path: the place (y, x) of the window's upper left pixel in each frame, whole or not.
        kernel: "lanczos" or "fourier".

    Raises:
        InputError: a window reaches beyond the photograph, or an argument is of another form.
        InputTypeError: `photo` is not a tensor of uint8 or float.
    """

    photo: Tensor
    size: tuple[int, int]
    path: Sequence[Place]
    kernel: Kernel = "lanczos"

    def __post_init__(self) -> None:
        if not isinstance(self.photo, Tensor) or not (
            self.photo.dtype == torch.uint8 or self.photo.is_floating_point()
        ):
            raise InputTypeError(f"photo={shown(self.photo)} must be a tensor (C, H, W) of uint8 or float")
        if self.photo.ndim != 3 or 0 in self.photo.shape:
            raise InputError(f"photo of shape {tuple(self.photo.shape)}: use (C, H, W), none of them 0")
        if self.kernel not in ("lanczos", "fourier"):
            raise InputError(f"kernel={shown(self.kernel)} is unknown: use lanczos or fourier")
        if not self.path:
            raise InputError("path is empty: give the place (y, x) of one frame at least")
        room = [whole - as_int("size", part) for whole, part in zip(self.photo.shape[1:], self.size, strict=True)]
        for place in self.path:
            if not all(0 <= at <= most for at, most in zip(place, room, strict=True)):
                raise InputError(
                    f"path={shown(place)} and size={tuple(self.size)} reach beyond a photo of "
                    f"{'x'.join(map(str, self.photo.shape[1:]))}: use places from (0, 0) to {tuple(room)}"
                )

    @property
    def shifts(self) -> list[Place]:
        """The displacement (dy, dx) of the scene in each frame; from one frame to another, their difference.

        What stands at (y, x) in the photograph stands at (y + dy, x + dx) in the frame.
        """
        return [(-float(y), -float(x)) for y, x in self.path]

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.path)

    @overload
    def __getitem__(self, number: int) -> Tensor: ...
    @overload
    def __getitem__(self, number: slice) -> list[Tensor]: ...
    def __getitem__(self, number: int | slice) -> Tensor | list[Tensor]:
        """One frame, in the dtype of the photograph; or several."""
        if isinstance(number, slice):
            return [self._frame(place) for place in self.path[number]]
        return self._frame(self.path[number])

    def _frame(self, place: Place) -> Tensor:
        (top, down), (left, right) = (divmod(float(at), 1) for at in place)
        start, (height, width) = (int(top), int(left)), self.size
        if not down and not right:
            return self.photo[:, start[0] : start[0] + height, start[1] : start[1] + width].clone()
        pixels = self.photo if self.photo.dtype == torch.float64 else self.photo.float()
        if self.kernel == "fourier":
            moved = fourier_shift(pixels, -down, -right)
            frame = moved[:, start[0] : start[0] + height, start[1] : start[1] + width]
        else:
            frame = resample(resample(pixels, start[0], down, height, 1), start[1], right, width, 2)
        if self.photo.dtype == torch.uint8:
            return frame.round().clamp(0, 255).to(torch.uint8)
        return frame.to(self.photo.dtype)


def slide(
    photo: Tensor, size: tuple[int, int], *, frames: int = 17, step: Place = (1.0, 1.0), kernel: Kernel = "lanczos"
) -> Pan:
    """The pan of a window that moves by `step` (dy, dx) pixels a frame along a straight path through the middle.

    Args:
        photo: (C, H, W), uint8 or float.
        size: (height, width) of the window.
        frames: number of frames.
        step: pixels that the window moves down and to the right from one frame to the next; fractions are resampled.
        kernel: as for `Pan`.

    Raises:
        InputError, InputTypeError: as for `Pan`; or the path does not fit into the photograph.
    """
    count = as_int("frames", frames)
    if len(step) != 2 or not all(math.isfinite(part) for part in step):
        raise InputError(f"step={shown(step)} must be two finite numbers, pixels down and to the right")
    if not isinstance(photo, Tensor) or photo.ndim != 3:
        raise InputTypeError(f"photo={shown(photo)} must be a tensor (C, H, W) of uint8 or float")
    starts = []
    for whole, part, each in zip(photo.shape[1:], size, step, strict=True):
        travel = (count - 1) * each
        if part + abs(travel) > whole:
            raise InputError(
                f"frames={count}, step={tuple(step)} and size={tuple(size)} need a photo of at least "
                f"{part + abs(travel):g} pixels, and it has {whole}: take fewer frames or a smaller window"
            )
        starts.append(
            math.floor((whole - part - travel) / 2) if travel >= 0 else math.ceil((whole - part - travel) / 2)
        )
    path = [(starts[0] + number * step[0], starts[1] + number * step[1]) for number in range(count)]
    return Pan(photo, size, path, kernel)


def resample(pixels: Tensor, start: int, fraction: float, length: int, axis: int) -> Tensor:
    """`length` values of an axis from the place `start` + `fraction` (0 to 1) on, by Lanczos' kernel.

    Beyond the ends of the axis its last values are repeated.
    """
    if not fraction:
        return pixels.narrow(axis, start, length)
    reach = torch.arange(1 - LOBES, LOBES + 1, dtype=torch.float64)
    distance = reach - fraction
    weights = torch.sinc(distance) * torch.sinc(distance / LOBES)
    taps: list[float] = (weights / weights.sum()).tolist()
    last = pixels.shape[axis] - 1
    total = torch.zeros(())
    for offset, tap in zip(reach.long().tolist(), taps, strict=True):
        rows = torch.arange(start + offset, start + offset + length).clamp(0, last)
        total = total + tap * pixels.index_select(axis, rows)
    return total
