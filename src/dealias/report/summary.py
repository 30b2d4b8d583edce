"""The table of results that the report and the command line both show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MetricText:
    """How a metric is shown."""

    name: str
    definition: str
    share: bool = True


METRICS = {
    "accuracy": MetricText("accuracy", "share of images with the right top-1 class."),
    "crop_consistency": MetricText(
        "crop consistency", "share of pairs of random crops of one image with the same top-1 class (Zhang 2019)."
    ),
    "circular_consistency": MetricText(
        "circular consistency", "share of pairs of random circular shifts of one image with the same top-1 class."
    ),
    "zero_fill_consistency": MetricText(
        "zero-fill consistency", "the same for small shifts that move zeros in at the border."
    ),
    "probability_variation": MetricText(
        "variation of P(correct)", "mean change of P(correct class) from one diagonal shift to the next.", share=False
    ),
}


def format_share(value: float) -> str:
    """A fraction as a percentage with one decimal."""
    return f"{100 * value:.1f}%"


def _format_cell(values: Mapping[str, Any], key: str) -> str:
    if values.get(key) is None:
        return "not measured"
    if not METRICS[key].share:
        return f"{values[key]:.4f}"
    low, high = values[f"{key}_interval"]
    return f"{format_share(values[key])} ({100 * low:.1f} to {100 * high:.1f})"


def _measured(results: Mapping[str, Any]) -> list[tuple[str, MetricText]]:
    networks = (results["baseline"], results["antialiased"])
    return [(key, text) for key, text in METRICS.items() if any(values.get(key) is not None for values in networks)]


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
    return [f"{text.name[0].upper()}{text.name[1:]}: {text.definition}" for _, text in _measured(results)]
