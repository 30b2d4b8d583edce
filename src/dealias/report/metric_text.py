"""How figures are shown: their names and definitions, which the metric families give, and their digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from dealias.evaluation.estimates import Figure
from dealias.evaluation.tasks import FIGURE_TEXTS
from dealias.evaluation.tasks.base import FigureText

Metrics: TypeAlias = Mapping[str, Mapping[str, Figure]]
"""Figures of networks, by the network's label and the figure's name."""


def shown_texts(metrics: Metrics) -> dict[str, FigureText]:
    """The texts of the figures that any network has."""
    return {key: text for key, text in FIGURE_TEXTS.items() if any(key in figures for figures in metrics.values())}


def figure_rows(metrics: Metrics) -> list[list[str]]:
    """A row for each figure that any network has: its name and its value for each network."""
    return [
        [text.name, *(format_figure(key, figures.get(key)) for figures in metrics.values())]
        for key, text in shown_texts(metrics).items()
    ]


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
