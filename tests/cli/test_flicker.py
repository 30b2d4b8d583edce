"""`dealias flicker`: a run from start to end, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.flickering import pans

MODEL = "helpers.networks_of_tasks:SquareDetector"


def test_photos_to_a_page(run: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pans(tmp_path / "photos")
    output = tmp_path / "out"
    other = "helpers.networks_of_tasks:Detector,label=other"  # its boxes have scores of about .5
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
    capsys.readouterr()
    assert run(*arguments[:-1], tmp_path / "sure", "--least-score", 0.95) == 0
    assert capsys.readouterr().out.startswith("No network found a box")


def test_a_repaired_copy_is_shown_beside_the_two_on_photographs_that_it_has_not_seen(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pans(tmp_path / "photos", count=10)
    output = tmp_path / "out"
    arguments = ("flicker", "helpers.networks_of_tasks:Segmenter", "--photos", tmp_path / "photos", "--frames", 3)
    arguments += ("--crop-size", 32, "--against", "tri3", "--repair", "--epochs", 1, "--output", output)
    assert run(*arguments) == 0
    assert "held_out has 2 images" in capsys.readouterr().err
    labels = ["Segmenter", "anti-aliased, not trained", "anti-aliased, repaired"]
    results = json.loads((output / "results.json").read_text())
    assert [*results["networks"]] == labels
    assert len(results["clips"]) == 2
    repaired = json.loads((output / "repair" / "results.json").read_text())
    assert repaired["images"] == {"trained_on": 8, "held_out": 2}
    assert repaired["settings"]["filter"] == "tri3"
    page = (output / "report.html").read_text()
    assert page.count("data:image/jpeg") == 3 * 2 * 3
    assert "learned, without labels, from 8 photographs" in page
    (output / "results.json").unlink()
    (output / "chunks.jsonl").unlink()
    assert run(*arguments, "--resume") == 0
    assert json.loads((output / "results.json").read_text()) == results


def test_a_repair_learns_from_the_beginning_of_a_video_and_its_end_is_shown(
    run: Callable[..., int], error_of: Callable[..., str], tmp_path: Path
) -> None:
    videos = pytest.importorskip("helpers.videos", reason="the extra video is not installed")
    frames = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    videos.write_video(tmp_path / "film.mp4", frames)
    output = tmp_path / "out"
    arguments = ("flicker", "helpers.networks_of_tasks:Segmenter", "--video", tmp_path / "film.mp4", "--repair")
    arguments += ("--crop-size", 32, "--epochs", 1, "--output")
    assert run(*arguments, output) == 0
    results = json.loads((output / "results.json").read_text())
    assert [clip["frames"] for clip in results["clips"]] == [6]
    repaired = json.loads((output / "repair" / "results.json").read_text())
    assert sum(repaired["images"].values()) == 24
    assert repaired["images"]["held_out"] in range(5, 8)  # two or three of ten stretches
    assert "The frames shown here come after those" in (output / "report.html").read_text()
    short = error_of(*arguments, tmp_path / "other", "--stop", 4)
    assert "--repair learns from the first 4 fifths of the video, and its length is 4: give --stop, or" in short


def test_what_is_refused(error_of: Callable[..., str], tmp_path: Path) -> None:
    pans(tmp_path / "photos")
    output = ("--output", tmp_path / "out")
    assert "give either --video FILE or --photos FOLDER" in error_of("flicker", MODEL, *output)
    assert "missing.mp4" in error_of("flicker", MODEL, "--video", "missing.mp4", *output)
    repair = ("flicker", MODEL, "--photos", tmp_path / "photos", "--repair", *output)
    assert "--repair mends the anti-aliased copy" in error_of(*repair, "--against", MODEL)
