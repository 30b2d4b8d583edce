"""Profiles of networks side by side; `dealias.metrics.site_profile` and the command line have tests of their own."""

from __future__ import annotations

import pytest

from dealias.data import mnist_digits
from dealias.errors import InputError
from dealias.evaluation.profiles import profile_networks
from dealias.models.spec import label_models

MODELS = label_models(["dealias:vgg_small"])


def test_bad_arguments() -> None:
    for arguments, message in [
        ({"count": 0}, "count=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"reach": 0}, "reach=0"),
        ({"device": "warp"}, "device='warp' is unknown: use auto, cpu, cuda"),
    ]:
        with pytest.raises(InputError, match=message):
            profile_networks(MODELS, None, **arguments)


def test_more_images_than_packages_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dealias.evaluation.profiles.mnist_digits", lambda: tuple(x[:7] for x in mnist_digits()))
    stored = profile_networks(MODELS, None, count=9, reach=2)
    assert stored.images["count"] == {"vgg_small": 7}
