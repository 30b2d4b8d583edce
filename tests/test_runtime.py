"""Devices, and workers that are killed."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from dealias.errors import InputError
from dealias.runtime import default_workers, from_workers, pick_device, versions


class Fatal(Dataset[int]):
    """Its third item kills the process that reads it."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


class Odd(Fatal):
    """Its third item raises an error of its own."""

    def __getitem__(self, index: int) -> int:
        if index == 2:
            raise RuntimeError("of the data set")
        return index


def test_a_killed_worker_ends_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^workers: a process that reads images was killed") as refusal:
        list(from_workers(DataLoader(Fatal(), batch_size=None, num_workers=1, prefetch_factor=1)))
    assert str(refusal.value).isprintable()


def test_other_errors_of_workers_pass() -> None:
    with pytest.raises(RuntimeError, match="of the data set"):
        list(from_workers(DataLoader(Odd(), batch_size=None, num_workers=1)))


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:99", ""])
def test_devices_that_cannot_be_used(name: str) -> None:
    with pytest.raises(InputError, match=f"^device='{name}' "):
        pick_device(name)


def test_what_there_always_is() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert 1 <= default_workers(processes=10_000) <= default_workers() <= 8
    assert versions()["torch"] == str(torch.__version__)
