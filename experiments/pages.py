"""docs/experiments.md and its figure, made from the records of the cells alone."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any

from cells import COMPARED, EXTENT, FILTERS
from records import Record, Records

from dealias.errors import InputError
from dealias.files import prepare_output, write_whole
from dealias.metrics import mean_interval
from dealias.report import picture_bytes
from dealias.report.theme import SERIES_COLORS, new_figure, styled

MEASURES = {
    "accuracy": "accuracy",
    "circular_consistency": "circular consistency",
    "zero_fill_consistency": "zero-fill consistency",
    "circular_variation": "P(correct) variation, circular",
    "zero_fill_variation": "P(correct) variation, zero-fill",
    "flip_rate": "flip rate",
    "corruption_error": "corruption error",
}
# data, network, number of seeds, command
PARTS = [
    ("fashion", "vgg_small", 5, "experiments/fashion.py"),
    ("fashion", "vgg13_bn_cifar", 3, "experiments/fashion.py --network vgg13_bn_cifar --epochs 30 --device cuda"),
    ("digits", "vgg_small", 2, "experiments/fashion.py --quick"),
]
DATA = {"fashion": "Fashion-MNIST", "digits": "MNIST digits (the quick form)"}
MARKERS = dict(zip(FILTERS, "osv^DP", strict=True))  # in Matplotlib's letters
METHODS = {
    ("none", "scratch"): "baseline, from scratch",
    (COMPARED, "convert"): "the baseline converted, no training",
    (COMPARED, "repair"): "the baseline converted and repaired, without labels",
    (COMPARED, "finetune"): "the baseline converted and fine-tuned, with labels",
    (COMPARED, "scratch"): "anti-aliased from scratch",
}
INTRODUCTION = """# Filters, padding and shift augmentation: the paper's experiment

Made by `python experiments/fashion.py --table` from `experiments/results.jsonl`; nothing here is typed by hand.
`make experiment` runs the cells that have no record yet, `make experiment-quick` its short form on digits.

Networks are trained from scratch for the same epochs with the same settings; only the filter differs within a table.
Values are percentages, means over seeds (of weights and order) with Student's 95% interval of the mean in brackets; a
single seed has no interval, and what has not been run says so. Every network sees the same test images and shifts.

- **accuracy**: all test images, unshifted.
- **circular consistency**: share of pairs of circular shifts, both axes from [-16, 16), with the same top-1;
  **zero-fill**: shifts of up to 3 pixels, zeros entering. With zero padding circular shifts also change what the
  borders see: their consistency then tells little of the downsampling.
- **P(correct) variation**: mean change of the right class's probability from one pixel to the next on the diagonal.
- **flip rate**: mean of ImageNet-P's ten sequences at 28 x 28; **corruption error**: mean of ImageNet-C's fifteen
  corruptions and five severities at 28 x 28.
"""


def write_page(results: Path, docs: Path) -> Path:
    """Write the page and its figure into `docs`; return the page's path.

    Raises:
        InputError: `results` has no records.
    """
    records = list(Records(results).read().values())
    if not records:
        raise InputError(f"results={str(results)!r} has no records: run cells first")
    prepare_output(docs / "images")
    parts = [INTRODUCTION]
    groups = _groups(records)
    figure = _figure(groups)
    write_whole(docs / "images" / "experiments.png", picture_bytes(figure))
    parts.append(
        "![Accuracy against consistency](images/experiments.png)\n\nAccuracy against consistency (circular shifts for "
        "circular padding, zero-fill shifts for zero padding), one point for each filter and setup that has been run; "
        "bars are the 95% intervals of both means."
    )
    for data, network, seeds, command in PARTS:
        sections = [group for key, group in groups.items() if key[:2] == (data, network)]
        parts.append(f"## {DATA[data]}, `dealias:{network}`")
        if not sections:
            parts.append(f"Not run: `python {command}` would.")
        for group in sections:
            parts += _section(group, seeds)
    write_whole(docs / "experiments.md", "\n\n".join(part.strip() for part in parts) + "\n")
    return docs / "experiments.md"


Key = tuple[str, str, int, str]
Group = dict[tuple[str, bool, str, str], list[Record]]


def _groups(records: Sequence[Record]) -> dict[Key, Group]:
    """Groups of comparable cells; each has lists of seeds by (padding, augment, filter, method)."""
    groups: dict[Key, Group] = {}
    for record in records:
        cell, settings = record["cell"], json.dumps(record["settings"], sort_keys=True)
        group = groups.setdefault((cell["data"], cell["network"], cell["epochs"], settings), defaultdict(list))
        group[cell["padding"], cell["augment"], cell["filter"], cell["method"]].append(record)
    return dict(sorted(groups.items()))


def _section(group: Group, seeds: int) -> Iterator[str]:
    first = next(iter(group.values()))[0]
    settings, run = first["settings"], first["run"]
    measured = {
        name: min(settings[f"{name}_images"], run["test_images"])
        for name in ("consistency", "diagonal", "sequence", "corruption")
    }
    devices = sorted({record["run"]["device"] for records in group.values() for record in records})
    yield (
        f"{run['train_images']:,} images to train on, {run['test_images']:,} to test; {first['cell']['epochs']} epochs "
        f"in batches of {settings['batch_size']}, {settings['precision']}, one-cycle learning rate up to "
        f"{settings['learning_rate']}. "
        f"Measured on the first {measured['consistency']:,} test images (consistency), {measured['diagonal']} "
        f"(variation), {measured['sequence']} (flip rate) and {measured['corruption']} (corruption error). "
        f"{' and '.join(devices)}; "
        f"{', '.join(f'{name} {version}' for name, version in run['versions'].items())}."
    )
    filters, setups = EXTENT[first["cell"]["data"]]
    for padding, augment in setups:
        trained = {name: group.get((padding, augment, name, "scratch"), []) for name in FILTERS}
        rows = {name: records for name, records in trained.items() if records or name in filters}
        border = "Zero" if padding == "zeros" else "Circular"
        yield f"### {border} padding, {'with' if augment else 'no'} shift augmentation"
        yield _table(rows, seeds, "filter") if any(rows.values()) else "Not run."
        if verdicts := [f"- {line}" for line in _verdicts(rows, padding)]:
            yield "\n".join(verdicts)
    compared = {
        label: group.get(("circular", False, filter, method), []) for (filter, method), label in METHODS.items()
    }
    yield f"### Repair, fine-tuning and training from scratch: {COMPARED}, circular padding, no shift augmentation"
    yield (
        "Repair and fine-tuning start from the converted baseline of the same seed and take as many epochs again; "
        "training from scratch takes half of theirs in all."
    )
    yield _table(compared, seeds, "network")


def _table(rows: dict[str, list[Record]], seeds: int, title: str) -> str:
    lines = [[title, "seeds", *MEASURES.values()], ["---"] * (2 + len(MEASURES))]
    for name, records in rows.items():
        shown = [_shown(_values(records, key)) for key in MEASURES] if records else ["not run"] * len(MEASURES)
        lines.append([name, f"{len(records)} of {seeds}", *shown])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _values(records: Sequence[Record], key: str) -> list[float]:
    return [100 * record["measured"][key] for record in records]


def _shown(values: Sequence[float], style: str = ".1f") -> str:
    low, high = mean_interval(values)
    return f"{fmean(values):{style}}" + (f" [{low:{style}}, {high:{style}}]" if math.isfinite(low) else "")


def _verdicts(rows: dict[str, list[Record]], padding: str) -> Iterator[str]:
    """Compare the rows with the paper's claims."""
    key = "circular_consistency" if padding == "circular" else "zero_fill_consistency"
    name = MEASURES[key]
    blurred = [filter for filter, records in rows.items() if records and filter != "none"]
    yield from _judge(f"Every filter beats none in {name}", [(rows["none"], rows[filter]) for filter in blurred], key)
    larger = [filter for filter in blurred if filter != "rect2"]
    pairs = [(rows[filter], rows["rect2"]) for filter in larger]
    yield from _judge(f"A filter larger than rect2 is less consistent than it ({name})", pairs, key)
    yield from _judge("Every filter beats none in accuracy", [(rows["none"], rows[f]) for f in blurred], "accuracy")
    gains = {filter: _gains(rows["none"], rows[filter]) for filter in blurred}
    if shown := [f"{filter} {_shown(values, '+.2f')}" for filter, values in gains.items() if values]:
        yield f"Points of accuracy gained over none, in pairs of the same seed: {', '.join(shown)}."


def _gains(before: Sequence[Record], after: Sequence[Record]) -> list[float]:
    """Points of accuracy gained for each seed in both."""
    seeds = {record["cell"]["seed"]: record for record in before}
    pairs = [(seeds[each["cell"]["seed"]], each) for each in after if each["cell"]["seed"] in seeds]
    return [b - a for a, b in (_values(pair, "accuracy") for pair in pairs)]


def _judge(claim: str, pairs: Sequence[tuple[list[Record], list[Record]]], key: str) -> Iterator[str]:
    """Count the pairs whose second member is higher: in the mean, and with intervals that do not overlap."""
    known = [(_values(low, key), _values(high, key)) for low, high in pairs if low and high]
    if not known:
        return
    higher = sum(fmean(b) > fmean(a) for a, b in known)
    with_intervals = [(a, b) for a, b in known if min(len(a), len(b)) > 1]
    apart = sum(mean_interval(a)[1] < mean_interval(b)[0] for a, b in with_intervals)
    intervals = (
        f"{apart} of {len(with_intervals)} with intervals that do not overlap"
        if with_intervals
        else "intervals need two seeds"
    )
    yield f"{claim}: {higher} of the {len(known)} run in the mean; {intervals}."


def _figure(groups: dict[Key, Group]) -> Any:
    """Accuracy against consistency with both intervals: a colour for each setup, a shape for each filter."""
    with styled():
        figure = new_figure(7.2, 3.8)
        axes = figure.subplots(1, 2, sharey=True)
        drawn = [
            ((network, epochs, augment), padding, filter, records)
            for (data, network, epochs, _), group in groups.items()
            for (padding, augment, filter, method), records in group.items()
            if (data, method) == ("fashion", "scratch")
        ]
        colors = dict(zip(sorted({setup for setup, *_ in drawn}), cycle(SERIES_COLORS)))
        for axis, padding, key in zip(
            axes, ("circular", "zeros"), ("circular_consistency", "zero_fill_consistency"), strict=True
        ):
            points = [(setup, filter, records) for setup, where, filter, records in drawn if where == padding]
            for setup, filter, records in points:
                (x, left_right), (y, down_up) = (_bar(_values(records, name)) for name in (key, "accuracy"))
                axis.errorbar(x, y, down_up, left_right, fmt="none", ecolor=colors[setup], elinewidth=0.8, alpha=0.5)
                axis.plot(x, y, MARKERS[filter], color=colors[setup], markersize=5)
            axis.set_title("zero padding" if padding == "zeros" else "circular padding")
            axis.set_xlabel(f"{MEASURES[key]} (%)")
            axis.grid(alpha=0.25)
            if not points:
                axis.text(0.5, 0.5, "not run", transform=axis.transAxes, ha="center")
        axes[0].set_ylabel("accuracy (%)")
        shapes = [axes[0].plot([], [], mark, color="gray", label=name)[0] for name, mark in MARKERS.items()]
        lines = [
            axes[0].plot([], [], "-", color=color, label=_setup_name(*setup))[0] for setup, color in colors.items()
        ]
        for handles, place in ((shapes, "outside upper center"), (lines, "outside lower center")):
            figure.legend(handles=handles, loc=place, ncols=len(handles), frameon=False, fontsize=8)
    return figure


def _bar(values: Sequence[float]) -> tuple[float, list[list[float]] | None]:
    """The mean, and the distances to the ends of its interval, as Matplotlib takes them."""
    mean, (low, high) = fmean(values), mean_interval(values)
    return mean, [[mean - low], [high - mean]] if math.isfinite(low) else None


def _setup_name(network: str, epochs: int, augment: bool) -> str:
    return f"{network}, {epochs} epochs, {'with' if augment else 'no'} shift augmentation"
