"""Embeddings against NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine

from dealias.errors import InputError, InputTypeError
from dealias.metrics import EmbeddingConsistency, embedding_consistency


def test_values_are_scipys() -> None:
    generator = np.random.default_rng(0)
    a = generator.normal(size=(50, 16))
    b = a + generator.normal(0, 0.3, size=a.shape)
    expected = [cosine(one, other) for one, other in zip(a, b, strict=True)]
    metric = EmbeddingConsistency()
    for part in (slice(0, 20), slice(20, 50)):
        metric.update(torch.tensor(a[part]), torch.tensor(b[part]))
    found = {name: value.item() for name, value in metric.compute().items()}
    values = {"mean": np.mean(expected), "p95": np.percentile(expected, 95), "largest": np.max(expected)}
    assert found == pytest.approx(values, rel=1e-6)
    assert embedding_consistency(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(values["mean"])
    low, high = metric.intervals()["mean"]
    assert low < values["mean"] < high
    assert metric.counts() == {"pairs": 50}


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_equal_directions_have_no_distance_at_any_length(scale: float) -> None:
    a = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    assert embedding_consistency(a, a * scale).item() < 1e-12
    assert embedding_consistency(a, -a * scale).item() == pytest.approx(2)


def test_zero_vectors() -> None:
    zero, one = torch.zeros(1, 3), torch.ones(1, 3)
    assert embedding_consistency(zero, zero) == 0
    assert embedding_consistency(zero, one) == embedding_consistency(one, zero) == 1


def test_bad_input() -> None:
    good = torch.rand(2, 3)
    with pytest.raises(InputError, match="same pairs"):
        embedding_consistency(good, good[:1])
    with pytest.raises(InputError, match="NaN or infinite values in row 1"):
        embedding_consistency(good, torch.tensor([[0.0, 0, 0], [0, torch.inf, 0]]))
    with pytest.raises(InputTypeError, match="int64"):
        embedding_consistency(good.long(), good.long())
