"""Plots and the HTML report."""

from dealias.report.page import picture_bytes, picture_source, render_page
from dealias.report.plots import plot_shift_curves

__all__ = ["picture_bytes", "picture_source", "plot_shift_curves", "render_page"]
