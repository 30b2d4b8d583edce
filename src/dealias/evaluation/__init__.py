"""The whole evaluation of networks side by side, and the measurements that the demo and the audit share."""

from dealias.evaluation.plan import METRICS
from dealias.evaluation.run import DEFAULT_METRICS, evaluate
from dealias.evaluation.shared import STAGES, feature_maps, measure_accuracy, measure_shifts
from dealias.evaluation.specs import ModelSpec

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "STAGES",
    "ModelSpec",
    "evaluate",
    "feature_maps",
    "measure_accuracy",
    "measure_shifts",
]
