"""`placement="before"`: a dense blur in front of each strided convolution, which keeps its stride."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dealias
from dealias.filters import scaled
from dealias.models import create_model

X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Called(nn.Module):
    """A strided convolution by a function call, behind a stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.weight = nn.Conv2d(3, 4, 3), nn.Parameter(torch.randn(5, 4, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.relu(self.stem(x)), self.weight, stride=2).relu()


def dense_blur(x: Tensor, taps: tuple[float, ...]) -> Tensor:
    """Correlate both axes with `taps`, by one convolution of each channel; as BlurPool pads."""
    before, line = (len(taps) - 1) // 2, torch.tensor(taps)
    padded = F.pad(x, [before, len(taps) // 2] * 2, mode="reflect")
    kernel = torch.outer(line, line).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(padded, kernel, groups=x.shape[1])


@pytest.mark.parametrize(("stride", "kernel"), [(2, 3), (4, 5), (2, 2)])
def test_the_blur_stands_in_front_and_the_convolution_keeps_its_stride(stride: int, kernel: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, kernel, stride), nn.ReLU()).eval()
    fixed = dealias.antialias(model, X, placement="before", strict=True)
    expected = model[2:](dense_blur(model[:2](X), scaled("bin4", stride)))
    assert fixed[2].stride == (stride, stride)
    torch.testing.assert_close(fixed(X), expected)
    assert list(fixed.state_dict()) == list(model.state_dict())


def test_a_stride_on_one_axis_is_blurred_on_that_axis() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, (2, 1)), nn.ReLU())
    fixed = dealias.antialias(model, X, filter="rect2", placement="before", strict=True)
    dense = model[:2](X)
    below = torch.cat([dense[:, :, 1:], dense[:, :, -2:-1]], 2)  # reflected at the last row
    torch.testing.assert_close(fixed(X), model[2:]((dense + below) / 2))


def test_function_calls_are_answered() -> None:
    model = Called()
    fixed = dealias.antialias(model, X, placement="before", strict=True)
    blurred = dense_blur(F.relu(model.stem(X)), (1 / 8, 3 / 8, 3 / 8, 1 / 8))
    torch.testing.assert_close(fixed(X), F.conv2d(blurred, model.weight, stride=2).relu())


def test_poolings_and_shortcuts_are_as_ever() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1, 2), nn.AvgPool2d(2))
    both = [dealias.antialias(model, X, placement=placement)(X) for placement in ("before", "after")]
    torch.testing.assert_close(*both)


def test_a_resnet_keeps_its_sizes_and_is_converted_once() -> None:
    model = create_model("torchvision:resnet18", num_classes=5).eval()
    fixed = dealias.antialias(model, X, placement="before", strict=True)
    fixed.load_state_dict(model.state_dict(), strict=True)
    found = [site for site in dealias.sites(model, X, placement="before") if site.placed]
    assert [site.path for site in found if "keeps its stride" in (site.action or "")] == [
        "layer2.0.conv1",
        "layer3.0.conv1",
        "layer4.0.conv1",
    ]
    assert not torch.allclose(fixed(X), model(X))
    for placement in ("before", "after"):
        with pytest.warns(UserWarning, match="already anti-aliased"):
            torch.testing.assert_close(dealias.antialias(fixed, X, placement=placement)(X), fixed(X))


def test_the_paper_blurs_after() -> None:
    with pytest.raises(dealias.errors.InputError, match="the paper blurs after"):
        dealias.antialias(nn.Conv2d(3, 3, 3, 2), X, placement="before", recipe="zhang2019")
