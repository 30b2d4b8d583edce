import pytest
import torch
from torch import nn

from dealias.evaluation import feature_maps, measure_accuracy, measure_shifts


class _Reads(nn.Module):
    """A classifier that answers with the image's first pixel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(x[:, 0, 0, 0].long(), 4).float()


def test_accuracy_counts_and_brackets():
    images = torch.arange(4.0).repeat(25).view(100, 1, 1, 1).expand(100, 1, 3, 3)
    targets = torch.arange(4).repeat(25)
    targets[:10] = (targets[:10] + 1) % 4
    found = measure_accuracy(_Reads(), images, targets, batch_size=7)
    assert found["accuracy"] == pytest.approx(0.9)
    # Wilson's interval for 90 of 100, from Wilson (1927)
    assert found["accuracy_interval"] == pytest.approx([0.8256, 0.9448], abs=1e-4)


def test_shifts_name_each_mode():
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 8).contiguous()
    found = measure_shifts(_Reads(), images, {"circular": {"max_shift": 4}, "zero_fill": {"max_shift": 3}}, seed=0)
    assert found["circular_consistency"] == 1.0
    assert found["zero_fill_consistency"] < 1.0
    assert set(found) == {f"{mode}_consistency{end}" for mode in ("circular", "zero_fill") for end in ("", "_interval")}


def test_feature_maps_have_the_stage_max_for_max_pools_alone():
    network = nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2)).eval()
    maps = feature_maps(network, torch.rand(2, 3, 8, 8), {"first": "0", "second": "1"}, range(-1, 2))
    assert list(maps) == [("first", "max"), ("first", "subsampled"), ("second", "subsampled")]
    assert maps["first", "max"].max() < 1e-6
    assert maps["first", "subsampled"][1, 1] < 1e-6 < maps["first", "subsampled"][0, 0]
