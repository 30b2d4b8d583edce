"""`dealias report`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import evaluation_results

import dealias.report.training


def test_reports_are_written_again_or_compare_runs(
    run: Callable[..., int],
    error_of: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    evaluation, training = tmp_path / "evaluation", tmp_path / "training"
    evaluation_results.write(evaluation)
    assert run("report", evaluation) == 0
    assert capsys.readouterr().out == f"{evaluation / 'report.html'}\n"
    assert evaluation_results.PLAIN in (evaluation / "report.html").read_text()

    def write_comparison(runs: list[Path], output: Path) -> Path:
        return output / f"{len(runs)}.html"

    monkeypatch.setattr(dealias.report.training, "is_training_run", lambda run: run == training)
    monkeypatch.setattr(dealias.report.training, "write_comparison", write_comparison)
    for options, page in (((), training / "2.html"), (("--output", tmp_path), tmp_path / "2.html")):
        assert run("report", training, training, *options) == 0
        assert capsys.readouterr().out == f"{page}\n"

    line = error_of("report", training, evaluation)
    assert f"run={str(evaluation)!r} is not the folder of a training run: only those can be compared" in line
