"""Which images a step sees, on which process."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dealias.errors import InputError
from dealias.models import Preprocessing
from dealias.training.augment import Augment
from dealias.training.batches import Arrays, Batches, TrainingImages, epoch_batches, seed_all
from dealias.training.processes import ProcessPart
from dealias.training.settings import load_recipe

WHOLE = Preprocessing(32, 32, 32, 1, "bilinear", (0.0,), (1.0,))


@given(st.integers(1, 300), st.integers(1, 70), st.integers(1, 5), st.integers(0, 9))
def test_an_epoch_has_each_image_once_over_all_processes(count: int, size: int, processes: int, epoch: int) -> None:
    batches = epoch_batches(count, size, seed=1, epoch=epoch)
    every = [ProcessPart(rank, processes, 0, pin_memory=False) for rank in range(processes)]
    assert len(batches) == -(-count // size)
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    parts = [part.of(batch) for batch in batches for part in every]
    assert Counter(np.concatenate(parts).tolist()) == dict.fromkeys(range(count), 1)
    assert all(abs(len(part.of(batch)) - len(batch) / processes) < 1 for batch in batches for part in every)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    orders = [np.concatenate(epoch_batches(50, 7, seed, epoch)).tolist() for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0] == np.concatenate(epoch_batches(50, 9, 0, 0)).tolist()


def _arrays(count: int = 20) -> Arrays:
    images = torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    return Arrays(images, torch.arange(count) % 10)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where the machine has a single core
def test_batches_are_the_same_from_any_start_for_any_number_of_workers() -> None:
    augment = Augment(load_recipe("digits", overrides={"shift_augmentation": True, "flip": 0.5}), WHOLE)

    def read(start: int, workers: int) -> list[Any]:
        dataset = TrainingImages(_arrays(), augment, seed=3)
        batches = Batches(dataset, 20, 6, 3, ProcessPart(0, 1, workers, pin_memory=False))
        return [batch for epoch in (0, 1) for batch in batches.of(epoch, start)]

    whole, parallel, rest = read(0, 0), read(0, 2), read(2, 0)
    assert [len(labels) for _, labels, _ in whole] == [5] * 8
    for (ours, labels, total), (theirs, others, _) in zip(
        [*whole, *whole[2:4], *whole[6:]], [*parallel, *rest], strict=True
    ):
        assert torch.equal(ours, theirs)
        assert torch.equal(labels, others)
        assert total == 5


def test_reading_leaves_the_global_generators_as_the_step_seeds_them() -> None:
    seed_all(1, 2)
    first = (random.random(), np.random.rand(), torch.rand(1).item())
    seed_all(1, 2)
    assert first == (random.random(), np.random.rand(), torch.rand(1).item())
    seed_all(1, 3)
    assert first != (random.random(), np.random.rand(), torch.rand(1).item())


def test_an_unreadable_image_is_left_out_and_named() -> None:
    class Broken(Arrays):
        def read(self, number: int) -> torch.Tensor:
            if number == 3:
                raise InputError("truncated")
            return super().read(number)

    arrays = Broken(_arrays().images, torch.arange(20) % 10)
    dataset = TrainingImages(arrays, Augment(load_recipe("digits", overrides={"flip": 1}), WHOLE), seed=0)
    with pytest.warns(UserWarning, match="image 3 is left out: truncated"):
        images, labels, total = dataset[0, np.array([1, 3, 5]), 3]
    assert (len(images), labels.tolist(), total) == (2, [1, 5], 3)


def test_a_batch_without_a_readable_image_is_an_error() -> None:
    class Broken(Arrays):
        def read(self, number: int) -> torch.Tensor:
            raise InputError("truncated")

    dataset = TrainingImages(
        Broken(_arrays().images, torch.arange(20) % 10),
        Augment(load_recipe("digits", overrides={"flip": 1}), WHOLE),
        seed=0,
    )
    with pytest.warns(UserWarning, match="left out"), pytest.raises(InputError, match="not one image of a batch"):
        dataset[0, np.array([1, 3]), 2]
