"""How shift-sensitive a network is, where, and how robust: torchmetrics Metrics, and functions that run networks."""

from dealias.metrics.consistency import ShiftConsistency, shift_consistency
from dealias.metrics.equivariance import internal_feature_distance, internal_feature_distances
from dealias.metrics.intervals import clustered_wilson_interval, mean_interval, wilson_interval
from dealias.metrics.measure import ConsistencyResult, measure_consistencies, measure_consistency
from dealias.metrics.robustness import (
    T5D,
    CorruptionError,
    FlipRate,
    alexnet_corruption_errors,
    flip_rate,
    mean_normalised,
    top5_distance,
)

__all__ = [
    "T5D",
    "ConsistencyResult",
    "CorruptionError",
    "FlipRate",
    "ShiftConsistency",
    "alexnet_corruption_errors",
    "clustered_wilson_interval",
    "flip_rate",
    "internal_feature_distance",
    "internal_feature_distances",
    "mean_interval",
    "mean_normalised",
    "measure_consistencies",
    "measure_consistency",
    "shift_consistency",
    "top5_distance",
    "wilson_interval",
]
