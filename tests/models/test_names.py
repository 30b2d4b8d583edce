"""The names that the libraries list, and those that they do not know."""

from __future__ import annotations

import pytest

from dealias.errors import InputError
from dealias.models import is_listed, list_models
from dealias.models.names import split_name, timm_config


def test_list_models() -> None:
    names = list_models()
    assert names == sorted(names)
    assert {"dealias:vgg_small", "timm:resnet50", "torchvision:densenet121"} <= set(names)
    assert not any("maskrcnn" in name for name in names)  # classification networks alone
    assert set(list_models("torchvision:vgg1?")) == {f"torchvision:vgg{depth}" for depth in (11, 13, 16, 19)}
    assert list_models("vgg_sm*") == ["dealias:vgg_small"]  # the source may be left out
    assert list_models("no such *") == []
    assert list_models("VGG13_bn") == list_models("*vgg13_bn*")
    assert {"dealias:vgg13_bn_cifar", "timm:vgg13_bn", "torchvision:vgg13_bn"} <= set(list_models("VGG13_bn"))


def test_sources_of_names() -> None:
    assert split_name("timm:resnet50.a1_in1k") == ("timm", "resnet50.a1_in1k")
    assert split_name("my_networks:Tiny.small") == ("my_networks", "Tiny.small")  # whatever it holds
    assert [is_listed(name) for name in ("timm:resnet50", "my_networks:Tiny", "resnet50")] == [True, False, False]
    assert timm_config("resnet50.a1_in1k")["crop_pct"] == 0.95
    with pytest.raises(InputError, match=r"'timm:resnet50.no_such_tag' is unknown: "):
        timm_config("resnet50.no_such_tag")
