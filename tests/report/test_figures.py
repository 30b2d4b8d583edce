import numpy as np

from dealias.report import plot_feature_distance, plot_shift_curves


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


def test_feature_distance_maps_share_one_scale_and_leave_missing_ones_blank():
    maps = {
        "baseline": {("pool 1", "max"): np.full((3, 3), 0.1), ("pool 1", "subsampled"): np.full((3, 3), 0.4)},
        "antialiased": {("pool 1", "subsampled"): np.full((3, 3), 0.05)},
    }
    figure = plot_feature_distance(maps, ["pool 1"], ["max", "subsampled"])
    pictures = [axis.images[0] for axis in figure.axes if axis.images]
    assert len(pictures) == 3
    assert {picture.get_clim() for picture in pictures} == {(0.0, 0.4)}
    assert [axis.get_xlabel() for axis in figure.axes if axis.images] == ["mean 0.100", "mean 0.400", "mean 0.050"]
