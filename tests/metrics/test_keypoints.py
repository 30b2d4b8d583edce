"""Key points against NumPy: distances, percentiles, points that are lost or outside; a known jitter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dealias.errors import InputError, InputTypeError
from dealias.metrics import KeypointConsistency, keypoint_consistency


def test_values_are_numpys() -> None:
    generator = np.random.default_rng(0)
    points = generator.uniform(50, 150, (20, 5, 2))
    jitter = generator.normal(0, 2, (20, 5, 2))
    shifts = generator.uniform(-5, 5, (20, 2))
    corners = generator.uniform(10, 90, (20, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(20, 60, (20, 2))], 1)
    moved = points + jitter + shifts[:, None, ::-1]
    metric = KeypointConsistency()
    for part in (slice(0, 3), slice(3, 20)):
        tensors = [torch.tensor(each[part]) for each in (points, moved, shifts, boxes)]
        metric.update(*tensors)
    distances = np.linalg.norm(jitter, axis=2)
    relative = distances / np.linalg.norm(boxes[:, 2:] - boxes[:, :2], axis=1)[:, None]
    expected = {}
    for ending, values in (("", distances), ("_relative", relative)):
        expected |= {f"mean{ending}": values.mean(), f"p95{ending}": np.percentile(values, 95)}
        expected[f"largest{ending}"] = values.max()
    assert {name: value.item() for name, value in metric.compute().items()} == pytest.approx(expected, rel=1e-6)
    assert metric.counts() == {"pairs": 20, "points": 100, "lost": 0, "outside": 0}


def test_an_equivariant_network_is_perfect_and_a_known_jitter_has_its_closed_form() -> None:
    generator = np.random.default_rng(1)
    points = torch.tensor(generator.uniform(50, 150, (200, 5, 2)))
    assert keypoint_consistency(points, points + torch.tensor([3.0, -1]), (-1, 3))["largest"].item() < 1e-12
    metric, sigma = KeypointConsistency(), 1.5
    metric.update(*(points + torch.tensor(generator.normal(0, sigma, points.shape)) for _ in range(2)), shift=(0, 0))
    low, high = metric.intervals(0.99)["mean"]
    assert low < sigma * np.sqrt(np.pi) < high
    assert high - low < 0.4
    # of a Rayleigh distribution
    assert metric.compute()["p95"].item() == pytest.approx(sigma * np.sqrt(-4 * np.log(0.05)), rel=0.1)


def test_lost_points_and_points_outside_are_left_out_and_counted() -> None:
    a = torch.tensor([[[10.0, 10], [torch.nan, 0], [torch.nan, 0], [1, 10]]])
    b = torch.tensor([[[10.0, 10], [10, 10], [torch.nan, 0], [-4, 10]]])
    metric = KeypointConsistency()
    # view b lies 5 px to the right: what view a shows left of 5 is not in it
    metric.update(a, b + torch.tensor([-5.0, 0]), (0, -5), size=(20, 20))
    assert metric.counts() == {"pairs": 1, "points": 1, "lost": 1, "outside": 1}
    assert metric.compute()["largest"] == 0
    assert metric.compute()["largest_relative"].isnan()
    metric.reset()
    metric.update(a, a * torch.nan, (0, 0))
    assert metric.compute()["mean"].isnan()
    assert metric.counts()["lost"] == 2


def test_bad_input() -> None:
    good = torch.rand(2, 3, 2)
    with pytest.raises(InputError, match=r"boxes of shape \(1, 4\)"):
        keypoint_consistency(good, good, (0, 0), torch.rand(1, 4))
    with pytest.raises(InputTypeError, match="boxes"):
        keypoint_consistency(good, good, (0, 0), [[0, 0, 1, 1]])  # type: ignore[arg-type]
    for bad in (torch.rand(2, 3, 3), torch.rand(3, 2)):
        with pytest.raises(InputError, match="N, K, 2"):
            keypoint_consistency(bad, bad, (0, 0))
