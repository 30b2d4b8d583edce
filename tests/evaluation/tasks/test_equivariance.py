"""Profiles of an evaluation, against `profile_model` on the same images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.evaluation_runs import MODEL, QUICK, network_and_images

from dealias.evaluation import evaluate
from dealias.evaluation.tasks.equivariance import MAPPED_IMAGES
from dealias.metrics.site_profile import profile_model


def test_profiles_are_those_of_the_first_images_drawn(pictures: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "metrics": ("equivariance",), "limit": MAPPED_IMAGES}
    results = evaluate([MODEL], pictures, tmp_path / "run", **settings)
    found = results["profiles"]["plain"]
    model, images, _ = network_and_images(pictures)
    chosen = [int(name.split("/")[0][-1]) * 2 + int(name[-5]) for name in _names(tmp_path / "run")]
    expected = profile_model(model, images[sorted(chosen), :, 4:36, 4:36])
    assert [site["path"] for site in found["sites"]] == [site.path for site in expected.sites]
    for ours, theirs in zip(found["sites"], expected.sites, strict=True):
        assert ours["added"] == pytest.approx(theirs.added, abs=1e-6)
        assert torch.tensor(ours["maps"]["output"]).shape == (32, 32)
    assert results["metrics"]["plain"] == {}


def _names(folder: Path) -> list[str]:
    """The images of a run that has fewer than its slider shows."""
    import json

    return [slide["name"] for slide in json.loads((folder / "slides.json").read_text())]
