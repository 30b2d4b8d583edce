"""What work runs on: devices, the processes that torchrun starts, the worker processes, and the versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

from dealias import __version__
from dealias.errors import InputError

_Found = TypeVar("_Found")


@contextmanager
def process_group() -> Iterator[tuple[int, int]]:
    """This process's rank and their number; (0, 1) without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield 0, 1
        return
    started = not dist.is_initialized()
    if started:
        dist.init_process_group("gloo")
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        if started:
            dist.destroy_process_group()


def gather(found: _Found, rank: int, processes: int) -> list[_Found]:
    """What each process found, in the first of them; nothing in the others."""
    if processes == 1:
        return [found]
    everything: list[_Found] | None = [found] * processes if rank == 0 else None
    dist.gather_object(found, everything)
    return everything or []


def broadcast(found: _Found, processes: int) -> _Found:
    """What the first process found."""
    if processes == 1:
        return found
    values = [found]
    dist.broadcast_object_list(values)
    return values[0]


def pick_device(device: str) -> torch.device:
    """The device of that name; "auto" takes CUDA where it is, else Apple's MPS, else the CPU.

    Raises:
        InputError: there is no such device.
    """
    name = device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        if name == "cuda":
            name = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % max(torch.cuda.device_count(), 1)}"
        picked = torch.device(name)
    except RuntimeError:  # PyTorch names some twenty kinds
        raise InputError(f"device={device!r} is unknown: use auto, cpu, cuda, cuda:1 or mps") from None
    try:
        torch.zeros(1, device=picked)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={device!r} cannot be used: {str(error).splitlines()[0]}") from None
    return picked


def default_workers(processes: int = 1) -> int:
    """How many processes read images: the cores but one, shared among `processes`, from 1 to 8 for each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores // processes - 1, 1), 8)


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {"dealias": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
