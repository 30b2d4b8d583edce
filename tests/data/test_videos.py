"""Videos of every kind that FFmpeg writes, and damaged ones."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dealias.data.videos import Video
from dealias.errors import InputError

av: Any = pytest.importorskip("av")
COUNT, HEIGHT, WIDTH = 12, 48, 64


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.full((height, width, 3), 20 * number, np.uint8)


def write(path: Path, codec: str = "mpeg4", times: list[int] | None = None, sound: bool = False) -> Path:
    """A video of frames in rising greys, a key frame each; `times` in thirtieths of a second."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=30)
        stream.width, stream.height, stream.gop_size = WIDTH, HEIGHT, 1
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30)
        for number in range(COUNT):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = (times or list(range(COUNT)))[number], Fraction(1, 30)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def greys(video: Video) -> list[int]:
    return [round(float(frame.pixels.mean()) / 20) for frame in video]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mpeg4"), ("a.avi", "mjpeg"), ("a.mkv", "ffv1"), ("a.ts", "mpeg2video")]
)
def test_frames_come_in_order_in_any_container(tmp_path: Path, name: str, codec: str) -> None:
    video = Video(write(tmp_path / name, codec))
    for _ in range(2):  # iterating starts again
        assert greys(video) == list(range(COUNT))
    assert [frame.number for frame in video] == list(range(COUNT))
    assert {frame.pixels.shape for frame in video} == {(HEIGHT, WIDTH, 3)}
    assert (video.skipped, video.resized, video.rate) == ([], 0, 30.0)


def test_a_range_of_frames(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4")
    assert greys(Video(path, start=3, stop=7)) == [3, 4, 5, 6]
    assert [frame.number for frame in Video(path, start=10)] == [10, 11]
    with pytest.raises(InputError, match=r"has no frame that can be decoded from frame 50 to the end"):
        list(Video(path, start=50))


def test_frames_are_resized_as_pillow_does(tmp_path: Path) -> None:
    (frame, *_) = Video(write(tmp_path / "a.mkv", "ffv1"), short_side=24)
    assert frame.pixels.shape == (24, 32, 3)
    assert abs(float(frame.pixels.mean())) < 2


def test_a_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [number**2 for number in range(COUNT)]
    video = Video(write(tmp_path / "a.mkv", times=times))
    assert [round(30 * frame.seconds) for frame in video] == times


def test_damaged_frames_are_skipped_and_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avi", "mjpeg")
    content = bytearray(path.read_bytes())
    starts = [place for place in range(len(content) - 3) if content[place : place + 3] == b"\xff\xd8\xff"]
    assert len(starts) == COUNT
    content[starts[4] : starts[5] - 8] = bytes(starts[5] - 8 - starts[4])
    path.write_bytes(content)
    video = Video(path)
    assert greys(video) == [number for number in range(COUNT) if number != 4]
    assert [number for number, _ in video.skipped] == [4]
    assert all(text.isprintable() and text for _, text in video.skipped)


def test_a_truncated_file_gives_what_it_has(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avi", "mjpeg")
    content = path.read_bytes()
    starts = [place for place in range(len(content) - 3) if content[place : place + 3] == b"\xff\xd8\xff"]
    path.write_bytes(content[: starts[7] + 5])
    video = Video(path)
    found = greys(video)
    assert found[:7] == list(range(7))
    assert video.skipped
    assert video.skipped[-1][1] == f"the file ends here; it announces {COUNT} frames"


def test_frames_of_another_size_are_given_the_first_one_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = Video(write(tmp_path / "a.mp4"))
    sizes = [(HEIGHT, WIDTH), (HEIGHT // 2, WIDTH // 2), (HEIGHT, WIDTH)]

    frames = [av.VideoFrame.from_ndarray(picture(3, *size), format="rgb24") for size in sizes]
    monkeypatch.setattr(video, "_decoded", lambda: ((number, 0.0, frame) for number, frame in enumerate(frames)))
    assert [frame.pixels.shape for frame in video] == [(HEIGHT, WIDTH, 3)] * 3
    assert video.resized == 1


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    for path, message in (
        (tmp_path / "missing.mp4", "cannot be read"),
        (tmp_path / "text.mp4", "cannot be read"),
        (tmp_path, "cannot be read"),
        (write_sound(tmp_path / "a.wav"), "has no pictures, only audio"),
    ):
        with pytest.raises(InputError, match=message) as refusal:
            list(Video(path))
        assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"start": -1}, "start=-1"), ({"start": 5, "stop": 5}, "stop=5"), ({"short_side": 0}, "short_side=0")],
)
def test_bad_arguments(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Video(write(tmp_path / "a.mp4"), **arguments)
