"""Compare the time of the fused operations with others: ratios within one run, so that the machine's speed cancels.

Every round times all forms; with one thread the clock is the thread's CPU time, so that other load does not count.
The bound is the time to move an operation's data once, measured as a copy of half as many bytes, which reads and writes
as many in all, between buffers that were written before: memory never written is read three times too fast.

Where the data of an operation fit a cache, so do those of its copy. With several inputs in turn both come from memory.
"""

from __future__ import annotations

import csv
import io
import math
import platform
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from dealias import functional
from dealias.filters import FILTERS
from dealias.ops import reference
from dealias.ops.arguments import RELU, Blur, Pool

Op: TypeAlias = Callable[[Tensor], Tensor]
Row: TypeAlias = dict[str, object]
T = TypeVar("T")

TAPS = (FILTERS["bin4"],) * 2
SIZES = {112: (4, 64), 56: (8, 128), 28: (16, 256), 32: (32, 64)}
"""Images and channels by side in pixels: stages of networks for ImageNet and CIFAR, of about equally many bytes."""
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Contest:
    """An operation with the filter bin4 at stride 2, its form in pure PyTorch, and the data that it moves."""

    name: str
    fused: Op
    unfused: Op
    aliased: Mapping[str, Op]
    """PyTorch's own pooling layers that an anti-aliased network replaces."""
    before_blur: nn.Module
    """The layer that other libraries put before their blur."""
    reads_input_twice: bool = True
    """Whether the backward reads the input."""

    def traffic(self, backward: bool) -> float:
        """Elements that cross the memory bus, for each element of the input.

        The forward reads the input and writes the output, a quarter as large. The backward reads the output's gradient
        and writes the input's; for a ReLU or a maximum it reads the input again.
        """
        return 1.25 + (1.25 + self.reads_input_twice) * backward


def contests() -> list[Contest]:
    """The three operations; windows of the maximum are 2 x 2.

    >>> [contest.name for contest in contests()]
    ['max_blur_pool2d(2)', 'blur_pool2d', 'relu_blur_pool2d']
    """
    blur = Blur(TAPS, (2, 2), "reflect")
    maximum = {"MaxPool2d(3,2,1)": nn.MaxPool2d(3, 2, 1)}
    return [
        Contest(
            "max_blur_pool2d(2)",
            lambda x: functional.max_blur_pool2d(x, 2),
            lambda x: reference.blur_pool(x, blur, Pool((2, 2), (1, 1), (0, 0), (0, 0), False)),
            maximum,
            nn.MaxPool2d(2, 1),
        ),
        Contest(
            "blur_pool2d",
            functional.blur_pool2d,
            lambda x: reference.blur_pool(x, blur),
            {**maximum, "AvgPool2d(2)": nn.AvgPool2d(2)},
            nn.Identity(),
            reads_input_twice=False,
        ),
        Contest(
            "relu_blur_pool2d",
            functional.relu_blur_pool2d,
            lambda x: reference.blur_pool(x, blur, RELU),
            maximum,
            nn.ReLU(),
        ),
    ]


def clock() -> float:
    """Seconds of CPU time of this thread, or of wall time if PyTorch uses several threads."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def race(
    steps: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2, least: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of each step in each of `rounds`, after `warmup` rounds that do not count.

    >>> times = race({"long": lambda: sum(range(9000)), "short": lambda: sum(range(3000))}, rounds=5)
    >>> median_ratio(times["long"], times["short"]) > 1
    True

    With `least`, a step is called in a row for at least that many seconds, after as many calls that do not count. It
    then reuses memory that it freed itself, as in a loop of its own, and not memory of the step before.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    calls = dict.fromkeys(steps, 1)
    for turn in range(warmup + rounds):
        for name, run in steps.items():
            for _ in range(calls[name] if least and turn >= warmup else 0):
                run()
            start = clock()
            for _ in range(calls[name]):
                run()
            seconds = (clock() - start) / calls[name]
            if turn >= warmup:
                times[name].append(seconds)
            else:
                calls[name] = max(1, math.ceil(least / max(seconds, 1e-6)))
    return times


def median_ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """The median over the rounds of the ratio of times.

    >>> median_ratio([2.0, 9.0, 8.0], [1.0, 3.0, 2.0])
    3.0
    """
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def in_turn(run: Callable[[T], object], arguments: Sequence[T]) -> Callable[[], object]:
    """A function that calls `run` with the next argument each time, and keeps the results of the others.

    A new result then takes the memory of the oldest, not of the last, which may still be in a cache.

    >>> step = in_turn(abs, [1, -2, 3])
    >>> [step() for _ in range(4)]
    [1, 2, 3, 1]
    """
    turns, kept = cycle(arguments), deque[object](maxlen=len(arguments) - 1)

    def run_next() -> object:
        result = run(next(turns))
        kept.append(result)
        return result

    return run_next


def step(op: Op, inputs: Sequence[Tensor], backward: bool) -> Callable[[], object]:
    """The forward, or the forward and the backward, of the next input at each call."""
    if not backward:
        return in_turn(op, inputs)
    inputs = [x.detach().requires_grad_() for x in inputs]
    upstream = torch.randn_like(op(inputs[0]).detach())

    def run(pair: tuple[Tensor, Tensor]) -> object:
        x, gradient = pair
        y = op(x)
        return y.detach(), torch.autograd.grad(y, x, gradient)

    return in_turn(run, [(x, upstream.clone()) for x in inputs])


def saved_beyond_input(op: Op, x: Tensor) -> float:
    """Bytes that are kept for the backward besides the input, in units of the input; those of filters do not count."""
    x = x.detach().requires_grad_()
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        op(x)
    kept.pop(x.untyped_storage().data_ptr(), None)
    small = x.numel() * x.element_size() / 1000
    return sum(size for size in kept.values() if size > small) / (x.numel() * x.element_size())


def measure(
    contest: Contest,
    layout: str = "NCHW",
    dtype: str = "float32",
    pixels: int = 56,
    *,
    rounds: int = 15,
    inputs: int = 1,
    rivals: Callable[[Contest, Tensor], Mapping[str, Op]] = lambda contest, x: {},
) -> list[Row]:
    """Time one operation: a row for the forward and one for forward + backward.

    Args:
        contest: one of `contests()`.
        layout: a key of `LAYOUTS`.
        dtype: a key of `DTYPES`.
        pixels: a key of `SIZES`.
        rounds: number of measurements of each form.
        inputs: number of inputs that are taken in turn: with several, the data come from memory, not from a cache.
        rivals: returns more forms of the operation by name, for a contest and its input.

    Returns:
        Rows with the milliseconds of the fused form, their ratio to the bound ("x bound"), the bytes kept for its
        backward in units of the input ("saved"), and the ratio of the time of each other form to that of the fused.
    """
    shape = (*SIZES[pixels], pixels, pixels)
    xs = [torch.randn(shape).to(DTYPES[dtype]).contiguous(memory_format=LAYOUTS[layout]) for _ in range(inputs)]
    x = xs[0]
    others = {"unfused": contest.unfused, **contest.aliased, **rivals(contest, x)}
    rows: list[Row] = []
    for backward in (False, True):
        steps = {name: step(op, xs, backward) for name, op in {"fused": contest.fused, **others}.items()}
        source = torch.randn(round(contest.traffic(backward) * x.numel() / 2)).to(x.dtype)
        pairs = [(source.clone(), source.clone()) for _ in xs]
        copy = in_turn(lambda pair: pair[0].copy_(pair[1]), pairs)
        times = race({**steps, "copy": copy}, rounds, least=0.05)
        row: Row = {
            "op": contest.name,
            "layout": layout,
            "dtype": dtype,
            "pixels": pixels,
            "pass": "forward + backward" if backward else "forward",
            "ms": round(1e3 * statistics.median(times["fused"]), 3),
            "x bound": round(median_ratio(times["fused"], times["copy"]), 2),
            "saved": round(saved_beyond_input(contest.fused, x), 3),
            "saved, unfused": round(saved_beyond_input(contest.unfused, x), 3),
        }
        rows.append(row | {f"{name} / fused": round(median_ratio(times[name], times["fused"]), 2) for name in others})
    return rows


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The names of the columns of all rows, in the order of first appearance.

    >>> columns_of([{"op": "a", "timm": 2}, {"op": "b", "kornia": 3}])
    ['op', 'timm', 'kornia']
    """
    return list(dict.fromkeys(name for row in rows for name in row))


def as_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV; a column that a row does not have is empty there.

    >>> as_csv([{"op": "a", "timm": 2}, {"op": "b"}])
    'op,timm\\na,2\\nb,\\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns_of(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def processor() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
