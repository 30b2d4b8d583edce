"""The report's tables and plots of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.evaluation_results import results, slides

from dealias.errors import InputError
from dealias.report.evaluation import render_evaluation, rewrite_report
from dealias.report.metrics import evaluation_columns, evaluation_finding, evaluation_rows
from dealias.report.summary import METRICS


def test_rows_show_figures_and_changes() -> None:
    rows = evaluation_rows(results())
    assert evaluation_columns(results()) == ["", "plain", "blurred", "change"]
    assert rows[0] == ["accuracy", "70.0% (65.0 to 75.0)", "73.0% (68.0 to 78.0)", "+3.0 (+1.0 to +5.0)"]
    assert rows[3][1:] == ["0.0200 (0.0000 to 0.0700)", "0.0500 (0.0000 to 0.1000)", "+0.0300 (+0.0100 to +0.0500)"]


def test_the_finding_says_when_images_are_too_few() -> None:
    found = results()
    assert evaluation_finding(found) == "plain: crop consistency 85.0% on 100 images; blurred 88.0%."
    found["differences"]["blurred"]["crop_consistency"]["interval"] = [-0.01, 0.07]
    assert "88.0%, not told apart by this many images." in evaluation_finding(found)


def test_the_page_says_what_was_left_out_and_escapes_names() -> None:
    page = render_evaluation(results(), slides())
    for said in ("cat/&lt;i&gt;broken.jpg", "returned NaN for 3 images", "2 images are smaller", "Not measured, grid."):
        assert said in page
    assert "<i>broken" not in page
    assert "<b>" not in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


def test_notes_begin_like_sentences() -> None:
    assert METRICS["top5_accuracy"].note.startswith("Top-5 accuracy: share of images")
    assert METRICS["mce"].note.startswith("mCE: ")


def test_the_page_is_written_again_from_its_data(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results()))
    with pytest.raises(InputError, match=r"no folder of a finished evaluation.*slides\.json; give"):
        rewrite_report(tmp_path)
    (tmp_path / "slides.json").write_text(json.dumps(slides()))
    assert rewrite_report(tmp_path).read_text() == render_evaluation(results(), slides())
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as a finished evaluation"):
        rewrite_report(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(InputError, match="results of another command"):
        rewrite_report(tmp_path)
