"""The measurements that the demo and the audit share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dealias.metrics import measure_consistency, wilson_interval


def measure_accuracy(network: nn.Module, images: Tensor, targets: Tensor, batch_size: int = 64) -> dict[str, Any]:
    """`accuracy` of a network in eval mode, a fraction, and its 95% Wilson interval `accuracy_interval`."""
    with torch.no_grad():
        parts = zip(images.split(batch_size), targets.split(batch_size), strict=True)
        correct = sum(int((network(x).argmax(1) == y).sum()) for x, y in parts)
    interval = wilson_interval(correct, len(images))
    return {"accuracy": correct / len(images), "accuracy_interval": [float(bound) for bound in interval]}


def measure_shifts(
    network: nn.Module, images: Tensor, modes: Mapping[str, Mapping[str, Any]], *, seed: int
) -> dict[str, Any]:
    """`MODE_consistency`, a fraction, and its 95% interval `MODE_consistency_interval`, for each of `modes`.

    Args:
        network: a classifier.
        images: (N, C, H, W), normalised as the network expects.
        modes: for each mode of `dealias.metrics.measure_consistency` its keyword arguments.
        seed: of the shifts.
    """
    results: dict[str, Any] = {}
    for mode, arguments in modes.items():
        found = measure_consistency(network, images, mode=mode, seed=seed, **arguments)  # type: ignore[arg-type]
        results[f"{mode}_consistency"] = found.consistency
        results[f"{mode}_consistency_interval"] = list(found.interval)
    return results
