"""From checked arguments to kernel launches: how the work is cut, and what is constant while a kernel runs.

Everything here is arithmetic on sizes; each plan is computed once and kept. Along x the dense map (the input, or its
maximum) is cut into groups of V = G * SW columns, G of them outputs. Borders need no padded copy: groups at the border
mend them (`Fold`). Maps so small that the border rule bounces (TINY), and circular padding, whose other side is in
another group, take columns by index instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple, TypeAlias

import torch

from dealias.ops.arguments import PADDING_MODES, RELU, Blur, First, Pool, pool_of

Pair: TypeAlias = tuple[int, int]

BLOCK = 128  # lanes of a program, one for each of its threads
NARROW = 2**31  # maps of fewer elements are addressed by 32-bit offsets
FOLDING = ("reflect", "replicate")


class Fold(NamedTuple):
    """In one group, counted from the row's start or end, a column and one in the padding that repeats it.

    In the forward the column TO lies in the padding and repeats SOURCE; in the backward TO receives what reached SOURCE
    in the padding. Columns count from the group's first.
    """

    FROM_END: bool
    GROUP: int
    TO: int
    SOURCE: int


class Sizes(NamedTuple):
    """Sizes that a kernel gets when it runs: of the input, the output and the dense map, and of the work."""

    lanes: int  # in a plan of one image, in a launch of all
    groups: int
    vectors: int
    H: int
    W: int
    HO: int
    WO: int
    HD: int
    WD: int
    blocks: int
    steps_of_block: int


class Side(NamedTuple):
    """How the input, or the output, is cut into groups of V columns; VECTOR: each is one aligned vector."""

    V: int
    VECTOR: bool


class Constants(NamedTuple):
    """What Triton compiles a kernel for."""

    SH: int  # the stride
    SW: int
    KH: int  # the window of the maximum; one pixel where there is none
    KW: int
    BH: int  # its padding before the map
    BW: int
    WRAP: bool
    PADDED: bool  # it reaches into padding of -inf
    MODE: int  # the number of the padding mode
    CL: bool  # channels_last
    INPUT: Side
    OUTPUT: Side
    VEC: int  # channels of a lane
    FULL: bool  # no group reaches beyond its map
    WIDE: bool  # maps of `NARROW` elements and more
    FIRST: int  # of the columns that a group needs: dense ones in the forward, COUNT output ones in the backward
    FOLDS: tuple[Fold, ...]
    COUNT: int = 0
    LAST: int = 0  # the dense map's last column, counted from the last group's first
    TINY: bool = False
    RELU: bool = False
    SHARED: bool = False  # the forward loads input columns once, and mends the border
    PACKED: bool = False  # it takes maxima of two 16-bit elements at a time
    NEAR_H: int = 0  # of the EXTRA output rows, whose filter reaches beyond the map, those at the start
    EXTRA_H: int = 0
    NEAR_W: int = 0
    EXTRA_W: int = 0
    BLOCK: int = BLOCK


class Plan(NamedTuple):
    """How to launch a kernel."""

    sizes: Sizes
    constants: Constants


class Cut(NamedTuple):
    """How rows are cut into groups."""

    channels_last: bool
    channels: int  # of a lane
    input: Side
    output: Side


def _cut(channels: int, width: int, outputs: int, step: int, itemsize: int, channels_last: bool, most: Pair) -> Cut:
    """`most`: outputs of a group and channels of a lane, in channels_last layout."""
    if channels_last:
        group = min(most[0], outputs)
        return Cut(True, gcd(channels, most[1]), Side(group * step, False), Side(group, False))
    columns = gcd(width, 16 // itemsize)
    vector = columns > 1 and columns % step == 0
    group = columns // step if vector else min(2, outputs)
    aligned = group & (group - 1) == 0 and outputs % group == 0
    return Cut(False, 1, Side(group * step, vector), Side(group, aligned))


def _plan(
    shape: tuple[int, ...], blur: Blur, pool: Pool, cut: Cut, groups: int, steps: int, processors: int, **own: Any
) -> Plan:
    """For maps of `shape`, down which programs take `steps` steps; `own` are the constants of one kernel."""
    images, channels, height, width = shape
    hd, wd = pool.dense_size((height, width))
    ho, wo = blur.output_size((hd, wd))
    vectors = channels // cut.channels if cut.channels_last else 1
    lanes = (1 if cut.channels_last else channels) * groups * vectors
    steps_of_block = _steps_of_block(steps, images * lanes, processors)
    blocks = -(-steps // steps_of_block)
    sizes = Sizes(lanes, groups, vectors, height, width, ho, wo, hd, wd, blocks, steps_of_block)
    padded = not pool.wrap and any((*pool.before, *pool.after))
    full = all(not side.VECTOR or n // side.V == groups for side, n in ((cut.input, width), (cut.output, wo)))
    wide = max(height * width, ho * wo) * vectors * cut.channels >= NARROW
    (down, along), (kh, kw), (bh, bw) = blur.stride, pool.kernel_size, pool.before
    mode, layout = PADDING_MODES.index(blur.padding_mode), (cut.channels_last, cut.input, cut.output, cut.channels)
    return Plan(sizes, Constants(down, along, kh, kw, bh, bw, pool.wrap, padded, mode, *layout, full, wide, **own))


def _steps_of_block(steps: int, lanes: int, processors: int) -> int:
    """How far down a program walks: the further the fewer rows are loaded twice, but all processors want work."""
    wanted = 4 * processors * 1024
    return min(steps, max(4, -(-steps // max(1, -(-wanted // max(1, lanes))))))


def mended_columns(mode: str, first: int, end: int, columns: int, last: int) -> tuple[Fold, ...]:
    """FOLDS of the forward kernel, for the dense columns first..end-1 of groups of `columns`."""
    folds: list[Fold] = []
    edge = 0
    while edge > first:  # group m lacks the columns before its edge -m * columns
        sources = [(o, 2 * edge - o if mode == "reflect" else edge) for o in range(first, edge)]
        folds += [Fold(False, -edge // columns, o, source) for o, source in sources]
        edge -= columns
    edge = last
    while edge < end - 1:  # group m from the end lacks those behind last + m * columns
        sources = [(o, 2 * edge - o if mode == "reflect" else edge) for o in range(edge + 1, end)]
        folds += [Fold(True, (edge - last) // columns, o, source) for o, source in sources if source >= first]
        edge += columns
    return tuple(folds)


def folded_columns(mode: str, taps: int, low: int, wide: int, columns: int, last: int) -> tuple[Fold, ...]:
    """FOLDS of the backward kernels, for the dense columns low..low+wide-1 of groups of `columns`."""
    folds: list[Fold] = []
    for p in range(1, (taps - 1) // 2 + 1):
        target = p if mode == "reflect" else 0
        for m in range((target - low) // columns + 1):
            if target - m * columns < low + wide:
                folds.append(Fold(False, m, target - m * columns, -p - m * columns))
    for p in range(1, taps // 2 + 1):
        target = last - p if mode == "reflect" else last
        for m in range(max(0, -(-(low - target) // columns)), (low + wide - 1 - target) // columns + 1):
            folds.append(Fold(True, m, target + m * columns, last + m * columns + p))
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
    shape: tuple[int, ...], itemsize: int, channels_last: bool, blur: Blur, first: First, packed: bool, processors: int
) -> Plan:
    """For the kernel `blur_pool`; `packed`: it may take maxima of two 16-bit elements at a time."""
    pool, mode, step = pool_of(first), blur.padding_mode, blur.stride[1]
    taps = [len(line) for line in blur.taps]
    lead, tail = (taps[1] - 1) // 2, taps[1] // 2
    dense = pool.dense_size(shape[2:])
    rows, outputs = blur.output_size(dense)
    pooled = pool.kernel_size != (1, 1)
    most = (2, 16 // itemsize) if channels_last else (0, 0)
    cut = _cut(shape[1], shape[3], outputs, step, itemsize, channels_last, most)
    columns = cut.input.V
    groups = -(-outputs // cut.output.V)
    last = dense[1] - 1 - (groups - 1) * columns
    tiny = any(
        n <= (length + k - 2 if pool.wrap else length // 2)
        for n, length, k in zip(dense, taps, pool.kernel_size, strict=True)
    )
    # Input columns are loaded once, and the border is mended.
    shared = not tiny and (pool.wrap or (mode != "circular" and (pooled or cut.input.VECTOR)))
    mends = shared and not pool.wrap and mode in FOLDING
    start = min(-lead, last - tail) if mends else -lead
    end = (cut.output.V - 1) * step + tail + 1
    if pool.kernel_size[1] > 1 and not shared:
        cut = cut._replace(input=cut.input._replace(VECTOR=False))
    own: dict[str, Any] = {
        "FIRST": start,
        "FOLDS": mended_columns(mode, start, end, columns, last) if mends else (),
        "LAST": last if mode == "zeros" else 0,  # else not needed, and would only make another kernel
        "TINY": tiny,
        "RELU": first == RELU,
        "SHARED": shared,
        "PACKED": packed and pooled and channels_last and itemsize == 2,
    }
    return _plan(shape, blur, pool, cut, groups, rows, processors, **own)


@lru_cache(maxsize=1024)
def backward(
    shape: tuple[int, ...], itemsize: int, channels_last: bool, blur: Blur, first: First, processors: int
) -> Plan:
    """For the kernel `blur_backward`, or where a maximum comes first for `max_backward`, if it is `foldable`."""
    _, channels, height, width = shape
    pooled, pool, mode, (down, along) = isinstance(first, Pool), pool_of(first), blur.padding_mode, blur.stride
    taps = [len(line) for line in blur.taps]
    dense = pool.dense_size((height, width))
    outputs = blur.output_size(dense)
    most = (2, 2 if pooled else 4) if channels_last else (0, 0)  # larger groups would not fit the registers
    cut = _cut(channels, width, outputs[1], along, itemsize, channels_last, most)
    columns = cut.input.V
    groups = -(-width // columns)
    last = dense[1] - 1 - (groups - 1) * columns
    low, wide = pool.before[1] - pool.kernel_size[1] + 1, columns + pool.kernel_size[1] - 1
    bounces = any(n <= length // 2 for n, length in zip(dense, taps, strict=True))
    extra_rows, extra_columns = (0, 0), (0, 0)
    folds: tuple[Fold, ...] = ()
    if mode != "zeros":
        extra_rows = _reaching_out(dense[0], outputs[0], taps[0], down)
        if mode == "circular" or bounces:
            extra_columns = _reaching_out(dense[1], outputs[1], taps[1], along)
        else:
            folds = folded_columns(mode, taps[1], low, wide, columns, last)
    start, count = _needed_outputs(folds, taps[1], low, wide, along, cut.output.V, outputs[1], groups)
    own: dict[str, Any] = {
        "FIRST": start,
        "COUNT": count,
        "FOLDS": folds,
        "NEAR_H": extra_rows[0],
        "EXTRA_H": extra_rows[1],
    }
    if pooled:
        own |= {"LAST": last, "TINY": any(n < k for n, k in zip(dense, pool.kernel_size, strict=True))}
    else:
        own |= {"RELU": first == RELU, "TINY": bounces, "NEAR_W": extra_columns[0], "EXTRA_W": extra_columns[1]}
    return _plan(shape, blur, pool, cut, groups, -(-height // down), processors, **own)


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
