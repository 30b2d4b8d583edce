"""The metrics of an evaluation: one class for each metric family, in a file of its own.

A class owns its metrics' names and texts, the texts of its figures and plots, its tasks, their views, their counts and
the summary of these. A new family is a new file and its line in `FAMILIES`; all tables of names are made from that.
"""

from __future__ import annotations

from collections.abc import Sequence

from dealias.errors import InputError
from dealias.evaluation.tasks.base import FigureText, Metric, PlotText, Task
from dealias.evaluation.tasks.corruptions import CorruptionTask
from dealias.evaluation.tasks.equivariance import EquivarianceTask
from dealias.evaluation.tasks.sequences import SequenceTask
from dealias.evaluation.tasks.shifts import ShiftTask

FAMILIES: tuple[type[Task], ...] = (ShiftTask, EquivarianceTask, CorruptionTask, SequenceTask)

_METRICS: dict[str, Metric] = {name: metric for family in FAMILIES for name, metric in family.METRICS.items()}
METRICS: dict[str, str] = {name: metric.text for name, metric in _METRICS.items()}
"""The names of the metrics that `evaluate` knows, and what they measure."""
DEFAULT_METRICS = tuple(name for name, metric in _METRICS.items() if metric.default)
LABELLED = tuple(name for name, metric in _METRICS.items() if metric.labelled)
"""The metrics that need the images' classes."""
FIGURE_TEXTS: dict[str, FigureText] = {key: text for family in FAMILIES for key, text in family.FIGURES.items()}
"""How the figures of all families are shown, in the order of tables."""
PLOT_TEXTS: dict[str, PlotText] = {key: text for family in FAMILIES for key, text in family.PLOTS.items()}

__all__ = ["DEFAULT_METRICS", "FAMILIES", "FIGURE_TEXTS", "LABELLED", "METRICS", "PLOT_TEXTS", "choose_metrics"]


def choose_metrics(names: Sequence[str]) -> list[str]:
    """The metrics named, each once, in the order of `METRICS`.

    Raises:
        InputError: a name is unknown, or there are none.
    """
    wanted = list(METRICS) if "all" in names else list(names)
    unknown = [name for name in wanted if name not in METRICS]
    if unknown or not wanted:
        raise InputError(f"metrics={','.join(names)!r}: use all, or some of {', '.join(METRICS)}")
    return [name for name in METRICS if name in wanted]
