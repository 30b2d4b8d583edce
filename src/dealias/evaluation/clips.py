"""Clips: the frames that a flicker measurement shows networks, of a video or of pans over photographs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from dealias.data import Source, Video
from dealias.errors import InputError
from dealias.models import Preprocessing
from dealias.perturb.pans import Pan, Place, slide

MULTIPLE = 32
"""Frames of a video are cropped to a multiple of this size, which detectors and segmentation networks need."""


@dataclass(frozen=True)
class Shot:
    """A frame as it is shown to the networks.

    Attributes:
        number: of the frame in its clip, from 0.
        pixels: uint8 (C, H, W).
    """

    number: int
    pixels: Tensor


@dataclass(frozen=True)
class VideoClip:
    """The frames of a video, cropped to a multiple of 32 pixels.

    Attributes:
        video: the file and the range of its frames.
        channels: of the frames: 3, or 1 for grey ones.
    """

    video: Video
    channels: int = 3

    @property
    def name(self) -> str:
        """Of the file."""
        return Path(self.video.path).name

    @property
    def length(self) -> int | None:
        """Number of frames of the range, as the file announces it."""
        return self.video.length

    @property
    def shifts(self) -> None:
        """Unknown."""

    @property
    def skipped(self) -> Sequence[tuple[int, str]]:
        """The frames that could not be decoded."""
        return self.video.skipped

    def shots(self) -> Iterator[Shot]:
        """Decode the frames."""
        for frame in self.video:
            height, width = (side - side % MULTIPLE for side in frame.pixels.shape[:2])
            if not height or not width:
                raise InputError(
                    f"video={str(self.video.path)!r} has frames of {frame.pixels.shape[1]}x{frame.pixels.shape[0]} "
                    f"pixels: use one of at least {MULTIPLE}x{MULTIPLE}, or a larger image-size"
                )
            pixels = torch.tensor(frame.pixels[:height, :width]).permute(2, 0, 1)
            if self.channels == 1:
                pixels = pixels.float().mean(0, keepdim=True).round().to(torch.uint8)
            yield Shot(frame.number - self.video.start, pixels)


@dataclass(frozen=True)
class PanClip:
    """A window that slides over a photograph.

    Attributes:
        source, number: the photograph.
        preprocessing: of the networks: the window has the size that they see.
        length: number of frames.
        step: pixels (dy, dx) that the window moves from one frame to the next.
    """

    source: Source
    number: int
    preprocessing: Preprocessing
    length: int
    step: Place

    @property
    def name(self) -> str:
        """Of the file."""
        return self.source.names[self.number]

    @property
    def shifts(self) -> Sequence[Place]:
        """The displacement of the photograph in each frame."""
        return [(-number * self.step[0], -number * self.step[1]) for number in range(self.length)]

    @property
    def skipped(self) -> Sequence[tuple[int, str]]:
        """Nothing: a photograph that cannot be read has no frames at all."""
        return []

    def shots(self) -> Iterator[Shot]:
        """Resample the windows.

        Raises:
            InputError: the photograph cannot be read.
        """
        for number, pixels in enumerate(self._pan()):
            yield Shot(number, pixels)

    def _pan(self) -> Pan:
        side = self.preprocessing.crop_size
        room = math.ceil((self.length - 1) * max(map(abs, self.step)))
        picture: Any = self.source.read(self.number)
        photo = torch.from_numpy(self.preprocessing.square(picture, side + room))
        return slide(photo, (side, side), frames=self.length, step=self.step)


Clip: TypeAlias = VideoClip | PanClip
"""Frames of one scene."""
