"""The whole evaluation of networks side by side.

The imports run downward: `store`, `estimates`, `network`, `tasks`, `units`, `plan`, `results`, `slides`, `run`.
`dealias.report` stands above and reads `results` and the texts of `tasks`. No module here imports it; the last step of
`evaluate` and of `run_profile`, which writes the page, calls it.
"""

from dealias.evaluation.run import evaluate
from dealias.evaluation.tasks import DEFAULT_METRICS, METRICS
from dealias.models import ModelSpec

__all__ = ["DEFAULT_METRICS", "METRICS", "ModelSpec", "evaluate"]
