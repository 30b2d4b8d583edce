"""The report of training runs: their curves and last figures on one page, read from their folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from dealias.errors import InputError, reason, shown
from dealias.evaluation.tasks import FIGURE_TEXTS
from dealias.files import write_report_file
from dealias.optional import require
from dealias.records import read_json_lines
from dealias.report.metric_text import format_share
from dealias.report.page import render_page
from dealias.report.plots import plot_lines
from dealias.report.profiles import Plot, drawn

LogRecord: TypeAlias = dict[str, bool | int | float]
"""A record of `log.jsonl` or `timing.jsonl`."""
_CONFIG_KEYS = ("model", "filter", "antialias", "shift_augmentation", "epochs")
Points = Mapping[str, Sequence[tuple[float, float]]]
SMOOTHED = 200  # the most points in a curve of losses


@dataclass(frozen=True)
class TrainingRun:
    """The content of a run's folder: its config, the log's records of steps and of epochs, and `timing.jsonl`."""

    label: str
    config: Mapping[str, Any]
    steps: list[LogRecord]
    epochs: list[LogRecord]
    timing: list[LogRecord]


def is_training_run(folder: str | Path) -> bool:
    """Whether the folder has the files of a training run."""
    return (Path(folder) / "config.yaml").is_file() and (Path(folder) / "log.jsonl").is_file()


def read_run(folder: str | Path) -> TrainingRun:
    """Read the folder of a run, finished or not.

    Raises:
        InputError: it is not the folder of a training run, or its log is damaged.
    """
    place = Path(folder)
    yaml = require("yaml")
    try:
        config = yaml.safe_load((place / "config.yaml").read_text(encoding="utf-8"))
        records = read_json_lines(LogRecord, place / "log.jsonl")
        timing = place / "timing.jsonl"
        timings = read_json_lines(LogRecord, timing) if timing.exists() else []
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"run={str(folder)!r} is not the folder of a training run: {reason(error)}") from None
    lacking = [key for key in _CONFIG_KEYS if not isinstance(config, Mapping) or key not in config]
    odd = [record for record in (*records, *timings) if "epoch" not in record]
    if lacking or odd:
        problem = f"config.yaml lacks {', '.join(lacking)}" if lacking else f"a record lacks its epoch: {shown(odd[0])}"
        raise InputError(f"run={str(folder)!r} is not the folder of a training run: {problem}")
    steps = [record for record in records if "loss" in record]
    epochs = [record for record in records if "accuracy" in record]
    return TrainingRun(place.resolve().name, config, steps, epochs, timings)


def write_comparison(folders: Sequence[str | Path], output: str | Path) -> Path:
    """Compare training runs on one page, `report.html` in `output`.

    Raises:
        InputError: a folder is not that of a training run, or `output` cannot be written.
    """
    runs = [read_run(folder) for folder in folders]
    return write_report_file(output, "report.html", render_training(_labelled(runs, folders)))


def _labelled(runs: Sequence[TrainingRun], folders: Sequence[str | Path]) -> dict[str, TrainingRun]:
    names = [run.label for run in runs]
    return {
        run.label if names.count(run.label) == 1 else str(folder): run
        for run, folder in zip(runs, folders, strict=True)
    }


def render_training(runs: Mapping[str, TrainingRun]) -> str:
    """The page as self-contained HTML."""
    columns, rows = _table(runs)
    notes = [FIGURE_TEXTS[key].note for key in ("accuracy", *_consistencies(runs))]
    notes.append("Accuracy and consistency: of the validation images, after each epoch. Best: the highest accuracy.")
    for label, run in runs.items():
        chosen = {key: value for key, value in run.config.items() if value is not None and key != "versions"}
        notes.append(f"{label}: " + ", ".join(f"{key} {value}" for key, value in chosen.items()) + ".")
    return render_page(
        title=f"dealias training of {', '.join(runs)}",
        finding=_finding(runs),
        figures=drawn(_figures(runs)),
        summary={"columns": columns, "rows": rows},
        notes=notes,
    )


def _consistencies(runs: Mapping[str, TrainingRun]) -> list[str]:
    keys = [key for run in runs.values() for record in run.epochs[:1] for key in record]
    return list(dict.fromkeys(key for key in keys if key.endswith("_consistency")))


def _finding(runs: Mapping[str, TrainingRun]) -> str:
    measured = {label: run for label, run in runs.items() if run.epochs}
    if not measured:
        return "No run has finished an epoch yet."
    best = {label: max(record["accuracy"] for record in run.epochs) for label, run in measured.items()}
    first = max(best, key=lambda label: best[label])
    shares = [
        f"{FIGURE_TEXTS[key].name} {format_share(measured[first].epochs[-1][key])}"
        for key in _consistencies({first: measured[first]})
    ]
    among = "" if len(runs) == 1 else f", the highest of {len(runs)} runs"
    return f"{first} reaches {format_share(best[first])} accuracy{among}; after its last epoch {', '.join(shares)}."


def _table(runs: Mapping[str, TrainingRun]) -> tuple[list[str], list[list[str]]]:
    keys = _consistencies(runs)
    rows = [["network"], ["anti-aliased"], ["shift augmentation"], ["epochs done"], ["images per second"]]
    rows += [["accuracy, best"], ["accuracy, last"], *([f"{FIGURE_TEXTS[key].name}, last"] for key in keys)]
    for run in runs.values():
        config = run.config
        speed = run.timing[-1]["images_per_second"] if run.timing else None
        cells = [
            config["model"],
            config["filter"] if config["antialias"] else "no",
            "yes" if config["shift_augmentation"] else "no",
            f"{len(run.epochs)} of {config['epochs']}",
            "not measured" if speed is None else f"{speed:,.0f}",
        ]
        last = run.epochs[-1] if run.epochs else {}
        best = {"accuracy": max(record["accuracy"] for record in run.epochs)} if run.epochs else {}
        for shares, key in ((best, "accuracy"), (last, "accuracy"), *((last, key) for key in keys)):
            cells.append(format_share(shares[key]) if key in shares else "not measured")
        for row, cell in zip(rows, cells, strict=True):
            row.append(cell)
    return ["", *runs], rows


def _figures(runs: Mapping[str, TrainingRun]) -> list[Plot]:
    plots: list[tuple[Plot, Points]] = []
    for key in ("accuracy", *_consistencies(runs)):
        points = {
            label: [(record["epoch"] + 1, 100 * record[key]) for record in run.epochs if key in record]
            for label, run in runs.items()
        }
        plots.append(_plot(FIGURE_TEXTS[key].title, points, "epoch", "%"))
    losses = {
        label: _smoothed([(record["step"], record["loss"]) for record in run.steps]) for label, run in runs.items()
    }
    rates = {label: [(record["step"], record["learning_rate"]) for record in run.steps] for label, run in runs.items()}
    plots.append(_plot("Training loss", losses, "step", "cross entropy"))
    plots.append(_plot("Learning rate", rates, "step", "learning rate"))
    speeds = {
        label: [(record["epoch"] + 1, record["images_per_second"]) for record in run.timing]
        for label, run in runs.items()
    }
    plots.append(_plot("Throughput", speeds, "epoch", "images per second"))
    return [plot for plot, points in plots if any(points.values())]


def _plot(title: str, points: Points, x_label: str, y_label: str) -> tuple[Plot, Points]:
    text = f"A line for each run, against the {x_label}."
    alternative = f"Line plot of {title.lower()}."
    return (title, text, alternative, lambda theme: plot_lines(points, x_label, y_label, theme=theme)), points


def _smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average neighbouring points, so that a curve has at most `SMOOTHED` points."""
    width = -(-len(points) // SMOOTHED) or 1
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]
