"""The native CPU kernels against the reference path in float64, on every instruction set of this machine."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as TF
from helpers import oracles
from helpers.cases import LAYOUTS, BlurCase, MaxBlurCase, PerAxis, blur_cases, lay_out, max_blur_cases
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from dealias import functional as F
from dealias import ops
from dealias.errors import InputError
from dealias.ops import cpu, fused, reference
from dealias.ops.arguments import Blur, Pool

# A library that does not load is a failure; where there was no compiler there is none, as documented.
pytestmark = pytest.mark.skipif(
    "not built" in (cpu.unavailable() or ""),
    reason="the native kernels were not built here: the reference, which has tests of its own, replaces them",
)

ISAS = () if cpu.unavailable() else cpu.instruction_sets()
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}
VALUES = ("normal", "ties", "infinite", "nan")
BIN4 = (0.125, 0.375, 0.375, 0.125)
BLUR = Blur((BIN4, BIN4), (2, 2), "reflect")


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """The instruction sets of this machine, one after the other."""
    with cpu.use_instruction_set(request.param):
        yield request.param


on_each_isa = pytest.mark.usefixtures("isa")


def run(
    name: str, x: Tensor, arguments: dict[str, Any], upstream: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, gradient of the input, and the upstream gradient that gave it."""
    x = x.detach().requires_grad_()
    y = getattr(F, name)(x, **arguments)
    if upstream is None:
        upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(y.dtype)
    (gradient,) = torch.autograd.grad(y, x, upstream.to(y.dtype))
    return y.detach(), gradient, upstream


def compare(name: str, case: BlurCase) -> None:
    x = case.input()
    results = []
    upstream = None
    for isa in cpu.instruction_sets():
        with cpu.use_instruction_set(isa):
            results.append(run(name, x, case.arguments, upstream))
        upstream = results[0][2]
    expected = run(name, x.double(), case.arguments, upstream)
    tolerance = TOLERANCE[case.dtype]
    for result in results:
        for got, want in zip(result[:2], expected[:2], strict=True):
            assert got.dtype == case.dtype
            torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance, equal_nan=True)
        assert result[0].stride() == reference.match_layout(result[0], x).stride()


# Such maps come up deep in converted networks; the functions refuse them.
@pytest.mark.parametrize("shape", [(2, 3, 5, 1), (2, 3, 1, 5), (1, 2, 1, 1)])
def test_a_maximum_wraps_around_maps_smaller_than_its_window(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    blur = Blur((BIN4, BIN4), (2, 2), "circular")
    pool = Pool((3, 3), (1, 1), (0, 0), (2, 2), True)
    expected = reference.blur_pool(x.double(), blur, pool)
    for isa in cpu.instruction_sets():
        with cpu.use_instruction_set(isa):
            result = fused.blur_pool(x, blur, pool, plain=True).double()
            torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)


BLUR_CASES = blur_cases(2, dtypes=DTYPES, values=VALUES)
MAX_CASES = max_blur_cases(2, dtypes=DTYPES, values=VALUES)
SMALLEST_WRAPPED = MaxBlurCase(
    (1, 2, 2, 2), torch.float32, "contiguous", "normal", 0, "bin4", (2, 2), "circular", (2, 2), (0, 0), (1, 1), False
)
INFINITE_PADDED = MaxBlurCase(
    (2, 3, 7, 9), torch.float32, "channels_last", "infinite", 1, "bin5", (2, 3), "reflect", (3, 3), (1, 1), (1, 1), True
)


@given(case=BLUR_CASES)
def test_blur_is_the_reference_in_float64(case: BlurCase) -> None:
    compare("blur_pool2d", case)


@given(case=BLUR_CASES)
def test_relu_blur_is_the_reference_in_float64(case: BlurCase) -> None:
    compare("relu_blur_pool2d", case)


@given(case=MAX_CASES)
@example(case=SMALLEST_WRAPPED)
@example(case=INFINITE_PADDED)
def test_max_blur_is_the_reference_in_float64(case: MaxBlurCase) -> None:
    assume(max(case.kernel_size) <= 3)
    # The reference pads dilated windows explicitly: among -inf its padding may win the gradient, which torch's may not.
    padded = any(d > 1 and p > 0 for d, p in zip(case.dilation, case.padding, strict=True))
    assume(case.values != "infinite" or not padded)
    compare("max_blur_pool2d", case)


# Maps wide enough to be cut into chunks, in both layouts and at sizes that no vector divides.
@pytest.mark.parametrize("padding_mode", F.PADDING_MODES)
@pytest.mark.parametrize(
    ("shape", "layout"), [((1, 1, 13, 2083), "contiguous"), ((2, 130, 9, 83), "channels_last")], ids=["wide", "deep"]
)
def test_rows_in_chunks(shape: tuple[int, ...], layout: str, padding_mode: str) -> None:
    dtype = torch.float32
    case = MaxBlurCase(shape, dtype, layout, "ties", 5, "bin4", (2, 2), padding_mode, (3, 2), (1, 0), (1, 1), False)
    compare("max_blur_pool2d", case)
    compare("relu_blur_pool2d", BlurCase(shape, torch.bfloat16, layout, "normal", 6, "bin5", (1, 2), padding_mode))


# Planes at stride 2 take kernels that hold rows in a fixed number of lanes: widths on either side of each limit.
LANES = st.sampled_from([15, 16, 17, 31, 32, 33, 40, 48, 56, 61, 63, 64, 65, 66, 112, 113, 127, 129, 225])


@st.composite
def strip_cases(draw: st.DrawFn) -> MaxBlurCase:
    size = draw(st.integers(1, 3))
    padding = draw(st.integers(0, size // 2))
    height = draw(st.one_of(st.integers(size, 6), LANES.filter(lambda n: n < 65)))
    return MaxBlurCase(
        shape=(1, draw(st.integers(1, 3)), height, draw(LANES)),
        dtype=draw(st.sampled_from(DTYPES)),
        layout="contiguous",
        values=draw(st.sampled_from(VALUES)),
        seed=draw(st.integers(0, 999)),
        filter=draw(st.sampled_from([2, 3, 4, 5, (1.0, 0.0, 2.0, 0.5), (3.0, -1.0, 0.25)])),
        stride=(2, 2),
        padding_mode=draw(st.sampled_from(F.PADDING_MODES)),
        kernel_size=(size, size),
        padding=(padding, padding),
        dilation=(1, 1),
        ceil_mode=draw(st.booleans()),
    )


@given(case=strip_cases())
def test_planes_at_stride_2(case: MaxBlurCase) -> None:
    compare("max_blur_pool2d", case)
    blur = BlurCase(**{field.name: getattr(case, field.name) for field in fields(BlurCase)})
    compare("blur_pool2d", blur)
    compare("relu_blur_pool2d", blur)


@st.composite
def deep_cases(draw: st.DrawFn) -> MaxBlurCase:
    """Maps in channels_last at stride 2: channels on either side of whole vectors."""
    size = draw(st.integers(1, 3))
    padding = draw(st.integers(0, size // 2))
    return MaxBlurCase(
        shape=(
            draw(st.integers(1, 2)),
            draw(st.sampled_from([2, 7, 8, 9, 15, 16, 17, 31, 33, 40, 64, 100, 130])),
            draw(st.integers(size, 9)),
            draw(st.integers(size, 20)),
        ),
        dtype=draw(st.sampled_from(DTYPES)),
        layout="channels_last",
        values=draw(st.sampled_from(VALUES)),
        seed=draw(st.integers(0, 999)),
        filter=draw(st.sampled_from([2, 3, 4, 5, 7, (1.0, 0.0, 2.0, 0.5), (3.0, -1.0, 0.25)])),
        stride=(2, 2),
        padding_mode=draw(st.sampled_from(F.PADDING_MODES)),
        kernel_size=(size, size),
        padding=(padding, padding),
        dilation=(1, 1),
        ceil_mode=draw(st.booleans()),
    )


@given(case=deep_cases())
def test_channels_last_at_stride_2(case: MaxBlurCase) -> None:
    compare("max_blur_pool2d", case)
    blur = BlurCase(**{field.name: getattr(case, field.name) for field in fields(BlurCase)})
    compare("blur_pool2d", blur)
    compare("relu_blur_pool2d", blur)


# The kernels look for NaN in several rows at once, in no row twice, and in most columns only by way of the sums.
@on_each_isa
@pytest.mark.parametrize("shape", [(1, 40, 21, 33), (1, 1, 37, 150)], ids=["deep", "wide"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("taps", [2, 4])
@pytest.mark.parametrize("kernel_size", [2, 3])
def test_one_nan_in_any_row_and_column(kernel_size: int, taps: int, layout: str, shape: tuple[int, ...]) -> None:
    clean = torch.randn(shape, generator=torch.Generator().manual_seed(8))
    arguments = {"kernel_size": kernel_size, "filter": taps}
    tolerance = TOLERANCE[torch.float32]
    rows, columns = shape[2:]
    places = [(row, (0, -1, row)[row % 3]) for row in range(rows)]
    for row, column in places + [(column % rows, column) for column in range(columns)]:
        x = clean.clone()
        x[0, row % shape[1], row, column] = torch.nan
        exact = run("max_blur_pool2d", x.double(), arguments)
        result = run("max_blur_pool2d", lay_out(x, layout), arguments, exact[2])
        for got, want in zip(result[:2], exact[:2], strict=True):
            torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance, equal_nan=True)


def bits(x: Tensor) -> Tensor:
    """The bits of each number, one pattern for every NaN."""
    return x.masked_fill(x.isnan(), float("nan")).view(torch.int32 if x.dtype == torch.float32 else torch.int16)


def assert_all_agree(name: str, case: BlurCase) -> None:
    x = case.input()
    results: list[tuple[Tensor, Tensor, Tensor]] = []
    for isa in cpu.instruction_sets():
        with cpu.use_instruction_set(isa):
            results.append(run(name, x, case.arguments, results[0][2] if results else None))
    for isa, result in zip(cpu.instruction_sets()[1:], results[1:], strict=True):
        for got, want, what in zip(result[:2], results[0][:2], ("output", "gradient"), strict=True):
            assert torch.equal(bits(got), bits(want)), f"{what} of {isa}"


def assert_ops_agree(case: MaxBlurCase) -> None:
    assume(max(case.kernel_size) <= 3)
    assert_all_agree("max_blur_pool2d", case)
    blur = BlurCase(**{field.name: getattr(case, field.name) for field in fields(BlurCase)})
    assert_all_agree("blur_pool2d", blur)
    assert_all_agree("relu_blur_pool2d", blur)


ANY_CASES = st.one_of(MAX_CASES, strip_cases(), deep_cases())


@given(case=ANY_CASES)
def test_every_instruction_set_agrees_bit_for_bit(case: MaxBlurCase) -> None:
    assert_ops_agree(case)


@pytest.mark.sweep
@settings(max_examples=2000)
@given(case=ANY_CASES)
def test_every_instruction_set_agrees_bit_for_bit_2000_times(case: MaxBlurCase) -> None:
    assert_ops_agree(case)


FILTER_PAIRS = [PerAxis(pair) for pair in itertools.permutations(["none", "rect2", "bin4", "bin5", 9], 2)]
STRIDES = ((2, 1), (1, 3), (3, 2), (2, 2), (1, 1))


def along_axis(size: int, taps: Sequence[float], step: int, padding_mode: str) -> NDArray[np.float64]:
    """The blur of one axis as a matrix, from inputs to outputs: SciPy's answer to each unit vector."""
    return oracles.blur_pool(np.eye(size)[:, None, :, None], (taps, (1.0,)), (step, 1), padding_mode)[:, 0, :, 0]


def gradient_of_blur(case: BlurCase, upstream: Tensor) -> Tensor:
    """Upstream times the transposed matrix of each axis."""
    axes = zip(case.shape[2:], case.taps, case.stride, strict=True)
    vertical, horizontal = (along_axis(*axis, case.padding_mode) for axis in axes)
    return torch.from_numpy(np.einsum("ncij,hi,wj->nchw", upstream.double().numpy(), vertical, horizontal))


@on_each_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("padding_mode", F.PADDING_MODES)
def test_axes_with_filters_of_their_own_are_those_of_scipy(padding_mode: str, layout: str, dtype: torch.dtype) -> None:
    tolerance = TOLERANCE[dtype]

    def agree(actual: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)

    for seed, (pair, stride) in enumerate(itertools.product(FILTER_PAIRS, STRIDES)):
        shape = (2, 3, *((11, 19), (18, 7), (33, 34))[seed % 3])
        maximum = MaxBlurCase(
            shape, dtype, layout, "normal", seed, pair, stride, padding_mode, (3, 3), (1, 1), (1, 1), False
        )
        case = BlurCase(**{field.name: getattr(maximum, field.name) for field in fields(BlurCase)})
        x = case.input()
        exact = x.double().requires_grad_()
        assert ops.backend_for(x, case.blur) == "cpu"
        y, gradient, upstream = run("blur_pool2d", x, case.arguments)
        blurred = gradient_of_blur(case, upstream)
        agree(y, torch.from_numpy(oracles.expected(case, x)))
        agree(gradient, blurred)
        y, gradient, _ = run("relu_blur_pool2d", x, case.arguments, upstream)
        agree(y, torch.from_numpy(oracles.expected(case, x, relu=True)))
        agree(gradient, blurred * (exact > 0))
        y, gradient, _ = run("max_blur_pool2d", x, maximum.arguments, upstream)
        agree(y, torch.from_numpy(oracles.expected(maximum, x)))
        agree(gradient, torch.autograd.grad(TF.max_pool2d(exact, 3, 1, 1), exact, blurred)[0])


@given(case=MAX_CASES)
def test_exchanging_the_axes_exchanges_those_of_the_result(case: MaxBlurCase) -> None:
    assume(max(case.kernel_size) <= 3)

    def exchanged(pair: Any) -> Any:
        return type(pair)(reversed(pair))

    filters = exchanged(case.filter) if isinstance(case.filter, PerAxis) else case.filter
    names = ("kernel_size", "stride", "padding", "dilation")
    twin = replace(case, filter=filters, **{name: exchanged(getattr(case, name)) for name in names})
    x = case.input()
    y, gradient, upstream = run("max_blur_pool2d", x, case.arguments)
    other, other_gradient, _ = run("max_blur_pool2d", x.mT, twin.arguments, upstream.mT)
    tolerance = TOLERANCE[case.dtype] * case.gain
    torch.testing.assert_close(other.mT, y, rtol=tolerance, atol=tolerance, equal_nan=True)
    if case.values == "normal" and case.dtype == torch.float32:  # where there are ties, another of them comes first
        torch.testing.assert_close(other_gradient.mT, gradient, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("taps", [8, 11, 64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_long_filters(taps: int, layout: str) -> None:
    compare("blur_pool2d", BlurCase((2, 3, 23, 19), torch.float32, layout, "normal", 7, taps, (2, 1), "circular"))


@on_each_isa
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", ["blur_pool2d", "relu_blur_pool2d", "max_blur_pool2d"])
def test_threads_change_no_bit(name: str, layout: str) -> None:
    arguments = {"kernel_size": 3, "stride": 2, "padding": 1} if name == "max_blur_pool2d" else {}
    x = torch.randn(3, 20, 150, 151)
    x = x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            upstream = results[0][2] if results else None
            results.append(run(name, x, arguments, upstream))
    finally:
        torch.set_num_threads(threads)
    for y, gradient, _ in results[1:]:
        assert torch.equal(y, results[0][0])
        assert torch.equal(gradient, results[0][1])


@on_each_isa
def test_circular_shift_by_the_stride_moves_the_output_bit_for_bit() -> None:
    x = torch.randn(2, 5, 34, 38)
    arguments = {"kernel_size": 2, "stride": 2, "padding_mode": "circular"}
    for layout in (torch.contiguous_format, torch.channels_last):
        y = F.max_blur_pool2d(x.contiguous(memory_format=layout), **arguments)
        moved = F.max_blur_pool2d(x.roll((6, -10), (2, 3)).contiguous(memory_format=layout), **arguments)
        assert torch.equal(moved, y.roll((3, -5), (2, 3)))


@on_each_isa
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate"])
@given(height=st.integers(5, 40), width=st.integers(5, 80), taps=st.integers(2, 7), kernel=st.integers(2, 3))
@example(height=48, width=64, taps=3, kernel=2)
def test_a_maximum_then_a_blur_is_both_in_one_bit_for_bit(
    padding_mode: Any, layout: str, height: int, width: int, taps: int, kernel: int
) -> None:
    x = lay_out(torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height + 100 * width)), layout)
    together = F.max_blur_pool2d(x, kernel, 2, filter=taps, padding_mode=padding_mode)
    dense = TF.max_pool2d(x, kernel, 1)
    assert torch.equal(together, F.blur_pool2d(dense, taps, 2, padding_mode))


@on_each_isa
def test_first_of_equal_pixels_takes_the_gradient() -> None:
    x = torch.randint(0, 3, (2, 3, 12, 13)).float().requires_grad_()
    y = F.max_blur_pool2d(x, 3, stride=1, padding=1, filter="none")
    upstream = torch.rand_like(y)
    (gradient,) = torch.autograd.grad(y, x, upstream)
    (expected,) = torch.autograd.grad(TF.max_pool2d(x, 3, 1, 1), x, upstream)
    torch.testing.assert_close(gradient, expected)


HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16)


@on_each_isa
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_every_float16_passes_through(layout: str) -> None:
    """With a filter of one tap: what the kernels read is what they write."""
    x = lay_out(torch.from_numpy(HALVES.copy()).view(1, 16, 64, 64), layout)
    y = F.blur_pool2d(x, filter="none", stride=1)
    assert torch.equal(bits(y), bits(x))
    y = F.relu_blur_pool2d(x, filter="none", stride=1)
    torch.testing.assert_close(y, TF.relu(x.float()).half(), rtol=0, atol=0, equal_nan=True)


@on_each_isa
@pytest.mark.parametrize("scale", [1.0, 2.0**5, 2.0**-14, 2.0**-24])
@pytest.mark.parametrize("taps", [(0.5, 0.5), (2.0, -1.0)])
def test_float16_rounds_to_nearest(taps: tuple[float, float], scale: float) -> None:
    """Sums that float32 holds exactly: NumPy rounds them, also to infinity and below the normal numbers."""
    x = scale * torch.randint(-2047, 2048, (1, 8, 32, 66), generator=torch.Generator().manual_seed(4)).double()
    y = F.blur_pool2d(x.half(), filter=PerAxis(("none", taps)), stride=(1, 2), padding_mode="circular")
    exact = (taps[0] * x[..., ::2] + taps[1] * x[..., 1::2]).numpy()
    with np.errstate(over="ignore"):
        assert np.array_equal(y.numpy(), exact.astype(np.float16))


@on_each_isa
def test_float16_compiles_and_passes_autocast() -> None:
    x = torch.randn(2, 8, 12, 14).half()
    expected = run("max_blur_pool2d", x, {"kernel_size": 2})
    torch.compiler.reset()
    leaf = x.clone().requires_grad_()
    y = torch.compile(lambda x: F.max_blur_pool2d(x, 2), fullgraph=True, backend="aot_eager")(leaf)
    (gradient,) = torch.autograd.grad(y, leaf, expected[2])
    assert torch.equal(y, expected[0])
    assert torch.equal(gradient, expected[1])
    with torch.autocast("cpu", dtype=torch.float16):
        y = F.max_blur_pool2d(TF.conv2d(x.float(), torch.ones(8, 1, 1, 1), groups=8), 2)
    assert y.dtype == torch.float16
    assert torch.equal(y, expected[0])


@on_each_isa
def test_several_python_threads_at_once() -> None:
    inputs = [torch.randn(2, 8, 120 + i, 130) for i in range(6)]
    expected = [run("max_blur_pool2d", x, {"kernel_size": 2}) for x in inputs]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(3):
            jobs = [
                pool.submit(run, "max_blur_pool2d", x, {"kernel_size": 2}, want[2])
                for x, want in zip(inputs, expected, strict=True)
            ]
            for job, want in zip(jobs, expected, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(job.result(), want, strict=True))


def _blur_in_child(x: Tensor, queue: Any) -> None:
    torch.set_num_threads(2)
    queue.put(F.max_blur_pool2d(x, 2)[-1, -1, -1].tolist())


@on_each_isa
def test_works_in_a_forked_child_after_threads_ran_in_the_parent() -> None:
    x = torch.randn(4, 16, 128, 128)
    expected = F.max_blur_pool2d(x, 2)[-1, -1, -1].tolist()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_blur_in_child, args=(x, queue))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join(60)
    assert child.exitcode == 0


@on_each_isa
@pytest.mark.parametrize("padding_mode", F.PADDING_MODES)
def test_gradient_may_have_another_layout_than_the_input(padding_mode: str) -> None:
    x = torch.randn(2, 6, 12, 14, requires_grad=True)
    y = F.relu_blur_pool2d(x, padding_mode=padding_mode)
    upstream = torch.randn_like(y)
    (gradient,) = torch.autograd.grad(y, x, upstream, retain_graph=True)
    strided = upstream.contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.autograd.grad(y, x, strided, retain_graph=True)[0], gradient)
    (summed,) = torch.autograd.grad(y.sum(), x, retain_graph=True)  # an expanded gradient: all strides 0
    torch.testing.assert_close(summed, torch.autograd.grad(y, x, torch.ones_like(y))[0])


def test_what_the_kernels_do_not_cover_takes_the_reference_path() -> None:
    x = torch.zeros(1, 2, 8, 8)
    none = ((0, 0), (0, 0), False)
    assert ops.backend_for(x, BLUR) == "cpu"
    assert ops.backend_for(x.half(), BLUR, Pool((2, 2), (1, 1), *none)) == "cpu"
    assert ops.backend_for(x.bfloat16(), BLUR, Pool((3, 2), (1, 2), *none)) == "cpu"
    assert ops.backend_for(x, BLUR._replace(taps=(BIN4, (1.0,)), stride=(2, 1))) == "cpu"
    assert ops.backend_for(x.double(), BLUR) == "reference"
    assert ops.backend_for(x, BLUR, Pool((4, 4), (1, 1), *none)) == "reference"
    assert ops.backend_for(x, BLUR._replace(taps=(BIN4, (1 / 65,) * 65))) == "reference"


@pytest.mark.parametrize("steps", [2**30, 2**31, 2**32 + 1])
def test_steps_beyond_32_bits_take_the_reference_path(steps: int) -> None:
    x = torch.rand(1, 2, 8, 8)
    assert ops.backend_for(x, BLUR, Pool((2, 2), (1, steps), (0, 0), (0, 0), False)) == "reference"
    assert F.blur_pool2d(x, stride=(2, steps)).shape == (1, 2, 4, 1)


def test_an_instruction_set_that_is_not_there_is_an_input_error() -> None:
    before = cpu.instruction_set()
    with pytest.raises(InputError, match="portable"), cpu.use_instruction_set("sse9"):
        pass
    assert cpu.instruction_set() == before


def in_a_process_of_its_own(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", f"import torch, dealias\n{code}"]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", ["", *ISAS])
def test_the_environment_chooses_the_instruction_set(name: str) -> None:
    code = "dealias.BlurPool2d()(torch.ones(1, 1, 4, 4)); print(dealias.ops.cpu.instruction_set())"
    assert in_a_process_of_its_own(code, DEALIAS_ISA=name).split() == [name or ISAS[-1]]


def test_the_environment_asks_for_an_instruction_set_that_is_not_there() -> None:
    code = (
        "layer = dealias.BlurPool2d()\n"
        "for _ in range(2):\n"
        "    try:\n        layer(torch.ones(1, 1, 4, 4))\n"
        "    except dealias.errors.InputError as error:\n        print(error)"
    )
    first, second = in_a_process_of_its_own(code, DEALIAS_ISA="sse9").splitlines()
    assert first == second == f"DEALIAS_ISA='sse9' is not available: unset it, or use one of {', '.join(ISAS)}"


@pytest.mark.sweep
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_maps_beyond_two_gigabytes(layout: str) -> None:
    channels, size = 3, 14000
    x = torch.zeros(1, channels, size, size)
    x = x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x
    x[0, -1, -9:, -9:] = torch.randn(9, 9)
    small = x[:, :, -11:, -11:].clone()
    corner = F.blur_pool2d(x, padding_mode="zeros")[:, :, -4:, -4:]
    torch.testing.assert_close(corner, F.blur_pool2d(small[:, :, 1:, 1:], padding_mode="zeros")[:, :, -4:, -4:])
