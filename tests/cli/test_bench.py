import csv
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dealias import benchmark
from dealias.cli import bench
from dealias.cli.common import app


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PIXELS", 9)
    monkeypatch.setitem(benchmark.SIZES, 9, (2, 3))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)


def test_the_table_is_printed_and_written(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "--rounds", "1", "--output", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    assert Path(result.output.splitlines()[-1]) == tmp_path / "new" / "bench.csv"
    rows = list(csv.DictReader((tmp_path / "new" / "bench.csv").open()))
    assert len(rows) == 3 * 2 * 2
    assert {row["layout"] for row in rows} == {"NCHW", "NHWC"}
    assert all(float(row["unfused / fused"]) > 0 for row in rows)
    assert all(row["op"] in result.output for row in rows)
    assert "…" not in result.output


def test_nothing_is_written_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["bench", "--rounds", "1"]).exit_code == 0
    assert not list(tmp_path.iterdir())


def test_output_that_cannot_be_written_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(benchmark, "measure", lambda *args, **options: pytest.fail("measured"))
    result = CliRunner().invoke(app, ["bench", "--output", str(tmp_path / "file" / "folder")])
    assert "cannot be written" in str(result.exception)
