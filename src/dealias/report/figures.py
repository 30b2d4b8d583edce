"""Pictures of shift sensitivity, each a function that returns a Matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from dealias.optional import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINE_COLOR = "#c2410c"
ANTIALIASED_COLOR = "#0f766e"
SERIES_COLORS = (BASELINE_COLOR, ANTIALIASED_COLOR, "#4338ca", "#a16207", "#be185d", "#475569")
DARK_SERIES_COLORS = ("#fb923c", "#2dd4bf", "#a5b4fc", "#facc15", "#f472b6", "#cbd5e1")
COLORS = {"baseline": BASELINE_COLOR, "antialiased": ANTIALIASED_COLOR}
NAMES = {"baseline": "baseline", "antialiased": "anti-aliased"}

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
    """An empty figure of so many inches; it belongs to no window."""
    require("matplotlib")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def styled(theme: Theme = "light") -> Any:
    """The context in which a figure takes the report's look, for pages of either theme."""
    require("matplotlib")
    import matplotlib

    ink, line = ("#1c1917", "#d6d3d1") if theme == "light" else ("#f5f5f4", "#57534e")
    colors: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink
    )
    return matplotlib.rc_context({**_STYLE, **colors, "grid.color": line, "axes.facecolor": "none"})


def plot_shift_curves(
    shifts: Sequence[int], probabilities: Mapping[str, np.ndarray[Any, Any]], images: np.ndarray[Any, Any]
) -> Figure:
    """P(correct class) against the diagonal shift: one panel for each image, one line for each network.

    Args:
        shifts: the S shifts in pixels.
        probabilities: for each network ("baseline", "antialiased") an array (images, S) of probabilities.
        images: (images, H, W), shown in the corner of each panel.
    """
    columns = min(len(images), 2)
    rows = -(-len(images) // columns)
    with styled():
        figure = new_figure(7.2, 1.45 * rows + 0.5)
        axes = figure.subplots(rows, 2 * columns, squeeze=False, width_ratios=[0.25, 1] * columns)
        for axis in axes.flat[2 * len(images) :]:
            axis.set_axis_off()
        pairs = zip(axes.flat[0::2], axes.flat[1::2], images, strict=False)
        for index, (thumbnail, axis, image) in enumerate(pairs):
            thumbnail.imshow(image, cmap="gray_r")
            thumbnail.set_axis_off()
            for network, values in probabilities.items():
                axis.plot(shifts, values[index], color=COLORS[network], linewidth=1.6, label=NAMES[network])
            axis.set_ylim(-0.03, 1.03)
            axis.set_yticks([0, 0.5, 1])
            axis.set_xlim(shifts[0], shifts[-1])
            axis.grid(alpha=0.25)
        for axis in axes[:, 1]:
            axis.set_ylabel("P(correct)")
        for axis in axes[-1, 1::2]:
            axis.set_xlabel("diagonal shift (px)")
        handles, labels = axes[0, 1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False)
    return figure


def plot_feature_distance(
    maps: Mapping[str, Mapping[tuple[str, str], np.ndarray[Any, Any]]], layers: Sequence[str], stages: Sequence[str]
) -> Figure:
    """Internal feature distance over shifts as heat maps: a column for each layer, a row for each network and stage.

    Args:
        maps: for each network, for (layer, stage), an array (dy, dx) of mean cosine distances with shift 0 in the
            middle; a network's missing pairs are left blank.
        layers: the columns, in order.
        stages: the rows of each network, such as "max" and "subsampled".

    Source: Zhang (2019), figure 5: light is far from shift-equivariant, dark is equivariant. One colour scale for all.
    """
    rows = [(network, stage) for network in maps for stage in stages]
    with styled():
        figure = new_figure(7.2, 7.2 / max(len(layers), 4) * len(rows) + 0.9)
        axes = figure.subplots(len(rows), len(layers), squeeze=False)
        ceiling = max(float(values.max()) for network in maps.values() for values in network.values()) or 1.0
        picture = None
        for row, (network, stage) in enumerate(rows):
            for column, layer in enumerate(layers):
                axis = axes[row, column]
                axis.set_xticks([])
                axis.set_yticks([])
                if row == 0:
                    axis.set_title(layer, fontsize=9, loc="center")
                if column == 0:
                    axis.set_ylabel(f"{NAMES[network]}\n{stage}", color=COLORS[network])
                values = maps[network].get((layer, stage))
                if values is None:
                    axis.spines[:].set_visible(False)
                    continue
                picture = axis.imshow(values, cmap="magma", vmin=0, vmax=ceiling, interpolation="nearest")
                axis.set_xlabel(f"mean {values.mean():.3f}", fontsize=7, labelpad=2)
        if picture is not None:
            bar = figure.colorbar(picture, ax=axes, location="bottom", shrink=0.5, aspect=40, pad=0.02)
            bar.set_label(
                "internal feature distance (1 - cosine similarity); shift 0 in the middle of each map", fontsize=8
            )
            bar.ax.tick_params(labelsize=7)
    return figure
