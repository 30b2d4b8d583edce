from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from dealias.errors import InputError, InputTypeError
from dealias.models import create_model, default_input_size, default_normalization
from dealias.nn import BlurPool2d, MaxBlurPool2d

SMALL = {
    "torchvision:resnet18": {},
    "torchvision:mobilenet_v2": {"width_mult": 0.35},
    "torchvision:densenet121": {},
    "torchvision:squeezenet1_1": {},
    "timm:resnet10t": {},
    "timm:mobilenetv3_small_050": {},
    "dealias:vgg_small": {},
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("in_chans", [1, 4])
def test_classes_and_channels(name: str, in_chans: int) -> None:
    model = create_model(name, num_classes=6, in_chans=in_chans, **SMALL[name]).eval()
    with torch.no_grad():
        assert model(torch.rand(2, in_chans, 64, 64)).shape == (2, 6)


def test_replaced_first_convolution_keeps_its_scale() -> None:
    plain, wide = create_model("torchvision:resnet18"), create_model("torchvision:resnet18", in_chans=8)
    assert wide.conv1.in_channels == 8
    assert float(wide.conv1.weight.detach().std()) == pytest.approx(float(plain.conv1.weight.detach().std()), rel=0.05)
    assert list(wide.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet10t", "dealias:vgg_small"])
def test_antialiased(name: str) -> None:
    torch.manual_seed(0)
    plain = create_model(name, num_classes=4)
    torch.manual_seed(0)
    model = create_model(name, num_classes=4, antialias=True, filter="tri3")
    blurs = [module for module in model.modules() if isinstance(module, BlurPool2d | MaxBlurPool2d)]
    assert len(blurs) >= 3
    assert {blur.filter for blur in blurs} == {"tri3"}
    assert type(model) is type(plain)
    for (key, value), (other, expected) in zip(model.state_dict().items(), plain.state_dict().items(), strict=True):
        assert key == other
        assert torch.equal(value, expected)


def test_weights_load_into_both_forms(tmp_path: Path) -> None:
    source = create_model("dealias:vgg_small")
    torch.save(source.state_dict(), tmp_path / "vgg.pth")
    for antialias in (False, True):
        model = create_model("dealias:vgg_small", antialias=antialias, weights=tmp_path / "vgg.pth")
        assert torch.equal(model.classifier.weight, source.classifier.weight)
    with pytest.raises(InputError, match=r"classifier[.]weight is"):
        create_model("dealias:vgg_small", num_classes=3, weights=tmp_path / "vgg.pth")


def test_factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_networks.py").write_text(
        "from torch import nn\n"
        "def tiny(num_classes=3, width=4):\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "                         nn.Linear(width, num_classes))\n"
        "def number():\n    return 3\n"
        "constant = 3\n"
    )
    (tmp_path / "my_broken.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    assert create_model("my_networks:tiny", num_classes=7, width=5)(torch.rand(1, 3, 9, 9)).shape == (1, 7)
    assert default_input_size("my_networks:tiny") == (3, 224, 224)
    for name, message in [
        ("my_networks:large", "has no large"),
        ("my_networks:constant", "expected a function that returns a network"),
        ("my_networks:number", "returned a int"),
        ("my_broken:tiny", "no_such_dependency"),
        ("no_such_package.module:net", "no_such_package"),
    ]:
        with pytest.raises(InputError, match=message):
            create_model(name)
    with pytest.raises(InputTypeError, match="in_chans"):
        create_model("my_networks:tiny", in_chans=1)


def test_unknown_names_suggest_close_ones() -> None:
    for name, message in [
        ("torchvision:resnet51", "torchvision:resnet50"),
        ("timm:resnet50d_", "timm:resnet50d"),
        ("timm:resnet50.no_such_tag", "no_such_tag"),
        ("dealias:vgg_smal", "dealias:vgg_small"),
        ("torchvision:zzzzzz", "list_models"),
        ("resnet50", "timm:resnet50 or torchvision:resnet50"),
        ("nonsense", "NAME"),
        ("torchvision:", "no source"),
        (":resnet50", "no source"),
    ]:
        for function in (create_model, default_input_size, default_normalization):
            with pytest.raises(InputError, match=message):
                function(name)
    with pytest.raises(InputTypeError, match="NoneType"):
        create_model(None)
    with pytest.raises(InputError, match="num_classes=0"):
        create_model("dealias:vgg_small", num_classes=0)
    with pytest.raises(InputTypeError, match="padding"):
        create_model("dealias:vgg_small", padding=3)
