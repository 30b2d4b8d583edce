"""Runs that are killed or stopped, and go on to what an unbroken run computes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.training_runs import (
    ENVIRONMENT,
    SMALL,
    assert_same_run,
    command,
    run_command,
    run_tiny,
    stateful,
    tiny_config,
)

from dealias.errors import InputError
from dealias.training import recorder, train, validation
from dealias.training.recorder import Recorder, Request


def in_child(work: Callable[[], object], kill_after: float = 0.0) -> int:
    """Do the work in a forked process; its exit status, negative where a signal ended it.

    `kill_after` so many seconds of its own computing, however busy the machine is, SIGPROF ends it as SIGKILL would.
    """
    child = os.fork()
    if child == 0:
        status = 1
        signal.setitimer(signal.ITIMER_PROF, kill_after)
        try:
            work()
            status = 0
        finally:
            os._exit(status)  # pytest must not go on in the child
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_at_random_moments_it_ends_as_the_unbroken_run(tmp_path: Path, unbroken: Path) -> None:
    broken, draw = tmp_path / "broken", random.Random(3)
    started = time.process_time()
    run_tiny(tmp_path / "timed", config=stateful())
    duration = time.process_time() - started
    work = partial(run_tiny, broken, resume=True, config=stateful())
    statuses = [in_child(work, kill_after=draw.uniform(0.2, 0.9) * duration) for _ in range(4)]
    assert statuses[0] == -signal.SIGPROF
    work()
    assert_same_run(broken, unbroken)
    assert [path.name for path in broken.rglob("*") if path.name.startswith(".")] == [".dealias.json"]


@pytest.mark.parametrize("step", [1, 4, 6])
def test_killed_at_every_kind_of_moment(
    tmp_path: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Killed just before a state is written, the log and the best weights being ahead of it."""
    real = os.replace

    def replace(source: str, target: Path) -> None:
        if Path(target).name == f"state-{step:08d}.pt":
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    broken = tmp_path / "broken"
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace)
        assert in_child(lambda: run_tiny(broken, config=stateful())) == -signal.SIGKILL
    assert len(list(broken.rglob(".state*"))) == 1
    run_tiny(broken, resume=True, config=stateful())
    assert_same_run(broken, unbroken)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_signals_save_and_leave(
    tmp_path: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[BaseException]
) -> None:
    broken, after_step = tmp_path / "broken", Recorder.after_step
    monkeypatch.setattr(recorder, "AGREE_EVERY", 1.0)

    def signalled(self: Recorder, loss: torch.Tensor, rate: float) -> Request:
        if self.progress.step == 5:
            os.kill(os.getpid(), number)
        return after_step(self, loss, rate)

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "after_step", signalled)
        with pytest.warns(UserWarning, match=r"SIG\w+: saved at step"), pytest.raises(error) as left:
            run_tiny(broken, config=stateful())
    assert error is KeyboardInterrupt or left.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    run_tiny(broken, resume=True, config=stateful())
    assert_same_run(broken, unbroken)


def test_a_signal_during_the_evaluation_saves_and_leaves(
    tmp_path: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, top1 = tmp_path / "broken", validation._top1

    def signalled(*arguments: Any, **more: Any) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return top1(*arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(validation, "_top1", signalled)
        with pytest.warns(UserWarning, match="SIGTERM: saved at step 4"), pytest.raises(SystemExit):
            run_tiny(broken, config=stateful())
    state = torch.load(broken / "checkpoints" / "state-00000004.pt", weights_only=True)
    assert (state["epoch"], state["data"]) == (0, {"epoch": 0, "batch": 4})  # the epoch is not yet measured
    run_tiny(broken, resume=True, config=stateful())
    assert_same_run(broken, unbroken)


def test_a_folder_that_is_removed_ends_in_one_line(tmp_path: Path) -> None:
    def remove(stage: str, done: float) -> None:
        if done == 0.5:
            shutil.rmtree(tmp_path / "run")

    with pytest.raises(InputError, match=r"^output='.*run' was removed while dealias train wrote into it"):
        train(tiny_config(), tmp_path / "run", device="cpu", on_progress=remove)
    assert not (tmp_path / "run").exists()


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, draw = time.time(), random.Random(0)
    monkeypatch.setattr(time, "time", lambda: now + draw.uniform(-1e6, 1e6))
    run_tiny(tmp_path / "jumping", config=stateful())
    assert_same_run(tmp_path / "jumping", unbroken)


def test_progress_is_told_after_each_step(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    train(tiny_config(), tmp_path, device="cpu", on_progress=lambda *stage: told.append(stage))
    assert told == [(f"epoch {1 + step // 4} of 2", (step + 1) / 8) for step in range(8)]


def test_a_run_that_never_began_leaves_no_trace(tmp_path: Path) -> None:
    config = tiny_config(epochs=1, limit=60)
    missing = replace(config, weights=str(tmp_path / "missing.pth"))
    with pytest.raises(InputError, match=r"missing\.pth"):
        run_tiny(tmp_path / "run", config=missing)
    assert list(tmp_path.iterdir()) == []
    run_tiny(tmp_path / "run", config=config)


@pytest.mark.sweep
def test_the_small_form_killed_20_times(tmp_path: Path) -> None:
    """The command as a user types it, killed at moments of its training drawn at random."""
    more = ("--device", "cpu", "--set", "save_every=1", "--set", "epochs=12")
    finished = run_command(*SMALL, *more, "--output", tmp_path / "unbroken")
    assert finished.returncode == 0, finished.stderr
    broken, draw, steps = tmp_path / "broken", random.Random(0), []
    for _ in range(20):
        process = subprocess.Popen(
            command(*SMALL, *more, "--output", broken, "--resume"),
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        board = set((broken / "tensorboard").glob("*"))
        while process.poll() is None and set((broken / "tensorboard").glob("*")) == board:
            time.sleep(0.01)  # nothing is trained before
        time.sleep(draw.uniform(0, 3))
        process.kill()
        process.wait()
        steps.append(max((int(path.stem[6:]) for path in broken.glob("checkpoints/state-*.pt")), default=-1))
    assert len(set(steps)) > 5, steps
    finished = run_command(*SMALL, *more, "--output", broken, "--resume")
    assert finished.returncode == 0, finished.stderr
    assert_same_run(broken, tmp_path / "unbroken")
