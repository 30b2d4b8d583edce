"""What the report and the command line say of an evaluation: its table and the finding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dealias.report.summary import METRICS, format_figure, format_share


def evaluation_columns(results: Mapping[str, Any]) -> list[str]:
    """The metric, the baseline, and each other network with its change from that."""
    first, *others = results["metrics"]
    return ["", first, *(column for label in others for column in (label, "change"))]


def evaluation_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """A row for each metric that a network has, under `evaluation_columns`."""
    labels = list(results["metrics"])
    rows = []
    for key, text in METRICS.items():
        figures = [results["metrics"][label].get(key) for label in labels]
        if not any(figures):
            continue
        row = [text.name, format_figure(key, figures[0])]
        for label, figure in zip(labels[1:], figures[1:], strict=True):
            difference = results["differences"][label].get(key)
            change = format_figure(key, difference, signed=True) if difference else ""
            row += [format_figure(key, figure), change]
        rows.append(row)
    return rows


def consistency_key(figures: Mapping[str, Any]) -> str | None:
    """The form of consistency that stands for the others: windows', else circular shifts'."""
    return next((key for key in ("crop_consistency", "circular_consistency") if key in figures), None)


def evaluation_finding(results: Mapping[str, Any]) -> str:
    """The result in a sentence."""
    baseline = results["baseline"]
    figures = results["metrics"][baseline]
    key = consistency_key(figures) or next(iter(figures), None)
    if key is None:
        return f"{baseline} was measured; see below."
    name = METRICS[key].name
    found = f"{baseline}: {name} {_plain(key, figures[key])} on {figures[key]['images']:,} images"
    others = []
    for label, each in results["differences"].items():
        if key not in each:
            continue
        low, high = each[key]["interval"] or (-1.0, 1.0)
        verdict = "" if low > 0 or high < 0 else ", not told apart by this many images"
        others.append(f"{label} {_plain(key, results['metrics'][label][key])}{verdict}")
    return f"{'; '.join([found, *others])}."


def _plain(key: str, figure: Mapping[str, Any]) -> str:
    return format_share(figure["value"]) if METRICS[key].share else f"{figure['value']:.4f}"
