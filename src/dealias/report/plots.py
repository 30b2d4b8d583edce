"""Plots, each a function that returns a Matplotlib figure in the theme of its page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from dealias.errors import InputError
from dealias.report.published import published_filters, published_networks
from dealias.report.theme import COLORS, NAMES, WIDTH, Theme, new_figure, series_color, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dealias.evaluation.estimates import Figure as Share
    from dealias.metrics.site_profile import Profile

MAPPED_SITES = 6

Points: TypeAlias = Sequence[tuple[float, float]]


def plot_shift_curves(
    shifts: Sequence[int], probabilities: Mapping[str, np.ndarray[Any, Any]], images: np.ndarray[Any, Any]
) -> Figure:
    """P(correct class) against the diagonal shift: a panel for each image, a line for each network.

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


def plot_accuracy_consistency(
    networks: Mapping[str, Mapping[str, Share]], *, published: bool = True, theme: Theme = "light"
) -> Figure:
    """Accuracy against consistency: the networks in colour with their intervals, the paper's in grey behind them.

    Args:
        networks: `accuracy` and `consistency` of each network.
        published: draw the paper's networks on ImageNet: rings for baselines, dots for anti-aliased networks, lines
            between them, small dots for other filters.
    """
    with _panel(4.3, "consistency (%)", "accuracy (%)", theme) as (figure, axis):
        if published:
            _draw_published(axis, "#78716c" if theme == "light" else "#a8a29e")
        for index, (name, measured) in enumerate(networks.items()):
            (x, across), (y, along) = (_whiskers(measured[key]) for key in ("consistency", "accuracy"))
            color = series_color(index, theme)
            axis.errorbar(x, y, xerr=across, yerr=along, fmt="o", color=color, markersize=8, elinewidth=1.3, label=name)
    return figure


@contextmanager
def _panel(
    height: float, x_label: str, y_label: str, theme: Theme, grid: Literal["both", "x"] = "both"
) -> Iterator[tuple[Figure, Axes]]:
    """A figure as wide as the page with one panel; the legend comes last."""
    with styled(theme):
        figure = new_figure(WIDTH, height)
        axis = figure.subplots()
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        axis.grid(axis=grid, alpha=0.5, linewidth=0.6)
        yield figure, axis
        figure.legend(loc="outside upper left", ncols=2, frameon=False)


def _whiskers(share: Share) -> tuple[float, Any]:
    """A share in percent, and the distances to the ends of its interval."""
    value = 100 * share.value
    return value, np.abs(100 * np.asarray(share.interval)[:, None] - value)


def _draw_published(axis: Axes, color: str) -> None:
    axis.scatter(
        [row["consistency"] for row in published_filters()],
        [row["accuracy"] for row in published_filters()],
        s=6,
        color=color,
        alpha=0.45,
        linewidths=0,
        label="other filters (paper)",
    )
    x, y = (
        [[row[f"{form}_{key}"] for row in published_networks()] for form in ("baseline", "antialiased")]
        for key in ("consistency", "accuracy")
    )
    axis.plot(x, y, color=color, linewidth=0.8, alpha=0.6, zorder=1)
    axis.scatter(x[0], y[0], s=22, facecolors="none", edgecolors=color, label="baseline (paper)")
    axis.scatter(x[1], y[1], s=22, color=color, linewidths=0, label="anti-aliased (paper)")
    for row in published_networks():
        if row["model"] in ("alexnet", "vgg16", "resnet18", "resnet50", "resnext101_32x8d", "mobilenet_v2"):
            place = (row["antialiased_consistency"], row["antialiased_accuracy"])
            axis.annotate(row["model"], place, (4, -3), textcoords="offset points", fontsize=7, color=color)


def plot_lines(lines: Mapping[str, Points], x_label: str, y_label: str, *, theme: Theme = "light") -> Figure:
    """Lines through points (x, y), one for each name, with markers on lines of few points."""
    with _panel(2.5, x_label, y_label, theme) as (figure, axis):
        axis.margins(x=0.01)
        for index, (name, points) in enumerate(lines.items()):
            x, y = ([point[place] for point in points] for place in (0, 1))
            marker = "o" if len(points) < 30 else ""
            axis.plot(x, y, color=series_color(index, theme), linewidth=1.7, marker=marker, markersize=3, label=name)
    return figure


def plot_bars(
    values: Mapping[str, Mapping[str, float]],
    label: str,
    *,
    intervals: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    theme: Theme = "light",
) -> Figure:
    """Horizontal bars: a group for each row, with a bar for each network.

    Args:
        values: the values of each network by row: errors of corruptions, flip rates, distances of sites.
        label: label of the axis of values.
        intervals: ends of the whiskers of each network by row.
    """
    rows = list(dict.fromkeys(row for by_row in values.values() for row in by_row))
    if not rows:
        raise InputError("values is empty: give at least one row")
    thickness, height = 0.8 / len(values), 0.8 + len(rows) * max(0.16 * len(values) + 0.12, 0.26)
    with _panel(height, label, "", theme, grid="x") as (figure, axis):
        ink = axis.yaxis.label.get_color()
        for index, (name, by_row) in enumerate(values.items()):
            shown = [(place, row) for place, row in enumerate(rows) if row in by_row]
            places = [place + (index - (len(values) - 1) / 2) * thickness for place, _ in shown]
            lengths = [by_row[row] for _, row in shown]
            color = series_color(index, theme)
            axis.barh(places, lengths, height=0.9 * thickness, color=color, label=name)
            if intervals is not None:
                ends = np.array([intervals[name][row] for _, row in shown]).T
                whiskers = np.abs(ends - np.array(lengths))
                axis.errorbar(lengths, places, xerr=whiskers, fmt="none", ecolor=ink, elinewidth=0.8)
        axis.set_yticks(range(len(rows)), rows)
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.axvline(0, color=ink, linewidth=0.8)
        axis.set_axisbelow(True)
    return figure


def plot_severities(table: Mapping[str, Mapping[str, Mapping[str, Share]]], *, theme: Theme = "light") -> Figure:
    """Error against severity: a panel for each corruption, a line for each network."""
    names = list(dict.fromkeys(name for errors in table.values() for name in errors))
    columns = 5
    rows = -(-len(names) // columns)
    with styled(theme):
        figure = new_figure(WIDTH, 1.25 * rows + 0.6)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axis in axes.flat[len(names) :]:
            axis.set_axis_off()
        for axis, name in zip(axes.flat, names, strict=False):
            for index, (network, errors) in enumerate(table.items()):
                cells, color = errors.get(name, {}), series_color(index, theme)
                levels, values = list(map(int, cells)), [100 * cell.value for cell in cells.values()]
                axis.plot(levels, values, color=color, linewidth=1.5, marker=".", markersize=4, label=network)
            axis.set_title(name.replace("_", " "), fontsize=8)
            axis.set_ylim(0, 103)
            axis.set_xticks(range(1, 6))
            axis.grid(alpha=0.5, linewidth=0.5)
        for axis in axes[:, 0]:
            axis.set_ylabel("error (%)")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
    return figure


def plot_site_maps(profiles: Mapping[str, Profile], *, theme: Theme = "light") -> Figure:
    """Internal feature distance as heat maps over shifts: a column for each site, rows for each network and stage.

    The first `MAPPED_SITES` sites of each network are drawn.

    Source: Zhang (2019), figure 5: light is far from shift-equivariant, dark is equivariant. One scale for all.
    """
    titles = {"max": "max", "output": "subsampled"}
    sites = {network: profile.sites[:MAPPED_SITES] for network, profile in profiles.items()}
    rows = [
        (network, stage) for network in sites for stage in titles if any(stage in site.maps for site in sites[network])
    ]
    columns = max(map(len, sites.values()))
    drawn = [site.maps[stage] for network, stage in rows for site in sites[network] if stage in site.maps]
    shifts, order, ceiling = next(iter(profiles.values())), list(profiles), max(map(np.max, drawn), default=0) or 1.0
    with styled(theme):
        figure = new_figure(WIDTH, (WIDTH / max(columns, 4) + 0.1) * len(rows) + 0.9)
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for (network, stage), places in zip(rows, axes, strict=True):
            color = series_color(order.index(network), theme)
            places[0].set_ylabel(f"{network}\n{titles[stage]}", color=color, fontsize=8)
            for axis, site in zip_longest(places, sites[network]):
                axis.set_xticks([])
                axis.set_yticks([])
                if site is None or stage not in site.maps:
                    axis.spines[:].set_visible(False)
                    continue
                values = np.asarray(site.maps[stage])
                axis.set_title(_short(site.path), fontsize=7, loc="center")
                picture = axis.imshow(
                    values, cmap="magma", vmin=0, vmax=ceiling, interpolation="nearest", aspect="auto"
                )
                axis.set_box_aspect(1)
                axis.set_xlabel(f"mean {values.mean():.3f}", fontsize=7, labelpad=2)
        if drawn:
            bar = figure.colorbar(picture, ax=axes, location="bottom", shrink=0.5, aspect=40, pad=0.02)
            label = f"1 - cosine similarity; shifts {_span(shifts.dy)} down, {_span(shifts.dx)} right"
            bar.set_label(label, fontsize=8)
            bar.ax.tick_params(labelsize=7)
    return figure


def _span(shifts: Sequence[int]) -> str:
    if list(shifts) == list(range(shifts[0], shifts[-1] + 1)):
        return f"{shifts[0]} to {shifts[-1]} px"
    return f"{', '.join(map(str, shifts))} px"


def _short(path: str) -> str:
    return path if len(path) <= 18 else f"...{path[-16:]}"
