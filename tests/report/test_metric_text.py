"""Digits of figures."""

from __future__ import annotations

from dealias.evaluation.estimates import Figure
from dealias.report.metric_text import figure_rows, format_figure, format_share


def test_fractions_are_percentages_and_means_have_four_digits() -> None:
    assert format_share(0.98765) == "98.8%"
    assert format_figure("accuracy", Figure(0.985, (0.9751, 0.991))) == "98.5% (97.5 to 99.1)"
    assert format_figure("mce", Figure(1.2, None)) == "120.0%"
    assert format_figure("probability_variation", Figure(0.00049, (0.0, 0.001))) == "0.0005 (0.0000 to 0.0010)"
    assert format_figure("accuracy", None) == "not measured"


def test_changes_have_a_sign_and_no_unit() -> None:
    assert format_figure("accuracy", Figure(0.03, (-0.01, 0.05)), signed=True) == "+3.0 (-1.0 to +5.0)"


def test_rows_show_percentages_with_intervals_and_what_was_not_measured() -> None:
    plain = {"accuracy": Figure(0.985, (0.9751, 0.991)), "probability_variation": Figure(0.1234, None)}
    assert figure_rows({"plain": plain, "other": {"probability_variation": Figure(0.00049, None)}}) == [
        ["accuracy", "98.5% (97.5 to 99.1)", "not measured"],
        ["variation of P(correct)", "0.1234", "0.0005"],
    ]
