"""Picture files in every mode against Pillow, damaged ones, and pictures as data URLs."""

from __future__ import annotations

import base64
import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dealias.data.pictures import picture_url, read_picture
from dealias.errors import InputError


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth random colours, which survive JPEG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


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
        found = np.asarray(read_picture(tmp_path / name))
        assert (found.shape, found.dtype) == ((10, 20, 3), np.uint8), name
        assert np.abs(found - np.asarray(expected, float)).max() <= tolerance, name
    first = np.asarray(read_picture(tmp_path / "animated.gif"), float)
    distances = [np.abs(first - np.asarray(frame)).mean() for frame in frames]
    assert distances[0] < 10 < distances[1]


def test_the_cameras_orientation_is_applied(tmp_path: Path) -> None:
    image = picture(20, 10)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "turned.png"), np.rot90(np.asarray(image), -1))


def test_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    picture(300, 260).save(tmp_path / "whole.jpg")
    picture(256, 256).save(tmp_path / "whole.png")
    whole, png = (tmp_path / "whole.jpg").read_bytes(), (tmp_path / "whole.png").read_bytes()
    generator = random.Random(0)
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
        (tmp_path / name).write_bytes(content)
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "folder.png").mkdir()
    for name in (*bad, "dangling.png", "folder.png"):
        with pytest.raises(InputError) as caught:
            read_picture(tmp_path / name)
        assert str(caught.value)
        assert "\n" not in str(caught.value), name


@pytest.mark.parametrize("channels", [1, 3])
def test_a_url_holds_the_picture(channels: int) -> None:
    pixels = np.asarray(picture(40, 30)).transpose(2, 0, 1)[:channels]
    kind, _, data = picture_url(pixels).partition(",")
    assert kind == "data:image/jpeg;base64"
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert found.shape == (30, 40, 3)
    assert np.abs(found.transpose(2, 0, 1)[:channels].astype(int) - pixels).mean() < 6
