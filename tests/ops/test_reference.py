"""The reference operations by themselves, whatever native backend is active."""

from __future__ import annotations

import itertools
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import oracles
from helpers.cases import (
    ANY_FILTER,
    CHANNELS_LAST,
    DTYPES,
    LAYOUTS,
    PADDING_MODES,
    BlurCase,
    blur_cases,
    lay_out,
    make_values,
)
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode

from dealias.filters import resolve_filter
from dealias.ops import reference
from dealias.ops.arguments import Blur, Pool

NUMPY_MODE = {"reflect": "reflect", "replicate": "edge", "circular": "wrap", "zeros": "constant"}
BLUR = Blur((resolve_filter("bin4"),) * 2, (2, 2), "reflect")


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    amounts=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), min_size=3, max_size=3),
    padding_mode=st.sampled_from(PADDING_MODES),
)
def test_pad_is_numpy_pad(sizes: list[int], amounts: list[tuple[int, int]], padding_mode: str) -> None:
    x = make_values((2, 1, *sizes), "normal", 0)
    amounts = amounts[: len(sizes)]
    before, after = zip(*amounts, strict=True)
    expected = np.pad(x.numpy(), [(0, 0), (0, 0), *amounts], mode=NUMPY_MODE[padding_mode])
    np.testing.assert_array_equal(reference.pad(x, before, after, padding_mode).numpy(), expected)


@given(case=blur_cases())
def test_blur_pool_agrees_with_the_oracle(case: BlurCase) -> None:
    x = case.input()
    oracles.assert_agrees(reference.blur_pool(x, case.blur), oracles.expected(case, x), case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 1, 15, 45), (3, 1, 18, 12), (2, 3, 9, 51), (1, 1, 12, 9, 9), (1, 1, 99)], ids=str
)
def test_the_same_window_gives_the_same_bits_wherever_it_stands(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """With a convolution it would not, on some machines and for some shapes."""
    spatial = len(shape) - 2
    axes = list(range(2, len(shape)))
    for length in range(2, 8):
        x = make_values(shape, "normal", length).to(dtype)
        case = BlurCase(shape, dtype, "contiguous", "normal", length, length, (3,) * spatial, "circular")
        y = reference.blur_pool(x, case.blur)
        oracles.assert_agrees(y, oracles.expected(case, x), case)
        for steps in itertools.product(range(3), repeat=spatial):
            shifted = reference.blur_pool(x.roll([3 * step for step in steps], axes), case.blur)
            assert torch.equal(shifted, y.roll(steps, axes))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_transform_gives_the_same_bits(dtype: torch.dtype) -> None:
    x = make_values((3, 2, 9, 8), "normal", 0).to(dtype)
    blur = BLUR._replace(stride=(2, 3))
    y = reference.blur_pool(x, blur)
    assert torch.equal(torch.func.vmap(lambda one: reference.blur_pool(one[None], blur)[0])(x), y)
    value, _ = torch.func.jvp(lambda x: reference.blur_pool(x, blur), (x,), (x,))
    assert torch.equal(value, y)
    leaf = x.clone().requires_grad_()
    assert torch.equal(reference.blur_pool(leaf, blur), y)


@given(case=blur_cases(filters=st.one_of(ANY_FILTER, st.integers(8, 40))))
def test_convolutions_agree_with_the_oracle(case: BlurCase) -> None:
    """What a kept graph computes: one dense convolution, or one along each axis where the filter is long."""
    x = case.input()
    with mock.patch.object(reference, "_uses_convolutions", return_value=True):
        y = reference.blur_pool(x, case.blur)
    oracles.assert_agrees(y, oracles.expected(case, x), case)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("shape", [(2, 3, 6, 5), (1, 2, 3, 4, 2)], ids=str)
def test_the_gradient_is_the_transpose_in_every_layout(shape: tuple[int, ...], padding_mode: str) -> None:
    taps = ((0.5, 0.25, -0.25, 0.5), (0.5, 0.5), (0.25, 0.5, 0.25))
    blur = Blur(taps[: len(shape) - 2], (2, 3, 1)[: len(shape) - 2], padding_mode)
    x = make_values(shape, "normal", 0)
    for layout in LAYOUTS:
        leaf = lay_out(x, layout).requires_grad_()
        y = reference.blur_pool(leaf, blur)
        upstream = make_values(y.shape, "normal", 1)
        (gradient,) = torch.autograd.grad(y, leaf, upstream, create_graph=True)
        probe = make_values(shape, "normal", 2)
        torch.testing.assert_close((gradient * probe).sum(), (reference.blur_pool(probe, blur) * upstream).sum())
        assert torch.autograd.gradgradcheck(lambda x: reference.blur_pool(x, blur).square(), leaf, fast_mode=True)


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_dense_max_is_max_pool_at_stride_1(spatial: int) -> None:
    x = make_values((2, 3, *[6] * spatial), "ties", 0)
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[spatial]
    for k, p, d in [(1, 0, 1), (2, 1, 1), (3, 1, 2), (2, 0, 5)]:
        y = reference.dense_max(x, Pool((k,) * spatial, (d,) * spatial, (p,) * spatial, (p,) * spatial, wrap=False))
        assert torch.equal(y, pool(x, k, 1, p, d))


def test_dense_max_with_wrap_looks_behind_the_map() -> None:
    x = torch.tensor([[[5.0, 1.0, 2.0, 3.0]]])
    y = reference.dense_max(x, Pool((3,), (1,), (0,), (2,), wrap=True))
    assert y.tolist() == [[[5.0, 3.0, 5.0, 5.0]]]
    y = reference.dense_max(x, Pool((2,), (9,), (0,), (9,), wrap=True))  # further around than the map is long
    assert y.tolist() == [[[5.0, 2.0, 3.0, 5.0]]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_match_layout(layout: str) -> None:
    for shape in ((2, 3, 4, 5), (2, 3, 4, 5, 2)):
        memory_format = CHANNELS_LAST[len(shape) - 2]
        x = lay_out(torch.rand(shape), layout)
        for y in (torch.rand(shape), torch.rand(shape).contiguous(memory_format=memory_format)):
            matched = reference.match_layout(y, x)
            assert torch.equal(matched, y)
            wanted = memory_format if layout == "channels_last" else torch.contiguous_format
            assert matched.is_contiguous(memory_format=wanted)
    single = torch.rand(2, 1, 4, 4).contiguous(memory_format=torch.channels_last)
    assert reference.match_layout(torch.rand(2, 1, 2, 2), single).stride() == (4, 4, 2, 1)


def test_the_result_is_never_a_view_of_the_input() -> None:
    x = torch.rand(1, 2, 4, 4)
    y = reference.blur_pool(x, Blur(((1.0,), (1.0,)), (1, 1), "reflect"))
    assert torch.equal(x, y)
    assert x.data_ptr() != y.data_ptr()


@pytest.fixture
def _empty_cache() -> None:
    reference._cached_kernel.cache_clear()


@pytest.mark.usefixtures("_empty_cache")
class TestKernelCache:
    """Whatever the first call runs under, later calls get a plain kernel."""

    x = torch.rand(1, 2, 5, 5)

    def check_later_calls(self) -> None:
        leaf = self.x.clone().requires_grad_()
        reference.blur_pool(leaf, BLUR).sum().backward()
        case = BlurCase((1, 2, 5, 5), torch.float32, "contiguous", "normal", 0, "bin4", (2, 2), "reflect")
        y = reference.blur_pool(self.x, BLUR)
        oracles.assert_agrees(y, oracles.expected(case, self.x), case)

    def test_inference_mode(self) -> None:
        with torch.inference_mode():
            reference.blur_pool(self.x, BLUR)
        self.check_later_calls()

    def test_fake_mode(self) -> None:
        with FakeTensorMode() as mode:
            reference.blur_pool(mode.from_tensor(self.x), BLUR)
        self.check_later_calls()
        with FakeTensorMode() as mode:
            reference.blur_pool(mode.from_tensor(self.x), BLUR)

    def test_function_transform(self) -> None:
        torch.func.grad(lambda x: reference.blur_pool(x, BLUR).sum())(self.x)
        self.check_later_calls()

    def test_default_device(self) -> None:
        with torch.device("meta"):
            reference.blur_pool(self.x, BLUR)
        self.check_later_calls()
