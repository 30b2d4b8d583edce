"""The backward kernel of the blur, and what that of the maximum shares with it.

Each input pixel gathers its gradient from the outputs that it reached: no atomics.

The blur is linear. The gradient of the padded dense map is the transposed filter of the output's gradient; the parts
that lie in the padding are then folded onto the pixels that the border rule copied there. Along y this is done by
the few output rows next to the border ("extra" rows), along x between the columns of the border groups (FOLDS) or,
where the border rule leaves the group, by the few output columns next to the border ("extra" columns).
"""

import triton
import triton.language as tl

from dealias.ops.cuda.launch import Sizes
from dealias.ops.cuda.parts import (
    CIRCULAR,
    as_float,
    border,
    column_at,
    columns_of,
    everywhere,
    keep_if,
    locate,
    map_at,
    none_yet,
    row_pointers,
    store_columns,
)


@triton.jit
def _weighted(value, weight):
    """value * weight; 0 for weight 0 also where the value is infinite or NaN."""
    return tl.where(weight == 0.0, 0.0, value * weight)


@triton.jit
def _extra(index, near: tl.constexpr, count: tl.constexpr, outputs):
    """The index-th of the outputs whose filter reaches beyond the map: `near` at its start, the others at its end."""
    if index < near:
        return index
    else:
        return outputs - count + index


@triton.jit
def _folded_weight(at, start, size, taps, P):
    """How much of the output whose filter starts at `start` reaches pixel `at` by way of the border."""
    weight = 0.0
    for a in tl.static_range(len(taps)):
        p = start + a
        beyond = (p < 0) | (p >= size)
        weight += tl.where(beyond & (border(p, size, P.MODE, P.TINY) == at), taps[a], 0.0)
    return weight


@triton.jit
def gradient_row(map, i, P):
    """Output gradients of row i: columns FIRST..FIRST+COUNT-1 of each group, then the EXTRA ones; 0 beyond the map."""
    if P.WRAP:
        i = border(i, map.height, CIRCULAR, P.TINY)
    ok = everywhere((i >= 0) & (i < map.height), map.group)
    row = columns_of(map, i, ok, 0.0, P.FIRST, P.COUNT, True, True, P.OUTPUT, P)
    for k in tl.static_range(P.EXTRA_W):
        at = row_pointers(map.start, i, map, P.OUTPUT, P)
        c = map.group * 0 + _extra(k, P.NEAR_W, P.EXTRA_W, map.width)
        row = row + (column_at(at, c, ok, 0.0, map, False, True, P),)
    return as_float(row)


@triton.jit
def _blur_back_along_y(rows, taps, AT: tl.constexpr, ROW: tl.constexpr, SH: tl.constexpr):
    """Row AT of the dense map from output rows ROW, ROW + 1, ...; both count from the block's first row."""
    FROM: tl.constexpr = AT + (len(taps) - 1) // 2
    FIRST: tl.constexpr = FROM % SH  # the first tap that falls on an output row
    if len(taps) > FIRST:
        total = [column * taps[FIRST] for column in rows[(FROM - FIRST) // SH - ROW]]
        for a in tl.static_range(FIRST + SH, len(taps), SH):
            row = ()
            for k in tl.static_range(len(total)):
                row = row + (total[k] + rows[(FROM - a) // SH - ROW][k] * taps[a],)
            total = row
        return total
    else:
        return [tl.zeros_like(column) for column in rows[0]]


@triton.jit
def _blur_back_at(row, taps, FROM: tl.constexpr, P):
    """A column of the padded dense map, whose filter's end stands FROM input columns after output column 0 of `row`.

    Outputs that are not among the COUNT of `row` are known to be 0 there.
    """
    parts = ()
    for a in tl.static_range(len(taps)):
        if (FROM - a) % P.SW == 0 and (FROM - a >= 0 and FROM - a < P.COUNT * P.SW):
            parts = parts + (row[(FROM - a) // P.SW] * taps[a],)
    if len(parts) == 0:
        return tl.zeros_like(row[0])
    else:
        total = parts[0]
        for part in tl.static_range(1, len(parts)):
            total += parts[part]
        return total


@triton.jit
def blur_back_along_x(row, taps, group, groups, weights, LOW: tl.constexpr, WIDE: tl.constexpr, P):
    """The WIDE dense columns from LOW on of each group, with what the border folds onto them."""
    LEAD: tl.constexpr = (len(taps) - 1) // 2 - P.FIRST * P.SW
    out = ()
    for k in tl.static_range(WIDE):
        total = _blur_back_at(row, taps, LOW + k + LEAD, P)
        for f in tl.static_range(len(P.FOLDS)):
            if LOW + k == P.FOLDS[f].TO:
                there = group == (groups - 1 - P.FOLDS[f].GROUP if P.FOLDS[f].FROM_END else P.FOLDS[f].GROUP)
                total = total + tl.where(there, _blur_back_at(row, taps, P.FOLDS[f].SOURCE + LEAD, P), 0.0)
        for e in tl.static_range(P.EXTRA_W):
            total += _weighted(row[P.COUNT + e], weights[k * P.EXTRA_W + e])
        out = out + (total,)
    return out


@triton.jit
def dense_rows(given, map, taps, first, HD, AT: tl.constexpr, ROW: tl.constexpr, CUT: tl.constexpr, P):
    """SH rows of the dense map's gradient from row `first` on, before the transposed filter along x.

    `given` are the output rows from ROW on, for `first` at AT; others are read from `map`. CUT: rows beyond the dense
    map are to be 0.
    """
    rows = ()
    for k in tl.static_range(P.SH):
        rows = rows + (_blur_back_along_y(given, taps, AT + k, ROW, P.SH),)
    if P.EXTRA_H > 0 or CUT:
        reach: tl.constexpr = len(taps) // 2
        if (first <= reach) | (first + P.SH >= HD - reach) | P.TINY:
            for e in range(P.EXTRA_H):
                i = tl.where(e < P.NEAR_H, e, map.height - P.EXTRA_H + e)
                far = gradient_row(map, i, P)
                more = ()
                for k in tl.static_range(P.SH):
                    weight = _folded_weight(first + k, i * P.SH - (len(taps) - 1) // 2, HD, taps, P)
                    row = ()
                    for c in tl.static_range(len(far)):
                        row = row + (rows[k][c] + _weighted(far[c], weight),)
                    more = more + (row,)
                rows = more
            if CUT:
                kept = ()
                for k in tl.static_range(P.SH):
                    kept = kept + (keep_if(everywhere((first + k >= 0) & (first + k < HD), map.group), rows[k]),)
                rows = kept
    return rows


@triton.jit(do_not_specialize=Sizes._fields)
def blur_backward(grad, x, out, down, along, lanes, groups, vectors, H, W, HO, WO, HD, WD, blocks, steps_of_block,
                  P: tl.constexpr):
    """Each step of a lane computes SH rows of G * SW input columns; `launch` explains the arguments."""
    sizes = Sizes(lanes, groups, vectors, H, W, HO, WO, HD, WD, blocks, steps_of_block)
    V: tl.constexpr = P.INPUT.V
    PB: tl.constexpr = (len(down) - 1) // 2
    ROW: tl.constexpr = (PB - len(down) + P.SH) // P.SH
    KEPT: tl.constexpr = (P.SH - 1 + PB) // P.SH - ROW
    block = tl.program_id(0) % sizes.blocks
    place = locate(tl.program_id(0) // sizes.blocks, sizes, P)
    upstream = map_at(grad, place, sizes.HO, sizes.WO, sizes.vectors, P.OUTPUT, P)
    result = map_at(out, place, sizes.H, sizes.W, sizes.vectors, P.INPUT, P)
    image = map_at(x, place, sizes.H, sizes.W, sizes.vectors, P.INPUT, P)
    weights = ()  # how much of each extra output column reaches each of a group's dense columns
    for k in tl.static_range(V):
        for e in tl.static_range(P.EXTRA_W):
            first = _extra(e, P.NEAR_W, P.EXTRA_W, sizes.WO) * P.SW - (len(along) - 1) // 2
            weights = weights + (_folded_weight(place.group * V + k, first, sizes.W, along, P),)

    start = block * sizes.steps_of_block
    given = ()  # output rows that the next step needs again
    for _ in tl.static_range(KEPT):
        given = given + (none_yet(P.COUNT + P.EXTRA_W, tl.float32, P),)
    for m in range(start - KEPT, tl.minimum(start + sizes.steps_of_block, (sizes.H + P.SH - 1) // P.SH)):
        given = given + (gradient_row(upstream, m + ROW + KEPT, P),)
        if m >= start:
            passed = ()
            if P.RELU:
                for k in tl.static_range(P.SH):
                    h = m * P.SH + k
                    ok = everywhere(h < sizes.H, image.group)
                    passed = passed + (columns_of(image, h, ok, 0.0, 0, V, True, True, P.INPUT, P),)
            rows = dense_rows(given, upstream, down, m * P.SH, sizes.H, 0, ROW, False, P)
            for k in tl.static_range(P.SH):
                h = m * P.SH + k
                row = blur_back_along_x(rows[k], along, image.group, sizes.groups, weights, 0, V, P)
                if P.RELU:  # the gradient passes where not x <= 0: at a NaN, too
                    masked = ()
                    for c in tl.static_range(V):
                        masked = masked + (tl.where(passed[k][c].to(tl.float32) <= 0.0, 0.0, row[c]),)
                    row = masked
                store_columns(row, result, h, place.live & everywhere(h < sizes.H, image.group), P.INPUT, P)
        given = given[1:]
