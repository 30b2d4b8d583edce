from __future__ import annotations

import pytest
import torch
from torch import nn

from dealias.errors import InputError
from dealias.models import VGG, vgg13_bn_cifar, vgg_small


def widths(model: VGG) -> list[int | str]:
    """The configuration in VGG's usual notation."""
    kept = [module for module in model.features if isinstance(module, nn.Conv2d | nn.MaxPool2d)]
    return [module.out_channels if isinstance(module, nn.Conv2d) else "M" for module in kept]


def test_vgg13_bn_cifar_is_the_papers_network() -> None:
    model = vgg13_bn_cifar()
    expected = [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"]
    assert widths(model) == expected
    batch_norms = [module.num_features for module in model.features if isinstance(module, nn.BatchNorm2d)]
    assert batch_norms == [width for width in expected if width != "M"]
    convs = 9 * (3 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 3 * 512 * 512)
    assert sum(p.numel() for p in model.parameters()) == convs + 2 * sum(batch_norms) + 512 * 10 + 10
    assert model.features(torch.rand(2, 3, 32, 32)).shape == (2, 512, 1, 1)


def test_vgg_small() -> None:
    model = vgg_small(in_chans=3, num_classes=7)
    assert widths(model) == [16, "M", 32, "M", 64, "M", 64, "M", 64, "M"]
    assert model.features(torch.rand(1, 3, 32, 32)).shape == (1, 64, 1, 1)
    assert vgg_small().features[0].in_channels == 1


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize("size", [(1, 1), (28, 28), (32, 32), (33, 47), (96, 64)])
def test_every_size_works(padding_mode: str, size: tuple[int, int]) -> None:
    model = vgg_small(padding_mode=padding_mode).eval()
    assert all(module.padding_mode == padding_mode for module in model.features if isinstance(module, nn.Conv2d))
    assert model(torch.rand(2, 1, *size)).isfinite().all()


def test_circular_padding_commutes_with_shifts_by_the_total_stride() -> None:
    model = vgg_small(padding_mode="circular").double().eval()
    x = torch.rand(1, 1, 64, 64, dtype=torch.float64)
    assert torch.allclose(model(x), model(x.roll((32, -32), (2, 3))), atol=1e-12)
    assert not torch.allclose(model(x), model(x.roll((1, 0), (2, 3))), atol=1e-6)


def test_bad_input() -> None:
    for arguments, message in [
        ({"padding_mode": "mirror"}, "padding_mode='mirror'"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"in_chans": -1}, "in_chans=-1"),
    ]:
        with pytest.raises(InputError, match=message):
            vgg_small(**arguments)
