"""The report's tables and plots of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.evaluation_results import results, slides, stored_results, write

from dealias.errors import InputError
from dealias.evaluation.results import Results
from dealias.records import from_json
from dealias.report.evaluation import (
    evaluation_columns,
    evaluation_finding,
    evaluation_rows,
    render_evaluation,
    write_report,
)


def test_rows_show_figures_and_changes() -> None:
    rows = evaluation_rows(results())
    assert evaluation_columns(results()) == ["", "plain", "blurred", "change"]
    assert rows[0] == ["accuracy", "70.0% (65.0 to 75.0)", "73.0% (68.0 to 78.0)", "+3.0 (+1.0 to +5.0)"]
    assert rows[3][1:] == ["0.0200 (0.0000 to 0.0700)", "0.0500 (0.0000 to 0.1000)", "+0.0300 (+0.0100 to +0.0500)"]


def test_the_finding_is_a_sentence_and_says_when_images_are_too_few() -> None:
    found = "plain gives two random windows of one image the same top-1 class in 85.0% of cases (100 images); blurred: "
    assert evaluation_finding(results()) == f"{found}88.0%."
    stored = stored_results()
    stored["differences"]["blurred"]["crop_consistency"]["interval"] = [-0.01, 0.07]
    assert evaluation_finding(_read(stored)) == f"{found}88.0%, not told apart by this many images."
    for label in ("plain", "blurred"):
        stored["metrics"][label] = {"mean_flip_rate": stored["metrics"][label]["mean_flip_rate"]}
    stored["differences"]["blurred"] = {}
    assert evaluation_finding(_read(stored)) == "plain: mean flip rate 10.0% on 100 images."
    stored["metrics"]["plain"] = {}
    assert evaluation_finding(_read(stored)) == "plain was measured; see below."


def _read(stored: dict[str, Any]) -> Results:
    return from_json(Results, json.dumps(stored).encode(), "results.json")


def test_the_page_says_what_was_left_out_and_escapes_names() -> None:
    page = render_evaluation(results(), slides())
    for said in ("cat/&lt;i&gt;broken.jpg", "returned NaN for 3 images", "2 images are smaller", "Not measured, grid."):
        assert said in page
    assert "<i>broken" not in page
    assert "<b>" not in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


def test_the_page_says_how_far_shifts_go_and_which_network_was_not_trained() -> None:
    page = render_evaluation(results(), [])
    assert "Shifts of plain: crop, windows of 224 pixels in 256." in page
    untrained = "blurred has the weights of plain and was not trained after the conversion"
    assert untrained in page
    stored = stored_results()
    stored["networks"]["blurred"] |= {"weights": "mine.pth", "sha256": "0"}
    assert untrained not in render_evaluation(_read(stored), [])


def test_the_page_is_written_from_its_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not the folder of a finished evaluation.*results\.json; give"):
        write_report(tmp_path)
    write(tmp_path)
    assert write_report(tmp_path).read_text() == render_evaluation(results(), slides())
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(InputError, match=r"results\.json' is damaged"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(InputError, match=r"results\.json' lacks the key networks"):
        write_report(tmp_path)
