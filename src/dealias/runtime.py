"""Devices, the processes of torchrun, worker processes, and versions."""

from __future__ import annotations

import os
import platform
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

from dealias import __version__
from dealias.errors import InputError, users_code

_Value = TypeVar("_Value")


@contextmanager
def process_group() -> Iterator[tuple[int, int]]:
    """The rank of this process and the number of processes; (0, 1) without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield 0, 1
        return
    started = not dist.is_initialized()
    if started:
        dist.init_process_group("gloo")
    try:
        with reach_processes():
            yield dist.get_rank(), dist.get_world_size()
    finally:
        if started:
            dist.destroy_process_group()


@contextmanager
def reach_processes() -> Iterator[None]:
    """For code that exchanges values with the other processes of torchrun, which may be killed.

    Raises:
        InputError: one of them has ended, or does not answer. From then on this process ignores SIGTERM.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo/" not in str(error):  # gloo raises no type of its own
            raise
        if threading.current_thread() is threading.main_thread():
            # torchrun terminates the others a tenth of a second after one was killed: let this one say why
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise InputError(
            "torchrun: another process of this run was killed or does not answer: start them all again with --resume"
        ) from error


def gather(value: _Value, rank: int, processes: int) -> list[_Value]:
    """The values of all processes in the first process; an empty list in the others."""
    if processes == 1:
        return [value]
    values: list[_Value] | None = [value] * processes if rank == 0 else None
    dist.gather_object(value, values)
    return values or []


def broadcast(value: _Value, processes: int) -> _Value:
    """The value of the first process, in all processes."""
    if processes == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def pick_device(device: str) -> torch.device:
    """The device of that name; "auto" is CUDA if available, else Apple's MPS, else the CPU.

    Raises:
        InputError: the device does not exist or cannot be used.
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
    with users_code(f"device={device!r} cannot be used"):
        torch.ones(1, device=picked).item()  # a meta tensor has no values
    return picked


def from_workers(loader: Iterable[_Value]) -> Iterator[_Value]:
    """The batches of a `DataLoader`, whose workers may be killed.

    Raises:
        InputError: a worker has ended.
    """
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise InputError(
            "workers: a process that reads images was killed, as for lack of memory: use fewer, and resume the run"
        ) from error


def default_workers(processes: int = 1) -> int:
    """The number of workers that read images for each of `processes`: all cores but one are shared; 1 to 8 for each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores // processes - 1, 1), 8)


def versions() -> dict[str, str]:
    """The versions of dealias, PyTorch and Python, which results depend on."""
    return {"dealias": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
