"""What the report and the command line say of an evaluation: its metrics, their definitions, the finding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dealias.report.summary import MetricText, format_share

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
