"""Tracks of boxes through a video: how often they break, and how much they jitter.

>>> box = torch.tensor([[10.0, 10.0, 40.0, 50.0]])
>>> frame = {"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}
>>> nothing = {"boxes": box[:0], "scores": torch.zeros(0), "labels": torch.zeros(0)}
>>> [track.frames for track in link_tracks([frame, frame, nothing, frame])]
[[0, 1, 3]]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from dealias.errors import InputError
from dealias.metrics._overlap import Shift, as_shifts, as_size
from dealias.metrics._rows import Ratio, RowMetric
from dealias.metrics.boxes import Detections, as_detections, lengths, match_boxes

LONGEST_GAP = 10
"""Frames within which a lost track may be found again."""
LEAST_IOU = 0.3
"""Least IoU of a box with the last one of its track, as in SORT (Bewley et al., Simple Online and Realtime Tracking,
ICIP 2016)."""


@dataclass
class Track:
    """An object through the frames of a video.

    Attributes:
        label: its class.
        frames: the numbers of the frames in which it is found, rising.
        places: for each of them the number of its box in that frame.
        boxes: for each of them the box, float64 (4,): x1, y1, x2, y2, less the known displacement where there is one.
        scores: for each of them the score.
    """

    label: int
    frames: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    boxes: list[Tensor] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def add(self, frame: int, place: int, found: Detections) -> None:
        """Add a box of a frame."""
        self.frames.append(frame)
        self.places.append(place)
        self.boxes.append(found.boxes[place])
        self.scores.append(float(found.scores[place]))

    def gaps(self) -> list[tuple[int, int]]:
        """The last frame before, and the first after, each stretch of frames in which it is lost."""
        following = zip(self.frames, self.frames[1:], strict=False)
        return [(before, after) for before, after in following if after > before + 1]

    def accelerations(self) -> Tensor:
        """The lengths of the centre's second differences over the box's diagonal, in consecutive frames."""
        boxes, frames = torch.stack(self.boxes), torch.tensor(self.frames)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        diagonals = lengths(boxes[1:-1, 2:] - boxes[1:-1, :2])
        steps = lengths(centres[2:] - 2 * centres[1:-1] + centres[:-2])
        usable = (frames[2:] - frames[:-2] == 2) & (diagonals > 0)
        return steps[usable] / diagonals[usable]


def link_tracks(frames: Sequence[Any], shifts: Shift | None = None) -> list[Track]:
    """Link boxes from frame to frame to tracks, in the order in which they begin.

    Each frame's boxes are matched one to one with the last boxes of the tracks that were found within the last 10
    frames, so that the total IoU is largest; a match has the same label and an IoU of at least .3.

    Args:
        frames: the detections in each frame, dictionaries in torchvision's format.
        shifts: (frames, 2), the known displacement (dy, dx) of the scene in each frame, which is undone first.

    Raises:
        InputError, InputTypeError: as `DetectionConsistency.update`.
        MissingExtraError: SciPy, which matches the boxes, is not installed.
    """
    found = as_detections("frames", frames)
    if shifts is not None:
        moves = as_shifts(shifts, len(found), "shifts")
        found = [each.moved_back(move) for each, move in zip(found, moves, strict=True)]
    tracks: list[Track] = []
    for number, boxes in enumerate(found):
        open_ones = [track for track in tracks if number - track.frames[-1] <= LONGEST_GAP + 1]
        last = Detections(
            torch.stack([track.boxes[-1] for track in open_ones]) if open_ones else torch.zeros(0, 4).double(),
            torch.ones(len(open_ones)).double(),
            torch.tensor([track.label for track in open_ones], dtype=torch.long),
        )
        old, new = match_boxes(last, boxes, LEAST_IOU)
        for which, place in zip(old, new, strict=True):
            open_ones[which].add(number, place, boxes)
        for place in sorted({*range(len(boxes))} - {*new}):
            track = Track(int(boxes.labels[place]))
            track.add(number, place, boxes)
            tracks.append(track)
    return tracks


class TrackStability(RowMetric):
    """How steadily a detector follows objects through videos, without ground truth.

    Boxes are linked by `link_tracks`. `compute` returns float32 scalars:
        fragments: number of times that a track is lost and found again within 10 frames, for each 100 frames.
        jitter: root mean square of the second difference of the boxes' centres, over the box's diagonal; NaN where no
            track has three frames in a row.

    On a pan the displacement of every frame is known: it is undone first, and a track is not lost while the box's
    centre is outside the frame.

    Raises:
        InputError: as `update`; or `compute`, `intervals` or `counts` is called before any `update`.

    Source: the fragment error and the centre position error of Zhang and Wang, On the Stability of Video Detection and
    Tracking, 2016.
    """

    higher_is_better = False
    columns = ("videos", "hundreds", "frames", "tracks", "fragments", "steps", "squares", "invalid")
    ratios: ClassVar = {"fragments": Ratio("fragments", "hundreds"), "mean_square": Ratio("squares", "steps")}
    counted = ("videos", "frames", "tracks", "invalid")

    def update(self, frames: Sequence[Any], shifts: Shift | None = None, size: Sequence[int] | None = None) -> None:
        """Add a video.

        Args:
            frames: the detections in each frame, dictionaries in torchvision's format.
            shifts: (frames, 2), the known displacement of the scene: what stands at (y, x) in a still scene stands at
                (y + dy, x + dx) in the frame.
            size: (height, width) of the frames; used with `shifts`.

        Raises:
            InputError, InputTypeError: there are no frames; or as `DetectionConsistency.update`.
        """
        found = as_detections("frames", frames)
        if not found:
            raise InputError("frames is empty: give the detections of one frame at least")
        tracks = link_tracks(found, shifts)
        moves = as_shifts((0.0, 0.0) if shifts is None else shifts, len(found), "shifts")
        bounds = None if shifts is None or size is None else as_size(size)
        fragments = sum(_is_lost(track, gap, moves, bounds) for track in tracks for gap in track.gaps())
        steps = torch.cat([torch.zeros(0).double(), *(track.accelerations() for track in tracks)])
        jitter = [len(steps), float((steps**2).sum())]
        invalid = sum(each.invalid for each in found)
        self._add([[1, len(found) / 100, len(found), len(tracks), fragments, *jitter, invalid]], None)

    def compute(self) -> dict[str, Tensor]:
        """The values, float32 scalars."""
        found = super().compute()
        return {"fragments": found["fragments"], "jitter": found["mean_square"].sqrt()}

    def intervals(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """The confidence interval of each value, from the scatter between videos (`ratio_interval`)."""
        found = super().intervals(level)
        low, high = found.pop("mean_square")
        return {**found, "jitter": (low**0.5, high**0.5)}


def _is_lost(
    track: Track, gap: tuple[int, int], moves: Sequence[tuple[float, float]], size: tuple[int, int] | None
) -> bool:
    """Whether the track is missing in a frame of the gap that shows the centre of its last box."""
    before, after = gap
    if size is None:
        return True
    box = track.boxes[track.frames.index(before)]
    x, y = ((box[:2] + box[2:]) / 2).tolist()
    places = [(y + dy, x + dx) for dy, dx in moves[before + 1 : after]]
    return any(0 <= row < size[0] and 0 <= column < size[1] for row, column in places)
