"""A network that is evaluated: batches that fit, NaN, classes."""

from __future__ import annotations

import pytest
import torch
from helpers.evaluation_runs import network_of
from torch import Tensor, nn

from dealias.errors import InputError


class _Limited(nn.Module):
    """Runs out of memory above so many images; its logits are the mean of each channel."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.sizes = most, []

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("made up")
        self.sizes.append(len(x))
        return x.mean((2, 3))


def test_batches_are_halved_until_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of()
    network.model, images = _Limited(5), torch.rand(40, 3, 32, 32)
    found = network.predict(images)
    assert network.model.sizes == [4] * 10
    assert torch.equal(found, images.mean((2, 3)))
    network.model = _Limited(0)
    with pytest.raises(InputError, match=r"cannot take images of shape .*: OutOfMemoryError"):
        network.predict(images)


def test_bytes_are_normalised_and_a_row_with_nan_is_nan() -> None:
    network = network_of()
    network.model = _Limited(99)
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    assert torch.allclose(network.predict(pixels), pixels.float().mean((2, 3)) / 255, atol=1e-6)
    images = torch.rand(2, 3, 32, 32)
    images[1, 2, 5, 5] = torch.nan
    assert network.predict(images).isnan().tolist() == [[False] * 3, [True] * 3]


def test_targets_are_the_network_s_classes() -> None:
    network = network_of()
    network.labels = [7, 3]
    assert network.targets([1, 0, 1]).tolist() == [3, 7, 3]
    network.labels = None
    assert network.targets([1]) is None
    assert network.classes == 10
    assert network.blank().shape == (1, 3, 32, 32)
