"""Small video files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

av: Any = pytest.importorskip("av", reason="the extra video is not installed")


def write_video(path: Path, frames: np.ndarray) -> None:
    """Frames uint8 (frames, height, width, 3), without loss but for the way to YUV; `path` says the container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=1, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv444p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
