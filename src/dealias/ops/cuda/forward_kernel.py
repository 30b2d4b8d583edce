"""The forward kernel: [ReLU or maximum], blur, subsample, in one pass over the input.

A program walks down its maps: rows of the dense map (the input, or its maximum at stride 1) are filtered along x as
they come, and the last K of them make an output row.
"""

import triton
import triton.language as tl

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
    group_pointers,
    keep_if,
    locate,
    map_pointers,
    none_yet,
    row_pointers,
    store_columns,
)


@triton.jit
def _maxima_along_x(maps, groups_at, group, row, W, WD, H, vectors, fill,
                    KW: tl.constexpr, BW: tl.constexpr, MODE: tl.constexpr, WRAP: tl.constexpr, TINY: tl.constexpr,
                    FIRST: tl.constexpr, COUNT: tl.constexpr, V: tl.constexpr, VEC: tl.constexpr, CL: tl.constexpr,
                    VECTOR: tl.constexpr, SHARED: tl.constexpr, MASKED: tl.constexpr, FILLED: tl.constexpr,
                    FULL: tl.constexpr, WIDE: tl.constexpr, KIND: tl.constexpr):
    """The maxima along x in an input row at the COUNT dense columns from FIRST that the outputs of a group need."""
    ok = everywhere((row >= 0) & (row < H), group)
    out = ()
    if SHARED:  # each input column is loaded once; the border is mended afterwards
        given = columns_of(maps, groups_at, group, row, ok, W, vectors, fill, FIRST - BW, COUNT + KW - 1, V, VEC, CL,
                           VECTOR, MASKED, FILLED, FULL, WRAP, TINY, WIDE)
        for k in tl.static_range(COUNT):
            best = given[k].to(KIND)
            for t in tl.static_range(1, KW):
                best = greater(best, given[k + t].to(KIND))
            out = out + (best,)
    else:  # each dense column loads its own window, wherever the border sends it
        row_at = row_pointers(maps, row, W, vectors, V, VEC, CL, VECTOR, WIDE)
        if VECTOR:
            at = row_pointers(groups_at, row, W, vectors, V, VEC, CL, VECTOR, WIDE)
            whole = group_of(at, group, ok, W, fill, V, MASKED, FULL)
        for k in tl.static_range(COUNT):
            if VECTOR and (FIRST + k >= 0 and FIRST + k < V):
                best = whole[FIRST + k]
            else:
                first = border(group * V + (FIRST + k), WD, MODE, TINY) - BW
                best = column_at(row_at, first, ok, W, vectors, fill, VEC, CL, KW > 1, MASKED).to(KIND)
                for t in tl.static_range(1, KW):
                    c = first + t
                    if WRAP:
                        c = border(c, W, CIRCULAR, TINY)
                    best = greater(best, column_at(row_at, c, ok, W, vectors, fill, VEC, CL, True, MASKED).to(KIND))
            out = out + (best.to(KIND),)
    return out


@triton.jit
def _greater_rows(a, b):
    out = ()
    for k in tl.static_range(len(a)):
        out = out + (greater(a[k], b[k]),)
    return out


@triton.jit
def _mend_column(value, dense, group, groups, COLUMN: tl.constexpr, FIRST: tl.constexpr,
                 FROM_END: tl.constexpr, GROUP: tl.constexpr, TO: tl.constexpr, SOURCE: tl.constexpr):
    if TO == COLUMN:
        there = group == (groups - 1 - GROUP if FROM_END else GROUP)
        return tl.where(there, dense[SOURCE - FIRST], value)
    else:
        return value


@triton.jit
def _mend(dense, group, groups, WD, MODE: tl.constexpr, FIRST: tl.constexpr, V: tl.constexpr, LAST: tl.constexpr,
          FOLDS: tl.constexpr):
    """Put the border rule's columns where a group's dense columns lie outside the map.

    LAST is the map's last column, counted from the last group's first.
    """
    out = ()
    for k in tl.static_range(len(dense)):
        value = dense[k]
        if MODE == ZEROS:
            if FIRST + k < 0 or FIRST + k > LAST:
                c = group * V + (FIRST + k)
                value = tl.where((c >= 0) & (c < WD), value, 0.0)
        else:
            for f in tl.static_range(len(FOLDS)):
                value = _mend_column(value, dense, group, groups, FIRST + k, FIRST,
                                     FOLDS[f][0], FOLDS[f][1], FOLDS[f][2], FOLDS[f][3])
        out = out + (value,)
    return out


@triton.jit
def _blur_along_x(dense, taps, G: tl.constexpr, SW: tl.constexpr, SKIP: tl.constexpr, RELU: tl.constexpr):
    if RELU:
        passed = ()
        for k in tl.static_range(len(dense)):
            passed = passed + (tl.maximum(dense[k], 0.0, propagate_nan=tl.PropagateNan.ALL),)
    else:
        passed = dense
    out = ()
    for g in tl.static_range(G):
        total = passed[g * SW + SKIP] * taps[0]
        for a in tl.static_range(1, len(taps)):
            total += passed[g * SW + SKIP + a] * taps[a]
        out = out + (total,)
    return out


@triton.jit
def _blur_along_y(rows, taps, G: tl.constexpr):
    out = ()
    for g in tl.static_range(G):
        total = rows[0][g] * taps[0]
        for a in tl.static_range(1, len(taps)):
            total += rows[a][g] * taps[a]
        out = out + (total,)
    return out


@triton.jit(
    do_not_specialize=["lanes", "groups", "vectors", "H", "W", "HO", "WO", "HD", "WD", "blocks",
                       "steps_of_block"],
)
def blur_pool(x, y, down, along, lanes, groups, vectors, H, W, HO, WO, HD, WD, blocks, steps_of_block,
              SH: tl.constexpr, SW: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, BH: tl.constexpr,
              BW: tl.constexpr, MODE: tl.constexpr, WRAP: tl.constexpr, PADDED: tl.constexpr, RELU: tl.constexpr,
              CL: tl.constexpr, VEC: tl.constexpr, G: tl.constexpr, BLOCK: tl.constexpr,
              FIRST: tl.constexpr, LAST: tl.constexpr, LOADS: tl.constexpr, STORES: tl.constexpr, FULL: tl.constexpr,
              SHARED: tl.constexpr, TINY: tl.constexpr, WIDE: tl.constexpr, PACKED: tl.constexpr,
              FOLDS: tl.constexpr):
    """Each lane computes up to `steps_of_block` rows of G output columns; `launch` explains the arguments.

    `down` are the taps along y, `along` those along x.
    """
    K: tl.constexpr = len(down)
    PB: tl.constexpr = (K - 1) // 2
    LEAD: tl.constexpr = (len(along) - 1) // 2
    V: tl.constexpr = G * SW
    COUNT: tl.constexpr = (G - 1) * SW + len(along) - LEAD - FIRST
    NEW: tl.constexpr = SH if SH < K else K
    KEPT: tl.constexpr = K - NEW
    WARM: tl.constexpr = (KEPT + SH - 1) // SH
    KIND: tl.constexpr = x.dtype.element_ty if PACKED else tl.float32
    block = tl.program_id(0) % blocks
    map, group, vector, live = locate(tl.program_id(0) // blocks, lanes, groups, vectors, BLOCK, CL)
    maps = map_pointers(x, map, vector, H, W, vectors, V, VEC, CL, LOADS)
    groups_at = group_pointers(maps, group, vectors, V, VEC, CL)
    out_maps = map_pointers(y, map, vector, HO, WO, vectors, G, VEC, CL, STORES)
    outs_at = group_pointers(out_maps, group, vectors, G, VEC, CL)
    if KW > 1 or KH > 1:
        fill = float("-inf")
    else:
        fill = 0.0

    kept = ()  # dense rows filtered along x that the next output row needs again
    for _ in tl.static_range(KEPT):
        kept = kept + (none_yet(G, BLOCK, VEC, CL, tl.float32),)
    above = ()  # maxima along x of the input rows that the next dense row needs again, if it is row `next`
    for _ in tl.static_range(KH - 1):
        above = above + (none_yet(COUNT, BLOCK, VEC, CL, KIND),)
    next = -1
    start = block * steps_of_block
    for i in range(start - WARM, tl.minimum(start + steps_of_block, HO)):
        lowest = ()  # of each new dense row the lowest input row, loaded before the first is used
        for s in tl.static_range(NEW):
            h = border(i * SH - PB + KEPT + s, HD, MODE, TINY) - BH + (KH - 1)
            if WRAP:
                h = border(h, H, CIRCULAR, TINY)
            lowest = lowest + (
                _maxima_along_x(maps, groups_at, group, h, W, WD, H, vectors, fill, KW, BW, MODE, WRAP, TINY, FIRST,
                                COUNT, V, VEC, CL, LOADS, SHARED, PADDED, PADDED or MODE == ZEROS, FULL, WIDE, KIND),
            )
        rows = kept
        for s in tl.static_range(NEW):
            p = i * SH - PB + KEPT + s
            dense = lowest[s]
            if KH > 1:
                q = border(p, HD, MODE, TINY)
                if q != next:
                    fresh = ()
                    for u in tl.static_range(KH - 1):
                        h = q - BH + u
                        if WRAP:
                            h = border(h, H, CIRCULAR, TINY)
                        fresh = fresh + (
                            _maxima_along_x(maps, groups_at, group, h, W, WD, H, vectors, fill, KW, BW, MODE, WRAP,
                                            TINY, FIRST, COUNT, V, VEC, CL, LOADS, SHARED, PADDED,
                                            PADDED or MODE == ZEROS, FULL, WIDE, KIND),
                        )
                    above = fresh
                next = q + 1
                for u in tl.static_range(KH - 1):
                    dense = _greater_rows(above[u], dense)
                lower = ()
                for u in tl.static_range(1, KH - 1):
                    lower = lower + (above[u],)
                above = lower + (lowest[s],)
            mended = _mend(as_float(dense), group, groups, WD, MODE, FIRST, V, LAST, FOLDS)
            blurred = _blur_along_x(mended, along, G, SW, -LEAD - FIRST, RELU)
            if MODE == ZEROS:
                blurred = keep_if(everywhere((p >= 0) & (p < HD), group), blurred)
            rows = rows + (blurred,)
        if i >= start:
            store_columns(_blur_along_y(rows, down, G), outs_at, group, i, live, WO, vectors, G, VEC, CL, STORES, WIDE)
        kept = ()
        for k in tl.static_range(KEPT):
            kept = kept + (rows[NEW + k],)
