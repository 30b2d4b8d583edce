"""The public operations, on whatever backend is active, against NumPy/SciPy and against PyTorch's own max pooling."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import oracles
from helpers.cases import (
    CHANNELS_LAST,
    DTYPES,
    LAYOUTS,
    PADDING_MODES,
    SPECIAL_VALUES,
    BlurCase,
    MaxBlurCase,
    blur_cases,
    lay_out,
    max_blur_cases,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode

from dealias import functional
from dealias.errors import InputTypeError
from dealias.filters import FILTERS

Operation = Callable[..., Tensor]

BLUR: dict[int, Operation] = {1: functional.blur_pool1d, 2: functional.blur_pool2d, 3: functional.blur_pool3d}
MAX_BLUR: dict[int, Operation] = {
    1: functional.max_blur_pool1d,
    2: functional.max_blur_pool2d,
    3: functional.max_blur_pool3d,
}
MAX_POOL: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def run(case: BlurCase, x: Tensor) -> Tensor:
    operation = MAX_BLUR if isinstance(case, MaxBlurCase) else BLUR
    return operation[case.spatial](x, **case.arguments)


def any_cases(**options: Any) -> st.SearchStrategy[BlurCase]:
    return st.one_of(blur_cases(**options), max_blur_cases(**options))


# Values


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(data=st.data())
def test_values_agree_with_the_oracle(dtype: torch.dtype, data: st.DataObject) -> None:
    case = data.draw(any_cases(dtypes=[dtype]))
    x = case.input()
    oracles.assert_agrees(run(case, x), oracles.expected(case, x), case)


@given(case=blur_cases(spatial=2))
def test_relu_blur_pool_agrees_with_the_oracle(case: BlurCase) -> None:
    x = case.input()
    actual = functional.relu_blur_pool2d(x, **case.arguments)
    oracles.assert_agrees(actual, oracles.expected(case, x, relu=True), case)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("filter", [*FILTERS, (0.5, 2.0, -0.25), (3.0, 1.0)], ids=str)
def test_every_size_from_1_to_64_and_every_stride(filter: Any, padding_mode: str) -> None:
    for size in range(1, 65):
        stride = 1 + size % 4
        for spatial, shape in ((1, (1, 2, size)), (2, (1, 2, size, 65 - size))):
            for dtype in (torch.float32, torch.float64):
                values = ("contiguous", "normal", size, filter, (stride,) * spatial, padding_mode)
                case = BlurCase(shape, dtype, *values)
                x = case.input()
                oracles.assert_agrees(run(case, x), oracles.expected(case, x), case)


@given(case=max_blur_cases(values=SPECIAL_VALUES, filters=st.sampled_from(list(FILTERS))))
def test_infinity_and_nan_travel_as_in_the_oracle(case: MaxBlurCase) -> None:
    x = case.input()
    with np.errstate(invalid="ignore"):
        oracles.assert_agrees(run(case, x), oracles.expected(case, x), case)


def test_known_values() -> None:
    x = torch.tensor([[[1.0, 2.0, 4.0, 8.0]]])
    taps = [1, 2, 1]
    assert functional.blur_pool1d(x, taps, 1, "reflect").tolist() == [[[1.5, 2.25, 4.5, 6.0]]]
    assert functional.blur_pool1d(x, taps, 1, "replicate").tolist() == [[[1.25, 2.25, 4.5, 7.0]]]
    assert functional.blur_pool1d(x, taps, 1, "circular").tolist() == [[[3.0, 2.25, 4.5, 5.25]]]
    assert functional.blur_pool1d(x, taps, 1, "zeros").tolist() == [[[1.0, 2.25, 4.5, 5.0]]]
    assert functional.blur_pool1d(x, "rect2", 2).tolist() == [[[1.5, 6.0]]]  # an even filter looks behind, not ahead
    assert functional.max_blur_pool1d(x, 2, padding_mode="circular", filter="tri3").tolist() == [[[4.0, 7.0]]]


def test_an_axis_that_is_not_subsampled_is_not_blurred() -> None:
    x = torch.randn(2, 3, 8, 9, dtype=torch.float64)
    rows = functional.blur_pool1d(x.transpose(2, 3).flatten(0, 2)[:, None], "bin5", 2).view(2, 3, 9, 4)
    torch.testing.assert_close(functional.blur_pool2d(x, "bin5", (2, 1)), rows.transpose(2, 3))
    volume = torch.zeros(1, 1, 5, 4, 4)
    volume[:, :, 2] = 1
    pooled = functional.max_blur_pool3d(volume, (1, 2, 2), filter="tri3")
    assert pooled[0, 0, :, 0, 0].tolist() == [0, 0, 1, 0, 0]
    plain = functional.relu_blur_pool2d(torch.eye(5)[None], "tri3", 1, "zeros")  # every stride is 1: a blur of all axes
    assert plain[0, 2].tolist() == [0.0625, 0.25, 0.375, 0.25, 0.0625]


# Quantised input


@pytest.mark.parametrize("dtype", [torch.quint8, torch.qint8, torch.qint32], ids=str)
def test_quantised_input_is_computed_in_float32_and_quantised_again(dtype: torch.dtype) -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        real = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
        x = torch.quantize_per_tensor(real, 0.04, 5, dtype)
        for operation in (
            lambda x: functional.blur_pool2d(x, "bin5"),
            functional.relu_blur_pool2d,
            lambda x: functional.max_blur_pool2d(x, 3, 2, 1),
        ):
            y, on_real = operation(x), operation(x.dequantize())
            wanted = torch.quantize_per_tensor(on_real, 0.04, 5, dtype)
            assert (y.dtype, y.q_scale(), y.q_zero_point()) == (dtype, 0.04, 5)
            assert torch.equal(y.int_repr(), wanted.int_repr())
            assert y.is_contiguous(memory_format=layout)
            unbatched = operation(x[0]).int_repr()  # halves between two steps may be rounded to either
            assert (unbatched.int() - y[0].int_repr().int()).abs().max() <= 1
    line = torch.quantize_per_tensor(torch.randn(1, 2, 9), 0.04, 5, dtype)
    wanted = torch.quantize_per_tensor(functional.max_blur_pool1d(line.dequantize(), 2), 0.04, 5, dtype)
    assert torch.equal(functional.max_blur_pool1d(line, 2).int_repr(), wanted.int_repr())


def test_quantised_channel_by_channel_is_refused() -> None:
    x = torch.quantize_per_channel(torch.rand(1, 2, 4, 4), torch.ones(2), torch.zeros(2), 1, torch.qint8)
    with pytest.raises(InputTypeError, match=r"^input .*per_channel.*dequantize"):
        functional.blur_pool2d(x)


# Sizes and layouts


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_layout_of_a_slice_of_channels(dtype: torch.dtype) -> None:
    """It is as far from channels last as the whole is from contiguous: its elements have gaps, not another order."""
    x = torch.randn(2, 8, 6, 6).to(dtype).contiguous(memory_format=torch.channels_last)[:, 1:6]
    for y in (functional.blur_pool2d(x), functional.relu_blur_pool2d(x), functional.max_blur_pool2d(x, 2)):
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert not y.is_contiguous()


@given(case=blur_cases(dtypes=[torch.float32]))
def test_blur_pool_size_is_the_ceiling_of_size_over_stride(case: BlurCase) -> None:
    expected = tuple(-(-size // stride) for size, stride in zip(case.shape[2:], case.stride, strict=True))
    assert tuple(run(case, case.input()).shape) == (*case.shape[:2], *expected)


@given(case=max_blur_cases(dtypes=[torch.float32], max_size=64, spatial=1) | max_blur_cases(dtypes=[torch.float32]))
def test_max_blur_pool_size_is_that_of_max_pool(case: MaxBlurCase) -> None:
    x = case.input()
    assert run(case, x).shape == MAX_POOL[case.spatial](x, **case.pool_arguments).shape


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_max_blur_pool_refuses_the_maps_that_max_pool_refuses(spatial: int) -> None:
    for size in range(1, 9):
        for k, s, p, d, ceil_mode in [(2, 2, 0, 1, True), (3, 2, 1, 2, False), (3, 3, 0, 2, True), (4, 1, 2, 1, False)]:
            x = torch.zeros(1, 1, *[size] * spatial)
            try:
                shape = MAX_POOL[spatial](x, k, s, p, d, ceil_mode).shape
            except RuntimeError:
                with pytest.raises(ValueError, match="too small"):
                    MAX_BLUR[spatial](x, k, s, p, d, ceil_mode)
            else:
                assert MAX_BLUR[spatial](x, k, s, p, d, ceil_mode).shape == shape


@given(case=any_cases(dtypes=[torch.float32, torch.bfloat16]))
def test_layout_of_the_input_is_the_layout_of_the_output(case: BlurCase) -> None:
    x = case.input()
    y = run(case, x)
    layout = CHANNELS_LAST.get(case.spatial)
    if layout is not None and x.is_contiguous(memory_format=layout) and not x.is_contiguous():
        assert y.is_contiguous(memory_format=layout)
    else:  # one channel or one pixel is both
        assert y.is_contiguous()


@given(case=any_cases(dtypes=[torch.float32]))
def test_layout_does_not_change_the_values(case: BlurCase) -> None:
    x = case.input()
    torch.testing.assert_close(run(case, x), run(case, x.contiguous()), rtol=1e-6, atol=1e-5, equal_nan=True)


@given(case=any_cases(dtypes=[torch.float32]))
def test_unbatched_input(case: BlurCase) -> None:
    assume(case.shape[0] > 0)
    x = case.input()
    torch.testing.assert_close(run(case, x[0]), run(case, x)[0], rtol=1e-6, atol=1e-5, equal_nan=True)


# Shifts


@given(case=any_cases(padding_modes=["circular"], layouts=["contiguous", "channels_last"], max_size=6), shift=st.data())
def test_circular_shift_by_the_stride_shifts_the_output_by_one_pixel(case: BlurCase, shift: st.DataObject) -> None:
    sizes = [size * stride for size, stride in zip(case.shape[2:], case.stride, strict=True)]
    case = type(case)(**{**vars(case), "shape": (*case.shape[:2], *sizes)})
    if isinstance(case, MaxBlurCase):
        assume(not any(case.padding))
        assume(
            all(
                out * stride == size
                for out, stride, size in zip(oracles.max_pool_size(case), case.stride, sizes, strict=True)
            )
        )
    steps = [shift.draw(st.integers(0, 3)) for _ in sizes]
    axes = list(range(2, 2 + case.spatial))
    x = case.input()
    shifted = torch.roll(x, [step * stride for step, stride in zip(steps, case.stride, strict=True)], axes)
    assert torch.equal(run(case, lay_out(shifted, case.layout)), torch.roll(run(case, x), steps, axes))


# Gradients


def gradient(operation: Operation, x: Tensor, seed: int = 0, **arguments: Any) -> tuple[Tensor, Tensor]:
    leaf = x.detach().clone().requires_grad_()
    y = operation(leaf, **arguments)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(y.dtype)
    (grad,) = torch.autograd.grad(y, leaf, upstream)
    return y.detach(), grad


@given(case=max_blur_cases(dtypes=[torch.float64], values=("ties", "infinite", "nan"), filters=st.just("none")))
def test_without_blur_it_is_max_pool_with_the_same_gradient(case: MaxBlurCase) -> None:
    """In ties the first maximum takes the gradient; a NaN wins; both as in PyTorch."""
    assume(case.padding_mode != "circular" or any(case.padding))
    # PyTorch's own gradient writes out of bounds where a window holds nothing but padding
    assume(all(size >= d for size, d in zip(case.shape[2:], case.dilation, strict=True)))
    x = case.input()
    value, grad = gradient(MAX_BLUR[case.spatial], x, **case.arguments)
    torch_value, torch_grad = gradient(MAX_POOL[case.spatial], x, **case.pool_arguments)
    torch.testing.assert_close(value, torch_value, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(grad, torch_grad, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@given(data=st.data())
def test_gradient_through_any_layout_agrees_with_float64(dtype: torch.dtype, data: st.DataObject) -> None:
    case = data.draw(any_cases(dtypes=[dtype]))
    x = case.input().requires_grad_()
    operation = (MAX_BLUR if isinstance(case, MaxBlurCase) else BLUR)[case.spatial]
    y = run(case, x)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (grad,) = torch.autograd.grad(y, x, upstream.to(dtype))
    assert (grad.shape, grad.dtype) == (x.shape, dtype)
    wanted = gradient(operation, x.detach().double(), **case.arguments)[1]
    windows = 4.0**case.spatial  # of the maximum that may send their gradient to one pixel
    torch.testing.assert_close(grad.double(), wanted, rtol=0, atol=oracles.TOLERANCE[dtype] * case.gain * windows)


def test_gradient_where_a_window_holds_nothing_but_padding() -> None:
    x = torch.zeros(1, 1, 1, 1, requires_grad=True)
    y = functional.max_blur_pool2d(x, 2, 1, 1, 2, filter="none")
    assert y.tolist() == [[[[float("-inf")]]]]
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.tolist() == [[[[0.0]]]]


def distinct(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Values at least 0.1 apart and 0.05 from 0, so that finite differences cross no tie and no kink of the ReLU."""
    count = torch.Size(shape).numel()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).double()
    return (order - count / 2 + 0.5).view(shape) / 10


GRADCHECK_SHAPES = {1: [(2, 2, 7), (1, 1, 1)], 2: [(1, 2, 5, 4), (2, 1, 2, 1)], 3: [(1, 2, 2, 3, 2)]}


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_gradcheck_and_gradgradcheck(spatial: int, padding_mode: str, layout: str) -> None:
    options: dict[str, Any] = {"filter": (0.2, 0.5, 0.4, -0.1), "padding_mode": padding_mode}
    operations: list[Operation] = [lambda x: BLUR[spatial](x, **options)]
    if spatial == 2:
        operations.append(lambda x: functional.relu_blur_pool2d(x, **options))
    operations.append(lambda x: MAX_BLUR[spatial](x, 2, ceil_mode=True, **options))
    operations.append(lambda x: MAX_BLUR[spatial](x, 3, 2, 1, **options))
    for shape in GRADCHECK_SHAPES[spatial]:
        x = lay_out(distinct(shape), layout).requires_grad_()
        for operation in operations:
            assert torch.autograd.gradcheck(operation, (x,), fast_mode=spatial == 3)
            assert torch.autograd.gradgradcheck(operation, (x,), fast_mode=True)


def test_forward_mode_and_vmap() -> None:
    x = torch.randn(4, 2, 3, 6, 5)
    for layout in LAYOUTS:
        batched = torch.stack([lay_out(one, layout) for one in x], dim=1)
        for operation in (functional.blur_pool2d, lambda one: functional.max_blur_pool2d(one, 3, 2, 1)):
            expected = torch.stack([operation(one) for one in x])
            torch.testing.assert_close(torch.func.vmap(operation, in_dims=1)(batched), expected, rtol=1e-6, atol=1e-6)
    one = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    hessian = torch.func.hessian(lambda one: functional.blur_pool2d(one).pow(2).sum())(one).view(9, 9)
    matrix = torch.func.jacrev(functional.blur_pool2d)(one).view(4, 9)
    torch.testing.assert_close(hessian, 2 * matrix.T @ matrix)


# Modes and devices


def test_autocast_leaves_the_dtype_alone() -> None:
    for dtype in DTYPES:
        x = torch.randn(1, 2, 6, 6).to(dtype)
        plain = [functional.blur_pool2d(x), functional.max_blur_pool2d(x, 2), functional.relu_blur_pool2d(x)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = [functional.blur_pool2d(x), functional.max_blur_pool2d(x, 2), functional.relu_blur_pool2d(x)]
        for one, other in zip(plain, cast, strict=True):
            assert one.dtype == dtype
            assert torch.equal(one, other)


def test_autocast_around_a_training_step_leaves_the_gradient_alone() -> None:
    x = torch.randn(1, 2, 6, 6)
    plain = gradient(functional.max_blur_pool2d, x, kernel_size=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = gradient(functional.max_blur_pool2d, x, kernel_size=2)
    assert torch.equal(plain[1], cast[1])


@given(case=any_cases())
def test_meta_and_fake_tensors_have_the_shape_dtype_and_strides_of_real_ones(case: BlurCase) -> None:
    x = case.input()
    y = run(case, x)
    on_meta = run(case, x.to("meta"))
    assert (on_meta.shape, on_meta.dtype) == (y.shape, y.dtype)
    with FakeTensorMode() as mode:
        fake = run(case, mode.from_tensor(x))
    assert (fake.shape, fake.dtype) == (y.shape, y.dtype)
    if y.numel() > 0:
        for size, stride, real_stride in zip(y.shape, fake.stride(), y.stride(), strict=True):
            assert stride == real_stride or size == 1  # nobody walks along an axis of one


def test_default_device_is_not_that_of_the_result() -> None:
    """In a process of its own: kernels that allocate on the default device write to memory that is not there."""
    code = (
        "import torch\nfrom dealias import functional\n"
        "with torch.device('meta'):\n"
        "    x = torch.ones(1, 2, 4, 4, device='cpu', requires_grad=True)\n"
        "    for y in functional.blur_pool2d(x, 6), functional.max_blur_pool2d(x, 2), functional.relu_blur_pool2d(x):\n"
        "        y.sum().backward()\n"
        "        assert y.device.type == x.grad.device.type == 'cpu'\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    "call",
    [
        lambda x: functional.blur_pool2d(x, ("tri3", "bin5"), (2, 1)),
        lambda x: functional.relu_blur_pool2d(x),
        lambda x: functional.max_blur_pool2d(x, 3, 2, 1, ceil_mode=True),
        lambda x: functional.max_blur_pool2d(x, 2, padding_mode="circular"),
    ],
    ids=["blur", "relu", "maximum", "wrapped maximum"],
)
def test_functions_compile_with_dynamic_shapes(call: Operation) -> None:
    """Then taps and strides are symbols, too."""
    torch.compiler.reset()
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((2, 3, 12, 16), (4, 3, 13, 9)):
        x = torch.randn(shape)
        torch.testing.assert_close(compiled(x), call(x))
