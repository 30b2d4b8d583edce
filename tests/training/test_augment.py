"""The random changes of images in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dealias.errors import InputError
from dealias.models import Preprocessing
from dealias.training.augment import Augment
from dealias.training.batches import seed_all
from dealias.training.settings import load_recipe

WHOLE = Preprocessing(32, 32, 32, 1, "bilinear", (0.0,), (1.0,))
PHOTO = Preprocessing(40, 32, 40, 3, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))


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
    with pytest.raises(InputError, match="auto_augment='best' is not a policy"):
        Augment(load_recipe("zhang2019-imagenet", overrides={"auto_augment": "best"}), PHOTO)
    with pytest.raises(InputError, match="takes images of 3 channels, not 1"):
        Augment(load_recipe("digits", overrides={"auto_augment": "rand-m5"}), WHOLE)
