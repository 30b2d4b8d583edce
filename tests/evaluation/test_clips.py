"""Clips: the frames of videos and of pans, as networks are shown them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.flickering import FRAMES, pans, square

from dealias.data import Video
from dealias.errors import InputError
from dealias.evaluation.clips import VideoClip

av: Any = pytest.importorskip("av")


def write(path: Path, height: int, width: int, count: int = 5) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        for number in range(count):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(square(2, number, height, width), format="rgb24")))
        file.mux(stream.encode())
    return path


def test_frames_of_a_video_are_cropped_to_multiples_of_32(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", 70, 100)
    clip = VideoClip(Video(path, start=1))
    shots = list(clip.shots())
    assert [shot.number for shot in shots] == [0, 1, 2, 3]
    for number, shot in enumerate(shots, 1):
        wanted = torch.from_numpy(square(2, number, 70, 100)[:64, :96]).permute(2, 0, 1)
        assert torch.equal(shot.pixels, wanted)
    assert (clip.name, clip.shifts, clip.skipped) == ("a.mkv", None, [])
    grey = next(iter(VideoClip(Video(path), channels=1).shots()))
    assert torch.equal(grey.pixels, torch.from_numpy(square(2, 0, 70, 100)[:64, :96, :1]).permute(2, 0, 1))
    with pytest.raises(InputError, match="has frames of 100x20 pixels"):
        list(VideoClip(Video(write(tmp_path / "b.mkv", 20, 100))).shots())


def test_the_scene_stands_where_the_shifts_say(tmp_path: Path) -> None:
    (clip,) = pans(tmp_path / "photos", count=1)
    corners = []
    for shot in clip.shots():
        rows, columns = np.nonzero(shot.pixels[0].numpy() > 128)
        corners.append((rows.min(), columns.min()))
    assert len(corners) == FRAMES
    assert [tuple(np.subtract(corner, corners[0])) for corner in corners] == clip.shifts
