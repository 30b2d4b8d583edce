"""The device and the processes of a training, by Hugging Face Accelerate."""

from __future__ import annotations

import atexit
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dealias.errors import InputError
from dealias.optional import require
from dealias.runtime import broadcast, default_workers, pick_device


@dataclass(frozen=True)
class ProcessPart:
    """The part of the images that the `rank`-th of `processes` reads.

    It has so many `workers`, further processes that read for it. `pin_memory`: into page-locked memory, for a GPU.
    """

    rank: int
    processes: int
    workers: int
    pin_memory: bool

    def of(self, numbers: Any) -> Any:
        """This process's part of a batch: neighbours in a sequence or an array."""
        start, stop = (len(numbers) * place // self.processes for place in (self.rank, self.rank + 1))
        return numbers[start:stop]


def process_part(accelerator: Any, workers: int | None, *, in_memory: bool) -> ProcessPart:
    """The part of this process; by default images in memory need no workers."""
    processes = accelerator.num_processes
    if workers is None:
        workers = 0 if in_memory else default_workers(processes)
    if workers < 0:
        raise InputError(f"workers={workers!r} must be at least 0")
    return ProcessPart(accelerator.process_index, processes, workers, accelerator.device.type == "cuda")


def make_accelerator(device: str, precision: str) -> Any:
    """Accelerate's `Accelerator` on "cpu", "cuda", "mps" or "auto", in as many processes as torchrun started.

    Raises:
        InputError: the device is unknown or missing, or cannot compute in that precision; or this Python process has
            trained on another device or in another precision: Accelerate keeps the first.
    """
    kind = pick_device(device).type
    if kind not in ("cpu", "cuda", "mps") or ":" in device:
        raise InputError(f"device={device!r} cannot be used for training: use auto, cpu, cuda or mps")
    if precision == "fp16" and kind == "cpu":
        raise InputError("precision='fp16' needs a GPU: use bf16 or fp32 on the CPU")
    accelerate = require("accelerate")
    try:
        accelerator = accelerate.Accelerator(
            cpu=kind == "cpu",
            mixed_precision="no" if precision == "fp32" else precision,
            step_scheduler_with_optimizer=False,
        )
    except ValueError as error:
        raise InputError(f"device={device!r}, precision={precision!r} cannot be used: {error}") from None
    # Now and then a process that ends while gloo's threads work aborts. A script may train again before its end.
    atexit.register(accelerator.end_training)
    if kind != accelerator.device.type:
        raise InputError(f"device={device!r} cannot be used: this process has trained on {accelerator.device} already")
    return accelerator


def share_state(content: bytes | None, accelerator: Any) -> Mapping[str, Any] | None:
    """The saved state that the first process has read, in every process: the others need not see its disk."""
    content = broadcast(content, accelerator.num_processes)
    return None if content is None else torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def synchronise_buffers(models: Sequence[nn.Module], accelerator: Any) -> None:
    """Give every process the first one's buffers: batch statistics differ between processes."""
    if accelerator.num_processes > 1:
        for model in models:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, src=0)
