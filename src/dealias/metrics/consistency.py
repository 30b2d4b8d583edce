"""Shift consistency of predictions: the share of image pairs with the same top-1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dealias.errors import InputError
from dealias.metrics._torchmetrics import Metric
from dealias.metrics.intervals import wilson_interval
from dealias.metrics.predictions import checked_classes


def shift_consistency(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """The share of pairs whose two predictions have the same top-1 class (Zhang 2019, section 4.2).

    >>> shift_consistency(torch.tensor([3, 7, 7, 1]), torch.tensor([3, 7, 2, 1])).item()
    0.75

    Args:
        logits_a, logits_b: the predictions for two shifts of the same N images, each float (N, classes) or the classes
            themselves, integer (N,).

    Returns:
        A float32 scalar.

    Raises:
        InputError: the shapes are wrong or differ, there are no pairs, or a logit is NaN.
        InputTypeError: the dtype is wrong.
    """
    return _agreements(logits_a, logits_b).float().mean()


class ShiftConsistency(Metric):
    """`shift_consistency` over many batches, as a torchmetrics Metric.

    >>> metric = ShiftConsistency()
    >>> metric.update(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([[0.4, 0.6], [0.3, 0.7]]))
    >>> metric.compute()
    tensor(0.5000)

    The counts are integers, so the result is exact and the same on any number of processes.

    Raises:
        InputError: as `shift_consistency`; or `compute` or `interval` is called before any `update`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    agreements: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("agreements", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits_a: Tensor, logits_b: Tensor) -> None:
        """Count the pairs of a batch; arguments as for `shift_consistency`."""
        agreements = _agreements(logits_a, logits_b)
        self.agreements += agreements.sum()
        self.total += agreements.numel()

    def compute(self) -> Tensor:
        """The share of pairs with the same top-1, a float32 scalar."""
        _check_updated(self.total)
        return self.agreements / self.total

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Wilson's confidence interval of the share, which takes the rows of all updates as independent pairs.

        Several pairs of one image are not independent: `measure_consistency` accounts for them.
        """
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            agreements, total = int(self.agreements), int(self.total)
        _check_updated(total)
        return wilson_interval(agreements, total, level)


def _check_updated(total: int | Tensor) -> None:
    if not total:
        raise InputError("ShiftConsistency has no pairs yet: call update(logits_a, logits_b) first")


def _agreements(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    first, second = checked_classes("logits_a", logits_a), checked_classes("logits_b", logits_b)
    if first.shape != second.shape or (logits_a.ndim == logits_b.ndim and logits_a.shape != logits_b.shape):
        raise InputError(
            f"logits_a has shape {tuple(logits_a.shape)} and logits_b {tuple(logits_b.shape)}: "
            "they must be of the same pairs"
        )
    if not len(first):
        raise InputError("logits_a and logits_b are empty: they need at least one pair")
    return first == second
