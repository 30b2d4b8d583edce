"""The results of an evaluation: the records of `results.json` and `slides.json`, which reports read."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dealias.convert import Site, sites
from dealias.errors import InputError, printable
from dealias.evaluation.estimates import Estimate, Figure, difference
from dealias.evaluation.network import Network
from dealias.evaluation.plan import EvaluationPlan
from dealias.evaluation.store import Record
from dealias.evaluation.tasks import FAMILIES
from dealias.evaluation.tasks.base import Answers
from dealias.files import OutputFolder
from dealias.metrics.site_profile import Profile
from dealias.models import Preprocessing
from dealias.records import read_json
from dealias.runtime import versions

RESULTS, TABLE, SLIDES, TIMING = "results.json", "results.csv", "slides.json", "timing.json"


@dataclass(frozen=True, kw_only=True)
class NetworkRecord:
    """A network that was evaluated: its `dealias.models.ModelSpec`, its preprocessing and its task."""

    name: str
    preprocessing: Preprocessing
    weights: str | None = None
    sha256: str | None = None
    new_head: bool = False
    antialias: str | None = None
    recipe: str = "same-size"
    padding_mode: str | None = None
    num_classes: int | None = None
    in_chans: int | None = None
    task: str = "classes"
    method: str | None = None


@dataclass(frozen=True)
class ImagesRecord:
    """The images.

    Attributes:
        place: where they come from.
        asked_for: how many there are, unreadable ones included.
        skipped: names of those that could not be read, and the reasons.
        smaller_than_the_window: number of images that were enlarged for the first network.
        not_a_number: number of images on which each network returned NaN.
    """

    place: str
    asked_for: int
    skipped: list[tuple[str, str]]
    smaller_than_the_window: int
    not_a_number: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Results:
    """The content of `results.json`; most attributes have an entry for each network, by its label.

    Attributes:
        networks: the baseline first.
        baseline: its label.
        metrics: figures by the names of `dealias.evaluation.tasks.FIGURE_TEXTS`.
        differences: of the other networks' figures from the baseline's.
        corruptions: errors by corruption and severity.
        perturbations: `flip_rate` and `t5d` by perturbation.
        profiles: the downsampling sites' internal feature distances.
        curves: mean P(correct) at each offset along the diagonal.
        reaches: the range of the shifts, by mode.
        images: the images.
        notes: sentences on metrics that could not be measured.
        measured: the metrics.
        seed, difficulty: as asked for.
        level: of all intervals.
        sites: the downsampling sites.
        versions: of the packages that the figures depend on.
    """

    networks: dict[str, NetworkRecord]
    baseline: str
    metrics: dict[str, dict[str, Figure]]
    differences: dict[str, dict[str, Figure]]
    corruptions: dict[str, dict[str, dict[str, Figure]]] = field(default_factory=dict)
    perturbations: dict[str, dict[str, dict[str, Figure]]] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    reaches: dict[str, dict[str, str]] = field(default_factory=dict)
    images: ImagesRecord
    notes: list[str]
    measured: list[str]
    seed: int
    difficulty: int
    level: float
    sites: dict[str, list[Site]]
    versions: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers."""
        return asdict(self)


@dataclass(frozen=True)
class Slide:
    """An image of the report's slider.

    Attributes:
        label: the class whose probabilities are shown.
        shifts: in pixels, along the diagonal.
        curves: for each network, P(class) at each shift.
        crop, size: pixels of the window and of the picture in which it slides.
        source: the picture as data URL.
    """

    name: str
    label: str
    shifts: list[int]
    curves: dict[str, list[float]]
    crop: int
    size: int
    source: str


def summarise(records: Sequence[Record], plan: EvaluationPlan, networks: Sequence[Network]) -> Results:
    """The figures of all networks; `InputError` if not one image could be read."""
    images = _images(records, plan, networks)
    estimates: dict[str, dict[str, Estimate]] = {}
    details: dict[str, Any] = {}
    for network in networks:
        label, group = network.spec.label, plan.groups.index(network.preprocessing)
        answers = Answers([record for record in records if record.group == group], label)
        estimates[label] = {}
        for family in FAMILIES:
            tasks = [task for task in plan.tasks[group] if isinstance(task, family)]
            summary = family.summarise(tasks, answers, plan.request.rates)
            estimates[label] |= summary.estimates
            for detail, value in summary.details.items():
                known = details.setdefault(detail, {})
                known[label] = {**known[label], **value} if label in known else value
    baseline, *others = estimates
    return Results(
        networks={
            network.spec.label: NetworkRecord(
                **network.spec.identity(), preprocessing=network.preprocessing, task=network.task
            )
            for network in networks
        },
        baseline=baseline,
        metrics={label: {key: each.figure for key, each in mine.items()} for label, mine in estimates.items()},
        differences={
            label: {
                key: difference(estimate, estimates[baseline][key])
                for key, estimate in estimates[label].items()
                if key in estimates[baseline]
            }
            for label in others
        },
        **details,
        images=images,
        notes=plan.notes,
        measured=list(plan.request.metrics),
        seed=plan.request.seed,
        difficulty=plan.request.difficulty,
        level=0.95,
        sites={network.spec.label: sites(network.model, network.blank()) for network in networks},
        versions=versions(),
    )


def _images(records: Sequence[Record], plan: EvaluationPlan, networks: Sequence[Network]) -> ImagesRecord:
    source, skipped = plan.request.source, _skipped_names(plan, records)
    if not any(record.positions for record in records):
        raise InputError(
            f"images={source.place!r} has no readable image: all {len(skipped)} files were skipped, "
            f"the first one {skipped[0][0]}: {skipped[0][1]}"
        )
    enlarged: Counter[str] = Counter()
    for record in records:
        if record.group == 0:
            enlarged[record.task] += record.enlarged
    broken = {network.spec.label: Answers(records, network.spec.label).broken() for network in networks}
    return ImagesRecord(printable(source.place), len(source), skipped, max(enlarged.values(), default=0), broken)


def _skipped_names(plan: EvaluationPlan, records: Iterable[Record]) -> list[tuple[str, str]]:
    """Each file that could not be read, once."""
    sources = [{task.name: task.source for task in tasks} for tasks in plan.tasks]
    found: dict[str, str] = {}
    for record in records:
        for number, reason in record.skipped:
            found.setdefault(sources[record.group][record.task].names[number], reason)
    return sorted(found.items())


def results_table(results: Results) -> list[list[Any]]:
    """All figures, one in a row: network, metric, part, severity, value, low, high, images."""
    rows: list[list[Any]] = [["network", "metric", "part", "severity", "value", "low", "high", "images"]]

    def add(label: str, metric: str, part: str, figure: Figure, severity: str = "") -> None:
        low, high = figure.interval or ("", "")
        images = "" if figure.images is None else figure.images
        rows.append([label, metric, part, severity, figure.value, low, high, images])

    for label, figures in results.metrics.items():
        for metric, figure in figures.items():
            add(label, metric, "", figure)
        for metric, figure in results.differences.get(label, {}).items():
            add(label, f"{metric}_difference", results.baseline, figure)
        for name, row in results.corruptions.get(label, {}).items():
            for severity, figure in row.items():
                add(label, "corruption_error", name, figure, severity)
        for name, row in results.perturbations.get(label, {}).items():
            for metric, figure in row.items():
                add(label, metric, name, figure)
        for site in results.profiles[label].sites if label in results.profiles else ():
            for key in ("before", "after", "added"):
                add(label, f"feature_distance_{key}", site.path, Figure(getattr(site, key), None))
        for offset, value in enumerate(results.curves.get(label, [])):
            add(label, "mean_probability", f"diagonal offset {offset}", Figure(value, None))
    return rows


def write_results(folder: OutputFolder, results: Results, slides: Sequence[Slide], timing: Mapping[str, float]) -> None:
    """Write the results as JSON and CSV into `folder`."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(results_table(results))
    folder.write(RESULTS, json.dumps(results.as_json(), indent=1) + "\n")
    folder.write(TABLE, table.getvalue())
    folder.write(SLIDES, json.dumps([asdict(slide) for slide in slides]) + "\n")
    folder.write(TIMING, json.dumps(timing) + "\n")


def read_results(folder: str | Path) -> tuple[Results, list[Slide]]:
    """The results and slides that `write_results` wrote.

    Raises:
        InputError: a file cannot be read, or a key is missing or of another type.
        FileNotFoundError: a file is missing.
    """
    place = Path(folder)
    return read_json(Results, place / RESULTS), read_json(list[Slide], place / SLIDES)
