"""`dealias demo`; what it measures is tested in tests/test_demo.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.evaluation_results import results

import dealias.demo
from dealias.demo import DemoResults


def test_the_demo_shows_its_finding_the_figures_and_the_page(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}

    def run_demo(output: Path, **options: Any) -> DemoResults:
        asked.update(options, output=output)
        options["on_progress"]("training", 0.5)
        return DemoResults("[It] is steadier.", results().metrics, {}, [], 3, True, 1, {}, 0.0)

    monkeypatch.setattr(dealias.demo, "run_demo", run_demo)
    assert run("demo", "--quick", "--seed", 3, "--output", tmp_path) == 0
    assert (asked["seed"], asked["quick"], asked["output"]) == (3, True, tmp_path)
    finding, *table, page = capsys.readouterr().out.splitlines()
    assert finding == "[It] is steadier."
    (accuracy,) = (line for line in table if "accuracy" in line and "70.0%" in line)
    assert "73.0%" in accuracy
    assert page == str(tmp_path / "report.html")
