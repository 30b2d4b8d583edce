"""Several gloo processes against one, on a network without batch statistics."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.training_runs import outcome, python, records, run_command, run_tiny, tiny_config

PLAIN = "helpers.training_runs:plain_network"
ARGUMENTS = ("train", PLAIN, "--recipe", "digits", "--device", "cpu", "--limit", 250)
ARGUMENTS += ("--epochs", 2, "--seed", 5, "--set", "shift_augmentation=true")


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.sweep)])
def test_processes_share_what_one_does(tmp_path: Path, processes: int) -> None:
    run_tiny(tmp_path / "one", config=tiny_config(PLAIN, limit=250, batch_size=64, shift_augmentation=True))
    finished = run_command(*ARGUMENTS, "--output", tmp_path / "many", processes=processes)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("report.html") == 1  # the first process alone speaks and writes
    one, many = records(tmp_path / "one"), records(tmp_path / "many")
    assert len(one) == len(many) == 2 * (4 + 1)
    for ours, theirs in zip(one, many, strict=True):
        assert ours.keys() == theirs.keys()
        if "loss" in ours:
            assert theirs == {**ours, "loss": pytest.approx(ours["loss"], rel=1e-5)}
        else:
            assert theirs == ours


def test_the_process_group_ends_before_the_process(tmp_path: Path) -> None:
    """PyTorch warns of nothing: now and then a process aborts at its end."""
    script = tmp_path / "script.py"
    script.write_text(
        "import atexit, os\n"
        "from torch import distributed\n"
        "atexit.register(lambda: os.write(1, b'group' if distributed.is_initialized() else b'none '))\n"
        "from dealias.training.engine import make_accelerator\n"
        "assert make_accelerator('cpu', 'fp32').num_processes == 2 and distributed.is_initialized()\n"
    )
    finished = outcome(python(script, processes=2))
    assert finished.stdout == "none none ", finished.stderr


@pytest.mark.sweep
def test_four_processes_resume_what_two_began(tmp_path: Path) -> None:
    finished = run_command(*ARGUMENTS, "--output", tmp_path / "one")
    assert finished.returncode == 0, finished.stderr
    broken = (*ARGUMENTS, "--output", tmp_path / "many", "--resume")
    finished = run_command(*broken, processes=2)
    assert finished.returncode == 0, finished.stderr
    (tmp_path / "many" / "checkpoints" / "state-00000008.pt").unlink()  # go on from the end of the first epoch
    finished = run_command(*broken, processes=4)
    assert finished.returncode == 0, finished.stderr
    for ours, theirs in zip(records(tmp_path / "one"), records(tmp_path / "many"), strict=True):
        assert theirs == {key: pytest.approx(value, rel=1e-5) for key, value in ours.items()}
