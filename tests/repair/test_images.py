"""The images that a repair reads: folders, pans, videos, and what is held out of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.repairs import write_images
from helpers.videos import write_video
from PIL import Image

from dealias.errors import InputError
from dealias.models import Preprocessing
from dealias.repair.domain import draw_held_out
from dealias.repair.images import ImageChoice, open_images, read_images, read_source

DIGITS = Preprocessing(32, 32, 32, 1, "bilinear", (0.0,), (1.0,))


def test_a_folder_with_an_image_has_no_classes(tmp_path: Path) -> None:
    pixels = write_images(tmp_path / "images", 9)
    inside = write_images(tmp_path / "images" / "more", 2)
    (tmp_path / "images" / "note.txt").write_text("no image")
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    source, labelled = open_images(ImageChoice(tmp_path / "images"))
    assert not labelled
    assert len(source) == 12
    found = read_images(ImageChoice(tmp_path / "images"), DIGITS)
    assert torch.equal(found.pixels[:, 0], torch.from_numpy(np.concatenate([pixels, inside])))
    assert found.scenes == [*range(9), 10, 11]
    assert found.skipped[0].startswith("broken.png: ")
    assert found.source is None


def test_class_folders_have_labels(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write_images(tmp_path / "images" / name, 3)
    source, labelled = open_images(ImageChoice(tmp_path / "images"))
    assert (source.labels, labelled) == ([0, 0, 0, 1, 1, 1], True)


@pytest.mark.parametrize("kind", ["plain", "classes"])
def test_a_limit_draws_by_the_seed(tmp_path: Path, kind: str) -> None:
    write_images(tmp_path / "images" if kind == "plain" else tmp_path / "images" / "cat", 9)
    choice = ImageChoice(tmp_path / "images", limit=4)
    drawn = [open_images(choice, seed)[0].names for seed in (0, 0, 1)]
    assert len(drawn[0]) == 4
    assert drawn[0] == drawn[1] != drawn[2]


def test_scenes_are_the_numbers_of_the_images_in_their_source(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 6)
    source, _ = open_images(ImageChoice(tmp_path / "images"))
    (tmp_path / "images" / "2.png").write_bytes(b"no image")
    found = read_source(source, DIGITS)
    assert found.scenes == [0, 1, 3, 4, 5]
    assert found.fingerprint == source.fingerprint()
    assert [reason.partition(":")[0] for reason in found.skipped] == ["2.png"]


def test_no_readable_image(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"images='.*images' has no readable image: broken\.png"):
        read_images(ImageChoice(tmp_path / "images"), DIGITS)


def test_pans_have_the_frames_of_a_slide_and_whole_scenes_are_held_out(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 5, side=37)
    found = read_images(ImageChoice(tmp_path / "images", pan=5), DIGITS)
    assert found.pixels.shape == (25, 1, 32, 32)
    assert found.scenes == [number for number in range(5) for _ in range(5)]
    photo = torch.from_numpy(np.asarray(Image.open(tmp_path / "images" / "0.png")).copy())[None]
    # from one frame to the fifth the window moves by 5 whole pixels
    assert torch.equal(found.pixels[0], photo[:, :32, :32])
    assert torch.equal(found.pixels[4], photo[:, 5:, 5:])
    held = draw_held_out(found.scenes, 0.3, 0)
    assert held == [*range(held[0], held[0] + 5), *range(held[5], held[5] + 5)]
    assert {found.scenes[number] for number in held}.isdisjoint(
        found.scenes[number] for number in range(25) if number not in held
    )


def test_frames_of_a_video(tmp_path: Path) -> None:
    frames = np.repeat(np.arange(0, 200, 10, dtype=np.uint8), 32 * 32 * 3).reshape(20, 32, 32, 3)
    write_video(tmp_path / "film.mp4", frames)
    found = read_images(ImageChoice(tmp_path / "film.mp4"), DIGITS)
    assert found.scenes == [number // 2 for number in range(20)]
    np.testing.assert_allclose(found.pixels[:, 0].float().mean((1, 2)), frames[:, 0, 0, 0], atol=3)
    assert len(draw_held_out(found.scenes, 0.2, 0)) == 4
    fewer = read_images(ImageChoice(tmp_path / "film.mp4", limit=5), DIGITS)
    assert len(fewer.pixels) == 5
    assert all(any(torch.equal(one, other) for other in found.pixels) for one in fewer.pixels)
    assert fewer.pixels[-1].float().mean() > 50  # not the first five
    with pytest.raises(InputError, match="limit=0 is too small"):
        read_images(ImageChoice(tmp_path / "film.mp4", limit=0), DIGITS)
    with pytest.raises(InputError, match="pan=2 must be 1 for a video"):
        read_images(ImageChoice(tmp_path / "film.mp4", pan=2), DIGITS)
