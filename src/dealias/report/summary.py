"""Tables and notes of the demo's two networks, from its `results.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dealias.evaluation.estimates import Figure
from dealias.evaluation.tasks.base import FigureText
from dealias.report.metric_text import FIGURE_TEXTS, format_figure


def _format_cell(values: Mapping[str, Any], key: str) -> str:
    measured = values.get(key) is not None
    return format_figure(key, Figure(values[key], values.get(f"{key}_interval")) if measured else None)


def _measured(results: Mapping[str, Any]) -> list[tuple[str, FigureText]]:
    networks = (results["baseline"], results["antialiased"])
    return [
        (key, text) for key, text in FIGURE_TEXTS.items() if any(values.get(key) is not None for values in networks)
    ]


def summary_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """One row for each metric that either network has: its name, the baseline's value, the anti-aliased network's."""
    return [
        [text.name, *(_format_cell(results[network], key) for network in ("baseline", "antialiased"))]
        for key, text in _measured(results)
    ]


def distance_table(results: Mapping[str, Any]) -> dict[str, Any]:
    """The mean internal feature distance of both networks at each layer and stage, for `render_page`."""
    before, after = (results[network]["feature_distance"] for network in ("baseline", "antialiased"))
    rows = []
    for place in {**before, **after}:
        values = [found.get(place) for found in (before, after)]
        row = [place, *("-" if value is None else f"{value:.4f}" for value in values)]
        row.append(f"{values[1] / values[0]:.2f}" if values[0] and values[1] is not None else "-")
        rows.append(row)
    return {
        "heading": "Internal feature distance",
        "text": "Means of the heat maps: 0 is shift-equivariant.",
        "columns": ["", *results["networks"].values(), "ratio"],
        "rows": rows,
    }


def metric_notes(results: Mapping[str, Any]) -> list[str]:
    """The definition of each metric that either network has."""
    return [text.note for _, text in _measured(results)]
