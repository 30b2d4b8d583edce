"""What two views share, pixel by pixel, against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dealias.errors import InputError, InputTypeError
from dealias.metrics._overlap import as_shifts, as_size, check_finite, check_same_shape, overlap, shared_parts
from dealias.perturb.pans import LOBES

STEPS = st.integers(-9, 9)


def pairs_of_pixels(dy: int, dx: int, size: tuple[int, int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The pixels (y, x) of view a that view b shows too, each with its place in b."""
    height, width = size
    return [
        ((y, x), (y + dy, x + dx))
        for y in range(height)
        for x in range(width)
        if 0 <= y + dy < height and 0 <= x + dx < width
    ]


@given(STEPS, STEPS, st.integers(1, 9), st.integers(1, 9))
def test_shared_pixels_are_those_of_plain_loops(dy: int, dx: int, height: int, width: int) -> None:
    a = torch.arange(height * width).view(1, height, width)
    b = -a
    pairs = pairs_of_pixels(dy, dx, (height, width))
    if not pairs:
        with pytest.raises(InputError, match="nothing in common of views of"):
            overlap((dy, dx), (height, width))
        with pytest.raises(InputError, match="nothing in common of maps of"):
            shared_parts(a, b, (dy, dx))
        return
    one, other = shared_parts(a, b, (dy, dx))
    assert one.shape == other.shape
    assert one.flatten().tolist() == [int(a[0, y, x]) for (y, x), _ in pairs]
    assert other.flatten().tolist() == [int(b[0, y, x]) for _, (y, x) in pairs]
    rows, columns = zip(*(place for place, _ in pairs), strict=True)
    # pixel y reaches from y to y + 1
    assert overlap((dy, dx), (height, width)) == (min(rows), min(columns), max(rows) + 1, max(columns) + 1)


@pytest.mark.parametrize("shift", [(0.25, 0), (-1.5, 2.75), (3, -0.5), (-0.1, -7.9)])
def test_fractions_are_undone_where_all_of_the_kernel_lies_in_the_map(shift: tuple[float, float]) -> None:
    def wave(dy: float, dx: float) -> np.ndarray:
        y, x = np.meshgrid(np.arange(26) - dy, np.arange(30) - dx, indexing="ij")
        return np.sin(0.9 * x + 0.3 * y) + np.cos(1.1 * y - 0.2 * x)

    a = wave(0, 0)
    one, other = shared_parts(torch.tensor(a), torch.tensor(wave(*shift)), shift)
    kept = []
    for part, side in zip(shift, a.shape, strict=True):
        reach = np.arange(1 - LOBES, LOBES + 1) if part % 1 else np.zeros(1)  # the pixels around a place between two
        needed = np.floor(np.arange(side) + part)[:, None] + reach
        kept.append(((needed >= 0) & (needed < side)).all(1))
    np.testing.assert_array_equal(one, a[np.ix_(*kept)])
    np.testing.assert_allclose(other, one, atol=0.01)


def test_one_shift_is_that_of_every_pair() -> None:
    assert as_shifts((1, -2.5), 3) == [(1, -2.5)] * 3
    assert as_shifts(torch.tensor([[1, 2], [3, 4]]), 2) == [(1, 2), (3, 4)]
    assert as_size((3, 5)) == (3, 5)


@pytest.mark.parametrize(
    ("shift", "kind", "message"),
    [
        ((0, 0, 0), InputError, r"shift has shape \(3,\): use \(dy, dx\), or \(2, 2\), one for each pair"),
        ([[0, 0]] * 3, InputError, r"shift has shape \(3, 2\)"),
        ([[0, 0], [0]], InputTypeError, "shift="),
        ("left", InputTypeError, "shift='left' must be"),
        (None, InputTypeError, "shift=None must be"),
        ((0, torch.nan), InputError, "must be finite"),
    ],
)
def test_bad_shifts(shift: Any, kind: type[InputError], message: str) -> None:
    with pytest.raises(kind, match=message):
        as_shifts(shift, 2)


@pytest.mark.parametrize("size", [200, "ab", (1, 2, 3), (0, 5), (2.5, 3)])
def test_bad_sizes(size: Any) -> None:
    with pytest.raises(InputError, match="size"):
        as_size(size)


def test_bad_pairs() -> None:
    good = torch.zeros(2, 3)
    for a, b, message in [
        (good, good[:1], r"a has shape \(2, 3\) and b \(1, 3\)"),
        (good[0], good[0], r"a of shape \(3,\): use pairs, none of them 0"),
        (good, good[:0], r"b of shape \(0, 3\)"),
        (good, good.numpy(), "b must be a torch.Tensor pairs, got ndarray"),
    ]:
        with pytest.raises(InputError, match=message):
            check_same_shape(a, b, "pairs", (2,))
    with pytest.raises(InputError, match="b has NaN or infinite values in row 1"):
        check_finite(good, torch.tensor([[0.0, 0], [torch.inf, 0]]), "floats")
    with pytest.raises(InputTypeError, match=r"a is torch\.int64: use floats"):
        check_finite(good.long(), good, "floats")
    maps = torch.zeros(1, 40, 40, dtype=torch.long)
    with pytest.raises(InputError, match=r"shift=\(0\.5, 0\) must be whole pixels"):
        shared_parts(maps, maps, (0.5, 0))
