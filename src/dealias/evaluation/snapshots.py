"""Pictures of some frames with the networks' answers drawn, kept on disk as the frames pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from dealias.evaluation.clips import Clip
from dealias.files import OutputFolder
from dealias.metrics.outputs import Predictions

SNAPSHOTS = "frames/*.jpg"
MOST = 100
"""Frames of which pictures are kept."""
_NAME = re.compile(r"(\d+)-(\d+)-(\d+)\.(\d+)\.jpg")

Draw: TypeAlias = Callable[[Tensor, Predictions], bytes]
"""From a frame, uint8 (C, H, W), and a network's answer to it to a JPEG."""


@dataclass(frozen=True)
class Snapshot:
    """A frame of which there are pictures.

    Attributes:
        clip, number: the number of the clip, and of the frame in it.
        pictures: JPEGs, one for each network.
    """

    clip: int
    number: int
    pictures: Sequence[Path]


class Snapshots:
    """The pictures in the folder of a measurement, of `MOST` frames at most.

    Of a video they are spread over its length: every frame, every second, fourth ... one. Of pans they are all frames
    of the first photographs.

    Args:
        folder: open.
        clips: that are measured.
    """

    def __init__(self, folder: OutputFolder, clips: Sequence[Clip]) -> None:
        self._folder = folder
        self._known = [clip.shifts is not None for clip in clips]
        self._starts = [0, *accumulate(clip.length or 0 for clip in clips)]

    def takes(self, clip: int, place: int, seen: int) -> bool:
        """Whether the frame at that place of a clip is kept, where so many frames of the clip were seen."""
        if self._known[clip]:
            return self._starts[clip] + place < MOST
        every = max(-(-(self._starts[clip + 1] - self._starts[clip]) // MOST), 1)
        while seen > every * MOST:  # the file announced fewer frames, or none
            every *= 2
        return place % every == 0

    def add(self, clip: int, place: int, number: int, pictures: Sequence[bytes]) -> None:
        """Keep the pictures of a frame."""
        self._folder.own(SNAPSHOTS)
        for network, picture in enumerate(pictures):
            self._folder.write(f"frames/{clip}-{place}-{number}.{network}.jpg", picture)

    def chosen(self, seen: Mapping[int, int]) -> list[Snapshot]:
        """The pictures that are kept where so many frames of each clip were seen; others are removed."""
        found: dict[tuple[int, int, int], dict[int, Path]] = {}
        for path in (self._folder.path / "frames").glob("*.jpg"):
            if match := _NAME.fullmatch(path.name):
                clip, place, number, network = map(int, match.groups())
                if self.takes(clip, place, seen.get(clip, 0)):
                    found.setdefault((clip, place, number), {})[network] = path
                else:
                    path.unlink()
        return [
            Snapshot(clip, number, [pictures[network] for network in sorted(pictures)])
            for (clip, _, number), pictures in sorted(found.items())
        ]
