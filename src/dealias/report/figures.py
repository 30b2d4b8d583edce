"""Pictures of shift sensitivity, each a function that returns a Matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dealias.errors import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINE_COLOR = "#c2410c"
ANTIALIASED_COLOR = "#0f766e"
COLORS = {"baseline": BASELINE_COLOR, "antialiased": ANTIALIASED_COLOR}
NAMES = {"baseline": "baseline", "antialiased": "anti-aliased"}

_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
}


def _figure(width: float, height: float) -> Figure:
    require("matplotlib", "report")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _styled() -> Any:
    require("matplotlib", "report")
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def plot_shift_curves(
    shifts: Sequence[int], probabilities: Mapping[str, np.ndarray[Any, Any]], images: np.ndarray[Any, Any]
) -> Figure:
    """P(correct class) of single images against the diagonal shift, one panel for each image, one line for each network.

    Args:
        shifts: the S shifts in pixels.
        probabilities: for each network ("baseline", "antialiased") an array (images, S) of probabilities.
        images: (images, H, W), shown in the corner of each panel.
    """
    columns = min(len(images), 3)
    rows = -(-len(images) // columns)
    with _styled():
        figure = _figure(7.2, 1.9 * rows + 0.4)
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axis in axes.flat[len(images) :]:
            axis.set_axis_off()
        for index, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
            for network, values in probabilities.items():
                axis.plot(shifts, values[index], color=COLORS[network], linewidth=1.6, label=NAMES[network])
            axis.set_ylim(-0.03, 1.03)
            axis.set_xlim(shifts[0], shifts[-1])
            axis.grid(alpha=0.25)
            thumbnail = axis.inset_axes((0.02, 0.05, 0.26, 0.38))
            thumbnail.imshow(image, cmap="gray_r")
            thumbnail.set_xticks([])
            thumbnail.set_yticks([])
        for axis in axes[:, 0]:
            axis.set_ylabel("P(correct)")
        for axis in axes[-1]:
            axis.set_xlabel("diagonal shift (px)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False)
    return figure


def plot_feature_distance(
    maps: Mapping[str, Mapping[str, np.ndarray[Any, Any]]], columns: Sequence[str], titles: Sequence[str]
) -> Figure:
    """Internal feature distance over circular shifts as heat maps: a row for each network, a column for each layer stage.

    Args:
        maps: for each network, for each of `columns`, an array (dy, dx) of mean cosine distances, shift 0 in the middle.
        columns: which maps to draw, in order.
        titles: the heading of each column.

    Source: Zhang (2019), figure 5: light is far from shift-equivariant, dark is equivariant. One colour scale for all.
    """
    with _styled():
        networks = list(maps)
        per_row = 5
        blocks = -(-len(columns) // per_row)
        figure = _figure(7.2, 1.75 * blocks * len(networks) + 0.5)
        axes = figure.subplots(blocks * len(networks), per_row, squeeze=False)
        ceiling = max(float(maps[network][column].max()) for network in networks for column in columns) or 1.0
        picture = None
        for axis in axes.flat:
            axis.set_axis_off()
        for position, (column, title) in enumerate(zip(columns, titles, strict=True)):
            block, place = divmod(position, per_row)
            for row, network in enumerate(networks):
                values = maps[network][column]
                axis = axes[block * len(networks) + row, place]
                axis.set_axis_on()
                reach_y, reach_x = values.shape[0] // 2, values.shape[1] // 2
                extent = (-reach_x - 0.5, values.shape[1] - reach_x - 0.5, values.shape[0] - reach_y - 0.5, -reach_y - 0.5)
                picture = axis.imshow(values, cmap="magma", vmin=0, vmax=ceiling, extent=extent, interpolation="nearest")
                axis.set_title(f"{title}\nmean {values.mean():.3f}", fontsize=8, color=COLORS[network])
                axis.set_xticks([-reach_x, 0])
                axis.set_yticks([-reach_y, 0])
                axis.tick_params(labelsize=6, length=2, pad=1)
                if place == 0:
                    axis.set_ylabel(NAMES[network], color=COLORS[network], fontsize=9)
        if picture is not None:
            bar = figure.colorbar(picture, ax=axes, location="bottom", shrink=0.5, aspect=40, pad=0.01)
            bar.set_label("internal feature distance (1 - cosine similarity)", fontsize=8)
            bar.ax.tick_params(labelsize=7)
    return figure
