"""Pictures and the HTML report."""

from dealias.report.figures import plot_feature_distance, plot_shift_curves
from dealias.report.page import picture_bytes, picture_source, render_page

__all__ = ["picture_bytes", "picture_source", "plot_feature_distance", "plot_shift_curves", "render_page"]
