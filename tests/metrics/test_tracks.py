"""Tracks: linking, fragments and jitter of videos whose motion, losses and noise are known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from dealias.errors import InputError
from dealias.metrics import TrackStability, link_tracks
from dealias.metrics.boxes import Detections
from dealias.metrics.tracks import TrackLinker, extreme_tracks


def frame(*boxes: Any, labels: Any = None) -> dict[str, torch.Tensor]:
    found = torch.tensor(np.array(boxes, float).reshape(-1, 4))
    classes = torch.ones(len(found)) if labels is None else torch.tensor(labels)
    return {"boxes": found, "scores": torch.full((len(found),), 0.5), "labels": classes}


def square(y: float, x: float, side: float = 30) -> list[float]:
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]


def test_objects_that_move_keep_their_tracks() -> None:
    frames = [frame(square(50, 20 + 4 * t), square(50, 180 - 4 * t), labels=[1, 2]) for t in range(40)]
    # the two cross; the second comes first in every other frame
    frames = [{key: value.flip(0) if t % 2 else value for key, value in each.items()} for t, each in enumerate(frames)]
    tracks = link_tracks(frames)
    assert [(track.label, track.frames) for track in tracks] == [(1, [*range(40)]), (2, [*range(40)])]
    assert tracks[0].places == [t % 2 for t in range(40)]
    metric = TrackStability()
    metric.update(frames)
    assert metric.compute()["fragments"] == 0
    assert metric.compute()["jitter"].item() < 1e-6
    assert metric.counts() == {"videos": 1, "frames": 40, "tracks": 2, "invalid": 0}


@pytest.mark.parametrize(("missing", "tracks", "fragments"), [(0, 1, 0), (1, 1, 1), (10, 1, 1), (11, 2, 0)])
def test_a_track_found_again_within_ten_frames_is_a_fragment(missing: int, tracks: int, fragments: int) -> None:
    frames = [frame(square(50, 50))] * 20 + [frame()] * missing + [frame(square(50, 50))] * 20
    metric = TrackStability()
    metric.update(frames)
    assert metric.counts()["tracks"] == tracks
    assert metric.compute()["fragments"].item() == pytest.approx(100 * fragments / len(frames))


def test_dropout_at_a_known_rate_gives_its_closed_form() -> None:
    generator = np.random.default_rng(0)
    rate, metric = 0.1, TrackStability()
    for _ in range(30):
        metric.update([frame(*([square(50, 50)] if generator.uniform() >= rate else [])) for _ in range(200)])
    # a gap begins in each frame that is missing after one that is not
    low, high = metric.intervals(0.99)["fragments"]
    assert low < 100 * rate * (1 - rate) < high
    assert high - low < 3


def test_noise_of_known_strength_gives_its_closed_form() -> None:
    generator = np.random.default_rng(1)
    sigma, metric = 0.9, TrackStability()
    for _ in range(12):
        metric.update([frame(square(*(60 + generator.normal(0, sigma, 2)))) for _ in range(100)])
    # the second difference of white noise has 1 + 4 + 1 times its variance, on both axes
    expected = sigma * np.sqrt(12) / (30 * np.sqrt(2))
    low, high = metric.intervals(0.99)["jitter"]
    assert low < expected < high
    assert high - low < 0.2 * expected


def test_on_a_pan_the_motion_is_undone_and_an_object_outside_is_not_lost() -> None:
    generator = np.random.default_rng(2)
    shifts = np.cumsum(generator.integers(-9, 10, (60, 2)), 0)
    frames = [frame(square(60 + dy, 60 + dx)) for dy, dx in shifts]
    moving, still = TrackStability(), TrackStability()
    moving.update(frames)
    still.update(frames, torch.tensor(shifts), (300, 300))
    assert still.compute() == {"fragments": 0, "jitter": 0}
    assert moving.compute()["jitter"] > 0.1
    # it leaves the frame on the left for five frames
    path = [(0, dx) for dx in (0, 0, 0, -70, -70, -70, -70, -70, 0, 0)]
    seen = [frame(*([square(60, 60 + dx)] if dx == 0 else [])) for _, dx in path]
    metric = TrackStability()
    metric.update(seen, path, (120, 120))
    assert metric.compute()["fragments"] == 0
    metric.reset()
    metric.update(seen, [(0, 0)] * 10, (120, 120))
    assert metric.compute()["fragments"].item() == pytest.approx(10)


def test_videos_without_boxes_and_bad_input() -> None:
    metric = TrackStability()
    metric.update([frame()] * 5)
    assert metric.compute()["fragments"] == 0
    assert metric.compute()["jitter"].isnan()
    metric.update([frame([0, 0, torch.nan, 5])])
    assert metric.counts()["invalid"] == 1
    with pytest.raises(InputError, match="frames is empty"):
        metric.update([])
    with pytest.raises(InputError, match="shifts has shape"):
        metric.update([frame()] * 5, [(0, 0)] * 4)


def test_frames_are_read_one_by_one_and_a_long_gap_ends_a_track() -> None:
    read: list[int] = []

    def frames(count: int = 60) -> Iterator[dict[str, torch.Tensor]]:
        for t in range(count):
            read.append(t)
            yield frame(*([square(50, 50 + t % 2), square(150, 150)] if t % 20 < 5 else []))

    metric = TrackStability()
    metric.update(frames())
    assert read == [*range(60)]
    assert metric.counts() == {"videos": 1, "frames": 60, "tracks": 6, "invalid": 0}
    linker = TrackLinker()
    opened = []
    for each in frames():
        linker.add(Detections.of("frame", each))
        opened.append(len(linker.open))
    # found in frames 0 to 4 of 20, and open until frame 15, in which a gap of ten would end
    assert opened == ([2] * 16 + [0] * 4) * 3


def test_the_extreme_tracks_are_those_of_least_and_most_jitter() -> None:
    jitters = [0, 3, 1, 2]
    frames = [
        frame(*(square(100 * place, 50 + (1 if t % 2 else -1) * jitter) for place, jitter in enumerate(jitters)))
        for t in range(9)
    ]
    frames = [frame(square(1000, 0), square(1000, 40))] * 4 + frames  # too short to be rated
    found = extreme_tracks(lambda: frames)
    assert {name: float(track.boxes[0][1] + 15) for name, track in found.items()} == {
        "steadiest": 0,
        "least steady": 100,
    }
    linked = {track.places[0]: track for track in link_tracks(frames)[2:]}
    for name, place in (("steadiest", 0), ("least steady", 1)):
        assert found[name].frames == linked[place].frames == [*range(4, 13)]
        assert torch.equal(torch.stack(found[name].boxes), torch.stack(linked[place].boxes))
        assert found[name].scores == linked[place].scores
    assert [*extreme_tracks(lambda: [frame(square(50, 50))] * 5)] == ["steadiest"]
    assert extreme_tracks(lambda: [frame(square(50, 50))] * 4) == {}
