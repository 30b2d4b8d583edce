"""The look of figures: colours that can be told from the page, and styles that end where they should."""

from __future__ import annotations

import re
from importlib import resources

import matplotlib
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_rgb

from dealias.report.theme import DARK_SERIES_COLORS, SERIES_COLORS, Theme, new_figure, series_color, styled


def luminance(color: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(color)]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colors_stand_out_from_the_cards_of_the_page(theme: Theme) -> None:
    template = resources.files("dealias.report").joinpath("templates/report.html").read_text()
    light, dark = re.findall(r"--card: (#\w+)", template)
    card = light if theme == "light" else dark
    colors = [series_color(index, theme) for index in range(6)]
    assert len({*colors}) == 6
    # WCAG 2.2: 3 for graphics (1.4.11), 4.5 for text (1.4.3)
    assert all(contrast(color, card) >= 3 for color in colors)
    with styled(theme):
        assert contrast(str(matplotlib.rcParams["text.color"]), card) >= 4.5
        assert matplotlib.rcParams["axes.facecolor"] == "none"


def test_colors_begin_again_after_the_last() -> None:
    assert [series_color(index) for index in range(7)] == [*SERIES_COLORS, SERIES_COLORS[0]]
    assert series_color(8, "dark") == DARK_SERIES_COLORS[2]


def test_the_style_ends_with_its_context() -> None:
    before = dict(matplotlib.rcParams)
    with styled("dark"):
        assert dict(matplotlib.rcParams) != before
    assert dict(matplotlib.rcParams) == before


def test_figures_have_no_window() -> None:
    before = pyplot.get_fignums()
    assert new_figure(3, 2).get_size_inches().tolist() == [3, 2]
    assert pyplot.get_fignums() == before
