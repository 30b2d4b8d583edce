"""The measurements that the demo and the audit share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dealias.metrics import internal_feature_distances, measure_consistency, wilson_interval
from dealias.metrics.views import Mode
from dealias.nn import MaxBlurPool2d


def measure_accuracy(network: nn.Module, images: Tensor, targets: Tensor, batch_size: int = 64) -> dict[str, Any]:
    """`accuracy` of a network in eval mode, a fraction, and its 95% Wilson interval `accuracy_interval`."""
    with torch.no_grad():
        pairs = [
            (images[start : start + batch_size], targets[start : start + batch_size])
            for start in range(0, len(images), batch_size)
        ]
        correct = sum(int((network(x).argmax(1) == y).sum()) for x, y in pairs)
    interval = wilson_interval(correct, len(images))
    return {"accuracy": correct / len(images), "accuracy_interval": [float(bound) for bound in interval]}


def measure_shifts(
    network: nn.Module, images: Tensor, modes: Mapping[Mode, Mapping[str, Any]], *, seed: int
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
        found = measure_consistency(network, images, mode=mode, seed=seed, **arguments)
        results[f"{mode}_consistency"] = found.consistency
        results[f"{mode}_consistency_interval"] = list(found.interval)
    return results


STAGES: dict[str, Literal["max", "output"]] = {"max": "max", "subsampled": "output"}
"""What is mapped at a pooling layer: title, and `stage` of `dealias.metrics.internal_feature_distance`."""


def feature_maps(
    network: nn.Module, images: Tensor, layers: Mapping[str, str], shifts: range
) -> dict[tuple[str, str], np.ndarray[Any, Any]]:
    """Internal feature distance (dy, dx) over `shifts` on both axes, for each (title, stage of `STAGES`).

    Args:
        network: any network.
        images: (N, C, H, W), normalised as the network expects.
        layers: the module path of each title; the stage "max" is there for max-pooling layers alone.
        shifts: in pixels, for both axes.
    """
    maximum = (nn.MaxPool2d, MaxBlurPool2d)
    wanted: dict[tuple[str, str], str | tuple[str, Literal["output", "max"]]] = {
        (title, name): (path, stage)
        for title, path in layers.items()
        for name, stage in STAGES.items()
        if stage == "output" or isinstance(network.get_submodule(path), maximum)
    }
    if not wanted:
        return {}
    distances = internal_feature_distances(network, images, list(wanted.values()), shifts=(shifts, shifts))
    return {key: distances[layer].numpy() for key, layer in wanted.items()}
