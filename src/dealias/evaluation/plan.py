"""Which metrics there are, and the units of work that they take."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dealias.data import Source, open_source
from dealias.errors import InputError
from dealias.evaluation.loading import Unit
from dealias.evaluation.network import Network
from dealias.evaluation.tasks import (
    CorruptionTask,
    EquivarianceTask,
    ReleasedCorruptionTask,
    ReleasedSequenceTask,
    SequenceTask,
    ShiftTask,
    Task,
)
from dealias.metrics.views import KINDS, Mode, network_views
from dealias.models import Preprocessing
from dealias.perturb.corruptions import CORRUPTIONS, SEVERITIES, VALIDATION_CORRUPTIONS
from dealias.perturb.released import read_video, released_corruption, released_videos
from dealias.perturb.sequences import PERTURBATIONS, VALIDATION_PERTURBATIONS

METRICS = {
    "accuracy": "top-1 and top-5 accuracy",
    "consistency": "agreement of two random crops (Zhang 2019); of circular shifts for networks of 32 x 32 images",
    "circular": "agreement of two random circular shifts",
    "fractional": "the same for shifts by fractions of a pixel",
    "zero-fill": "agreement of two random shifts that move zeros in",
    "diagonal": "P(correct) along the diagonal and its variation",
    "one-pixel": "probability that one pixel changes the prediction",
    "grid": "accuracy in the worst of 25 windows",
    "equivariance": "internal feature distance at the downsampling sites",
    "imagenet-c": "errors on 15 corruptions at 5 severities",
    "imagenet-c-extra": "errors on the 4 corruptions for validation",
    "imagenet-p": "flip rate and T5D on 10 perturbation sequences",
    "imagenet-p-extra": "the same on the 4 for validation",
}
"""The names of the metrics that `evaluate` knows, and what they are."""

LABELLED = ("accuracy", "grid", "imagenet-c", "imagenet-c-extra")
_MODES: dict[str, Mode] = {
    "circular": "circular",
    "fractional": "fractional",
    "zero-fill": "zero_fill",
    "diagonal": "diagonal",
    "one-pixel": "one_pixel",
    "grid": "grid",
}
MAPPED_IMAGES = 4


@dataclass(frozen=True)
class Plan:
    """The work of an evaluation.

    Attributes:
        metrics: what is measured.
        groups: the preprocessings; the networks of a group see the same views.
        tasks: for each group.
        notes: what is not measured, and why.
    """

    source: Source
    metrics: list[str]
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

    def task(self, group: int, name: str) -> Task:
        """The task of that name for the networks of that group."""
        return next(task for task in self.tasks[group] if task.name == name)

    def of_group(self, networks: Sequence[Network], group: int) -> list[Network]:
        """The networks of that group."""
        return [network for network in networks if network.preprocessing == self.groups[group]]


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


def make_plan(
    source: Source,
    networks: Sequence[Network],
    metrics: Sequence[str],
    *,
    seed: int = 0,
    limit: int | None = None,
    difficulty: int = 1,
    imagenet_c: str | Path | None = None,
    imagenet_p: str | Path | None = None,
) -> Plan:
    """The tasks of the metrics for each preprocessing; arguments as for `evaluate`.

    Raises:
        InputError: a metric is unknown, or nothing of what is asked for can be measured.

    Warns:
        UserWarning: some of it cannot.
    """
    if difficulty not in (1, 2, 3):
        raise InputError(f"difficulty={difficulty!r} is out of range: use 1, 2 or 3")
    chosen = choose_metrics(metrics)
    notes = []
    mismatched = [network for network in networks if network.labels is None]
    if mismatched:
        missing = [name for name in chosen if name in LABELLED]
        first = mismatched[0]
        classes = f"{len(source.classes)} classes" if source.classes else f"classes up to {max(source.labels)}"
        reason = (
            f"the images have {classes} and {first.spec.label} has {first.classes}; classes match where their numbers "
            "are the same, or where all folders bear ImageNet's names (n01440764)"
        )
        chosen = [name for name in chosen if name not in LABELLED]
        if missing and not chosen:
            raise InputError(f"metrics={','.join(missing)!r} cannot be measured: {reason}")
        if missing:
            notes.append(f"Not measured, {', '.join(missing)}: {reason}.")
    groups = list(dict.fromkeys(network.preprocessing for network in networks))
    if any(not group.slides for group in groups):
        missing = [name for name in chosen if name in _MODES and KINDS[_MODES[name]].windowed]
        if missing and len(missing) == len(chosen) and not any(group.slides for group in groups):
            raise InputError(f"metrics={','.join(missing)!r} cannot be measured: the network sees images whole")
        if missing:
            notes.append(f"Not measured where networks see images whole: {', '.join(missing)}.")
    for note in notes:
        warnings.warn(note, stacklevel=3)
    arguments: dict[str, Any] = {"seed": seed, "limit": limit, "difficulty": difficulty}
    arguments |= {"imagenet_c": imagenet_c, "imagenet_p": imagenet_p}
    tasks = [_tasks(source, chosen, group, **arguments) for group in groups]
    return Plan(source, chosen, groups, tasks, notes)


def _tasks(
    source: Source,
    metrics: Sequence[str],
    preprocessing: Preprocessing,
    *,
    seed: int,
    limit: int | None,
    difficulty: int,
    imagenet_c: str | Path | None,
    imagenet_p: str | Path | None,
) -> list[Task]:
    tasks: list[Task] = []
    modes = shift_modes(metrics, preprocessing)
    if modes or "accuracy" in metrics:
        tasks.append(ShiftTask("shifts", source, seed, images_per_unit=32, modes=modes, accuracy="accuracy" in metrics))
    if "equivariance" in metrics:
        few = source.limited(MAPPED_IMAGES, seed)
        tasks.append(EquivarianceTask("equivariance", few, seed, images_per_unit=MAPPED_IMAGES))
    corruptions = _names(metrics, "imagenet-c", CORRUPTIONS, VALIDATION_CORRUPTIONS)
    for name in corruptions:
        if imagenet_c is None:
            tasks.append(CorruptionTask(f"imagenet-c/{name}", source, seed, corruption=name))
            continue
        for severity in SEVERITIES:
            stored = open_source(released_corruption(imagenet_c, name, severity), limit=limit, seed=seed)
            _check_classes(stored.classes, source, imagenet_c)
            tasks.append(
                ReleasedCorruptionTask(
                    f"imagenet-c/{name}/{severity}",
                    stored,
                    seed,
                    images_per_unit=32,
                    corruption=name,
                    severity=severity,
                )
            )
    for name in _names(metrics, "imagenet-p", PERTURBATIONS, VALIDATION_PERTURBATIONS):
        settings: dict[str, Any] = {"images_per_unit": 8, "perturbation": name, "difficulty": difficulty}
        if imagenet_p is None:
            tasks.append(SequenceTask(f"imagenet-p/{name}", source, seed, **settings))
            continue
        videos = released_videos(imagenet_p, name, difficulty=difficulty)
        labels = sorted({label for _, label in videos})
        paths = [path for path, _ in videos]
        numbers, files = (
            [labels.index(label) for _, label in videos],
            [str(path.relative_to(imagenet_p)) for path in paths],
        )
        stored = Source.of_all(imagenet_p, labels, numbers, files, paths.__getitem__).limited(limit, seed)
        tasks.append(ReleasedSequenceTask(f"imagenet-p/{name}", stored, seed, **settings, frames=_frames(paths)))
    return tasks


def _frames(videos: Sequence[Path]) -> int:
    """How many frames the first readable video has; 0 if there is none."""
    for video in videos:
        with suppress(InputError):
            return len(read_video(video))
    return 0


def shift_modes(metrics: Sequence[str], preprocessing: Preprocessing) -> dict[Mode, Mapping[str, Any]]:
    """The modes of consistency that the metrics ask for, with their arguments, as far as there is room to slide."""
    wanted: list[Mode] = ["crop" if preprocessing.slides else "circular"] if "consistency" in metrics else []
    wanted += [mode for name, mode in _MODES.items() if name in metrics]
    return {mode: asdict(views) for mode, views in network_views(preprocessing, dict.fromkeys(wanted)).items()}


def _names(metrics: Sequence[str], metric: str, names: Sequence[str], validation: Sequence[str]) -> list[str]:
    return [*(names if metric in metrics else ()), *(validation if f"{metric}-extra" in metrics else ())]


def _check_classes(classes: list[str] | None, source: Source, place: str | Path) -> None:
    if classes != source.classes:
        raise InputError(
            f"imagenet_c={str(place)!r} has other classes than images={source.place!r}: both need the same subfolders"
        )
