"""The plan of an evaluation: its tasks for each preprocessing, and their units of work."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dealias.errors import InputError
from dealias.evaluation.network import Network
from dealias.evaluation.tasks import FAMILIES, LABELLED, choose_metrics
from dealias.evaluation.tasks.base import Request, Task
from dealias.evaluation.units import Unit
from dealias.models import Preprocessing


@dataclass(frozen=True)
class EvaluationPlan:
    """The work of an evaluation: the metrics that can be measured, and `notes` on those that cannot.

    `groups` are the preprocessings: the networks of a group see the same views. Each has its `tasks`.
    """

    request: Request
    groups: list[Preprocessing]
    tasks: list[list[Task]]
    notes: list[str]

    @property
    def units(self) -> list[Unit]:
        """All units of work, in order."""
        return [
            Unit(task, group, preprocessing, start, min(start + task.images_per_unit, len(task.source)))
            for group, preprocessing in enumerate(self.groups)
            for task in self.tasks[group]
            for start in range(0, len(task.source), task.images_per_unit)
        ]


def plan_evaluation(request: Request, networks: Sequence[Network]) -> EvaluationPlan:
    """The tasks of the metrics for each preprocessing.

    Raises:
        InputError: a metric is unknown, none of the metrics can be measured, or the networks' tasks differ.

    Warns:
        UserWarning: some of the metrics cannot be measured.
    """
    tasks_of = {network.spec.label: network.task for network in networks}
    if len({*tasks_of.values()}) > 1:
        found = ", ".join(f"{label} {task}" for label, task in tasks_of.items())
        raise InputError(f"the networks return different things ({found}): evaluate networks of one task")
    chosen = choose_metrics(request.metrics, networks[0].task)
    groups = list(dict.fromkeys(network.preprocessing for network in networks))
    chosen, unmatched = _with_classes(chosen, request, networks)
    chosen, whole = _with_room(chosen, groups)
    notes = unmatched + whole
    for note in notes:
        warnings.warn(note, stacklevel=3)
    request = replace(request, metrics=chosen)
    tasks = [[task for family in FAMILIES for task in family.plan(request, group)] for group in groups]
    return EvaluationPlan(request, groups, tasks, notes)


def _with_classes(chosen: list[str], request: Request, networks: Sequence[Network]) -> tuple[list[str], list[str]]:
    """The metrics without those that need classes which a network does not know, and a note on these."""
    missing = [name for name in chosen if name in LABELLED]
    unmatched = next((network for network in networks if network.labels is None), None)
    if unmatched is None or not missing:
        return chosen, []
    source = request.source
    classes = f"{len(source.classes)} classes" if source.classes else f"classes up to {max(source.labels)}"
    reason = (
        f"the images have {classes} and {unmatched.spec.label} has {unmatched.classes}; classes match where their "
        "numbers are the same, or where all folders bear ImageNet's names (n01440764)"
    )
    if missing == chosen:
        raise InputError(f"metrics={','.join(missing)!r} cannot be measured: {reason}")
    rest = [name for name in chosen if name not in missing]
    return rest, [f"Not measured, {', '.join(missing)}: {reason}."]


def _with_room(chosen: list[str], groups: Sequence[Preprocessing]) -> tuple[list[str], list[str]]:
    """The metrics, and a note on those that slide a window where a network sees images whole."""
    possible = {
        name: [family.measures(name, group) for group in groups]
        for name in chosen
        for family in FAMILIES
        if name in family.METRICS
    }
    missing = [name for name in chosen if not all(possible[name])]
    if missing and not any(map(any, possible.values())):
        raise InputError(f"metrics={','.join(missing)!r} cannot be measured: the network sees images whole")
    return chosen, [f"Not measured where networks see images whole: {', '.join(missing)}."] if missing else []
