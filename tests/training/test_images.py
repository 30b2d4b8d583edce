"""Which images a step sees, and how they are changed."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dealias.errors import InputError
from dealias.models import Preprocessing
from dealias.training.images import (
    Arrays,
    Augment,
    Batches,
    Share,
    TrainingImages,
    epoch_batches,
    seed_all,
    share_of,
)
from dealias.training.settings import load_recipe

WHOLE = Preprocessing(32, 32, 32, 1, "bilinear", (0.0,), (1.0,))
PHOTO = Preprocessing(40, 32, 40, 3, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))


@given(st.integers(1, 300), st.integers(1, 70), st.integers(1, 5), st.integers(0, 9))
def test_an_epoch_has_each_image_once_over_all_processes(count: int, size: int, processes: int, epoch: int) -> None:
    batches = epoch_batches(count, size, seed=1, epoch=epoch)
    assert len(batches) == -(-count // size)
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    shares = [share_of(batch, rank, processes) for batch in batches for rank in range(processes)]
    assert Counter(np.concatenate(shares).tolist()) == dict.fromkeys(range(count), 1)
    assert all(
        abs(len(share_of(batch, rank, processes)) - len(batch) / processes) < 1
        for batch in batches
        for rank in range(processes)
    )


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
        batches = Batches(dataset, 20, 6, 3, Share(0, 1, workers, pin_memory=False))
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


def test_the_switch_of_shift_augmentation() -> None:
    image = torch.zeros(1, 32, 32)
    image[0, 16, 16] = 1
    still = Augment(load_recipe("digits", overrides={"shift_augmentation": False}), WHOLE)
    assert not still.changes_tensors
    moving = Augment(load_recipe("digits", overrides={"shift_augmentation": True}), WHOLE)
    places = set()
    for number in range(200):
        seed_all(0, number)
        (place,) = moving(image)[0].nonzero().tolist()
        places.add(tuple(place))
    assert {row for row, _ in places} == {column for _, column in places} == set(range(12, 21))  # +-4


def test_without_shifts_a_picture_is_its_normalised_middle() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    settings = load_recipe("zhang2019-imagenet", overrides={"shift_augmentation": False, "flip": 0})
    found = Augment(settings, PHOTO)(Image.fromarray(pixels))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PHOTO.mean, PHOTO.std))
    expected = (torch.from_numpy(pixels[4:36, 4:36].copy()).permute(2, 0, 1) / 255 - mean) / std
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("more", [{}, {"crop": "padded"}, {"auto_augment": "rand-m5-mstd0.5", "random_erasing": 0.5}])
def test_pictures_are_changed_by_the_seed_alone(more: dict[str, Any]) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8))
    augment = Augment(load_recipe("zhang2019-imagenet", overrides=more), PHOTO)

    def changed(seed: int) -> torch.Tensor:
        seed_all(seed)
        return augment(picture)

    assert changed(0).shape == (3, 32, 32)
    assert torch.equal(changed(1), changed(1))
    assert not torch.equal(changed(1), changed(2))


def test_unknown_policies() -> None:
    with pytest.raises(InputError, match="auto_augment='best' is no policy"):
        Augment(load_recipe("zhang2019-imagenet", overrides={"auto_augment": "best"}), PHOTO)
    with pytest.raises(InputError, match="takes images of 3 channels, not 1"):
        Augment(load_recipe("digits", overrides={"auto_augment": "rand-m5"}), WHOLE)


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
