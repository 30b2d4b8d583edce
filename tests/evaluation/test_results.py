"""`results.json` and its table: written, read, and refused where a key is missing or of another type."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.evaluation_results import results, slides, stored_results, write

from dealias.errors import InputError
from dealias.evaluation.results import read_results, results_table


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path, {"seconds": 1.5})
    assert read_results(tmp_path) == (results(), slides())
    assert json.loads((tmp_path / "timing.json").read_text()) == {"seconds": 1.5}


def _without(*keys: str) -> Callable[[Any], None]:
    def change(stored: Any) -> None:
        for key in keys[:-1]:
            stored = stored[key]
        del stored[keys[-1]]

    return change


def _with(value: Any, *keys: Any) -> Callable[[Any], None]:
    def change(stored: Any) -> None:
        for key in keys[:-1]:
            stored = stored[key]
        stored[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("seed"), "lacks the key seed"),
        (_without("metrics", "plain", "accuracy", "value"), r"lacks the key metrics\.plain\.accuracy\.value"),
        (_with("0", "seed"), "has a wrong value for seed"),
        (_with(True, "level"), "has a wrong value for level"),
        (_with([0.1], "metrics", "plain", "accuracy", "interval"), r"lacks the key .*interval\.1"),
        (_with("somewhere", "sites", "plain", 0, "status"), r"has a wrong value for sites\.plain\.0\.status"),
        (_with([], "networks"), "has a wrong value for networks"),
    ],
)
def test_bad_keys_are_named_with_their_file(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    write(tmp_path)
    stored = copy.deepcopy(json.loads((tmp_path / "results.json").read_text()))
    change(stored)
    (tmp_path / "results.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match=rf"results\.json.*{message}"):
        read_results(tmp_path)


def test_the_table_has_every_figure(tmp_path: Path) -> None:
    write(tmp_path)
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert len(rows) == len(results_table(results())) - 1
    stored = stored_results()
    assert sum(row["metric"] == "corruption_error" for row in rows) == 2 * 3 * 5
    assert sum(row["metric"] in ("flip_rate", "t5d") for row in rows) == 2 * 2 * 2
    assert sum(row["metric"].startswith("feature_distance_") for row in rows) == 2 * 2 * 3
    (accuracy,) = (row for row in rows if (row["network"], row["metric"]) == ("blurred", "accuracy"))
    assert float(accuracy["value"]) == stored["metrics"]["blurred"]["accuracy"]["value"]
    assert [float(accuracy[end]) for end in ("low", "high")] == stored["metrics"]["blurred"]["accuracy"]["interval"]
    (change,) = (row for row in rows if row["metric"] == "accuracy_difference")
    assert (change["network"], change["part"], change["images"]) == ("blurred", "plain", "")
    curve = [float(row["value"]) for row in rows if (row["network"], row["metric"]) == ("plain", "mean_probability")]
    assert curve == stored["curves"]["plain"]
