"""Find the images and videos of the released ImageNet-C and ImageNet-P in their unpacked archives.

The archives are unpacked into one folder, or each into a subfolder of its own.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dealias.errors import InputError
from dealias.optional import require
from dealias.perturb.names import NOISE_PERTURBATIONS, check_corruption, check_perturbation

VIDEO_EXTENSIONS = (".mp4", ".avi", ".mkv", ".mov")


def released_corruption(root: str | PathLike[str], corruption: str, severity: int) -> Path:
    """The folder of one corruption and severity, which has a subfolder of images for each class.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> (root / "weather" / "fog" / "3").mkdir(parents=True)
    >>> released_corruption(root, "fog", 3).relative_to(root).as_posix()
    'weather/fog/3'

    Args:
        root: where the archives were unpacked: `root`/CORRUPTION/SEVERITY, or one folder deeper.
        corruption, severity: as for `corrupt`.

    Raises:
        InputError: the corruption or the severity is unknown, or its folder does not exist.
    """
    check_corruption(corruption, severity, "corruption")
    return _below(Path(root), Path(corruption, str(severity)))


def released_videos(root: str | PathLike[str], perturbation: str, *, difficulty: int = 1) -> list[tuple[Path, str]]:
    """The videos of one perturbation and the names of their classes, in the order of their paths.

    Args:
        root: where the archives were unpacked: `root`/PERTURBATION/CLASS/VIDEO, or one folder deeper.
        perturbation, difficulty: as for `sequence`. Noise has separate videos for difficulties 2 and 3, in folders such
            as gaussian_noise_2.

    Raises:
        InputError: the perturbation or the difficulty is unknown, or its folder does not exist or has no videos.
    """
    check_perturbation(perturbation, difficulty, "perturbation")
    own = difficulty > 1 and perturbation in NOISE_PERTURBATIONS
    folder = _below(Path(root), Path(f"{perturbation}_{difficulty}" if own else perturbation))
    videos = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in VIDEO_EXTENSIONS)
    if not videos:
        raise InputError(f"{str(folder)!r} has no videos: expected CLASS/VIDEO with {', '.join(VIDEO_EXTENSIONS)}")
    return [(path, path.parent.name) for path in videos]


def read_video(path: str | PathLike[str]) -> npt.NDArray[np.uint8]:
    """All frames of a video, uint8 (frames, height, width, 3).

    Raises:
        InputError: the file is missing, or FFmpeg cannot decode it to its end.
        MissingExtraError: PyAV is not installed.
    """
    av = require("av")
    try:
        with av.open(str(path)) as file:
            announced = file.streams.video[0].frames  # 0 if the container does not give it
            frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    except (av.FFmpegError, OSError, IndexError) as error:
        raise InputError(f"{str(path)!r} is not a readable video: {error}") from None
    if not frames or len(frames) < announced:
        raise InputError(f"{str(path)!r} is not a readable video: it ends after {len(frames)} of {announced} frames")
    return np.stack(frames)


def _below(root: Path, folder: Path) -> Path:
    """`folder` in `root` or in one of its subfolders."""
    if not root.is_dir():
        raise InputError(f"root={str(root)!r} is not a folder: give the one with the unpacked archives")
    for parent in (root, *sorted(entry for entry in root.iterdir() if entry.is_dir())):
        if (parent / folder).is_dir():
            return parent / folder
    raise InputError(
        f"root={str(root)!r} has no folder {folder}, and neither has a subfolder: unpack its archive there"
    )
