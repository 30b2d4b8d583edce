"""`dealias flicker`: a run from start to end, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.flickering import pans

MODEL = "helpers.networks_of_tasks:SquareDetector"


def test_photos_to_a_page(run: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pans(tmp_path / "photos")
    output = tmp_path / "out"
    other = "helpers.networks_of_tasks:Detector,label=other"
    arguments = ("flicker", MODEL, "--photos", tmp_path / "photos", "--against", other, "--frames", 9)
    arguments += ("--crop-size", 64, "--output", output)
    assert run(*arguments) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Boxes found again when the camera moves by one step: 100.0%")
    assert shown.rstrip().splitlines()[-1] == str(output / "report.html")
    results = json.loads((output / "results.json").read_text())
    assert results["networks"]["SquareDetector"]["figures"]["centre"]["value"] == 0
    page = (output / "report.html").read_text()
    assert page.count("data:image/jpeg") == 2 * 3 * 9
    assert run(*arguments, "--resume") == 0


def test_what_is_refused(error_of: Callable[..., str], tmp_path: Path) -> None:
    pans(tmp_path / "photos")
    output = ("--output", tmp_path / "out")
    assert "give either --video FILE or --photos FOLDER" in error_of("flicker", MODEL, *output)
    assert "missing.mp4" in error_of("flicker", MODEL, "--video", "missing.mp4", *output)
