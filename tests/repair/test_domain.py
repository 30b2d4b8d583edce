"""The images of a repair: split, shifted and measured."""

from __future__ import annotations

import torch
from helpers.repairs import small_domain, small_images

from dealias.repair.domain import near_duplicates, split_held_out


def test_copies_of_an_image_are_on_one_side():
    images = small_images(50).repeat(2, 1, 1, 1)
    train, held = split_held_out(images, 0.2, seed=4)
    assert sorted(train + held) == list(range(100))
    assert 20 <= len(held) <= 21
    assert {index % 50 for index in train}.isdisjoint(index % 50 for index in held)
    assert split_held_out(images, 0.2, seed=4) == (train, held)
    assert split_held_out(images, 0.2, seed=5)[1] != held
    train, held = split_held_out(images, [3], seed=0)
    assert (len(train), held) == (98, [3])


def test_images_that_look_alike_are_found():
    images = small_images(40)
    images[33] = 0.5 * images[7] + 0.1 + 0.001 * images[8]  # darker, and with a little noise
    assert near_duplicates(images, range(30), range(30, 40)) == [33]
    images[35] = images[7].roll(8, -1)
    assert near_duplicates((255 * images).byte(), range(30), range(30, 40)) == [33]


def test_whole_images_and_their_windows() -> None:
    images = small_images()
    whole, windows = small_domain(), small_domain(crop_size=12)
    assert torch.equal(whole.centre([3, 5]), 2 * images[[3, 5]])
    assert torch.equal(whole.anywhere([3], step=0), 2 * images[[3]])
    assert torch.equal(windows.centre([3]), 2 * images[[3], :, 2:14, 2:14])
    places = set()
    for step in range(60):
        found = windows.anywhere([3], step)
        assert torch.equal(found, windows.anywhere([3], step))
        places |= {
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(found, 2 * images[[3], :, top : top + 12, left : left + 12])
        }
    assert {top for top, _ in places} == {left for _, left in places} == set(range(5))


def test_kinds_of_shifts() -> None:
    assert [small_domain(12).mode, small_domain(circular=True).mode, small_domain().mode] == [
        "crop",
        "circular",
        "zero_fill",
    ]
    image, rolled = 2 * small_images()[4], small_domain(circular=True).shifted([4])
    assert rolled.shape == (4, 1, 16, 16)
    for each in rolled:
        assert any(torch.equal(each, image.roll((down, right), (1, 2))) for down in range(16) for right in range(16))


def test_batches_have_all_indices() -> None:
    assert [len(part) for part in small_domain().batches(range(40))] == [16, 16, 8]
