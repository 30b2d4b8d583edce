import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dealias import benchmark, ops
from dealias.cli import bench
from dealias.ops import cpu


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PIXELS", 9)
    monkeypatch.setitem(benchmark.SIZES, 9, (2, 3))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)


def test_the_table_is_printed_and_written(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("bench", "--rounds", 1, "--output", tmp_path / "new") == 0
    shown = capsys.readouterr().out
    assert Path(shown.splitlines()[-1]) == tmp_path / "new" / "bench.csv"
    rows = list(csv.DictReader((tmp_path / "new" / "bench.csv").open()))
    assert len(rows) == 3 * 2 * 2
    assert {row["layout"] for row in rows} == {"NCHW", "NHWC"}
    assert all(float(row["unfused / fused"]) > 0 for row in rows)
    assert all(row["op"] in shown for row in rows)
    assert "…" not in shown
    assert (cpu.instruction_set() if ops.backends()["cpu"] == "active" else "pure PyTorch") in shown


def test_nothing_is_written_unasked(run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("bench", "--rounds", 1) == 0
    assert not list(tmp_path.iterdir())


def test_output_that_cannot_be_written_is_said_first(
    error_of: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(benchmark, "measure", lambda *args, **options: pytest.fail("measured"))
    assert "cannot be written" in error_of("bench", "--output", tmp_path / "file" / "folder")
