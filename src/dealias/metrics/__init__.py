"""How shift-sensitive a network is, and where in it: torchmetrics Metrics, and functions that run networks."""

from dealias.metrics.consistency import ShiftConsistency, shift_consistency
from dealias.metrics.features import internal_feature_distance, internal_feature_distances
from dealias.metrics.intervals import clustered_wilson_interval, wilson_interval
from dealias.metrics.measure import ConsistencyResult, measure_consistency

__all__ = [
    "ConsistencyResult",
    "ShiftConsistency",
    "clustered_wilson_interval",
    "internal_feature_distance",
    "internal_feature_distances",
    "measure_consistency",
    "shift_consistency",
    "wilson_interval",
]
