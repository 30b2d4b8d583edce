"""The log and the states of a run, and when it saves and stops."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.training_runs import losses, records, run_tiny, tiny_config

from dealias.training import recorder
from dealias.training.batches import Batch
from dealias.training.recorder import Recorder, Request, all_finite
from dealias.training.signals import StopSignals

PLAIN = "helpers.training_runs:plain_network"


class Processes:
    """Stands in for Accelerate where there is one process."""

    num_processes = 1
    device = torch.device("cpu")

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    def reduce(self, tensor: torch.Tensor, kind: str) -> torch.Tensor:
        assert kind == "sum"
        return tensor


class Folder:
    """Stands in for a run's folder: keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Mapping[str, Any]] = []
        self.states: list[Mapping[str, Any]] = []

    def begin(self, size: int, epochs_done: int) -> None:
        self.began = (size, epochs_done)

    def log(self, record: Mapping[str, Any]) -> None:
        self.records.append(record)

    def log_timing(self, record: Mapping[str, Any], step: int) -> None:
        self.timing = record

    def save(self, state: Mapping[str, Any], weights: Mapping[str, torch.Tensor], *, is_best: bool) -> None:
        self.states.append(state)

    def last_saved(self) -> str:
        return "state-00000001.pt"


def make(folder: Any, **settings: Any) -> Recorder:
    """Of a run of 4 steps an epoch."""
    return Recorder(tiny_config(**settings), 4, folder, Processes(), StopSignals())


def test_steps_and_epochs_are_counted_and_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "AGREE_EVERY", 0.0)
    folder = Folder()
    made = make(folder, log_every=3)
    made.begin(None)
    assert folder.began == (0, 0)
    for number, loss in enumerate((1.0, 2.0, 6.0, 4.0)):
        assert made.after_step(torch.tensor(loss), 0.1) == Request()
        assert made.steps_in_epoch == number + 1
    assert folder.records == [
        {"step": 3, "epoch": 0, "loss": 3.0, "learning_rate": 0.1},
        {"step": 4, "epoch": 0, "loss": 4.0, "learning_rate": 0.1},  # the end of the epoch
    ]
    assert made.after_epoch({"accuracy": 0.5}, 1.0)
    assert not made.after_epoch({"accuracy": 0.5}, 1.0)
    assert not made.after_epoch({"accuracy": 0.25}, 1.0)
    assert [record["best"] for record in folder.records[2:]] == [True, False, False]
    progress = made.progress
    assert (progress.step, progress.epoch, progress.best, progress.found) == (4, 3, 0.5, {"accuracy": 0.25})


def test_timings_of_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of a second for each batch, three quarters for each step, two seconds for the evaluation."""
    clock = [100.0]
    now = SimpleNamespace(monotonic=lambda: clock[0], perf_counter=lambda: clock[0])
    monkeypatch.setattr(recorder, "time", now)

    def batches() -> Iterator[Batch]:
        for _ in range(4):
            clock[0] += 0.25
            yield torch.zeros(3, 1, 8, 8), torch.zeros(3), 6  # this process has half of the step's images

    folder = Folder()
    made = make(folder)
    for epoch in range(2):
        for _ in made.timed(batches()):
            clock[0] += 0.75
            made.after_step(torch.tensor(1.0), 0.1)
        made.after_epoch({"accuracy": 0.5}, 2.0)
        made.log_timing()
        seconds = {"training_seconds": 3.0, "waiting_for_images_seconds": 1.0, "saving_seconds": 0.0}
        expected = {"epoch": epoch, "images_per_second": 6.0, **seconds, "evaluating_seconds": 2.0}
        assert folder.timing == expected


def test_a_state_goes_on_where_it_was_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "AGREE_EVERY", 0.0)
    folder = Folder()
    made = make(folder, log_every=10)
    made.begin(None)
    made.after_step(torch.tensor(2.0), 0.1)
    made.save({"model": {}}, {"weight": torch.ones(2)})
    (state,) = folder.states
    assert state["data"] == {"epoch": 0, "batch": 1}
    assert state["random"] == {"seed": 5, "step": 1}
    other = make(Folder(), log_every=10)
    other.begin({**state, "log_bytes": 7})
    assert other.progress == made.progress
    assert other._folder.began == (7, 0)


def test_saving_is_asked_for_after_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight steps a second, and an agreement every second."""
    clock = [100.0]
    monkeypatch.setattr(recorder, "time", SimpleNamespace(monotonic=lambda: clock[0], perf_counter=time.perf_counter))
    made = Recorder(tiny_config(save_every=5.0), 1000, None, Processes(), StopSignals())
    saved = []
    for step in range(1, 101):
        clock[0] += 0.125
        if made.after_step(torch.tensor(1.0), 0.1).save:
            saved.append(step)
            made.save({}, {})
    # agreed at steps 1, 9, 17, ...; 4 seconds after a state the next one would be late at the next agreement
    assert saved == [33, 65, 97]


def test_a_signal_is_a_request_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "AGREE_EVERY", 0.0)
    made = make(None)
    made._signals.caught = signal.SIGTERM
    assert made.after_step(torch.tensor(1.0), 0.1).signal == signal.SIGTERM
    assert made.signal_during_evaluation() == signal.SIGTERM
    monkeypatch.setattr(Processes, "num_processes", 2)
    assert made.signal_during_evaluation() == 0
    with pytest.raises(SystemExit) as left:
        made.leave(signal.SIGTERM)
    assert left.value.code == 143


def test_what_is_finite() -> None:
    good, counts = torch.ones(3), torch.tensor(4)
    assert all_finite([good, counts])
    assert not all_finite([good, torch.tensor([1.0, float("nan")])])
    assert not all_finite([good, torch.tensor([[float("-inf")]])])


def test_records_are_means(tmp_path: Path) -> None:
    run_tiny(tmp_path / "each", config=tiny_config(PLAIN))
    run_tiny(tmp_path / "third", config=tiny_config(PLAIN, log_every=3))
    steps = [record["step"] for record in records(tmp_path / "third") if "loss" in record]
    assert steps == [3, 4, 6, 8]  # and the end of an epoch
    assert losses(tmp_path / "third")[0] == pytest.approx(sum(losses(tmp_path / "each")[:3]) / 3)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    config = tiny_config(learning_rate=1e30, schedule="constant")
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) at step \d+ \(epoch 0\).*state-0000000\d.pt"):
        run_tiny(tmp_path, config=config)
    newest = max(tmp_path.glob("checkpoints/state-*.pt"))
    state = torch.load(newest, weights_only=True)
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert all("loss" in record for record in records(tmp_path))


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "AGREE_EVERY", 0.0)
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
