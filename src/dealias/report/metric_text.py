"""How figures are shown: their names and definitions, which the metric families give, and their digits."""

from __future__ import annotations

from dealias.evaluation.estimates import Figure
from dealias.evaluation.tasks import FIGURE_TEXTS, PLOT_TEXTS

__all__ = ["FIGURE_TEXTS", "PLOT_TEXTS", "format_figure", "format_share"]


def format_share(value: float) -> str:
    """A fraction as a percentage with one decimal."""
    return f"{100 * value:.1f}%"


def format_figure(key: str, figure: Figure | None, *, signed: bool = False) -> str:
    """A figure of that metric with its interval, in percent where it is a fraction.

    >>> format_figure("accuracy", Figure(0.5, (0.4, 0.6)))
    '50.0% (40.0 to 60.0)'
    """
    if figure is None:
        return "not measured"
    sign = "+" if signed else ""
    scale, digits, unit = (100, 1, "" if signed else "%") if FIGURE_TEXTS[key].is_fraction else (1, 4, "")
    shown = f"{scale * figure.value:{sign}.{digits}f}{unit}"
    if figure.interval is None:
        return shown
    low, high = (f"{scale * end:{sign}.{digits}f}" for end in figure.interval)
    return f"{shown} ({low} to {high})"
