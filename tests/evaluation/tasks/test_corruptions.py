"""Corruption errors of an evaluation, against torchmetrics and from released folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.evaluation_runs import MODEL, QUICK, WINDOWS, write_patches_network
from torch import Tensor

from dealias.data import open_source
from dealias.errors import InputError
from dealias.evaluation import ModelSpec, evaluate
from dealias.evaluation.tasks.corruptions import CorruptionTask
from dealias.metrics import CorruptionError
from dealias.models import preprocessing_for
from dealias.perturb import CORRUPTIONS


@pytest.fixture
def patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(tmp_path)
    return write_patches_network(tmp_path)


def test_corruptions_are_counted_as_torchmetrics_does(pictures: Path, tmp_path: Path, patches: str) -> None:
    settings = {**QUICK, "metrics": ("imagenet-c",), "limit": 4}
    results = evaluate([patches], pictures, tmp_path / "run", **settings)
    network = ModelSpec.parse(patches).build()
    source, preprocessing = open_source(pictures, limit=4), preprocessing_for(network, **WINDOWS)
    errors = CorruptionError()

    def logits_of(views: np.ndarray) -> Tensor:
        with torch.no_grad():
            return network(preprocessing.normalise(torch.tensor(views)))

    for name in CORRUPTIONS:
        task = CorruptionTask(f"imagenet-c/{name}", source, 0, corruption=name)
        for number in range(4):
            logits = logits_of(task.views(source.read(number), source.positions[number], preprocessing))
            for severity in range(1, 6):
                target = torch.tensor([source.labels[number]])
                errors.update(name, severity, logits[severity - 1 : severity], target)
    expected, found = errors.compute(), results["metrics"]["network"]
    assert len({float(expected[name]) for name in CORRUPTIONS}) > 1
    assert found["mean_corruption_error"]["value"] == pytest.approx(float(expected["mean"]), abs=1e-6)
    assert found["mce"]["value"] == pytest.approx(float(expected["mce"]), abs=1e-5)


def link_corruptions(root: Path, pictures: Path) -> None:
    """A released ImageNet-C, one folder deeper than need be, whose images are `pictures` throughout."""
    for name in CORRUPTIONS:
        (root / "all" / name).mkdir(parents=True)
        for severity in range(1, 6):
            (root / "all" / name / str(severity)).symlink_to(pictures, target_is_directory=True)


def test_released_corruptions_are_read_as_they_are(pictures: Path, tmp_path: Path) -> None:
    link_corruptions(tmp_path / "released", pictures)
    settings = {**QUICK, "metrics": ("imagenet-c",), "limit": 5, "imagenet_c": tmp_path / "released"}
    results = evaluate([MODEL], pictures, tmp_path / "run", **settings)
    cells = {cell["value"] for row in results["corruptions"]["plain"].values() for cell in row.values()}
    assert len(cells) == 1  # all folders are one
    assert results["metrics"]["plain"]["mean_corruption_error"]["images"] == 5
    shutil.copytree(pictures, tmp_path / "renamed")
    (tmp_path / "renamed" / "class 0").rename(tmp_path / "renamed" / "class A")
    with pytest.raises(InputError, match="has other classes than images"):
        evaluate([MODEL], tmp_path / "renamed", tmp_path / "other", **settings)


def test_broken_images_do_not_stop_a_run_on_released_ones(pictures: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    link_corruptions(tmp_path / "released", pictures)
    shutil.copytree(pictures, images)
    (images / "class 0" / "0.png").write_bytes(b"broken")
    settings = {**QUICK, "metrics": ("imagenet-c",), "imagenet_c": tmp_path / "released"}
    results = evaluate([MODEL], images, tmp_path / "run", **settings)
    assert results["metrics"]["plain"]["mean_corruption_error"]["images"] == 20
    slides = json.loads((tmp_path / "run" / "slides.json").read_text())
    assert [slide["name"] for slide in slides[:2]] == ["class 0/1.png", "class 1/0.png"]
    assert len(slides) == 8
