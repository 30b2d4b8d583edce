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
from dealias.evaluation.tasks.stability import StabilityTask
from dealias.metrics.outputs import AnyTask

FAMILIES: tuple[type[Task], ...] = (ShiftTask, StabilityTask, EquivarianceTask, CorruptionTask, SequenceTask)

_METRICS: dict[str, Metric] = {name: metric for family in FAMILIES for name, metric in family.METRICS.items()}
METRICS: dict[str, str] = {name: metric.text for name, metric in _METRICS.items()}
"""The names of the metrics that `evaluate` knows, and what they measure."""
DEFAULT_METRICS = tuple(name for name, metric in _METRICS.items() if metric.default)
DEFAULT_OF_OTHER_TASKS = ("stability", "equivariance")
"""The metrics that are measured of networks that return something else than class scores, unless others are named."""
LABELLED = tuple(name for name, metric in _METRICS.items() if metric.labelled)
"""The metrics that need the images' classes."""
FIGURE_TEXTS: dict[str, FigureText] = {key: text for family in FAMILIES for key, text in family.FIGURES.items()}
"""How the figures of all families are shown, in the order of tables."""
PLOT_TEXTS: dict[str, PlotText] = {key: text for family in FAMILIES for key, text in family.PLOTS.items()}

__all__ = [
    "DEFAULT_METRICS",
    "DEFAULT_OF_OTHER_TASKS",
    "FAMILIES",
    "FIGURE_TEXTS",
    "LABELLED",
    "METRICS",
    "PLOT_TEXTS",
    "choose_metrics",
]


def choose_metrics(names: Sequence[str] | None, task: AnyTask = "classes") -> list[str]:
    """The metrics named, each once, in the order of `METRICS`; the default of networks with that task for None.

    Raises:
        InputError: a name is unknown or not for the task, or there are none.
    """
    if names is None:
        names = DEFAULT_METRICS if task == "classes" else DEFAULT_OF_OTHER_TASKS
    kinds = {"classes": ("classifiers", "all"), "auto": ("classifiers", "others", "all")}.get(task, ("others", "all"))
    known = [name for family in FAMILIES if family.networks in kinds for name in family.METRICS]
    wanted = known if "all" in names else list(names)
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        of_task = "" if task in ("auto", "classes") else f" for task={task!r}"
        raise InputError(f"metrics={','.join(names)!r}: use all, or some of {', '.join(known)}{of_task}")
    return [name for name in known if name in wanted]
