"""The Triton kernels against the reference in float64: on a GPU, or without one in Triton's interpreter.

The root conftest.py chooses the interpreter, before anything imports Triton.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any
from unittest import mock

import pytest
import torch
from helpers import sweep
from helpers.cases import (
    PADDING_MODES,
    BlurCase,
    MaxBlurCase,
    PerAxis,
    blur_cases,
    lay_out,
    make_values,
    max_blur_cases,
)
from hypothesis import HealthCheck, Phase, given, settings
from torch import Tensor

from dealias import functional, ops
from dealias.ops import fused, reference
from dealias.ops.arguments import RELU, Blur, First, Pool

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = DEVICE == "cpu"
triton = pytest.importorskip(
    "triton", reason="Triton is not installed: only the GPU kernels need it, and it exists for Linux alone"
)
if INTERPRETED and not triton.knobs.runtime.interpret:
    pytest.skip(
        "Triton's interpreter was switched off by TRITON_INTERPRET=0, and no GPU is here", allow_module_level=True
    )
cuda = import_module("dealias.ops.cuda")

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GUARD = 64  # elements of NaN on either side of every tensor that a kernel gets
# one rounding at the end, which for bfloat16 the interpreter does towards zero
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 8e-3 if INTERPRETED else 4.1e-3, torch.float16: 5.2e-4}
drawn = settings(
    max_examples=8 if INTERPRETED else 40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # a case takes the interpreter most of a second: shrinking, minutes
)
widely = settings(drawn, max_examples=200, derandomize=False)
SIZE = 13 if INTERPRETED else 80


def covered(case: MaxBlurCase) -> MaxBlurCase:
    """The case with a kernel that Triton's kernels cover."""
    kernel = tuple(min(k, 3) for k in case.kernel_size)
    padding = tuple(min(p, k // 2) for p, k in zip(case.padding, kernel, strict=True))
    return replace(case, kernel_size=kernel, padding=padding, dilation=(1, 1))


BLURS = blur_cases(2, dtypes=DTYPES, max_size=SIZE)
MAXIMA = max_blur_cases(2, dtypes=DTYPES, values=("normal", "ties", "nan"), max_size=SIZE).map(covered)


def agree(result: Tensor, expected: Tensor, like: Tensor) -> None:
    """`result`, of the dtype and layout of `like`, is `expected` up to rounding; NaN and infinities are the same."""
    assert result.dtype == like.dtype
    assert result.shape == expected.shape
    assert result.stride() == reference.match_layout(result, like).stride()
    finite = expected.isfinite()
    torch.testing.assert_close(
        result.double().masked_fill(finite, 0), expected.masked_fill(finite, 0), rtol=0, atol=0, equal_nan=True
    )
    scale = max(1.0, float(expected[finite].abs().max())) if finite.any() else 1.0
    error = (result.double() - expected)[finite].abs()
    assert not error.numel() or float(error.max()) <= TOLERANCE[like.dtype] * scale


def gradient_like(y: Tensor, dtype: torch.dtype, seed: int) -> Tensor:
    """An incoming gradient: contiguous, channels_last or a slice of a larger tensor, whatever the input is."""
    grad = make_values(y.shape, "normal", seed + 1).to(DEVICE, dtype)
    return lay_out(grad, ("contiguous", "channels_last", "sliced")[seed % 3])


def between_guards(x: Tensor) -> tuple[Tensor, Tensor]:
    """A copy of the dense tensor between two rows of NaN, and the memory that holds all of it."""
    memory = x.new_full((x.numel() + 2 * GUARD,), float("nan"))
    return memory.as_strided(x.shape, x.stride(), GUARD).copy_(x), memory


def guarded(x: Tensor) -> Tensor:
    """The same tensor; where it is dense, so that what is read beyond it is NaN."""
    dense = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    return between_guards(x)[0] if dense else x


@contextmanager
def guarded_results() -> Iterator[None]:
    """What the kernels write into lies between guards, too; they must be as they were."""
    written: list[Tensor] = []
    allocate = cuda._empty

    def empty(*args: Any) -> Tensor:
        result, memory = between_guards(allocate(*args).fill_(float("nan")))
        written.append(memory)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "_empty", empty)
        yield
    assert all(memory[:GUARD].isnan().all() and memory[-GUARD:].isnan().all() for memory in written)


def check(case: BlurCase, blur: Blur, first: First) -> None:
    """Forward and gradient of one operation agree with the reference in float64; nothing else is read or written."""
    x = guarded(case.input(DEVICE))
    exact = x.double().requires_grad_()
    expected = reference.blur_pool(exact, blur, first)
    grad = guarded(gradient_like(expected, case.dtype, case.seed))
    (backward,) = torch.autograd.grad(expected, exact, grad.double())
    given = None if first is None else x
    with guarded_results():
        agree(cuda.forward(x, blur, first), expected.detach(), x)
        agree(cuda.backward(grad, given, blur, first, x.shape, fused.is_channels_last(x)), backward, x)


def check_blur(case: BlurCase, relu: bool) -> None:
    check(case, case.blur, RELU if relu else None)


def check_max(case: MaxBlurCase) -> None:
    """With what `functional.max_blur_pool2d` hands to the operation, beside the input."""
    with mock.patch.object(ops, "blur_pool", wraps=reference.blur_pool) as operation:
        functional.max_blur_pool2d(torch.zeros(case.shape), **case.arguments)
    check(case, *operation.call_args.args[1:])


def covering_case(index: int) -> MaxBlurCase:
    """The i-th of 12 cases in which every choice occurs, and every dtype with every border."""
    kernel = ((2, 2), (3, 3), (3, 2), (2, 3))[index // 3]
    return MaxBlurCase(
        shape=(2, (8, 3, 4, 1)[index % 4], (7, 9, 4)[index % 3], (16, 11, 24, 8)[index // 3]),
        dtype=DTYPES[index % 3],
        layout=("contiguous", "channels_last")[(index // 2) % 2],
        values=("ties", "nan", "normal")[(index // 4) % 3],
        seed=index,
        filter=(4, 3, 1, 2, 5, (0.5, -0.25, 1.0, 0.75), 6, 7, (1.0, 0.0, 2.0))[index % 9],
        stride=((2, 2), (1, 1), (4, 2), (3, 4))[(index // 2) % 4],
        padding_mode=PADDING_MODES[index % 4],
        kernel_size=kernel,
        padding=(kernel[0] // 2, 0) if index % 2 else (0, 0),
        dilation=(1, 1),
        ceil_mode=index % 5 == 0,
    )


CASES = range(12)  # each takes seconds in Triton's interpreter


@pytest.mark.parametrize("index", sweep.only((4,), CASES))
def test_every_choice(index: int) -> None:
    case = covering_case(index)
    check_blur(case, relu=index % 2 == 0)
    check_max(case)


FILTER_PAIRS = (("none", "bin4"), ("rect2", "bin5"), ("bin5", "rect2"), ("bin7", (0.5, -0.25, 1.0)))


@pytest.mark.parametrize("index", sweep.only((7,), CASES))
def test_axes_with_filters_of_their_own(index: int) -> None:
    case = replace(
        covering_case(index),
        filter=PerAxis(FILTER_PAIRS[index % 4]),
        stride=((2, 1), (1, 3), (3, 2), (1, 1))[index // 3],
        padding_mode=PADDING_MODES[(index + index // 4) % 4],
    )
    check_blur(case, relu=index % 2 == 1)
    check_max(case)


@drawn
@given(case=BLURS)
def test_blur(case: BlurCase) -> None:
    check_blur(case, relu=False)


@drawn
@given(case=BLURS)
def test_relu_blur(case: BlurCase) -> None:
    check_blur(case, relu=True)


@drawn
@given(case=MAXIMA)
def test_max_blur(case: MaxBlurCase) -> None:
    check_max(case)


@pytest.mark.sweep
@widely
@given(case=BLURS)
def test_blur_widely(case: BlurCase) -> None:
    check_blur(case, relu=False)


@pytest.mark.sweep
@widely
@given(case=MAXIMA)
def test_max_blur_widely(case: MaxBlurCase) -> None:
    check_max(case)


@settings(drawn, max_examples=5)
@given(
    case=max_blur_cases(2, dtypes=[torch.float32], values=["infinite"], max_size=12)
    .map(covered)
    .map(lambda case: replace(case, ceil_mode=False))
)
def test_the_first_of_infinite_elements_takes_the_gradient(case: MaxBlurCase) -> None:
    check_max(case)


BIN4 = (0.125, 0.375, 0.375, 0.125)
BLUR = Blur((BIN4, BIN4), (2, 2), "reflect")
MAX = Pool((3, 2), (1, 1), (1, 0), (1, 1), False)


def forget_plans() -> None:
    cuda.launch.forward.cache_clear()
    cuda.launch.backward.cache_clear()


@pytest.fixture
def own_plans() -> Iterator[None]:
    """Plans made under changed limits must not outlive the test."""
    yield
    forget_plans()


@pytest.mark.parametrize(
    ("name", "limit", "layout"),
    [
        ("launch.NARROW", 64, torch.contiguous_format),
        pytest.param("launch.NARROW", 64, torch.channels_last, marks=pytest.mark.sweep),
        pytest.param("MOST_LANES", 5, torch.contiguous_format, marks=pytest.mark.sweep),
    ],
    ids=["64-bit offsets", "64-bit offsets, channels_last", "launches in parts"],
)
def test_limits_of_a_launch(
    monkeypatch: pytest.MonkeyPatch, own_plans: None, name: str, limit: int, layout: torch.memory_format
) -> None:
    x = make_values((2, 2, 5, 16), "normal", 0).to(DEVICE, torch.float32).contiguous(memory_format=layout)
    grad = make_values((2, 2, 3, 8), "normal", 1).to(DEVICE, torch.float32)

    def results() -> list[Tensor]:
        backward = [cuda.backward(grad, x, BLUR, first, x.shape, fused.is_channels_last(x)) for first in (RELU, MAX)]
        return [cuda.forward(x, BLUR, None), cuda.forward(x, BLUR, MAX), *backward]

    before = results()
    holder = cuda.launch if name.startswith("launch.") else cuda
    monkeypatch.setattr(holder, name.removeprefix("launch."), limit)
    forget_plans()
    assert all(torch.equal(a, b) for a, b in zip(before, results(), strict=True))


@pytest.mark.skipif(
    INTERPRETED, reason="needs a GPU: the interpreter runs one program after the other, which cannot race"
)
def test_gradients_are_deterministic() -> None:
    x = torch.randn(8, 16, 57, 64, device=DEVICE).round()
    grad = torch.randn(8, 16, 29, 32, device=DEVICE)
    first, *others = (cuda.backward(grad, x, BLUR, MAX, x.shape, False) for _ in range(6))
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.skipif(INTERPRETED, reason="needs a GPU: the interpreter would take days for 2**31 elements")
def test_more_than_two_to_the_31_elements() -> None:
    x = torch.zeros(3, 1, 20_000, 40_000, device=DEVICE, dtype=torch.bfloat16)
    x[2, 0, -2:, -2:] = 1
    y = cuda.forward(x, BLUR, None)
    tail = reference.blur_pool(x[2:, :, -20:, -20:].float(), BLUR)
    torch.testing.assert_close(y[2:, :, -6:, -6:].float(), tail[..., -6:, -6:], rtol=0, atol=0)
    grad = cuda.backward(y, None, BLUR, None, x.shape, False)
    assert grad[2, 0, -1, -1] > 0
    assert not grad[:2].any()


@pytest.mark.skipif(INTERPRETED, reason="needs a GPU: CUDA records the graph, and torch.compile compiles for CUDA")
def test_cuda_graph_and_compile() -> None:
    def step(x: Tensor) -> Tensor:
        y = functional.max_blur_pool2d(functional.relu_blur_pool2d(x), 3, 2, 1)
        return torch.autograd.grad(functional.blur_pool2d(y).square().sum(), x)[0]

    x = torch.randn(2, 8, 64, 64, device=DEVICE, requires_grad=True)
    assert ops.backend_for(x, BLUR) == "cuda"
    expected = step(x)
    torch.testing.assert_close(torch.compile(step, fullgraph=False)(x), expected)
    static = x.detach().clone().requires_grad_()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step(static)
    graph.replay()
    torch.testing.assert_close(result, expected)
