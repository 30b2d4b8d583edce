from dataclasses import replace

import numpy as np
import pytest
from helpers.evaluation_results import results

from dealias.report.plots import (
    plot_accuracy_consistency,
    plot_bars,
    plot_lines,
    plot_severities,
    plot_shift_curves,
    plot_site_maps,
)
from dealias.report.published import published_networks


def test_shift_curves_draw_one_line_for_each_network_in_each_panel():
    shifts = list(range(-4, 4))
    probabilities = {"baseline": np.linspace(0, 1, 32).reshape(4, 8), "antialiased": np.ones((4, 8))}
    figure = plot_shift_curves(shifts, probabilities, np.zeros((4, 5, 5)))
    panels = [axis for axis in figure.axes if axis.lines]
    assert len(panels) == 4
    for index, axis in enumerate(panels):
        baseline, antialiased = axis.lines
        np.testing.assert_array_equal(baseline.get_xdata(), shifts)
        np.testing.assert_array_equal(baseline.get_ydata(), probabilities["baseline"][index])
        np.testing.assert_array_equal(antialiased.get_ydata(), probabilities["antialiased"][index])


def test_site_maps_leave_missing_ones_blank() -> None:
    profiles = results().profiles
    first = profiles["plain"].sites[0]
    profiles["plain"].sites[0] = replace(first, maps={"output": first.maps["output"]})
    figure = plot_site_maps(profiles)
    assert len([axis for axis in figure.axes if axis.images]) == 7
    assert [axis.get_title() for axis in figure.axes if axis.images][:3] == ["features.7", "features.3", "features.7"]


def test_plots_draw_what_they_are_given() -> None:
    stored = results()
    points = {
        label: {"accuracy": figures["accuracy"], "consistency": figures["crop_consistency"]}
        for label, figures in stored.metrics.items()
    }
    axis = plot_accuracy_consistency(points).axes[0]
    drawn = [container.lines[0].get_xydata()[0].tolist() for container in axis.containers]
    assert drawn == [pytest.approx([85, 70]), pytest.approx([88, 73])]
    rings = next(each for each in axis.collections if each.get_label() == "baseline (paper)")
    assert len(rings.get_offsets()) == len(published_networks())
    assert [89.2, 76.16] in rings.get_offsets().tolist()
    lines = {label: list(enumerate(values)) for label, values in stored.curves.items()}
    axis = plot_lines(lines, "shift", "P(correct)").axes[0]
    assert [line.get_ydata().tolist() for line in axis.lines] == list(stored.curves.values())
    bars = {label: {"snow": rate, "tilt": 2 * rate} for label, rate in (("plain", 0.2), ("blurred", 0.1))}
    axis = plot_bars(bars, "rate").axes[0]
    assert [patch.get_width() for patch in axis.patches] == [0.2, 0.4, 0.1, 0.2]
    panels = [axis for axis in plot_severities(stored.corruptions).axes if axis.lines]
    assert len(panels) == 3
    assert panels[0].lines[0].get_ydata().tolist() == pytest.approx([40, 50, 60, 70, 80])
    profiles = results().profiles
    pictures = [axis.images[0] for axis in plot_site_maps(profiles).axes if axis.images]
    assert len(pictures) == 8
    assert {picture.get_clim() for picture in pictures} == {(0.0, 0.4)}
    assert [site.path for site in profiles["plain"].ranked()] == ["features.3", "features.7"]
