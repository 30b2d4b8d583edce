"""Profiles: which site adds shift-variance, against internal feature distances taken by hand."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from dealias import antialias
from dealias.errors import InputError
from dealias.metrics import internal_feature_distance
from dealias.metrics.site_profile import SAMPLED_SHIFTS, Profile, periodicity, profile_model
from dealias.models import vgg_small
from dealias.records import from_json


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_sites_are_measured_in_front_and_behind(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = vgg_small(padding_mode="circular").eval()
    shifts = (range(5), range(4))
    profile = profile_model(model, images, shifts=shifts)
    assert [site.path for site in profile.sites[:2]] == ["features.3", "features.7"]
    for site in profile.sites[:2]:
        for stage, mean in (("input", site.before), ("max", site.maximum), ("output", site.after)):
            distances = internal_feature_distance(model, images, site.path, shifts=shifts, stage=stage)
            np.testing.assert_allclose(site.maps[stage], distances.numpy(), atol=1e-6)
            assert mean == pytest.approx(float(distances.mean()))
        assert site.added == pytest.approx(site.after - site.before)
    first = profile.sites[0]
    assert (first.grid, first.before) == ((2, 2), pytest.approx(0, abs=1e-6))
    assert first.periodicity == pytest.approx(1, abs=1e-4)
    assert profile.sites[1].grid == (4, 4)
    assert from_json(Profile, json.dumps(asdict(profile)).encode(), "profile") == profile


def test_anti_aliasing_lowers_what_each_pool_adds(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = vgg_small(padding_mode="circular").eval()
    plain, blurred = (profile_model(each, images) for each in (model, antialias(model, images[:1])))
    assert plain.dy == list(range(16))
    for before, after in zip(plain.sites[:3], blurred.sites[:3], strict=True):
        assert after.path == before.path
        assert after.after < before.after
    assert blurred.sites[0].kind == "blur"


def test_large_images_are_sampled_and_functions_named() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, stride=2, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.max_pool2d(self.conv(x), 2).mean((2, 3))

    profile = profile_model(Net(), torch.rand(1, 1, 40, 40))
    assert profile.dx == list(SAMPLED_SHIFTS)
    assert [site.path for site in profile.sites] == ["conv"]
    assert profile.missed == ["max_pool"]
    assert profile.sites[0].maximum is None


def test_bad_input(images: torch.Tensor) -> None:
    with pytest.raises(InputError, match="rows dy and the columns dx"):
        profile_model(vgg_small(), images, shifts=(range(3),))
    with pytest.raises(InputError, match="N, C, H, W"):
        profile_model(vgg_small(), images[0])


def test_periodicity() -> None:
    distances = np.ones((4, 4))
    assert periodicity(distances, [0, 1, 2, 3], [0, 1, 2, 3], (2, 2)) == 0
    assert periodicity(distances[:2, :2], [0, 1], [0, 1], (4, 4)) is None
    distances[::2, ::2] = 0.25
    assert periodicity(distances, [0, 1, 2, 3], [0, 1, 2, 3], (2, 2)) == pytest.approx(0.75)
