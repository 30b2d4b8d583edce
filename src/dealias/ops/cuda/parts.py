"""What the Triton kernels share: borders by index arithmetic, and rows of columns held in registers.

Triton compiles the kernels' modules: constants are in capitals (P: `dealias.ops.cuda.launch.Constants`), and types are
those of its language.

A lane owns a group of V neighbouring columns of one map: in contiguous layout of one channel ([BLOCK] tensors, one
vector load for the whole group where rows are aligned), in channels_last layout of VEC neighbouring channels
([BLOCK, VEC] tensors). A "row" is a tuple of such tensors, one for each column, numbered from the group's first
column: a filter along x is then arithmetic between registers, and only the columns beyond the group are loaded
twice, from L1. The program walks down the map; the indices of map rows are the same for all its lanes.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from dealias.ops.arguments import PADDING_MODES

REFLECT = tl.constexpr(PADDING_MODES.index("reflect"))
REPLICATE = tl.constexpr(PADDING_MODES.index("replicate"))
CIRCULAR = tl.constexpr(PADDING_MODES.index("circular"))
ZEROS = tl.constexpr(PADDING_MODES.index("zeros"))


class Place(NamedTuple):
    """Of each lane the number of its map, its group of columns and its channel vector, and whether it exists."""

    map: tl.tensor
    group: tl.tensor
    vector: tl.tensor
    live: tl.tensor


class Map(NamedTuple):
    """A map, which is cut into groups as its SIDE says (`launch.Side`): P.INPUT, as the input, or P.OUTPUT.

    `start` points to each lane's map, in channels_last layout to its channel vector of that map; `at` to its first
    column of row 0.
    """

    start: tl.tensor
    at: tl.tensor
    group: tl.tensor
    height: tl.tensor
    width: tl.tensor
    vectors: tl.tensor


@triton.jit
def border(i, n, MODE: tl.constexpr, TINY: tl.constexpr):
    """The position within 0..n-1 that position i of the padded axis repeats; TINY maps may bounce or wrap often."""
    if MODE == REFLECT:
        last = n - 1
        if TINY:
            period = tl.maximum(2 * last, 1)
            i = last - tl.abs(last - ((i % period) + period) % period)
        else:
            i = last - tl.abs(last - tl.abs(i))
    elif MODE == CIRCULAR:
        if TINY:
            i = ((i % n) + n) % n
        else:
            i = tl.where(i < 0, i + n, tl.where(i >= n, i - n, i))
    return tl.minimum(tl.maximum(i, 0), n - 1)


@triton.jit
def to_columns(t, V: tl.constexpr):
    """[B, V] as V tensors [B], without leaving the thread's registers."""
    if V == 1:
        return (tl.reshape(t, [t.shape[0]]),)
    else:
        even, odd = tl.split(tl.reshape(t, [t.shape[0], V // 2, 2]))
        evens = to_columns(even, V // 2)
        odds = to_columns(odd, V // 2)
        columns = ()
        for i in tl.static_range(V // 2):
            columns = columns + (evens[i], odds[i])
        return columns


@triton.jit
def from_columns(columns, V: tl.constexpr):
    """The inverse of `to_columns`."""
    if V == 1:
        return tl.expand_dims(columns[0], 1)
    else:
        even = ()
        odd = ()
        for i in tl.static_range(V // 2):
            even = even + (columns[2 * i],)
            odd = odd + (columns[2 * i + 1],)
        pair = tl.join(from_columns(even, V // 2), from_columns(odd, V // 2))
        return tl.reshape(pair, [pair.shape[0], V])


@triton.jit
def locate(chunk, sizes, P):
    """The `Place` of a program, [BLOCK] or in channels_last layout [BLOCK, 1].

    Lanes that do not exist repeat the last one: they may load, and must not store.
    """
    lane = chunk * P.BLOCK + tl.arange(0, P.BLOCK)
    if P.CL:
        lane = tl.expand_dims(lane, 1)
    live = lane < sizes.lanes
    lane = tl.minimum(lane, sizes.lanes - 1).to(tl.uint32)
    if P.CL:
        vector = (lane % sizes.vectors.to(tl.uint32)).to(tl.int32)
        lane = lane // sizes.vectors.to(tl.uint32)
    else:
        vector = (lane * 0).to(tl.int32)
    group = (lane % sizes.groups.to(tl.uint32)).to(tl.int32)
    return Place((lane // sizes.groups.to(tl.uint32)).to(tl.int32), group, vector, live)


@triton.jit
def everywhere(condition, lanes):
    """A scalar condition as a mask of the shape of `lanes`."""
    return (lanes * 0 + condition.to(tl.int32)) != 0


@triton.jit
def map_at(base, place, height, width, vectors, SIDE, P):
    """The `Map` of each lane at `place` in the tensor at `base`."""
    if P.CL:
        start = base + (place.map.to(tl.int64) * height * width * vectors + place.vector) * P.VEC
        start = start + tl.expand_dims(tl.arange(0, P.VEC), 0)
        at = start + place.group * vectors * (SIDE.V * P.VEC)
    else:
        if SIDE.VECTOR:
            start = base + place.map.to(tl.int64) * height * (width // SIDE.V) * SIDE.V
        else:
            start = base + place.map.to(tl.int64) * height * width
        at = start + place.group * SIDE.V
    return Map(start, at, place.group, height, width, vectors)


@triton.jit
def row_pointers(at, row, map, SIDE, P):
    """The pointers `at`, moved down to `row`; WIDE for maps of 2^31 elements and more."""
    if P.WIDE:
        row = tl.full([], 0, tl.int64) + row
    if P.CL:
        return at + row * map.width * map.vectors * P.VEC
    elif SIDE.VECTOR:
        return at + tl.multiple_of(row * map.width, SIDE.V)
    else:
        return at + row * map.width


@triton.jit
def pixel(at, inside, fill, CHECKED: tl.constexpr, FILLED: tl.constexpr):
    """One element of each lane; with CHECKED only `inside`, and with FILLED `fill` elsewhere (or anything)."""
    if CHECKED and FILLED:
        return tl.load(at, mask=inside, other=fill)
    elif CHECKED:
        return tl.load(at, mask=inside)
    else:
        return tl.load(at)


@triton.jit
def column_at(at, c, ok, fill, map, CHECKED: tl.constexpr, MASKED: tl.constexpr, P):
    """Column c, a tensor, of the row at `at`; CHECKED: `fill` where c is beyond the map, MASKED: where not `ok`."""
    if P.CL:
        at = at + c * map.vectors * P.VEC
    else:
        at = at + c
    inside = ok
    if CHECKED:
        inside = (c >= 0) & (c < map.width)
        if MASKED:
            inside = inside & ok
    return pixel(at, inside, fill, CHECKED or MASKED, True)


@triton.jit
def _column(at, ok, fill, map, COLUMN: tl.constexpr, MASKED: tl.constexpr, FILLED: tl.constexpr, SIDE, P):
    """Column COLUMN of each group in the row at `at`."""
    c = map.group * SIDE.V + COLUMN
    inside = c < map.width  # also for columns on the left: the backward has groups that begin beyond the output
    if COLUMN < 0:
        inside = inside & (c >= 0)
    if MASKED:
        inside = inside & ok
    if P.CL:
        return pixel(at + COLUMN * map.vectors * P.VEC, inside, fill, True, FILLED)
    else:
        return pixel(at + COLUMN, inside, fill, True, FILLED)


@triton.jit
def group_of(at, ok, fill, map, MASKED: tl.constexpr, SIDE, P):
    """The V columns of each group in the row at `at` by one load; FULL if no group is beyond the map."""
    inside = map.group < map.width // SIDE.V
    if MASKED:
        inside = inside & ok
    at = tl.expand_dims(at, 1) + tl.expand_dims(tl.arange(0, SIDE.V), 0)
    return to_columns(pixel(at, tl.expand_dims(inside, 1), fill, MASKED or not P.FULL, True), SIDE.V)


@triton.jit
def columns_of(map, row, ok, fill, FIRST: tl.constexpr, COUNT: tl.constexpr, MASKED: tl.constexpr,
               FILLED: tl.constexpr, SIDE, P):
    """Columns FIRST..FIRST+COUNT-1 of each group in `row`; with VECTOR those of the group itself by one load.

    Beyond the map, and with MASKED where not `ok`, they are `fill` (with FILLED, else anything); with WRAP the
    opposite side's.
    """
    at = row_pointers(map.at, row, map, SIDE, P)
    if SIDE.VECTOR:
        whole = group_of(at, ok, fill, map, MASKED, SIDE, P)
    if P.WRAP:
        row_at = row_pointers(map.start, row, map, SIDE, P)
    columns = ()
    for k in tl.static_range(COUNT):
        if SIDE.VECTOR and (FIRST + k >= 0 and FIRST + k < SIDE.V):
            columns = columns + (whole[FIRST + k],)
        elif P.WRAP:
            c = border(map.group * SIDE.V + (FIRST + k), map.width, CIRCULAR, P.TINY)
            columns = columns + (column_at(row_at, c, ok, fill, map, False, MASKED, P),)
        else:
            columns = columns + (_column(at, ok, fill, map, FIRST + k, MASKED, FILLED, SIDE, P),)
    return columns


@triton.jit
def store_columns(columns, map, row, live, SIDE, P):
    """Write each group's V columns of `row`; lanes that are not `live` write nothing."""
    kind = map.at.dtype.element_ty
    at = row_pointers(map.at, row, map, SIDE, P)
    if SIDE.VECTOR:
        at = tl.expand_dims(at, 1) + tl.expand_dims(tl.arange(0, SIDE.V), 0)
        inside = live & (map.group < map.width // SIDE.V)
        tl.store(at, from_columns(columns, SIDE.V).to(kind), mask=tl.expand_dims(inside, 1))
    else:
        for k in tl.static_range(SIDE.V):
            inside = live & (map.group * SIDE.V + k < map.width)
            if P.CL:
                tl.store(at + k * map.vectors * P.VEC, columns[k].to(kind), mask=inside)
            else:
                tl.store(at + k, columns[k].to(kind), mask=inside)


@triton.jit
def as_float(row):
    """The row in float32."""
    return [column.to(tl.float32) for column in row]


@triton.jit
def keep_if(condition, row):
    """The row where `condition` holds, else 0."""
    return [tl.where(condition, column, 0.0) for column in row]


@triton.jit
def greater(a, b):
    """The larger, NaN if either is; for 16 bits two at a time, which Triton itself does not emit."""
    if a.dtype == tl.bfloat16:
        return tl.inline_asm_elementwise("max.NaN.bf16x2 $0, $1, $2;", "=r,r,r", [a, b], tl.bfloat16, True, 2)
    elif a.dtype == tl.float16:
        return tl.inline_asm_elementwise("max.NaN.f16x2 $0, $1, $2;", "=r,r,r", [a, b], tl.float16, True, 2)
    else:
        return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def none_yet(COUNT: tl.constexpr, kind: tl.constexpr, P):
    """A row of COUNT zeros, the initial value of a row that a loop carries."""
    row = ()
    for _ in tl.static_range(COUNT):
        if P.CL:
            row = row + (tl.zeros([P.BLOCK, P.VEC], kind),)
        else:
            row = row + (tl.zeros([P.BLOCK], kind),)
    return row
