"""The backward kernel of the blur, and what that of the maximum shares with it.

Each input pixel gathers its gradient from the outputs that it reached: no atomics.

The blur is linear. The gradient of the padded dense map is the transposed filter of the output's gradient; the parts
that lie in the padding are then folded onto the pixels that the border rule copied there. Along y this is done by
the few output rows next to the border ("extra" rows), along x between the columns of the border groups (FOLDS) or,
where the border rule leaves the group, by the few output columns next to the border ("extra" columns).
"""

import triton
import triton.language as tl

from dealias.ops.cuda.parts import (
    CIRCULAR,
    as_float,
    border,
    column_at,
    columns_of,
    everywhere,
    group_pointers,
    keep_if,
    locate,
    map_pointers,
    none_yet,
    row_pointers,
    store_columns,
)


@triton.jit
def _times(row, weight):
    out = ()
    for k in tl.static_range(len(row)):
        out = out + (row[k] * weight,)
    return out


@triton.jit
def _plus(row, other, weight):
    out = ()
    for k in tl.static_range(len(row)):
        out = out + (row[k] + other[k] * weight,)
    return out


@triton.jit
def _weighted(value, weight):
    """value * weight; 0 for weight 0 also where the value is infinite or NaN."""
    return tl.where(weight == 0.0, 0.0, value * weight)


@triton.jit
def _plus_weighted(row, other, weight):
    out = ()
    for k in tl.static_range(len(row)):
        out = out + (row[k] + _weighted(other[k], weight),)
    return out


@triton.jit
def _relu_backward(x, row):
    """The gradient where not x <= 0: a NaN passes it on."""
    out = ()
    for k in tl.static_range(len(row)):
        out = out + (tl.where(x[k] <= 0.0, 0.0, row[k]),)
    return out


@triton.jit
def _zeros(row):
    out = ()
    for k in tl.static_range(len(row)):
        out = out + (tl.zeros_like(row[k]),)
    return out


@triton.jit
def _extra(index, near: tl.constexpr, count: tl.constexpr, outputs):
    """The index-th of the outputs whose filter reaches beyond the map: `near` at its start, the others at its end."""
    if index < near:
        return index
    else:
        return outputs - count + index


@triton.jit
def _folded_weight(at, start, size, taps, MODE: tl.constexpr, TINY: tl.constexpr):
    """How much of the output whose filter starts at `start` reaches pixel `at` by way of the border."""
    weight = 0.0
    for a in tl.static_range(len(taps)):
        p = start + a
        beyond = (p < 0) | (p >= size)
        weight += tl.where(beyond & (border(p, size, MODE, TINY) == at), taps[a], 0.0)
    return weight


@triton.jit
def gradient_row(maps, groups_at, group, i, HO, WO, vectors, FIRST: tl.constexpr, COUNT: tl.constexpr,
                 G: tl.constexpr, VEC: tl.constexpr, CL: tl.constexpr, VECTOR: tl.constexpr, FULL: tl.constexpr,
                 NEAR: tl.constexpr, EXTRA: tl.constexpr, WRAP: tl.constexpr, TINY: tl.constexpr,
                 WIDE: tl.constexpr):
    """Output gradients of row i: columns FIRST..FIRST+COUNT-1 of each group, then the EXTRA ones; 0 beyond the map."""
    if WRAP:
        i = border(i, HO, CIRCULAR, TINY)
    ok = everywhere((i >= 0) & (i < HO), group)
    row = columns_of(maps, groups_at, group, i, ok, WO, vectors, 0.0, FIRST, COUNT, G, VEC, CL, VECTOR, True, True,
                     FULL, WRAP, TINY, WIDE)
    for k in tl.static_range(EXTRA):
        at = row_pointers(maps, i, WO, vectors, G, VEC, CL, VECTOR, WIDE)
        row = row + (column_at(at, group * 0 + _extra(k, NEAR, EXTRA, WO), ok, WO, vectors, 0.0, VEC, CL, False, True),)
    return as_float(row)


@triton.jit
def _blur_back_along_y(rows, taps, AT: tl.constexpr, ROW: tl.constexpr, SH: tl.constexpr):
    """Row AT of the dense map from output rows ROW, ROW + 1, ...; both count from the block's first row."""
    FROM: tl.constexpr = AT + (len(taps) - 1) // 2
    FIRST: tl.constexpr = FROM % SH  # the first tap that falls on an output row
    if len(taps) > FIRST:
        total = _times(rows[(FROM - FIRST) // SH - ROW], taps[FIRST])
        for a in tl.static_range(FIRST + SH, len(taps), SH):
            total = _plus(total, rows[(FROM - a) // SH - ROW], taps[a])
        return total
    else:
        return _zeros(rows[0])


@triton.jit
def _blur_back_at(row, taps, FROM: tl.constexpr, SW: tl.constexpr, COUNT: tl.constexpr):
    """A column of the padded dense map, whose filter's end stands FROM input columns after output column 0 of `row`.

    Outputs that are not among the COUNT of `row` are known to be 0 there.
    """
    parts = ()
    for a in tl.static_range(len(taps)):
        if (FROM - a) % SW == 0 and (FROM - a >= 0 and FROM - a < COUNT * SW):
            parts = parts + (row[(FROM - a) // SW] * taps[a],)
    if len(parts) == 0:
        return tl.zeros_like(row[0])
    else:
        total = parts[0]
        for part in tl.static_range(1, len(parts)):
            total += parts[part]
        return total


@triton.jit
def _fold(total, row, taps, group, groups, COLUMN: tl.constexpr, SW: tl.constexpr, FIRST: tl.constexpr,
          COUNT: tl.constexpr, FROM_END: tl.constexpr, GROUP: tl.constexpr, TO: tl.constexpr, SOURCE: tl.constexpr):
    if TO == COLUMN:
        there = group == (groups - 1 - GROUP if FROM_END else GROUP)
        part = _blur_back_at(row, taps, SOURCE + (len(taps) - 1) // 2 - FIRST * SW, SW, COUNT)
        return total + tl.where(there, part, 0.0)
    else:
        return total


@triton.jit
def blur_back_along_x(row, taps, group, groups, weights, LOW: tl.constexpr, WIDE: tl.constexpr, SW: tl.constexpr,
                      FIRST: tl.constexpr, COUNT: tl.constexpr, EXTRA: tl.constexpr, FOLDS: tl.constexpr):
    """The WIDE dense columns from LOW on of each group, with what the border folds onto them."""
    out = ()
    for k in tl.static_range(WIDE):
        total = _blur_back_at(row, taps, LOW + k + (len(taps) - 1) // 2 - FIRST * SW, SW, COUNT)
        for f in tl.static_range(len(FOLDS)):
            total = _fold(total, row, taps, group, groups, LOW + k, SW, FIRST, COUNT,
                          FOLDS[f][0], FOLDS[f][1], FOLDS[f][2], FOLDS[f][3])
        for e in tl.static_range(EXTRA):
            total += _weighted(row[COUNT + e], weights[k * EXTRA + e])
        out = out + (total,)
    return out


@triton.jit
def dense_rows(given, maps, groups_at, group, taps, first, HD, HO, WO, vectors, AT: tl.constexpr, ROW: tl.constexpr,
               FIRST: tl.constexpr, COUNT: tl.constexpr, SH: tl.constexpr, G: tl.constexpr, VEC: tl.constexpr,
               CL: tl.constexpr, VECTOR: tl.constexpr, FULL: tl.constexpr, MODE: tl.constexpr, CUT: tl.constexpr,
               NEAR_H: tl.constexpr, EXTRA_H: tl.constexpr, NEAR_W: tl.constexpr, EXTRA_W: tl.constexpr,
               WRAP: tl.constexpr, TINY: tl.constexpr, WIDE: tl.constexpr):
    """SH rows of the dense map's gradient from row `first` on, before the transposed filter along x.

    `given` are the output rows from ROW on, for `first` at AT. CUT: rows beyond the map are to be 0.
    """
    rows = ()
    for k in tl.static_range(SH):
        rows = rows + (_blur_back_along_y(given, taps, AT + k, ROW, SH),)
    if EXTRA_H > 0 or CUT:
        reach: tl.constexpr = len(taps) // 2
        if (first <= reach) | (first + SH >= HD - reach) | TINY:
            for e in range(EXTRA_H):
                i = tl.where(e < NEAR_H, e, HO - EXTRA_H + e)
                far = gradient_row(maps, groups_at, group, i, HO, WO, vectors, FIRST, COUNT, G, VEC, CL, VECTOR, FULL,
                                   NEAR_W, EXTRA_W, WRAP, TINY, WIDE)
                more = ()
                for k in tl.static_range(SH):
                    weight = _folded_weight(first + k, i * SH - (len(taps) - 1) // 2, HD, taps, MODE, TINY)
                    more = more + (_plus_weighted(rows[k], far, weight),)
                rows = more
            if CUT:
                kept = ()
                for k in tl.static_range(SH):
                    kept = kept + (keep_if(everywhere((first + k >= 0) & (first + k < HD), group), rows[k]),)
                rows = kept
    return rows


@triton.jit
def _column_weights(group, WD, WO, taps, LOW: tl.constexpr, WIDE: tl.constexpr, V: tl.constexpr, SW: tl.constexpr,
                    MODE: tl.constexpr, TINY: tl.constexpr, NEAR: tl.constexpr, EXTRA: tl.constexpr):
    """How much of each extra output column reaches each of a group's dense columns."""
    weights = ()
    for k in tl.static_range(WIDE):
        for e in tl.static_range(EXTRA):
            start = _extra(e, NEAR, EXTRA, WO) * SW - (len(taps) - 1) // 2
            weights = weights + (_folded_weight(group * V + (LOW + k), start, WD, taps, MODE, TINY),)
    return weights


@triton.jit(
    do_not_specialize=["lanes", "groups", "vectors", "H", "W", "HO", "WO", "blocks",
                       "steps_of_block"],
)
def blur_backward(grad, x, out, down, along, lanes, groups, vectors, H, W, HO, WO, blocks, steps_of_block,
                  SH: tl.constexpr, SW: tl.constexpr, MODE: tl.constexpr, RELU: tl.constexpr, TINY: tl.constexpr,
                  CL: tl.constexpr, VEC: tl.constexpr, G: tl.constexpr, BLOCK: tl.constexpr,
                  FIRST: tl.constexpr, COUNT: tl.constexpr, LOADS: tl.constexpr, STORES: tl.constexpr,
                  FULL: tl.constexpr, WIDE: tl.constexpr, FOLDS: tl.constexpr, NEAR_H: tl.constexpr,
                  EXTRA_H: tl.constexpr, NEAR_W: tl.constexpr, EXTRA_W: tl.constexpr):
    """Each step of a lane computes SH rows of G * SW input columns; `launch` explains the arguments."""
    V: tl.constexpr = G * SW
    PB: tl.constexpr = (len(down) - 1) // 2
    ROW: tl.constexpr = (PB - len(down) + SH) // SH
    KEPT: tl.constexpr = (SH - 1 + PB) // SH - ROW
    block = tl.program_id(0) % blocks
    map, group, vector, live = locate(tl.program_id(0) // blocks, lanes, groups, vectors, BLOCK, CL)
    maps = map_pointers(grad, map, vector, HO, WO, vectors, G, VEC, CL, LOADS)
    groups_at = group_pointers(maps, group, vectors, G, VEC, CL)
    out_maps = map_pointers(out, map, vector, H, W, vectors, V, VEC, CL, STORES)
    outs_at = group_pointers(out_maps, group, vectors, V, VEC, CL)
    x_maps = map_pointers(x, map, vector, H, W, vectors, V, VEC, CL, STORES)
    x_at = group_pointers(x_maps, group, vectors, V, VEC, CL)
    weights = _column_weights(group, W, WO, along, 0, V, V, SW, MODE, TINY, NEAR_W, EXTRA_W)

    start = block * steps_of_block
    given = ()  # output rows that the next step needs again
    for _ in tl.static_range(KEPT):
        given = given + (none_yet(COUNT + EXTRA_W, BLOCK, VEC, CL, tl.float32),)
    for m in range(start - KEPT, tl.minimum(start + steps_of_block, (H + SH - 1) // SH)):
        given = given + (
            gradient_row(maps, groups_at, group, m + ROW + KEPT, HO, WO, vectors, FIRST, COUNT, G, VEC, CL, LOADS,
                         FULL, NEAR_W, EXTRA_W, False, TINY, WIDE),
        )
        if m >= start:
            passed = ()
            if RELU:
                for k in tl.static_range(SH):
                    h = m * SH + k
                    passed = passed + (
                        columns_of(x_maps, x_at, group, h, everywhere(h < H, group), W, vectors, 0.0, 0, V, V, VEC, CL,
                                   STORES, True, True, FULL, False, TINY, WIDE),
                    )
            rows = dense_rows(given, maps, groups_at, group, down, m * SH, H, HO, WO, vectors, 0, ROW, FIRST, COUNT, SH,
                              G, VEC, CL, LOADS, FULL, MODE, False, NEAR_H, EXTRA_H, NEAR_W, EXTRA_W, False, TINY, WIDE)
            for k in tl.static_range(SH):
                h = m * SH + k
                row = blur_back_along_x(rows[k], along, group, groups, weights, 0, V, SW, FIRST, COUNT, EXTRA_W, FOLDS)
                if RELU:
                    row = _relu_backward(as_float(passed[k]), row)
                mine = live & everywhere(h < H, group)
                store_columns(row, outs_at, group, h, mine, W, vectors, V, VEC, CL, STORES, WIDE)
        kept = ()
        for k in tl.static_range(KEPT):
            kept = kept + (given[k + 1],)
        given = kept
