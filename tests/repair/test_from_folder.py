"""Which images are read, with labels or without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dealias.errors import InputError
from dealias.models import ModelSpec, Preprocessing, create_model
from dealias.repair import RepairOptions
from dealias.repair.distillation import reestimate_statistics
from dealias.repair.from_folder import ImageChoice, open_images, read_images, repair_from_folder

DIGITS = Preprocessing(32, 32, 32, 1, "bilinear", (0.0,), (1.0,))


def write_images(folder: Path, count: int) -> np.ndarray:
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index}.png")
    return pixels


def test_a_folder_with_an_image_has_no_classes(tmp_path: Path) -> None:
    pixels = write_images(tmp_path / "images", 9)
    inside = write_images(tmp_path / "images" / "more", 2)
    (tmp_path / "images" / "note.txt").write_text("no image")
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    source, labelled = open_images(ImageChoice(tmp_path / "images"))
    assert not labelled
    images, numbers, (skipped,) = read_images(source, DIGITS)
    assert torch.equal(images[:, 0], torch.from_numpy(np.concatenate([pixels, inside])))
    assert numbers == [*range(9), 10, 11]
    assert skipped.startswith("broken.png: ")


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


def test_no_readable_image(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"images='.*images' has no readable image: broken\.png"):
        read_images(open_images(ImageChoice(tmp_path / "images"))[0], DIGITS)


def test_a_network_by_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = create_model("dealias:vgg_small")
    reestimate_statistics(network, [torch.rand(64, 1, 32, 32)])  # else it predicts one class only
    save_file(network.state_dict(), tmp_path / "baseline.safetensors")
    write_images(tmp_path / "images", 20)
    spec = ModelSpec("dealias:vgg_small", weights=str(tmp_path / "baseline.safetensors"))
    options = RepairOptions(epochs=1, min_agreement=0.0, min_consistency=0, batch_size=8)
    outcome = repair_from_folder(
        spec, ImageChoice(tmp_path / "images"), tmp_path / "out", options, filter=5, device="cpu"
    )
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert stored == json.loads(json.dumps(outcome.results))
    settings = stored["settings"]
    assert (settings["filter"], settings["batch_size"], settings["model"]["name"]) == (5, 8, "dealias:vgg_small")
    assert stored["images"] == {"trained_on": 16, "held_out": 4}
