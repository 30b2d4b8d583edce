"""Runs that are killed, stopped or damaged, and go on."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.training_runs import (
    ENVIRONMENT,
    SMALL,
    STATEFUL,
    assert_equal,
    assert_same_run,
    command,
    records,
    run_command,
    run_tiny,
    tiny_config,
)

from dealias.errors import InputError
from dealias.training import Config, keeper
from dealias.training.keeper import Keeper


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


@pytest.fixture
def unbroken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of everything that has a state, which saves at every step, in `tmp_path / "unbroken"`."""
    monkeypatch.setattr(keeper, "AGREE_EVERY", 0.0)
    run_tiny(tmp_path / "unbroken", config=stateful())
    return tmp_path / "unbroken"


def stateful() -> Config:
    return tiny_config(save_every=1e-9, **STATEFUL)


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
    assert [path.name for path in broken.rglob("*") if path.name.startswith(".")] == []


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


def test_states_are_few_safe_to_load_and_complete(unbroken: Path) -> None:
    names = sorted(path.name for path in (unbroken / "checkpoints").iterdir())
    assert names == ["best.safetensors", "last.safetensors", "state-00000007.pt", "state-00000008.pt"]
    state = torch.load(unbroken / "checkpoints" / "state-00000007.pt", weights_only=True)
    assert state["data"] == {"epoch": 1, "batch": 3}
    assert state["random"] == {"seed": 5, "step": 7}
    assert state["schedule"]["last_epoch"] == 7
    assert state["optimizer"]["state"]
    assert (state["average"]["module.5.weight"] != state["model"]["5.weight"]).any()


def flipped(content: bytes, place: int) -> bytes:
    """With the highest bit of that byte flipped."""
    changed = bytearray(content)
    changed[place] ^= 0x80
    return bytes(changed)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: flipped(content, content.rindex(b"data.pkl")),  # a name in the archive
        lambda content: flipped(content, content.rindex(b"PK\x06\x06") + 16),  # PyTorch alone looks at it
    ],
    ids=["half", "empty", "name", "trailer"],
)
def test_a_damaged_state_gives_way_to_the_one_before(
    tmp_path: Path, unbroken: Path, damage: Callable[[bytes], bytes]
) -> None:
    newest = unbroken / "checkpoints" / "state-00000008.pt"
    log, whole = (unbroken / "log.jsonl").read_bytes(), newest.read_bytes()
    newest.write_bytes(damage(whole))
    with pytest.warns(UserWarning, match=r"state-00000008.pt is damaged .* going on from state-00000007.pt"):
        run_tiny(unbroken, resume=True, config=stateful())
    assert (unbroken / "log.jsonl").read_bytes() == log
    assert_equal(torch.load(newest, weights_only=True), torch.load(io.BytesIO(whole), weights_only=True))


def test_one_flipped_bit_is_noticed(unbroken: Path) -> None:
    newest = unbroken / "checkpoints" / "state-00000008.pt"
    content = newest.read_bytes()
    newest.write_bytes(flipped(content, content.index(b"PK\x03\x04", len(content) // 2) - 100))  # inside a tensor
    with pytest.warns(UserWarning, match="checksum"):
        run_tiny(unbroken, resume=True, config=stateful())


def test_all_states_damaged(unbroken: Path) -> None:
    for path in (unbroken / "checkpoints").glob("state-*.pt"):
        path.write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(InputError, match="so are the others"):
        run_tiny(unbroken, resume=True, config=stateful())


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_signals_save_and_leave(
    tmp_path: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[BaseException]
) -> None:
    broken, after_step = tmp_path / "broken", Keeper.after_step
    monkeypatch.setattr(keeper, "AGREE_EVERY", 1.0)

    def signalled(self: Keeper, loss: torch.Tensor, rate: float) -> None:
        if self._training.step == 6:
            os.kill(os.getpid(), number)
        after_step(self, loss, rate)

    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "after_step", signalled)
        with pytest.warns(UserWarning, match=r"SIG\w+: saved at step"), pytest.raises(error) as left:
            run_tiny(broken, config=stateful())
    assert error is KeyboardInterrupt or left.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    run_tiny(broken, resume=True, config=stateful())
    assert_same_run(broken, unbroken)


def test_a_full_disk_stops_with_the_last_state_whole(
    tmp_path: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, fsync, calls = tmp_path / "broken", os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 14:
            raise OSError(28, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"step \d cannot be saved .*No space left on device.*--resume"):
            run_tiny(broken, config=stateful())
    assert 1 <= len(list(broken.glob("checkpoints/state-*.pt"))) <= 2
    assert list(broken.rglob(".*")) == []
    run_tiny(broken, resume=True, config=stateful())
    assert_same_run(broken, unbroken)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    config = tiny_config(learning_rate=1e30, schedule="constant")
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) at step \d+ \(epoch 0\).*state-0000000\d.pt"):
        run_tiny(tmp_path, config=config)
    newest = max(tmp_path.glob("checkpoints/state-*.pt"))
    state = torch.load(newest, weights_only=True)
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert all("loss" in record for record in records(tmp_path))


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "AGREE_EVERY", 0.0)
    step = torch.optim.SGD.step

    def poison(self: torch.optim.SGD, closure: None = None) -> None:
        step(self, closure)
        if self.param_groups[0]["lr"] < 0.09 and self.state:
            self.param_groups[0]["params"][0].data[0] = float("inf")

    monkeypatch.setattr(torch.optim.SGD, "step", poison)
    with pytest.raises(
        FloatingPointError, match=r"not finite after step 1: stopped\. The last good state is state-00000000"
    ):
        run_tiny(tmp_path, config=tiny_config(save_every=1e-9))


def test_a_run_is_not_overwritten_nor_mixed_with_another(tmp_path: Path) -> None:
    config = tiny_config(epochs=1, limit=60)
    run_tiny(tmp_path / "run", config=config, resume=True)  # an empty folder: a fresh start
    log = (tmp_path / "run" / "log.jsonl").read_bytes()
    with pytest.raises(InputError, match="has a run: pass --resume"):
        run_tiny(tmp_path / "run", config=config)
    with pytest.raises(InputError, match=r"has a run with seed=5, not 6: resume it with its own settings"):
        run_tiny(tmp_path / "run", config=tiny_config(epochs=1, limit=60, seed=6), resume=True)
    found = run_tiny(tmp_path / "run", config=config, resume=True)  # done already
    assert found["accuracy"] == records(tmp_path / "run")[-1]["accuracy"]
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == log


def test_a_run_that_never_began_leaves_no_trace(tmp_path: Path) -> None:
    config = tiny_config(epochs=1, limit=60)
    missing = replace(config, weights=str(tmp_path / "missing.pth"))
    with pytest.raises(InputError, match=r"missing\.pth"):
        run_tiny(tmp_path / "run", config=missing)
    assert list((tmp_path / "run").iterdir()) == []
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
