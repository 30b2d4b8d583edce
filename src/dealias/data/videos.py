"""Videos: frames one by one, whatever FFmpeg reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from dealias.errors import InputError, as_int, reason
from dealias.optional import require


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        number: its number in the video, from 0.
        seconds: its time, by the file; frames of a variable rate are not evenly spaced.
        pixels: uint8 (H, W, 3).
    """

    number: int
    seconds: float
    pixels: npt.NDArray[np.uint8]


@dataclass
class Video:
    """The frames of a video file, decoded one by one, so that memory does not grow with its length.

    Iterating starts at the first frame again. All frames have the size of the first one: others are resized to it.

    Args:
        path: a file that FFmpeg reads.
        start, stop: the first frame, and the one behind the last; None: to the end.
        short_side: resize frames, with anti-aliasing, to so many pixels at their shorter side; None: leave them.

    Attributes:
        skipped: the numbers of the frames that could not be decoded in the last pass, and why.
        resized: the number of frames that had another size than the first one, in the last pass.

    Raises:
        InputError: the file is missing, has no video stream or no frame, or the range is empty.
        MissingExtraError: PyAV or Pillow is not installed.
    """

    path: str | PathLike[str]
    start: int = 0
    stop: int | None = None
    short_side: int | None = None
    skipped: list[tuple[int, str]] = field(default_factory=list, init=False)
    resized: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        as_int("start", self.start, 0)
        if self.stop is not None and as_int("stop", self.stop) <= self.start:
            raise InputError(f"stop={self.stop} must be above start={self.start}")
        if self.short_side is not None:
            as_int("short_side", self.short_side, bits=15)
        with self._opened() as file:
            if not file.streams.video:
                raise InputError(f"path={str(self.path)!r} has no pictures, only {_kinds(file)}")
            stream = file.streams.video[0]
            self.rate = float(stream.average_rate or 0) or None
            self.announced: int | None = stream.frames or None

    @property
    def length(self) -> int | None:
        """Number of frames of the range, as the file announces it; None where neither it nor `stop` says."""
        ends = [end for end in (self.announced, self.stop) if end is not None]
        return max(min(ends) - self.start, 0) if ends else None

    def __iter__(self) -> Iterator[Frame]:
        """Decode the frames of the range.

        Raises:
            InputError: no frame of the range can be decoded.
        """
        self.skipped, self.resized = [], 0
        first: tuple[int, int] | None = None
        for number, seconds, decoded in self._decoded():
            if self.stop is not None and number >= self.stop:
                break
            if number < self.start:
                continue
            if isinstance(decoded, str):
                self.skipped.append((number, decoded))
                continue
            size = decoded.width, decoded.height
            first = first or size
            self.resized += size != first
            yield Frame(number, seconds, _pixels(decoded, self._size(first)))
        if first is None:
            raise InputError(f"path={str(self.path)!r} has no frame that can be decoded{self._range()}")

    def _decoded(self) -> Iterator[tuple[int, float, Any]]:
        """The number and time of each frame, and the frame, or the reason why there is none."""
        errors = require("av").FFmpegError
        number, seconds = 0, 0.0
        with self._opened() as file:
            packets = file.demux(file.streams.video[0])
            while True:
                try:
                    packet = next(packets)
                    found = packet.decode()
                except StopIteration:
                    break
                except errors as error:  # a packet holds a frame
                    yield number, seconds, reason(error)
                    number += 1
                    continue
                for frame in found:
                    seconds = float(frame.time or 0.0)
                    yield number, seconds, "damaged" if frame.is_corrupt else frame
                    number += 1
        if self.announced is not None and number < self.announced:
            yield number, seconds, f"the file ends here; it announces {self.announced} frames"

    def _opened(self) -> Any:
        av = require("av")
        try:
            return av.open(str(self.path))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise InputError(f"path={str(self.path)!r} cannot be read: {reason(error)}") from None

    def _size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size (width, height) that frames are given."""
        if self.short_side is None:
            return size
        scale = self.short_side / min(size)
        return max(round(scale * size[0]), 1), max(round(scale * size[1]), 1)

    def _range(self) -> str:
        return "" if self.start == 0 and self.stop is None else f" from frame {self.start} to {self.stop or 'the end'}"


def _kinds(file: Any) -> str:
    return ", ".join(sorted({stream.type for stream in file.streams})) or "nothing"


def _pixels(frame: Any, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The pixels of a decoded frame at the size (width, height)."""
    if (frame.width, frame.height) == size:
        same: npt.NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
        return same
    lanczos = require("PIL.Image").Resampling.LANCZOS
    return np.asarray(frame.to_image().resize(size, lanczos, reducing_gap=3.0), dtype=np.uint8)
