"""A training run's folder. Files are written whole or not at all; only the logs grow, and are cut when a run goes on.

config.yaml                     every setting of the run
log.jsonl                       losses, learning rates, accuracy and consistency: the same for every run of a config
timing.jsonl                    images per second and where the time went: different for every run
tensorboard/                    both, for TensorBoard
checkpoints/state-00001234.pt   the state to go on from after step 1234; the last two states are kept
checkpoints/last.safetensors    the weights of the last state; the average of `ema_decay` where there is one
checkpoints/best.safetensors    the weights of the epoch with the highest validation accuracy
"""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dealias.errors import InputError
from dealias.files import OutputFolder
from dealias.models.checkpoints import checkpoint_content
from dealias.optional import require
from dealias.records import read_json_lines
from dealias.training.config import Config

STATES_KEPT = 2
FILES = ("config.yaml", "log.jsonl", "timing.jsonl", "tensorboard/*", "checkpoints/*", "report.html")
"""Everything that a training writes."""


class RunFolder(OutputFolder):
    """Reads and writes a run's folder; a context manager of the first process alone. `begin` is the first to write.

    Raises:
        InputError: the folder cannot be written; it has a run and `resume` is false; or that run had another config.
    """

    def __init__(self, path: str | Path, config: Config, *, resume: bool) -> None:
        super().__init__(path, "train", writes=FILES, inputs={"weights": config.weights})
        self.checkpoints = self.path / "checkpoints"
        self._config, self._config_path, self._logs = config, self.path / "config.yaml", ExitStack()
        self._log_path, self._timing_path = self.path / "log.jsonl", self.path / "timing.jsonl"
        if self._config_path.exists() or self._states():
            if not resume:
                raise InputError(
                    f"output={str(path)!r} has a run: pass --resume to continue it, or name another folder"
                )
            config.check_resumes(self._config_path)

    def _states(self) -> list[Path]:
        return sorted(self.checkpoints.glob("state-*.pt"), reverse=True)

    def load_state(self) -> bytes | None:
        """The newest state that is whole, as `torch.load` reads it; None where the run has not saved one.

        Damaged states that are newer are named in a warning and removed.

        Raises:
            InputError: there are states, but all are damaged.
        """
        states = self._states()
        for place, path in enumerate(states):
            content = path.read_bytes()
            if (problem := problem_of_state(content)) is None:
                return content
            if place + 1 < len(states):
                warnings.warn(f"{path} is damaged ({problem}): going on from {states[place + 1].name}", stacklevel=2)
                path.unlink()
        if states:
            raise InputError(f"{states[-1]} is damaged, and so are the others: start again in another folder")
        return None

    def begin(self, size: int, epochs_done: int) -> None:
        """Write the config, and keep so many bytes of `log.jsonl` and epochs of `timing.jsonl`: the rest is newer."""
        for name in FILES:
            self.own(name)
        self.write("config.yaml", require("yaml").safe_dump(self._config.to_dict(), sort_keys=False))
        self._log = self._logs.enter_context(self._log_path.open("ab", buffering=0))  # reports a full disk at once
        if self._log.tell() < size:
            warnings.warn(f"{self._log_path} is shorter than when the state was saved: it has a gap", stacklevel=2)
        else:
            self._log.truncate(size)
        timing: list[dict[str, int | float]] = []
        if self._timing_path.exists():
            timing = read_json_lines(dict[str, int | float], self._timing_path)
        kept = [record for record in timing if record.get("epoch", epochs_done) < epochs_done]
        self.write("timing.jsonl", "".join(f"{json.dumps(record)}\n" for record in kept))
        require("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(self.path / "tensorboard"))
        self._logs.callback(self._close_board)

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a record to the log and its numbers to TensorBoard's."""
        self.check_exists()
        with self._saving(record["step"]):
            self._log.write(f"{json.dumps(record)}\n".encode())
            self._show(record)

    def log_timing(self, record: Mapping[str, Any], step: int) -> None:
        """Append a record to the timings and TensorBoard's log."""
        self.check_exists()
        with open(self._timing_path, "a") as file:
            file.write(f"{json.dumps(record)}\n")
        self._show({**record, "step": step})

    def _show(self, record: Mapping[str, Any]) -> None:
        for key, value in record.items():
            if key not in ("step", "epoch") and isinstance(value, int | float):
                self._board.add_scalar(key, value, record["step"])
        self._board.flush()  # nobody catches the errors of its thread

    def save(self, state: Mapping[str, Any], weights: Mapping[str, Tensor], *, is_best: bool) -> None:
        """Write the state and the weights, and remove all states but the last two.

        The best weights are written first: a run that stops between the two repeats the end of the epoch.

        Raises:
            OSError: they cannot be written, as on a full disk; the earlier states are left.
        """
        content = checkpoint_content(weights, step=str(state["step"]))
        with self._saving(state["step"]):
            os.fsync(self._log.fileno())
            whole = state_content({**state, "log_bytes": self._log.tell()})
            if is_best:
                self.write("checkpoints/best.safetensors", content)
            self.write(f"checkpoints/state-{state['step']:08d}.pt", whole)
            self.write("checkpoints/last.safetensors", content)
        for old in self._states()[STATES_KEPT:]:
            old.unlink()

    @contextmanager
    def _saving(self, step: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                f"step {step} cannot be saved in {self.path} ({error.strerror or error}): the earlier states are whole;"
                " make room and pass --resume"
            ) from error

    def last_saved(self) -> str:
        """The name of the newest state."""
        return self._states()[0].name if self._states() else "no state"

    def __exit__(self, *error: object) -> None:
        """Close the logs and unlock the folder."""
        self._logs.close()
        super().__exit__(*error)

    def _close_board(self) -> None:
        with suppress(OSError, InputError):  # the disk is full or the folder gone: the log has reported it already
            self.check_exists()
            self._board.close()


def state_content(state: Mapping[str, Any]) -> bytes:
    """The content of a state's file: the same bytes for equal states."""
    buffer = io.BytesIO()
    torch.save(_one_text_each(dict(state)), buffer)
    return buffer.getvalue()


def _one_text_each(value: Any) -> Any:
    """`value` with one object for all equal texts: pickle writes an object once, and equal ones again."""
    if isinstance(value, dict):
        result = copy(value)  # with the versions of layers, which a state_dict has as an attribute
        result.clear()
        result.update({_one_text_each(key): _one_text_each(one) for key, one in value.items()})
        return result
    if isinstance(value, list | tuple):
        return type(value)(map(_one_text_each, value))
    return sys.intern(value) if type(value) is str else value


def problem_of_state(content: bytes) -> str | None:
    """The reason why a state's file cannot be used, or None. PyTorch itself does not check the file's checksums."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            broken = archive.testzip()
        if broken is None:
            torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # Damage raises nearly any error: NotImplementedError for an unknown compression, UnicodeDecodeError in a name,
    # zlib.error, a negative seek, ...
    except Exception as error:
        return next(iter(str(error).splitlines()), type(error).__name__)
    return f"checksum of {broken}" if broken else None
