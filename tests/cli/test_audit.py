"""`dealias audit` from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

COPY = "anti-aliased, not trained"


def test_audit_writes_a_report_and_names_skipped_files(
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    images: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    arguments = ("audit", "dealias:vgg_small", "--images", images, "--output", out, "--filter", "1,2,1", "--workers", 0)
    assert run(*arguments) == 0
    shown = capsys.readouterr()
    lines = shown.out.rstrip().splitlines()
    assert lines[-1] == str(out / "report.html")
    assert "files were skipped" in lines[-2]
    assert "Not measured, accuracy" in shown.err  # 2 folders, 10 classes
    results = json.loads((out / "results.json").read_text())
    assert results["images"]["asked_for"] == 5
    assert [name for name, _ in results["images"]["skipped"]] == ["a/truncated.jpg"]
    assert list(results["metrics"]) == ["vgg_small", COPY]
    for figures in results["metrics"].values():
        assert "accuracy" not in figures
        for key in ("circular_consistency", "zero_fill_consistency"):
            low, high = figures[key]["interval"]
            assert 0 <= low <= figures[key]["value"] <= high <= 1
    assert results["networks"][COPY]["antialias"] == "1,2,1"
    page = (out / "report.html").read_text()
    assert "truncated.jpg" in page
    assert "b<i>" not in page
    assert "was not trained after the conversion" in page
    assert "Where the aliasing enters" in page
    assert run(*arguments) == 1
    assert "pass --resume" in capsys.readouterr().err
    assert run(*arguments, "--resume") == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    assert run(*arguments[:4], "--output", tmp_path / "other") == 1
    assert "name a new or empty folder, or one of dealias audit" in capsys.readouterr().err.replace("\n", " ")
