"""What the counts amount to: shares, means, intervals, and the networks' differences from the first of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

from dealias.errors import InputError
from dealias.evaluation.network import Network
from dealias.evaluation.plan import Plan
from dealias.evaluation.store import Record
from dealias.evaluation.tasks import ShiftTask
from dealias.files import write_whole
from dealias.metrics import alexnet_corruption_errors, clustered_wilson_interval, mean_interval, mean_normalised
from dealias.metrics.intervals import wilson_interval
from dealias.metrics.views import Mode, ShiftedViews, make_views
from dealias.perturb.corruptions import CORRUPTIONS, SEVERITIES
from dealias.perturb.sequences import PERTURBATIONS

_Part: TypeAlias = tuple[list[int], dict[str, Any]]
"""Numbers of some images, and what was counted of them."""
RESULTS, TABLE, SLIDES, TIMING = "results.json", "results.csv", "slides.json", "timing.json"


@dataclass
class Estimate:
    """A figure, its 95% interval, and what each image adds to it, by the image's number."""

    value: float
    interval: tuple[float, float] | None
    images: int
    each: dict[int, float] = field(default_factory=dict, repr=False)

    def as_json(self) -> dict[str, Any]:
        """All but what each image adds."""
        return {"value": self.value, "interval": self.interval, "images": self.images}


def summarise(
    records: Sequence[Record],
    plan: Plan,
    networks: Sequence[Network],
    settings: Mapping[str, Any],
    *,
    rates: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """What `results.json` holds: plain lists and numbers.

    Args:
        records: all of the run's, in any order.
        plan, networks, settings: of the run.
        rates: of the network by whose mFR and mT5D divide, as from `read_rates`.

    Raises:
        InputError: not one image could be read.
    """
    records = sorted(records, key=lambda record: (record["task"], record["group"], record["start"]))
    skipped = _skipped_names(plan, records)
    if not any(record["positions"] for record in records):
        raise InputError(
            f"images={plan.source.place!r} has no readable image: all {len(skipped)} files were skipped, "
            f"the first one {skipped[0][0]}: {skipped[0][1]}"
        )
    labels = [network.spec.label for network in networks]
    metrics: dict[str, dict[str, Estimate]] = {}
    corruptions, perturbations, profiles, broken = {}, {}, {}, {}
    for network in networks:
        label, group = network.spec.label, plan.groups.index(network.preprocessing)
        mine = _Mine([record for record in records if record["group"] == group], label)
        corruptions[label], errors = _corruption_metrics(mine)
        perturbations[label], flips = _sequence_metrics(mine, rates)
        metrics[label] = dict(_shift_metrics(mine, plan, group)) | errors | flips
        profiles[label] = next((counts["profile"] for _, counts in mine.of("equivariance")), None)
        broken[label] = mine.broken()
    differences = {
        label: {
            key: _difference(figure, metrics[labels[0]][key])
            for key, figure in metrics[label].items()
            if key in metrics[labels[0]]
        }
        for label in labels[1:]
    }
    return {
        "networks": {
            network.spec.label: {**network.spec.identity(), "preprocessing": settings["preprocessing"][index]}
            for index, network in enumerate(networks)
        },
        "baseline": labels[0],
        "metrics": {label: {key: each.as_json() for key, each in metrics[label].items()} for label in labels},
        "differences": differences,
        "corruptions": corruptions,
        "perturbations": perturbations,
        "profiles": {label: profile for label, profile in profiles.items() if profile},
        "curves": _curves(records, labels),
        "images": {
            "place": plan.source.place,
            "asked_for": len(plan.source),
            "skipped": [list(each) for each in skipped],
            "smaller_than_the_window": _enlarged(records),
            "not_a_number": broken,
        },
        "notes": plan.notes,
        "measured": settings["metrics"],
        "seed": settings["seed"],
        "difficulty": settings["difficulty"],
        "level": 0.95,
    }


def _skipped_names(plan: Plan, records: Iterable[Record]) -> list[tuple[str, str]]:
    """Each file that could not be read, once."""
    found: dict[str, str] = {}
    for record in records:
        for number, reason in record["skipped"]:
            source = plan.task(record["group"], record["task"]).source
            found.setdefault(source.names[number], reason)
    return sorted(found.items())


def _enlarged(records: Iterable[Record]) -> int:
    """How many images are smaller than what the first network sees."""
    totals: dict[str, int] = {}
    for record in records:
        if record["group"] == 0:
            totals[record["task"]] = totals.get(record["task"], 0) + record["enlarged"]
    return max(totals.values(), default=0)


@dataclass(frozen=True)
class _Mine:
    """The records of one network."""

    records: list[Record]
    label: str

    def of(self, task: str) -> list[_Part]:
        """Numbers of the images and their counts, unit by unit."""
        return [
            (record["positions"], record["counts"][self.label])
            for record in self.records
            if record["task"] == task and record["positions"]
        ]

    def tasks(self, start: str) -> list[str]:
        """The tasks whose names start so, each once."""
        return list(dict.fromkeys(record["task"] for record in self.records if record["task"].startswith(start)))

    def broken(self) -> int:
        """Images with NaN in the logits of a view, in the task that has most of them."""
        totals: dict[str, int] = {}
        for record in self.records:
            nan = record["counts"].get(self.label, {}).get("nan", [])
            totals[record["task"]] = totals.get(record["task"], 0) + sum(nan)
        return max(totals.values(), default=0)


def _share(counts: Mapping[int, int], trials: int = 1) -> Estimate:
    """A share with so many trials of each image."""
    each = list(counts.values())
    interval = wilson_interval(sum(each), len(each)) if trials == 1 else clustered_wilson_interval(each, trials)
    return Estimate(
        sum(each) / (len(each) * trials), interval, len(each), {key: value / trials for key, value in counts.items()}
    )


def _mean(values: Mapping[int, float]) -> Estimate:
    numbers = list(values.values())
    low, high = mean_interval(numbers)
    interval = (max(low, 0.0), high) if len(numbers) > 1 else None
    return Estimate(sum(numbers) / len(numbers), interval, len(numbers), dict(values))


def _shift_metrics(mine: _Mine, plan: Plan, group: int) -> Iterator[tuple[str, Estimate]]:
    units = mine.of("shifts")
    if not units:
        return
    task = plan.task(group, "shifts")
    assert isinstance(task, ShiftTask)  # by its name
    for key, name in (("top1", "accuracy"), ("top5", "top5_accuracy")):
        if key in units[0][1]:
            yield name, _share(_by_image(units, itemgetter(key)))
    for mode, arguments in task.modes.items():
        views = make_views(mode, **{**arguments, "seed": task.seed})
        parts = [(positions, found[mode]) for positions, found in units]
        yield from _mode_metrics(mode, parts, views)


def _mode_metrics(mode: Mode, parts: Sequence[_Part], views: ShiftedViews) -> Iterator[tuple[str, Estimate]]:
    agreements = _share(_by_image(parts, itemgetter("agreements")), len(views.compared))
    if mode == "one_pixel":
        low, high = agreements.interval or (0.0, 1.0)
        flips = {position: 1 - value for position, value in agreements.each.items()}
        yield "one_pixel_flip_probability", Estimate(1 - agreements.value, (1 - high, 1 - low), len(flips), flips)
        return
    yield f"{mode}_consistency", agreements
    yield f"{mode}_unanimity", _share(_by_image(parts, itemgetter("unanimous")))
    if "right_pairs" not in parts[0][1]:
        return
    right, pairs = (list(_by_image(parts, itemgetter(key)).values()) for key in ("right_agreements", "right_pairs"))
    if any(pairs):
        interval = clustered_wilson_interval(right, pairs)
        yield f"{mode}_correct_consistency", Estimate(sum(right) / sum(pairs), interval, len(pairs))
    if mode == "grid":
        counts = _by_image(parts, itemgetter("right_views"))
        yield "worst_case_accuracy", _share({key: int(count == views.count) for key, count in counts.items()})
    if mode == "diagonal":
        yield "probability_variation", _mean(_by_image(parts, itemgetter("variation")))


def _by_image(units: Iterable[_Part], pick: Callable[[dict[str, Any]], Sequence[Any]]) -> dict[int, Any]:
    return {
        position: value for positions, counts in units for position, value in zip(positions, pick(counts), strict=True)
    }


def _corruption_metrics(mine: _Mine) -> tuple[dict[str, Any], dict[str, Estimate]]:
    """Errors of each corruption at each severity, and the means that papers report."""
    cells: dict[str, dict[str, dict[int, int]]] = {}
    for task in mine.tasks("imagenet-c/"):
        for positions, counts in mine.of(task):
            for severity, wrong in counts["errors"].items():
                cell = cells.setdefault(task.split("/")[1], {}).setdefault(severity, {})
                cell.update(zip(positions, wrong, strict=True))
    table = {
        name: {severity: _share(cell).as_json() for severity, cell in sorted(row.items())}
        for name, row in sorted(cells.items(), key=lambda item: _order(CORRUPTIONS, item[0]))
    }
    counted = [name for name in table if name in CORRUPTIONS]
    if not counted:
        return table, {}
    total: dict[int, int] = {}
    trials: dict[int, int] = {}
    for name in counted:
        for cell in cells[name].values():
            for position, wrong in cell.items():
                total[position] = total.get(position, 0) + wrong
                trials[position] = trials.get(position, 0) + 1
    # an image that the released folders lack here or there has fewer trials
    most = max(trials.values())
    each = {position: wrong / trials[position] for position, wrong in total.items()}
    interval = clustered_wilson_interval(list(total.values()), list(trials.values()))
    errors = {name: sum(cell["value"] for cell in table[name].values()) / len(table[name]) for name in counted}
    found = {"mean_corruption_error": Estimate(sum(errors.values()) / len(errors), interval, len(each), each)}
    if most == len(CORRUPTIONS) * len(SEVERITIES):
        mce = mean_normalised(errors, alexnet_corruption_errors())
        found["mce"] = Estimate(mce, None, len(each))
    return table, found


def _sequence_metrics(
    mine: _Mine, rates: Mapping[str, Mapping[str, float]] | None
) -> tuple[dict[str, Any], dict[str, Estimate]]:
    """Flip rate and T5D of each perturbation, and the means that papers report."""
    table: dict[str, Any] = {}
    flips: dict[str, Estimate] = {}
    moves: dict[str, Estimate] = {}
    for task in sorted(mine.tasks("imagenet-p/"), key=lambda task: _order(PERTURBATIONS, task.split("/")[1])):
        name, units = task.split("/")[1], mine.of(task)
        if not units:
            continue
        pairs = units[0][1]["pairs"][0]
        flips[name] = _share(_by_image(units, itemgetter("flips")), pairs)
        moved = _by_image(units, itemgetter("moved"))
        moves[name] = _mean({position: count / pairs for position, count in moved.items()})
        table[name] = {"flip_rate": flips[name].as_json(), "t5d": moves[name].as_json()}
    counted = [name for name in table if name in PERTURBATIONS]
    found: dict[str, Estimate] = {}
    for key, estimates, normalised in (("flip_rate", flips, "mfr"), ("t5d", moves, "mt5d")):
        if not counted:
            continue
        values = {name: estimates[name].value for name in counted}
        each = _mean_by_image([estimates[name].each for name in counted])
        found[f"mean_{key}"] = Estimate(
            sum(values.values()) / len(values), _mean(each).interval if each else None, len(each), each
        )
        if rates is not None and set(PERTURBATIONS) <= set(counted):
            ratio = mean_normalised(values, {name: row[key] for name, row in rates.items()})
            found[normalised] = Estimate(ratio, None, len(each))
    return table, found


def _mean_by_image(each: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """The mean over perturbations for each image that all of them have."""
    common = set(each[0]).intersection(*each[1:])
    return {position: sum(values[position] for values in each) / len(each) for position in sorted(common)}


def _difference(figure: Estimate, first: Estimate) -> dict[str, Any]:
    """How far a figure is from the baseline's, with the interval of paired images."""
    common = sorted(set(figure.each) & set(first.each))
    changes = [figure.each[position] - first.each[position] for position in common]
    # equal changes leave nothing to judge their spread by
    interval = mean_interval(changes) if len(set(changes)) > 1 else None
    return {"value": figure.value - first.value, "interval": interval}


def _curves(records: Iterable[Record], labels: Sequence[str]) -> dict[str, list[float]]:
    """Mean P(correct) at each offset along the diagonal."""
    found: dict[str, list[float]] = {}
    for label in labels:
        units = [record["counts"][label] for record in records if label in record["counts"]]
        units = [counts["diagonal"] for counts in units if "diagonal" in counts]
        images = sum(len(counts["agreements"]) for counts in units)
        if images:
            found[label] = [sum(column) / images for column in zip(*(u["mean_curve_sum"] for u in units), strict=True)]
    return found


def _order(known: Sequence[str], name: str) -> tuple[int, str]:
    return (known.index(name) if name in known else len(known), name)


def read_rates(path: str | Path) -> dict[str, dict[str, float]]:
    """Flip rate and T5D of a network on each perturbation, from a CSV file with perturbation,flip_rate,t5d.

    Raises:
        InputError: it is no such file, or a rate is no positive number.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        found = {row["perturbation"]: {key: float(row[key]) for key in ("flip_rate", "t5d")} for row in rows}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"imagenet_p_rates={str(path)!r} cannot be used ({error}): a CSV file with the columns perturbation, "
            "flip_rate and t5d"
        ) from None
    missing = [name for name in PERTURBATIONS if not all(value > 0 for value in found.get(name, {"": 0.0}).values())]
    if missing:
        raise InputError(f"imagenet_p_rates={str(path)!r} has no positive rates for {', '.join(missing)}")
    return found


def results_table(results: Mapping[str, Any]) -> list[list[Any]]:
    """All figures, one in a row: network, metric, part, severity, value, low, high, images."""
    rows: list[list[Any]] = [["network", "metric", "part", "severity", "value", "low", "high", "images"]]

    def add(label: str, metric: str, part: str, severity: str, figure: Mapping[str, Any]) -> None:
        low, high = figure["interval"] or ("", "")
        rows.append([label, metric, part, severity, figure["value"], low, high, figure.get("images", "")])

    for label, figures in results["metrics"].items():
        for metric, figure in figures.items():
            add(label, metric, "", "", figure)
        for metric, figure in results["differences"].get(label, {}).items():
            add(label, f"{metric}_difference", results["baseline"], "", figure)
        for name, row in results["corruptions"][label].items():
            for severity, figure in row.items():
                add(label, "corruption_error", name, severity, figure)
        for name, row in results["perturbations"][label].items():
            for metric, figure in row.items():
                add(label, metric, name, "", figure)
        for site in results["profiles"].get(label, {"sites": []})["sites"]:
            for key in ("before", "after", "added"):
                add(label, f"feature_distance_{key}", site["path"], "", {"value": site[key], "interval": None})
        for offset, value in enumerate(results["curves"].get(label, [])):
            add(label, "mean_probability", f"diagonal offset {offset}", "", {"value": value, "interval": None})
    return rows


def write_results(
    folder: Path, results: Mapping[str, Any], slides: Sequence[Mapping[str, Any]], timing: Mapping[str, float]
) -> None:
    """Write the results as JSON, CSV and HTML into `folder`."""
    from dealias.report.evaluation import render_evaluation

    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(results_table(results))
    write_whole(folder / RESULTS, json.dumps(results, indent=1) + "\n")
    write_whole(folder / TABLE, table.getvalue())
    write_whole(folder / SLIDES, json.dumps(slides) + "\n")
    write_whole(folder / TIMING, json.dumps(timing) + "\n")
    write_whole(folder / "report.html", render_evaluation(results, slides))
