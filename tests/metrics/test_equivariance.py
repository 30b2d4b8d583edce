"""The internal feature distance against its definition: upsample, roll, compare."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dealias.errors import InputError, InputTypeError
from dealias.metrics import internal_feature_distance, internal_feature_distances
from dealias.models import vgg_small
from dealias.nn import BlurPool2d, MaxBlurPool2d


def naive_distance(features, images: Tensor, dy: int, dx: int) -> float:
    """The definition, by upsampling and rolling, in float64."""
    size = images.shape[2:]
    shifted = F.interpolate(features(images.roll((dy, dx), (2, 3))).double(), size, mode="nearest")
    own = F.interpolate(features(images).double(), size, mode="nearest").roll((dy, dx), (2, 3))
    cosine = F.cosine_similarity(own, shifted, dim=1, eps=0)
    own_zero, shifted_zero = (own == 0).all(1), (shifted == 0).all(1)
    cosine = torch.where(own_zero | shifted_zero, (own_zero & shifted_zero).double(), cosine)
    return float((1 - cosine).mean())


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1), nn.Conv2d(5, 4, 3, 2, 1)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Upsample(scale_factor=9), nn.Flatten(), nn.LazyLinear(3))


@pytest.mark.parametrize("size", [(16, 16), (15, 22), (7, 9)])
def test_equals_the_naive_computation(network: nn.Sequential, size: tuple[int, int]) -> None:
    images = torch.randn(3, 2, *size)
    network(images)
    depths = {"0": 1, "2": 3, "3": 4, "4": 5, "5": 6}  # the last is larger than the images
    shifts = ([0, 1, 2, 5, -3], range(4))
    distances = internal_feature_distances(network, images, list(depths), shifts=shifts, batch_size=7)
    with torch.no_grad():
        for layer, depth in depths.items():
            for i, dy in enumerate(shifts[0]):
                for j, dx in enumerate(shifts[1]):
                    expected = naive_distance(network[:depth], images, dy, dx)
                    assert distances[layer][i, j] == pytest.approx(expected, abs=2e-6)


def test_default_shifts_are_all_and_batching_changes_nothing() -> None:
    torch.manual_seed(1)
    model, images = vgg_small(in_chans=2), torch.randn(5, 2, 12, 10)
    one = internal_feature_distance(model, images, "features.3", batch_size=1)
    assert one.shape == (12, 10)
    assert one.dtype == torch.float64
    assert one[0, 0] == pytest.approx(0, abs=1e-6)
    assert torch.allclose(one, internal_feature_distance(model, images, "features.3", batch_size=64), atol=1e-6)


def dense_max(x: Tensor, kernel: int, padding: int, dilation: int) -> Tensor:
    """Every window's maximum, one after the other; a circular map where nothing pads."""
    reach = dilation * (kernel - 1)
    x = F.pad(x, [padding] * 4, value=-torch.inf) if padding else torch.cat([x, x[:, :, :reach]], 2)
    x = x if padding else torch.cat([x, x[..., :reach]], 3)
    out = torch.empty(*x.shape[:2], x.shape[2] - reach, x.shape[3] - reach)
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            out[:, :, i, j] = x[:, :, i : i + reach + 1 : dilation, j : j + reach + 1 : dilation].amax((2, 3))
    return out


@pytest.mark.parametrize(("kernel", "padding", "dilation"), [(2, 0, 1), (3, 0, 1), (3, 1, 1), (2, 0, 2)])
@pytest.mark.parametrize("blurred", [False, True])
def test_stage_max_is_the_maximum_before_any_subsampling(
    kernel: int, padding: int, dilation: int, blurred: bool
) -> None:
    torch.manual_seed(2)
    pool_class = MaxBlurPool2d if blurred else nn.MaxPool2d
    conv = nn.Conv2d(1, 4, 3, 2, 1)
    model = nn.Sequential(conv, pool_class(kernel, 2, padding, dilation))
    images = torch.randn(2, 1, 14, 14)
    distances = internal_feature_distance(model, images, "1", stage="max", shifts=(range(3), [0, 1]))
    with torch.no_grad():
        for dy in range(3):
            for dx in range(2):
                expected = naive_distance(lambda x: dense_max(conv(x), kernel, padding, dilation), images, dy, dx)
                assert distances[dy, dx] == pytest.approx(expected, abs=2e-6)


def test_circular_network_loses_equivariance_at_the_subsampling_only() -> None:
    torch.manual_seed(3)
    model, images = vgg_small(padding_mode="circular").double(), torch.rand(2, 1, 32, 32)
    layers = [("features.3", "max"), ("features.3", "output"), ("features.7", "output")]
    first_max, first, second = internal_feature_distances(model, images, layers, shifts=(range(5), range(5))).values()
    assert float(first_max.max()) < 1e-12
    assert float(first[::2, ::2].max()) < 1e-12
    assert float(first[1::2].min()) > 1e-4
    assert float(second[0, 0]) < 1e-12
    assert float(second[4, 4]) < 1e-12
    assert float(second[2, 2]) > 1e-4


def test_zero_and_extreme_vectors() -> None:
    class KeepLeft(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.tensor([1.0, 1.0, 0.0, 0.0])

    picture = torch.zeros(1, 1, 1, 4)
    picture[..., 0] = 1
    distances = internal_feature_distance(nn.Sequential(KeepLeft()), picture, "0", shifts=([0], [0, 1, 2]))
    assert distances.tolist() == [[0.0, 0.0, 0.25]]  # one of four pixels is zero in one of the two, two are in both
    for scale in (1e-30, 1e30):
        images = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
        expected = naive_distance(lambda x: x, images, 1, 2)
        scaled = internal_feature_distance(nn.Sequential(nn.Identity()), images * scale, "0", shifts=([1], [2]))
        assert float(scaled) == pytest.approx(expected, abs=1e-6)


def test_modes_and_hooks_are_restored_and_progress_is_told() -> None:
    model = vgg_small()
    model.features[1].eval()
    before = [module.training for module in model.modules()]
    told: list[int] = []
    images = torch.rand(3, 1, 8, 8)
    internal_feature_distance(model, images, "features", shifts=([0, 1], [0, 1, 2]), batch_size=6, progress=told.append)
    assert [module.training for module in model.modules()] == before
    assert told == [6, 9, 15, 18]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with pytest.raises(InputError):
        internal_feature_distance(model, images, "classifier")
    assert [module.training for module in model.modules()] == before
    assert not model.classifier._forward_hooks


def test_bad_input() -> None:
    model, images = vgg_small(), torch.rand(2, 1, 8, 8)
    cases = [
        ({"layer": "features.99"}, "features.99"),
        ({"layer": "features.0", "stage": "max"}, "MaxPool2d"),
        ({"layer": "features.3", "stage": "blur"}, "stage='blur'"),
        ({"layer": "classifier"}, "feature maps"),
        ({"shifts": ([], [0])}, "1-D"),
        ({"shifts": ([0.5], [0])}, "whole pixels"),
        ({"shifts": (range(3),)}, "2-D|rows dy"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"images": torch.rand(1, 8, 8)}, "N, C, H, W"),
    ]
    for arguments, message in cases:
        with pytest.raises(InputError, match=message):
            internal_feature_distance(**{"model": model, "images": images, "layer": "features.3", **arguments})
    with pytest.raises(InputTypeError, match="float"):
        internal_feature_distance(model, torch.zeros(1, 1, 8, 8, dtype=torch.uint8), "features.3")
    unused = nn.ModuleDict({"used": nn.Identity(), "unused": nn.Identity()})
    unused.forward = unused["used"].forward
    with pytest.raises(InputError, match="does not run"):
        internal_feature_distance(unused, images, "unused")


def test_already_blurred_layers_are_closer_to_equivariant() -> None:
    torch.manual_seed(4)
    images = F.interpolate(torch.rand(2, 3, 8, 8), (16, 16))
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, padding_mode="circular"), nn.MaxPool2d(1, 2))
    blurred = nn.Sequential(plain[0], BlurPool2d("bin5", 2, "circular"))
    one, other = (internal_feature_distance(model, images, "1", shifts=([1], [1])) for model in (plain, blurred))
    assert float(other) < float(one)
