"""The look of the report's figures: colours, fonts and width, for light and dark pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from dealias.optional import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINE_COLOR = "#c2410c"
ANTIALIASED_COLOR = "#0f766e"
SERIES_COLORS = (BASELINE_COLOR, ANTIALIASED_COLOR, "#4338ca", "#a16207", "#be185d", "#475569")
DARK_SERIES_COLORS = ("#fb923c", "#2dd4bf", "#a5b4fc", "#facc15", "#f472b6", "#cbd5e1")
COLORS = {"baseline": BASELINE_COLOR, "antialiased": ANTIALIASED_COLOR}
NAMES = {"baseline": "baseline", "antialiased": "anti-aliased"}

WIDTH = 7.2
"""Inches of a figure as wide as the page."""

Theme: TypeAlias = Literal["light", "dark"]

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, without a window."""
    require("matplotlib")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def styled(theme: Theme = "light") -> Any:
    """A context in which figures have the report's look, for light or dark pages."""
    require("matplotlib")
    import matplotlib

    ink, line = ("#1c1917", "#d6d3d1") if theme == "light" else ("#f5f5f4", "#57534e")
    colors: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink
    )
    return matplotlib.rc_context({**_STYLE, **colors, "grid.color": line, "axes.facecolor": "none"})


def series_color(index: int, theme: Theme = "light") -> str:
    """The colour of the network with this index; the baseline has index 0."""
    colors = SERIES_COLORS if theme == "light" else DARK_SERIES_COLORS
    return colors[index % len(colors)]
