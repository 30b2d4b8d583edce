"""The report of training runs, and what damage to their files does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.training_runs import run_tiny, tiny_config

from dealias.errors import InputError
from dealias.report.training import write_comparison

DAMAGE = {
    "empty": b"",
    "list": b"[1]\n",
    "null": b"null\n",
    "binary": b"\xff\xfe\x00\n",
    "nested": b"[" * 100_000 + b"\n",
    "number": b"9" * 5000 + b"\n",
    "other": b'{"a": "b"}\n',
}
PLAIN = "helpers.training_runs:plain_network"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run_tiny(folder, config=tiny_config(PLAIN, limit=50))
    return folder


def test_the_page_compares_runs_and_is_written_again(finished: Path, tmp_path: Path) -> None:
    page = write_comparison([finished, finished], tmp_path / "both")
    assert page.read_text().count("zero-fill consistency") >= 1
    assert write_comparison([finished], finished).read_text() != page.read_text()


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["config.yaml", "log.jsonl", "timing.jsonl", ".dealias.json"])
def test_damaged_files_end_in_one_line(finished: Path, tmp_path: Path, name: str, damage: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(finished, broken)
    (broken / name).write_bytes(DAMAGE[damage])
    for act in (
        lambda: write_comparison([broken], broken),
        lambda: run_tiny(broken, resume=True, config=tiny_config(PLAIN, limit=50)),
    ):
        message = str(broken)
        try:
            act()  # may go on where what is lost can be made again
        except InputError as error:
            message = str(error)
        assert message.isprintable()
        assert str(broken) in message
