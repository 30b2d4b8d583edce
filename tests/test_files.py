import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dealias.errors import InputError
from dealias.files import LOCK, MARKER, OutputFolder, digest, prepare_output, write_whole


def test_prepare_output_creates_folders_and_leaves_nothing_in_them(tmp_path: Path):
    folder = prepare_output(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert list(folder.iterdir()) == []


def test_prepare_output_names_a_path_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"output=.*file/inside.* cannot be written"):
        prepare_output(tmp_path / "file" / "inside")


def test_digest_of_a_file_longer_than_a_block(tmp_path: Path):
    path = tmp_path / "weights.bin"
    path.write_bytes(content := bytes(range(256)) * 5000)
    assert digest(path) == hashlib.sha256(content).hexdigest()[:16]


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


def claim(path: Path, command: str = "convert", **inputs: Path) -> OutputFolder:
    return OutputFolder(path, command, writes=["model.safetensors", "states/state-*.pt"], inputs=inputs)


def test_a_run_writes_into_a_new_folder_and_again_into_its_own(tmp_path: Path):
    for content in ("old", "new"):
        with claim(tmp_path / "run") as folder:
            folder.write("states/state-1.pt", "state")
            assert folder.write("model.safetensors", content).read_text() == content
    marker = json.loads((tmp_path / "run" / MARKER).read_text())
    assert (marker["command"], marker["files"]) == ("convert", ["states/state-1.pt", "model.safetensors"])


def test_a_folder_with_other_files_is_refused_before_it_is_touched(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"output=.* has other files \(notes.txt\): name a new or empty folder"):
        claim(tmp_path)
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_the_folder_of_another_command_is_refused(tmp_path: Path):
    with claim(tmp_path / "run") as folder:
        folder.write("model.safetensors", "weights")
    with pytest.raises(InputError, match="is the folder of dealias convert: name a new or empty folder, or one of"):
        claim(tmp_path / "run", "repair")


def test_a_file_that_the_user_put_there_is_not_replaced(tmp_path: Path):
    with claim(tmp_path / "run") as folder:
        folder.write("states/state-1.pt", "state")
    (tmp_path / "run" / "notes.txt").write_text("mine")  # in nobody's way
    claim(tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").write_text("mine")
    with pytest.raises(
        InputError, match=r"has model.safetensors, which dealias convert did not write and would replace"
    ):
        claim(tmp_path / "run")


def test_an_input_is_not_replaced(tmp_path: Path):
    with claim(tmp_path / "run") as folder:
        given = folder.write("model.safetensors", "weights")
    with pytest.raises(InputError, match=r"weights='.*model.safetensors' would be replaced: .* name another folder"):
        claim(tmp_path / "run", weights=given)
    (tmp_path / "link").symlink_to(given)
    with pytest.raises(InputError, match="would be replaced"):
        claim(tmp_path / "run", weights=tmp_path / "link")
    claim(tmp_path / "run", weights=tmp_path / "elsewhere")


def test_a_second_run_hears_who_holds_the_folder(tmp_path: Path):
    with claim(tmp_path / "run"):
        with (
            pytest.raises(InputError, match=rf"is in use by dealias convert, process {os.getpid()} on ") as refusal,
            claim(tmp_path / "run"),
        ):
            pass
        assert "\n" not in str(refusal.value)
    with claim(tmp_path / "run"):
        pass


def test_a_killed_run_keeps_nobody_out_and_its_half_written_files_go(tmp_path: Path):
    code = f"""
import os, signal
from dealias.files import OutputFolder
folder = OutputFolder({str(tmp_path / "run")!r}, "convert", writes=["model.safetensors"]).__enter__()
os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
folder.write("model.safetensors", "weights")
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -9
    assert any(name.startswith(".") and name not in (MARKER, LOCK) for name in os.listdir(tmp_path / "run"))
    with claim(tmp_path / "run") as folder:
        assert set(os.listdir(folder.path)) == {MARKER, LOCK}


def test_a_run_that_did_nothing_leaves_the_folder_to_others(tmp_path: Path):
    with claim(tmp_path / "run"):
        pass
    with claim(tmp_path / "run", "repair"):
        pass


@pytest.mark.parametrize("content", ["", "[1]", "{}", "[" * 100_000, '{"command": 3, "files": 4}'])
def test_a_damaged_marker_makes_the_files_another_s(tmp_path: Path, content: str):
    with claim(tmp_path / "run") as folder:
        folder.write("model.safetensors", "weights")
    (tmp_path / "run" / MARKER).write_text(content)
    with pytest.raises(InputError, match=r"name a new or empty folder"):
        claim(tmp_path / "run")


def test_an_undeclared_file_is_our_mistake(tmp_path: Path):
    with claim(tmp_path / "run") as folder, pytest.raises(ValueError, match=r"other\.txt is not among"):
        folder.write("other.txt", "")


def test_a_folder_that_is_removed_is_not_made_again(tmp_path: Path):
    with claim(tmp_path / "run") as folder:
        folder.write("model.safetensors", "weights")
        shutil.rmtree(folder.path)
        with pytest.raises(InputError, match=r"^output='.*run' was removed while dealias convert wrote into it"):
            folder.write("model.safetensors", "weights")
    assert not folder.path.exists()


def test_a_run_that_writes_nothing_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError), OutputFolder(tmp_path / "runs" / "new", "train", writes=["a.json"]):
        raise InputError("a wrong argument")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_writes_nothing_leaves_the_folder_that_was_there(tmp_path: Path) -> None:
    with OutputFolder(tmp_path, "train", writes=["a.json"]):
        pass
    assert tmp_path.is_dir()
