"""A run's folder: what is kept, what is refused, what a broken disk or file does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dealias.errors import InputError
from dealias.evaluation.store import Record, RunStore

RECORD = Record("shifts", 0, 0, [4, 7], [0, 1], [(2, "broken")], 1, {"plain": {"top1": [0, 1]}})


def test_records_come_back_once_and_in_order(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run", {"seed": 0}, resume=False)
    later = replace(RECORD, start=32)
    for record in (later, RECORD, later):
        store.append(record)
    assert RunStore(tmp_path / "run", {"seed": 0}, resume=True).records() == [RECORD, later]


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run", {"seed": 0}, resume=False)
    store.append(RECORD)
    store._lines = Path("/dev/full")
    with pytest.raises(InputError, match=r"No space left.*continue with --resume"):
        store.append(replace(RECORD, start=32))
    again = RunStore(tmp_path / "run", {"seed": 0}, resume=True)
    assert again.records() == [RECORD]


def test_lines_that_are_no_records_are_named(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run", {"seed": 0}, resume=False)
    store.append(RECORD)
    lines = tmp_path / "run" / "counts.jsonl"
    whole = lines.read_text()
    for line, message in [
        ("{", r"counts\.jsonl, line 2' is damaged"),
        ('{"task":"shifts"}', r"counts\.jsonl, line 2' lacks the key group"),
        (whole.replace('"enlarged":1', '"enlarged":"one"').strip(), r"line 2' has str for the key enlarged"),
        (whole.replace('[2,"broken"]', "[2]").strip(), r"has 1 values for the key skipped\[0\]: expected 2"),
    ]:
        lines.write_text(f"{whole}{line}\n")
        with pytest.raises(InputError, match=message):
            store.records()


def test_other_runs_and_other_files_are_left_alone(tmp_path: Path) -> None:
    RunStore(tmp_path / "run", {"seed": 0, "count": 3}, resume=False).append(RECORD)
    with pytest.raises(InputError, match="has a run already: pass --resume"):
        RunStore(tmp_path / "run", {"seed": 0, "count": 3}, resume=False)
    with pytest.raises(InputError, match=r"other settings \(seed\): seed was 0 and is 1"):
        RunStore(tmp_path / "run", {"seed": 1, "count": 3}, resume=True)
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="has other files"):
        RunStore(tmp_path, {}, resume=True)
