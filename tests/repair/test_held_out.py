"""The figures of networks on held-out images, against plain loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.repairs import small_domain, small_images, small_network
from torch import Tensor, nn

from dealias.metrics import wilson_interval
from dealias.repair.held_out import FIGURES, HeldOut


def test_figures_are_those_of_a_plain_loop() -> None:
    domain, held, targets = small_domain(), [1, 4, 6, 30], torch.arange(40) % 10
    original, other = small_network().eval(), small_network().eval()
    with torch.no_grad():
        other.classifier.bias += torch.randn(10, generator=torch.Generator().manual_seed(0))
        theirs, ours = (network(2 * small_images()[held]).argmax(1) for network in (original, other))
    measured = HeldOut(domain, held, original, targets).measure(other)
    agreement = float((theirs == ours).float().mean())
    assert measured["agreement"] == agreement
    assert measured["agreement_interval"] == list(wilson_interval(round(4 * agreement), 4))
    assert measured["accuracy"] == float((ours == targets[held]).float().mean())
    assert HeldOut(domain, held, original).measure(original)["agreement"] == 1
    assert HeldOut(domain, held, original).agreement(other) == agreement


class Returns(nn.Module):
    """A network that returns what a function makes of the images."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Any:
        return self.function(images)


def boxes(shift: float) -> Callable[[Tensor], Any]:
    """Two boxes for each image, the first of them moved."""
    found = torch.tensor([[2.0, 2.0, 8.0, 8.0], [8.0, 8.0, 14.0, 14.0]])
    moved = found + torch.tensor([[shift], [0.0]])
    answer = {"boxes": moved, "labels": torch.tensor([1, 2]), "scores": torch.tensor([0.9, 0.8])}
    return lambda images: [answer] * len(images)


def brightest(offset: float) -> Callable[[Tensor], Any]:
    """The brightest pixel of the left part as a key point, and another one beside it."""

    def points(images: Tensor) -> Tensor:
        left = images[:, 0, :, :12]
        place = left.flatten(1).argmax(1)
        x, y = place % left.shape[2], place // left.shape[2]
        return torch.stack([torch.stack([x + offset, y], 1), torch.stack([x, y], 1)], 1).double()

    return points


@pytest.mark.parametrize(
    ("task", "original", "copy", "agreement"),
    [
        ("detection", boxes(0), boxes(0), 1.0),
        ("detection", boxes(0), boxes(9), 0.5),  # one of the two boxes is elsewhere
        ("segmentation", lambda x: torch.cat([x, 1 - x], 1), lambda x: torch.cat([x, 1 - x], 1), 1.0),
        ("segmentation", lambda x: torch.cat([x, 0 * x], 1), lambda x: torch.cat([0 * x, x + 1], 1), 0.0),
        ("keypoints", brightest(0), brightest(2), 1.0),  # two pixels for every other point
        ("embeddings", lambda x: x.flatten(1), lambda x: -x.flatten(1), 2.0),
        ("images", lambda x: x, lambda x: x + 0.2, None),
    ],
)
def test_agreement_of_every_task(
    task: Any, original: Callable[[Tensor], Any], copy: Callable[[Tensor], Any], agreement: float | None
) -> None:
    held = HeldOut(small_domain(circular=True), range(30, 40), Returns(original), task=task)
    assert held.task == task
    if agreement is None:  # the range of the answers over the root of the mean squared error
        both = torch.stack([2 * small_images()[30:], 2 * small_images()[30:] + 0.2])
        agreement = float(20 * torch.log10((both.max() - both.min()) / 0.2))
    assert held.agreement(Returns(copy)) == pytest.approx(agreement, abs=1e-4)


@pytest.mark.parametrize("task", ["segmentation", "images"])
def test_pixelwise_networks_are_consistent(task: Any) -> None:
    held = HeldOut(small_domain(circular=True), range(4), Returns(lambda x: torch.cat([x, 1 - x], 1)), task=task)
    found = held.measure(Returns(lambda x: torch.cat([x, 1 - x], 1)))
    perfect = 1.0 if FIGURES[held.task].is_share else float("inf")
    assert found["consistency"] == perfect
    assert set(found) == {"agreement", "agreement_interval", "consistency", "consistency_interval", "stability"}
