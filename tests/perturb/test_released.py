from pathlib import Path

import numpy as np
import pytest
from helpers.videos import write_video

from dealias.errors import InputError
from dealias.perturb import read_video, released_corruption, released_videos, sequence


def test_videos_come_back(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8)[:, None] * 3, (64, 1, 3))
    frames = sequence(ramp, "rotate", generator=np.random.default_rng(0))
    write_video(tmp_path / "rotate" / "n02" / "b.mp4", frames)
    write_video(tmp_path / "rotate" / "n01" / "a.mp4", frames[::-1])
    (tmp_path / "rotate" / "n01" / "notes.txt").touch()
    videos = released_videos(tmp_path, "rotate", difficulty=2)
    assert [(path.name, label) for path, label in videos] == [("a.mp4", "n01"), ("b.mp4", "n02")]
    read = read_video(videos[1][0])
    assert read.dtype == np.uint8
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).max() <= 4  # of the way to YUV and back


def test_a_video_cut_short_is_refused(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "cut.avi", frames)  # its index is in front: the frames that are left can be read
    content = (tmp_path / "cut.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"is not a readable video: it ends after \d of 12 frames"):
        read_video(tmp_path / "cut.avi")


def test_noise_has_folders_by_difficulty(tmp_path: Path) -> None:
    for folder in ("gaussian_noise", "noise/gaussian_noise_3"):
        (tmp_path / folder / "n01").mkdir(parents=True)
        (tmp_path / folder / "n01" / "a.mp4").touch()
    assert released_videos(tmp_path, "gaussian_noise")[0][0] == tmp_path / "gaussian_noise/n01/a.mp4"
    assert released_videos(tmp_path, "gaussian_noise", difficulty=3)[0][0].parts[-4:-2] == ("noise", "gaussian_noise_3")
    with pytest.raises(InputError, match="no folder gaussian_noise_2"):
        released_videos(tmp_path, "gaussian_noise", difficulty=2)


@pytest.mark.parametrize("parent", ["", "weather"])
def test_corruptions_are_found(tmp_path: Path, parent: str) -> None:
    (tmp_path / parent / "fog" / "3").mkdir(parents=True)
    assert released_corruption(tmp_path, "fog", 3) == tmp_path / parent / "fog" / "3"
    with pytest.raises(InputError, match="unpack"):
        released_corruption(tmp_path, "fog", 4)


def test_bad_input(tmp_path: Path) -> None:
    (tmp_path / "tilt").mkdir()
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    for call, words in (
        (lambda: released_corruption(tmp_path, "rain", 1), "rain"),
        (lambda: released_corruption(tmp_path, "fog", 0), "severity=0"),
        (lambda: released_corruption(tmp_path / "none", "fog", 1), "is not a folder"),
        (lambda: released_videos(tmp_path, "fog"), "fog"),
        (lambda: released_videos(tmp_path, "tilt"), "no videos"),
        (lambda: released_videos(tmp_path, "tilt", difficulty=0), "difficulty=0"),
        (lambda: read_video(tmp_path / "broken.mp4"), "is not a readable video"),
        (lambda: read_video(tmp_path / "missing.mp4"), "is not a readable video"),
    ):
        with pytest.raises(InputError, match=words):
            call()
