"""The whole evaluation of networks side by side."""

from dealias.evaluation.run import evaluate
from dealias.evaluation.tasks import DEFAULT_METRICS, METRICS
from dealias.models import ModelSpec

__all__ = ["DEFAULT_METRICS", "METRICS", "ModelSpec", "evaluate"]
