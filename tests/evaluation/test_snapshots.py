"""Pictures kept as frames pass: how many, which, and that those left over are removed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.flickering import FRAMES, pans

from dealias.evaluation.snapshots import MOST, SNAPSHOTS, Snapshots
from dealias.files import OutputFolder


@dataclass
class Film:
    """A video that announces a number of frames."""

    length: int | None
    shifts: None = None


@pytest.mark.parametrize("announced", [None, 10, 1000])
@pytest.mark.parametrize("count", [1, 99, 310])
def test_frames_of_a_video_are_spread_whatever_it_announces(tmp_path: Path, announced: int | None, count: int) -> None:
    clips: list[Any] = [Film(announced)]
    with OutputFolder(tmp_path / "run", "flicker", writes=(SNAPSHOTS,)) as folder:
        snapshots = Snapshots(folder, clips)
        for place in range(count):
            if snapshots.takes(0, place, place + 1):
                snapshots.add(0, place, place + 3, [b"one", b"other"])
        chosen = snapshots.chosen({0: count})
        places = [each.number - 3 for each in chosen]
        every = places[1] if len(places) > 1 else count
        assert places == [*range(0, count, every)]
        assert len(places) <= MOST
        # no more than twice as far apart as they need to be, if the video has the length that it announces
        assert every <= max(2 * -(-max(count, announced or 0) // MOST), 1) or count == 1
        assert {path.name for each in chosen for path in each.pictures} == {
            path.name for path in (folder.path / "frames").iterdir()
        }
        assert [path.read_bytes() for path in chosen[0].pictures] == [b"one", b"other"]


def test_of_pans_the_first_photographs_are_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dealias.evaluation.snapshots.MOST", 2 * FRAMES)
    clips: list[Any] = [*pans(tmp_path / "photos")]
    with OutputFolder(tmp_path / "run", "flicker", writes=(SNAPSHOTS,)) as folder:
        snapshots = Snapshots(folder, clips)
        taken = [(clip, place) for clip in range(3) for place in range(FRAMES) if snapshots.takes(clip, place, FRAMES)]
        assert taken == [(clip, place) for clip in (0, 1) for place in range(FRAMES)]
