"""A training run's folder. Files are written whole or not at all; only the logs grow, and are cut when a run goes on.

config.yaml                     what was asked for
log.jsonl                       losses, learning rates, accuracy and consistency: the same for every run of a config
timing.jsonl                    images per second and where the time went: never the same
tensorboard/                    both, for TensorBoard
checkpoints/state-00001234.pt   all that is needed to go on from step 1234; the last two are kept
checkpoints/last.safetensors    the weights of the last state; the average of `ema_decay` where there is one
checkpoints/best.safetensors    those of the epoch with the highest validation accuracy
"""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dealias.errors import InputError
from dealias.files import prepare_output, write_whole
from dealias.optional import require

STATES_KEPT = 2
# those of a run that may be others when it goes on
FREE_KEYS = ("device", "workers", "save_every", "versions")


class RunFolder:
    """Reads and writes a run's folder; made by the first process alone. Nothing is written before `begin`.

    Args:
        path: the folder.
        config: of the run.
        resume: whether a run that is there goes on.

    Raises:
        InputError: the folder cannot be written; it has a run and `resume` is false; or that run had another config.
    """

    def __init__(self, path: str | Path, config: Mapping[str, Any], *, resume: bool) -> None:
        self.path = prepare_output(path)
        self.checkpoints = self.path / "checkpoints"
        self._config = dict(config)
        self._config_path, self._log_path = self.path / "config.yaml", self.path / "log.jsonl"
        self._timing_path = self.path / "timing.jsonl"
        yaml = require("yaml")
        stored = self._config_path
        if stored.exists() or self._states():
            if not resume:
                raise InputError(
                    f"output={str(path)!r} has a run: pass --resume to continue it, or name another folder"
                )
            try:
                self._check_config(yaml.safe_load(stored.read_text(encoding="utf-8")), config)
            except (OSError, yaml.YAMLError, AttributeError) as error:
                raise InputError(f"{stored} cannot be read: {error}") from None

    def _check_config(self, stored: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        for key in sorted({*stored, *config} - set(FREE_KEYS)):
            if stored.get(key) != config.get(key):
                raise InputError(
                    f"output={str(self.path)!r} has a run with {key}={stored.get(key)!r}, not {config.get(key)!r}: "
                    "resume it with its own settings, or name another folder"
                )

    def _remove_leftovers(self) -> None:
        """What a killed process had not yet renamed."""
        for folder in (self.path, self.checkpoints):
            for name in ("config.yaml", "timing.jsonl", "last.safetensors", "best.safetensors", "state-"):
                for leftover in folder.glob(f".{name}*"):
                    leftover.unlink()

    def _states(self) -> list[Path]:
        return sorted(self.checkpoints.glob("state-*.pt"), reverse=True)

    def load_state(self) -> bytes | None:
        """The newest state that is whole, as `torch.load` reads it; None where the run has not saved any.

        Newer ones that are damaged are named in a warning and removed.

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
        """Write the config and go on behind the first `size` bytes of the log; what is behind the last state goes."""
        prepare_output(self.checkpoints)
        self._remove_leftovers()
        write_whole(self._config_path, require("yaml").safe_dump(self._config, sort_keys=False))
        self._log = self._log_path.open("ab", buffering=0)  # a full disk shows at once, not when the file is closed
        if self._log.tell() < size:
            warnings.warn(f"{self._log_path} is shorter than when the state was saved: it has a gap", stacklevel=2)
        else:
            self._log.truncate(size)
        timing = self._timing_path.read_text().splitlines() if self._timing_path.exists() else []
        kept = [line for line in timing if line.endswith("}") and json.loads(line)["epoch"] < epochs_done]
        write_whole(self._timing_path, "".join(f"{line}\n" for line in kept))
        require("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(self.path / "tensorboard"))

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a record to the log and its numbers to TensorBoard's."""
        try:
            self._log.write(f"{json.dumps(record)}\n".encode())
            self._show(record)
        except OSError as error:
            raise self._not_saved(record["step"], error) from error

    def log_timing(self, record: Mapping[str, Any], step: int) -> None:
        """Append a record to the timings and TensorBoard's log."""
        with open(self._timing_path, "a") as file:
            file.write(f"{json.dumps(record)}\n")
        self._show({**record, "step": step})

    def _show(self, record: Mapping[str, Any]) -> None:
        for key, value in record.items():
            if key not in ("step", "epoch") and isinstance(value, int | float):
                self._board.add_scalar(key, value, record["step"])

    def save(self, state: Mapping[str, Any], weights: Mapping[str, Tensor], *, is_best: bool) -> None:
        """Write the state and the weights; older states than the last two go.

        The best weights come first: a run that stops between the two repeats the epoch's end.

        Raises:
            OSError: they cannot be written, as on a full disk; the states before are left as they are.
        """
        content = require("safetensors.torch").save(
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()},
            {"format": "pt", "step": str(state["step"])},
        )
        buffer = io.BytesIO()
        try:
            os.fsync(self._log.fileno())
            torch.save({**state, "log_bytes": self._log.tell()}, buffer)
            if is_best:
                write_whole(self.checkpoints / "best.safetensors", content)
            write_whole(self.checkpoints / f"state-{state['step']:08d}.pt", buffer.getvalue())
            write_whole(self.checkpoints / "last.safetensors", content)
        except OSError as error:
            raise self._not_saved(state["step"], error) from error
        for old in self._states()[STATES_KEPT:]:
            old.unlink()

    def _not_saved(self, step: int, error: OSError) -> OSError:
        return OSError(
            f"step {step} cannot be saved in {self.path} ({error.strerror or error}): the states before it are whole; "
            "make room and pass --resume"
        )

    def last_saved(self) -> str:
        """The name of the newest state."""
        return self._states()[0].name if self._states() else "no state"

    def close(self) -> None:
        """Close the logs."""
        self._log.close()
        with suppress(OSError):  # of a full disk, which the log has met already
            self._board.close()


def problem_of_state(content: bytes) -> str | None:
    """Why a file that `torch.save` wrote cannot be used: PyTorch itself does not look at the checksums inside."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            broken = archive.testzip()
        if broken is None:
            torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # damage raises nearly anything: NotImplementedError where a flipped bit names an unknown compression,
    # UnicodeDecodeError in a name, zlib.error, a negative seek, ...
    except Exception as error:
        return next(iter(str(error).splitlines()), type(error).__name__)
    return f"checksum of {broken}" if broken else None
