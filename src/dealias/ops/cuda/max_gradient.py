"""The backward kernel of the maximum and the blur behind it: the maximum is found again from the input."""

import triton
import triton.language as tl

from dealias.ops.cuda.blur_gradient import blur_back_along_x, dense_rows, gradient_row
from dealias.ops.cuda.parts import (
    CIRCULAR,
    REPLICATE,
    as_float,
    border,
    columns_of,
    everywhere,
    greater,
    group_pointers,
    locate,
    map_pointers,
    none_yet,
    store_columns,
)


@triton.jit
def _beats(later, earlier):
    """Whether a later element of a window takes over: ties stay with the first, and the last NaN wins."""
    return (later > earlier) | (later != later)


@triton.jit
def _maxima_along_x(given, KW: tl.constexpr):
    """The maxima of the windows that start in each column."""
    out = ()
    for k in tl.static_range(len(given) - KW + 1):
        best = given[k]
        for t in tl.static_range(1, KW):
            best = greater(best, given[k + t])
        out = out + (best,)
    return out


@triton.jit
def _handed_on(sums):
    """The rows' sums, with the second row's raised by the first's."""
    row = ()
    for c in tl.static_range(len(sums[0])):
        row = row + (sums[0][c] + sums[1][c],)
    out = (sums[0], row)
    for u in tl.static_range(2, len(sums)):
        out = out + (sums[u],)
    return out


@triton.jit
def _split_along_x(given, sums, group, FIRST: tl.constexpr, KW: tl.constexpr, BW: tl.constexpr, V: tl.constexpr):
    """Hand what the windows of a row received to their winners: the gradients of the V columns of each group.

    `given` are the row's columns from FIRST on, `sums` what the windows that start in them received.
    """
    shares = ()
    for k in tl.static_range(len(sums)):
        best = given[k]
        wins = ()
        for t in tl.static_range(1, KW):
            win = _beats(given[k + t], best)
            if t < KW - 1:
                best = tl.where(win, given[k + t], best)
            wins = wins + (win,)
        shares = shares + (_shares(sums[k], wins, KW - 1),)
    out = ()
    for c in tl.static_range(V):
        total = shares[c + KW - 1][0]
        for t in tl.static_range(1, KW):
            total += shares[c + KW - 1 - t][t]
        if BW > 0 and c == 0:  # padding wins where all is -inf: the first element behind it takes the gradient
            total += tl.where(group == 0, shares[-1 - FIRST][0], 0.0)
        out = out + (total,)
    return out


@triton.jit
def _shares(value, wins, COUNT: tl.constexpr):
    """The gradient of a window for each of its elements, the winner's being `value` and all others 0."""
    shares = ()
    left = value
    for t in tl.static_range(COUNT):
        win = wins[COUNT - 1 - t]
        shares = (tl.where(win, left, 0.0),) + shares
        left = tl.where(win, 0.0, left)
    return (left,) + shares


@triton.jit(
    do_not_specialize=["lanes", "groups", "vectors", "H", "W", "HO", "WO", "HD", "WD", "blocks",
                       "steps_of_block"],
)
def max_backward(grad, x, out, down, along, lanes, groups, vectors, H, W, HO, WO, HD, WD, blocks, steps_of_block,
                 SH: tl.constexpr, SW: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, BH: tl.constexpr,
                 BW: tl.constexpr, MODE: tl.constexpr, WRAP: tl.constexpr, PADDED: tl.constexpr, TINY: tl.constexpr,
                 CL: tl.constexpr, VEC: tl.constexpr, G: tl.constexpr, BLOCK: tl.constexpr,
                 FIRST: tl.constexpr, COUNT: tl.constexpr,
                 LAST: tl.constexpr, LOADS: tl.constexpr, STORES: tl.constexpr, FULL: tl.constexpr, WIDE: tl.constexpr,
                 FOLDS: tl.constexpr, NEAR_H: tl.constexpr, EXTRA_H: tl.constexpr):
    """Each step of a lane computes SH rows of G * SW input columns; `launch` explains the arguments.

    The winner of a window is found along x in each input row, then along y among the rows' maxima; the gradient goes
    the same way back.
    """
    V: tl.constexpr = G * SW
    PB: tl.constexpr = (len(down) - 1) // 2
    ROW: tl.constexpr = (BH + PB - len(down) + SH) // SH
    KEPT: tl.constexpr = (SH - 1 + BH + PB) // SH - ROW
    LOW: tl.constexpr = BW - KW + 1
    DENSE: tl.constexpr = V + KW - 1
    WARM: tl.constexpr = (2 * (KH - 1) + SH - 1) // SH
    block = tl.program_id(0) % blocks
    map, group, vector, live = locate(tl.program_id(0) // blocks, lanes, groups, vectors, BLOCK, CL)
    maps = map_pointers(grad, map, vector, HO, WO, vectors, G, VEC, CL, LOADS)
    groups_at = group_pointers(maps, group, vectors, G, VEC, CL)
    out_maps = map_pointers(out, map, vector, H, W, vectors, V, VEC, CL, STORES)
    outs_at = group_pointers(out_maps, group, vectors, V, VEC, CL)
    x_maps = map_pointers(x, map, vector, H, W, vectors, V, VEC, CL, STORES)
    x_at = group_pointers(x_maps, group, vectors, V, VEC, CL)

    start = block * steps_of_block
    given = ()  # output rows that the next step needs again
    for _ in tl.static_range(KEPT):
        given = given + (none_yet(COUNT, BLOCK, VEC, CL, tl.float32),)
    above = ()  # the input rows that the next dense row needs again, their maxima along x,
    maxima = ()
    shares = ()  # and what dense rows further up gave to their windows
    for _ in tl.static_range(KH - 1):
        above = above + (none_yet(DENSE + KW - 1, BLOCK, VEC, CL, x.dtype.element_ty),)
        maxima = maxima + (none_yet(DENSE, BLOCK, VEC, CL, tl.float32),)
        shares = shares + (none_yet(DENSE, BLOCK, VEC, CL, tl.float32),)
    for m in range(start - WARM - KEPT, tl.minimum(start + steps_of_block, (H + SH - 1) // SH)):
        given = given + (
            gradient_row(maps, groups_at, group, m + ROW + KEPT, HO, WO, vectors, FIRST, COUNT, G, VEC, CL, LOADS, FULL,
                         0, 0, WRAP, TINY, WIDE),
        )
        if m >= start - WARM:
            fresh = ()
            for k in tl.static_range(SH):
                h = m * SH + k + KH - 1
                if WRAP:
                    h = border(h, H, CIRCULAR, TINY)
                elif not PADDED:  # where the map ends no gradient arrives
                    h = border(h, H, REPLICATE, TINY)
                ok = everywhere((h >= 0) & (h < H), group)
                fresh = fresh + (
                    columns_of(x_maps, x_at, group, h, ok, W, vectors, float("-inf"), LOW - BW, DENSE + KW - 1, V, VEC,
                               CL, STORES, PADDED, PADDED, FULL, WRAP, TINY, WIDE),
                )
            rows = dense_rows(given, maps, groups_at, group, down, m * SH + BH, HD, HO, WO, vectors, BH, ROW, FIRST,
                              COUNT, SH, G, VEC, CL, LOADS, FULL, MODE, not WRAP, NEAR_H, EXTRA_H, 0, 0, WRAP, TINY,
                              WIDE)
            for k in tl.static_range(SH):
                h = m * SH + k
                above = above + (fresh[k],)
                maxima = maxima + (_maxima_along_x(as_float(fresh[k]), KW),)
                dense = blur_back_along_x(rows[k], along, group, groups, (), LOW, DENSE, SW, FIRST, COUNT, 0, FOLDS)
                received = ()
                for c in tl.static_range(DENSE):
                    value = dense[c]
                    if not WRAP and (LOW + c < 0 or LOW + c > LAST):
                        d = group * V + (LOW + c)
                        value = tl.where((d >= 0) & (d < WD), value, 0.0)
                    best = maxima[0][c]
                    rows_win = ()
                    for u in tl.static_range(1, KH):
                        win = _beats(maxima[u][c], best)
                        if u < KH - 1:
                            best = tl.where(win, maxima[u][c], best)
                        rows_win = rows_win + (win,)
                    received = received + (_shares(value, rows_win, KH - 1),)
                sums = ()
                for u in tl.static_range(KH):
                    row = ()
                    for c in tl.static_range(DENSE):
                        total = received[c][u]
                        if u < KH - 1:
                            total += shares[u][c]
                        row = row + (total,)
                    sums = sums + (row,)
                result = _split_along_x(as_float(above[0]), sums[0], group, LOW - BW, KW, BW, V)
                mine = live & everywhere((m >= start) & (h < H), group)
                store_columns(result, outs_at, group, h, mine, W, vectors, V, VEC, CL, STORES, WIDE)
                lower_rows = ()
                lower_maxima = ()
                shares = ()
                if BH > 0:
                    if h < 0:  # as in `_split_along_x`: what padding won goes to the row behind it
                        sums = _handed_on(sums)
                for u in tl.static_range(KH - 1):
                    lower_rows = lower_rows + (above[u + 1],)
                    lower_maxima = lower_maxima + (maxima[u + 1],)
                    shares = shares + (sums[u + 1],)
                above = lower_rows
                maxima = lower_maxima
        kept = ()
        for k in tl.static_range(KEPT):
            kept = kept + (given[k + 1],)
        given = kept
