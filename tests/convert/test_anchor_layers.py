"""An anchor rolls the strongest polyphase component to the front; undoing it brings every pixel back."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dealias.convert.anchor_layers import Anchor, Step, Undo


def strongest(x, stride):
    """The offsets of the polyphase component of largest energy, by trying all."""
    energies = {
        (i, j): float((x[:, i :: stride[0], j :: stride[1]] ** 2).sum())
        for i, j in itertools.product(range(stride[0]), range(stride[1]))
    }
    return max(energies, key=energies.__getitem__)


@given(st.integers(0, 10**6), st.tuples(st.integers(1, 3), st.integers(1, 3)), st.integers(1, 3))
def test_the_strongest_component_comes_first(seed, stride, blocks):
    torch.manual_seed(seed)
    x = torch.randn(2, 3, stride[0] * blocks, stride[1] * blocks, dtype=torch.float64)
    y = Anchor(stride)(x)
    for one, rolled in zip(x, y, strict=True):
        offsets = strongest(one, stride)
        assert torch.equal(rolled, one.roll([-offset for offset in offsets], (1, 2)))
    assert torch.equal(Anchor(stride)(x[0]), y[0])  # without a batch axis


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3))
def test_an_undo_brings_the_pixels_back(seed, stride, scale):
    """Two anchors one after the other, of maps that are read `scale` times as finely behind them."""
    torch.manual_seed(seed)
    outer, inner = (Anchor((stride, stride), undone=True) for _ in range(2))
    undo = Undo([outer, inner], [[Step(0, 0, (scale, scale)), Step(1, 0, (scale, scale))]])
    x = torch.randn(2, 3, 6 * stride, 6 * stride)

    def fine(x):
        return x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)

    assert torch.equal(undo(fine(inner(outer(x)))), fine(x))


def test_calls_are_undone_in_their_turn():
    anchor = Anchor((2, 2), calls=2, undone=True)
    undo = Undo([anchor], [[Step(0, 1, (1, 1))], [], [Step(0, 0, (1, 1))]])
    first, second = torch.randn(2, 1, 1, 4, 4)
    rolled = anchor(first), anchor(second)
    assert torch.equal(undo(rolled[1]), second)
    assert undo(second) is second
    assert torch.equal(undo(rolled[0]), first)
    anchor(second)  # in the next forward pass
    assert len(anchor.made.offsets) == 1


@pytest.mark.parametrize("undone", [False, True])
def test_offsets_are_kept_where_they_are_asked_for(undone):
    anchor = Anchor((2,), undone=undone)
    anchor(torch.rand(1, 1, 4))
    assert len(anchor.made.offsets) == undone
