"""Anchors in the compiled library against the pure PyTorch path, on every instruction set of this machine."""

from __future__ import annotations

import pytest
import torch
from helpers.cases import LAYOUTS, lay_out, make_values
from hypothesis import given
from hypothesis import strategies as st

from dealias import ops
from dealias.ops import anchor_cpu, cpu
from dealias.ops.anchor import anchored, shifted
from dealias.ops.reference import is_channels_last

pytestmark = pytest.mark.skipif(
    not anchor_cpu.covers(torch.zeros(1, 1, 2, 2)), reason="the native kernels were not built here, or before this one"
)

ISAS = () if cpu.unavailable() else cpu.instruction_sets()


@given(
    isa=st.sampled_from(ISAS or ("portable",)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.float16]),
    layout=st.sampled_from(LAYOUTS),
    values=st.sampled_from(["normal", "ties", "infinite", "nan"]),
    stride=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    shape=st.tuples(*(st.integers(1, top) for top in (3, 35, 20, 20))),
    seed=st.integers(0, 99),
)
def test_it_agrees_with_the_reference(isa, dtype, layout, values, stride, shape, seed):
    x = lay_out(make_values(shape, values, seed).to(dtype), layout)
    with cpu.use_instruction_set(isa):
        y, offsets = anchored(x, stride)
    with ops.use_backend("reference"):
        wanted, wanted_offsets = anchored(x, stride)
        torch.testing.assert_close(shifted(x, offsets, stride), y, rtol=0, atol=0, equal_nan=True)
    assert ((offsets >= 0) & (offsets < torch.tensor(stride))).all()
    assert is_channels_last(y) == is_channels_last(wanted) == is_channels_last(x)
    if values in ("normal", "ties") and shape[2] >= stride[0] and shape[3] >= stride[1]:
        energy = x.double().square().sum(1)
        for sample, own, other in zip(energy, offsets.tolist(), wanted_offsets.tolist(), strict=True):
            # rounding in float32 may choose otherwise between energies that it cannot tell apart
            parts = [float(sample[i :: stride[0], j :: stride[1]].sum()) for i, j in (own, other)]
            assert parts[0] == pytest.approx(parts[1], rel=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.float16])
@pytest.mark.parametrize("isa", ISAS)
def test_every_pixel_and_channel_counts_once(isa, dtype, layout):
    """One large number after the other, at the borders of the parts that are summed together."""
    height, width, channels = 47, 49, 37
    places = [0, 1, 15, 31, 32, 2046, 2047, 2048, 2079, 2080, 2271, 2287, 2288, 2301, 2302]
    picks = [(place, channel) for place in places for channel in (0, 7, 16, 31, 32, 36)]
    x = 0.01 * torch.randn(len(picks), channels, height, width)
    for image, (place, channel) in zip(x, picks, strict=True):
        image[channel].view(-1)[place] = 100.0
    with cpu.use_instruction_set(isa):
        _, offsets = anchored(x.to(dtype).contiguous(memory_format=layout), (2, 3))
    assert offsets.tolist() == [[place // width % 2, place % width % 3] for place, _ in picks]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("size", [(4, 4), (8, 8), (9, 7), (32, 48), (1, 5)])
def test_it_rolls_as_torch_does(dtype, size):
    x = torch.randn(6, 5, *size).to(dtype)
    offsets = torch.stack([torch.randint(0, 4, (6,)), torch.randint(0, 3, (6,))], 1)
    for layout in (torch.contiguous_format, torch.channels_last):
        rolled = shifted(x.contiguous(memory_format=layout), offsets, (4, 3))
        for sample, amounts, result in zip(x, offsets.tolist(), rolled, strict=True):
            assert torch.equal(result, sample.roll([-one for one in amounts], (1, 2)))


def test_gradients_go_back_to_where_they_came_from():
    x = torch.randn(3, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: anchored(x, (2, 3))[0], x)
    torch.autograd.gradgradcheck(lambda x: anchored(x, (2, 3))[0], x)


def test_threads_do_not_matter():
    x = torch.randn(16, 32, 48, 48)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = anchored(x, (2, 2))
        torch.set_num_threads(3)
        several = anchored(x, (2, 2))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, several, strict=True))
