"""Sizes against those of PyTorch's own operations, and the numbers of the padding modes against the kernels'."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dealias.functional import blur_pool1d
from dealias.ops.arguments import PADDING_MODES, RELU, Blur, Pool, dense_size

HEADER = Path(__file__).parents[2] / "csrc" / "dealias.h"


@given(size=st.integers(1, 40), step=st.integers(1, 9), taps=st.integers(1, 7))
def test_the_output_has_every_stride_th_sample(size: int, step: int, taps: int) -> None:
    blur = Blur(((1 / taps,) * taps,), (step,), "circular")
    assert blur.output_size((size,)) == (len(range(0, size, step)),)
    assert blur_pool1d(torch.zeros(1, 1, size), blur.taps[0], step).shape[2:] == blur.output_size((size,))


@given(taps=st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_a_convolution_of_the_padded_map_keeps_its_size(taps: list[int]) -> None:
    before, after = Blur(tuple((1 / k,) * k for k in taps), (1,) * len(taps), "zeros").border()
    for k, b, a in zip(taps, before, after, strict=True):
        x = F.pad(torch.zeros(1, 1, 5), (b, a))
        assert F.conv1d(x, torch.ones(1, 1, k)).shape[2] == 5
        assert 0 <= a - b <= 1


@given(
    size=st.tuples(st.integers(7, 20), st.integers(7, 20)),
    kernel_size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_the_dense_size_is_that_of_max_pooling_at_stride_1(
    size: tuple[int, int], kernel_size: tuple[int, int], dilation: tuple[int, int]
) -> None:
    half = tuple(k // 2 for k in kernel_size)
    pool = Pool(kernel_size, dilation, half, half, False)
    expected = F.max_pool2d(torch.zeros(1, 1, *size), kernel_size, 1, half, dilation).shape[2:]
    assert dense_size(size, pool) == expected
    assert dense_size(size, RELU) == dense_size(size, None) == size


def test_padding_modes_have_the_numbers_of_the_native_kernels() -> None:
    numbers = {name.lower(): int(number) for name, number in re.findall(r"DEALIAS_(\w+) = (\d)", HEADER.read_text())}
    assert [numbers[mode] for mode in PADDING_MODES] == list(range(4))


def test_values_are_equal_and_immutable() -> None:
    blur = Blur(((0.5, 0.5),), (2,), "zeros")
    assert {blur: 1}[Blur(((0.5, 0.5),), (2,), "zeros")] == 1
    with pytest.raises(AttributeError):
        blur.stride = (3,)  # type: ignore[misc]
