"""From checked arguments to kernel launches: how the work is cut, and what is constant while a kernel runs.

Everything here is arithmetic on sizes; each plan is computed once and kept. The names of the dictionaries' entries are
those of the kernels' parameters. Along x the dense map (the input, or its maximum) is cut into groups of V = G * SW
columns, G of them outputs. Borders need no padded copy:

- FOLDS lists (from the end?, group, column, other column): in that group, counted from the row's start or end, the
  column lies in the padding and repeats the other one (forward), or receives what reached the other one in the
  padding (backward). Columns count from the group's first.
- Maps so small that the border rule bounces (TINY), and circular padding, whose other side is in another group,
  take columns by index instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple, TypeAlias

import torch

from dealias.ops.arguments import PADDING_MODES, RELU, Blur, First, Pool, dense_size

Pair: TypeAlias = tuple[int, int]
Fold: TypeAlias = tuple[bool, int, int, int]

BLOCK = 128  # lanes of a program, one for each of its threads
NARROW = 2**31  # maps of fewer elements are addressed by 32-bit offsets
FOLDING = ("reflect", "replicate")


class Window(NamedTuple):
    """What the kernels ask of the maximum before the blur; without one, of a window of one pixel."""

    kernel: Pair
    before: Pair
    wrap: bool
    padded: bool  # it reaches into padding of -inf

    @classmethod
    def of(cls, first: First) -> Window:
        """The window of what comes first."""
        if not isinstance(first, Pool):
            return cls((1, 1), (0, 0), False, False)
        padded = not first.wrap and any((*first.before, *first.after))
        return cls(pair(first.kernel_size), pair(first.before), first.wrap, padded)

    def constants(self) -> dict[str, Any]:
        """Parameters of the kernels that know of a maximum."""
        (kh, kw), (bh, bw) = self.kernel, self.before
        return {"KH": kh, "KW": kw, "BH": bh, "BW": bw, "WRAP": self.wrap, "PADDED": self.padded}


def pair(values: Sequence[int]) -> Pair:
    """The values of the two axes."""
    first, second = values
    return int(first), int(second)


class Plan(NamedTuple):
    """How to launch a kernel: programs and lanes for each image, and its parameters."""

    blocks: int
    lanes: int
    sizes: dict[str, int]
    constants: dict[str, Any]


class Cut(NamedTuple):
    """How rows are cut into groups, and whether a group of the input or of the output is one aligned vector."""

    outputs: int  # G
    channels: int  # VEC
    vectors: int
    input_vector: bool
    output_vector: bool


def _cut(channels: int, width: int, outputs: int, step: int, itemsize: int, channels_last: bool, most: Pair) -> Cut:
    if channels_last:
        channel_vector = gcd(channels, most[1])
        return Cut(min(most[0], outputs), channel_vector, channels // channel_vector, False, False)
    columns = gcd(width, 16 // itemsize)
    vector = columns > 1 and columns % step == 0
    group = columns // step if vector else min(2, outputs)
    return Cut(group, 1, 1, vector, group & (group - 1) == 0 and outputs % group == 0)


def _common(cut: Cut, groups: int, blur: Blur, sizes: Pair, outputs: Pair, channels_last: bool) -> dict[str, Any]:
    """The constants of all kernels."""
    group, channel_vector, vectors, input_vector, output_vector = cut
    full = (not input_vector or sizes[1] // (group * blur.stride[1]) == groups) and (
        not output_vector or outputs[1] // group == groups
    )
    largest = max(sizes[0] * sizes[1], outputs[0] * outputs[1]) * vectors * channel_vector
    constants = {"G": group, "VEC": channel_vector, "BLOCK": BLOCK, "FULL": full, "WIDE": largest >= NARROW}
    mode = PADDING_MODES.index(blur.padding_mode)
    return constants | {"SH": blur.stride[0], "SW": blur.stride[1], "MODE": mode, "CL": channels_last}


def _plan(
    shape: tuple[int, ...], cut: Cut, groups: int, steps: int, outputs: Pair, constants: dict[str, Any], processors: int
) -> Plan:
    """For maps of `shape`, down which a program takes `steps` steps."""
    images, channels, height, width = shape
    lanes = (1 if constants["CL"] else channels) * groups * cut.vectors
    steps_of_block = _steps_of_block(steps, images * lanes, processors)
    blocks = -(-steps // steps_of_block)
    sizes = {"groups": groups, "vectors": cut.vectors, "H": height, "W": width, "HO": outputs[0], "WO": outputs[1]}
    return Plan(blocks, lanes, sizes | {"blocks": blocks, "steps_of_block": steps_of_block}, constants)


def _steps_of_block(steps: int, lanes: int, processors: int) -> int:
    """How far down a program walks: the further the fewer rows are loaded twice, but all processors want work."""
    wanted = 4 * processors * 1024
    return min(steps, max(4, -(-steps // max(1, -(-wanted // max(1, lanes))))))


def mended_columns(mode: str, first: int, end: int, columns: int, last: int) -> tuple[Fold, ...]:
    """FOLDS of the forward kernel, for the dense columns first..end-1 of groups of `columns`."""
    folds: list[Fold] = []
    edge = 0
    while edge > first:  # group m lacks the columns before its edge -m * columns
        folds += [(False, -edge // columns, o, 2 * edge - o if mode == "reflect" else edge) for o in range(first, edge)]
        edge -= columns
    edge = last
    while edge < end - 1:  # group m from the end lacks those behind last + m * columns
        sources = [(o, 2 * edge - o if mode == "reflect" else edge) for o in range(edge + 1, end)]
        folds += [(True, (edge - last) // columns, o, source) for o, source in sources if source >= first]
        edge += columns
    return tuple(folds)


def folded_columns(mode: str, taps: int, low: int, wide: int, columns: int, last: int) -> tuple[Fold, ...]:
    """FOLDS of the backward kernels, for the dense columns low..low+wide-1 of groups of `columns`."""
    folds: list[Fold] = []
    for p in range(1, (taps - 1) // 2 + 1):
        target = p if mode == "reflect" else 0
        for m in range((target - low) // columns + 1):
            if target - m * columns < low + wide:
                folds.append((False, m, target - m * columns, -p - m * columns))
    for p in range(1, taps // 2 + 1):
        target = last - p if mode == "reflect" else last
        for m in range(max(0, -(-(low - target) // columns)), (low + wide - 1 - target) // columns + 1):
            folds.append((True, m, target + m * columns, last + m * columns + p))
    return tuple(folds)


def _needed_outputs(
    folds: tuple[Fold, ...], taps: int, low: int, wide: int, step: int, group: int, outputs: int, groups: int
) -> Pair:
    """(first, count) of the output columns that reach a group's dense columns or what is folded onto them."""
    lead = (taps - 1) // 2
    first, end = -((taps - 1 - low - lead) // step), (low + wide - 1 + lead) // step
    for from_end, m, _, source in folds:
        for tap in range(taps):
            j, rest = divmod(source + lead - tap, step)
            exists = j <= outputs - 1 - (groups - 1 - m) * group if from_end else j >= -m * group
            if rest == 0 and exists:
                first, end = min(first, j), max(end, j)
    return first, end - first + 1


def _reaching_out(size: int, outputs: int, taps: int, step: int) -> Pair:
    """Of an axis's outputs, how many have a filter that starts before the map, and how many reach beyond it at all."""
    starts = [i * step - (taps - 1) // 2 for i in range(outputs)]
    return sum(start < 0 for start in starts), sum(start < 0 or start + taps > size for start in starts)


@lru_cache(maxsize=1024)
def forward(
    shape: tuple[int, ...],
    itemsize: int,
    channels_last: bool,
    blur: Blur,
    first: First,
    packed: bool,
    processors: int,
) -> Plan:
    """For the kernel `blur_pool`. PACKED: take maxima of two 16-bit elements at a time."""
    _, channels, height, width = shape
    window, mode, step = Window.of(first), blur.padding_mode, blur.stride[1]
    taps = [len(line) for line in blur.taps]
    lead, tail = (taps[1] - 1) // 2, taps[1] // 2
    dense = pair(dense_size((height, width), first))
    outputs = pair(blur.output_size(dense))
    pooled = window.kernel != (1, 1)
    most = (2, 16 // itemsize) if channels_last else (0, 0)
    cut = _cut(channels, width, outputs[1], step, itemsize, channels_last, most)
    columns = cut.outputs * step
    groups = -(-outputs[1] // cut.outputs)
    last = dense[1] - 1 - (groups - 1) * columns
    tiny = any(
        n <= (length + k - 2 if window.wrap else length // 2)
        for n, length, k in zip(dense, taps, window.kernel, strict=True)
    )
    # Input columns are loaded once, and the border is mended.
    shared = not tiny and (window.wrap or (mode != "circular" and (pooled or cut.input_vector)))
    mends = shared and not window.wrap and mode in FOLDING
    start = min(-lead, last - tail) if mends else -lead
    end = (cut.outputs - 1) * step + tail + 1
    if window.kernel[1] > 1 and not shared:
        cut = cut._replace(input_vector=False)
    constants = _common(cut, groups, blur, (height, width), outputs, channels_last) | window.constants()
    constants |= {
        "RELU": first == RELU,
        "FIRST": start,
        "LAST": last if mode == "zeros" else 0,  # else not needed, and would only make another kernel
        "LOADS": cut.input_vector,
        "STORES": cut.output_vector,
        "SHARED": shared,
        "TINY": tiny,
        "PACKED": packed and pooled and channels_last and itemsize == 2,
        "FOLDS": mended_columns(mode, start, end, columns, last) if mends else (),
    }
    plan = _plan(shape, cut, groups, outputs[0], outputs, constants, processors)
    return plan._replace(sizes=plan.sizes | {"HD": dense[0], "WD": dense[1]})


@lru_cache(maxsize=1024)
def backward(
    shape: tuple[int, ...],
    itemsize: int,
    channels_last: bool,
    blur: Blur,
    first: First,
    processors: int,
) -> Plan:
    """For the kernel `blur_backward`, or where a maximum comes first for `max_backward`, if it is `foldable`.

    EXTRA output rows and columns, NEAR of them at the start, have a filter that reaches beyond the map.
    """
    _, channels, height, width = shape
    pooled, window, mode, (down, along) = isinstance(first, Pool), Window.of(first), blur.padding_mode, blur.stride
    taps = [len(line) for line in blur.taps]
    dense = pair(dense_size((height, width), first))
    outputs = pair(blur.output_size(dense))
    most = (2, 2 if pooled else 4) if channels_last else (0, 0)  # larger groups would not fit the registers
    cut = _cut(channels, width, outputs[1], along, itemsize, channels_last, most)
    columns = cut.outputs * along
    groups = -(-width // columns)
    last = dense[1] - 1 - (groups - 1) * columns
    low, wide = window.before[1] - window.kernel[1] + 1, columns + window.kernel[1] - 1
    bounces = any(n <= length // 2 for n, length in zip(dense, taps, strict=True))
    rows, extra_columns = (0, 0), (0, 0)
    folds: tuple[Fold, ...] = ()
    if mode != "zeros":
        rows = _reaching_out(dense[0], outputs[0], taps[0], down)
        if mode == "circular" or bounces:
            extra_columns = _reaching_out(dense[1], outputs[1], taps[1], along)
        else:
            folds = folded_columns(mode, taps[1], low, wide, columns, last)
    start, count = _needed_outputs(folds, taps[1], low, wide, along, cut.outputs, outputs[1], groups)
    constants = _common(cut, groups, blur, (height, width), outputs, channels_last) | {
        "FIRST": start,
        "COUNT": count,
        "LOADS": cut.output_vector,
        "STORES": cut.input_vector,
        "FOLDS": folds,
        "NEAR_H": rows[0],
        "EXTRA_H": rows[1],
    }
    plan = _plan(shape, cut, groups, -(-height // down), outputs, constants, processors)
    if not pooled:
        extra = {"RELU": first == RELU, "TINY": bounces, "NEAR_W": extra_columns[0], "EXTRA_W": extra_columns[1]}
        return plan._replace(constants=constants | extra)
    tiny = any(n < k for n, k in zip(dense, window.kernel, strict=True))
    constants |= window.constants() | {"TINY": tiny, "LAST": last}
    return plan._replace(constants=constants, sizes=plan.sizes | {"HD": dense[0], "WD": dense[1]})


def foldable(size: Sequence[int], blur: Blur, pool: Pool) -> bool:
    """Whether `max_backward` does it all; otherwise the blur's gradient must be computed first.

    It then takes that with one tap and stride 1, the only case in which it wraps around.
    """
    unfiltered = max(map(len, blur.taps)) == 1
    if unfiltered and max(blur.stride) == 1:
        return True
    inside = all(n > len(line) // 2 for n, line in zip(pool.dense_size(size), blur.taps, strict=True))
    mode = blur.padding_mode
    return not pool.wrap and (unfiltered or mode == "zeros" or (mode in FOLDING and inside))


def processors(device: torch.device) -> int:
    """The number of multiprocessors; in Triton's interpreter on a CPU as many as an H100 has."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132
