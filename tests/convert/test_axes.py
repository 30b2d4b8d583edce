"""What becomes of axes: against the coordinates themselves, which NumPy carries through the same views and products."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dealias.convert.axes import FLAT, Form, multiplied, reshaped


@st.composite
def maps(draw):
    """The shape of a map of one to three spatial axes, channels first or last, and what its axes are."""
    spatial = draw(st.integers(1, 3))
    pixels = [draw(st.integers(1, 4)) * draw(st.integers(1, 3)) for _ in range(spatial)]
    batch, channels, axes = draw(st.integers(1, 3)), draw(st.integers(1, 6)), tuple(range(1, spatial + 1))
    if draw(st.booleans()):
        return (batch, channels, *pixels), (0, 0, *axes)
    return (batch, *pixels, channels), (0, *axes, 0)


@st.composite
def regroupings(draw, shape):
    """`shape` with some axes split in two, then some merged with their neighbour, and an axis of one element thrown in.

    What was split may be merged with what stood beside it, which scrambles pixels or mixes them with channels.
    """
    parts = []
    for size in shape:
        step = draw(st.sampled_from([one for one in range(1, size + 1) if size % one == 0]))
        parts += [size // step, step] if draw(st.booleans()) else [size]
    made = parts[:1]
    for size in parts[1:]:
        if draw(st.integers(0, 2)) == 0:
            made[-1] *= size
        else:
            made.append(size)
    if draw(st.booleans()):
        made.insert(draw(st.integers(0, len(made))), 1)
    return tuple(made)


def coordinates(shape, axes):
    """Of every element, its place along each spatial axis."""
    return {
        axis: np.broadcast_to(np.arange(size).reshape([-1 if i == position else 1 for i in range(len(shape))]), shape)
        for position, (size, axis) in enumerate(zip(shape, axes, strict=True))
        if axis > 0
    }


def check_axes(named, made, shape, axes):
    """Every axis that `named` says is one of pixels indexes the coordinate that it names; `made` holds coordinates."""
    sizes = {axis: size for axis, size in zip(axes, shape, strict=True) if axis > 0}
    spread = next(iter(made.values())).shape
    indices = np.indices(spread)
    for position, axis in enumerate(named):
        if axis == FLAT:
            place = np.zeros(spread, dtype=int)
            for one in sorted(sizes):
                if one not in named:
                    place = place * sizes[one] + made[one]
            assert (indices[position] == place).all()
        elif axis > 0:
            assert (indices[position] == made[axis] // (sizes[axis] // spread[position])).all()
        elif axis < 0:
            assert (indices[position] == made[-axis] % spread[position]).all()


@given(st.data())
def test_reshaped_axes_index_the_coordinate_that_they_name(data):
    shape, axes = data.draw(maps())
    new = data.draw(regroupings(shape))
    named = reshaped(shape, axes, new)
    if named is not None:
        assert len(named) == len(new)
        made = {axis: place.reshape(new) for axis, place in coordinates(shape, axes).items()}
        check_axes(named, made, shape, axes)


@given(st.data())
def test_blocks_of_pixels_are_found_and_put_together_again(data):
    shape, axes = data.draw(maps())
    position = data.draw(st.sampled_from([i for i, axis in enumerate(axes) if axis > 0]))
    step = data.draw(st.integers(2, 4))
    shape = (*shape[:position], shape[position] * 2 * step, *shape[position + 1 :])
    split = (*shape[:position], shape[position] // step, step, *shape[position + 1 :])
    named = reshaped(shape, axes, split)
    alone = [0 if size == 1 else axis for size, axis in zip(shape, axes, strict=True)]
    assert named == (*alone[:position], axes[position], -axes[position], *alone[position + 1 :])
    assert reshaped(split, named, shape) == tuple(alone)


@given(st.data())
def test_flattened_pixels_are_one_axis(data):
    shape, axes = data.draw(maps())
    first = 2 if axes[1] == 0 else 1
    spatial = sum(axis > 0 for axis in axes)
    flat = (*shape[:first], math.prod(shape[first : first + spatial]), *shape[first + spatial :])
    wide = [axis for size, axis in zip(shape, axes, strict=True) if axis > 0 and size > 1]
    one = wide[0] if len(wide) == 1 else FLAT if wide else 0
    assert reshaped(shape, axes, flat) == tuple(one if i == first else 0 for i in range(len(flat)))


def test_mixed_pixels_and_channels_are_nobody_s():
    assert reshaped((2, 8, 6, 6), (0, 0, 1, 2), (2, 48, 6)) is None
    assert reshaped((2, 8, 6, 6), (0, 0, 1, 2), (2, 288)) is None
    assert reshaped((2, 8, 4, 6), (0, 0, 1, 2), (2, 8, 6, 4)) is None
    assert reshaped((2, 4), (0, 1), (4, 2)) is None
    assert reshaped((2, 8, 6, 6), (0, 0, 1, 2), (2, 2, 4, 6, 6)) == (0, 0, 0, 1, 2)
    assert reshaped((2, 8, 6, 1), (0, 0, 1, 2), (2, 8, 6)) == (0, 0, 1)


@given(st.data())
def test_products_sum_over_one_axis_and_leave_the_others(data):
    """A product with weights that add up to 1 leaves the coordinates along all other axes as they are."""
    shape, axes = data.draw(maps())
    position = data.draw(st.sampled_from([i for i, size in enumerate(shape) if size > 1 and i > 0] or [1]))
    size, rest = data.draw(st.integers(1, shape[position])), (*range(position), *range(position + 1, len(shape)))
    moved = Form(*(tuple(one[i] for i in (*rest, position)) for one in (shape, axes)))
    value = (math.prod(moved.shape[:-1]), shape[position])
    made = multiplied(moved, value, True, (value[0], size))
    if shape[position] == 1:
        return
    weights = np.full((shape[position], size), 1 / shape[position])
    places = {axis: (place.reshape(value) @ weights).reshape(made.shape) for axis, place in coordinates(*moved).items()}
    check_axes((*made.axes[:-1], 0), {axis: place.round().astype(int) for axis, place in places.items()}, *moved)
    has_channels_or_pixels_beside = any(length > 1 for length in moved.shape[1:-1])
    assert made.axes[-1] == (axes[position] if size > 1 and has_channels_or_pixels_beside else 0)
