"""`dealias evaluate`, `report` and `profile` from the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for label in range(10):
        (tmp_path / "images" / str(label)).mkdir(parents=True)
        picture = Image.new("RGB", (40, 48), (25 * label, 90, 200 - 20 * label))
        picture.paste("white", (label, 7, 20, 30))
        picture.save(tmp_path / "images" / str(label) / "0.jpg")
    return tmp_path / "images"


def test_evaluate_then_report(
    run: Callable[..., int],
    error_of: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    images: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    arguments = (
        "evaluate",
        "dealias:vgg_small,in_chans=3",
        "dealias:vgg_small,in_chans=3,antialias=3",
        "--images",
        images,
    )
    arguments += ("--output", out, "--workers", 0, "--metrics", "accuracy,consistency", "--limit", 5, "--seed", 3)
    assert run(*arguments) == 0
    shown = capsys.readouterr().out.rstrip().splitlines()
    assert shown[-1] == str(out / "report.html")
    assert any("change" in line for line in shown)
    written = ".dealias.json counts.jsonl report.html results.csv results.json settings.json slides.json timing.json"
    assert sorted(path.name for path in out.iterdir()) == written.split()
    page = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    assert run("report", out) == 0
    assert (out / "report.html").read_bytes() == page
    assert "pass --resume" in error_of(*arguments)
    assert run(*arguments, "--resume") == 0
    assert "batch_size='many'" in error_of(*arguments, "--batch-size", "many")


def test_profile_ranks_and_writes(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    model = "dealias:vgg_small,in_chans=3,padding_mode=circular"
    assert run("profile", model, "--images", images, "--reach", 4, "--count", 2, "--output", out) == 0
    shown = capsys.readouterr().out
    assert shown.rstrip().splitlines()[-1] == str(out / "report.html")
    added = [float(row["added"]) for row in csv.DictReader((out / "profile.csv").open())]
    assert len(added) == 5
    assert added == sorted(added, reverse=True)
    stored = json.loads((out / "profile.json").read_text())
    assert stored["profiles"]["vgg_small"]["dx"] == [0, 1, 2, 3]
    assert "adds most shift-variance" in (out / "report.html").read_text()
    arguments = ("--reach", 2, "--count", 3, "--output", tmp_path / "own")
    assert run("profile", "dealias:vgg_small", *arguments) == 0
