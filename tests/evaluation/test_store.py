"""A run's folder: what is kept, what is refused, what a broken disk or file does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.evaluation_results import evaluation_folder

from dealias.errors import InputError
from dealias.evaluation.store import Record, RunStore

RECORD = Record("shifts", 0, 0, [4, 7], [0, 1], [(2, "broken")], 1, {"plain": {"top1": [0, 1]}})


@contextmanager
def opened(path: Path, seed: int = 0, *, resume: bool = False) -> Iterator[RunStore]:
    with evaluation_folder(path) as folder:
        yield RunStore(folder, {"seed": seed, "count": 3}, resume=resume)


def test_records_come_back_once_and_in_order(tmp_path: Path) -> None:
    later = replace(RECORD, start=32)
    with opened(tmp_path / "run") as store:
        for record in (later, RECORD, later):
            store.append(record)
    with opened(tmp_path / "run", resume=True) as store:
        assert store.records() == [RECORD, later]


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as store:
        store.append(RECORD)
        store._lines = Path("/dev/full")
        with pytest.raises(InputError, match=r"No space left.*continue with --resume"):
            store.append(replace(RECORD, start=32))
    with opened(tmp_path / "run", resume=True) as store:
        assert store.records() == [RECORD]


def test_lines_that_are_no_records_are_named(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as store:
        store.append(RECORD)
        lines = tmp_path / "run" / "counts.jsonl"
        whole = lines.read_text()
        for line, message in [
            ("{", r"counts\.jsonl, line 2' is damaged"),
            ('{"task":"shifts"}', r"counts\.jsonl, line 2' lacks the key group"),
            (whole.replace('"enlarged":1', '"enlarged":"one"').strip(), r"line 2' has a wrong value for enlarged"),
            (whole.replace('[2,"broken"]', "[2]").strip(), r"line 2' lacks the key skipped\.0\.1"),
        ]:
            lines.write_text(f"{whole}{line}\n")
            with pytest.raises(InputError, match=message):
                store.records()


def test_other_runs_and_other_files_are_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as store:
        store.append(RECORD)
    with pytest.raises(InputError, match="has a run already: pass --resume"), opened(tmp_path / "run"):
        pass
    with (
        pytest.raises(InputError, match=r"other settings \(seed\): seed was 0 and is 1"),
        opened(tmp_path / "run", 1, resume=True),
    ):
        pass
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="has other files"):
        evaluation_folder(tmp_path)
