"""Tracks of boxes through a video: how often they break, and how much they jitter.

>>> box = torch.tensor([[10.0, 10.0, 40.0, 50.0]])
>>> frame = {"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}
>>> nothing = {"boxes": box[:0], "scores": torch.zeros(0), "labels": torch.zeros(0)}
>>> [track.frames for track in link_tracks([frame, frame, nothing, frame])]
[[0, 1, 3]]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from dealias.errors import InputError, InputTypeError
from dealias.metrics._overlap import Shift, as_shifts, as_size
from dealias.metrics._rows import Ratio, RatioMetric
from dealias.metrics.boxes import Detections, match_boxes

Corners: TypeAlias = Sequence[float]
"""x1, y1, x2, y2."""
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


class TrackLinker:
    """Links boxes to tracks, frame by frame, as `link_tracks` says; keeps only the last boxes of open tracks."""

    def __init__(self) -> None:
        self._frame, self._begun = -1, 0
        self._open: list[int] = []
        self._last = Detections(*(torch.zeros(0, 4).double(), torch.zeros(0).double(), torch.zeros(0).long()))
        self._seen = torch.zeros(0).long()

    @property
    def open(self) -> list[int]:
        """The numbers of the tracks that were found within the last 10 frames."""
        return self._open

    def add(self, found: Detections) -> list[int]:
        """The number of the track of each box of the next frame; new tracks have the numbers that follow."""
        self._frame += 1
        fresh = self._frame - self._seen <= LONGEST_GAP + 1
        self._open = [number for number, is_fresh in zip(self._open, fresh.tolist(), strict=True) if is_fresh]
        self._last, self._seen = self._last.take(fresh), self._seen[fresh]
        old, new = match_boxes(self._last, found, LEAST_IOU)
        numbers = [-1] * len(found)
        for which, place in zip(old, new, strict=True):
            numbers[place] = self._open[which]
        self._last.boxes[old], self._seen[old] = found.boxes[new], self._frame
        begun = [place for place, number in enumerate(numbers) if number < 0]
        for place in begun:
            numbers[place] = self._begun
            self._open.append(self._begun)
            self._begun += 1
        others = found.take(begun)
        self._last = Detections(
            torch.cat([self._last.boxes, others.boxes]),
            torch.cat([self._last.scores, others.scores]),
            torch.cat([self._last.labels, others.labels]),
        )
        self._seen = torch.cat([self._seen, torch.full((len(begun),), self._frame)])
        return numbers


def link_tracks(frames: Iterable[Any], shifts: Shift | None = None) -> list[Track]:
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
    linker = TrackLinker()
    tracks: list[Track] = []
    for number, (found, _) in enumerate(still_frames(frames, shifts)):
        for place, track in enumerate(linker.add(found)):
            if track == len(tracks):
                tracks.append(Track(int(found.labels[place])))
            tracks[track].add(number, place, found)
    return tracks


def still_frames(frames: Any, shifts: Shift | None) -> Iterator[tuple[Detections, tuple[float, float]]]:
    """The detections of each frame less the displacement of the scene, and that displacement.

    Raises:
        InputError, InputTypeError: as `link_tracks`.
    """
    if isinstance(frames, dict | str) or not isinstance(frames, Iterable):
        raise InputTypeError(f"frames must be dictionaries, one for each frame, got {type(frames).__name__}")
    moves: Iterable[tuple[float, float]] = repeat((0.0, 0.0))
    if shifts is not None:
        frames = [*frames]
        moves = as_shifts(shifts, len(frames), "shifts")
    for number, (frame, move) in enumerate(zip(frames, moves, strict=False)):
        found = Detections.of(f"frames[{number}]", frame)
        yield found.moved_back(move) if any(move) else found, move


@dataclass
class Motion:
    """What is known of a track up to now, of any length.

    Attributes:
        count: number of frames in which it was found.
        fragments: number of times that it was lost and found again.
        steps, squares: number, and sum of the squares, of the centre's second differences over the box's diagonal, in
            consecutive frames.
    """

    count: int = 0
    fragments: int = 0
    steps: int = 0
    squares: float = 0.0
    _recent: list[tuple[int, Corners]] = field(default_factory=list)

    @property
    def last(self) -> tuple[int, Corners]:
        """The last frame in which it was found, and its box there."""
        return self._recent[-1]

    def add(self, frame: int, box: Corners) -> None:
        """The next frame in which it was found."""
        self.count += 1
        self._recent = [*self._recent[-2:], (frame, box)]
        if len(self._recent) == 3 and self._recent[0][0] == frame - 2:
            (x, y), (then_x, then_y), (last_x, last_y) = (_centre(each) for _, each in self._recent)
            left, top, right, bottom = self._recent[1][1]
            diagonal = math.hypot(right - left, bottom - top)
            if diagonal > 0:
                self.steps += 1
                self.squares += (math.hypot(last_x - 2 * then_x + x, last_y - 2 * then_y + y) / diagonal) ** 2

    def include(self, others: Iterable[tuple[int, Motion]]) -> None:
        """Add the numbers of other tracks."""
        for _, other in others:
            self.count, self.fragments = self.count + other.count, self.fragments + other.fragments
            self.steps, self.squares = self.steps + other.steps, self.squares + other.squares


def extreme_tracks(frames: Callable[[], Iterable[Any]], shifts: Shift | None = None) -> dict[str, Track]:
    """The "steadiest" and the "least steady" track, by the jitter of the centre, of those of at least five frames.

    Args:
        frames: returns the detections in each frame, from the first one on; called twice, so that only two tracks are
            in memory.
        shifts: as for `link_tracks`.
    """
    rated: dict[str, tuple[float, int]] = {}
    follower = _Follower()

    def rate(ended: Iterable[tuple[int, Motion]]) -> None:
        for number, motion in ended:
            if motion.count >= 5 and motion.steps:
                jitter = motion.squares / motion.steps
                rated["steadiest"] = min(rated.get("steadiest", (jitter, number)), (jitter, number))
                rated["least steady"] = max(rated.get("least steady", (jitter, -number)), (jitter, -number))

    for found, move in still_frames(frames(), shifts):
        rate(follower.add(found, move))
    rate(follower.rest())
    numbers = {name: abs(number) for name, (_, number) in rated.items()}
    if len({*numbers.values()}) < len(numbers):
        del numbers["least steady"]
    tracks = {name: Track(-1) for name in numbers}
    linker = TrackLinker()
    for frame, (found, _) in enumerate(still_frames(frames(), shifts)):
        for place, number in enumerate(linker.add(found)):
            for name, track in tracks.items():
                if numbers[name] == number:
                    track.label = int(found.labels[place])
                    track.add(frame, place, found)
    return tracks


class _Follower:
    """Follows the boxes of a video frame by frame; keeps what is known of the open tracks.

    Args:
        size: (height, width) of the frames where the displacement of the scene is known.
    """

    def __init__(self, size: tuple[int, int] | None = None) -> None:
        self.frames, self.invalid, self.tracks = 0, 0, 0
        self._size, self._linker = size, TrackLinker()
        self._open: dict[int, Motion] = {}
        self._moves: list[tuple[float, float]] = []

    def add(self, found: Detections, move: tuple[float, float]) -> list[tuple[int, Motion]]:
        """The next frame, and the displacement that was undone in it; returns the tracks that have ended."""
        self._moves = [*self._moves[-LONGEST_GAP - 1 :], move]
        self.invalid += found.invalid
        for number, box in zip(self._linker.add(found), found.boxes.tolist(), strict=True):
            self.tracks = max(self.tracks, number + 1)
            motion = self._open.setdefault(number, Motion())
            missing = self.frames - motion.last[0] - 1 if motion.count else 0
            if missing:
                motion.fragments += _is_lost(motion.last[1], self._moves[-1 - missing : -1], self._size)
            motion.add(self.frames, box)
        self.frames += 1
        return [(number, self._open.pop(number)) for number in sorted(self._open.keys() - {*self._linker.open})]

    def rest(self) -> list[tuple[int, Motion]]:
        """The tracks that have not ended."""
        return [*self._open.items()]


class TrackStability(RatioMetric):
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

    def update(self, frames: Iterable[Any], shifts: Shift | None = None, size: Sequence[int] | None = None) -> None:
        """Add a video.

        Args:
            frames: the detections in each frame, dictionaries in torchvision's format; an iterator is read frame by
                frame, so that memory does not grow with the video's length.
            shifts: (frames, 2), the known displacement of the scene: what stands at (y, x) in a still scene stands at
                (y + dy, x + dx) in the frame.
            size: (height, width) of the frames; used with `shifts`.

        Raises:
            InputError, InputTypeError: there are no frames; or as `DetectionConsistency.update`.
        """
        bounds = None if shifts is None or size is None else as_size(size)
        follower, motions = _Follower(bounds), Motion()
        for found, move in still_frames(frames, shifts):
            motions.include(follower.add(found, move))
        if not follower.frames:
            raise InputError("frames is empty: give the detections of one frame at least")
        motions.include(follower.rest())
        count = follower.frames
        sums = [motions.fragments, motions.steps, motions.squares]
        self._add([[1, count / 100, count, follower.tracks, *sums, follower.invalid]], None)

    def compute(self) -> dict[str, Tensor]:
        """The values, float32 scalars."""
        found = super().compute()
        return {"fragments": found["fragments"], "jitter": found["mean_square"].sqrt()}

    def intervals(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """The confidence interval of each value, from the scatter between videos (`ratio_interval`)."""
        found = super().intervals(level)
        low, high = found.pop("mean_square")
        return {**found, "jitter": (low**0.5, high**0.5)}


def _centre(box: Corners) -> tuple[float, float]:
    left, top, right, bottom = box
    return (left + right) / 2, (top + bottom) / 2


def _is_lost(box: Corners, moves: Sequence[tuple[float, float]], size: tuple[int, int] | None) -> bool:
    """Whether a frame of the gap, with these displacements, shows the centre of the last box before it."""
    if size is None:
        return True
    x, y = _centre(box)
    places = [(y + dy, x + dx) for dy, dx in moves]
    return any(0 <= row < size[0] and 0 <= column < size[1] for row, column in places)
