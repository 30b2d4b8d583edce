"""What the Triton kernels share: borders by index arithmetic, and rows of columns held in registers.

Triton compiles the kernels' modules: constants are in capitals, and types are those of its language.

A lane owns a group of V neighbouring columns of one map: in contiguous layout of one channel ([BLOCK] tensors, one
vector load for the whole group where rows are aligned), in channels_last layout of VEC neighbouring channels
([BLOCK, VEC] tensors). A "row" is a tuple of such tensors, one for each column, numbered from the group's first
column: a filter along x is then arithmetic between registers, and only the columns beyond the group are loaded
twice, from L1. The program walks down the map; the indices of map rows are the same for all its lanes.
"""

import triton
import triton.language as tl

from dealias.ops.arguments import PADDING_MODES

REFLECT = tl.constexpr(PADDING_MODES.index("reflect"))
REPLICATE = tl.constexpr(PADDING_MODES.index("replicate"))
CIRCULAR = tl.constexpr(PADDING_MODES.index("circular"))
ZEROS = tl.constexpr(PADDING_MODES.index("zeros"))


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
def locate(chunk, lanes, groups, vectors, BLOCK: tl.constexpr, CL: tl.constexpr):
    """Map, column group and channel vector of each lane, and whether it exists; [BLOCK, 1] in channels_last layout.

    Lanes that do not exist repeat the last one: they may load, and must not store.
    """
    lane = chunk * BLOCK + tl.arange(0, BLOCK)
    if CL:
        lane = tl.expand_dims(lane, 1)
    live = lane < lanes
    lane = tl.minimum(lane, lanes - 1).to(tl.uint32)
    if CL:
        vector = (lane % vectors.to(tl.uint32)).to(tl.int32)
        lane = lane // vectors.to(tl.uint32)
    else:
        vector = (lane * 0).to(tl.int32)
    group = (lane % groups.to(tl.uint32)).to(tl.int32)
    return (lane // groups.to(tl.uint32)).to(tl.int32), group, vector, live


@triton.jit
def everywhere(condition, lanes):
    """A scalar condition as a mask of the shape of `lanes`."""
    return (lanes * 0 + condition.to(tl.int32)) != 0


@triton.jit
def map_pointers(base, map, vector, height, width, vectors,
                 V: tl.constexpr, VEC: tl.constexpr, CL: tl.constexpr, VECTOR: tl.constexpr):
    """Where each lane's map starts, or in channels_last layout its channel vector of that map."""
    if CL:
        first = (map.to(tl.int64) * height * width * vectors + vector) * VEC
        return base + first + tl.expand_dims(tl.arange(0, VEC), 0)
    elif VECTOR:
        return base + map.to(tl.int64) * height * (width // V) * V
    else:
        return base + map.to(tl.int64) * height * width


@triton.jit
def group_pointers(maps, group, vectors, V: tl.constexpr, VEC: tl.constexpr, CL: tl.constexpr):
    """Where each lane's first column of row 0 is."""
    if CL:
        return maps + group * vectors * (V * VEC)
    else:
        return maps + group * V


@triton.jit
def row_pointers(at, row, width, vectors, V: tl.constexpr, VEC: tl.constexpr, CL: tl.constexpr, VECTOR: tl.constexpr,
                 WIDE: tl.constexpr):
    """The pointers `at`, moved down to `row`; WIDE for maps of 2^31 elements and more."""
    if WIDE:
        row = tl.full([], 0, tl.int64) + row
    if CL:
        return at + row * width * vectors * VEC
    elif VECTOR:
        return at + tl.multiple_of(row * width, V)
    else:
        return at + row * width


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
def column_at(maps, c, ok, width, vectors, fill, VEC: tl.constexpr, CL: tl.constexpr, CHECKED: tl.constexpr,
              MASKED: tl.constexpr):
    """Column c, a tensor, of the row at `maps`; CHECKED: `fill` where c is beyond the map, MASKED: where not `ok`."""
    if CL:
        at = maps + c * vectors * VEC
    else:
        at = maps + c
    inside = ok
    if CHECKED:
        inside = (c >= 0) & (c < width)
        if MASKED:
            inside = inside & ok
    return pixel(at, inside, fill, CHECKED or MASKED, True)


@triton.jit
def column(at, group, ok, COLUMN: tl.constexpr, width, vectors, fill, V: tl.constexpr, VEC: tl.constexpr,
           CL: tl.constexpr, MASKED: tl.constexpr, FILLED: tl.constexpr):
    """Column COLUMN of each group in the row at `at`."""
    c = group * V + COLUMN
    inside = c < width  # also for columns on the left: the backward has groups that begin beyond the output
    if COLUMN < 0:
        inside = inside & (c >= 0)
    if MASKED:
        inside = inside & ok
    if CL:
        return pixel(at + COLUMN * vectors * VEC, inside, fill, True, FILLED)
    else:
        return pixel(at + COLUMN, inside, fill, True, FILLED)


@triton.jit
def group_of(at, group, ok, width, fill, V: tl.constexpr, MASKED: tl.constexpr, FULL: tl.constexpr):
    """The V columns of each group in the row at `at` by one load; FULL if no group is beyond the map."""
    inside = group < width // V
    if MASKED:
        inside = inside & ok
    at = tl.expand_dims(at, 1) + tl.expand_dims(tl.arange(0, V), 0)
    return to_columns(pixel(at, tl.expand_dims(inside, 1), fill, MASKED or not FULL, True), V)


@triton.jit
def columns_of(maps, groups_at, group, row, ok, width, vectors, fill,
               FIRST: tl.constexpr, COUNT: tl.constexpr, V: tl.constexpr, VEC: tl.constexpr, CL: tl.constexpr,
               VECTOR: tl.constexpr, MASKED: tl.constexpr, FILLED: tl.constexpr, FULL: tl.constexpr,
               WRAP: tl.constexpr, TINY: tl.constexpr, WIDE: tl.constexpr):
    """Columns FIRST..FIRST+COUNT-1 of each group in `row`; with VECTOR those of the group itself by one load.

    Beyond the map, and with MASKED where not `ok`, they are `fill` (with FILLED, else anything); with WRAP the
    opposite side's.
    """
    at = row_pointers(groups_at, row, width, vectors, V, VEC, CL, VECTOR, WIDE)
    if VECTOR:
        whole = group_of(at, group, ok, width, fill, V, MASKED, FULL)
    if WRAP:
        row_at = row_pointers(maps, row, width, vectors, V, VEC, CL, VECTOR, WIDE)
    columns = ()
    for k in tl.static_range(COUNT):
        if VECTOR and (FIRST + k >= 0 and FIRST + k < V):
            columns = columns + (whole[FIRST + k],)
        elif WRAP:
            c = border(group * V + (FIRST + k), width, CIRCULAR, TINY)
            columns = columns + (column_at(row_at, c, ok, width, vectors, fill, VEC, CL, False, MASKED),)
        else:
            columns = columns + (
                column(at, group, ok, FIRST + k, width, vectors, fill, V, VEC, CL, MASKED, FILLED),
            )
    return columns


@triton.jit
def store_columns(columns, groups_at, group, row, live, width, vectors, V: tl.constexpr, VEC: tl.constexpr,
                  CL: tl.constexpr, VECTOR: tl.constexpr, WIDE: tl.constexpr):
    """Write each group's V columns of `row`; lanes that are not `live` write nothing."""
    kind = groups_at.dtype.element_ty
    at = row_pointers(groups_at, row, width, vectors, V, VEC, CL, VECTOR, WIDE)
    if VECTOR:
        at = tl.expand_dims(at, 1) + tl.expand_dims(tl.arange(0, V), 0)
        tl.store(at, from_columns(columns, V).to(kind), mask=tl.expand_dims(live & (group < width // V), 1))
    else:
        for k in tl.static_range(V):
            if CL:
                tl.store(at + k * vectors * VEC, columns[k].to(kind), mask=live & (group * V + k < width))
            else:
                tl.store(at + k, columns[k].to(kind), mask=live & (group * V + k < width))


@triton.jit
def as_float(row):
    """The row in float32."""
    out = ()
    for k in tl.static_range(len(row)):
        out = out + (row[k].to(tl.float32),)
    return out


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
def none_yet(COUNT: tl.constexpr, BLOCK: tl.constexpr, VEC: tl.constexpr, CL: tl.constexpr, kind: tl.constexpr):
    """A row of COUNT zeros, the initial value of a row that a loop carries."""
    row = ()
    for _ in tl.static_range(COUNT):
        if CL:
            row = row + (tl.zeros([BLOCK, VEC], kind),)
        else:
            row = row + (tl.zeros([BLOCK], kind),)
    return row


@triton.jit
def keep_if(condition, row):
    """The row where `condition` holds, else 0."""
    out = ()
    for k in tl.static_range(len(row)):
        out = out + (tl.where(condition, row[k], 0.0),)
    return out
