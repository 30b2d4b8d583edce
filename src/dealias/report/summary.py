"""How metrics are shown: names, definitions and figures; and the table of two networks, in the report and in print."""

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

    @property
    def title(self) -> str:
        """The name as a sentence begins; "mCE" stays."""
        return self.name if self.name[1].isupper() else f"{self.name[0].upper()}{self.name[1:]}"

    @property
    def note(self) -> str:
        """The name and its definition."""
        return f"{self.title}: {self.definition}"


_MODES = {
    "crop": "two random windows of one image (Zhang 2019)",
    "circular": "two random circular shifts of one image",
    "fractional": "two random circular shifts of one image by fractions of a pixel",
    "zero_fill": "two small random shifts of one image that move zeros in at the border",
    "diagonal": "two neighbouring windows along the diagonal of one image",
    "grid": "the window in the middle and another on the grid",
}
METRICS = {
    "accuracy": MetricText("accuracy", "share of images with the right top-1 class."),
    "top5_accuracy": MetricText("top-5 accuracy", "share of images with the right class among the first five."),
    **{
        f"{mode}_{kind}": MetricText(f"{mode.replace('_', '-')} {name}", definition.format(pairs=pairs))
        for mode, pairs in _MODES.items()
        for kind, name, definition in (
            ("consistency", "consistency", "share of pairs with the same top-1 class: {pairs}."),
            ("unanimity", "k-way agreement", "share of images with the same top-1 class in all those views."),
            (
                "correct_consistency",
                "consistency where right",
                "of the pairs with at least one right prediction, the share with the same.",
            ),
        )
    },
    "one_pixel_flip_probability": MetricText(
        "one-pixel flip probability",
        "share of pairs of windows one pixel apart with another top-1 class (Azulay and Weiss 2019); less is better.",
    ),
    "worst_case_accuracy": MetricText(
        "worst-case accuracy", "share of images right in every window of the grid (Engstrom et al. 2019)."
    ),
    "probability_variation": MetricText(
        "variation of P(correct)",
        "mean change of P(correct class) from one diagonal shift to the next; less is better.",
        share=False,
    ),
    "mean_corruption_error": MetricText(
        "mean corruption error", "ImageNet-C, mean error over corruptions and severities; less is better."
    ),
    "mce": MetricText("mCE", "the same, each corruption divided by AlexNet's error; less is better."),
    "mean_flip_rate": MetricText(
        "mean flip rate", "ImageNet-P, share of neighbouring frames with another top-1 class; less is better."
    ),
    "mean_t5d": MetricText(
        "mean T5D", "by how much the five leading classes change places, 0 to 15; less is better.", share=False
    ),
    "mfr": MetricText("mFR", "flip rates divided by those of the network given for it; less is better."),
    "mt5d": MetricText("mT5D", "T5Ds divided by those of the network given for it; less is better."),
}


def format_share(value: float) -> str:
    """A fraction as a percentage with one decimal."""
    return f"{100 * value:.1f}%"


def format_figure(key: str, figure: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    """A figure of that metric with its interval, in percent where it is a share.

    >>> format_figure("accuracy", {"value": 0.5, "interval": [0.4, 0.6]})
    '50.0% (40.0 to 60.0)'
    """
    if figure is None:
        return "not measured"
    sign = "+" if signed else ""
    scale, digits, unit = (100, 1, "" if signed else "%") if METRICS[key].share else (1, 4, "")
    shown = f"{scale * figure['value']:{sign}.{digits}f}{unit}"
    if not figure["interval"]:
        return shown
    low, high = (f"{scale * end:{sign}.{digits}f}" for end in figure["interval"])
    return f"{shown} ({low} to {high})"


def _format_cell(values: Mapping[str, Any], key: str) -> str:
    measured = values.get(key) is not None
    return format_figure(key, {"value": values[key], "interval": values.get(f"{key}_interval")} if measured else None)


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
    return [text.note for _, text in _measured(results)]
