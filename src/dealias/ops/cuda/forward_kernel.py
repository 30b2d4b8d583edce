"""The forward kernel: [ReLU or maximum], blur, subsample, in one pass over the input.

A program walks down its maps: rows of the dense map (the input, or its maximum at stride 1) are filtered along x as
they come, and the last K of them make an output row.
"""

import triton
import triton.language as tl

from dealias.ops.cuda.launch import Sizes
from dealias.ops.cuda.parts import (
    CIRCULAR,
    ZEROS,
    as_float,
    border,
    column_at,
    columns_of,
    everywhere,
    greater,
    group_of,
    keep_if,
    locate,
    map_at,
    none_yet,
    row_pointers,
    store_columns,
)


@triton.jit
def _maxima_along_x(map, row, fill, WD, COUNT: tl.constexpr, KIND: tl.constexpr, P):
    """The maxima along x in an input row at the COUNT dense columns from FIRST that the outputs of a group need."""
    ok = everywhere((row >= 0) & (row < map.height), map.group)
    out = ()
    if P.SHARED:  # each input column is loaded once; the border is mended afterwards
        given = columns_of(map, row, ok, fill, P.FIRST - P.BW, COUNT + P.KW - 1, P.PADDED, P.PADDED or P.MODE == ZEROS,
                           P.INPUT, P)
        for k in tl.static_range(COUNT):
            best = given[k].to(KIND)
            for t in tl.static_range(1, P.KW):
                best = greater(best, given[k + t].to(KIND))
            out = out + (best,)
    else:  # each dense column loads its own window, wherever the border sends it
        row_at = row_pointers(map.start, row, map, P.INPUT, P)
        if P.INPUT.VECTOR:
            whole = group_of(row_pointers(map.at, row, map, P.INPUT, P), ok, fill, map, P.PADDED, P.INPUT, P)
        for k in tl.static_range(COUNT):
            if P.INPUT.VECTOR and (P.FIRST + k >= 0 and P.FIRST + k < P.INPUT.V):
                best = whole[P.FIRST + k]
            else:
                first = border(map.group * P.INPUT.V + (P.FIRST + k), WD, P.MODE, P.TINY) - P.BW
                best = column_at(row_at, first, ok, fill, map, P.KW > 1, P.PADDED, P).to(KIND)
                for t in tl.static_range(1, P.KW):
                    c = first + t
                    if P.WRAP:
                        c = border(c, map.width, CIRCULAR, P.TINY)
                    best = greater(best, column_at(row_at, c, ok, fill, map, True, P.PADDED, P).to(KIND))
            out = out + (best.to(KIND),)
    return out


@triton.jit
def _greater_rows(a, b):
    out = ()
    for k in tl.static_range(len(a)):
        out = out + (greater(a[k], b[k]),)
    return out


@triton.jit
def _mend(dense, map, groups, WD, P):
    """Put the border rule's columns where a group's dense columns lie outside the map.

    LAST is the map's last column, counted from the last group's first.
    """
    out = ()
    for k in tl.static_range(len(dense)):
        value = dense[k]
        if P.MODE == ZEROS:
            if P.FIRST + k < 0 or P.FIRST + k > P.LAST:
                c = map.group * P.INPUT.V + (P.FIRST + k)
                value = tl.where((c >= 0) & (c < WD), value, 0.0)
        else:
            for f in tl.static_range(len(P.FOLDS)):
                if P.FIRST + k == P.FOLDS[f].TO:
                    there = map.group == (groups - 1 - P.FOLDS[f].GROUP if P.FOLDS[f].FROM_END else P.FOLDS[f].GROUP)
                    value = tl.where(there, dense[P.FOLDS[f].SOURCE - P.FIRST], value)
        out = out + (value,)
    return out


@triton.jit
def _blur(values, taps, FROM: tl.constexpr):
    total = values[FROM] * taps[0]
    for a in tl.static_range(1, len(taps)):
        total += values[FROM + a] * taps[a]
    return total


@triton.jit
def _blur_along_x(dense, taps, SKIP: tl.constexpr, P):
    passed = dense
    if P.RELU:
        passed = [tl.maximum(column, 0.0, propagate_nan=tl.PropagateNan.ALL) for column in dense]
    out = ()
    for g in tl.static_range(P.OUTPUT.V):
        out = out + (_blur(passed, taps, g * P.SW + SKIP),)
    return out


@triton.jit
def _blur_along_y(rows, taps, G: tl.constexpr):
    out = ()
    for g in tl.static_range(G):
        out = out + (_blur([row[g] for row in rows], taps, 0),)
    return out


@triton.jit(do_not_specialize=Sizes._fields)
def blur_pool(x, y, down, along, lanes, groups, vectors, H, W, HO, WO, HD, WD, blocks, steps_of_block,
              P: tl.constexpr):
    """Each lane computes up to `steps_of_block` rows of G output columns; `launch` explains the arguments.

    `down` are the taps along y, `along` those along x.
    """
    sizes = Sizes(lanes, groups, vectors, H, W, HO, WO, HD, WD, blocks, steps_of_block)
    K: tl.constexpr = len(down)
    PB: tl.constexpr = (K - 1) // 2
    LEAD: tl.constexpr = (len(along) - 1) // 2
    COUNT: tl.constexpr = (P.OUTPUT.V - 1) * P.SW + len(along) - LEAD - P.FIRST
    NEW: tl.constexpr = P.SH if P.SH < K else K
    KEPT: tl.constexpr = K - NEW
    WARM: tl.constexpr = (KEPT + P.SH - 1) // P.SH
    KIND: tl.constexpr = x.dtype.element_ty if P.PACKED else tl.float32
    block = tl.program_id(0) % sizes.blocks
    place = locate(tl.program_id(0) // sizes.blocks, sizes, P)
    given = map_at(x, place, sizes.H, sizes.W, sizes.vectors, P.INPUT, P)
    result = map_at(y, place, sizes.HO, sizes.WO, sizes.vectors, P.OUTPUT, P)
    if P.KW > 1 or P.KH > 1:
        fill = float("-inf")
    else:
        fill = 0.0

    kept = ()  # dense rows filtered along x that the next output row needs again
    for _ in tl.static_range(KEPT):
        kept = kept + (none_yet(P.OUTPUT.V, tl.float32, P),)
    above = ()  # maxima along x of the input rows that the next dense row needs again, if it is row `next`
    for _ in tl.static_range(P.KH - 1):
        above = above + (none_yet(COUNT, KIND, P),)
    next = -1
    start = block * sizes.steps_of_block
    for i in range(start - WARM, tl.minimum(start + sizes.steps_of_block, sizes.HO)):
        lowest = ()  # of each new dense row the lowest input row, loaded before the first is used
        for s in tl.static_range(NEW):
            h = border(i * P.SH - PB + KEPT + s, sizes.HD, P.MODE, P.TINY) - P.BH + (P.KH - 1)
            if P.WRAP:
                h = border(h, sizes.H, CIRCULAR, P.TINY)
            lowest = lowest + (_maxima_along_x(given, h, fill, sizes.WD, COUNT, KIND, P),)
        rows = kept
        for s in tl.static_range(NEW):
            p = i * P.SH - PB + KEPT + s
            dense = lowest[s]
            if P.KH > 1:
                q = border(p, sizes.HD, P.MODE, P.TINY)
                if q != next:
                    fresh = ()
                    for u in tl.static_range(P.KH - 1):
                        h = q - P.BH + u
                        if P.WRAP:
                            h = border(h, sizes.H, CIRCULAR, P.TINY)
                        fresh = fresh + (_maxima_along_x(given, h, fill, sizes.WD, COUNT, KIND, P),)
                    above = fresh
                next = q + 1
                for u in tl.static_range(P.KH - 1):
                    dense = _greater_rows(above[u], dense)
                above = above[1:] + (lowest[s],)
            blurred = _blur_along_x(_mend(as_float(dense), given, sizes.groups, sizes.WD, P), along, -LEAD - P.FIRST, P)
            if P.MODE == ZEROS:
                blurred = keep_if(everywhere((p >= 0) & (p < sizes.HD), given.group), blurred)
            rows = rows + (blurred,)
        if i >= start:
            store_columns(_blur_along_y(rows, down, P.OUTPUT.V), result, i, place.live, P.OUTPUT, P)
        kept = rows[NEW:]
