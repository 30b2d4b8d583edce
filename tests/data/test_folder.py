"""Image folders, against torchvision's ImageFolder and Pillow; damaged files among good ones."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dealias.data import Folder, load_images, read_image
from dealias.errors import InputError
from dealias.models import IMAGENET_MEAN, IMAGENET_STD
from dealias.optional import import_torchvision


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth random colours, which survive JPEG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, (name, size) in enumerate(
        {
            "dog/b.JPG": (300, 260),
            "dog/a.png": (256, 256),
            "cat/10.png": (40, 30),
            "cat/9.webp": (640, 300),
            "cat/deep/er/1.bmp": (260, 700),
            "ant/x.tiff": (333, 299),
        }.items()
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(*size, seed).save(tmp_path / name)
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    (tmp_path / "readme.md").write_text("neither")
    return tmp_path


def test_is_torchvisions_image_folder(root: Path) -> None:
    torchvision = import_torchvision()
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

    steps = [ToTensor(), Resize(256, antialias=True), CenterCrop(256), Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    reference = ImageFolder(str(root), Compose(steps))
    folder = Folder(root)
    assert torchvision is not None
    assert folder.classes == reference.classes == ["ant", "cat", "dog"]
    assert [str(path) for path in folder.paths] == [path for path, _ in reference.samples]
    batches = list(folder.batches(4))
    assert [len(labels) for _, labels in batches] == [4, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == reference.targets
    expected = torch.stack([image for image, _ in reference])
    assert torch.allclose(torch.cat([images for images, _ in batches]), expected, atol=1e-5)
    assert folder.skipped == []
    assert len(folder) == 6


def test_load_images_and_limit(root: Path) -> None:
    told: list[tuple[int, int]] = []
    loaded = load_images(root, 64, progress=lambda done, total: told.append((done, total)))
    assert loaded.images.shape == (6, 3, 64, 64)
    assert float(loaded.images.min()) >= 0
    assert float(loaded.images.max()) <= 1
    assert told == [(done, 6) for done in range(1, 7)]
    few = load_images(root, 64, limit=3, seed=1)
    where = [loaded.paths.index(path) for path in few.paths]
    assert len(where) == 3
    assert where == sorted(where)
    assert torch.equal(few.images, loaded.images[where])
    assert torch.equal(few.targets, loaded.targets[where])
    drawn = {tuple(load_images(root, 8, limit=3, seed=seed).paths) for seed in range(6)}
    assert len(drawn) > 1
    assert load_images(root, 8, limit=100).paths == loaded.paths
    gray = load_images(root, 64, channels=1)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert gray.images.shape == (6, 1, 64, 64)
    assert torch.allclose(gray.images, (loaded.images * weights).sum(1, keepdim=True), atol=0.01)


def test_every_mode_becomes_rgb(tmp_path: Path) -> None:
    colour = picture(20, 10)
    gray = np.asarray(colour.convert("L"))
    frames = [picture(20, 10, seed) for seed in (5, 6)]
    frames[0].save(tmp_path / "animated.gif", save_all=True, append_images=frames[1:])
    cases = {
        "rgb.png": (colour, np.asarray(colour), 0),
        "gray.png": (colour.convert("L"), np.stack([gray] * 3, -1), 0),
        "bits.png": (colour.convert("1"), np.asarray(colour.convert("1").convert("RGB")), 0),
        "deep.png": (Image.fromarray(gray.astype(np.uint16) * 257), np.stack([gray] * 3, -1), 1),
        "deep.tiff": (Image.fromarray(gray.astype(np.uint16) * 257), np.stack([gray] * 3, -1), 1),
        "palette.png": (colour.quantize(16), np.asarray(colour.quantize(16).convert("RGB")), 0),
        "cmyk.jpg": (colour.convert("CMYK"), np.asarray(colour), 25),
    }
    half = colour.convert("RGBA")
    half.putalpha(128)
    blended = np.asarray(colour) * (128 / 255) + 255 * (127 / 255)
    cases["alpha.png"] = (half, blended, 1)
    clear = colour.convert("LA")
    clear.putalpha(0)
    cases["clear.png"] = (clear, np.full((10, 20, 3), 255), 0)
    for name, (image, expected, tolerance) in cases.items():
        image.save(tmp_path / name)
        found = read_image(tmp_path / name)
        assert found.shape == (3, 10, 20), name
        assert found.dtype == torch.float32
        assert np.abs(found.permute(1, 2, 0).numpy() * 255 - expected).max() <= tolerance + 1e-3, name
    first = read_image(tmp_path / "animated.gif").permute(1, 2, 0).numpy() * 255
    distances = [np.abs(first - np.asarray(frame)).mean() for frame in frames]
    assert distances[0] < 10 < distances[1]


def test_the_cameras_orientation_is_applied(tmp_path: Path) -> None:
    image = picture(20, 10)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    found = read_image(tmp_path / "turned.png").permute(1, 2, 0).numpy() * 255
    assert np.allclose(found, np.rot90(np.asarray(image), -1))


def test_damaged_files_are_skipped_counted_and_named(root: Path) -> None:
    generator = random.Random(0)
    whole = (root / "dog" / "b.JPG").read_bytes()
    png = (root / "dog" / "a.png").read_bytes()
    bad = {
        "cut.jpg": whole[: len(whole) // 2],
        "head.jpg": whole[:15],
        "empty.jpg": b"",
        "text.png": b"hello",
        "cut.png": png[: len(png) // 2],
        "flipped.png": png[:40] + bytes(255 - byte for byte in png[40:60]) + png[60:],
        "noise.gif": b"GIF89a" + generator.randbytes(300),
        "noise.tif": b"II*\x00" + generator.randbytes(300),
        "noise.bmp": b"BM" + generator.randbytes(300),
        "noise.webp": b"RIFF\x00\x01\x00\x00WEBPVP8 " + generator.randbytes(300),
        "noise.ppm": b"P6 9999999 9999999 255 " + generator.randbytes(30),
    }
    for name, content in bad.items():
        (root / "cat" / name).write_bytes(content)
    (root / "cat" / "dangling.png").symlink_to(root / "nowhere.png")
    (root / "cat" / "folder.png").mkdir()
    folder = Folder(root, size=16)
    labels = torch.cat([labels for _, labels in folder.batches(5)])
    assert labels.tolist() == [0, 1, 1, 1, 2, 2]
    assert {skipped.path.name for skipped in folder.skipped} == {*bad, "dangling.png"}
    assert all(skipped.reason and "\n" not in skipped.reason for skipped in folder.skipped)
    list(folder.batches(5))
    assert len(folder.skipped) == len(bad) + 1  # of this pass, not of both
    loaded = load_images(root, 16)
    assert loaded.skipped == folder.skipped
    assert len(loaded.images) == 6


def test_bad_input(root: Path, tmp_path: Path) -> None:
    (tmp_path / "hollow" / "cat").mkdir(parents=True)
    (tmp_path / "flat").mkdir()
    picture(9, 9).save(tmp_path / "flat" / "a.png")
    (tmp_path / "broken" / "cat").mkdir(parents=True)
    (tmp_path / "broken" / "cat" / "a.jpg").write_bytes(b"no")
    for path, message in [
        (tmp_path / "nowhere", "is not a folder"),
        (root / "readme.md", "is not a folder"),
        (tmp_path / "hollow", "have no images"),
        (tmp_path / "flat", "no class subfolders"),
    ]:
        with pytest.raises(InputError, match=message):
            Folder(path)
    with pytest.raises(InputError, match=r"all 1 files were skipped.*a\.jpg"):
        load_images(tmp_path / "broken")
    with pytest.raises(InputError, match="no readable image"):
        list(Folder(tmp_path / "broken").batches())
    for arguments, message in [
        ({"size": 0}, "size=0"),
        ({"limit": 0}, "limit=0"),
        ({"channels": 2}, "channels=2"),
        ({"mean": (0.5,)}, r"mean=\(0\.5,\)"),
        ({"std": (1, 0, 1)}, "std="),
    ]:
        with pytest.raises(InputError, match=message):
            Folder(root, **arguments)
    with pytest.raises(InputError, match="batch_size=0"):
        next(Folder(root).batches(0))


def test_unreadable_folder(root: Path) -> None:
    user = os.geteuid()
    root.chmod(0)
    try:
        if user == 0:
            os.seteuid(65534)  # root may read everything
        with pytest.raises(InputError, match="cannot be read"):
            Folder(root)
    finally:
        os.seteuid(user)
        root.chmod(0o755)
