"""Devices, and several gloo processes against one, on a network without batch statistics."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import sweep
from helpers.training_runs import losses, outcome, python, records, run_command, run_tiny, tiny_config

from dealias.errors import InputError
from dealias.training.processes import ProcessPart, make_accelerator, process_part, share_state

PLAIN = "helpers.training_runs:plain_network"
ARGUMENTS = ("train", PLAIN, "--recipe", "digits", "--device", "cpu", "--limit", 250)
ARGUMENTS += ("--epochs", 2, "--seed", 5, "--set", "shift_augmentation=true")


def test_devices_that_are_not_there() -> None:
    with pytest.raises(InputError, match="device='gpu' is unknown"):
        make_accelerator("gpu", "fp32")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device='cuda' cannot be used"):
            make_accelerator("cuda", "fp32")
    with pytest.raises(InputError, match="device='meta' cannot be used"):
        make_accelerator("meta", "fp32")
    with pytest.raises(InputError, match="device='cpu:0' cannot be used for training"):
        make_accelerator("cpu:0", "fp32")
    with pytest.raises(InputError, match="precision='fp16' needs a GPU"):
        make_accelerator("cpu", "fp16")


def test_workers_by_default() -> None:
    accelerator = SimpleNamespace(process_index=1, num_processes=2, device=torch.device("cpu"))
    assert process_part(accelerator, None, in_memory=True) == ProcessPart(1, 2, 0, pin_memory=False)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert process_part(accelerator, None, in_memory=False).workers == min(max(cores // 2 - 1, 1), 8)
    assert process_part(accelerator, 3, in_memory=True).workers == 3
    with pytest.raises(InputError, match="workers=-1 must be at least 0"):
        process_part(accelerator, -1, in_memory=False)


def test_a_state_is_read_from_its_content() -> None:
    accelerator, buffer = SimpleNamespace(num_processes=1), io.BytesIO()
    assert share_state(None, accelerator) is None
    torch.save({"step": 3, "model": {"weight": torch.arange(3)}}, buffer)
    state = share_state(buffer.getvalue(), accelerator)
    assert state is not None
    assert state["step"] == 3
    assert torch.equal(state["model"]["weight"], torch.arange(3))


@pytest.mark.parametrize("processes", sweep.only((2,), (2, 4)))
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


KILLED = """
import os, signal, sys, time
from dealias.cli import main
from dealias.errors import InputError
from dealias import runtime
from dealias.training import recorder

after_step, recorder.AGREE_EVERY = recorder.Recorder.after_step, 0.0

def after(self, loss, rate):
    if self.progress.step == 5 and os.environ["RANK"] == {rank!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return after_step(self, loss, rate)

class SlowError(InputError):
    def __init__(self, *message):
        time.sleep(1)  # torchrun terminates the others after a tenth of a second
        super().__init__(*message)

recorder.Recorder.after_step, runtime.InputError = after, SlowError
main()
"""


def run_until_killed(folder: Path, rank: str) -> tuple[str | Path, ...]:
    """Train on two processes until the one of `rank` is killed; the command's arguments."""
    script, run = folder / "script.py", (*ARGUMENTS, "--set", "save_every=1e-9", "--output", folder / "run")
    script.write_text(KILLED.format(rank=rank))
    broken = outcome(python(script, *run, processes=2))
    assert broken.returncode != 0
    ours = [line for line in broken.stderr.splitlines() if "torchrun: another process" in line]
    assert len(ours) == 1, broken.stderr
    assert "in run_command" not in broken.stderr  # the traceback there is torchrun's own
    return run


def test_a_killed_process_ends_the_others_in_one_line(tmp_path: Path) -> None:
    run_until_killed(tmp_path, "0")


@pytest.mark.sweep
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_killed_run_is_resumed(tmp_path: Path, rank: str) -> None:
    run = run_until_killed(tmp_path, rank)
    finished = run_command(*run, "--resume", processes=2)
    assert finished.returncode == 0, finished.stderr
    run_tiny(tmp_path / "one", config=tiny_config(PLAIN, limit=250, batch_size=64, shift_augmentation=True))
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


@pytest.mark.sweep
def test_the_process_group_ends_before_the_process(tmp_path: Path) -> None:
    """PyTorch warns of nothing: now and then a process aborts at its end."""
    script = tmp_path / "script.py"
    script.write_text(
        "import atexit, os\n"
        "from torch import distributed\n"
        "atexit.register(lambda: os.write(1, b'group' if distributed.is_initialized() else b'none '))\n"
        "from dealias.training.processes import make_accelerator\n"
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
