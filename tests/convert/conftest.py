"""For all tests of conversion: seeds, strict warnings, and the networks of torchvision without weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from dealias.optional import import_torchvision


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of small convolutions that wait for each other are slower than one, the more so beside other tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def unexpected_warnings_fail() -> Iterator[None]:
    """A conversion that warns where no test expects it has missed a site."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.fixture(scope="session")
def build_network() -> Callable[..., nn.Module]:
    """`build_network("resnet18")`, or with `device="meta"` for shapes alone, in evaluation mode.

    The batch statistics are random, so that every layer matters.
    """
    models = import_torchvision().models

    def build(name: str, device: str = "cpu") -> nn.Module:
        torch.manual_seed(0)
        with torch.device(device):
            model = models.get_model(name, weights=None)
        if device == "cpu":
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.normal_(module.running_mean, std=0.1)
                    nn.init.uniform_(module.running_var, 0.5, 1.5)
                    nn.init.uniform_(module.weight, 0.5, 1.5)
        return model.eval()

    return build
