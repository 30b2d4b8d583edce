"""Embeddings: how far they turn between two shifts of an image.

>>> metric = EmbeddingConsistency()
>>> metric.update(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
>>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
{'mean': 0.5, 'p95': 0.95, 'largest': 1.0}
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dealias.metrics._overlap import check_finite, check_same_shape
from dealias.metrics._rows import Ratio, ValueMetric


class EmbeddingConsistency(ValueMetric):
    """1 - cosine similarity between the embeddings of two shifts of an image.

    `compute` returns float32 scalars: `mean`, `p95` (the 95th percentile, linear between the values) and `largest`. Two
    zero vectors have distance 0; a zero vector and another have distance 1.

    Raises:
        InputError: as `update`; or `compute`, `intervals` or `counts` is called before any `update`.
    """

    higher_is_better = False
    plot_upper_bound = 2.0
    columns = ("pairs", "distance")
    ratios: ClassVar = {"mean": Ratio("distance", "pairs", largest=2.0)}
    values: ClassVar = ("",)

    def update(self, a: Tensor, b: Tensor, image: Any = None) -> None:
        """Add pairs of embeddings.

        Args:
            a, b: float (N, D).
            image: as for `DetectionConsistency.update`.

        Raises:
            InputError: another shape, or a value is NaN or infinite.
            InputTypeError: an argument is of the wrong type.
        """
        distances = _cosine_distances(a, b).cpu()
        self._add([[1, distance] for distance in distances.tolist()], image)
        self._add_values(distances[:, None])


def embedding_consistency(a: Tensor, b: Tensor) -> Tensor:
    """The mean of 1 - cosine similarity, a float32 scalar; arguments and errors as for `EmbeddingConsistency.update`.

    >>> round(embedding_consistency(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]])).item(), 3)
    1.0
    """
    return _cosine_distances(a, b).mean().float()


def _cosine_distances(a: Tensor, b: Tensor) -> Tensor:
    """float64 (N,)."""
    check_same_shape(a, b, valid := "float embeddings (N, D)", (2,))
    check_finite(a, b, valid)
    # scaled first, as the squares of large and of small values leave the range; 0 / 0 is NaN
    scaled = (F.normalize(value.detach().double(), p=torch.inf, dim=1, eps=0) for value in (a, b))
    first, second = (F.normalize(value.nan_to_num(), dim=1) for value in scaled)
    zero = (first == 0).all(1), (second == 0).all(1)
    # half the squared distance is exact where the vectors are equal
    distances = torch.where(zero[0] | zero[1], 1.0, ((first - second) ** 2).sum(1) / 2)
    return distances.masked_fill(zero[0] & zero[1], 0.0)
