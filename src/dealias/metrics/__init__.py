"""How shift-sensitive a network is, where, and how robust: torchmetrics Metrics, and functions that run networks."""

from dealias.metrics.consistency import ShiftConsistency, shift_consistency
from dealias.metrics.detection import (
    DetectionConsistency,
    ShiftAveragePrecision,
    average_precision,
    detection_consistency,
)
from dealias.metrics.embeddings import EmbeddingConsistency, embedding_consistency
from dealias.metrics.equivariance import internal_feature_distance, internal_feature_distances
from dealias.metrics.images import EquivariancePSNR, equivariance_psnr
from dealias.metrics.intervals import clustered_wilson_interval, mean_interval, ratio_interval, wilson_interval
from dealias.metrics.keypoints import KeypointConsistency, keypoint_consistency
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
from dealias.metrics.segmentation import SegmentationConsistency, segmentation_consistency
from dealias.metrics.stability import Stability, measure_stability
from dealias.metrics.tracks import Track, TrackStability, link_tracks
from dealias.metrics.views import make_views

__all__ = [
    "T5D",
    "ConsistencyResult",
    "CorruptionError",
    "DetectionConsistency",
    "EmbeddingConsistency",
    "EquivariancePSNR",
    "FlipRate",
    "KeypointConsistency",
    "SegmentationConsistency",
    "ShiftAveragePrecision",
    "ShiftConsistency",
    "Stability",
    "Track",
    "TrackStability",
    "alexnet_corruption_errors",
    "average_precision",
    "clustered_wilson_interval",
    "detection_consistency",
    "embedding_consistency",
    "equivariance_psnr",
    "flip_rate",
    "internal_feature_distance",
    "internal_feature_distances",
    "keypoint_consistency",
    "link_tracks",
    "make_views",
    "mean_interval",
    "mean_normalised",
    "measure_consistencies",
    "measure_consistency",
    "measure_stability",
    "ratio_interval",
    "segmentation_consistency",
    "shift_consistency",
    "top5_distance",
    "wilson_interval",
]
