"""The experiment's images: Fashion-MNIST or the digits, and perturbed copies of them, which are kept on disk."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from dealias.data import digits_split
from dealias.errors import InputError
from dealias.files import prepare_output, write_whole
from dealias.optional import import_torchvision
from dealias.perturb.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from dealias.perturb.sequences import PERTURBATIONS, sequence

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
SIDE, PAD = 28, 2
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Images:
    """Images uint8 (N, 28, 28) and classes int64 (N,), to train on and to test."""

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def load(name: str, folder: Path | None, work: Path) -> Images:
    """Load Fashion-MNIST ("fashion") or the digits ("digits").

    Args:
        name: name of the data.
        folder: folder of Fashion-MNIST's four IDX files; None: Debian's folder, or a download by torchvision into
            `work`.
        work: folder for files that can be made again.
    """
    if name == "digits":
        train, test = digits_split(0)
        small = [
            (part.images[:, 0, PAD:-PAD, PAD:-PAD] * 255).round().to(torch.uint8).contiguous() for part in (train, test)
        ]
        return Images(name, small[0], train.labels, small[1], test.labels)
    if folder is None and DEBIAN.is_dir():
        folder = DEBIAN
    if folder is None:
        import_torchvision().datasets.FashionMNIST(str(work), download=True)
        folder = work / "FashionMNIST" / "raw"
    parts = [
        torch.from_numpy(_read_idx(folder, f"{split}-{kind}"))
        for split in ("train", "t10k")
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    ]
    return Images(name, parts[0], parts[1].long(), parts[2], parts[3].long())


def _read_idx(folder: Path, name: str) -> Bytes:
    """Read an IDX file of bytes, gzipped or not: two zeros, the type 8, the number of axes, their sizes, the values."""
    path = folder / name
    if path.is_file():
        content = path.read_bytes()
    elif (folder / f"{name}.gz").is_file():
        content = gzip.decompress((folder / f"{name}.gz").read_bytes())
    else:
        raise InputError(f"data={str(folder)!r} has no {name}(.gz): give the folder of Fashion-MNIST's IDX files")
    axes = content[3]
    shape = np.frombuffer(content, dtype=">u4", count=axes, offset=4)
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes)
    if content[:3] != b"\0\0\x08" or len(values) != shape.prod():
        raise InputError(f"data={str(folder)!r}: {name} is not a complete IDX file of bytes")
    return values.reshape(shape.astype(int)).copy()


def as_input(images: Tensor) -> Tensor:
    """The networks' input, float (..., 1, 32, 32) in [0, 1], from bytes (..., 28, 28), padded with zeros."""
    return F.pad(images.float() / 255, (PAD,) * 4).unsqueeze(-3)


def corrupted(images: Images, count: int, work: Path) -> Bytes:
    """The first `count` test images under ImageNet-C's corruptions at 28x28: uint8 (15, 5, count, 28, 28)."""

    def make() -> dict[str, Bytes]:
        pixels = images.test[:count].numpy()
        copies = [
            [
                [
                    corrupt(image, name, severity, generator=np.random.default_rng((0, severity, index)))
                    for index, image in enumerate(pixels)
                ]
                for severity in SEVERITIES
            ]
            for name in CORRUPTIONS
        ]
        return {"corrupted": np.array(copies)}

    return _kept(work / f"{images.name}-corrupted-{count}.npz", make)["corrupted"]


def sequences(images: Images, count: int, work: Path) -> dict[str, Bytes]:
    """ImageNet-P's sequences at 28x28 of the first `count` test images, by name: uint8 (count, frames, 28, 28)."""

    def make() -> dict[str, Bytes]:
        pixels = images.test[:count].numpy()
        return {
            name: np.stack(
                [
                    sequence(image, name, generator=np.random.default_rng((0, index)))
                    for index, image in enumerate(pixels)
                ]
            )
            for name in PERTURBATIONS
        }

    return _kept(work / f"{images.name}-sequences-{count}.npz", make)


def _kept(path: Path, make: Callable[[], dict[str, Bytes]]) -> dict[str, Bytes]:
    """Read the arrays at `path`, or make and write them if the file does not exist."""
    if not path.is_file():
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **make())
        prepare_output(path.parent)
        write_whole(path, buffer.getvalue())
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}
