import os
import stat
from pathlib import Path

import pytest

from dealias.errors import InputError
from dealias.files import prepare_output, write_whole


def test_prepare_output_creates_folders_and_leaves_nothing_in_them(tmp_path: Path):
    folder = prepare_output(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert list(folder.iterdir()) == []


def test_prepare_output_names_a_path_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"output=.*file/inside.* cannot be written"):
        prepare_output(tmp_path / "file" / "inside")


def test_write_whole_replaces_the_file(tmp_path: Path):
    path = tmp_path / "results.json"
    write_whole(path, "old")
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["results.json"]


def test_write_whole_keeps_the_old_file_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "results.json"
    write_whole(path, "old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["results.json"]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_write_whole_writes_files_that_everyone_can_read(tmp_path: Path, umask: int):
    """Temporary files can be read by their owner alone; the umask does not count."""
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "results.json", "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "results.json").stat().st_mode) == 0o644
