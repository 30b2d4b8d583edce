"""The slider's images: the least stable first, with the curve of the class that is shown."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import torch
from helpers.evaluation_runs import BLURRED, MODEL, QUICK, network_and_images
from PIL import Image

from dealias.evaluation import evaluate


def test_curves_are_probabilities_along_the_diagonal(pictures: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "metrics": ("consistency", "diagonal")}
    evaluate([MODEL, BLURRED], pictures, tmp_path / "run", **settings)
    slides = json.loads((tmp_path / "run" / "slides.json").read_text())
    model, images, targets = network_and_images(pictures)
    for slide in slides:
        number = int(slide["name"].split("/")[0][-1]) * 2 + int(slide["name"][-5])
        with torch.no_grad():
            windows = torch.stack([images[number, :, at : at + 32, at : at + 32] for at in range(9)])
            probabilities = model(windows).softmax(1)
        seen = int(targets[number]) in probabilities.argmax(1).tolist()
        shown = int(targets[number]) if seen else int(probabilities.mean(0).argmax())
        assert slide["label"] == f"class {shown}"
        assert slide["shifts"] == list(range(9))
        np.testing.assert_allclose(slide["curves"]["plain"], probabilities[:, shown].numpy(), atol=1e-4)
        assert set(slide["curves"]) == {"plain", "blurred"}
        picture = Image.open(io.BytesIO(base64.b64decode(slide["source"].partition(",")[2])))
        assert picture.size == (slide["size"],) * 2 == (40, 40)
        assert np.abs(np.asarray(picture) / 255 - images[number].permute(1, 2, 0).numpy()).mean() < 0.05


def test_the_least_stable_come_first_and_images_seen_whole_are_rolled(pictures: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "metrics": ("circular",), "image_size": 32, "crop_size": 32}
    evaluate([MODEL], pictures, tmp_path / "run", **settings)
    slides = json.loads((tmp_path / "run" / "slides.json").read_text())
    (line,) = (tmp_path / "run" / "counts.jsonl").read_text().splitlines()
    agreements = json.loads(line)["counts"]["plain"]["circular"]["agreements"]
    order = sorted(range(20), key=lambda number: (agreements[number], number))[:8]
    assert [slide["name"] for slide in slides] == [f"class {number // 2}/{number % 2}.png" for number in order]
    assert slides[0]["shifts"] == list(range(-16, 16))
