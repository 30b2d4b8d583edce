"""Anchors against the definition: every component, every roll, in NumPy; and on images with ties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from helpers.circular_networks import IMAGES, image
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dealias.ops.anchor import component_energies, offsets_of, shifted

SHAPES = {1: (12,), 2: (6, 12), 3: (4, 6, 2)}


def rolls(x: Tensor, stride: tuple[int, ...]) -> list[Tensor]:
    """`x` (C, *spatial) rolled by all multiples of the stride."""
    axes = tuple(range(1, x.ndim))
    amounts = itertools.product(*(range(0, size, step) for size, step in zip(x.shape[1:], stride, strict=True)))
    return [x.roll(one, axes) for one in amounts]


@given(
    kind=st.sampled_from(IMAGES),
    seed=st.integers(0, 999),
    channels=st.integers(1, 3),
    stride=st.lists(st.integers(2, 4), min_size=1, max_size=2).map(tuple),
    blocks=st.lists(st.integers(1, 5), min_size=2, max_size=2),
)
def test_the_anchored_map_moves_by_whole_strides(kind, seed, channels, stride, blocks):
    size = tuple(step * count for step, count in zip(stride, blocks, strict=False))
    x = image(kind, (channels, *size), seed)
    axes = tuple(range(2, x.ndim))
    shifts = list(itertools.product(*(range(step) for step in stride)))
    moved = torch.cat([x.roll(shift, axes) for shift in shifts])
    anchored = shifted(moved, offsets_of(moved, stride), stride)
    wanted = rolls(anchored[0], stride)
    assert all(any(torch.equal(one, other) for other in wanted) for one in anchored)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_component_of_largest_energy_comes_first(axes):
    stride = (2, 3, 2)[:axes] if axes > 1 else (3,)
    x = torch.randn(4, 3, *SHAPES[axes], dtype=torch.float64)
    offsets = offsets_of(x, stride).numpy()
    for sample, chosen in zip(x.numpy(), offsets, strict=True):
        energies = {
            starts: (
                sample[(slice(None), *(slice(a, None, s) for a, s in zip(starts, stride, strict=True)))] ** 2
            ).sum()
            for starts in itertools.product(*map(range, stride))
        }
        assert tuple(chosen) == max(energies, key=energies.__getitem__)
    rolled = shifted(x, torch.from_numpy(offsets), stride)
    for sample, chosen, result in zip(x.numpy(), offsets, rolled.numpy(), strict=True):
        np.testing.assert_array_equal(result, np.roll(sample, -chosen, tuple(range(1, axes + 1))))


def test_energies_do_not_depend_on_the_order_of_the_pixels():
    x = torch.randn(2, 5, 16, 16, dtype=torch.float64) * torch.logspace(-6, 6, 16, dtype=torch.float64)
    mixed = x.reshape(2, 5, 8, 2, 8, 2)[:, :, torch.randperm(8)][:, :, :, :, torch.randperm(8)].reshape(x.shape)
    assert torch.equal(component_energies(x, (2, 2)), component_energies(mixed, (2, 2)))


@given(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]), st.booleans())
def test_shifting_back_undoes_it(dtype, channels_last):
    x = torch.randn(5, 3, 8, 9).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    offsets = torch.stack([torch.randint(5, (5,)), torch.randint(3, (5,))], 1)
    there = shifted(x, offsets, (5, 3))
    assert torch.equal(shifted(there, offsets, (5, 3), back=True), x)
    assert there.dtype == dtype
    assert there.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def test_gradients():
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    offsets = torch.tensor([[0, 1], [1, 1]])
    torch.autograd.gradcheck(lambda x: shifted(x, offsets, (2, 2)), x)
    torch.autograd.gradgradcheck(lambda x: shifted(x, offsets, (2, 2)), x)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_maps_without_an_energy_are_taken(value):
    offsets = offsets_of(torch.full((2, 3, 4, 4), value), (2, 2))
    assert offsets.shape == (2, 2)
    assert bool(((offsets >= 0) & (offsets < 2)).all())
